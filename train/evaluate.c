/* evaluate: see evaluate.h. */
#include "train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void add_nll(EvalSums *sums, const Batch *batch, const Tensor *nll) {
  for (int64_t i = 0; i < tensor_count(nll); i++) {
    sums->nll += tensor_get(nll, i);
    sums->n_targets += batch->target[i] != CROSS_ENTROPY_IGNORE;
  }
}

/* From logits: nll of every target, and whether the last token of each sequence is the most likely one. */
static void add_logits(EvalSums *sums, const Batch *batch, const Tensor *logits, int vocab_size) {
  int64_t width = tensor_last(logits);
  for (int64_t t = 0; t < batch->n_seq * batch->length; t++) {
    int32_t target = batch->target[t];
    if (target == CROSS_ENTROPY_IGNORE) continue;
    int best = 0;
    double largest = tensor_get(logits, t * width), total = 0;
    for (int v = 1; v < vocab_size; v++)
      if (tensor_get(logits, t * width + v) > largest) largest = tensor_get(logits, t * width + (best = v));
    for (int v = 0; v < vocab_size; v++) total += exp(tensor_get(logits, t * width + v) - largest);
    sums->nll += largest + log(total) - tensor_get(logits, t * width + target);
    sums->n_targets++;
    if (t % batch->length == batch->length - 1) {
      sums->n_last++;
      sums->n_last_right += best == target;
    }
  }
}

static void evaluate_tokens(Model *model, Tape *tape, const Batch *batch, bool with_logits, Carry *carry,
                            EvalSums *sums) {
  Tensor *token = batch_tensor(batch, batch->token, tape), *target = batch_tensor(batch, batch->target, tape);
  Tensor *cu_seqlens = batch_seqlens(batch, tape);
  ModelState states[2], *start = carry ? &states[0] : NULL, *end = carry ? &states[1] : NULL;
  if (carry) carry_pass(carry, model, tape, batch, cu_seqlens, start, end);
  if (with_logits) {
    Tensor *logits = lm_logits(model, tape, token, cu_seqlens, start, end, NULL);
    if (tape->device->dry) return;
    const Tensor host = device_pull(tape->device, logits);
    add_logits(sums, batch, &host, model->config.vocab_size);
  } else {
    Tensor *nll = lm_nll(model, tape, token, target, cu_seqlens, start, end);
    if (tape->device->dry) return;
    const Tensor host = device_pull(tape->device, nll);
    add_nll(sums, batch, &host);
  }
}

/* Errors of the point forecast, and of the last row repeated. */
static void add_windows(EvalSums *sums, const Batch *batch, const ModelConfig *c, const Tensor *prediction) {
  const int64_t n_q = forecaster_n_quantiles(c), point = forecaster_point(c), n_out = c->output_dim;
  for (int64_t s = 0; s < batch->n_seq; s++) {
    const float *last = batch->input + ((s + 1) * batch->length - 1) * c->input_dim + c->target_first;
    for (int64_t j = 0; j < n_out; j++)
      for (int64_t h = 0; h < c->horizon; h++) { /* in the order of forecast_score: its bits are these */
        const int64_t at = (s * c->horizon + h) * n_out + j;
        const double target = batch->output[at];
        if (isnan(target)) continue;
        const double error = tensor_get(prediction, at * n_q + point) - target, naive = last[j] - target;
        sums->squares += error * error, sums->absolutes += fabs(error);
        sums->naive_squares += naive * naive, sums->naive_absolutes += fabs(naive);
        sums->n_values++;
      }
  }
  sums->n_windows += batch->n_seq;
}

static void evaluate_windows(Model *model, Tape *tape, const Batch *batch, EvalSums *sums) {
  const Windows windows = batch_windows(batch, &model->config, tape);
  Tensor *prediction = forecaster_predict(model, tape, &windows);
  Tensor *loss = forecaster_loss(model, tape, prediction, batch_outputs(batch, &model->config, tape));
  if (tape->device->dry) return;
  const Tensor losses = device_pull(tape->device, loss), predictions = device_pull(tape->device, prediction);
  for (int64_t s = 0; s < batch->n_seq; s++) sums->loss += tensor_get(&losses, s);
  add_windows(sums, batch, &model->config, &predictions);
}

void evaluate_batch(Model *model, Device *device, Dtype act, const Batch *batch, bool with_logits, Carry *carry,
                    EvalSums *sums) {
  size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, act, false);
  if (model->config.task == TASK_LM) evaluate_tokens(model, &tape, batch, with_logits, carry, sums);
  else evaluate_windows(model, &tape, batch, sums);
  tape_reset(&tape, mark);
}

/* More than these at once gain nothing, and the plan tries every number of them. */
enum { MOST_EVAL_SEQUENCES = 4096 };

int64_t evaluate_n_seq(int64_t train_length, int64_t eval_length, int micro_batch_size) {
  return min_i64(MOST_EVAL_SEQUENCES, max_i64(1, train_length * micro_batch_size / eval_length));
}

int64_t evaluate_n_rows(const Dataset *dataset, DataPart part, int64_t otherwise) {
  const int64_t n_rows = dataset_n_rows(dataset, part);
  return n_rows ? n_rows : otherwise;
}

/* Adds the targets of a part's first samples to counts[token]; stops after BASELINE_TARGETS of them. */
enum { BASELINE_TARGETS = 1 << 20 };
static int64_t count_targets(Dataset *dataset, DataPart part, int64_t *counts) {
  int64_t length = dataset_max_length(dataset, part), n = 0;
  Batch row = batch_make(&(ModelConfig){.task = TASK_LM}, 1, length, 0);
  for (int64_t i = 0; i < dataset_n_samples(dataset, part) && n < BASELINE_TARGETS; i++) {
    dataset_fill(dataset, part, i, &row);
    for (int64_t t = 0; t < length; t++)
      if (row.target[t] != CROSS_ENTROPY_IGNORE) counts[row.target[t]]++, n++;
  }
  batch_release(&row);
  return n;
}

/* What knowing only how often each token occurs in the training part is worth (each seen once more than it was). */
static double unigram_nll(Dataset *dataset, DataPart part) {
  int vocab_size = dataset_vocab_size(dataset);
  int64_t *train = base_zalloc((size_t)vocab_size * sizeof(int64_t)),
          *own = base_zalloc((size_t)vocab_size * sizeof(int64_t));
  double n_train = (double)(count_targets(dataset, PART_TRAIN, train) + vocab_size), sum = 0;
  int64_t n_own = count_targets(dataset, part, own);
  for (int v = 0; v < vocab_size; v++) sum -= (double)own[v] * log((double)(train[v] + 1) / n_train);
  free(train);
  free(own);
  return sum / (double)n_own;
}

/* In one line of a terminal; elsewhere, where lines stay, seldom. */
static void tell_progress(double start, double *told, int64_t done, int64_t all) {
  const bool in_place = isatty(STDERR_FILENO);
  const double now = base_seconds(), every = in_place ? 0.5 : 10;
  if (now - start < 2 || (now - *told < every && done < all)) return;
  fprintf(stderr, "%seval %lld/%lld%s", in_place ? "\r" : "", (long long)done, (long long)all,
          in_place && done < all ? "" : "\n");
  *told = now;
}

static Evaluation lm_evaluation(const EvalSums *sums, Dataset *dataset, DataPart part) {
  double chance = 0;
  bool scores_last = dataset_scores_last(dataset, &chance);
  double nll = sums->n_targets ? sums->nll / (double)sums->n_targets : NAN;
  double bytes = dataset_bytes_per_token(dataset, part);
  double accuracy = scores_last && sums->n_last ? (double)sums->n_last_right / (double)sums->n_last : NAN;
  return (Evaluation){.score = nll,
                      .nll = nll,
                      .perplexity = exp(nll),
                      .bits_per_byte = bytes > 0 ? nll / log(2) / bytes : NAN,
                      .accuracy = 100 * accuracy,
                      .scaled_accuracy = 100 * (accuracy - chance) / (1 - chance),
                      .baseline_nll = bytes > 0 ? unigram_nll(dataset, part) : NAN,
                      .baseline_accuracy = scores_last ? 100 * chance : NAN,
                      .n_targets = sums->n_targets};
}

static Evaluation forecast_evaluation(const EvalSums *sums, const ModelConfig *config) {
  const double n = (double)sums->n_values, loss = sums->loss / (double)sums->n_windows;
  return (Evaluation){.score = loss,
                      .loss = config->loss == FORECAST_MSE ? NAN : loss,
                      .is_forecast = true,
                      .mse = sums->squares / n,
                      .mae = sums->absolutes / n,
                      .naive_mse = sums->naive_squares / n,
                      .naive_mae = sums->naive_absolutes / n,
                      .n_windows = sums->n_windows};
}

Evaluation evaluate_part(Model *model, Device *device, Dtype act, Dataset *dataset, DataPart part, int64_t n_samples,
                         int64_t n_seq, bool show_progress) {
  double chance = 0;
  bool scores_last = dataset_scores_last(dataset, &chance);
  int64_t all = dataset_n_samples(dataset, part);
  if (n_samples <= 0 || n_samples > all) n_samples = all;
  const bool carries = dataset_n_rows(dataset, part) > 0;
  n_seq = evaluate_n_rows(dataset, part, n_seq);
  Batch batch = batch_make(&model->config, n_seq, dataset_max_length(dataset, part), dataset_max_pieces(dataset, part));
  EvalSums sums = {0};
  const size_t mark = arena_mark(&device->weights);
  Carry carry = {0};
  if (carries) carry = carry_open(model, device, n_seq, dataset_max_run(dataset, part));
  double start = base_seconds(), told = start;
  for (int64_t first = 0; first < n_samples; first += n_seq) {
    batch.n_seq = min_i64(n_seq, n_samples - first);
    dataset_fill(dataset, part, first, &batch);
    evaluate_batch(model, device, act, &batch, scores_last, carries ? &carry : NULL, &sums);
    carry_commit(&carry);
    if (show_progress) tell_progress(start, &told, first + batch.n_seq, n_samples);
  }
  batch_release(&batch);
  arena_rewind(&device->weights, mark);
  return model->config.task == TASK_LM ? lm_evaluation(&sums, dataset, part)
                                       : forecast_evaluation(&sums, &model->config);
}

int evaluation_values(const Evaluation *e, bool training_names, NamedValue *values) {
  const bool t = training_names;
  const NamedValue lm[] = {{t ? "val_loss" : "nll", e->nll},
                           {"perplexity", e->perplexity},
                           {"bits_per_byte", e->bits_per_byte},
                           {"accuracy", e->accuracy},
                           {"scaled_accuracy", e->scaled_accuracy},
                           {"baseline_nll", e->baseline_nll},
                           {"baseline_accuracy", e->baseline_accuracy},
                           {t ? "val_tokens" : "tokens", (double)e->n_targets}};
  const NamedValue forecast[] = {
      {t ? "val_mse" : "mse", e->mse},    {t ? "val_mae" : "mae", e->mae},
      {t ? "val_loss" : "loss", e->loss}, {"naive_mse", e->naive_mse},
      {"naive_mae", e->naive_mae},        {t ? "val_windows" : "windows", (double)e->n_windows}};
  const NamedValue *all = e->is_forecast ? forecast : lm;
  const size_t n_all = e->is_forecast ? sizeof forecast / sizeof *forecast : sizeof lm / sizeof *lm;
  int n = 0;
  for (size_t i = 0; i < n_all; i++)
    if (!isnan(all[i].value) || i == 0) values[n++] = all[i];
  return n;
}
