/* sum_squares: sum of x^2 in double. Blocks of a fixed length, added in order: the threads' number changes no bit. */
#include "tensor/cpu/cpu.h"

enum { BLOCK = 1 << 15 };

KERNEL_SCRATCH(sum_squares, SumSquares) {
  (void)backward;
  return (size_t)ceil_div(tensor_count(p->x), BLOCK) * sizeof(double);
}

KERNEL_FWD(sum_squares, SumSquares) {
  const int64_t n = tensor_count(p->x), n_blocks = ceil_div(n, BLOCK);
  const real *x = p->x->data;
  double *sums = p->scratch;
#pragma omp parallel for schedule(static) if (parallel_pays(n))
  for (int64_t b = 0; b < n_blocks; b++) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = b * BLOCK; i < min_i64(n, (b + 1) * BLOCK); i++) sum += (double)x[i] * (double)x[i];
    sums[b] = sum;
  }
  double total = 0;
  for (int64_t b = 0; b < n_blocks; b++) total += sums[b];
  *p->result = total;
}
