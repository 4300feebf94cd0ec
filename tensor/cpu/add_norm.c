/* add_norm: h = residual + update;  y = RMSNorm(h) weight.  (spec 1; the norm itself: tensor/cpu/norm.h)
 *
 * dh from the norm and from h's other uses goes to residual and update alike. Nothing is saved: the statistic costs one
 * pass over h, which backward reads anyway. */
#include "tensor/cpu/norm.h"

/* What one block of rows works in: four rows of reals. */
typedef struct Work {
  real *w;       /* the weight */
  real *row;     /* update, y or dy */
  real *dh, *dw; /* a row; the block's share of dweight */
} Work;
enum { WORK_ROWS = 4 };

static Work work_of_block(const AddNorm *p, int64_t block) {
  const int64_t width = tensor_last(p->residual);
  real *at = (real *)p->scratch + block * WORK_ROWS * width;
  return (Work){at, at + width, at + 2 * width, at + 3 * width};
}

KERNEL_SCRATCH(add_norm, AddNorm) {
  (void)backward;
  return (size_t)(sum_blocks(tensor_rows(p->residual)) * WORK_ROWS * tensor_last(p->residual)) * sizeof(real);
}

KERNEL_FWD(add_norm, AddNorm) {
  const int64_t n_t = tensor_rows(p->residual), width = tensor_last(p->residual), n_blocks = sum_blocks(n_t);
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work work = work_of_block(p, b);
    const real *w = row_load(p->weight, 0, width, work.w);
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      const real *h = row_load(p->residual, t, width, NULL);
      if (p->update) {
        const real *restrict residual = h, *restrict update = row_load(p->update, t, width, work.row);
        real *restrict sum = row_out(p->h, t, NULL);
        for (int64_t i = 0; i < width; i++) sum[i] = residual[i] + update[i];
        h = sum;
      }
      real *y = row_out(p->y, t, work.row);
      norm_run(width, (real)p->eps, h, w, y);
      row_store(p->y, t, width, y);
    }
  }
}

KERNEL_BWD(add_norm, AddNorm) {
  const int64_t n_t = tensor_rows(p->residual), width = tensor_last(p->residual), n_blocks = sum_blocks(n_t);
  const Tensor *h = p->update ? p->h : p->residual;
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work work = work_of_block(p, b);
    const real *w = row_load(p->weight, 0, width, work.w);
    real *restrict dh = work.dh;
    memset(work.dw, 0, (size_t)width * sizeof(real));
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      if (p->dy)
        norm_run_backward(width, (real)p->eps, row_load(h, t, width, NULL), w, row_load(p->dy, t, width, work.row), dh,
                          work.dw);
      else memset(dh, 0, (size_t)width * sizeof(real));
      if (p->dh) {
        const real *restrict arrived = row_load(p->dh, t, width, NULL);
        for (int64_t i = 0; i < width; i++) dh[i] += arrived[i];
      }
      if (p->dresidual) row_add(p->dresidual, t, width, dh);
      if (p->dupdate) row_add(p->dupdate, t, width, dh);
    }
  }
  if (p->dweight)
    for (int64_t b = 0; b < n_blocks; b++) row_add(p->dweight, 0, width, work_of_block(p, b).dw);
}
