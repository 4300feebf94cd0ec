/* quantile_loss: loss[t] = mean over the row of max(tau e, (tau - 1) e), e = target - prediction.
 * Backward: dprediction += dloss[t] / (K n_q) * (1 - tau where e < 0, -tau where e > 0, 0 where e = 0). */
#include "tensor/cpu/cpu.h"

/* A missing target, NaN, counts as met. */
static inline real error(real target, real prediction) { return target == target ? target - prediction : 0; }

KERNEL_FWD(quantile_loss, QuantileLoss) {
  const int64_t n_t = tensor_rows(p->target), width = tensor_last(p->prediction);
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++) {
    const real *target = row_load(p->target, t, tensor_last(p->target), NULL);
    real sum = 0;
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      real buffer[ROW_RUN];
      const int64_t n = min_i64(ROW_RUN, width - i);
      const Tensor prediction = cols_from(p->prediction, i);
      const real *run = row_load(&prediction, t, n, buffer);
      for (int64_t j = 0; j < n; j++) {
        const real e = error(target[(i + j) / p->n_q], run[j]), tau = (real)p->tau[(i + j) % p->n_q];
        sum += e > 0 ? tau * e : (tau - 1) * e;
      }
    }
    row_store(p->loss, t, 1, &(real){sum / (real)width});
  }
}

KERNEL_BWD(quantile_loss, QuantileLoss) {
  const int64_t n_t = tensor_rows(p->target), width = tensor_last(p->prediction);
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++) {
    const real *target = row_load(p->target, t, tensor_last(p->target), NULL);
    const real scale = *row_load(p->dloss, t, 1, NULL) / (real)width;
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      real buffer[ROW_RUN], d[ROW_RUN];
      const int64_t n = min_i64(ROW_RUN, width - i);
      const Tensor prediction = cols_from(p->prediction, i);
      Tensor dprediction = cols_from(p->dprediction, i);
      const real *run = row_load(&prediction, t, n, buffer);
      for (int64_t j = 0; j < n; j++) {
        const real e = error(target[(i + j) / p->n_q], run[j]), tau = (real)p->tau[(i + j) % p->n_q];
        d[j] = scale * ((e < 0) - tau * (e != 0));
      }
      row_add(&dprediction, t, n, d);
    }
  }
}
