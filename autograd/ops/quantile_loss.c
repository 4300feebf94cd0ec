/* quantile_loss: builder and backward rule (QuantileLoss in tensor/kernels.h). Saves its inputs. */
#include <string.h>

#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  QuantileLoss *p = params;
  p->dloss = tape_arrived(tape, p->loss);
  if (!p->dloss) return;
  p->dprediction = tape_grad(tape, p->prediction);
  quantile_loss_bwd(tape->device, p);
}

Tensor *op_quantile_loss(Tape *tape, int n_q, const double *tau, Tensor *prediction, Tensor *target) {
  CHECK(n_q >= 1 && n_q <= MAX_QUANTILES, "%d quantiles", n_q);
  CHECK(prediction->n_dim == 2 && target->n_dim == 2 && prediction->dim[0] == target->dim[0] &&
            prediction->dim[1] == n_q * target->dim[1],
        "prediction %s of %d quantiles, target %s", tensor_shape_text(prediction), n_q, tensor_shape_text(target));
  CHECK(target->dtype == tape_real(tape) && !target->needs_grad, "target %s%s, expected %s without gradient",
        dtype_name(target->dtype), target->needs_grad ? " with gradient" : "", dtype_name(tape_real(tape)));
  QuantileLoss p = {.n_q = n_q,
                    .prediction = prediction,
                    .target = target,
                    .loss = tape_tensor(tape, tape_real(tape), prediction->dim[0], 1)};
  memcpy(p.tau, tau, (size_t)n_q * sizeof *tau);
  quantile_loss_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && prediction->needs_grad;
  tape_mark_output(p.loss, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.loss;
}
