/* advance: y_i = x_{index[i]} + more[i]. */
#include "tensor/cpu/cpu.h"

KERNEL_FWD(advance, Advance) {
  const int32_t *index = p->index->data, *x = p->x->data, *more = p->more ? p->more->data : NULL;
  int32_t *y = p->y->data;
  for (int64_t i = 0; i < tensor_count(p->y); i++) y[i] = (index[i] >= 0 ? x[index[i]] : 0) + (more ? more[i] : 0);
}
