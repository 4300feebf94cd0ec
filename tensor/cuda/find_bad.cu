/* find_bad: where the first gradient that is not finite stands, as tensor/cpu/find_bad.c has it. One block: it reads the sums
 * of squares, and all else only where one of these is not finite. */
#include "tensor/cuda/cuda.h"

constexpr int THREADS = 256;

static __global__ void find_bad(int64_t n, const float *x, int n_squares, const double *squares, int64_t first,
                                double *result) {
  SHARED(int64_t, found);
  bool finite = true;
  for (int i = 0; i < n_squares; i++) finite &= isfinite(global_load(squares + i)) != 0;
  int64_t own = INT64_MAX;
  if (!finite)
    for (int64_t i = threadIdx.x; i < n && own == INT64_MAX; i += THREADS)
      if (!isfinite(global_load(x + i))) own = i;
  found[threadIdx.x] = own;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half && found[threadIdx.x + half] < found[threadIdx.x])
      found[threadIdx.x] = found[threadIdx.x + half];
  }
  if (threadIdx.x == 0) global_store(result, found[0] == INT64_MAX ? -1.0 : (double)(first + found[0]));
}

KERNEL_FWD(find_bad, FindBad) {
  LAUNCH(find_bad, 1, THREADS, THREADS * sizeof(int64_t), tensor_count(p->x), (const float *)p->x->data, p->n_squares,
         p->squares, p->first, p->result);
}
