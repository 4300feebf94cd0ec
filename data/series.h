/* series: what the files of the series kind share. The way of the data:
 *   series_table  a source's columns and rows          series_spec  which of them are inputs and outputs; JSON
 *   series_rows   filled, scaled, with calendar        series       parts, windows */
#pragma once

#include "data/series_table.h"

/* The columns of the table read for a Series are its inputs but the calendar, in their order. */
struct Series {
  SeriesInfo info;
  bool all_columns;    /* the data had no columns but these */
  char *date_name;     /* NULL: no dates */
  DateStep step;       /* all zero: no dates */
  int64_t first_date;  /* of the training data's file: where the clock starts */
  SeriesHeader header; /* of its file */
  SeriesMissing missing;
  SeriesGaps gaps;
};

/* The spec of a config for the columns of a source; no scaler and no dates yet. Columns that the source lacks are CODE_DATA;
 * columns named twice and targets that do not fit `features` are CODE_USAGE. */
Status series_from_config(const SeriesConfig *config, const SeriesSource *source, Series **series);
/* Takes the scaler and the first date of `stored`. CODE_DATA when the columns or the steps of the dates differ. */
Status series_take_stored(Series *series, const Series *stored, const SeriesTable *table);
/* CODE_DATA, naming the columns, when n names, but for the column of dates, lack one of the inputs or, where the model
 * saw all there were, have another. */
Status series_match_columns(const Series *series, const char *path, char *const *names, int n, int date_column);
/* CODE_DATA when the dates of the table step otherwise than those of the series. */
Status series_match_step(const Series *series, const SeriesTable *table, DateStep step);
char *series_to_json(const Series *series);
/* Reads the table of the series' columns, or of its known columns alone. */
Status series_read(const Series *series, const SeriesSource *source, SeriesTable *table);
Status series_read_known(const Series *series, const SeriesSource *source, SeriesTable *table);

/* The step of the dates, all zero without dates. Rows that do not step evenly are CODE_DATA unless gaps are ignored. */
Status series_find_step(const Series *series, const SeriesTable *table, DateStep *step);
/* Takes step and first date from the table. */
Status series_take_dates(Series *series, const SeriesTable *table);
/* Row 0 of the table on the clock of the data the series was made from. */
int64_t series_clock(const Series *series, const SeriesTable *table);
/* Refuses, fills or leaves the missing values, as series->missing says. */
Status series_fill_missing(const Series *series, SeriesTable *table);
/* Fits mean and std (population) on the first n_rows rows. A constant column is CODE_DATA. */
Status series_fit_scaler(Series *series, const SeriesTable *table, int64_t n_rows);
/* Rows [first, first + n) as inputs, scaled: (n, n_input); NaN where there is no value. */
void series_make_rows(const Series *series, const SeriesTable *table, int64_t first, int64_t n, float *rows);
/* "a, b, c and 4 more"; malloc'ed. */
char *series_list_names(char *const *names, int n);
/* The number of a calendar feature, or -1. */
int calendar_find(const char *name);
