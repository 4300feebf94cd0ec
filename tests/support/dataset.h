/* dataset: what the tests of data/ share: a folder to work in, files, opening, refusing and comparing. Helpers fail the
 * test with the case's name. */
#pragma once

#include "data/data.h"

/* .init and .fini of a suite: a fresh folder as working directory, removed with all it holds. */
void workplace_enter(void);
void workplace_leave(void);
void write_file(const char *path, const void *bytes, size_t n);
void write_text(const char *path, const char *text);

/* The file text.txt. */
DataConfig text_config(char *tokenizer, double train, double val, int seq_len);
/* Lengths 3 to 160, the longest growing from 40 over 100 steps; validation: 50 sequences of 256. */
DataConfig task_config(char *task);

Dataset *open_or_fail(const DataConfig *config, uint64_t seed, const char *vocabulary, const char *name);
/* Opening fails with this code and a message that holds the phrase. */
void assert_refused(const DataConfig *config, const char *vocabulary, Code code, const char *phrase, const char *name);
/* The first 50 samples are the same whatever else was asked for before. */
void assert_pure(const DataConfig *config, DataPart part, int64_t length, const char *name);

/* Filled with rubbish that dataset_fill must overwrite. */
Batch batch_new(int64_t n_seq, int64_t length);
void batch_free(Batch *batch);
bool batch_equal(const Batch *a, const Batch *b);

/* One sample of tokens, zero behind its length. */
enum { SAMPLE_ROOM = 16 };
typedef struct Sample {
  int32_t token[SAMPLE_ROOM], target[SAMPLE_ROOM];
  uint8_t begins[SAMPLE_ROOM], goes_on;
} Sample;
Sample sample_of(Dataset *dataset, DataPart part, int64_t index, int64_t length);

/* Of s.csv, 60 % training, 20 % validation, 20 % test. */
DataConfig series_config(int context, int horizon);
/* 1000 hourly rows made by this rule, season 24; parts as in series_config. */
DataConfig rule_config(char *task, int n_columns);
/* Hourly rows of the columns date, a, b, c: the value of row r and column c is 10 r + c. */
void write_counting(const char *path, int n_rows);
/* The path of a real file beside the repository (malloc'ed), or NULL with a line that says why the test is skipped. */
char *ett_path(const char *name);
/* What a checkpoint would keep of the dataset. */
Series *train_series(const DataConfig *config);
Batch windows_new(const Dataset *dataset, int64_t n);
void windows_free(Batch *batch);
/* Batches of windows of this dataset hold the same bits. */
bool windows_equal(const Dataset *dataset, const Batch *a, const Batch *b);
