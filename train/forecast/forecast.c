/* forecast: see forecast.h. */
#include "train/forecast/forecast.h"

#include <stdlib.h>

#include "train/batch.h"

Status forecast_series(const OpenModel *open, Series **series) {
  if (open->config.model.task != TASK_FORECAST)
    return status_fail(CODE_CHECKPOINT, "%s: found a language model, expected a forecaster (model.task: forecast)",
                       open->path);
  if (!open->is_checkpoint || !open->info.tokenizer_json)
    return status_fail(CODE_CHECKPOINT,
                       "%s: found weights alone, expected a checkpoint: columns, scaler and dates of the training data "
                       "are in it",
                       open->path);
  return series_from_json(open->info.tokenizer_json, series);
}

int forecast_n_columns(const ModelConfig *config) { return config->output_dim * forecaster_n_quantiles(config); }

char *forecast_column_name(const ModelConfig *config, const SeriesInfo *info, int column) {
  const int n_q = forecaster_n_quantiles(config);
  const char *name = info->output_names[column / n_q];
  return config->loss == FORECAST_QUANTILE ? base_format("%s_q%g", name, config->quantiles[column % n_q])
                                           : base_strdup(name);
}

/* The scaled forecast of one window in the data's units. */
static void unscale(Device *device, const ModelConfig *config, const SeriesInfo *info, const Tensor *prediction,
                    double *values) {
  const Tensor host = device_pull(device, prediction);
  const int n_q = forecaster_n_quantiles(config);
  for (int64_t i = 0; i < tensor_count(prediction); i++) {
    const int input = info->output_input[i / n_q % info->n_output];
    values[i] = tensor_get(&host, i) * info->std[input] + info->mean[input];
  }
}

void forecast_window(Model *model, Device *device, Dtype act, const SeriesInfo *info, const float *input, int64_t row,
                     double *values) {
  const size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, act, false);
  const Batch batch = {
      .n_seq = 1, .length = forecaster_window_rows(&model->config), .input = (float *)(uintptr_t)input, .row = &row};
  const Windows windows = batch_windows(&batch, &model->config, &tape);
  Tensor *prediction = forecaster_predict(model, &tape, &windows);
  if (!device->dry) unscale(device, &model->config, info, prediction, values);
  tape_reset(&tape, mark);
}

ForecastStream forecast_stream_open(Model *model, Device *device, Dtype act, const SeriesInfo *info) {
  return (ForecastStream){.model = model,
                          .device = device,
                          .act = act,
                          .info = info,
                          .state = forecaster_start_state(model, device, &device->weights, device->backend->real)};
}

void forecast_stream_take(ForecastStream *stream, const float *input, int64_t row, double *values) {
  Device *device = stream->device;
  const ModelConfig *config = &stream->model->config;
  const size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, stream->act, false);
  const Batch batch = {.n_seq = 1, .length = 1, .input = (float *)(uintptr_t)input, .row = &row};
  Windows windows = batch_windows(&batch, config, &tape);
  ModelState next = model_state_out(stream->model, &tape, stream->state.n_seq, 0);
  windows.state_in = &stream->state, windows.state_out = &next;
  Tensor *prediction = forecaster_predict(stream->model, &tape, &windows);
  if (!device->dry) {
    unscale(device, config, stream->info, prediction, values);
    for (int64_t s = 0; s < next.n_seq; s++) model_state_put(stream->model, device, &stream->state, s, &next, s);
  }
  tape_reset(&tape, mark);
}
