/* forecast_score: see forecast_score.h. */
#include "train/forecast/forecast_score.h"

#include <math.h>
#include <stdlib.h>

#include "train/batch.h"

/* ---- what is needed before the first window */

/* Mean |s(t) - s(t - season)| of each column. */
static void season_scale(const PartRows *rows, int64_t season, double *scale) {
  for (int c = 0; c < rows->n_cols; c++) {
    double sum = 0;
    for (int64_t t = season; t < rows->n; t++)
      sum += fabs(rows->values[t * rows->n_cols + c] - rows->values[(t - season) * rows->n_cols + c]);
    scale[c] = rows->n > season ? sum / (double)(rows->n - season) : 0;
  }
}

static void prepare(Dataset *dataset, ForecastScore *score) {
  const SeriesInfo *info = dataset_series(dataset);
  PartRows train, val = {0};
  score->scale = base_zalloc((size_t)info->n_output * sizeof(double));
  if (!part_rows_read(dataset, PART_TRAIN, &train)) {
    score->without_linear = "the training part has missing values";
    return;
  }
  season_scale(&train, info->season, score->scale);
  if (!part_rows_read(dataset, PART_VAL, &val)) score->without_linear = "the validation part has missing values";
  else linear_fit(&train, &val, info->context, info->horizon, &score->linear);
  part_rows_free(&train), part_rows_free(&val);
}

static void score_open(Dataset *dataset, DataPart part, const ModelConfig *c, ForecastScore *score) {
  const SeriesInfo *info = dataset_series(dataset);
  const size_t n = (size_t)info->horizon * (size_t)info->n_output;
  *score = (ForecastScore){.horizon = info->horizon,
                           .n_out = info->n_output,
                           .n_quantiles = forecaster_n_quantiles(c),
                           .n_windows = dataset_n_samples(dataset, part),
                           .season = info->season};
  score->n_kept_windows = score->n_windows / DROP_LAST_BATCH * DROP_LAST_BATCH;
  score->n = base_zalloc(n * sizeof *score->n);
  prepare(dataset, score);
  for (int f = 0; f < N_FORECASTERS; f++) {
    Errors *of = &score->of[f];
    of->used = !(f == BY_SEASONAL && (info->season < 2 || info->season > info->context)) &&
               !(f == BY_LINEAR && score->without_linear);
    of->at = base_zalloc(n * sizeof *of->at);
    of->smape = base_zalloc(n * sizeof *of->smape);
  }
}

void forecast_score_free(ForecastScore *score) {
  for (int f = 0; f < N_FORECASTERS; f++) free(score->of[f].at), free(score->of[f].smape);
  free(score->n);
  free(score->scale);
  linear_free(&score->linear);
  *score = (ForecastScore){0};
}

/* ---- windows */

/* The forecasts of the untrained, each of one window: window[t * stride], t < context -> forecast[horizon]. */
typedef void Naive(const ForecastScore *score, const float *window, int64_t context, int64_t stride, double *forecast);

static void by_naive(const ForecastScore *score, const float *window, int64_t context, int64_t stride,
                     double *forecast) {
  for (int h = 0; h < score->horizon; h++) forecast[h] = window[(context - 1) * stride];
}

static void by_seasonal(const ForecastScore *score, const float *window, int64_t context, int64_t stride,
                        double *forecast) {
  for (int h = 0; h < score->horizon; h++) forecast[h] = window[(context - score->season + h % score->season) * stride];
}

static void by_mean(const ForecastScore *score, const float *window, int64_t context, int64_t stride,
                    double *forecast) {
  double sum = 0;
  for (int64_t t = 0; t < context; t++) sum += window[t * stride];
  for (int h = 0; h < score->horizon; h++) forecast[h] = sum / (double)context;
}

static void by_linear(const ForecastScore *score, const float *window, int64_t context, int64_t stride,
                      double *forecast) {
  CHECK(context == score->linear.context, "a window of %lld rows", (long long)context);
  linear_predict(&score->linear, window, stride, forecast);
}

static Naive *const NAIVE[N_FORECASTERS] = {
    [BY_NAIVE] = by_naive, [BY_SEASONAL] = by_seasonal, [BY_MEAN] = by_mean, [BY_LINEAR] = by_linear};

/* Adds one window's forecast (stride between its steps) of column j. */
static void add_errors(const ForecastScore *score, const SeriesInfo *info, Errors *of, int j, const float *target,
                       const double *forecast, bool kept) {
  const double mean = info->mean[info->output_input[j]], std = info->std[info->output_input[j]];
  for (int h = 0; h < score->horizon; h++) {
    const double y = target[h * score->n_out + j], error = forecast[h] - y;
    if (isnan(y)) continue;
    const double size = fabs(y * std + mean) + fabs(forecast[h] * std + mean);
    const int at = h * score->n_out + j;
    of->at[at].squares += error * error, of->at[at].absolutes += fabs(error);
    if (size > 0) of->smape[at] += 200 * fabs(error * std) / size;
    of->all.squares += error * error, of->all.absolutes += fabs(error);
    if (kept) of->kept.squares += error * error, of->kept.absolutes += fabs(error);
  }
}

static void count_targets(ForecastScore *score, const float *target, bool kept) {
  for (int i = 0; i < score->horizon * score->n_out; i++) {
    if (isnan(target[i])) continue;
    score->n[i]++, score->n_values++;
    score->n_kept_values += kept;
  }
}

/* The point forecast of column j and, on the way, what the quantiles cover. */
static void by_model(ForecastScore *score, const ModelConfig *c, const Tensor *prediction, int64_t s, int j,
                     const float *target, double *forecast) {
  const int n_q = score->n_quantiles, point = forecaster_point(c);
  for (int h = 0; h < score->horizon; h++) {
    const int64_t at = ((s * score->horizon + h) * score->n_out + j) * n_q;
    forecast[h] = tensor_get(prediction, at + point);
    for (int q = 0; q < n_q; q++) score->below[q] += target[h * score->n_out + j] <= tensor_get(prediction, at + q);
  }
}

static void add_batch(ForecastScore *score, const ModelConfig *c, const SeriesInfo *info, const Batch *batch,
                      const Tensor *prediction) {
  double *forecast = base_alloc((size_t)score->horizon * sizeof *forecast);
  for (int64_t s = 0; s < batch->n_seq; s++) {
    const float *target = batch->output + s * score->horizon * score->n_out;
    const bool kept = batch->first + s < score->n_kept_windows;
    count_targets(score, target, kept);
    for (int j = 0; j < score->n_out; j++) {
      const float *window = batch->input + s * batch->length * info->n_input + info->output_input[j];
      by_model(score, c, prediction, s, j, target, forecast);
      add_errors(score, info, &score->of[BY_MODEL], j, target, forecast, kept);
      for (int f = BY_NAIVE; f < N_FORECASTERS; f++) {
        if (!score->of[f].used) continue;
        NAIVE[f](score, window, info->context, info->n_input, forecast);
        add_errors(score, info, &score->of[f], j, target, forecast, kept);
      }
    }
  }
  free(forecast);
}

void forecast_score(Model *model, Device *device, Dtype act, Dataset *dataset, DataPart part, int64_t n_seq,
                    ForecastScore *score) {
  const ModelConfig *c = &model->config;
  score_open(dataset, part, c, score);
  Batch batch = batch_make(c, n_seq, forecaster_window_rows(c), 0);
  double loss = 0;
  for (int64_t first = 0; first < score->n_windows; first += n_seq) {
    batch.n_seq = min_i64(n_seq, score->n_windows - first);
    dataset_fill(dataset, part, first, &batch);
    const size_t mark = arena_mark(&device->step);
    Tape tape = tape_make(device, act, false);
    const Windows windows = batch_windows(&batch, c, &tape);
    Tensor *prediction = forecaster_predict(model, &tape, &windows);
    const Tensor losses =
        device_pull(device, forecaster_loss(model, &tape, prediction, batch_outputs(&batch, c, &tape)));
    for (int64_t s = 0; s < batch.n_seq; s++) loss += tensor_get(&losses, s);
    const Tensor predictions = device_pull(device, prediction);
    add_batch(score, c, dataset_series(dataset), &batch, &predictions);
    tape_reset(&tape, mark);
  }
  score->loss = loss / (double)score->n_windows;
  batch_release(&batch);
}
