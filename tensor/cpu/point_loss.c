/* point_loss: loss[t] = mean over the row of f(e), e = prediction - target. Backward: dprediction += dloss[t] f'(e) / K.
 * f'(0) of |e| is 0. */
#include "tensor/cpu/cpu.h"

/* A missing target, NaN, counts as met. */
static inline real error(real prediction, real target) { return target == target ? prediction - target : 0; }

static real value_mse(real e, real delta) { return (void)delta, e * e; }
static real slope_mse(real e, real delta) { return (void)delta, 2 * e; }
static real value_mae(real e, real delta) { return (void)delta, R(fabs)(e); }
static real slope_mae(real e, real delta) { return (void)delta, (real)((e > 0) - (e < 0)); }
static real value_huber(real e, real delta) {
  const real a = R(fabs)(e);
  return a < delta ? e * e / 2 : delta * (a - delta / 2);
}
static real slope_huber(real e, real delta) { return R(fmax)(-delta, R(fmin)(delta, e)); }

typedef real PointFunction(real e, real delta);
static const struct {
  PointFunction *value, *slope;
} KINDS[] = {[LOSS_MSE] = {value_mse, slope_mse},
             [LOSS_MAE] = {value_mae, slope_mae},
             [LOSS_HUBER] = {value_huber, slope_huber}};

KERNEL_FWD(point_loss, PointLoss) {
  const int64_t n_t = tensor_rows(p->target), width = tensor_last(p->target);
  PointFunction *const value = KINDS[p->kind].value;
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++) {
    const real *target = row_load(p->target, t, width, NULL);
    real sum = 0;
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      real buffer[ROW_RUN];
      const int64_t n = min_i64(ROW_RUN, width - i);
      const Tensor prediction = cols_from(p->prediction, i);
      const real *run = row_load(&prediction, t, n, buffer);
      for (int64_t j = 0; j < n; j++) sum += value(error(run[j], target[i + j]), (real)p->delta);
    }
    row_store(p->loss, t, 1, &(real){sum / (real)width});
  }
}

KERNEL_BWD(point_loss, PointLoss) {
  const int64_t n_t = tensor_rows(p->target), width = tensor_last(p->target);
  PointFunction *const slope = KINDS[p->kind].slope;
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++) {
    const real *target = row_load(p->target, t, width, NULL);
    const real scale = *row_load(p->dloss, t, 1, NULL) / (real)width;
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      real buffer[ROW_RUN], d[ROW_RUN];
      const int64_t n = min_i64(ROW_RUN, width - i);
      const Tensor prediction = cols_from(p->prediction, i);
      Tensor dprediction = cols_from(p->dprediction, i);
      const real *run = row_load(&prediction, t, n, buffer);
      for (int64_t j = 0; j < n; j++) d[j] = scale * slope(error(run[j], target[i + j]), (real)p->delta);
      row_add(&dprediction, t, n, d);
    }
  }
}
