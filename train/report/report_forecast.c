/* report_forecast: see report_forecast.h. */
#include "train/report/report_forecast.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dates.h"
#include "train/forecast/forecast_record.h"

/* n numbers or nulls, malloc'ed; NULL when the array is another. */
static double *read_numbers(const json_t *array, int64_t n) {
  if (!json_is_array(array) || (int64_t)json_array_size(array) != n) return NULL;
  double *values = base_alloc((size_t)n * sizeof *values);
  for (int64_t i = 0; i < n; i++) {
    const json_t *value = json_array_get(array, (size_t)i);
    values[i] = json_is_number(value) ? json_number_value(value) : NAN;
  }
  return values;
}

static bool read_quantiles(const json_t *array, const RunForecasts *f, ColumnForecast *column) {
  if (!f->n_quantiles) return true;
  column->quantiles = base_alloc((size_t)(f->n_quantiles * f->horizon) * sizeof(double));
  for (int q = 0; q < f->n_quantiles; q++) {
    double *one = read_numbers(json_array_get(array, (size_t)q), f->horizon);
    if (!one) return false;
    memcpy(column->quantiles + q * f->horizon, one, (size_t)f->horizon * sizeof *one);
    free(one);
  }
  return true;
}

static bool read_column(const json_t *object, const RunForecasts *f, int64_t n_rows, ColumnForecast *column) {
  const char *name = json_string_value(json_object_get(object, "column"));
  const json_t *last = json_object_get(object, "last");
  if (name) column->column = base_strdup(name);
  column->last = json_is_number(last) ? json_number_value(last) : NAN;
  column->truth = read_numbers(json_object_get(object, "truth"), n_rows);
  column->forecast = read_numbers(json_object_get(object, "forecast"), f->horizon);
  return name && column->truth && column->forecast && read_quantiles(json_object_get(object, "quantiles"), f, column);
}

/* Dates as seconds; the first one forecast, as short as it can be, names the window. */
static bool read_dates(const json_t *dates, const RunForecasts *f, WindowForecast *window) {
  bool days = true;
  for (int64_t i = 0; i < window->n_rows; i++) {
    const char *text = json_string_value(json_array_get(dates, (size_t)i));
    DateStyle style = {0};
    int64_t date;
    if (!text || date_parse(text, strlen(text), &style, &date) != DATE_OK) return false;
    window->x[i] = (double)date;
    if (i > 0 && window->x[i] <= window->x[i - 1]) return false;
    days = days && date % 86400 == 0;
    if (i != window->n_rows - f->horizon) continue;
    const size_t n = strlen(text);
    window->name = base_format("%.*s", (int)(n > 3 && strcmp(text + n - 3, ":00") == 0 ? n - 3 : n), text);
  }
  if (days && strlen(window->name) > 10) window->name[10] = '\0'; /* times of day would say nothing */
  return true;
}

static bool read_window(const json_t *object, RunForecasts *f, WindowForecast *window) {
  const json_t *values = json_object_get(object, "values"), *dates = json_object_get(object, "dates");
  const int64_t row = json_integer_value(json_object_get(object, "row"));
  const json_t *truth = json_object_get(json_array_get(values, 0), "truth");
  window->n_rows = (int64_t)json_array_size(truth);
  if (window->n_rows < f->horizon) return false;
  window->x = base_alloc((size_t)window->n_rows * sizeof *window->x);
  if (dates) {
    f->dates = true;
    if (!read_dates(dates, f, window)) return false;
  } else {
    for (int64_t i = 0; i < window->n_rows; i++) window->x[i] = (double)(row + i - (window->n_rows - f->horizon));
    window->name = base_format("row %lld", (long long)row);
  }
  const size_t n = json_array_size(values);
  window->columns = base_zalloc(n * sizeof *window->columns);
  for (size_t j = 0; j < n; j++)
    if (!read_column(json_array_get(values, j), f, window->n_rows, &window->columns[window->n_columns++])) return false;
  return true;
}

/* Every window has the columns of the first, and dates if that one has. */
static bool windows_agree(const json_t *windows, const RunForecasts *f) {
  const bool dates = json_object_get(json_array_get(windows, 0), "dates") != NULL;
  for (int i = 0; i < f->n_windows; i++) {
    if ((json_object_get(json_array_get(windows, (size_t)i), "dates") != NULL) != dates) return false;
    for (int j = 0; j < f->windows[0].n_columns; j++)
      if (!window_column(&f->windows[i], f->windows[0].columns[j].column)) return false;
  }
  return f->n_windows > 0 && f->windows[0].n_columns > 0;
}

static double figure_of(const json_t *score, const char *prefix, const char *name) {
  char *key = base_format("%s%s", prefix, name);
  const json_t *value = json_object_get(score, key);
  free(key);
  return json_is_number(value) ? json_number_value(value) : NAN;
}

static void read_score(const json_t *score, RunForecasts *f) {
  const json_t *steps = json_object_get(score, "per_step");
  f->n_scored = json_integer_value(json_object_get(score, "windows"));
  f->season = json_integer_value(json_object_get(score, "season"));
  f->n_output = (int)json_array_size(json_object_get(json_object_get(score, "per_column"), "names"));
  for (int k = 0; k < N_FORECASTERS; k++) {
    char *key = base_format("%smse", forecaster_prefix[k]);
    f->step_mse[k] = read_numbers(json_object_get(steps, key), f->horizon);
    free(key);
    f->score[k] = (struct ForecastFigures){
        .mse = figure_of(score, forecaster_prefix[k], "mse"),
        .mae = figure_of(score, forecaster_prefix[k], "mae"),
        .rmse_units = figure_of(score, forecaster_prefix[k], "rmse_units"),
        .mae_units = figure_of(score, forecaster_prefix[k], "mae_units"),
        .smape = figure_of(score, forecaster_prefix[k], "smape"),
        .mase = figure_of(score, forecaster_prefix[k], "mase"),
    };
  }
}

static bool read_record(const json_t *record, RunForecasts *f) {
  const json_t *windows = json_object_get(record, "windows"), *quantiles = json_object_get(record, "quantiles");
  const char *interval = json_string_value(json_object_get(record, "interval"));
  const int64_t horizon = json_integer_value(json_object_get(record, "horizon"));
  if (horizon < 1 || horizon > 1 << 20) return false;
  f->horizon = (int)horizon;
  f->step = json_integer_value(json_object_get(record, "step"));
  f->interval = interval ? base_strdup(interval) : NULL;
  f->n_quantiles = (int)json_array_size(quantiles);
  f->quantiles = read_numbers(quantiles, f->n_quantiles);
  const size_t n = json_array_size(windows);
  f->windows = base_zalloc(n * sizeof *f->windows);
  for (size_t i = 0; i < n; i++)
    if (!read_window(json_array_get(windows, i), f, &f->windows[f->n_windows++])) return false;
  read_score(json_object_get(record, "score"), f);
  return f->step_mse[BY_MODEL] && windows_agree(windows, f);
}

void run_forecasts_load(const RunData *run, RunForecasts *forecasts) {
  *forecasts = (RunForecasts){0};
  char *path = base_format("%s/%s", run->path, FORECAST_RECORD);
  struct stat info;
  const bool there = stat(path, &info) == 0;
  json_t *record = there ? json_load_file(path, 0, NULL) : NULL;
  free(path);
  if (there && !read_record(record, forecasts)) {
    run_forecasts_free(forecasts);
    forecasts->damaged = true;
  }
  json_decref(record);
}

void run_forecasts_free(RunForecasts *f) {
  for (int i = 0; i < f->n_windows; i++) {
    for (int j = 0; j < f->windows[i].n_columns; j++) {
      ColumnForecast *column = &f->windows[i].columns[j];
      free(column->column), free(column->truth), free(column->forecast), free(column->quantiles);
    }
    free(f->windows[i].columns), free(f->windows[i].name), free(f->windows[i].x);
  }
  for (int k = 0; k < N_FORECASTERS; k++) free(f->step_mse[k]);
  free(f->windows);
  free(f->interval);
  free(f->quantiles);
  *f = (RunForecasts){0};
}

const WindowForecast *run_forecasts_window(const RunForecasts *forecasts, const char *name) {
  for (int i = 0; i < forecasts->n_windows; i++)
    if (strcmp(forecasts->windows[i].name, name) == 0) return &forecasts->windows[i];
  return NULL;
}

const ColumnForecast *window_column(const WindowForecast *window, const char *column) {
  for (int j = 0; j < window->n_columns; j++)
    if (strcmp(window->columns[j].column, column) == 0) return &window->columns[j];
  return NULL;
}
