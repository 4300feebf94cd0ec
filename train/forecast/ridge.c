/* ridge: see ridge.h.
 *
 * The windows of a part overlap, so their second moments need no pass over windows: with S[a,b] = sum_t s(t+a) s(t+b) over
 * the windows t < n, S[a+1,b+1] = S[a,b] - s(a) s(b) + s(n+a) s(n+b). Normal equations and validation errors of every ridge
 * are read off S. */
#include "train/forecast/ridge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/batch.h"

bool cholesky_solve(int64_t n, double *A, int64_t n_cols, double *B) {
  for (int64_t i = 0; i < n; i++) {
    double *row = A + i * n;
    for (int64_t j = 0; j <= i; j++) {
      const double *other = A + j * n;
      double sum = row[j];
      for (int64_t k = 0; k < j; k++) sum -= row[k] * other[k];
      if (j < i) row[j] = sum / other[j];
      else if (!(sum > 0)) return false;
      else row[i] = sqrt(sum);
    }
  }
  for (int64_t i = 0; i < n; i++) { /* L Z = B */
    for (int64_t k = 0; k < i; k++)
      for (int64_t c = 0; c < n_cols; c++) B[i * n_cols + c] -= A[i * n + k] * B[k * n_cols + c];
    for (int64_t c = 0; c < n_cols; c++) B[i * n_cols + c] /= A[i * n + i];
  }
  for (int64_t i = n - 1; i >= 0; i--) { /* L^T X = Z */
    for (int64_t c = 0; c < n_cols; c++) B[i * n_cols + c] /= A[i * n + i];
    for (int64_t k = 0; k < i; k++)
      for (int64_t c = 0; c < n_cols; c++) B[k * n_cols + c] -= A[i * n + k] * B[i * n_cols + c];
  }
  return true;
}

/* ---- rows of a part */

/* Puts the rows of one window in their place; false where one has no value. */
static bool place_window(const SeriesInfo *info, const float *input, const float *output, double *at) {
  for (int64_t t = 0; t < info->context; t++, at += info->n_output)
    for (int j = 0; j < info->n_output; j++) at[j] = input[t * info->n_input + info->output_input[j]];
  for (int64_t i = 0; i < (int64_t)info->horizon * info->n_output; i++) {
    if (isnan(output[i])) return false;
    at[i] = output[i];
  }
  return true;
}

bool part_rows_read(Dataset *dataset, DataPart part, PartRows *rows) {
  const SeriesInfo *info = dataset_series(dataset);
  const ModelConfig shape = {
      .task = TASK_FORECAST, .input_dim = info->n_input, .output_dim = info->n_output, .horizon = info->horizon};
  const int64_t n = dataset_n_samples(dataset, part);
  *rows = (PartRows){.n = n + info->context + info->horizon - 1, .n_windows = n, .n_cols = info->n_output};
  rows->values = base_alloc((size_t)(rows->n * rows->n_cols) * sizeof(double));
  Batch window = batch_make(&shape, 1, info->window, 0);
  int64_t first = INT64_MAX;
  for (int64_t i = 0; i < n; i++) { /* training windows come in any order */
    dataset_fill(dataset, part, i, &window);
    first = min_i64(first, window.row[0]);
  }
  bool whole = true;
  for (int64_t i = 0; i < n && whole; i++) {
    dataset_fill(dataset, part, i, &window);
    const int64_t at = window.row[0] - first;
    CHECK(at >= 0 && at < n, "window %lld of %lld begins %lld rows behind the first", (long long)i, (long long)n,
          (long long)at);
    whole = place_window(info, window.input, window.output, rows->values + at * rows->n_cols);
  }
  batch_release(&window);
  if (!whole) part_rows_free(rows);
  return whole;
}

void part_rows_free(PartRows *rows) {
  free(rows->values);
  *rows = (PartRows){0};
}

/* ---- the linear forecaster */

/* Sums over all windows and columns: S (k, k) and the first moments (k), of the k rows of a window. */
typedef struct Moments {
  int64_t k, n; /* n: windows times columns */
  double *S, *first;
} Moments;

static Moments moments_of(const PartRows *rows, int64_t k) {
  const int64_t n = rows->n_windows, n_cols = rows->n_cols;
  Moments m = {.k = k, .n = n * n_cols};
  m.S = base_zalloc((size_t)(k * k) * sizeof(double));
  m.first = base_zalloc((size_t)k * sizeof(double));
  for (int64_t c = 0; c < n_cols; c++) {
    const double *s = rows->values + c;
    for (int64_t b = 0; b < k; b++)
      for (int64_t t = 0; t < n; t++) {
        m.S[b] += s[t * n_cols] * s[(t + b) * n_cols];
        m.first[b] += s[(t + b) * n_cols];
      }
  }
  for (int64_t a = 0; a + 1 < k; a++)
    for (int64_t b = a; b + 1 < k; b++) {
      double sum = m.S[a * k + b];
      for (int64_t c = 0; c < n_cols; c++) {
        const double *s = rows->values + c, *end = s + n * n_cols;
        sum += end[a * n_cols] * end[b * n_cols] - s[a * n_cols] * s[b * n_cols];
      }
      m.S[(a + 1) * k + b + 1] = sum;
    }
  for (int64_t a = 0; a < k; a++)
    for (int64_t b = 0; b < a; b++) m.S[a * k + b] = m.S[b * k + a];
  return m;
}

static void moments_free(Moments *m) { free(m->S), free(m->first); }

/* Normal equations: inputs z_a (m of them, the last one the constant 1) and targets y_h, both minus the window's last row
 * when from_last: G = sum z z^T (m, m), C = sum z y^T (m, horizon), and yy = sum y^2. */
typedef struct Normal {
  int64_t m, horizon;
  double *G, *C, yy;
} Normal;

/* sum of (row a - r row last)(row b - r row last), and of row a - r row last, over the windows. */
static double product(const Moments *s, int64_t a, int64_t b, int64_t last, double r) {
  const double *S = s->S;
  const int64_t k = s->k;
  return S[a * k + b] - r * (S[a * k + last] + S[last * k + b] - S[last * k + last]);
}
static double sum_of(const Moments *s, int64_t a, int64_t last, double r) { return s->first[a] - r * s->first[last]; }

static Normal normal_of(const Moments *s, int64_t context, int64_t horizon, bool from_last) {
  const int64_t last = context - 1, n_rows = from_last ? last : context;
  Normal e = {.m = n_rows + 1, .horizon = horizon};
  e.G = base_alloc((size_t)(e.m * e.m) * sizeof(double));
  e.C = base_alloc((size_t)(e.m * horizon) * sizeof(double));
  const double r = from_last;
  for (int64_t a = 0; a < n_rows; a++) {
    for (int64_t b = 0; b < n_rows; b++) e.G[a * e.m + b] = product(s, a, b, last, r);
    e.G[a * e.m + n_rows] = e.G[n_rows * e.m + a] = sum_of(s, a, last, r);
    for (int64_t h = 0; h < horizon; h++) e.C[a * horizon + h] = product(s, a, context + h, last, r);
  }
  e.G[n_rows * e.m + n_rows] = (double)s->n;
  for (int64_t h = 0; h < horizon; h++) {
    e.C[n_rows * horizon + h] = sum_of(s, context + h, last, r);
    e.yy += product(s, context + h, context + h, last, r);
  }
  return e;
}

static void normal_free(Normal *e) { free(e->G), free(e->C); }

/* Sum of squared errors of weights w (m, horizon) over the windows behind e: yy - 2 <w, C> + <w, G w>. */
static double squared_error(const Normal *e, const double *w) {
  double sum = e->yy;
  double *row = base_alloc((size_t)e->horizon * sizeof *row);
  for (int64_t a = 0; a < e->m; a++) {
    for (int64_t h = 0; h < e->horizon; h++) row[h] = -2 * e->C[a * e->horizon + h];
    for (int64_t b = 0; b < e->m; b++)
      for (int64_t h = 0; h < e->horizon; h++) row[h] += e->G[a * e->m + b] * w[b * e->horizon + h];
    for (int64_t h = 0; h < e->horizon; h++) sum += row[h] * w[a * e->horizon + h];
  }
  free(row);
  return sum;
}

/* Weights (m, horizon) under a ridge of `strength` times the mean square of an input; the constant is free of it. NULL where
 * the system is singular. */
static double *ridge_solve(const Normal *e, double strength) {
  const size_t matrix = (size_t)(e->m * e->m) * sizeof(double), weights = (size_t)(e->m * e->horizon) * sizeof(double);
  double *G = memcpy(base_alloc(matrix), e->G, matrix), *w = memcpy(base_alloc(weights), e->C, weights), trace = 0;
  for (int64_t a = 0; a + 1 < e->m; a++) trace += G[a * e->m + a];
  for (int64_t a = 0; a + 1 < e->m; a++) G[a * e->m + a] += strength * trace / (double)max_i64(1, e->m - 1);
  const bool solved = cholesky_solve(e->m, G, e->horizon, w);
  free(G);
  if (solved) return w;
  free(w);
  return NULL;
}

/* Weights on the plain window: those of differences from the last row say what is left for it. */
static void keep_weights(LinearForecaster *linear, const double *w) {
  const int64_t n_l = linear->context, n_h = linear->horizon, n_rows = linear->from_last ? n_l - 1 : n_l;
  for (int64_t h = 0; h < n_h; h++) {
    double rest = 1;
    for (int64_t a = 0; a < n_rows; a++) rest -= linear->w[a * n_h + h] = w[a * n_h + h];
    if (linear->from_last) linear->w[(n_l - 1) * n_h + h] = rest;
    linear->w[n_l * n_h + h] = w[n_rows * n_h + h];
  }
}

void linear_fit(const PartRows *train, const PartRows *val, int context, int horizon, LinearForecaster *linear) {
  static const double STRENGTHS[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
  *linear = (LinearForecaster){.context = context, .horizon = horizon};
  linear->w = base_zalloc((size_t)((context + 1) * horizon) * sizeof(double));
  Moments seen = moments_of(train, context + horizon), unseen = moments_of(val, context + horizon);
  double best = INFINITY;
  for (int from_last = 0; from_last < 2; from_last++) {
    Normal fit = normal_of(&seen, context, horizon, from_last), check = normal_of(&unseen, context, horizon, from_last);
    for (size_t i = 0; i < sizeof STRENGTHS / sizeof *STRENGTHS; i++) {
      double *w = ridge_solve(&fit, STRENGTHS[i]);
      const double error = w ? squared_error(&check, w) : INFINITY;
      if (error < best) {
        best = error;
        linear->from_last = from_last, linear->ridge = STRENGTHS[i];
        keep_weights(linear, w);
      }
      free(w);
    }
    normal_free(&fit), normal_free(&check);
  }
  moments_free(&seen), moments_free(&unseen);
}

void linear_free(LinearForecaster *linear) {
  free(linear->w);
  *linear = (LinearForecaster){0};
}

void linear_predict(const LinearForecaster *linear, const float *window, int64_t stride, double *forecast) {
  const int64_t n_l = linear->context, n_h = linear->horizon;
  memcpy(forecast, linear->w + n_l * n_h, (size_t)n_h * sizeof *forecast);
  for (int64_t a = 0; a < n_l; a++) {
    const double x = window[a * stride], *w = linear->w + a * n_h;
    for (int64_t h = 0; h < n_h; h++) forecast[h] += x * w[h];
  }
}
