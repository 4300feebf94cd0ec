/* judge: the verdict on a step's gradient (kernels.h; spec 2.4 for the clip). */
#include "tensor/cpu/cpu.h"

KERNEL_FWD(judge, Judge) {
  double squares = 0;
  for (int i = 0; i < p->n_squares; i++) squares += p->squares[i];
  const double loss_scale = p->numbers ? p->numbers->loss_scale : p->loss_scale;
  Verdict verdict = {.loss = sum_by_pairs(p->losses, p->n_losses) * loss_scale, .norm = sqrt(squares), .bad = -1};
  verdict.grad_scale = clip_scale(verdict.norm, p->clip);
  const real *grads = p->grads->data;
  const int64_t n = isfinite(verdict.norm) ? 0 : tensor_count(p->grads);
  for (int64_t i = 0; i < n && verdict.bad < 0; i++)
    if (!isfinite((double)grads[i] * (double)grads[i])) verdict.bad = i;
  verdict.held = !isfinite(verdict.loss) || !isfinite(verdict.norm) || (p->before && p->before->held);
  *p->verdict = verdict;
  if (p->history) p->history[p->numbers->step % p->n_history] = verdict;
}
