/* schedule: the learning rate of a step (optim.h). Warm-up is linear: step w of W has lr * w / W. After it, progress
 * runs from 0 at the warm-up's end to 1 at the last step:
 *   linear  lr * (1 - (1 - r) progress)          cosine  lr * (r + (1 - r) (1 + cos(pi progress)) / 2)
 *   wsd     lr until the last decay_steps, then linear to lr * r            with r = min_lr_ratio. */
#include "optim/optim.h"

#include <math.h>

static double factor_constant(const OptimConfig *c, double progress, double decay_progress) {
  (void)c, (void)progress, (void)decay_progress;
  return 1;
}
static double factor_linear(const OptimConfig *c, double progress, double decay_progress) {
  (void)decay_progress;
  return 1 - (1 - c->min_lr_ratio) * progress;
}
static double factor_cosine(const OptimConfig *c, double progress, double decay_progress) {
  (void)decay_progress;
  return c->min_lr_ratio + (1 - c->min_lr_ratio) * 0.5 * (1 + cos(3.14159265358979323846 * progress));
}
static double factor_wsd(const OptimConfig *c, double progress, double decay_progress) {
  (void)progress;
  return 1 - (1 - c->min_lr_ratio) * decay_progress;
}

static double (*const FACTORS[])(const OptimConfig *, double, double) = {
    [SCHEDULE_CONSTANT] = factor_constant,
    [SCHEDULE_LINEAR] = factor_linear,
    [SCHEDULE_COSINE] = factor_cosine,
    [SCHEDULE_WSD] = factor_wsd,
};

/* How far `step` is on the way from `from` to `to`, in [0, 1]. */
static double progress_between(int64_t step, int64_t from, int64_t to) {
  if (step <= from) return 0;
  return step >= to ? 1 : (double)(step - from) / (double)(to - from);
}

double schedule_lr(const OptimConfig *c, int64_t step, int64_t steps) {
  if (step <= c->warmup_steps) return c->lr * (double)step / (double)c->warmup_steps;
  double progress = progress_between(step, c->warmup_steps, steps);
  double decay_progress = progress_between(step, max_i64(c->warmup_steps, steps - c->decay_steps), steps);
  return c->lr * FACTORS[c->schedule](c, progress, decay_progress);
}
