/* cross_entropy: builder and backward rule (CrossEntropy in tensor/kernels.h). Saves its inputs; the logits are computed
 * again. Where the tape knows what the gradient of nll will be, nothing of that is needed: forward does it all. */
#include "autograd/ops.h"

/* One of the products logits, dx, dw; the logits made again are not counted. */
static double product_flops(const CrossEntropy *p) { return 2.0 * (double)tensor_count(p->x) * (double)p->vocab_size; }

static void take_gradients(Tape *tape, CrossEntropy *p) {
  p->dx = tape_grad_unset(tape, p->x);
  p->dw = tape_grad_unset(tape, p->w);
  tape->device->flops += product_flops(p) * ((p->dx != NULL) + (p->dw != NULL));
}

static void gradients_taken(const CrossEntropy *p) {
  tape_grad_set(p->dx);
  tape_grad_set(p->dw);
}

static void rule(Tape *tape, void *params) {
  CrossEntropy *p = params;
  p->dnll = tape_arrived(tape, p->nll);
  if (!p->dnll) return;
  take_gradients(tape, p);
  cross_entropy_bwd(tape->device, p);
  gradients_taken(p);
}

Tensor *op_cross_entropy(Tape *tape, Tensor *x, Tensor *w, Tensor *target, int vocab_size) {
  CHECK(x->n_dim == 2 && w->n_dim == 2 && x->dim[1] == w->dim[1] && x->dim[0] > 0, "w %s for x %s",
        tensor_shape_text(w), tensor_shape_text(x));
  CHECK(target->n_dim == 1 && target->dtype == I32 && target->dim[0] == x->dim[0], "targets %s %s for x %s",
        dtype_name(target->dtype), tensor_shape_text(target), tensor_shape_text(x));
  CHECK(vocab_size >= 1 && vocab_size <= w->dim[0], "vocabulary of %d for w %s", vocab_size, tensor_shape_text(w));
  CrossEntropy p = {.vocab_size = vocab_size,
                    .x = x,
                    .w = w,
                    .target = target,
                    .nll = tape_tensor(tape, tape_real(tape), x->dim[0], 1)};
  tape->device->flops += product_flops(&p);
  const bool needs_grad = tape->recording && (x->needs_grad || w->needs_grad), at_once = needs_grad && tape->dloss;
  if (at_once) {
    p.dnll_known = tape->dloss;
    take_gradients(tape, &p);
  }
  cross_entropy_fwd(tape->device, &p);
  gradients_taken(&p);
  tape_mark_output(p.nll, needs_grad && !at_once);
  if (needs_grad && !at_once) TAPE_RECORD(tape, rule, p);
  return p.nll;
}
