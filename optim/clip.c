/* clip: the global gradient norm and the clip's factor (optim.h; spec 2.4). */
#include "optim/optim.h"

#include <math.h>

double optim_grad_norm(const ParamTable *params, Device *device, const Param **bad) {
  double total = 0;
  *bad = NULL;
  for (int i = 0; i < params->n_params; i++) {
    Param *param = params->params[i];
    double squares = 0;
    sum_squares_fwd(device, &(SumSquares){.x = &param->grad, .result = &squares});
    if (!isfinite(squares) && !*bad) *bad = param;
    total += squares;
  }
  return sqrt(total);
}

double optim_clip_scale(double norm, double clip) {
  if (clip <= 0) return 1;
  double scale = clip / (norm + 1e-6);
  return scale < 1 ? scale : 1;
}
