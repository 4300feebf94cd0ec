/* matmul: matrix products of whole tensors, by cuBLASLt: BF16 or float32 in, float32 sums, the same bits every time. */
#pragma once

#include "tensor/cuda/cuda.h"

/* One factor: rows of `ld` elements. */
struct Factor {
  const void *data;
  int64_t ld;
  bool is_bf16;
  bool transposed; /* the product takes its transpose */
};
static inline Factor factor_of(const Tensor *t, bool transposed) {
  return {t->data, t->ld, t->dtype == BF16, transposed};
}

/* Workspace a product may ask for, in bytes: part of a kernel's scratch. */
size_t matmul_scratch();
/* Made once a device. */
void matmul_open();
/* c (m, n; rows of ldc) = a (m, k) b (k, n) + (adds ? c : 0) + bias (n; NULL: none). Both factors have one type; c is
 * theirs or float32, and so is bias. The sum is rounded once. */
void matmul(int64_t m, int64_t n, int64_t k, Factor a, Factor b, const void *bias, void *c, int64_t ldc, bool c_is_bf16,
            bool adds, void *scratch);
