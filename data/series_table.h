/* series_table: the rows of a series as its source tells them, before anything is cut, filled or scaled. Sources: a CSV
 * (data/csv.c), an HDF5 dataset (data/series_source.c), a rule (data/synthetic_series.c). */
#pragma once

#include "data/data.h"
#include "data/dates.h"

typedef struct SeriesTable {
  char *path; /* as messages name it */
  int64_t n_rows;
  int n_columns;
  char **names;       /* (n_columns) */
  double *value;      /* (n_rows, n_columns); NaN where there is none; never infinite */
  int64_t *date;      /* (n_rows), rising; NULL: no dates */
  char *date_name;    /* of the column of dates, NULL with date */
  DateStyle style;    /* of the dates */
  int64_t first_line; /* of the file, of row 0; 0: rows have no lines */
} SeriesTable;

void series_table_free(SeriesTable *table);
/* Where a row lies, for messages: "x.csv: line 12" or "x.h5:/series: row 11" (from 0); malloc'ed. */
char *series_table_place(const SeriesTable *table, int64_t row);

/* Where tables come from: the columns are known when it is open, the rows when they are read. */
typedef struct SeriesSource SeriesSource;
/* What config's path, generate, delimiter, header and date_column name. */
Status series_source_open(const DataConfig *config, SeriesSource **source);
void series_source_close(SeriesSource *source);
const char *series_source_path(const SeriesSource *source);
/* Names of all columns, the one of dates included. */
char *const *series_source_names(const SeriesSource *source, int *n);
/* The column of dates, or -1. */
int series_source_date_column(const SeriesSource *source);
/* Column by its name or, when no column has that name, by its position from 1; -1: no such column. */
int series_source_column(const SeriesSource *source, const char *name);
/* n columns of numbers, and the dates if there are any. */
Status series_source_read(const SeriesSource *source, const int *columns, int n, SeriesTable *table);
