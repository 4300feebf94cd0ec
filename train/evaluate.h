/* evaluate: a model's score on the validation part. Language model: nll in nats per target, perplexity, bits per byte;
 * state tracking: also the accuracy at the last token of a sequence, scaled so that chance is 0 and all right is 100.
 * Forecaster: MSE and MAE in scaled units over windows, steps and columns, beside repeating the last row (the whole table
 * of `aspis eval`: train/forecast/forecast_score.h). */
#pragma once

#include "train/carry.h"
#include "train/log.h"

/* Sums over the sequences seen, in double, in order. */
typedef struct EvalSums {
  double nll;
  int64_t n_targets, n_last, n_last_right;
  double loss, squares, absolutes, naive_squares, naive_absolutes; /* forecaster */
  int64_t n_windows, n_values;
} EvalSums;

typedef struct Evaluation {
  double score; /* what best is lowest in: nll, or the forecaster's own loss; NaN: not evaluated */
  double nll, perplexity;
  double bits_per_byte;             /* NaN where it has no meaning */
  double accuracy, scaled_accuracy; /* NaN unless the dataset scores the last token; in percent */
  double baseline_nll;      /* of the validation targets under the training part's token frequencies; NaN likewise */
  double baseline_accuracy; /* of guessing, in percent; NaN likewise */
  int64_t n_targets;
  bool is_forecast;
  double mse, mae, naive_mse, naive_mae; /* of the point forecast, in scaled units */
  double loss;                           /* the score where that is not mse, else NaN */
  int64_t n_windows;
} Evaluation;

/* Adds one batch. with_logits: the accuracy too (small vocabularies). carry: NULL, or the states that its rows start from and
 * leave. Works on a dry device. */
void evaluate_batch(Model *model, Device *device, Dtype act, const Batch *batch, bool with_logits, Carry *carry,
                    EvalSums *sums);

/* Sequences of one evaluation forward: as many tokens as a micro-batch has, and a few thousand sequences at most. */
int64_t evaluate_n_seq(int64_t train_length, int64_t eval_length, int micro_batch_size);

/* Sequences of one evaluation forward over a part: its rows where they go on from batch to batch, else `otherwise`. */
int64_t evaluate_n_rows(const Dataset *dataset, DataPart part, int64_t otherwise);

/* The first n_samples samples of the part (all of them when n_samples <= 0), n_seq at a time; where rows go on (data.tbptt), as
 * many as those, and with their states: a text is then read as one pass would. show_progress: tells on
 * stderr how far it is, from two seconds on. */
Evaluation evaluate_part(Model *model, Device *device, Dtype act, Dataset *dataset, DataPart part, int64_t n_samples,
                         int64_t n_seq, bool show_progress);

/* As named values for the log and for --json: at most EVALUATION_MAX_VALUES; returns their number. training_names: nll is
 * called val_loss, mse val_mse. */
enum { EVALUATION_MAX_VALUES = 10 };
int evaluation_values(const Evaluation *evaluation, bool training_names, NamedValue *values);
