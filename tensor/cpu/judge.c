/* judge: the verdict on a step's gradient (kernels.h; spec 2.4 for the clip). */
#include "tensor/cpu/cpu.h"

/* Losses of neighbours, then of pairs, as gradients are added (train/gradient.h). */
static double tree_sum(const double *losses, int first, int n) {
  return n == 1 ? losses[first] : tree_sum(losses, first, n / 2) + tree_sum(losses, first + n / 2, n / 2);
}

KERNEL_FWD(judge, Judge) {
  double squares = 0;
  for (int i = 0; i < p->n_squares; i++) squares += p->squares[i];
  Verdict verdict = {
      .loss = tree_sum(p->losses, 0, p->n_losses) * p->loss_scale, .norm = sqrt(squares), .grad_scale = 1, .bad = -1};
  if (p->clip > 0) {
    const double scale = p->clip / (verdict.norm + 1e-6);
    if (scale < 1) verdict.grad_scale = scale;
  }
  const real *grads = p->grads->data;
  const int64_t n = isfinite(verdict.norm) ? 0 : tensor_count(p->grads);
  for (int64_t i = 0; i < n && verdict.bad < 0; i++)
    if (!isfinite((double)grads[i] * (double)grads[i])) verdict.bad = i;
  verdict.held = !isfinite(verdict.loss) || !isfinite(verdict.norm) || (p->before && p->before->held);
  *p->verdict = verdict;
}
