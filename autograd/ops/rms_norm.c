/* rms_norm: builder and backward rule (RmsNorm in tensor/kernels.h). Saves x, which the residual stream keeps anyway. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  RmsNorm *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dx = tape_grad_unset(tape, p->x);
  p->dweight = tape_grad(tape, p->weight);
  rms_norm_bwd(tape->device, p);
  tape_grad_set(p->dx);
}

Tensor *op_rms_norm(Tape *tape, Tensor *x, Tensor *weight, double eps) {
  const Dtype real = tape_real(tape);
  CHECK(x->n_dim == 2 && x->dtype == real, "x %s %s, expected %s (T, D)", dtype_name(x->dtype), tensor_shape_text(x),
        dtype_name(real));
  CHECK(weight->n_dim == 1 && weight->dim[0] == x->dim[1], "weight %s for x %s", tensor_shape_text(weight),
        tensor_shape_text(x));
  RmsNorm p = {.x = x, .weight = weight, .eps = eps, .y = tape_tensor(tape, tape->act, x->dim[0], x->dim[1])};
  rms_norm_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && (x->needs_grad || weight->needs_grad);
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
