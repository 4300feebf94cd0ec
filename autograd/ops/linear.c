/* linear: builders and backward rules (Linear and Residual in tensor/kernels.h). Saves its inputs.
 *
 * op_linear_residual is linear and residual in one: the update exists while it is made and, where its type is not the
 * stream's, its gradient while it is used. */
#include "autograd/ops.h"

static double product_flops(const Linear *p) { return 2.0 * (double)p->x->dim[0] * (double)tensor_count(p->w); }

static void check(const Tensor *x, const Tensor *w, const Tensor *bias) {
  CHECK(x->n_dim == 2 && w->n_dim == 2 && w->dim[1] == x->dim[1], "w %s for x %s", tensor_shape_text(w),
        tensor_shape_text(x));
  CHECK(x->dim[0] > 0 && x->dim[1] > 0 && w->dim[0] > 0, "empty product: w %s, x %s", tensor_shape_text(w),
        tensor_shape_text(x));
  CHECK(!bias || (bias->n_dim == 1 && bias->dim[0] == w->dim[0]), "bias %s for w %s", tensor_shape_text(bias),
        tensor_shape_text(w));
}

static bool any_needs_grad(const Linear *p) {
  return p->x->needs_grad || p->w->needs_grad || (p->bias && p->bias->needs_grad);
}

static void ask_gradients(Tape *tape, Linear *p) {
  p->dx = tape_grad_unset(tape, p->x);
  p->dw = tape_grad_unset(tape, p->w);
  p->dbias = tape_grad(tape, p->bias);
}

static void forward(Tape *tape, Linear *p) {
  tape->device->flops += product_flops(p);
  linear_fwd(tape->device, p);
}

static void backward(Tape *tape, Linear *p) {
  tape->device->flops += product_flops(p) * ((p->dx != NULL) + (p->dw != NULL));
  linear_bwd(tape->device, p);
  tape_grad_set(p->dx);
  tape_grad_set(p->dw);
}

static void rule(Tape *tape, void *params) {
  Linear *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  ask_gradients(tape, p);
  backward(tape, p);
}

Tensor *op_linear_into(Tape *tape, Tensor *x, Tensor *w, Tensor *bias, Tensor *y) {
  check(x, w, bias);
  CHECK(y->n_dim == 2 && y->dim[0] == x->dim[0] && y->dim[1] == w->dim[0], "y %s for x %s, w %s", tensor_shape_text(y),
        tensor_shape_text(x), tensor_shape_text(w));
  Linear p = {.x = x, .w = w, .bias = bias, .y = y};
  if (!tape_known(tape, y)) forward(tape, &p);
  const bool needs_grad = tape->recording && any_needs_grad(&p);
  tape_mark_output(y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return y;
}

Tensor *op_linear(Tape *tape, Tensor *x, Tensor *w, Tensor *bias, Dtype out) {
  check(x, w, bias);
  return op_linear_into(tape, x, w, bias, tape_tensor(tape, out, x->dim[0], w->dim[0]));
}

/* ---- with the residual stream */

typedef struct LinearResidual {
  Linear linear; /* its y is the sum, in the recorded params */
  Tensor *stream;
} LinearResidual;

static void residual_rule(Tape *tape, void *params) {
  const LinearResidual *record = params;
  Linear linear = record->linear;
  Device *device = tape->device;
  Tensor *dy = tape_arrived(tape, linear.y);
  if (!dy) return;
  ask_gradients(tape, &linear);
  Residual residual = {.y = linear.y, .stream = record->stream, .dy = dy, .dstream = tape_grad(tape, record->stream)};
  if (residual.dstream == dy) residual.dstream = NULL; /* one gradient for both: it has arrived */

  const size_t mark = arena_mark(&device->step);
  linear.dy = dy;
  if (tape->act != dy->dtype) {
    residual.dupdate = linear.dy = tape_tensor(tape, tape->act, dy->dim[0], dy->dim[1]);
    device_zero(device, linear.dy);
  }
  if (residual.dstream || residual.dupdate) residual_bwd(device, &residual);
  backward(tape, &linear);
  arena_rewind(&device->step, mark);
}

Tensor *op_linear_residual(Tape *tape, Tensor *x, Tensor *w, Tensor *bias, Tensor *stream, Tensor *y) {
  check(x, w, bias);
  Device *device = tape->device;
  CHECK(stream->dtype == tape_real(tape) && stream->dim[0] == x->dim[0] && stream->dim[1] == w->dim[0],
        "stream %s %s for x %s, w %s", dtype_name(stream->dtype), tensor_shape_text(stream), tensor_shape_text(x),
        tensor_shape_text(w));
  CHECK(!y || (y->dtype == stream->dtype && tensor_same_shape(y, stream)), "y %s %s for a stream %s",
        dtype_name(y->dtype), tensor_shape_text(y), tensor_shape_text(stream));
  if (!y) y = tape_tensor(tape, stream->dtype, stream->dim[0], stream->dim[1]);
  LinearResidual p = {.linear = {.x = x, .w = w, .bias = bias, .y = y}, .stream = stream};
  if (!tape_known(tape, y)) {
    const size_t mark = arena_mark(&device->step);
    Linear linear = p.linear;
    linear.y = tape_tensor(tape, tape->act, y->dim[0], y->dim[1]);
    forward(tape, &linear);
    residual_fwd(device, &(Residual){.stream = stream, .update = linear.y, .y = y});
    arena_rewind(&device->step, mark);
  }
  const bool needs_grad = tape->recording && (any_needs_grad(&p.linear) || stream->needs_grad);
  tape_mark_output(y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, residual_rule, p);
  return y;
}
