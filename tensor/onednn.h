/* onednn: matrix products of one thread, through oneDNN (2 or 3). The only door to that library.
 *
 * oneDNN's own threads are never used: its results change with their number. The kernels cut a product into blocks of
 * fixed shape and call from their own loop (tensor/cpu/product.h). Safe to call from many threads at once. */
#pragma once

#include "tensor/tensor.h"

/* One operand, row-major with rows `ld` elements apart; the product reads its transpose when `transposed`. */
typedef struct GemmMatrix {
  void *data;
  Dtype dtype; /* F32 or BF16 */
  int64_t ld;
  bool transposed;
} GemmMatrix;

/* C (m, n) = A (m, k) B (k, n) + (add ? C : 0), sums in float. A and B are both F32 and C too, or both BF16 and C
 * either; C is not transposed. BF16 needs onednn_has_bf16(). A refusal of the library is a CHECK that names the call. */
void onednn_gemm(int64_t m, int64_t n, int64_t k, GemmMatrix a, GemmMatrix b, bool add, GemmMatrix c);

/* Whether this processor and this oneDNN multiply BF16 with more than the reference loop. */
bool onednn_has_bf16(void);

/* The library's major, minor and patch number. */
void onednn_version(int version[3]);
