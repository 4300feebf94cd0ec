/* sum: one block: each thread its share in order, then a tree, all in double. */
#include "tensor/cuda/cuda.h"

constexpr int THREADS = 256;

static __global__ void sum(int64_t n, const float *x, double *result) {
  SHARED(double, shared);
  double own = 0;
  for (int64_t i = threadIdx.x; i < n; i += THREADS) own += global_load(x + i);
  shared[threadIdx.x] = own;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  if (threadIdx.x == 0) global_store(result, global_load(result) + shared[0]);
}

KERNEL_FWD(sum, Sum) {
  CHECK(p->x->dtype == F32, "a sum of %s", dtype_name(p->x->dtype));
  LAUNCH(sum, 1, THREADS, THREADS * sizeof(double), tensor_count(p->x), (const float *)p->x->data, p->result);
}
