/* adamw: one step (spec 2.4), with g = grad * grad_scale:
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p -= lr wd p;  p -= lr (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps) */
#include "tensor/cuda/exact.h"

struct Step {
  float b1, b2, c1, c2, size, v_scale, keep, eps, grad_scale;
  bool decays;
};

static __global__ void update(int64_t n, Step s, Weight w, const float *grad, float *m, float *v,
                              const Verdict *verdict, const StepNumbers *numbers) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n || !updates(verdict, &s.grad_scale)) return;
  if (numbers) {
    s.size = (float)global_load(&numbers->adam_size), s.v_scale = (float)global_load(&numbers->adam_scale);
    s.keep = s.decays ? (float)global_load(&numbers->keep) : 1;
  }
  const float g = global_load(grad + i) * s.grad_scale;
  const float m_new = s.b1 * global_load(m + i) + s.c1 * g, v_new = s.b2 * global_load(v + i) + s.c2 * g * g;
  global_store(m + i, m_new);
  global_store(v + i, v_new);
  w.put(i, w.get(i) * s.keep - s.size * m_new / (sqrtf(v_new * s.v_scale) + s.eps));
}

/* With numbers nothing here differs from step to step. */
static Step step_of(const Adamw *p) {
  Step s = {};
  s.b1 = (float)p->beta1, s.b2 = (float)p->beta2, s.c1 = (float)(1 - p->beta1), s.c2 = (float)(1 - p->beta2);
  s.eps = (float)p->eps, s.grad_scale = (float)p->grad_scale, s.decays = p->weight_decay != 0;
  if (p->numbers) return s;
  const StepNumbers own = adamw_numbers(p->lr, p->beta1, p->beta2, p->weight_decay, p->step);
  s.size = (float)own.adam_size, s.v_scale = (float)own.adam_scale, s.keep = (float)own.keep;
  return s;
}

KERNEL_FWD(adamw, Adamw) {
  const int64_t n = tensor_count(p->value);
  if (n > 0)
    LAUNCH(update, blocks_of(n, 256), 256, 0, n, step_of(p), Weight{p->value->data, p->low},
           (const float *)p->grad->data, (float *)p->m->data, (float *)p->v->data, p->verdict, p->numbers);
}
