/* exact: elements of a weight with all their bits, for the kernels that update it: a real value in place, a BF16 one put
 * together with its lower half in `buffer` and taken apart again. */
#pragma once

#include "tensor/cpu/cpu.h"

static inline real *exact_load(const Tensor *value, const int16_t *low, int64_t start, int64_t n, real *buffer) {
  if (!low) return (real *)value->data + start;
  const uint16_t *high = (const uint16_t *)value->data + start;
  for (int64_t i = 0; i < n; i++) buffer[i] = (real)bf16_join(high[i], low[start + i]);
  return buffer;
}

static inline void exact_store(Tensor *value, int16_t *low, int64_t start, int64_t n, const real *exact) {
  if (!low) return;
  uint16_t *high = (uint16_t *)value->data + start;
  for (int64_t i = 0; i < n; i++) high[i] = bf16_split((float)exact[i], &low[start + i]);
}
