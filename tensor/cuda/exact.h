/* exact: elements of a weight with all their bits, as tensor/cpu/exact.h has them. */
#pragma once

#include "tensor/cuda/cuda.h"

struct Weight {
  void *value;
  int16_t *low; /* NULL: value is float32 */

  __device__ float get(int64_t i) const {
    if (!low) return global_load((const float *)value + i);
    return bf16_join(global_load((const bf16 *)value + i).bits, global_load(low + i));
  }
  __device__ void put(int64_t i, float x) const {
    if (!low) return global_store((float *)value + i, x);
    int16_t lower;
    const bf16 upper = {bf16_split(x, &lower)};
    global_store((bf16 *)value + i, upper);
    global_store(low + i, lower);
  }
};

/* Whether a verdict (NULL: none) lets the update happen; the scale of the gradients is then the verdict's. */
__device__ static inline bool updates(const Verdict *verdict, float *grad_scale) {
  if (!verdict) return true;
  if (global_load(&verdict->held)) return false;
  *grad_scale = (float)global_load(&verdict->grad_scale);
  return true;
}
