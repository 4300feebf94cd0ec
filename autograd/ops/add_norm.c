/* add_norm: builder and backward rule (AddNorm in tensor/kernels.h). Saves h, which the next block needs anyway. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  AddNorm *p = params;
  p->dy = tape_arrived(tape, p->y);
  p->dh = tape_arrived(tape, p->h);
  if (!p->dy && !p->dh) return;
  p->dresidual = tape_grad(tape, p->residual);
  p->dupdate = tape_grad(tape, p->update);
  p->dweight = tape_grad(tape, p->weight);
  add_norm_bwd(tape->device, p);
}

Tensor *op_add_norm(Tape *tape, Tensor *residual, Tensor *update, Tensor *weight, double eps, Tensor **h_out) {
  const Dtype real = tape_real(tape);
  CHECK(residual->n_dim == 2 && residual->dtype == real, "residual %s %s, expected %s (T, D)",
        dtype_name(residual->dtype), tensor_shape_text(residual), dtype_name(real));
  CHECK(!update || tensor_same_shape(update, residual), "update %s for residual %s", tensor_shape_text(update),
        tensor_shape_text(residual));
  CHECK(weight->n_dim == 1 && weight->dim[0] == residual->dim[1], "weight %s for residual %s",
        tensor_shape_text(weight), tensor_shape_text(residual));
  AddNorm p = {.residual = residual, .update = update, .weight = weight, .eps = eps};
  if (update) p.h = tape_tensor(tape, real, residual->dim[0], residual->dim[1]);
  p.y = tape_tensor(tape, tape->act, residual->dim[0], residual->dim[1]);
  add_norm_fwd(tape->device, &p);
  const bool h_needs_grad = tape->recording && (residual->needs_grad || (update && update->needs_grad));
  const bool y_needs_grad = h_needs_grad || (tape->recording && weight->needs_grad);
  tape_mark_output(p.h, h_needs_grad);
  tape_mark_output(p.y, y_needs_grad);
  if (y_needs_grad) TAPE_RECORD(tape, rule, p);
  if (h_out) *h_out = update ? p.h : residual;
  return p.y;
}
