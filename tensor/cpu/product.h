/* product: C = A B + (add ? C : 0), the matrix product of linear and cross_entropy.
 *
 * C is cut into blocks by its shape alone and each block is one thread's; the sum over k is never split. So no bit
 * depends on the number of threads. float builds hand a block to oneDNN, the double one loops.
 *
 * Where the types do not meet what oneDNN multiplies (F32 with BF16, or BF16 in a build whose float products are faster),
 * BF16 matrices are widened to float in scratch, part by part. Then the sums are float32's, and so is the speed. */
#pragma once

#include "tensor/cpu/cpu.h"
#include "tensor/cpu/tile_bf16.h"
#include "tensor/onednn.h"

/* A matrix as the product reads it: `transposed`, the rows of t are its columns. */
static inline GemmMatrix product_matrix(const Tensor *t, bool transposed) {
  return (GemmMatrix){.data = t->data, .dtype = t->dtype, .ld = t->ld, .transposed = transposed};
}

/* The part of a matrix that starts at (row, col). */
static inline GemmMatrix product_part(GemmMatrix x, int64_t row, int64_t col) {
  x.data = (char *)x.data + (x.transposed ? col * x.ld + row : row * x.ld + col) * (int64_t)dtype_bytes(x.dtype);
  return x;
}

/* The largest of these blocks that cuts C into enough pieces, then evened out. oneDNN packs both operands anew for every
 * block, so large ones are faster, and its own blocks are 384 columns wide (docs/decisions.md). */
static inline void product_block_size(int64_t m, int64_t n, int64_t *block_m, int64_t *block_n) {
  static const struct {
    int64_t rows, cols, enough;
  } SIZES[] = {{512, 384, 12}, {256, 384, 12}, {256, 192, 12}, {128, 192, 12}, {128, 128, 4}, {64, 64, 0}};
  int i = 0;
  while (ceil_div(m, SIZES[i].rows) * ceil_div(n, SIZES[i].cols) < SIZES[i].enough) i++;
  *block_m = round_up(ceil_div(m, ceil_div(m, SIZES[i].rows)), 16);
  *block_n = round_up(ceil_div(n, ceil_div(n, SIZES[i].cols)), 32);
}

/* Rows times columns of one block. */
static inline void product_block(int64_t m, int64_t n, int64_t k, GemmMatrix a, GemmMatrix b, bool add, GemmMatrix c) {
#ifdef ASPIS_REAL_F64
  const int64_t a_row = a.transposed ? 1 : a.ld, a_col = a.transposed ? a.ld : 1;
  for (int64_t i = 0; i < m; i++) {
    const double *a_i = (const double *)a.data + i * a_row;
    double *c_i = (double *)c.data + i * c.ld;
    if (!add) memset(c_i, 0, (size_t)n * sizeof *c_i);
    if (b.transposed) {
      for (int64_t j = 0; j < n; j++) {
        const double *b_j = (const double *)b.data + j * b.ld;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t q = 0; q < k; q++) sum += a_i[q * a_col] * b_j[q];
        c_i[j] += sum;
      }
    } else {
      for (int64_t q = 0; q < k; q++) {
        const double *b_q = (const double *)b.data + q * b.ld, a_iq = a_i[q * a_col];
        for (int64_t j = 0; j < n; j++) c_i[j] += a_iq * b_q[j];
      }
    }
  }
#else
  onednn_gemm(m, n, k, a, b, add, c);
#endif
}

/* Whether BF16 matrices are multiplied as they are. */
static inline bool product_has_bf16(void) { return TILE_BF16_NATIVE && onednn_has_bf16(); }

static inline bool product_widens(GemmMatrix a, GemmMatrix b, GemmMatrix c) {
  if (a.dtype == REAL_DTYPE && b.dtype == REAL_DTYPE && c.dtype == REAL_DTYPE) return false;
  return !(a.dtype == BF16 && b.dtype == BF16 && product_has_bf16());
}

/* What is widened at a time: parts of A (m, k), B (k, n) and C (m, n) of at most about PRODUCT_WIDE reals. */
enum { PRODUCT_WIDE = 1 << 21, PRODUCT_DEPTH = 4096 };
typedef struct ProductPart {
  int64_t m, n, k;
} ProductPart;

static inline int64_t product_even(int64_t n, int64_t most) {
  return min_i64(n, round_up(ceil_div(n, ceil_div(n, most)), 64));
}

static inline ProductPart product_part_size(int64_t m, int64_t n, int64_t k) {
  const int64_t part_k = product_even(k, PRODUCT_DEPTH), most = PRODUCT_WIDE / part_k;
  return (ProductPart){product_even(m, most), product_even(n, most), part_k};
}

static inline size_t product_wide_bytes(int64_t rows, int64_t cols, GemmMatrix x) {
  return x.dtype == BF16 ? (size_t)round_up(rows * cols * (int64_t)sizeof(real), ARENA_ALIGN) : 0;
}

static inline size_t product_scratch(int64_t m, int64_t n, int64_t k, GemmMatrix a, GemmMatrix b, GemmMatrix c) {
  if (!product_widens(a, b, c)) return 0;
  const ProductPart part = product_part_size(m, n, k);
  return product_wide_bytes(part.m, part.k, a) + product_wide_bytes(part.k, part.n, b) +
         product_wide_bytes(part.m, part.n, c);
}

/* A matrix of reals in scratch for a BF16 one, values still to come; any other stays what it is. */
static inline GemmMatrix product_wide(int64_t rows, int64_t cols, GemmMatrix x, char **scratch) {
  if (x.dtype != BF16) return x;
  GemmMatrix wide = {
      .data = *scratch, .dtype = REAL_DTYPE, .ld = x.transposed ? rows : cols, .transposed = x.transposed};
  *scratch += product_wide_bytes(rows, cols, x);
  return wide;
}

static inline void product_widen_row(const GemmMatrix *x, const GemmMatrix *wide, int64_t r, int64_t n) {
  const uint16_t *from = (const uint16_t *)x->data + r * x->ld;
  real *to = (real *)wide->data + r * wide->ld;
  for (int64_t i = 0; i < n; i++) to[i] = (real)bf16_to_float(from[i]);
}

static inline void product_widen(int64_t rows, int64_t cols, GemmMatrix x, GemmMatrix wide) {
  const int64_t n_rows = x.transposed ? cols : rows, n_cols = x.transposed ? rows : cols;
#pragma omp parallel for schedule(static) if (parallel_pays(rows * cols))
  for (int64_t r = 0; r < n_rows; r++) product_widen_row(&x, &wide, r, n_cols);
}

static inline void product_narrow(int64_t rows, int64_t cols, GemmMatrix wide, GemmMatrix x) {
  for (int64_t r = 0; r < rows; r++) {
    const real *from = (const real *)wide.data + r * wide.ld;
    uint16_t *to = (uint16_t *)x.data + r * x.ld;
    for (int64_t i = 0; i < cols; i++) to[i] = bf16_from_float((float)from[i]);
  }
}

/* Which ends of a sum over parts of k a product is. */
typedef struct ProductEnds {
  bool first, last;
} ProductEnds;

/* Block by block. c is the result, or stands for the narrower one: whoever makes a block then also loads and stores it. */
static inline void product_blocks(int64_t m, int64_t n, int64_t k, GemmMatrix a, GemmMatrix b, bool add, GemmMatrix c,
                                  GemmMatrix result, ProductEnds at) {
  const bool stands = c.data != result.data;
  int64_t block_m, block_n;
  product_block_size(m, n, &block_m, &block_n);
#pragma omp parallel for collapse(2) schedule(dynamic) if (m > block_m || n > block_n)
  for (int64_t i = 0; i < m; i += block_m)
    for (int64_t j = 0; j < n; j += block_n) {
      const int64_t rows = min_i64(block_m, m - i), cols = min_i64(block_n, n - j);
      const GemmMatrix block = product_part(c, i, j), own = product_part(result, i, j);
      for (int64_t r = 0; stands && at.first && add && r < rows; r++) product_widen_row(&own, &block, r, cols);
      product_block(rows, cols, k, product_part(a, i, 0), product_part(b, 0, j), add || !at.first, block);
      if (stands && at.last) product_narrow(rows, cols, block, own);
    }
}

/* A (m, k), B (k, n), C (m, n), none of them empty; scratch as large as product_scratch says. */
static inline void product(int64_t m, int64_t n, int64_t k, GemmMatrix a, GemmMatrix b, bool add, GemmMatrix c,
                           void *scratch) {
  if (!product_widens(a, b, c)) {
    product_blocks(m, n, k, a, b, add, c, c, (ProductEnds){true, true});
    return;
  }
  const ProductPart part = product_part_size(m, n, k);
  for (int64_t i = 0; i < m; i += part.m)
    for (int64_t j = 0; j < n; j += part.n)
      for (int64_t q = 0; q < k; q += part.k) {
        const int64_t n_i = min_i64(part.m, m - i), n_j = min_i64(part.n, n - j), n_q = min_i64(part.k, k - q);
        const GemmMatrix own_a = product_part(a, i, q), own_b = product_part(b, q, j), own_c = product_part(c, i, j);
        char *free_scratch = scratch; /* C's first: it stays where it is from one part of k to the next */
        const GemmMatrix wide_c = product_wide(n_i, n_j, own_c, &free_scratch);
        const GemmMatrix wide_a = product_wide(n_i, n_q, own_a, &free_scratch);
        const GemmMatrix wide_b = product_wide(n_q, n_j, own_b, &free_scratch);
        if (wide_a.data != own_a.data) product_widen(n_i, n_q, own_a, wide_a);
        if (wide_b.data != own_b.data) product_widen(n_q, n_j, own_b, wide_b);
        product_blocks(n_i, n_j, n_q, wide_a, wide_b, add, wide_c, own_c, (ProductEnds){q == 0, q + n_q == k});
      }
}
