/* linear: y = x w^T + bias;  dx += dy w,  dw += dy^T x,  dbias += column sums of dy.
 *
 * The products are tensor/cpu/product.h; the forward one of up to 64 rows is tensor/cpu/few_rows.h, of up to 8
 * tensor/cpu/matvec.h. With a bias, y starts as the bias and the product is added to it. */
#include "tensor/cpu/few_rows.h"
#include "tensor/cpu/matvec.h"
#include "tensor/cpu/product.h"

enum { BIAS_COLS = 64 }; /* columns whose sums one thread holds */

KERNEL_SCRATCH(linear, Linear) {
  const int64_t n_t = tensor_rows(p->x), n_out = p->w->dim[0], n_in = p->w->dim[1];
#ifndef ASPIS_REAL_F64
  if (!backward && n_t <= MATVEC_MOST) return matvec_scratch(p);
  if (!backward && few_rows_pays(p)) return few_rows_scratch(p);
#endif
  if (!backward)
    return product_scratch(n_t, n_out, n_in, product_matrix(p->x, false), product_matrix(p->w, true),
                           product_matrix(p->y, false));
  size_t for_dx = 0, for_dw = 0;
  if (p->dx)
    for_dx = product_scratch(n_t, n_in, n_out, product_matrix(p->dy, false), product_matrix(p->w, false),
                             product_matrix(p->dx, false));
  if (p->dw)
    for_dw = product_scratch(n_out, n_in, n_t, product_matrix(p->dy, true), product_matrix(p->x, false),
                             product_matrix(p->dw, false));
  return for_dx > for_dw ? for_dx : for_dw;
}

KERNEL_FWD(linear, Linear) {
  const int64_t n_t = tensor_rows(p->x), n_out = p->w->dim[0], n_in = p->w->dim[1];
#ifndef ASPIS_REAL_F64
  if (n_t <= MATVEC_MOST) {
    matvec(p);
    return;
  }
  if (few_rows_pays(p)) {
    few_rows(p);
    return;
  }
#endif
  if (p->bias) {
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * n_out))
    for (int64_t t = 0; t < n_t; t++)
      for (int64_t i = 0; i < n_out; i += ROW_RUN) {
        real buffer[ROW_RUN];
        const int64_t n = min_i64(ROW_RUN, n_out - i);
        Tensor bias = cols_from(p->bias, i), y = cols_from(p->y, i);
        row_store(&y, t, n, row_load(&bias, 0, n, buffer));
      }
  }
  product(n_t, n_out, n_in, product_matrix(p->x, false), product_matrix(p->w, true), p->bias != NULL,
          product_matrix(p->y, false), p->scratch);
}

/* Columns are cut among threads; the rows of a column are summed in fixed blocks, for accuracy. */
static void add_column_sums(const Tensor *dy, Tensor *dbias) {
  const int64_t n_t = tensor_rows(dy), n_out = tensor_last(dy), n_blocks = sum_blocks(n_t);
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * n_out))
  for (int64_t i = 0; i < n_out; i += BIAS_COLS) {
    const int64_t n = min_i64(BIAS_COLS, n_out - i);
    Tensor part = cols_from(dy, i), out = cols_from(dbias, i);
    real sum[BIAS_COLS] = {0};
    for (int64_t b = 0; b < n_blocks; b++) {
      real block_sum[BIAS_COLS] = {0}, buffer[BIAS_COLS];
      for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
        const real *row = row_load(&part, t, n, buffer);
        for (int64_t j = 0; j < n; j++) block_sum[j] += row[j];
      }
      for (int64_t j = 0; j < n; j++) sum[j] += block_sum[j];
    }
    row_add(&out, 0, n, sum);
  }
}

KERNEL_BWD(linear, Linear) {
  const int64_t n_t = tensor_rows(p->x), n_out = p->w->dim[0], n_in = p->w->dim[1];
  if (p->dx)
    product(n_t, n_in, n_out, product_matrix(p->dy, false), product_matrix(p->w, false), !p->dx->unset,
            product_matrix(p->dx, false), p->scratch);
  if (p->dw)
    product(n_out, n_in, n_t, product_matrix(p->dy, true), product_matrix(p->x, false), !p->dw->unset,
            product_matrix(p->dw, false), p->scratch);
  if (p->dbias) add_column_sums(p->dy, p->dbias);
}
