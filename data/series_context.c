/* series_context: the end of a file as the input of a forecast (data.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/series.h"

/* The dates of the horizon's rows, where the step says them. */
static int64_t *dates_ahead(const Series *series, const SeriesTable *table) {
  if (!table->date || !series->info.step) return NULL;
  int64_t *date = base_alloc(sizeof *date * (size_t)series->info.horizon);
  for (int h = 0; h < series->info.horizon; h++)
    date[h] = date_after(table->date[table->n_rows - 1], series->step, h + 1);
  return date;
}

/* ---- what is known of the rows to forecast */

static Status too_few_ahead(const SeriesTable *future, int64_t found, const Series *series, const SeriesTable *past) {
  return status_fail(CODE_DATA, "%s: found %lld rows after the last of %s, expected %d (model.horizon)", future->path,
                     (long long)found, past->path, series->info.horizon);
}

static Status wrong_date(const SeriesTable *future, int64_t row, int64_t expected) {
  char *place = series_table_place(future, row), *found = date_format(future->date[row], &future->style),
       *wanted = date_format(expected, &future->style);
  Status status = status_fail(CODE_DATA, "%s, column %s: found %s, expected %s: the rows to forecast, in order", place,
                              future->date_name, found, wanted);
  free(place), free(found), free(wanted);
  return status;
}

/* The row of `future` that the forecast begins with: the first after the last date; without dates, its first. */
static Status find_ahead(const Series *series, const SeriesTable *past, const SeriesTable *future, int64_t *first) {
  *first = 0;
  if (past->date && !future->date)
    return status_fail(CODE_DATA, "%s: found no dates, expected them in column %s, as in %s", future->path,
                       past->date_name, past->path);
  while (past->date && *first < future->n_rows && future->date[*first] <= past->date[past->n_rows - 1]) ++*first;
  const int64_t found = future->n_rows - *first;
  if (found < series->info.horizon) return too_few_ahead(future, found, series, past);
  for (int h = 0; past->date && series->info.step && h < series->info.horizon; h++) {
    const int64_t expected = date_after(past->date[past->n_rows - 1], series->step, h + 1);
    if (future->date[*first + h] != expected) return wrong_date(future, *first + h, expected);
  }
  return STATUS_OK;
}

/* The horizon's rows as a table like that of the past, its values 0. Takes what it needs of `future` (NULL: none is read). */
static Status table_ahead(const Series *series, const SeriesTable *past, const SeriesTable *future,
                          SeriesTable *ahead) {
  const SeriesInfo *info = &series->info;
  int64_t first = 0;
  if (future) TRY(find_ahead(series, past, future, &first));
  *ahead = (SeriesTable){.n_rows = info->horizon, .n_columns = past->n_columns};
  ahead->value = base_zalloc(sizeof *ahead->value * (size_t)(info->horizon * past->n_columns));
  for (int h = 0; future && h < info->horizon; h++)
    memcpy(ahead->value + h * past->n_columns + info->n_values, future->value + (first + h) * info->n_known,
           sizeof *ahead->value * (size_t)info->n_known);
  ahead->date = dates_ahead(series, past);
  if (ahead->date || !future || !future->date) return STATUS_OK;
  ahead->date = base_alloc(sizeof *ahead->date * (size_t)info->horizon);
  memcpy(ahead->date, future->date + first, sizeof *ahead->date * (size_t)info->horizon);
  return STATUS_OK;
}

/* ---- reading */

static DataConfig config_of(const Series *series, const char *const *path) {
  return (DataConfig){.paths = (char **)(uintptr_t)path, /* is not written to */
                      .n_paths = 1,
                      .series = {.date_column = series->date_name, .delimiter = "auto", .header = series->header}};
}

static Status read_future(const Series *series, const char *path, SeriesTable *future) {
  const DataConfig config = config_of(series, &path);
  SeriesSource *source;
  TRY(series_source_open(&config, &source));
  Status status = series_read_known(series, source, future);
  series_source_close(source);
  TRY(status);
  TRY_OR(series_fill_missing(series, future), series_table_free(future));
  return STATUS_OK;
}

/* Inputs of the rows to forecast: known columns and calendar, the values 0. */
static Status make_ahead(const Series *series, const SeriesTable *past, const char *path, float *input) {
  const SeriesInfo *info = &series->info;
  SeriesTable future = {0}, ahead;
  if (path) TRY(read_future(series, path, &future));
  Status status = table_ahead(series, past, path ? &future : NULL, &ahead);
  series_table_free(&future);
  TRY(status);
  series_make_rows(series, &ahead, 0, info->horizon, input);
  for (int64_t i = 0; i < (int64_t)info->horizon * info->n_input; i++)
    if (i % info->n_input < info->n_values) input[i] = 0;
  series_table_free(&ahead);
  return STATUS_OK;
}

static void write_dates(const Series *series, const SeriesTable *table, SeriesContext *context) {
  int64_t *date = dates_ahead(series, table);
  if (!date) return;
  context->date_name = base_strdup(table->date_name);
  context->n_dates = series->info.horizon;
  context->dates = base_alloc(sizeof *context->dates * (size_t)context->n_dates);
  for (int h = 0; h < context->n_dates; h++) context->dates[h] = date_format(date[h], &table->style);
  free(date);
}

static Status make_context(const Series *series, SeriesTable *table, const char *future, SeriesContext *context) {
  const SeriesInfo *info = &series->info;
  const int64_t first = table->n_rows - info->context, n_in = info->n_input;
  if (first < 0)
    return status_fail(CODE_DATA, "%s: found %lld rows, expected at least model.context = %d to forecast from",
                       table->path, (long long)table->n_rows, info->context);
  DateStep step;
  TRY(series_find_step(series, table, &step));
  TRY(series_match_step(series, table, step));
  TRY(series_fill_missing(series, table));
  context->input = base_alloc(sizeof *context->input * (size_t)(info->window * n_in));
  series_make_rows(series, table, first, info->context, context->input);
  if (info->window > info->context) TRY(make_ahead(series, table, future, context->input + info->context * n_in));
  for (int64_t i = 0; i < info->window * n_in; i++)
    if (isnan(context->input[i])) context->input[i] = 0;
  context->row = series_clock(series, table) + first;
  write_dates(series, table, context);
  return STATUS_OK;
}

static Status read_source(const Series *series, const SeriesSource *source, const char *future,
                          SeriesContext *context) {
  SeriesTable table;
  int n;
  char *const *names = series_source_names(source, &n);
  TRY(series_match_columns(series, series_source_path(source), names, n, series_source_date_column(source)));
  TRY(series_read(series, source, &table));
  Status status = make_context(series, &table, future, context);
  series_table_free(&table);
  return status;
}

/* Columns of the file, or dates that the step does not say. */
static bool reads_future(const SeriesInfo *info) {
  return info->window > info->context && (info->n_known > 0 || !info->step);
}

static Status wrong_future(const Series *series, const char *future) {
  const SeriesInfo *info = &series->info;
  if (future)
    return status_fail(CODE_USAGE,
                       "--future: found %s, but this model reads nothing of the rows to forecast that is not in "
                       "the input (model.known_future, data.known_columns)",
                       future);
  char *names = series_list_names(info->input_names + info->n_values, info->n_input - info->n_values);
  Status status = status_fail(CODE_USAGE,
                              "this model reads what is known of the %d rows to forecast: expected --future "
                              "FILE.csv with them: %s",
                              info->horizon, names);
  free(names);
  return status;
}

Status series_read_context(const Series *series, const char *path, const char *future, SeriesContext *context) {
  const DataConfig config = config_of(series, &path);
  SeriesSource *source;
  *context = (SeriesContext){0};
  if (!future == reads_future(&series->info)) return wrong_future(series, future);
  TRY(series_source_open(&config, &source));
  Status status = read_source(series, source, future, context);
  series_source_close(source);
  if (status.code != CODE_OK) series_context_free(context);
  return status;
}

void series_context_free(SeriesContext *context) {
  for (int i = 0; i < context->n_dates; i++) free(context->dates[i]);
  free(context->dates);
  free(context->date_name);
  free(context->input);
  *context = (SeriesContext){0};
}
