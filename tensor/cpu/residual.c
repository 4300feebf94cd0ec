/* residual: y = stream + update;  dstream += dy,  dupdate += dy. */
#include "tensor/cpu/cpu.h"

/* All rows, shared among the threads that come here. */
static void forward_rows(const Residual *p) {
  const int64_t n_t = tensor_rows(p->y), width = tensor_last(p->y);
#pragma omp for schedule(static) nowait
  for (int64_t t = 0; t < n_t; t++)
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      const int64_t n = min_i64(ROW_RUN, width - i);
      Tensor stream = cols_from(p->stream, i), update = cols_from(p->update, i), y = cols_from(p->y, i);
      real buffer[ROW_RUN];
      const real *stream_run = row_load(&stream, t, n, NULL), *update_run = row_load(&update, t, n, buffer);
      real *restrict y_run = row_out(&y, t, NULL);
      for (int64_t j = 0; j < n; j++) y_run[j] = stream_run[j] + update_run[j];
    }
}

KERNEL_FWD(residual, Residual) {
  if (parallel_pays(tensor_count(p->y))) {
#pragma omp parallel
    forward_rows(p);
  } else {
    forward_rows(p);
  }
}

KERNEL_BWD(residual, Residual) {
  const int64_t n_t = tensor_rows(p->dy), width = tensor_last(p->dy);
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++)
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      const int64_t n = min_i64(ROW_RUN, width - i);
      Tensor dy = cols_from(p->dy, i);
      const real *dy_run = row_load(&dy, t, n, NULL);
      if (p->dstream) {
        Tensor dstream = cols_from(p->dstream, i);
        row_add(&dstream, t, n, dy_run);
      }
      if (p->dupdate) {
        Tensor dupdate = cols_from(p->dupdate, i);
        row_add(&dupdate, t, n, dy_run);
      }
    }
}
