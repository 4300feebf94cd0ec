/* forecast_score: how good a forecaster is, beside four that need no training, over the same windows of a part.
 *
 * e = forecast - target. In scaled units: MSE, MAE. In the data's units: RMSE, MAE, sMAPE = mean of 200 |e| / (|forecast| +
 * |target|) percent, and MASE = MAE over that of the seasonal naive forecast one step ahead inside the training part
 * (Hyndman & Koehler 2006), a mean over columns. All windows, and with the last incomplete batch of 32 dropped, as many
 * published tables have it. */
#pragma once

#include "models/aspis.h"
#include "train/forecast/ridge.h"
#include "train/format.h"

enum { DROP_LAST_BATCH = 32 };

typedef enum Forecaster {
  BY_MODEL,
  BY_NAIVE,    /* the last row */
  BY_SEASONAL, /* the rows one season before */
  BY_MEAN,     /* the mean of the window */
  BY_LINEAR,   /* ridge.h */
  N_FORECASTERS
} Forecaster;
/* What names the figures of each in JSON, "naive_mse"; "" for the model. */
extern const char *const forecaster_prefix[N_FORECASTERS];

typedef struct Sums {
  double squares, absolutes;
} Sums;

/* The errors of one forecaster. */
typedef struct Errors {
  bool used;
  Sums all, kept; /* scaled, over all windows and without the incomplete batch, in the order of the windows */
  Sums *at;       /* (horizon, n_out) scaled */
  double *smape;  /* (horizon, n_out) sums of percent */
} Errors;

typedef struct ForecastScore {
  int horizon, n_out, n_quantiles;
  int64_t n_windows, n_kept_windows, n_values, n_kept_values, season;
  int64_t *n; /* (horizon, n_out) targets that are there */
  Errors of[N_FORECASTERS];
  double loss;                  /* the model's own, mean over windows */
  int64_t below[MAX_QUANTILES]; /* targets that a quantile forecast covers */
  double *scale;                /* (n_out) of MASE, scaled units; 0: a column that is its own past season */
  LinearForecaster linear;
  const char *without_linear; /* why there is none, or NULL */
} ForecastScore;

/* Scores the whole part, n_seq windows at a time. Works as evaluate_part does. */
void forecast_score(Model *model, Device *device, Dtype act, Dataset *dataset, DataPart part, int64_t n_seq,
                    ForecastScore *score);
void forecast_score_free(ForecastScore *score);
/* One JSON object, or a table. */
void forecast_score_json(const ForecastScore *score, const ModelConfig *config, const SeriesInfo *info, StrBuf *out);
void forecast_score_table(const ForecastScore *score, const SeriesInfo *info, StrBuf *out);
