/* forecast_record: see forecast_record.h. */
#include "train/forecast/forecast_record.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dates.h"
#include "train/batch.h"
#include "train/forecast/forecast.h"
#include "train/forecast/forecast_score.h"

int forecast_record_windows(int64_t n_windows, int horizon, int64_t window[]) {
  const int64_t n_rows = n_windows + horizon - 1;
  int n = 0;
  for (int i = 0; i < RECORD_WINDOWS; i++) {
    const int64_t at = min_i64(i * n_rows / RECORD_WINDOWS, n_windows - 1);
    if (n == 0 || at > window[n - 1]) window[n++] = at;
  }
  return n;
}

int forecast_record_columns(int n_output, int column[]) {
  const int n = n_output < RECORD_COLUMNS ? n_output : RECORD_COLUMNS;
  for (int i = 0; i < n; i++) column[i] = n > 1 ? i * (n_output - 1) / (n - 1) : 0;
  return n;
}

/* Rows of the look-back that are shown: half of what is forecast, and a season where there is one. */
static int64_t tail_rows(const SeriesInfo *info) {
  return min_i64(info->context, max_i64(8, max_i64(info->horizon / 2, info->season)));
}

/* With the digits that a float has; null where it is not finite. */
static json_t *number(double value) {
  char digits[32];
  snprintf(digits, sizeof digits, "%.7g", value);
  return isfinite(value) ? json_real(strtod(digits, NULL)) : json_null();
}

/* n numbers, `stride` apart. */
static json_t *numbers(const double *values, int64_t n, int64_t stride) {
  json_t *array = json_array();
  for (int64_t i = 0; i < n; i++) json_array_append_new(array, number(values[i * stride]));
  return array;
}

static json_t *date_texts(const int64_t *dates, int64_t n) {
  static const DateStyle style = {.order = 'Y', .separator = '-', .joint = ' ', .padded = true, .seconds = true};
  json_t *array = json_array();
  for (int64_t i = 0; i < n; i++) {
    char *text = date_format(dates[i], &style);
    json_array_append_new(array, json_string(text));
    free(text);
  }
  return array;
}

/* Column j of one window; forecast is what forecast_window gave. */
static json_t *column_values(const ModelConfig *c, const SeriesInfo *info, int j, const SeriesWindow *window,
                             const float *input, const double *forecast) {
  const int64_t tail = tail_rows(info), n_q = forecaster_n_quantiles(c), stride = info->n_output * n_q;
  const double *truth = window->values + (info->context - tail) * info->n_output + j, *ours = forecast + j * n_q;
  const int column = info->output_input[j];
  const double last =
      (double)input[(info->context - 1) * info->n_input + column] * info->std[column] + info->mean[column];
  json_t *values = json_object();
  json_object_set_new(values, "column", json_string(info->output_names[j]));
  json_object_set_new(values, "truth", numbers(truth, tail + info->horizon, info->n_output));
  json_object_set_new(values, "last", number(last));
  json_object_set_new(values, "forecast", numbers(ours + forecaster_point(c), info->horizon, stride));
  if (c->loss != FORECAST_QUANTILE) return values;
  json_t *quantiles = json_array();
  for (int64_t q = 0; q < n_q; q++) json_array_append_new(quantiles, numbers(ours + q, info->horizon, stride));
  json_object_set_new(values, "quantiles", quantiles);
  return values;
}

static json_t *window_record(Model *model, Device *device, Dtype act, Dataset *dataset, int64_t index) {
  const ModelConfig *c = &model->config;
  const SeriesInfo *info = dataset_series(dataset);
  const int64_t skipped = info->context - tail_rows(info);
  Batch batch = batch_make(c, 1, info->window, 0);
  dataset_fill(dataset, PART_VAL, index, &batch);
  SeriesWindow window = dataset_window(dataset, PART_VAL, index);
  double *forecast = base_alloc((size_t)(info->horizon * forecast_n_columns(c)) * sizeof *forecast);
  forecast_window(model, device, act, info, batch.input, batch.row[0], forecast);
  json_t *record = json_object(), *values = json_array();
  json_object_set_new(record, "window", json_integer(index));
  json_object_set_new(record, "row", json_integer(window.row + info->context));
  if (window.dates)
    json_object_set_new(record, "dates", date_texts(window.dates + skipped, info->context + info->horizon - skipped));
  int column[RECORD_COLUMNS];
  const int n_columns = forecast_record_columns(info->n_output, column);
  for (int j = 0; j < n_columns; j++)
    json_array_append_new(values, column_values(c, info, column[j], &window, batch.input, forecast));
  json_object_set_new(record, "values", values);
  free(forecast);
  series_window_free(&window);
  batch_release(&batch);
  return record;
}

static json_t *score_record(Model *model, Device *device, Dtype act, Dataset *dataset, int64_t n_seq) {
  ForecastScore score;
  StrBuf text = {0};
  forecast_score(model, device, act, dataset, PART_VAL, n_seq, &score);
  forecast_score_json(&score, &model->config, dataset_series(dataset), &text);
  json_t *record = json_loadb(text.data, text.n, 0, NULL);
  CHECK(record, "a score that is not JSON: %s", text.data);
  free(text.data);
  forecast_score_free(&score);
  return record;
}

Status forecast_record_write(Model *model, Device *device, Dtype act, Dataset *dataset, int64_t n_seq, int64_t step,
                             const char *directory) {
  const ModelConfig *c = &model->config;
  const SeriesInfo *info = dataset_series(dataset);
  json_t *record = json_pack("{s:I, s:s, s:i, s:i}", "step", (json_int_t)step, "part", "val", "context", info->context,
                             "horizon", info->horizon);
  if (info->step) json_object_set_new(record, "interval", json_string(info->step));
  json_object_set_new(record, "score", score_record(model, device, act, dataset, n_seq));
  json_t *columns = json_array(), *windows = json_array();
  int column[RECORD_COLUMNS];
  int64_t window[RECORD_WINDOWS];
  const int n_columns = forecast_record_columns(info->n_output, column);
  const int n_windows = forecast_record_windows(dataset_n_samples(dataset, PART_VAL), info->horizon, window);
  for (int j = 0; j < n_columns; j++) json_array_append_new(columns, json_string(info->output_names[column[j]]));
  for (int i = 0; i < n_windows; i++)
    json_array_append_new(windows, window_record(model, device, act, dataset, window[i]));
  json_object_set_new(record, "columns", columns);
  if (c->loss == FORECAST_QUANTILE)
    json_object_set_new(record, "quantiles", numbers(c->quantiles, forecaster_n_quantiles(c), 1));
  json_object_set_new(record, "windows", windows);
  char *text = json_dumps(record, JSON_COMPACT | JSON_REAL_PRECISION(10));
  char *path = base_format("%s/%s", directory, FORECAST_RECORD);
  StrBuf out = {.data = text, .n = strlen(text)};
  Status status = strbuf_save(&out, path);
  free(text);
  free(path);
  json_decref(record);
  return status;
}
