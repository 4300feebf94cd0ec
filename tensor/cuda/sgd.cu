/* sgd: p -= lr (grad * grad_scale + weight_decay p). */
#include "tensor/cuda/exact.h"

static __global__ void update(int64_t n, float lr, float weight_decay, float grad_scale, Weight w, const float *grad,
                              const Verdict *verdict, const StepNumbers *numbers) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n || !updates(verdict, &grad_scale)) return;
  if (numbers) lr = (float)global_load(&numbers->lr);
  const float x = w.get(i);
  w.put(i, x - lr * (global_load(grad + i) * grad_scale + weight_decay * x));
}

KERNEL_FWD(sgd, Sgd) {
  const int64_t n = tensor_count(p->value);
  if (n > 0)
    LAUNCH(update, blocks_of(n, 256), 256, 0, n, (float)p->lr, (float)p->weight_decay, (float)p->grad_scale,
           Weight{p->value->data, p->low}, (const float *)p->grad->data, p->verdict, p->numbers);
}
