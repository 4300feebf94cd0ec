/* clip: the global gradient norm and the clip's factor (optim.h; spec 2.4). */
#include "optim/optim.h"

#include <math.h>

static double sum_of_squares(Device *device, Tensor *x) {
  double squares = 0;
  sum_squares_fwd(device, &(SumSquares){.x = x, .result = &squares});
  return squares;
}

double optim_grad_norm(ParamTable *params, Device *device, const Param **bad) {
  const double squares = sum_of_squares(device, &params->grads_flat);
  *bad = NULL;
  for (int i = 0; i < params->n_params && !isfinite(squares) && !*bad; i++)
    if (!isfinite(sum_of_squares(device, &params->params[i]->grad))) *bad = params->params[i];
  return sqrt(squares);
}

double optim_clip_scale(double norm, double clip) {
  if (clip <= 0) return 1;
  double scale = clip / (norm + 1e-6);
  return scale < 1 ? scale : 1;
}
