/* clip: the global gradient norm and the clip's factor (optim.h; spec 2.4). */
#include "optim/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void squares_of_ranges(ParamTable *params, Device *device, int first, int n) {
  double *squares = params->squares.data;
  for (int i = 0; i < n; i++) {
    const int64_t begin = params->bounds[first + i], count = params->bounds[first + i + 1] - begin;
    char *data = (char *)params->grads_flat.data + (size_t)begin * dtype_bytes(params->grads_flat.dtype);
    Tensor range = tensor_over(data, params->grads_flat.dtype, 1, &count);
    sum_squares_fwd(device, &(SumSquares){.x = &range, .result = squares + i});
  }
}

void optim_squares(ParamTable *params, Device *device, int first, int n, double *squares) {
  squares_of_ranges(params, device, first, n);
  const Tensor host = device_pull(device, &params->squares);
  memcpy(squares, host.data, (size_t)n * sizeof *squares);
}

void optim_judge(ParamTable *params, Device *device, const StepEvidence *e) {
  squares_of_ranges(params, device, 0, params->n_ranges);
  judge_fwd(device, &(Judge){.losses = params->losses.data,
                             .n_losses = e->n_losses,
                             .numbers = params_numbers(params),
                             .squares = params->squares.data,
                             .n_squares = params->n_ranges,
                             .clip = e->clip,
                             .grads = &params->grads_flat,
                             .before = e->follows ? params_verdict(params) : NULL,
                             .verdict = params_verdict(params),
                             .history = params->verdicts.data,
                             .n_history = PARAMS_VERDICTS});
}

void optim_set_verdict(ParamTable *params, Device *device, int64_t step, const Verdict *verdict) {
  const Tensor host = device_mirror(device, &params->verdicts);
  ((Verdict *)host.data)[step % PARAMS_VERDICTS] = ((Verdict *)host.data)[PARAMS_VERDICTS] = *verdict;
  device_push(device, &params->verdicts);
}

double optim_norm(const double *squares, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += squares[i];
  return sqrt(sum);
}

const Param *optim_bad(ParamTable *params, Device *device) {
  for (int i = 0; i < params->n_params; i++) {
    sum_squares_fwd(device, &(SumSquares){.x = &params->params[i]->grad, .result = params->squares.data});
    const Tensor host = device_pull(device, &params->squares);
    if (!isfinite(tensor_get(&host, 0))) return params->params[i];
  }
  return NULL;
}

double optim_grad_norm(ParamTable *params, Device *device, const Param **bad) {
  double *squares = base_alloc((size_t)params->n_ranges * sizeof *squares);
  optim_squares(params, device, 0, params->n_ranges, squares);
  const double norm = optim_norm(squares, params->n_ranges);
  free(squares);
  *bad = isfinite(norm) ? NULL : optim_bad(params, device);
  return norm;
}

double optim_clip_scale(double norm, double clip) { return clip_scale(norm, clip); }
