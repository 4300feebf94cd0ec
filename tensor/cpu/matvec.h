/* matvec: y = x w^T + bias for few rows of x, the product of a decoding step. w is the work: it is read once, in the order it
 * lies in memory, each thread its own rows of it, as fast as memory gives it; x stays in the first cache. Sums are real's,
 * whatever the storage. */
#pragma once

#include "tensor/cpu/lanes.h"

#define matvec CPU_SYMBOL(matvec)
#define matvec_scratch CPU_SYMBOL(matvec_scratch)

/* Most rows of x for which this is not slower than a product in blocks. Not for the double build: in the definition a row's sum
 * does not depend on how many stand beside it. */
enum { MATVEC_MOST = 8 };

/* Columns [first, first + n) of y from sums, a row every `ld`, to which the bias is added in place; buffer: n reals. */
static inline void linear_store(const Linear *p, int64_t first, int64_t n, real *sums, int64_t ld, real *buffer) {
  const Tensor bias_at = p->bias ? cols_from(p->bias, first) : (Tensor){0};
  const real *bias = p->bias ? row_load(&bias_at, 0, n, buffer) : NULL;
  Tensor y = cols_from(p->y, first);
  for (int64_t t = 0; t < tensor_rows(p->x); t++, sums += ld) {
    for (int64_t i = 0; bias && i < n; i++) sums[i] += bias[i];
    row_store(&y, t, n, sums);
  }
}

void matvec(const Linear *p);
size_t matvec_scratch(const Linear *p);
