/* rms_norm: y = x s w,  s = 1 / sqrt(mean(x^2) + eps);   dx = s (dy w - x s^2 mean(dy w x)),  dw = sum over rows of dy x s.
 * (spec 1)
 *
 * Nothing is saved: the statistic costs one pass over x, which backward reads anyway. */
#include "tensor/cpu/cpu.h"

/* What one block of rows works in: four rows of reals. */
typedef struct Work {
  real *w;       /* the weight */
  real *row;     /* y or dy */
  real *dx, *dw; /* a row; the block's share of dweight */
} Work;
enum { WORK_ROWS = 4 };

static Work work_of_block(const RmsNorm *p, int64_t block) {
  const int64_t width = tensor_last(p->x);
  real *at = (real *)p->scratch + block * WORK_ROWS * width;
  return (Work){at, at + width, at + 2 * width, at + 3 * width};
}

KERNEL_SCRATCH(rms_norm, RmsNorm) {
  (void)backward;
  return (size_t)(sum_blocks(tensor_rows(p->x)) * WORK_ROWS * tensor_last(p->x)) * sizeof(real);
}

static real inverse_rms(int64_t n, real eps, const real *restrict x) {
  real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
  return 1 / R(sqrt)(sum / (real)n + eps);
}

static void forward_row(int64_t n, real eps, const real *restrict x, const real *restrict w, real *restrict y) {
  const real s = inverse_rms(n, eps, x);
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * s * w[i];
}

static void backward_row(int64_t n, real eps, const real *restrict x, const real *restrict w, const real *restrict dy,
                         real *restrict dx, real *restrict dw) {
  const real s = inverse_rms(n, eps, x);
  real dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; i++) dot += dy[i] * w[i] * x[i];
  const real pull = dot / (real)n * s * s;
  for (int64_t i = 0; i < n; i++) {
    dx[i] = s * (dy[i] * w[i] - x[i] * pull);
    dw[i] += dy[i] * x[i] * s;
  }
}

/* All rows, shared among the threads that come here. */
static void forward_rows(const RmsNorm *p) {
  const int64_t n_t = tensor_rows(p->x), width = tensor_last(p->x), n_blocks = sum_blocks(n_t);
#pragma omp for schedule(static) nowait
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work work = work_of_block(p, b);
    const real *w = row_load(p->weight, 0, width, work.w);
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      real *y = row_out(p->y, t, work.row);
      forward_row(width, (real)p->eps, row_load(p->x, t, width, NULL), w, y);
      row_store(p->y, t, width, y);
    }
  }
}

KERNEL_FWD(rms_norm, RmsNorm) {
  if (parallel_pays(tensor_count(p->x))) {
#pragma omp parallel
    forward_rows(p);
  } else {
    forward_rows(p);
  }
}

KERNEL_BWD(rms_norm, RmsNorm) {
  const int64_t n_t = tensor_rows(p->x), width = tensor_last(p->x), n_blocks = sum_blocks(n_t);
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work work = work_of_block(p, b);
    const real *w = row_load(p->weight, 0, width, work.w);
    memset(work.dw, 0, (size_t)width * sizeof(real));
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      backward_row(width, (real)p->eps, row_load(p->x, t, width, NULL), w, row_load(p->dy, t, width, work.row), work.dx,
                   work.dw);
      if (p->dx) row_add(p->dx, t, width, work.dx);
    }
  }
  if (p->dweight)
    for (int64_t b = 0; b < n_blocks; b++) row_add(p->dweight, 0, width, work_of_block(p, b).dw);
}
