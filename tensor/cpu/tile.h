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
#define tile_transpose CPU_SYMBOL(tile_transpose)

#ifndef ASPIS_REAL_F64

/* Rows of C in registers: with two vectors of columns, what 32 and 16 registers hold. */
enum { TILE_ROWS = LANES_BYTES == 64 ? 8 : 4, TILE_VECTORS = 2 };

typedef enum TileShape {
  TILE_FULL,
  TILE_CAUSAL_A, /* the matrix stored at `a` is causal */
  TILE_CAUSAL_C  /* of C only the causal entries are wanted; others may be left as they are */
} TileShape;

typedef struct TileProduct {
  int64_t m, n, k; /* n: a multiple of LANES */
  const float *a, *b;
  float *c;
  int64_t lda, ldb, ldc;
  bool a_transposed; /* A(i, q) lies at a[q * lda + i], not a[i * lda + q] */
  const float *keep; /* (m): row i of C starts as keep[i] times itself; NULL: as zero */
  TileShape shape;
  int64_t block;
} TileProduct;
void tile_product(const TileProduct *p);

/* to (cols, rows) = from (rows, cols) transposed */
void tile_transpose(int64_t rows, int64_t cols, const float *from, int64_t ld_from, float *to, int64_t ld_to);

/* What must be zero beside the causal entries of row i for TILE_CAUSAL_A: all up to this column, of which there may be
 * more than the matrix has. */
static inline int64_t tile_causal_width(int64_t i, int64_t block) {
  return round_up(round_up(i / TILE_ROWS * TILE_ROWS + TILE_ROWS, block), LANES);
}

#endif
