/* advance: y_i = x_{index[i]} + more[i]. */
#include "tensor/cuda/cuda.h"

static __global__ void advance(int64_t n, const int32_t *index, const int32_t *x, const int32_t *more, int32_t *y) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int32_t from = global_load(index + i);
  global_store(y + i, (from >= 0 ? global_load(x + from) : 0) + (more ? global_load(more + i) : 0));
}

KERNEL_FWD(advance, Advance) {
  const int64_t n = tensor_count(p->y);
  if (n > 0)
    LAUNCH(advance, blocks_of(n, 256), 256, 0, n, ints_of(p->index), ints_of(p->x), ints_of(p->more),
           (int32_t *)p->y->data);
}
