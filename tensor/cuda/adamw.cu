/* adamw: one step (spec 2.4), with g = grad * grad_scale:
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p -= lr wd p;  p -= lr (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps) */
#include "tensor/cuda/exact.h"

struct Step {
  float b1, b2, c1, c2, size, v_scale, keep, eps, grad_scale;
};

static __global__ void update(int64_t n, Step s, Weight w, const float *grad, float *m, float *v,
                              const Verdict *verdict) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n || !updates(verdict, &s.grad_scale)) return;
  const float g = global_load(grad + i) * s.grad_scale;
  const float m_new = s.b1 * global_load(m + i) + s.c1 * g, v_new = s.b2 * global_load(v + i) + s.c2 * g * g;
  global_store(m + i, m_new);
  global_store(v + i, v_new);
  w.put(i, w.get(i) * s.keep - s.size * m_new / (sqrtf(v_new * s.v_scale) + s.eps));
}

KERNEL_FWD(adamw, Adamw) {
  const int64_t n = tensor_count(p->value);
  const Step step = {(float)p->beta1,
                     (float)p->beta2,
                     (float)(1 - p->beta1),
                     (float)(1 - p->beta2),
                     (float)(p->lr / (1 - pow(p->beta1, (double)p->step))),
                     (float)(1 / (1 - pow(p->beta2, (double)p->step))),
                     (float)(1 - p->lr * p->weight_decay),
                     (float)p->eps,
                     (float)p->grad_scale};
  if (n > 0)
    LAUNCH(update, blocks_of(n, 256), 256, 0, n, step, Weight{p->value->data, p->low}, (const float *)p->grad->data,
           (float *)p->m->data, (float *)p->v->data, p->verdict);
}
