/* forecast: what a trained forecaster says of rows it has not seen, in the data's units. */
#pragma once

#include "train/open.h"

/* What the checkpoint keeps of its series. A language model, or weights without a checkpoint: CODE_CHECKPOINT. */
Status forecast_series(const OpenModel *open, Series **series);

/* The columns of a forecast: output columns, each with its quantiles. */
int forecast_n_columns(const ModelConfig *config);
/* "OT", or "OT_q0.1"; malloc'ed. */
char *forecast_column_name(const ModelConfig *config, const SeriesInfo *info, int column);

/* Forecasts the rows after a window: input (context, n_input) scaled, row the clock of its first row (Batch.row) ->
 * values (horizon, forecast_n_columns). */
void forecast_window(Model *model, Device *device, Dtype act, const SeriesInfo *info, const float *input, int64_t row,
                     double *values);

/* Row after row with the state kept: memory and time of a row do not depend on how many came before. */
typedef struct ForecastStream {
  Model *model;
  Device *device;
  Dtype act;
  const SeriesInfo *info;
  ModelState state; /* after the rows so far; in the weights arena */
} ForecastStream;
/* The model must be one that forecaster_stream_problem allows. On a dry device: to plan for. */
ForecastStream forecast_stream_open(Model *model, Device *device, Dtype act, const SeriesInfo *info);
/* Takes one scaled row and forecasts the rows after it, as forecast_window does. */
void forecast_stream_take(ForecastStream *stream, const float *input, int64_t row, double *values);
