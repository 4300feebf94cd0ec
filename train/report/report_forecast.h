/* report_forecast: what a run directory tells the report of its forecasts (forecasts.json, train/forecast/forecast_record.h). */
#pragma once

#include "train/forecast/forecast_score.h"
#include "train/report/report_run.h"

/* One column of one window, in the data's units; NaN where the data has no value. */
typedef struct ColumnForecast {
  char *column;
  double *truth;     /* (n_rows) the end of the look-back, then the rows forecast */
  double last;       /* the last row before them */
  double *forecast;  /* (horizon) */
  double *quantiles; /* (n_quantiles, horizon); NULL: none */
} ColumnForecast;

typedef struct WindowForecast {
  char *name; /* the first row forecast: "2017-10-20 00:00" or "row 9264" */
  double *x;  /* (n_rows) seconds since 1970, or numbers of rows */
  int64_t n_rows;
  ColumnForecast *columns;
  int n_columns;
} WindowForecast;

typedef struct RunForecasts {
  bool damaged;           /* there is a file, but not one of ours; nothing else is set */
  int64_t step, n_scored; /* the weights' step; windows behind the scores */
  int horizon;
  bool dates;
  char *interval; /* from row to row, "1 hour"; NULL: not known */
  double *quantiles;
  int n_quantiles;
  WindowForecast *windows;
  int n_windows; /* 0: the run has no forecasts */
  int n_output;  /* columns behind the scores */
  int64_t season;
  double *step_mse[N_FORECASTERS]; /* (horizon) scaled; NULL: not scored */
  struct ForecastFigures {
    double mse, mae, rmse_units, mae_units, smape, mase; /* NaN: not known */
  } score[N_FORECASTERS];
} RunForecasts;

/* Never fails: a run without forecasts has none, a damaged file is told by the flag. */
void run_forecasts_load(const RunData *run, RunForecasts *forecasts);
void run_forecasts_free(RunForecasts *forecasts);
/* NULL when there is none. */
const WindowForecast *run_forecasts_window(const RunForecasts *forecasts, const char *name);
const ColumnForecast *window_column(const WindowForecast *window, const char *column);
