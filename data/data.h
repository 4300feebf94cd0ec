/* data: where training and validation samples come from. A sample is a pure function of (dataset, seed, part, index):
 * the position in the data is one integer, and any rank can make any sample.
 *
 * A new kind of dataset is one file and one row of the table in data/data.c. */
#pragma once

#include "tensor/base.h"

typedef enum DataKind { DATA_TEXT, DATA_SYNTHETIC, DATA_SERIES, DATA_SHARDS } DataKind;
typedef enum TbpttCarry { CARRY_STATE, CARRY_GRADIENT } TbpttCarry;
typedef enum DataPart { PART_TRAIN, PART_VAL, PART_TEST } DataPart; /* only series have a test part */

typedef enum SeriesFeatures { SERIES_M, SERIES_S, SERIES_MS } SeriesFeatures;
typedef enum SeriesMissing { MISSING_REFUSE, MISSING_FFILL, MISSING_MASK } SeriesMissing;
typedef enum SeriesGaps { GAPS_REFUSE, GAPS_IGNORE } SeriesGaps;
typedef enum SeriesHeader { HEADER_AUTO, HEADER_YES, HEADER_NO } SeriesHeader;

/* Columns are given by name or, where no column has that name, by position from 1. */
typedef struct SeriesConfig {
  int context, horizon; /* rows of input and output of a window */
  bool known_future;    /* inputs go on over the rows of the output: the known columns and the calendar */
  char *date_column;    /* "auto": the first column when it is not a number; NULL: none */
  char *delimiter;      /* "auto", ",", ";" or "tab" */
  SeriesHeader header;  /* auto: none when the first line is numbers behind at most one date */
  char **columns;       /* values; none given: all that are neither dates nor known */
  char **known_columns; /* covariates that are inputs only */
  char **calendar;      /* inputs made of the dates: "hour", "day_of_week", ... (data/series_rows.c) */
  char **borders;       /* none: shares; {"ett"}; or three dates: validation starts, test starts, end (excluded) */
  int n_columns, n_known_columns, n_calendar, n_borders;
  SeriesFeatures
      features; /* M: every value column in and out; S: the target in and out; MS: every one in, target out */
  char *target; /* NULL: none, or the only column */
  SeriesMissing missing;
  SeriesGaps gaps; /* dates that do not step evenly */
  bool scale;
  int season; /* 0: what the step of the dates suggests */
  /* Made instead of read (data/synthetic_series.c). */
  char *task; /* NULL: read */
  int generate_rows, generate_columns, generate_season;
  double generate_noise;
} SeriesConfig;

enum { DATA_MAX_SHARDS = 16 };

typedef struct DataConfig {
  DataKind kind;
  char *
      *paths; /* text: files, folders or globs, already relative to the working directory or absolute; series: one CSV,
                   or an HDF5 dataset as "file.h5:/name" */
  int n_paths;
  char *tokenizer;                           /* "byte", "char", or the path of a tokenizer.json */
  double split_train, split_val, split_test; /* test: series only */
  int seq_len;
  char **shards; /* shards: folders made by aspis prepare */
  int n_shards;
  double weights[DATA_MAX_SHARDS]; /* of their samples in training; none given: by their size */
  int n_weights;
  bool pack;           /* text: rows of several documents, whose states do not meet */
  char *document_end;  /* pack: what documents end with, in a file; NULL: a file is a document */
  bool special_tokens; /* text: around each document what the tokenizer puts around a text (TokenTemplate); shards: were
                          prepared so */
  /* text: the rows of a batch go on from step to step, their states with them. */
  int tbptt_segment; /* tokens that gradients go back over when only states are carried, a divisor of seq_len; 0: off */
  TbpttCarry tbptt_carry; /* from segment to segment of a step: the state, or the gradient, too */
  int tbptt_rows;         /* rows of a training step's batch */
  /* synthetic: state tracking (Mamba-3 paper; Grazzi et al. 2025). Lengths in symbols after the start token, ends included. */
  char *task;                      /* "parity", "mod_arith", "mod_arith_brackets" */
  int min_length, max_length;      /* of training sequences; max_length <= seq_len */
  int start_max_length;            /* curriculum: the longest at the first step ... */
  int curriculum_steps;            /* ... growing to max_length over this many steps; 0: no curriculum */
  int eval_length, eval_sequences; /* validation: this many sequences of this length */
  SeriesConfig series;
} DataConfig;

typedef struct Dataset Dataset;

/* A batch: n_seq sequences of `length` rows. Tokens: `target` -1 is ignored. Series: `input` and `output` are scaled
 * (SeriesInfo). Memory is the caller's; what a kind does not make is NULL. */
typedef struct Batch {
  int64_t n_seq, length;
  int64_t first;           /* number of the first sample in its part, set by dataset_fill: what dropout is drawn by */
  int64_t segment;         /* which segment of its step it is (data.tbptt); the first, and of others: 0 */
  int32_t *token, *target; /* (n_seq, length) */
  uint8_t *begins;         /* (n_seq, length): 1 where a piece of a sequence begins; NULL: a sequence is one piece */
  int64_t max_pieces;      /* most pieces of a sequence, with begins; else 0 */
  int64_t dry_pieces;      /* of all sequences, where nothing is read of them (a dry device); 0: the most */
  uint8_t *goes_on; /* (n_seq): 1 where the sequence goes on from that of the same row of the batch before (data.tbptt);
                       NULL: not wanted */
  float *input;     /* (n_seq, length, n_input); values of rows that are to be forecast are 0 */
  float *output;    /* (n_seq, horizon, n_output); NaN where the data has no value: no target */
  int64_t *row;     /* (n_seq): the row of the data, from its start, that a series window begins with: a clock */
} Batch;

/* What a series dataset is: columns in the order of `input` and `output`, and the scaler fitted on the training part:
 * scaled = (value - mean) / std. Inputs are the value columns, then known covariates and calendar features. An input
 * that the data has no value for (data.missing: mask) is 0, the mean. */
typedef struct SeriesInfo {
  int context, horizon, n_input, n_output;
  int window;   /* rows of an input: context or, where the future is known, context + horizon */
  int n_values; /* the first n_values inputs are value columns of the file ... */
  int n_known;  /* ... the next n_known its known columns, the rest calendar */
  char **input_names, **output_names;
  int *output_input;  /* (n_output): the input column that output j continues */
  double *mean, *std; /* (n_input) */
  int64_t season;     /* rows of one season: data.season, or what the dates suggest; 1: none */
  char *step;         /* between rows, "1 hour"; NULL: the data has no dates */
} SeriesInfo;

/* Opens, checks and tokenizes. vocabulary: for kinds that build one from the data ("char"), NULL, or the JSON that
 * dataset_tokenizer_json gave when the model was trained: a token outside of it is CODE_DATA, as are missing, empty
 * and unreadable files and parts shorter than seq_len + 1 tokens. A value the table cannot check is CODE_USAGE.
 * Series: vocabulary carries the scaler, which then is not fitted anew; data with other columns is CODE_DATA. */
Status dataset_open(const DataConfig *config, uint64_t seed, const char *vocabulary, Dataset **dataset);
void dataset_close(Dataset *dataset);

int dataset_vocab_size(const Dataset *dataset);
/* NULL unless the dataset is a series. */
const SeriesInfo *dataset_series(const Dataset *dataset);
/* Bytes of text behind one token of this part on average, for bits per byte; 0 where that has no meaning. */
double dataset_bytes_per_token(const Dataset *dataset, DataPart part);
/* The tokenizer as JSON text, owned by the dataset: {"kind": "char", "vocab": [...]} or a tokenizer.json; NULL for synthetic data; what
 * series_from_json reads for series. */
const char *dataset_tokenizer_json(const Dataset *dataset);
/* Samples in one epoch of the part (train: shuffled anew each epoch; text: the part's windows of seq_len + 1 tokens,
 * train windows at random offsets; validation windows end to end, covering every target once). */
int64_t dataset_n_samples(const Dataset *dataset, DataPart part);
/* Longest sequence dataset_fill can make of this part: what memory is planned for. */
int64_t dataset_max_length(const Dataset *dataset, DataPart part);
/* Most pieces that a sequence of the part is made of (data.pack); 0: sequences are one piece each. */
int64_t dataset_max_pieces(const Dataset *dataset, DataPart part);
/* Rows that go on from batch to batch (data.tbptt): samples are numbered so that sample i is of row i mod that many, and
 * Batch.goes_on says whether it goes on from sample i - rows. 0: every sample stands alone. */
int64_t dataset_n_rows(const Dataset *dataset, DataPart part);
/* Most tokens that such a row goes on for before it starts anew; 0 without them. */
int64_t dataset_max_run(const Dataset *dataset, DataPart part);
/* Length of the sequences of training step `step` (0-based); a validation sample's is dataset_max_length. */
int64_t dataset_train_length(const Dataset *dataset, int64_t step);
/* Fills batch->n_seq rows with samples first, first+1, ... of the part; batch->length must be what the functions above
 * say (shorter validation windows are padded with ignored targets). Training samples number through all epochs. */
void dataset_fill(Dataset *dataset, DataPart part, int64_t first, Batch *batch);
/* A window as the data has it, for people to look at: what its file says, in the data's units and dates. */
typedef struct SeriesWindow {
  double *values; /* (context + horizon, n_output); NaN where the data has no value */
  int64_t *dates; /* (context + horizon) seconds since 1970 on the file's clock (data/dates.h); NULL: no dates */
  int64_t row;    /* Batch.row */
} SeriesWindow;
/* Window `index` of the validation or the test part of a series. Values went through scaling: seven digits are right. */
SeriesWindow dataset_window(const Dataset *dataset, DataPart part, int64_t index);
void series_window_free(SeriesWindow *window);
/* True where the score is accuracy at the last token of a sequence (synthetic), with chance level *chance. */
bool dataset_scores_last(const Dataset *dataset, double *chance);

/* A series by itself (data/series_spec.c): what a checkpoint needs to forecast without the training data. */
typedef struct Series Series;
/* json: as dataset_tokenizer_json gives it; anything else is CODE_DATA. */
Status series_from_json(const char *json, Series **series);
void series_free(Series *series);
const SeriesInfo *series_info(const Series *series);

/* The end of a file, to forecast from. */
typedef struct SeriesContext {
  float *input;    /* (window, n_input), scaled with the stored scaler */
  int64_t row;     /* of the first of them: Batch.row, counted in steps from the start of the training data, without
                      dates from the start of this file */
  char *date_name; /* name of the column of dates; NULL: no dates */
  char **dates;    /* (horizon): the dates that follow, written as the file writes them; NULL: no dates */
  int n_dates;
} SeriesContext;

/* Reads the last `context` rows of a CSV or HDF5 dataset and, where the future is known, the known columns of the `horizon` rows
 * after them from another: those of the dates that follow or, without dates, its first. future NULL: none is given. Columns that
 * differ from the training data's, fewer rows, and all that dataset_open refuses of a file are CODE_DATA; a future that is
 * lacking, or given where none is read, is CODE_USAGE. */
Status series_read_context(const Series *series, const char *path, const char *future, SeriesContext *context);
void series_context_free(SeriesContext *context);

/* Rows that come one at a time, as lines of a CSV; the first one may be a header. */
typedef struct SeriesStream SeriesStream;
#define SERIES_NO_ROW INT64_MIN
/* name: stands for the file's in messages. The stream borrows the series. */
SeriesStream *series_stream_new(const Series *series, const char *name);
void series_stream_free(SeriesStream *stream);
/* Takes the n characters of the next line, without its end: a row's scaled inputs (n_input) and its number on the clock of
 * Batch.row; SERIES_NO_ROW for a line that is none (the header, an empty one). Columns that differ, bad cells, missing values
 * that the model was not trained to meet, and dates that do not follow are CODE_DATA. */
Status series_stream_take(SeriesStream *stream, const char *line, size_t n, float *input, int64_t *row);
/* The date of the k-th row after the last one taken, malloc'ed; NULL: no dates. */
char *series_stream_date(const SeriesStream *stream, int k);

/* Tokenizers by themselves (data/tokenizer.c): what a checkpoint needs to turn text into tokens and back. */
typedef struct Tokenizer Tokenizer;
/* Whether a value of DataConfig.tokenizer is a path. */
bool tokenizer_is_file(const char *tokenizer);
/* json: as dataset_tokenizer_json gives it; anything else is CODE_DATA. */
Status tokenizer_from_json(const char *json, Tokenizer **tokenizer);
void tokenizer_free(Tokenizer *tokenizer);
int tokenizer_vocab_size(const Tokenizer *tokenizer);
/* Tokens of a text, malloc'ed. What the vocabulary has no token for is CODE_DATA: bytes that are no UTF-8 (byte-level ones take
 * any), a character; `where` names the text in the message. Threads may share a tokenizer. */
Status tokenizer_encode(const Tokenizer *tokenizer, const char *where, const char *text, size_t bytes, int32_t **tokens,
                        int64_t *n);
/* What the post_processor of a tokenizer.json puts around a text: add_special_tokens of the `tokenizers` package. Nothing, of
 * other tokenizers. Owned by the tokenizer. */
typedef struct TokenTemplate {
  const int32_t *before, *behind;
  int n_before, n_behind;
} TokenTemplate;
TokenTemplate tokenizer_template(const Tokenizer *tokenizer);
/* As tokenizer_encode, of a text that is to be gone on with from nothing: behind what the template puts before it, n_before
 * tokens. What it puts behind would end the text and is left away. */
Status tokenizer_encode_prompt(const Tokenizer *tokenizer, const char *where, const char *text, size_t bytes,
                               int32_t **tokens, int64_t *n, int *n_before);
/* The text of tokens, malloc'ed, with a zero behind it that *bytes does not count. A token that is none is CODE_DATA. */
Status tokenizer_decode(const Tokenizer *tokenizer, const int32_t *tokens, int64_t n, char **text, size_t *bytes);
/* Bytes of one token (not NUL-terminated); NULL when there is no such token. */
const char *tokenizer_piece(const Tokenizer *tokenizer, int32_t token, int *bytes);
