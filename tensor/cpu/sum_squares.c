/* sum_squares: sum of x^2 in double. Blocks of a fixed length, added in order: the threads' number changes no bit. */
#include "tensor/cpu/lanes.h"

enum { BLOCK = 1 << 15 };

/* A vector of doubles, and the reals that fill it. SUMS of them at a time: one would wait for itself. */
typedef double Doubles __attribute__((vector_size(LANES_BYTES)));
enum { DOUBLES = LANES_BYTES / sizeof(double), SUMS = 4 };
typedef real Halves __attribute__((vector_size(DOUBLES * sizeof(real)), aligned(sizeof(real)), may_alias));

static double block_sum(const real *x, int64_t n) {
  Doubles sums[SUMS] = {0};
  double total = 0;
  int64_t i = 0;
  for (; i + SUMS * DOUBLES <= n; i += SUMS * DOUBLES)
    for (int k = 0; k < SUMS; k++) {
      const Doubles wide = __builtin_convertvector(*(const Halves *)(x + i + k * DOUBLES), Doubles);
      sums[k] += wide * wide;
    }
  for (; i < n; i++) total += (double)x[i] * (double)x[i];
  for (int k = 1; k < SUMS; k++) sums[0] += sums[k];
  for (int k = 0; k < DOUBLES; k++) total += sums[0][k];
  return total;
}

KERNEL_SCRATCH(sum_squares, SumSquares) {
  (void)backward;
  return (size_t)ceil_div(tensor_count(p->x), BLOCK) * sizeof(double);
}

KERNEL_FWD(sum_squares, SumSquares) {
  const int64_t n = tensor_count(p->x), n_blocks = ceil_div(n, BLOCK);
  const real *x = p->x->data;
  double *sums = p->scratch;
#pragma omp parallel for schedule(static) if (parallel_pays(n))
  for (int64_t b = 0; b < n_blocks; b++) sums[b] = block_sum(x + b * BLOCK, min_i64(BLOCK, n - b * BLOCK));
  double total = 0;
  for (int64_t b = 0; b < n_blocks; b++) total += sums[b];
  *p->result = total;
}
