/* clip: the global gradient norm and the clip's factor (optim.h; spec 2.4). */
#include "optim/optim.h"

#include <math.h>
#include <stdlib.h>

static double sum_of_squares(Device *device, Tensor *x) {
  double squares = 0;
  sum_squares_fwd(device, &(SumSquares){.x = x, .result = &squares});
  return squares;
}

void optim_squares(ParamTable *params, Device *device, int first, int n, double *squares) {
  for (int i = 0; i < n; i++) {
    const int64_t begin = params->bounds[first + i], count = params->bounds[first + i + 1] - begin;
    char *data = (char *)params->grads_flat.data + (size_t)begin * dtype_bytes(params->grads_flat.dtype);
    Tensor range = tensor_over(data, params->grads_flat.dtype, 1, &count);
    squares[i] = count > 0 ? sum_of_squares(device, &range) : 0;
  }
}

double optim_norm(const double *squares, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += squares[i];
  return sqrt(sum);
}

const Param *optim_bad(ParamTable *params, Device *device) {
  for (int i = 0; i < params->n_params; i++)
    if (!isfinite(sum_of_squares(device, &params->params[i]->grad))) return params->params[i];
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

double optim_clip_scale(double norm, double clip) {
  if (clip <= 0) return 1;
  double scale = clip / (norm + 1e-6);
  return scale < 1 ? scale : 1;
}
