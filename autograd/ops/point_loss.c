/* point_loss: builder and backward rule (PointLoss in tensor/kernels.h). Saves its inputs. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  PointLoss *p = params;
  p->dloss = tape_arrived(tape, p->loss);
  if (!p->dloss) return;
  p->dprediction = tape_grad(tape, p->prediction);
  point_loss_bwd(tape->device, p);
}

Tensor *op_point_loss(Tape *tape, PointLossKind kind, double delta, Tensor *prediction, Tensor *target) {
  CHECK(prediction->n_dim == 2 && tensor_same_shape(prediction, target), "prediction %s, target %s",
        tensor_shape_text(prediction), tensor_shape_text(target));
  CHECK(target->dtype == tape_real(tape) && !target->needs_grad, "target %s%s, expected %s without gradient",
        dtype_name(target->dtype), target->needs_grad ? " with gradient" : "", dtype_name(tape_real(tape)));
  CHECK(kind != LOSS_HUBER || delta > 0, "Huber's delta is %g", delta);
  PointLoss p = {.kind = kind,
                 .delta = delta,
                 .prediction = prediction,
                 .target = target,
                 .loss = tape_tensor(tape, tape_real(tape), prediction->dim[0], 1)};
  point_loss_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && prediction->needs_grad;
  tape_mark_output(p.loss, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.loss;
}
