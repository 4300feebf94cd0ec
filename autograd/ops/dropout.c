/* dropout: builder and backward rule (Dropout in tensor/kernels.h). Saves nothing: the draws are repeated. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  Dropout *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dx = tape_grad(tape, p->x);
  dropout_bwd(tape->device, p);
}

Tensor *op_dropout(Tape *tape, Dropout p) {
  CHECK(p.p >= 0 && p.p < 1, "dropout of %g", p.p);
  CHECK(p.x->n_dim == 2 && p.rows_per_sample > 0 && p.x->dim[0] % p.rows_per_sample == 0, "%lld rows a sample, x %s",
        (long long)p.rows_per_sample, tensor_shape_text(p.x));
  p.y = tape_tensor(tape, p.x->dtype, p.x->dim[0], p.x->dim[1]);
  dropout_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && p.x->needs_grad;
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
