/* series_rows: from the table to rows of inputs: the dates' step, missing values, the scaler, calendar features.
 *
 *   scaled = (value - mean) / std, mean and population std over the rows of the training part, in double;
 *   calendar features lie evenly in [-0.5, 0.5]: (field - lowest) / (highest - lowest) - 0.5. */
#include "data/series.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- dates -------------------------------------------------------------------------------------------------------- */

Status series_find_step(const Series *series, const SeriesTable *table, DateStep *step) {
  int64_t broken;
  *step = (DateStep){0};
  if (!table->date || date_step(table->date, table->n_rows, step, &broken) || series->gaps == GAPS_IGNORE)
    return STATUS_OK;
  char *place = series_table_place(table, broken), *text = date_step_text(*step),
       *found = date_format(table->date[broken], &table->style),
       *expected = date_format(date_after(table->date[broken - 1], *step, 1), &table->style);
  Status status = status_fail(CODE_DATA,
                              "%s, column %s: found %s, expected %s, %s after the row above as most rows are; put the "
                              "missing rows in (empty cells will do), or set data.gaps: ignore",
                              place, table->date_name, found, expected, text);
  free(place), free(text), free(found), free(expected);
  return status;
}

Status series_take_dates(Series *series, const SeriesTable *table) {
  if (!table->date) return STATUS_OK;
  TRY(series_find_step(series, table, &series->step));
  series->date_name = base_strdup(table->date_name);
  series->first_date = table->date[0];
  if (series->step.seconds || series->step.months) series->info.step = date_step_text(series->step);
  return STATUS_OK;
}

int64_t series_clock(const Series *series, const SeriesTable *table) {
  return table->date ? date_steps(series->first_date, table->date[0], series->step) : 0;
}

typedef struct Calendar {
  const char *name;
  int low, high;
  size_t offset; /* of the field in DateFields */
} Calendar;

#define FIELD(name, low, high)                                                                                         \
  { #name, low, high, offsetof(DateFields, name) }
static const Calendar CALENDAR[] = {FIELD(minute, 0, 59),       FIELD(hour, 0, 23),
                                    FIELD(day_of_week, 0, 6),   {"day_of_month", 1, 31, offsetof(DateFields, day)},
                                    FIELD(day_of_year, 1, 366), FIELD(week, 1, 53),
                                    FIELD(month, 1, 12)};
#undef FIELD
enum { N_CALENDAR = sizeof CALENDAR / sizeof *CALENDAR };

int calendar_find(const char *name) {
  for (int i = 0; i < N_CALENDAR; i++)
    if (strcmp(CALENDAR[i].name, name) == 0) return i;
  return -1;
}

static double calendar_value(const Calendar *c, const DateFields *fields) {
  const int field = *(const int *)(const void *)((const char *)fields + c->offset);
  return (double)(field - c->low) / (c->high - c->low) - 0.5;
}

/* --- missing values ----------------------------------------------------------------------------------------------- */

/* As lines that end with a separator make one; of a single row, as streams bring them, the line says more. */
static bool is_empty(const SeriesTable *table, int column) {
  for (int64_t row = 0; row < table->n_rows; row++)
    if (!isnan(table->value[row * table->n_columns + column])) return false;
  return table->n_rows > 1;
}

static Status refuse_missing(const SeriesTable *table, int64_t row, int column, int64_t n) {
  if (is_empty(table, column))
    return status_fail(CODE_DATA,
                       "%s: column %s: found no value in any of its %lld rows; name the columns to use in data.columns",
                       table->path, table->names[column], (long long)table->n_rows);
  char *place = series_table_place(table, row);
  Status status = status_fail(CODE_DATA,
                              "%s, column %s: found no value, the first of %lld missing; put values in, or set "
                              "data.missing: ffill (repeat the value above) or mask (train around them)",
                              place, table->names[column], (long long)n);
  free(place);
  return status;
}

Status series_fill_missing(const Series *series, SeriesTable *table) {
  const int n = table->n_columns;
  const int64_t count = table->n_rows * n;
  int64_t first = -1, missing = 0;
  if (series->missing == MISSING_MASK) return STATUS_OK;
  for (int64_t i = 0; i < count; i++) {
    if (!isnan(table->value[i])) continue;
    if (first < 0) first = i;
    missing++;
    if (series->missing == MISSING_REFUSE) continue;
    if (i >= n) table->value[i] = table->value[i - n];
    else {
      char *place = series_table_place(table, 0);
      Status status = status_fail(CODE_DATA,
                                  "%s, column %s: found no value and none above to repeat; put one in, leave out the "
                                  "rows before the first, or set data.missing: mask",
                                  place, table->names[i]);
      free(place);
      return status;
    }
  }
  if (missing > 0 && series->missing == MISSING_REFUSE)
    return refuse_missing(table, first / n, (int)(first % n), missing);
  return STATUS_OK;
}

/* --- the scaler --------------------------------------------------------------------------------------------------- */

typedef struct Moments {
  int64_t n;
  double sum, squares, low, high;
} Moments;

static Status no_scale(const SeriesTable *table, int column, const Moments *m, int64_t n_rows) {
  char *found = m->n == 0 ? base_strdup("no value") : base_format("the value %.6g", m->low);
  Status status = status_fail(CODE_DATA,
                              "%s: column %s: found %s in all %lld rows of the training part, expected values that "
                              "change; leave the column out (data.columns), or set data.scale: false",
                              table->path, table->names[column], found, (long long)n_rows);
  free(found);
  return status;
}

/* Two passes, row by row as the table lies: the second one's sums are of differences from the mean. */
Status series_fit_scaler(Series *series, const SeriesTable *table, int64_t n_rows) {
  const int n = table->n_columns;
  double *mean = series->info.mean, *std = series->info.std;
  Moments *moments = base_alloc(sizeof *moments * (size_t)n);
  for (int i = 0; i < n; i++) moments[i] = (Moments){.low = INFINITY, .high = -INFINITY};
  for (int64_t row = 0; row < n_rows; row++)
    for (int i = 0; i < n; i++) {
      const double value = table->value[row * n + i];
      Moments *m = &moments[i];
      if (isnan(value)) continue;
      m->n++, m->sum += value;
      m->low = fmin(m->low, value), m->high = fmax(m->high, value);
    }
  Status status = STATUS_OK;
  for (int i = n - 1; i >= 0; i--) {
    mean[i] = moments[i].sum / (double)moments[i].n;
    if (moments[i].n > 0 && moments[i].low < moments[i].high) continue;
    status_clear(&status); /* the first column is the one to be named */
    status = no_scale(table, i, &moments[i], n_rows);
  }
  for (int64_t row = 0; row < n_rows; row++)
    for (int i = 0; i < n; i++) {
      const double d = table->value[row * n + i] - mean[i];
      if (!isnan(d)) moments[i].squares += d * d;
    }
  for (int i = 0; i < n; i++) std[i] = sqrt(moments[i].squares / (double)moments[i].n);
  free(moments);
  return status;
}

void series_make_rows(const Series *series, const SeriesTable *table, int64_t first, int64_t n, float *rows) {
  const SeriesInfo *info = &series->info;
  const int n_file = info->n_values + info->n_known, n_calendar = info->n_input - n_file;
  const Calendar *feature[N_CALENDAR];
  for (int i = 0; i < n_calendar; i++) feature[i] = &CALENDAR[calendar_find(info->input_names[n_file + i])];
  for (int64_t r = 0; r < n; r++, rows += info->n_input) {
    const double *value = table->value + (first + r) * table->n_columns;
    for (int i = 0; i < n_file; i++) rows[i] = (float)((value[i] - info->mean[i]) / info->std[i]);
    if (n_calendar == 0) continue;
    const DateFields fields = date_fields(table->date[first + r]);
    for (int i = 0; i < n_calendar; i++) rows[n_file + i] = (float)calendar_value(feature[i], &fields);
  }
}
