/* series_context: the end of a file as the input of a forecast (data.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/series.h"

static void continue_dates(const Series *series, const SeriesTable *table, SeriesContext *context) {
  if (!table->date || !series->info.step) return;
  context->date_name = base_strdup(table->date_name);
  context->n_dates = series->info.horizon;
  context->dates = base_alloc(sizeof *context->dates * (size_t)context->n_dates);
  for (int k = 0; k < context->n_dates; k++)
    context->dates[k] = date_format(date_after(table->date[table->n_rows - 1], series->step, k + 1), &table->style);
}

static Status make_context(const Series *series, SeriesTable *table, SeriesContext *context) {
  const SeriesInfo *info = &series->info;
  const int64_t first = table->n_rows - info->context, count = (int64_t)info->context * info->n_input;
  if (first < 0)
    return status_fail(CODE_DATA, "%s: found %lld rows, expected at least model.context = %d to forecast from",
                       table->path, (long long)table->n_rows, info->context);
  DateStep step;
  TRY(series_find_step(series, table, &step));
  TRY(series_match_step(series, table, step));
  TRY(series_fill_missing(series, table));
  context->input = base_alloc(sizeof *context->input * (size_t)count);
  series_make_rows(series, table, first, info->context, context->input);
  for (int64_t i = 0; i < count; i++)
    if (isnan(context->input[i])) context->input[i] = 0;
  context->row = series_clock(series, table) + first;
  continue_dates(series, table, context);
  return STATUS_OK;
}

static Status read_source(const Series *series, const SeriesSource *source, SeriesContext *context) {
  SeriesTable table;
  int n;
  char *const *names = series_source_names(source, &n);
  TRY(series_match_columns(series, series_source_path(source), names, n, series_source_date_column(source)));
  TRY(series_read(series, source, &table));
  Status status = make_context(series, &table, context);
  series_table_free(&table);
  return status;
}

Status series_read_context(const Series *series, const char *path, SeriesContext *context) {
  *context = (SeriesContext){0};
  const DataConfig config = {
      .paths = (char *[]){(char *)path}, /* is not written to */
      .n_paths = 1,
      .series = {.date_column = series->date_name, .delimiter = "auto", .header = series->header}};
  SeriesSource *source;
  TRY(series_source_open(&config, &source));
  Status status = read_source(series, source, context);
  series_source_close(source);
  return status;
}

void series_context_free(SeriesContext *context) {
  for (int i = 0; i < context->n_dates; i++) free(context->dates[i]);
  free(context->dates);
  free(context->date_name);
  free(context->input);
  *context = (SeriesContext){0};
}
