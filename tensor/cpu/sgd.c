/* sgd: p -= lr (grad * grad_scale + weight_decay p). */
#include "tensor/cpu/cpu.h"

enum { BLOCK = 1 << 12 };

KERNEL_FWD(sgd, Sgd) {
  const int64_t n = tensor_count(p->value);
  Tensor *const master = p->master ? p->master : p->value;
  const real lr = (real)p->lr, weight_decay = (real)p->weight_decay, grad_scale = (real)p->grad_scale;
#pragma omp parallel for schedule(static)
  for (int64_t start = 0; start < n; start += BLOCK) {
    const int64_t count = min_i64(BLOCK, n - start);
    const real *restrict grad = (const real *)p->grad->data + start;
    real *restrict w = (real *)master->data + start;
    for (int64_t i = 0; i < count; i++) w[i] -= lr * (grad[i] * grad_scale + weight_decay * w[i]);
    if (p->master) {
      Tensor value = {.data = (char *)p->value->data + start * (int64_t)dtype_bytes(p->value->dtype),
                      .dtype = p->value->dtype};
      row_store(&value, 0, count, w);
    }
  }
}
