/* report_run: see report_run.h. */
#include "train/report/report_run.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

const Column *rundata_column(const RunData *run, const char *name) {
  for (int i = 0; i < run->n_columns; i++)
    if (strcmp(run->columns[i].name, name) == 0) return &run->columns[i];
  return NULL;
}

bool rundata_is_forecast(const RunData *run) {
  return rundata_column(run, "val_mse") || (run->config && strstr(run->config, "task: forecast"));
}

double rundata_last(const RunData *run, const char *name) {
  const Column *column = rundata_column(run, name);
  for (int64_t i = column ? column->n : 0; i-- > 0;)
    if (isfinite(column->value[i])) return column->value[i];
  return NAN;
}

double rundata_tokens_at(const RunData *run, double step) {
  const Column *loss = rundata_column(run, "loss");
  double tokens = 0;
  for (int64_t i = 0; loss && i < loss->n && loss->step[i] <= step; i++) tokens = loss->tokens[i];
  return tokens;
}

static void column_add(RunData *run, const char *name, double step, double tokens, double value) {
  Column *column = (Column *)rundata_column(run, name);
  if (!column) {
    run->columns = base_realloc(run->columns, (size_t)(run->n_columns + 1) * sizeof *run->columns);
    column = &run->columns[run->n_columns++];
    *column = (Column){.name = base_strdup(name)};
  }
  if (column->n == column->capacity) {
    column->capacity = max_i64(16, 2 * column->capacity);
    size_t bytes = (size_t)column->capacity * sizeof(double);
    column->step = base_realloc(column->step, bytes);
    column->tokens = base_realloc(column->tokens, bytes);
    column->value = base_realloc(column->value, bytes);
  }
  column->step[column->n] = step;
  column->tokens[column->n] = tokens;
  column->value[column->n++] = value;
}

/* One line of metrics; false when it is not one. */
static bool read_line(RunData *run, const char *text, size_t n) {
  json_t *line = json_loadb(text, n, 0, NULL), *value;
  json_t *step = json_object_get(line, "step"), *tokens = json_object_get(line, "tokens");
  bool good = json_is_integer(step) && json_is_integer(tokens) && json_integer_value(step) >= 0 &&
              json_integer_value(tokens) >= 0;
  const char *name;
  if (good) {
    run->last_step = fmax(run->last_step, (double)json_integer_value(step));
    run->last_tokens = fmax(run->last_tokens, (double)json_integer_value(tokens));
    run->n_nonfinite += json_object_get(line, "nonfinite") != NULL;
    json_object_foreach(line, name, value) {
      if (value == step || value == tokens || !(json_is_number(value) || json_is_null(value))) continue;
      column_add(run, name, (double)json_integer_value(step), (double)json_integer_value(tokens),
                 json_is_null(value) ? NAN : json_number_value(value));
    }
  }
  json_decref(line);
  return good;
}

static Status load_metrics(RunData *run) {
  struct stat info;
  if (stat(run->path, &info) < 0 || !S_ISDIR(info.st_mode))
    return status_fail(CODE_DATA, "%s: no such run directory", run->path);
  char *path = base_format("%s/metrics.jsonl", run->path);
  if (stat(path, &info) < 0) {
    free(path);
    return status_fail(CODE_DATA, "%s: no metrics.jsonl here: not a run directory, or the run has not begun",
                       run->path);
  }
  StrBuf text = {0};
  Status status = strbuf_load(&text, path);
  free(path);
  for (size_t at = 0; status.code == CODE_OK && at < text.n;) {
    const char *start = text.data + at, *end = memchr(start, '\n', text.n - at);
    size_t n = end ? (size_t)(end - start) : text.n - at;
    bool good = read_line(run, start, n);
    run->n_lines += good;
    run->n_damaged += !good;
    at += n + 1;
  }
  free(text.data);
  TRY(status);
  if (!run->n_lines)
    return status_fail(CODE_DATA, "%s/metrics.jsonl: no line of metrics that can be read (%lld damaged)", run->path,
                       (long long)run->n_damaged);
  return STATUS_OK;
}

static char *string_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? base_strdup(text) : NULL;
}

static void load_status(RunData *run) {
  char *path = base_format("%s/status.json", run->path);
  json_t *status = json_load_file(path, 0, NULL), *resumes = json_object_get(status, "resumes"), *value;
  free(path);
  run->state = string_of(status, "state");
  run->reason = string_of(status, "reason");
  run->command = string_of(status, "command");
  run->resumes = base_alloc(json_array_size(resumes) * sizeof *run->resumes);
  size_t i;
  json_array_foreach(resumes, i, value) {
    if (json_is_number(value)) run->resumes[run->n_resumes++] = json_number_value(value);
  }
  json_decref(status);
}

/* A run without config.yaml has none to show; one that cannot be read is an error. */
static Status load_config(RunData *run) {
  char *path = base_format("%s/config.yaml", run->path);
  struct stat info;
  StrBuf text = {0};
  Status status = STATUS_OK;
  if (stat(path, &info) == 0) {
    strbuf_puts(&text, "");
    status = strbuf_load(&text, path);
    if (status.code == CODE_OK)
      snprintf(run->config_hash, sizeof run->config_hash, "%016llx",
               (unsigned long long)XXH3_64bits(text.data, text.n));
  }
  run->config = text.data;
  free(path);
  return status;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void load_samples(RunData *run) {
  char *folder = base_format("%s/samples", run->path);
  DIR *directory = opendir(folder);
  free(folder);
  if (!directory) return;
  for (struct dirent *entry; (entry = readdir(directory));) {
    size_t n = strlen(entry->d_name);
    if (strncmp(entry->d_name, "step-", 5) != 0 || n < 9 || strcmp(entry->d_name + n - 4, ".txt") != 0) continue;
    run->samples = base_realloc(run->samples, (size_t)(run->n_samples + 1) * sizeof *run->samples);
    run->samples[run->n_samples++] = base_strdup(entry->d_name);
  }
  closedir(directory);
  if (run->n_samples) qsort(run->samples, (size_t)run->n_samples, sizeof *run->samples, by_name);
}

Status rundata_load(const char *path, RunData *run) {
  *run = (RunData){.path = base_strdup(path)};
  size_t n = strlen(run->path);
  while (n > 1 && run->path[n - 1] == '/') run->path[--n] = '\0';
  const char *slash = strrchr(run->path, '/');
  run->name = base_strdup(slash && slash[1] ? slash + 1 : run->path);
  TRY(load_metrics(run));
  load_status(run);
  load_samples(run);
  return load_config(run);
}

void rundata_free(RunData *run) {
  for (int i = 0; i < run->n_columns; i++) {
    free(run->columns[i].name);
    free(run->columns[i].step);
    free(run->columns[i].tokens);
    free(run->columns[i].value);
  }
  for (int i = 0; i < run->n_samples; i++) free(run->samples[i]);
  free(run->columns);
  free(run->samples);
  free(run->resumes);
  free(run->path);
  free(run->name);
  free(run->state);
  free(run->reason);
  free(run->command);
  free(run->config);
  *run = (RunData){0};
}
