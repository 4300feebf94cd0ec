/* few_rows: see few_rows.h. */
#include "tensor/cpu/few_rows.h"

#include "tensor/cpu/matvec.h"

#ifndef ASPIS_REAL_F64

/* Rows of w that a thread takes at a time, and columns of x that it transposes at a time. */
enum { BLOCK = 32, COLS = 64 };

size_t few_rows_scratch(const Linear *p) {
  const int64_t n_t = tensor_rows(p->x), n_in = p->w->dim[1];
  if (p->x->dtype == BF16) return (size_t)tile_bf16_packed(n_in, n_t) * sizeof(uint16_t);
  return (size_t)(n_in * round_up(n_t, LANES)) * sizeof(float);
}

/* x^T as products read it: (n_in, n_t), the columns behind n_t being nobody's, or packed in BF16. Shared among the threads
 * that come here. */
static void transpose_x(const Linear *p) {
  const int64_t n_t = tensor_rows(p->x), n_in = p->w->dim[1], n_padded = round_up(n_t, LANES);
  if (p->x->dtype == BF16) {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < n_t; t += TILE_BF16_COLS)
      tile_bf16_pack(n_in, min_i64(TILE_BF16_COLS, n_t - t), (const uint16_t *)p->x->data + t * p->x->ld, BF16,
                     p->x->ld, true, (uint16_t *)p->scratch + t * round_up(n_in, TILE_BF16_DEPTH));
    return;
  }
#pragma omp for schedule(static)
  for (int64_t i = 0; i < n_in; i += COLS) {
    const int64_t n = min_i64(COLS, n_in - i);
    tile_transpose(n_t, n, (const float *)p->x->data + i, p->x->ld, (float *)p->scratch + i * n_padded, n_padded);
  }
}

/* Columns [first, first + n) of y: those rows of w times x^T, transposed. */
static void product_block(const Linear *p, int64_t first, int64_t n) {
  const int64_t n_t = tensor_rows(p->x), n_in = p->w->dim[1], n_padded = round_up(n_t, LANES);
  _Alignas(64) float y_t[BLOCK * FEW_ROWS_MOST], y[FEW_ROWS_MOST * BLOCK], biases[BLOCK];
  if (p->x->dtype == BF16)
    tile_bf16_product(n, n_t, n_in, (const uint16_t *)p->w->data + first * p->w->ld, p->w->ld, p->scratch, false, y_t,
                      n_padded);
  else
    tile_product(n, n_padded, n_in, tile_a((const float *)p->w->data + first * p->w->ld, p->w->ld), p->scratch,
                 n_padded, NULL, y_t, n_padded);
  tile_transpose(n, n_t, y_t, n_padded, y, BLOCK);
  linear_store(p, first, n, y, BLOCK, biases);
}

void few_rows(const Linear *p) {
  const int64_t n_out = p->w->dim[0], n_in = p->w->dim[1];
#pragma omp parallel if (parallel_pays(n_out * n_in))
  {
    transpose_x(p);
#pragma omp for schedule(static)
    for (int64_t first = 0; first < n_out; first += BLOCK) product_block(p, first, min_i64(BLOCK, n_out - first));
  }
}

#endif
