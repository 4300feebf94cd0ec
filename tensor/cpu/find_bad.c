/* find_bad: where the first gradient that is not finite stands (kernels.h). */
#include "tensor/cpu/cpu.h"

KERNEL_FWD(find_bad, FindBad) {
  bool finite = true;
  for (int i = 0; i < p->n_squares; i++) finite &= isfinite(p->squares[i]);
  const real *x = p->x->data;
  const int64_t n = finite ? 0 : tensor_count(p->x);
  int64_t i = 0;
  while (i < n && isfinite((double)x[i] * (double)x[i])) i++;
  *p->result = i < n ? (double)(p->first + i) : -1;
}
