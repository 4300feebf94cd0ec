/* data: where training and validation samples come from. A sample is a pure function of (dataset, seed, part, index):
 * the position in the data is one integer, and any rank can make any sample.
 *
 * A new kind of dataset is one file and one row of the table in data/data.c. */
#pragma once

#include "tensor/base.h"

typedef enum DataKind { DATA_TEXT, DATA_SYNTHETIC, DATA_SERIES } DataKind;
typedef enum DataPart { PART_TRAIN, PART_VAL, PART_TEST } DataPart; /* only series have a test part */

typedef struct DataConfig {
  DataKind kind;
  char **paths; /* text: files, folders or globs, already relative to the working directory or absolute */
  int n_paths;
  char *tokenizer; /* "byte", "char" */
  double split_train, split_val;
  int seq_len;
  /* synthetic: state tracking (Mamba-3 paper; Grazzi et al. 2025). Lengths in symbols after the start token, ends included. */
  char *task;                      /* "parity", "mod_arith", "mod_arith_brackets" */
  int min_length, max_length;      /* of training sequences; max_length <= seq_len */
  int start_max_length;            /* curriculum: the longest at the first step ... */
  int curriculum_steps;            /* ... growing to max_length over this many steps; 0: no curriculum */
  int eval_length, eval_sequences; /* validation: this many sequences of this length */
} DataConfig;

typedef struct Dataset Dataset;

/* A batch: n_seq sequences of `length` rows. Tokens: `target` -1 is ignored. Series: `input` and `output` are scaled
 * (SeriesInfo). Memory is the caller's; what a kind does not make is NULL. */
typedef struct Batch {
  int64_t n_seq, length;
  int64_t first;           /* number of the first sample in its part, set by dataset_fill: what dropout is drawn by */
  int32_t *token, *target; /* (n_seq, length) */
  float *input;            /* (n_seq, length, n_input) */
  float *output;           /* (n_seq, horizon, n_output) */
  int64_t *row;            /* (n_seq): the row of the data, from its start, that a series window begins with: a clock */
} Batch;

/* What a series dataset is: columns in the order of `input` and `output`, and the scaler fitted on the training part:
 * scaled = (value - mean) / std. Inputs are the value columns, then known covariates and calendar features. */
typedef struct SeriesInfo {
  int context, horizon, n_input, n_output;
  int n_values; /* the first n_values inputs are value columns of the file; the rest are known */
  char **input_names, **output_names;
  int *output_input;  /* (n_output): the input column that output j continues */
  double *mean, *std; /* (n_input) */
} SeriesInfo;

/* Opens, checks and tokenizes. vocabulary: for kinds that build one from the data ("char"), NULL, or the JSON that
 * dataset_tokenizer_json gave when the model was trained: a token outside of it is CODE_DATA, as are missing, empty
 * and unreadable files and parts shorter than seq_len + 1 tokens. A value the table cannot check is CODE_USAGE. */
Status dataset_open(const DataConfig *config, uint64_t seed, const char *vocabulary, Dataset **dataset);
void dataset_close(Dataset *dataset);

int dataset_vocab_size(const Dataset *dataset);
/* NULL unless the dataset is a series. */
const SeriesInfo *dataset_series(const Dataset *dataset);
/* Bytes of text behind one token of this part on average, for bits per byte; 0 where that has no meaning. */
double dataset_bytes_per_token(const Dataset *dataset, DataPart part);
/* The tokenizer as JSON text, owned by the dataset: {"kind": "char", "vocab": [...]}; NULL for synthetic data. */
const char *dataset_tokenizer_json(const Dataset *dataset);
/* Samples in one epoch of the part (train: shuffled anew each epoch; text: the part's windows of seq_len + 1 tokens,
 * train windows at random offsets; validation windows end to end, covering every target once). */
int64_t dataset_n_samples(const Dataset *dataset, DataPart part);
/* Longest sequence dataset_fill can make of this part: what memory is planned for. */
int64_t dataset_max_length(const Dataset *dataset, DataPart part);
/* Length of the sequences of training step `step` (0-based), or of validation sample `index`. */
int64_t dataset_train_length(const Dataset *dataset, int64_t step);
int64_t dataset_val_length(const Dataset *dataset, int64_t index);
/* Fills batch->n_seq rows with samples first, first+1, ... of the part; batch->length must be what the functions above
 * say (shorter validation windows are padded with ignored targets). Training samples number through all epochs. */
void dataset_fill(Dataset *dataset, DataPart part, int64_t first, Batch *batch);
/* True where the score is accuracy at the last token of a sequence (synthetic), with chance level *chance. */
bool dataset_scores_last(const Dataset *dataset, double *chance);

/* Tokenizers by themselves (data/tokenizer.c): what a checkpoint needs to turn text into tokens and back. */
typedef struct Tokenizer Tokenizer;
/* json: as dataset_tokenizer_json gives it; anything else is CODE_DATA. */
Status tokenizer_from_json(const char *json, Tokenizer **tokenizer);
void tokenizer_free(Tokenizer *tokenizer);
int tokenizer_vocab_size(const Tokenizer *tokenizer);
/* Tokens of a UTF-8 text, malloc'ed. A character outside the vocabulary is CODE_DATA, named with its byte offset. */
Status tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t bytes, int32_t **tokens, int64_t *n);
/* Bytes of one token (not NUL-terminated); NULL when there is no such token. */
const char *tokenizer_piece(const Tokenizer *tokenizer, int32_t token, int *bytes);
