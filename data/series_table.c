/* series_table: see series_table.h. */
#include "data/series_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/csv.h"
#include "data/synthetic_series.h"
#include "tensor/h5.h"

void series_table_free(SeriesTable *table) {
  for (int i = 0; table->names && i < table->n_columns; i++) free(table->names[i]);
  free(table->names);
  free(table->path);
  free(table->value);
  free(table->date);
  free(table->date_name);
  *table = (SeriesTable){0};
}

char *series_table_place(const SeriesTable *table, int64_t row) {
  if (table->first_line) return base_format("%s: line %lld", table->path, (long long)table->first_line + row);
  return base_format("%s: row %lld", table->path, (long long)row);
}

/* A new table without rows: its names copied from those of a source. */
static SeriesTable table_new(const char *path, char *const *names, const int *columns, int n) {
  SeriesTable table = {.path = base_strdup(path), .n_columns = n};
  table.names = base_alloc(sizeof *table.names * (size_t)n);
  for (int i = 0; i < n; i++) table.names[i] = base_strdup(names[columns[i]]);
  return table;
}

/* --- sources ------------------------------------------------------------------------------------------------------ */

struct SeriesSource {
  char *path;
  Csv csv;           /* csv.map NULL: not a CSV */
  char *file, *name; /* of an HDF5 dataset; NULL: not one */
  SeriesRule rule;   /* of generated rows; rule.make NULL: read */
  int n_columns;
  char **names;   /* NULL of a CSV, which has its own */
  int64_t n_rows; /* of an HDF5 dataset */
  int date_column;
};

static void number_names(SeriesSource *source, int n) {
  source->n_columns = n;
  source->names = base_alloc(sizeof *source->names * (size_t)n);
  for (int i = 0; i < n; i++) source->names[i] = base_format("%d", i + 1);
}

static char delimiter_of(const char *word) {
  return strcmp(word, "auto") == 0 ? '\0' : strcmp(word, "tab") == 0 ? '\t' : *word;
}

static Status open_csv(const SeriesConfig *config, SeriesSource *source) {
  TRY(csv_open(source->path, delimiter_of(config->delimiter), config->header, &source->csv));
  source->n_columns = source->csv.n_columns;
  if (!config->date_column) return STATUS_OK;
  if (strcmp(config->date_column, "auto") == 0) {
    source->date_column = csv_begins_with_dates(&source->csv) ? 0 : -1;
    return STATUS_OK;
  }
  source->date_column = csv_column(&source->csv, config->date_column);
  if (source->date_column < 0)
    return status_fail(CODE_DATA, "%s: found no column %s among its %d, expected that of the dates (data.date_column)",
                       source->path, config->date_column, source->n_columns);
  return STATUS_OK;
}

static Status measure_h5(SeriesSource *source, H5File *file) {
  H5Shape shape;
  if (!h5_has(file, source->name))
    return status_fail(CODE_DATA, "%s: found no dataset %s, expected one of numbers (rows, columns)", source->file,
                       source->name);
  TRY(h5_shape(file, source->name, &shape));
  if (shape.n_dim != 1 && shape.n_dim != 2)
    return status_fail(CODE_DATA, "%s: found %d dimensions, expected (rows, columns), or rows of one column",
                       source->path, shape.n_dim);
  if (shape.count == 0 || (shape.n_dim == 2 && shape.dim[1] > 1 << 20))
    return status_fail(CODE_DATA, "%s: found %lld rows of %lld columns, expected a series", source->path,
                       (long long)shape.dim[0], (long long)(shape.n_dim == 2 ? shape.dim[1] : 1));
  source->n_rows = shape.dim[0];
  number_names(source, shape.n_dim == 2 ? (int)shape.dim[1] : 1);
  return STATUS_OK;
}

static Status open_h5(const SeriesConfig *config, const char *colon, SeriesSource *source) {
  source->file = base_format("%.*s", (int)(colon - source->path), source->path);
  source->name = base_strdup(colon + 2);
  if (config->date_column && strcmp(config->date_column, "auto") != 0)
    return status_fail(CODE_USAGE,
                       "data.date_column: found %s, expected auto or null: an HDF5 dataset is numbers only (%s)",
                       config->date_column, source->path);
  H5File *file;
  TRY(h5_open_read(source->file, CODE_DATA, &file));
  Status status = measure_h5(source, file);
  h5_close(file);
  return status;
}

static Status open_source(const DataConfig *config, SeriesSource *source) {
  const SeriesConfig *series = &config->series;
  source->date_column = -1;
  if (series->task) {
    if (config->n_paths > 0)
      return status_fail(CODE_USAGE, "data.generate.task: found %s beside data.path, expected one of the two",
                         series->task);
    TRY(series_rule_find(series, &source->rule));
    source->path = base_strdup(series->task);
    number_names(source, series->generate_columns);
    return STATUS_OK;
  }
  if (config->n_paths != 1)
    return status_fail(CODE_USAGE, "data.path: found %d paths, expected one CSV or HDF5 dataset (data.kind: series)",
                       config->n_paths);
  source->path = base_strdup(config->paths[0]);
  const char *colon = strstr(source->path, ":/");
  for (const char *next; colon && (next = strstr(colon + 1, ":/"));) colon = next;
  if (colon && colon > source->path) return open_h5(series, colon, source);
  if (base_ends_with(source->path, ".h5") || base_ends_with(source->path, ".hdf5"))
    return status_fail(CODE_USAGE, "data.path: found %s, expected the dataset as well: %s:/NAME", source->path,
                       source->path);
  return open_csv(series, source);
}

Status series_source_open(const DataConfig *config, SeriesSource **source) {
  SeriesSource *s = base_zalloc(sizeof *s);
  TRY_OR(open_source(config, s), series_source_close(s));
  *source = s;
  return STATUS_OK;
}

void series_source_close(SeriesSource *source) {
  csv_close(&source->csv);
  for (int i = 0; source->names && i < source->n_columns; i++) free(source->names[i]);
  free(source->names);
  free(source->file);
  free(source->name);
  free(source->path);
  free(source);
}

const char *series_source_path(const SeriesSource *source) { return source->path; }

char *const *series_source_names(const SeriesSource *source, int *n) {
  *n = source->n_columns;
  return source->names ? source->names : source->csv.names;
}

int series_source_date_column(const SeriesSource *source) { return source->date_column; }

int series_source_column(const SeriesSource *source, const char *name) {
  if (!source->names) return csv_column(&source->csv, name);
  for (int i = 0; i < source->n_columns; i++)
    if (strcmp(source->names[i], name) == 0) return i;
  return -1;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static Status pick_columns(const SeriesSource *source, const double *all, const int *columns, SeriesTable *table) {
  table->value = base_alloc(sizeof *table->value * (size_t)(table->n_rows * table->n_columns));
  for (int64_t row = 0; row < table->n_rows; row++)
    for (int i = 0; i < table->n_columns; i++) {
      const double value = all[row * source->n_columns + columns[i]];
      if (isinf(value))
        return status_fail(CODE_DATA, "%s: row %lld, column %s: found %g, expected a finite number; correct it",
                           table->path, (long long)row, table->names[i], value);
      table->value[row * table->n_columns + i] = value;
    }
  return STATUS_OK;
}

static Status read_h5(const SeriesSource *source, const int *columns, int n, SeriesTable *table) {
  const int64_t count = source->n_rows * source->n_columns;
  H5File *file;
  TRY(h5_open_read(source->file, CODE_DATA, &file));
  double *all = base_alloc(sizeof *all * (size_t)count);
  Status status = h5_read_f64(file, source->name, all, count);
  h5_close(file);
  if (status.code == CODE_OK) {
    *table = table_new(source->path, source->names, columns, n);
    table->n_rows = source->n_rows;
    status = pick_columns(source, all, columns, table);
    if (status.code != CODE_OK) series_table_free(table);
  }
  free(all);
  return status;
}

Status series_source_read(const SeriesSource *source, const int *columns, int n, SeriesTable *table) {
  if (source->file) return read_h5(source, columns, n, table);
  if (!source->rule.make) return csv_read(&source->csv, columns, n, source->date_column, table);
  *table = table_new(source->path, source->names, columns, n);
  series_rule_make(&source->rule, columns, table);
  return STATUS_OK;
}
