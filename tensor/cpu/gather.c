/* gather: y_i = x_{index[i]} in runs of `width` elements, rest_i where the index is negative. Backward: dx_{index[i]} += dy_i in the order of i, so a block of
 * columns is one thread's. */
#include "tensor/cpu/cpu.h"

enum { COLUMNS = 64 };

/* A contiguous tensor as rows of `width`. */
static Tensor rows_of(const Tensor *t, int64_t width) {
  Tensor rows = *t;
  rows.n_dim = 2, rows.dim[0] = tensor_count(t) / width, rows.dim[1] = rows.ld = width;
  return rows;
}

KERNEL_FWD(gather, Gather) {
  const int64_t n = p->index->dim[0];
  const size_t bytes = (size_t)p->width * dtype_bytes(p->x->dtype);
  const int32_t *index = p->index->data;
  const char *x = p->x->data, *rest = p->rest ? p->rest->data : NULL;
  char *y = p->y->data;
#pragma omp parallel for schedule(static) if (parallel_pays(n * p->width))
  for (int64_t i = 0; i < n; i++) {
    char *to = y + (size_t)i * bytes;
    if (index[i] >= 0) memcpy(to, x + (size_t)index[i] * bytes, bytes);
    else if (rest) memcpy(to, rest + (size_t)i * bytes, bytes);
    else memset(to, 0, bytes);
  }
}

KERNEL_BWD(gather, Gather) {
  const int64_t n = p->index->dim[0];
  const int32_t *index = p->index->data;
  const Tensor dy = rows_of(p->dy, p->width), dx = rows_of(p->dx, p->width);
#pragma omp parallel for schedule(static) if (parallel_pays(n * p->width))
  for (int64_t c = 0; c < p->width; c += COLUMNS) {
    const int64_t n_c = min_i64(COLUMNS, p->width - c);
    const Tensor from = cols_from(&dy, c);
    Tensor to = cols_from(&dx, c);
    real buffer[COLUMNS];
    for (int64_t i = 0; i < n; i++)
      if (index[i] >= 0) row_add(&to, index[i], n_c, row_load(&from, i, n_c, buffer));
  }
}
