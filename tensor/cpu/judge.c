/* judge: the verdict on a step's gradient (kernels.h; spec 2.4 for the clip). */
#include "tensor/cpu/cpu.h"

KERNEL_FWD(judge, Judge) {
  Verdict verdict = {.bad = -1};
  double squares = 0;
  const double *found = p->found;
  for (int owner = 0; owner < p->n_owners; owner++) {
    for (int i = 0; i < p->n_own; i++) squares += *found++;
    const int64_t bad = (int64_t)*found++;
    if (verdict.bad < 0) verdict.bad = bad;
  }
  verdict.loss = sum_by_pairs(p->losses, p->n_losses) * (p->numbers ? p->numbers->loss_scale : p->loss_scale);
  verdict.norm = sqrt(squares);
  verdict.grad_scale = clip_scale(verdict.norm, p->clip);
  verdict.held = !isfinite(verdict.loss) || !isfinite(verdict.norm) || (p->before && p->before->held);
  *p->verdict = verdict;
  if (p->history) p->history[p->numbers->step % p->n_history] = verdict;
}
