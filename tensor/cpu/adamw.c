/* adamw: one step (spec 2.4), with g = grad * grad_scale:
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p -= lr wd p;  p -= lr (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)
 * The corrections are computed in double: 1 - b2^n of the first steps is small. */
#include "tensor/cpu/exact.h"

enum { BLOCK = 1 << 10 };

KERNEL_FWD(adamw, Adamw) {
  if (p->verdict && p->verdict->held) return;
  const int64_t n = tensor_count(p->value);
  const real b1 = (real)p->beta1, b2 = (real)p->beta2, c1 = (real)(1 - p->beta1), c2 = (real)(1 - p->beta2);
  const StepNumbers own = p->numbers ? *p->numbers : adamw_numbers(p->lr, p->beta1, p->beta2, p->weight_decay, p->step);
  const real step_size = (real)own.adam_size, v_scale = (real)own.adam_scale;
  const real keep = (real)(p->weight_decay != 0 ? own.keep : 1), eps = (real)p->eps,
             grad_scale = (real)(p->verdict ? p->verdict->grad_scale : p->grad_scale);
#pragma omp parallel for schedule(static) if (parallel_pays(n))
  for (int64_t start = 0; start < n; start += BLOCK) {
    const int64_t count = min_i64(BLOCK, n - start);
    const real *restrict grad = (const real *)p->grad->data + start;
    real buffer[BLOCK];
    real *restrict w = exact_load(p->value, p->low, start, count, buffer);
    real *restrict m = (real *)p->m->data + start, *restrict v = (real *)p->v->data + start;
    for (int64_t i = 0; i < count; i++) {
      const real g = grad[i] * grad_scale;
      m[i] = b1 * m[i] + c1 * g;
      v[i] = b2 * v[i] + c2 * g * g;
      w[i] = w[i] * keep - step_size * m[i] / (R(sqrt)(v[i] * v_scale) + eps);
    }
    exact_store(p->value, p->low, start, count, w);
  }
}
