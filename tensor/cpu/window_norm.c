/* window_norm: y = (x - mean) / std - cycle, with the statistics of each window (WindowNorm in tensor/kernels.h).
 * Backward: dcycle[(phase + t) mod W, c] -= dy[s,t,c]; sequences are added in order, so a column is one thread's. */
#include "tensor/cpu/cpu.h"

/* Of column c of the n_t rows at x, rows ld apart. */
static void statistics(WindowStatistic statistic, real eps, const real *x, int64_t n_t, int64_t ld, real *mean,
                       real *std) {
  *mean = 0, *std = 1;
  if (statistic == WINDOW_LAST) *mean = x[(n_t - 1) * ld];
  if (statistic == WINDOW_NONE || statistic == WINDOW_LAST) return;
  real sum = 0, squares = 0;
  for (int64_t t = 0; t < n_t; t++) sum += x[t * ld];
  *mean = sum / (real)n_t;
  if (statistic == WINDOW_MEAN) return;
  for (int64_t t = 0; t < n_t; t++) squares += (x[t * ld] - *mean) * (x[t * ld] - *mean);
  *std = R(sqrt)(squares / (real)n_t + eps);
}

KERNEL_FWD(window_norm, WindowNorm) {
  const int64_t n_t = p->length, n_seq = tensor_rows(p->x) / n_t, n_in = tensor_last(p->x), n_c = tensor_last(p->mean);
  const int64_t n_past = p->n_past;
#pragma omp parallel for schedule(static) if (parallel_pays(tensor_count(p->x)))
  for (int64_t s = 0; s < n_seq; s++) {
    const real *x = row_load(p->x, s * n_t, n_in, NULL);
    real *y = row_out(p->y, s * n_t, NULL), *mean = row_out(p->mean, s, NULL), *std = row_out(p->std, s, NULL);
    for (int64_t c = 0; c < n_c; c++) statistics(p->statistic, (real)p->eps, x + c, n_past, n_in, &mean[c], &std[c]);
    for (int64_t t = 0; t < n_t; t++, x += n_in, y += n_in) {
      for (int64_t c = 0; c < n_c; c++) y[c] = t < n_past ? (x[c] - mean[c]) / std[c] : 0;
      for (int64_t c = n_c; c < n_in; c++) y[c] = x[c];
      if (!p->cycle || t >= n_past) continue;
      const int64_t at = (((const int32_t *)p->phase->data)[s] + t) % p->cycle->dim[0];
      const real *cycle = row_load(p->cycle, at, n_c, NULL);
      for (int64_t c = 0; c < n_c; c++) y[c] -= cycle[c];
    }
  }
}

KERNEL_BWD(window_norm, WindowNorm) {
  const int64_t n_t = p->length, n_seq = tensor_rows(p->x) / n_t, n_c = tensor_last(p->mean), n_w = p->cycle->dim[0];
#pragma omp parallel for schedule(static) if (parallel_pays(tensor_count(p->x)))
  for (int64_t c = 0; c < n_c; c++)
    for (int64_t s = 0; s < n_seq; s++) {
      const int32_t phase = ((const int32_t *)p->phase->data)[s];
      for (int64_t t = 0; t < p->n_past; t++)
        row_out(p->dcycle, (phase + t) % n_w, NULL)[c] -= row_load(p->dy, s * n_t + t, n_c, NULL)[c];
    }
}
