/* window_denorm: y = (x + linear + cycle) std + keep mean (WindowDenorm in tensor/kernels.h).
 * Backward: dx, dlinear += dy std; dcycle[(phase + length + h) mod W, first + j] += dy std, sequences in order, an output j one
 * thread's; dkeep[h] += dy mean, sequences and outputs in order, a step h one thread's. */
#include "tensor/cpu/cpu.h"

/* Where x has the n_q forecasts of output j at step h of sequence s: its row, and its first column. */
typedef struct Place {
  int64_t row, col;
} Place;

static Place place_of(const WindowDenorm *p, int64_t s, int64_t h, int64_t j) {
  return p->row_per_series ? (Place){s * p->n_out + j, h * p->n_q} : (Place){s, (h * p->n_out + j) * p->n_q};
}

static int64_t cycle_row(const WindowDenorm *p, int64_t s, int64_t h) {
  return (((const int32_t *)p->phase->data)[s] + p->length + h) % p->cycle->dim[0];
}

KERNEL_FWD(window_denorm, WindowDenorm) {
  const int64_t n_seq = tensor_rows(p->y), n_q = p->n_q;
#pragma omp parallel for schedule(static) if (parallel_pays(tensor_count(p->y)))
  for (int64_t s = 0; s < n_seq; s++) {
    real *y = row_out(p->y, s, NULL);
    const real *mean = row_load(p->mean, s, 0, NULL) + p->first, *std = row_load(p->std, s, 0, NULL) + p->first;
    for (int64_t h = 0; h < p->horizon; h++)
      for (int64_t j = 0; j < p->n_out; j++, y += n_q) {
        const Place at = place_of(p, s, h, j);
        const Tensor from = cols_from(p->x, at.col);
        real buffer[MAX_QUANTILES];
        const real *x = row_load(&from, at.row, n_q, buffer);
        const real cycle = p->cycle ? row_load(p->cycle, cycle_row(p, s, h), 0, NULL)[p->first + j] : 0;
        const real keep = p->keep ? row_load(p->keep, 0, 0, NULL)[h] : 1;
        for (int64_t q = 0; q < n_q; q++) y[q] = (x[q] + cycle) * std[j] + keep * mean[j];
        if (!p->linear) continue;
        const real *linear = row_load(p->linear, at.row, 0, NULL) + at.col;
        for (int64_t q = 0; q < n_q; q++) y[q] += linear[q] * std[j];
      }
  }
}

static void backward_keep(const WindowDenorm *p) {
  const int64_t n_seq = tensor_rows(p->y);
#pragma omp parallel for schedule(static) if (parallel_pays(tensor_count(p->y)))
  for (int64_t h = 0; h < p->horizon; h++) {
    real sum = 0;
    for (int64_t s = 0; s < n_seq; s++) {
      const real *dy = row_load(p->dy, s, 0, NULL) + h * p->n_out * p->n_q;
      const real *mean = row_load(p->mean, s, 0, NULL) + p->first;
      for (int64_t j = 0; j < p->n_out; j++)
        for (int64_t q = 0; q < p->n_q; q++) sum += *dy++ * mean[j];
    }
    row_out(p->dkeep, 0, NULL)[h] += sum;
  }
}

KERNEL_BWD(window_denorm, WindowDenorm) {
  const int64_t n_seq = tensor_rows(p->y), n_q = p->n_q;
#pragma omp parallel for schedule(static) if (parallel_pays(tensor_count(p->y)))
  for (int64_t j = 0; j < p->n_out; j++)
    for (int64_t s = 0; s < n_seq; s++) {
      const real *dy = row_load(p->dy, s, 0, NULL), std = row_load(p->std, s, 0, NULL)[p->first + j];
      for (int64_t h = 0; h < p->horizon; h++) {
        real d[MAX_QUANTILES], sum = 0;
        for (int64_t q = 0; q < n_q; q++) sum += d[q] = dy[(h * p->n_out + j) * n_q + q] * std;
        if (p->dcycle) row_out(p->dcycle, cycle_row(p, s, h), NULL)[p->first + j] += sum;
        const Place at = place_of(p, s, h, j);
        Tensor *const towards[] = {p->dx, p->dlinear};
        for (int i = 0; i < 2; i++) {
          if (!towards[i]) continue;
          Tensor to = cols_from(towards[i], at.col);
          row_add(&to, at.row, n_q, d);
        }
      }
    }
  if (p->dkeep) backward_keep(p);
}
