/* swiglu: builder and backward rule (Swiglu in tensor/kernels.h). Saves its inputs. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  Swiglu *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dvalue = tape_grad(tape, p->value);
  p->dgate = tape_grad(tape, p->gate);
  swiglu_bwd(tape->device, p);
}

Tensor *op_swiglu(Tape *tape, Tensor *value, Tensor *gate, Tensor *y) {
  CHECK(value->n_dim == 2 && tensor_same_shape(value, gate), "value %s, gate %s", tensor_shape_text(value),
        tensor_shape_text(gate));
  CHECK(!y || tensor_same_shape(y, value), "y %s for value %s", tensor_shape_text(y), tensor_shape_text(value));
  Swiglu p = {.value = value, .gate = gate, .y = y};
  if (!p.y) p.y = tape_tensor(tape, tape->act, value->dim[0], value->dim[1]);
  swiglu_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && (value->needs_grad || gate->needs_grad);
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
