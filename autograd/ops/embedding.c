/* embedding: builder and backward rule (Embedding in tensor/kernels.h). Saves nothing. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  Embedding *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dw = tape_grad(tape, p->w);
  embedding_bwd(tape->device, p);
}

Tensor *op_embedding(Tape *tape, Tensor *w, Tensor *token) {
  CHECK(w->n_dim == 2, "w %s, expected (V, D)", tensor_shape_text(w));
  CHECK(token->n_dim == 1 && token->dtype == I32, "tokens %s %s, expected i32 (T)", dtype_name(token->dtype),
        tensor_shape_text(token));
  Embedding p = {.token = token, .w = w, .y = tape_tensor(tape, tape_real(tape), token->dim[0], w->dim[1])};
  embedding_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && w->needs_grad;
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
