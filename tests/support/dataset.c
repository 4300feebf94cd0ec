/* dataset: see dataset.h. */
#include "tests/support/dataset.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char workplace[] = "/tmp/aspis_test_data_XXXXXX";

void workplace_enter(void) { cr_assert(mkdtemp(workplace) && chdir(workplace) == 0, "cannot make %s", workplace); }

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *ftw) {
  (void)info, (void)type, (void)ftw;
  return remove(path);
}

void workplace_leave(void) { nftw(workplace, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

void write_file(const char *path, const void *bytes, size_t n) {
  FILE *file = fopen(path, "wb");
  cr_assert(file && fwrite(bytes, 1, n, file) == n && fclose(file) == 0, "cannot write %s", path);
}

void write_text(const char *path, const char *text) { write_file(path, text, strlen(text)); }

static char *one_path[] = {"text.txt"};

DataConfig text_config(char *tokenizer, double train, double val, int seq_len) {
  return (DataConfig){.kind = DATA_TEXT,
                      .paths = one_path,
                      .n_paths = 1,
                      .tokenizer = tokenizer,
                      .split_train = train,
                      .split_val = val,
                      .seq_len = seq_len};
}

DataConfig task_config(char *task) {
  return (DataConfig){.kind = DATA_SYNTHETIC,
                      .seq_len = 256,
                      .task = task,
                      .min_length = 3,
                      .max_length = 160,
                      .start_max_length = 40,
                      .curriculum_steps = 100,
                      .eval_length = 256,
                      .eval_sequences = 50};
}

Dataset *open_or_fail(const DataConfig *config, uint64_t seed, const char *vocabulary, const char *name) {
  Dataset *dataset = NULL;
  Status status = dataset_open(config, seed, vocabulary, &dataset);
  cr_assert(status.code == CODE_OK, "%s: %s", name, status.line);
  return dataset;
}

void assert_refused(const DataConfig *config, const char *vocabulary, Code code, const char *phrase, const char *name) {
  Dataset *dataset = NULL;
  Status status = dataset_open(config, 1, vocabulary, &dataset);
  cr_assert(status.code == code, "%s: code %d, expected %d (%s)", name, status.code, code,
            status.line ? status.line : "no message");
  cr_assert(strstr(status.line, phrase), "%s: \"%s\" does not say \"%s\"", name, status.line, phrase);
  cr_assert(dataset == NULL, "%s: a dataset came back with the failure", name);
  status_clear(&status);
}

Batch batch_new(int64_t n_seq, int64_t length) {
  size_t bytes = sizeof(int32_t) * (size_t)(n_seq * length);
  Batch batch = {.n_seq = n_seq, .length = length, .token = malloc(bytes), .target = malloc(bytes)};
  memset(batch.token, 0x55, bytes), memset(batch.target, 0x55, bytes); /* what fill must overwrite */
  return batch;
}

void batch_free(Batch *batch) { free(batch->token), free(batch->target); }

bool batch_equal(const Batch *a, const Batch *b) {
  size_t bytes = sizeof(int32_t) * (size_t)(a->n_seq * a->length);
  return a->n_seq == b->n_seq && a->length == b->length && memcmp(a->token, b->token, bytes) == 0 &&
         memcmp(a->target, b->target, bytes) == 0;
}

void assert_pure(const DataConfig *config, DataPart part, int64_t length, const char *name) {
  Dataset *whole = open_or_fail(config, 3, NULL, name), *parts = open_or_fail(config, 3, NULL, name);
  Batch a = batch_new(50, length), b = batch_new(50, length);
  dataset_fill(whole, part, 0, &a);
  for (int64_t at = 43; at >= -6; at -= 7) { /* backwards, in sevens: nothing may depend on what was asked before */
    int64_t first = max_i64(at, 0), n = at + 7 - first;
    Batch piece = {
        .n_seq = n, .length = length, .token = b.token + first * length, .target = b.target + first * length};
    dataset_fill(parts, part, first, &piece);
  }
  cr_assert(batch_equal(&a, &b), "%s: a sample depends on more than its index", name);
  batch_free(&a), batch_free(&b);
  dataset_close(whole), dataset_close(parts);
}

static char *one_file[] = {"s.csv"};

DataConfig series_config(int context, int horizon) {
  return (DataConfig){
      .kind = DATA_SERIES,
      .paths = one_file,
      .n_paths = 1,
      .seq_len = 256,
      .split_train = 0.6,
      .split_val = 0.2,
      .split_test = 0.2,
      .series = {.context = context, .horizon = horizon, .date_column = "auto", .delimiter = "auto", .scale = true}};
}

DataConfig rule_config(char *task, int n_columns) {
  DataConfig config = series_config(24, 12);
  config.n_paths = 0;
  config.series.task = task;
  config.series.generate_rows = 1000, config.series.generate_columns = n_columns, config.series.generate_season = 24;
  return config;
}

Batch windows_new(const Dataset *dataset, int64_t n) {
  const SeriesInfo *info = dataset_series(dataset);
  return (Batch){.n_seq = n,
                 .length = info->window,
                 .input = malloc(sizeof(float) * (size_t)(n * info->window * info->n_input)),
                 .output = malloc(sizeof(float) * (size_t)(n * info->horizon * info->n_output)),
                 .row = malloc(sizeof(int64_t) * (size_t)n)};
}

void windows_free(Batch *batch) { free(batch->input), free(batch->output), free(batch->row); }

bool windows_equal(const Dataset *dataset, const Batch *a, const Batch *b) {
  const SeriesInfo *info = dataset_series(dataset);
  return memcmp(a->input, b->input, sizeof(float) * (size_t)(a->n_seq * info->window * info->n_input)) == 0 &&
         memcmp(a->output, b->output, sizeof(float) * (size_t)(a->n_seq * info->horizon * info->n_output)) == 0;
}

void write_counting(const char *path, int n_rows) {
  FILE *file = fopen(path, "w");
  fprintf(file, "date,a,b,c\n");
  for (int r = 0; r < n_rows; r++)
    fprintf(file, "2020-01-%02d %02d:00:00,%d,%d,%d\n", 1 + r / 24, r % 24, 10 * r, 10 * r + 1, 10 * r + 2);
  fclose(file);
}

char *ett_path(const char *name) {
  char *path = base_format("%s/../shared/data/%s", ASPIS_SOURCE_DIR, name);
  if (access(path, R_OK) == 0) return path;
  printf("skipped: %s is not there\n", path);
  free(path);
  return NULL;
}

Series *train_series(const DataConfig *config) {
  Series *series = NULL;
  Dataset *dataset = open_or_fail(config, 1, NULL, "training data");
  Status status = series_from_json(dataset_tokenizer_json(dataset), &series);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  dataset_close(dataset);
  return series;
}

Sample sample_of(Dataset *dataset, DataPart part, int64_t index, int64_t length) {
  Sample sample = {.goes_on = 0};
  cr_assert(length <= SAMPLE_ROOM, "a sample of %d tokens", (int)length);
  Batch batch = {.n_seq = 1,
                 .length = length,
                 .token = sample.token,
                 .target = sample.target,
                 .begins = sample.begins,
                 .goes_on = &sample.goes_on};
  dataset_fill(dataset, part, index, &batch);
  return sample;
}
