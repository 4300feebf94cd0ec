/* judge: the verdict on a step's gradient, as tensor/cpu/judge.c has it. One block: one thread judges, all of them look for
 * the first element that is not finite, where there is one. */
#include "tensor/cuda/cuda.h"

constexpr int THREADS = 256;

struct Evidence {
  const double *losses, *squares;
  int n_losses, n_squares;
  double loss_scale, clip;
  const StepNumbers *numbers;
  const float *grads;
  int64_t n;
};

/* Losses of neighbours, then of pairs: part i joins what stands at the level of its trailing ones. */
__device__ static double tree_sum(const double *losses, int n) {
  double levels[32], sum = 0;
  for (int i = 0; i < n; i++) {
    sum = global_load(losses + i);
    int level = 0;
    for (; i >> level & 1; level++) sum += levels[level];
    levels[level] = sum;
  }
  return sum;
}

static __global__ void judge(Evidence e, const Verdict *before, Verdict *verdict, Verdict *history, int n_history) {
  SHARED(int64_t, found);
  Verdict own;
  double squares = 0;
  for (int i = 0; i < e.n_squares; i++) squares += global_load(e.squares + i);
  own.norm = sqrt(squares);
  int64_t first = INT64_MAX;
  if (!isfinite(own.norm))
    for (int64_t i = threadIdx.x; i < e.n && first == INT64_MAX; i += THREADS)
      if (!isfinite(global_load(e.grads + i))) first = i;
  found[threadIdx.x] = first;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half && found[threadIdx.x + half] < found[threadIdx.x])
      found[threadIdx.x] = found[threadIdx.x + half];
  }
  if (threadIdx.x != 0) return;
  own.loss = tree_sum(e.losses, e.n_losses) * (e.numbers ? global_load(&e.numbers->loss_scale) : e.loss_scale);
  own.grad_scale = clip_scale(own.norm, e.clip);
  own.bad = found[0] == INT64_MAX ? -1 : found[0];
  own.held = !isfinite(own.loss) || !isfinite(own.norm) || (before && global_load(&before->held));
  global_store(verdict, own);
  if (history) global_store(history + global_load(&e.numbers->step) % n_history, own);
}

KERNEL_FWD(judge, Judge) {
  const Evidence evidence = {p->losses,     p->squares, p->n_losses,
                             p->n_squares,  p->loss_scale, p->clip, p->numbers,
                             (const float *)p->grads->data, tensor_count(p->grads)};
  LAUNCH(judge, 1, THREADS, THREADS * sizeof(int64_t), evidence, p->before, p->verdict, p->history,
         p->n_history);
}
