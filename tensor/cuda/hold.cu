/* hold: y = x where the step is held. Words of four bytes, whatever they mean. */
#include "tensor/cuda/cuda.h"

static __global__ void hold(int64_t n, const Verdict *verdict, const uint32_t *x, uint32_t *y) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n && global_load(&verdict->held)) global_store(y + i, global_load(x + i));
}

KERNEL_FWD(hold, Hold) {
  const int64_t n = (int64_t)(tensor_bytes(p->y) / sizeof(uint32_t));
  if (n > 0)
    LAUNCH(hold, blocks_of(n, 256), 256, 0, n, p->verdict, (const uint32_t *)p->x->data, (uint32_t *)p->y->data);
}
