/* linear: builder and backward rule (Linear in tensor/kernels.h). Saves its inputs. */
#include "autograd/ops.h"

static double product_flops(const Linear *p) { return 2.0 * (double)p->x->dim[0] * (double)tensor_count(p->w); }

static void rule(Tape *tape, void *params) {
  Linear *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dx = tape_grad(tape, p->x);
  p->dw = tape_grad(tape, p->w);
  p->dbias = tape_grad(tape, p->bias);
  tape->device->flops += product_flops(p) * ((p->dx != NULL) + (p->dw != NULL));
  linear_bwd(tape->device, p);
}

Tensor *op_linear(Tape *tape, Tensor *x, Tensor *w, Tensor *bias, Dtype out) {
  CHECK(x->n_dim == 2 && w->n_dim == 2 && w->dim[1] == x->dim[1], "w %s for x %s", tensor_shape_text(w),
        tensor_shape_text(x));
  CHECK(x->dim[0] > 0 && x->dim[1] > 0 && w->dim[0] > 0, "empty product: w %s, x %s", tensor_shape_text(w),
        tensor_shape_text(x));
  CHECK(!bias || (bias->n_dim == 1 && bias->dim[0] == w->dim[0]), "bias %s for w %s", tensor_shape_text(bias),
        tensor_shape_text(w));
  Linear p = {.x = x, .w = w, .bias = bias, .y = tape_tensor(tape, out, x->dim[0], w->dim[0])};
  tape->device->flops += product_flops(&p);
  linear_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && (x->needs_grad || w->needs_grad || (bias && bias->needs_grad));
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
