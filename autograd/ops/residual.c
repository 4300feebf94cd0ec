/* residual: builder and backward rule (Residual in tensor/kernels.h). Saves nothing. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  Residual *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dstream = tape_grad(tape, p->stream);
  if (p->dstream == p->dy) p->dstream = NULL; /* one gradient for both: it has arrived */
  p->dupdate = tape_grad(tape, p->update);
  residual_bwd(tape->device, p);
}

Tensor *op_residual(Tape *tape, Tensor *stream, Tensor *update, Tensor *y) {
  const Dtype real = tape_real(tape);
  CHECK(stream->n_dim == 2 && stream->dtype == real && tensor_same_shape(stream, update), "stream %s %s, update %s",
        dtype_name(stream->dtype), tensor_shape_text(stream), tensor_shape_text(update));
  CHECK(!y || (y->dtype == real && tensor_same_shape(stream, y)), "y %s %s for a stream %s", dtype_name(y->dtype),
        tensor_shape_text(y), tensor_shape_text(stream));
  Residual p = {.stream = stream, .update = update, .y = y};
  if (!y) p.y = tape_tensor(tape, real, stream->dim[0], stream->dim[1]);
  if (!tape_known(tape, p.y)) residual_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && (stream->needs_grad || update->needs_grad);
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
