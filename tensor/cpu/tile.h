/* tile: products of small float matrices that lie in the caches, for kernels that work in blocks (the chunked scan).
 *
 * C = keep C + A B on one thread, row by row of C in fixed order, each sum over k from the first term to the last with
 * fused multiply-add where the processor has it. A block of TILE_ROWS rows and two vectors of columns stays in
 * registers; an element of A is broadcast, so that A may as well be stored transposed.
 *
 * A square matrix over rows of tokens is causal, for `block` rows a token, when entry (i, j) is zero unless j's token is
 * i's or an earlier one: j < round_up(i + 1, block). Products know that much and skip the rest. */
#pragma once

#include "tensor/cpu/lanes.h"

#define tile_product CPU_SYMBOL(tile_product)
#define tile_product_causal CPU_SYMBOL(tile_product_causal)
#define tile_product_bf16 CPU_SYMBOL(tile_product_bf16)
#define tile_product_causal_bf16 CPU_SYMBOL(tile_product_causal_bf16)
#define tile_bf16_scratch CPU_SYMBOL(tile_bf16_scratch)
#define tile_transpose CPU_SYMBOL(tile_transpose)

#ifndef ASPIS_REAL_F64

/* Rows of C in registers: with two vectors of columns, what 32 and 16 registers hold. */
enum { TILE_ROWS = LANES_BYTES == 64 ? 8 : 4, TILE_VECTORS = 2 };

/* A as it lies in memory: of causal matrices `block` is the rows a token, of others 0. */
typedef struct TileA {
  const float *x;
  int64_t ld;
  bool transposed; /* A(i, q) is x[q * ld + i], not x[i * ld + q] */
  int64_t block;
} TileA;
static inline TileA tile_a(const float *x, int64_t ld) { return (TileA){x, ld, false, 0}; }
static inline TileA tile_a_t(const float *x, int64_t ld) { return (TileA){x, ld, true, 0}; }
static inline TileA tile_causal(const float *x, int64_t ld, int64_t block) { return (TileA){x, ld, false, block}; }
static inline TileA tile_causal_t(const float *x, int64_t ld, int64_t block) { return (TileA){x, ld, true, block}; }

/* C (m, n) = keep C + A (m, k) B (k, n), n a multiple of LANES; keep (m) are factors of C's rows, NULL: zero. */
void tile_product(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, const float *keep, float *c,
                  int64_t ldc);
/* C = A B of which only the causal entries are wanted, `block` rows a token; others may be left as they are. */
void tile_product_causal(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, int64_t block, float *c,
                         int64_t ldc);

/* The same products with A and B rounded to BF16 (tile_bf16.h), summed in float. B is the transpose of b (n, k) where
 * `b_transposed`; `scratch` has tile_bf16_scratch(m, n, k) elements. */
void tile_product_bf16(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, bool b_transposed,
                       const float *keep, float *c, int64_t ldc, uint16_t *scratch);
void tile_product_causal_bf16(int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb, bool b_transposed,
                              int64_t block, float *c, int64_t ldc, uint16_t *scratch);
int64_t tile_bf16_scratch(int64_t m, int64_t n, int64_t k);

/* to (cols, rows) = from (rows, cols) transposed */
void tile_transpose(int64_t rows, int64_t cols, const float *from, int64_t ld_from, float *to, int64_t ld_to);

/* What must be zero beside the causal entries of row i of a causal A: all up to this column, of which there may be more
 * than the matrix has. BF16 products look at whole depths of the instructions. */
enum { TILE_BF16_BLOCK = 32 };
static inline int64_t tile_causal_width(int64_t i, int64_t block, bool bf16) {
  const int64_t rows = bf16 ? TILE_BF16_BLOCK : TILE_ROWS, cols = bf16 ? TILE_BF16_BLOCK : LANES;
  return round_up(round_up(i / rows * rows + rows, block), cols);
}

#endif
