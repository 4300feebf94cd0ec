/* series_stream: rows as they come, a line at a time (data.h); memory does not grow with them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/csv.h"
#include "data/series.h"

struct SeriesStream {
  const Series *series;
  char *name;
  Csv csv; /* of the first line: path NULL before it */
  int *columns, date_column;
  double *last; /* values of the last row */
  int64_t n_lines, n_rows, last_date, last_row;
  DateStyle style;
};

SeriesStream *series_stream_new(const Series *series, const char *name) {
  SeriesStream *stream = base_zalloc(sizeof *stream);
  const size_t n = (size_t)series->info.n_values + (size_t)series->info.n_known;
  *stream = (SeriesStream){.series = series, .name = base_strdup(name)};
  stream->columns = base_alloc(sizeof *stream->columns * n);
  stream->last = base_alloc(sizeof *stream->last * n);
  return stream;
}

void series_stream_free(SeriesStream *stream) {
  if (!stream) return;
  csv_close(&stream->csv);
  free(stream->columns);
  free(stream->last);
  free(stream->name);
  free(stream);
}

static int n_numbers(const SeriesStream *stream) {
  return stream->series->info.n_values + stream->series->info.n_known;
}

/* Learns the columns from the first line. */
static Status take_first(SeriesStream *stream, const char *line, size_t n) {
  const Series *series = stream->series;
  Csv *csv = &stream->csv;
  TRY(csv_over(stream->name, line, n, series->header, csv));
  stream->date_column = series->date_name ? csv_column(csv, series->date_name) : -1;
  if (series->date_name && stream->date_column < 0)
    return status_fail(CODE_DATA, "%s: line 1: found no column %s of dates among %d, expected it", stream->name,
                       series->date_name, csv->n_columns);
  TRY(series_match_columns(series, stream->name, csv->names, csv->n_columns, stream->date_column));
  for (int i = 0; i < n_numbers(stream); i++) stream->columns[i] = csv_column(csv, series->info.input_names[i]);
  return STATUS_OK;
}

static Status check_date(const SeriesStream *stream, const SeriesTable *table) {
  const Series *series = stream->series;
  const int64_t date = table->date[0], expected = date_after(stream->last_date, series->step, 1);
  if (date == expected || (series->gaps == GAPS_IGNORE && date > stream->last_date)) return STATUS_OK;
  char *place = series_table_place(table, 0), *found = date_format(date, &table->style),
       *wanted = date_format(expected, &table->style);
  Status status = status_fail(CODE_DATA, "%s, column %s: found %s, expected %s: one row for each %s, in order", place,
                              table->date_name, found, wanted, series->info.step);
  free(place), free(found), free(wanted);
  return status;
}

static Status take_values(SeriesStream *stream, SeriesTable *table, float *input, int64_t *row) {
  const Series *series = stream->series;
  const int n = n_numbers(stream);
  if (table->date && stream->n_rows > 0 && series->info.step) TRY(check_date(stream, table));
  for (int i = 0; i < n && series->missing == MISSING_FFILL && stream->n_rows > 0; i++)
    if (isnan(table->value[i])) table->value[i] = stream->last[i];
  TRY(series_fill_missing(series, table));
  series_make_rows(series, table, 0, 1, input);
  for (int i = 0; i < series->info.n_input; i++)
    if (isnan(input[i])) input[i] = 0;
  memcpy(stream->last, table->value, sizeof *stream->last * (size_t)n);
  *row = stream->n_rows == 0 ? series_clock(series, table) : stream->last_row + 1;
  stream->n_rows++;
  stream->last_row = *row;
  if (!table->date) return STATUS_OK;
  stream->last_date = table->date[0];
  date_style_join(&stream->style, &table->style);
  return STATUS_OK;
}

Status series_stream_take(SeriesStream *stream, const char *line, size_t n, float *input, int64_t *row) {
  Csv *csv = &stream->csv;
  *row = SERIES_NO_ROW;
  stream->n_lines++;
  n -= n > 0 && line[n - 1] == '\r';
  if (n == 0) return STATUS_OK;
  if (!csv->path) {
    TRY(take_first(stream, line, n));
    if (csv->has_header) return STATUS_OK;
  }
  csv->rows = line, csv->end = line + n, csv->first_line = stream->n_lines;
  SeriesTable table;
  TRY(csv_read(csv, stream->columns, n_numbers(stream), stream->date_column, &table));
  Status status = take_values(stream, &table, input, row);
  series_table_free(&table);
  return status;
}

char *series_stream_date(const SeriesStream *stream, int k) {
  const Series *series = stream->series;
  if (stream->date_column < 0 || stream->n_rows == 0 || !series->info.step) return NULL;
  return date_format(date_after(stream->last_date, series->step, k), &stream->style);
}
