/* sum_squares: the sum of x^2 in double: blocks of a fixed length, added in order by one thread. */
#include "tensor/cuda/cuda.h"

constexpr int64_t BLOCK = 1 << 15;
constexpr int THREADS = 256;

static __global__ void sum_block(int64_t n, const float *x, double *sums) {
  SHARED(double, shared);
  const int64_t first = (int64_t)blockIdx.x * BLOCK, end = first + BLOCK < n ? first + BLOCK : n;
  double sum = 0;
  for (int64_t i = first + threadIdx.x; i < end; i += THREADS) {
    const double value = global_load(x + i);
    sum += value * value;
  }
  shared[threadIdx.x] = sum;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  if (threadIdx.x == 0) global_store(sums + blockIdx.x, shared[0]);
}

static __global__ void sum_all(int64_t n_blocks, const double *sums, double *result) {
  double total = 0;
  for (int64_t b = 0; b < n_blocks; b++) total += global_load(sums + b);
  global_store(result, total);
}

static int64_t n_blocks(const SumSquares *p) { return max_i64(1, ceil_div(tensor_count(p->x), BLOCK)); }

KERNEL_SCRATCH(sum_squares, SumSquares) {
  (void)backward;
  return (size_t)n_blocks(p) * sizeof(double);
}

KERNEL_FWD(sum_squares, SumSquares) {
  double *sums = (double *)p->scratch;
  LAUNCH(sum_block, (unsigned)n_blocks(p), THREADS, THREADS * sizeof(double), tensor_count(p->x),
         (const float *)p->x->data, sums);
  LAUNCH(sum_all, 1, 1, 0, n_blocks(p), sums, p->result);
}
