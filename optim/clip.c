/* clip: the global gradient norm, the verdict that it leads to, and the clip's factor (optim.h; spec 2.4). */
#include "optim/optim.h"

#include <math.h>

/* Gradients [first, end) of the flat block. */
static Tensor grads_between(const ParamTable *params, int64_t first, int64_t end) {
  const Tensor *flat = &params->grads_flat;
  const int64_t n = end - first;
  return tensor_over((char *)flat->data + (size_t)first * dtype_bytes(flat->dtype), flat->dtype, 1, &n);
}

void optim_measure(ParamTable *params, Device *device) {
  const int n_own = params->n_own, owner = params->first_range / n_own;
  const int64_t *bounds = params->bounds + params->first_range;
  double *found = (double *)params->found.data + owner * (n_own + 1);
  for (int i = 0; i < n_own; i++) {
    Tensor range = grads_between(params, bounds[i], bounds[i + 1]);
    sum_squares_fwd(device, &(SumSquares){.x = &range, .result = found + i});
  }
  Tensor own = grads_between(params, bounds[0], bounds[n_own]);
  find_bad_fwd(
      device, &(FindBad){.x = &own, .squares = found, .n_squares = n_own, .first = bounds[0], .result = found + n_own});
}

void optim_judge(ParamTable *params, Device *device, const StepEvidence *e) {
  judge_fwd(device, &(Judge){.losses = params->losses.data,
                             .n_losses = e->n_losses,
                             .numbers = params_numbers(params),
                             .found = params->found.data,
                             .n_owners = params_n_owners(params),
                             .n_own = params->n_own,
                             .clip = e->clip,
                             .before = e->follows ? params_verdict(params) : NULL,
                             .verdict = params_verdict(params),
                             .history = params->verdicts.data,
                             .n_history = PARAMS_VERDICTS});
}

double optim_grad_norm(ParamTable *params, Device *device, const Param **bad) {
  CHECK(!params_split(params), "the norm of gradients of which others have a part");
  optim_measure(params, device);
  const Tensor host = device_pull(device, &params->found);
  const double *found = host.data;
  double squares = 0;
  for (int i = 0; i < params->n_own; i++) squares += found[i];
  *bad = found[params->n_own] < 0 ? NULL : params_at(params, (int64_t)found[params->n_own]);
  return sqrt(squares);
}

double optim_clip_scale(double norm, double clip) { return clip_scale(norm, clip); }
