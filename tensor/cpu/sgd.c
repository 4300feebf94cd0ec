/* sgd: p -= lr (grad * grad_scale + weight_decay p). */
#include "tensor/cpu/exact.h"

enum { BLOCK = 1 << 10 };

KERNEL_FWD(sgd, Sgd) {
  if (p->verdict && p->verdict->held) return;
  const int64_t n = tensor_count(p->value);
  const real lr = (real)(p->numbers ? p->numbers->lr : p->lr), weight_decay = (real)p->weight_decay,
             grad_scale = (real)(p->verdict ? p->verdict->grad_scale : p->grad_scale);
#pragma omp parallel for schedule(static) if (parallel_pays(n))
  for (int64_t start = 0; start < n; start += BLOCK) {
    const int64_t count = min_i64(BLOCK, n - start);
    const real *restrict grad = (const real *)p->grad->data + start;
    real buffer[BLOCK];
    real *restrict w = exact_load(p->value, p->low, start, count, buffer);
    for (int64_t i = 0; i < count; i++) w[i] -= lr * (grad[i] * grad_scale + weight_decay * w[i]);
    exact_store(p->value, p->low, start, count, w);
  }
}
