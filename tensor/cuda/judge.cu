/* judge: the verdict on a step's gradient, as tensor/cpu/judge.c has it. One thread. */
#include "tensor/cuda/cuda.h"

struct Evidence {
  const double *losses, *found;
  int n_losses, n_owners, n_own;
  double loss_scale, clip;
  const StepNumbers *numbers;
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
  Verdict own;
  own.bad = -1;
  double squares = 0;
  const double *found = e.found;
  for (int owner = 0; owner < e.n_owners; owner++) {
    for (int i = 0; i < e.n_own; i++) squares += global_load(found++);
    const int64_t bad = (int64_t)global_load(found++);
    if (own.bad < 0) own.bad = bad;
  }
  own.norm = sqrt(squares);
  own.loss = tree_sum(e.losses, e.n_losses) * (e.numbers ? global_load(&e.numbers->loss_scale) : e.loss_scale);
  own.grad_scale = clip_scale(own.norm, e.clip);
  own.held = !isfinite(own.loss) || !isfinite(own.norm) || (before && global_load(&before->held));
  global_store(verdict, own);
  if (history) global_store(history + global_load(&e.numbers->step) % n_history, own);
}

KERNEL_FWD(judge, Judge) {
  const Evidence evidence = {p->losses, p->found,      p->n_losses, p->n_owners,
                             p->n_own,  p->loss_scale, p->clip,     p->numbers};
  LAUNCH(judge, 1, 1, 0, evidence, p->before, p->verdict, p->history, p->n_history);
}
