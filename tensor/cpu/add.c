/* add: y += x. */
#include "tensor/cpu/cpu.h"

KERNEL_FWD(add, Add) {
  const int64_t n = tensor_count(p->y);
  const real *restrict x = p->x->data;
  real *restrict y = p->y->data;
#pragma omp parallel for simd schedule(static) if (parallel_pays(n))
  for (int64_t i = 0; i < n; i++) y[i] += x[i];
}
