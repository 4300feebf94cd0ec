/* tile: see tile.h. */
#include "tensor/cpu/tile.h"

#ifndef ASPIS_REAL_F64

/* One block of C, rows x (vectors * LANES), both known to the compiler. */
static inline __attribute__((always_inline)) void block_product(int rows, int vectors, bool a_transposed, int64_t k,
                                                                const float *a, int64_t lda, const float *b,
                                                                int64_t ldb, const float *keep, float *c, int64_t ldc) {
  Lanes sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
    for (int j = 0; j < vectors; j++)
      if (keep) sum[i][j] = keep[i] * *lanes_of(c + i * ldc + j * LANES);
      else sum[i][j] = (Lanes){0};
  for (int64_t q = 0; q < k; q++) {
    Lanes row[TILE_VECTORS];
#pragma GCC unroll 2
    for (int j = 0; j < vectors; j++) row[j] = *lanes_of(b + q * ldb + j * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
      for (int j = 0; j < vectors; j++)
        lanes_add_scaled(&sum[i][j], a_transposed ? a[q * lda + i] : a[i * lda + q], &row[j]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
    for (int j = 0; j < vectors; j++) *lanes_at(c + i * ldc + j * LANES) = sum[i][j];
}

/* `rows` whole rows of C. */
static inline __attribute__((always_inline)) void rows_product(int rows, bool a_transposed, int64_t n, int64_t k,
                                                               const float *a, int64_t lda, const float *b, int64_t ldb,
                                                               const float *keep, float *c, int64_t ldc) {
  int64_t j = 0;
  for (; j + TILE_VECTORS * LANES <= n; j += TILE_VECTORS * LANES)
    block_product(rows, TILE_VECTORS, a_transposed, k, a, lda, b + j, ldb, keep, c + j, ldc);
  if (j < n) block_product(rows, 1, a_transposed, k, a, lda, b + j, ldb, keep, c + j, ldc);
}

/* All rows of C, A as it is or transposed. */
static inline __attribute__((always_inline)) void product(const TileProduct *p, bool a_transposed) {
  for (int64_t i = 0, rows; i < p->m; i += rows) {
    const int64_t left = p->m - i;
    rows = left >= TILE_ROWS ? TILE_ROWS : left >= TILE_ROWS / 2 ? TILE_ROWS / 2 : 1;
    int64_t first = 0, end = p->k, n = p->n;
    if (p->shape != TILE_FULL) {
      const int64_t causal = round_up(i + rows, p->block);
      if (p->shape == TILE_CAUSAL_C) n = min_i64(n, round_up(causal, LANES));
      else if (a_transposed) first = i / p->block * p->block;
      else end = min_i64(end, causal);
    }
    const float *a = p->a + (a_transposed ? first * p->lda + i : i * p->lda + first), *b = p->b + first * p->ldb;
    const float *keep = p->keep ? p->keep + i : NULL;
    float *c = p->c + i * p->ldc;
    if (rows == TILE_ROWS) rows_product(TILE_ROWS, a_transposed, n, end - first, a, p->lda, b, p->ldb, keep, c, p->ldc);
    else if (rows > 1) rows_product(TILE_ROWS / 2, a_transposed, n, end - first, a, p->lda, b, p->ldb, keep, c, p->ldc);
    else rows_product(1, a_transposed, n, end - first, a, p->lda, b, p->ldb, keep, c, p->ldc);
  }
}

void tile_product(const TileProduct *p) {
  if (p->a_transposed) product(p, true);
  else product(p, false);
}

void tile_transpose(int64_t rows, int64_t cols, const float *from, int64_t ld_from, float *to, int64_t ld_to) {
  typedef float Four __attribute__((vector_size(16), aligned(sizeof(float)), may_alias));
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const float *a = from + i * ld_from, *b = a + ld_from, *c = b + ld_from, *d = c + ld_from;
    for (int64_t j = 0; j < cols; j++) *(Four *)(to + j * ld_to + i) = (Four){a[j], b[j], c[j], d[j]};
  }
  for (; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) to[j * ld_to + i] = from[i * ld_from + j];
}

#endif
