/* tile: see tile.h. */
#include "tensor/cpu/tile.h"

#include "tensor/cpu/tile_bf16.h"

#ifndef ASPIS_REAL_F64

_Static_assert((int)TILE_BF16_BLOCK == (int)TILE_BF16_DEPTH, "blocks of causal products start where a depth does");

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

/* All rows of C; the transposition known to the compiler. */
static inline __attribute__((always_inline)) void product(bool transposed, int64_t m, int64_t n, int64_t k, TileA a,
                                                          const float *b, int64_t ldb, const float *keep,
                                                          int64_t c_block, float *c, int64_t ldc) {
  for (int64_t i = 0, rows; i < m; i += rows, c += rows * ldc) {
    rows = m - i >= TILE_ROWS ? TILE_ROWS : m - i >= TILE_ROWS / 2 ? TILE_ROWS / 2 : 1;
    int64_t first = 0, end = k, cols = n;
    if (c_block) cols = min_i64(n, round_up(round_up(i + rows, c_block), LANES));
    if (a.block && transposed) first = i / a.block * a.block;
    else if (a.block) end = min_i64(k, round_up(i + rows, a.block));
    const float *x = a.x + (transposed ? first * a.ld + i : i * a.ld + first), *y = b + first * ldb;
    const float *kept = keep ? keep + i : NULL;
    if (rows == TILE_ROWS) rows_product(TILE_ROWS, transposed, cols, end - first, x, a.ld, y, ldb, kept, c, ldc);
    else if (rows > 1) rows_product(TILE_ROWS / 2, transposed, cols, end - first, x, a.ld, y, ldb, kept, c, ldc);
    else rows_product(1, transposed, cols, end - first, x, a.ld, y, ldb, kept, c, ldc);
  }
}

void tile_product(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, const float *keep, float *c,
                  int64_t ldc) {
  if (a.transposed) product(true, m, n, k, a, b, ldb, keep, 0, c, ldc);
  else product(false, m, n, k, a, b, ldb, keep, 0, c, ldc);
}

void tile_product_causal(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, int64_t block, float *c,
                         int64_t ldc) {
  product(false, m, n, k, a, b, ldb, NULL, block, c, ldc);
}

int64_t tile_bf16_scratch(int64_t m, int64_t n, int64_t k) {
  return m * round_up(k, TILE_BF16_DEPTH) + tile_bf16_packed(k, n);
}

/* A and B as tile_bf16_product wants them; returns the packed B. */
static uint16_t *pack(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, bool b_transposed,
                      uint16_t *scratch) {
  uint16_t *packed = scratch + m * round_up(k, TILE_BF16_DEPTH);
  tile_bf16_rows(m, k, a.x, F32, a.ld, a.transposed, scratch);
  tile_bf16_pack(k, n, b, F32, ldb, b_transposed, packed);
  return packed;
}

void tile_product_bf16(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, bool b_transposed,
                       const float *keep, float *c, int64_t ldc, uint16_t *scratch) {
  const int64_t depth = round_up(k, TILE_BF16_DEPTH), n_padded = round_up(n, 16);
  const uint16_t *packed = pack(m, n, k, a, b, ldb, b_transposed, scratch);
  for (int64_t i = 0; keep && i < m; i++)
#pragma omp simd
    for (int64_t j = 0; j < n; j++) c[i * ldc + j] *= keep[i];
  if (!a.block) {
    tile_bf16_product(m, n, k, scratch, depth, packed, keep, c, ldc);
    return;
  }
  /* blocks of rows and whole depths of k, one panel of B at a time: what is skipped is zero */
  for (int64_t i = 0; i < m; i += TILE_BF16_BLOCK) {
    const int64_t rows = min_i64(TILE_BF16_BLOCK, m - i);
    int64_t first = 0, end = k;
    if (a.transposed) first = i / a.block * a.block / TILE_BF16_BLOCK * TILE_BF16_BLOCK;
    else end = min_i64(k, round_up(round_up(i + rows, a.block), TILE_BF16_BLOCK));
    for (int64_t j = 0; j < n; j += TILE_BF16_COLS)
      tile_bf16_product(rows, min_i64(TILE_BF16_COLS, n - j), end - first, scratch + i * depth + first, depth,
                        packed + j * depth + first * min_i64(TILE_BF16_COLS, n_padded - j), keep, c + i * ldc + j, ldc);
  }
}

void tile_product_causal_bf16(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, bool b_transposed,
                              int64_t block, float *c, int64_t ldc, uint16_t *scratch) {
  const int64_t depth = round_up(k, TILE_BF16_DEPTH);
  const uint16_t *packed = pack(m, n, k, a, b, ldb, b_transposed, scratch);
  for (int64_t j = 0; j < n; j += TILE_BF16_COLS) {
    const int64_t first = min_i64(m, j / block * block);
    tile_bf16_product(m - first, min_i64(TILE_BF16_COLS, n - j), k, scratch + first * depth, depth, packed + j * depth,
                      false, c + first * ldc + j, ldc);
  }
}

#if LANES_TRANSPOSE
/* LANES rows, by squares; returns how many of the columns those cover. */
static int64_t transpose_squares(int64_t cols, const float *from, int64_t ld_from, float *to, int64_t ld_to) {
  int64_t j = 0;
  for (; j + LANES <= cols; j += LANES) {
    __m512i square[LANES];
    for (int i = 0; i < LANES; i++) square[i] = _mm512_loadu_si512(from + i * ld_from + j);
    lanes_transpose(square);
    for (int i = 0; i < LANES; i++) _mm512_storeu_si512(to + (j + i) * ld_to, square[i]);
  }
  return j;
}
#endif

void tile_transpose(int64_t rows, int64_t cols, const float *from, int64_t ld_from, float *to, int64_t ld_to) {
  typedef float Four __attribute__((vector_size(16), aligned(sizeof(float)), may_alias));
  int64_t i = 0;
#if LANES_TRANSPOSE
  for (; i + LANES <= rows; i += LANES)
    for (int64_t j = transpose_squares(cols, from + i * ld_from, ld_from, to + i, ld_to); j < cols; j++)
      for (int64_t k = i; k < i + LANES; k++) to[j * ld_to + k] = from[k * ld_from + j];
#endif
  for (; i + 4 <= rows; i += 4) {
    const float *a = from + i * ld_from, *b = a + ld_from, *c = b + ld_from, *d = c + ld_from;
    for (int64_t j = 0; j < cols; j++) *(Four *)(to + j * ld_to + i) = (Four){a[j], b[j], c[j], d[j]};
  }
  for (; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) to[j * ld_to + i] = from[i * ld_from + j];
}

#endif
