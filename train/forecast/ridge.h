/* ridge: symmetric positive definite systems in double, and the linear forecaster fitted by them. */
#pragma once

#include "data/data.h"

/* Solves A X = B for A (n, n), of which the lower half is read and overwritten, and B (n, n_cols), overwritten by X; row by
 * row. False where A is not positive definite. (Cholesky: A = L L^T) */
bool cholesky_solve(int64_t n, double *A, int64_t n_cols, double *B);

/* The rows of a part as its windows show them, output columns only: values (n, n_cols), scaled. */
typedef struct PartRows {
  int64_t n, n_windows;
  int n_cols;
  double *values;
} PartRows;
/* False where targets are missing; nothing is left to free then. */
bool part_rows_read(Dataset *dataset, DataPart part, PartRows *rows);
void part_rows_free(PartRows *rows);

/* forecast[h] = sum over a < context of window[a] w[a, h] + w[context, h], the same for every column: the least squares of
 * the training windows under a ridge. Its strength, and whether weights are free or add up to 1 (window and forecast are
 * then taken relative to the last row), are the ones best on the validation windows. */
typedef struct LinearForecaster {
  int context, horizon;
  double *w;      /* (context + 1, horizon) */
  double ridge;   /* over the mean square of an input */
  bool from_last; /* the weights add up to 1 */
} LinearForecaster;
/* train and val are of windows of context + horizon rows, one at every row. */
void linear_fit(const PartRows *train, const PartRows *val, int context, int horizon, LinearForecaster *linear);
void linear_free(LinearForecaster *linear);
/* window[a * stride] for a < context -> forecast[horizon] */
void linear_predict(const LinearForecaster *linear, const float *window, int64_t stride, double *forecast);
