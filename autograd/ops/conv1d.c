/* conv1d: builder and backward rule (Conv1d in tensor/kernels.h). Saves only its inputs. */
#include "autograd/ops.h"

static double flops(const Conv1d *p) { return 2.0 * (double)tensor_count(p->x) * (double)p->w->dim[2]; }

static void rule(Tape *tape, void *params) {
  Conv1d *p = params;
  p->dy = tape_arrived(tape, p->y);
  p->dwindow_out = tape_arrived(tape, p->window_out);
  if (!p->dy && !p->dwindow_out) return;
  p->dx = tape_grad_unset(tape, p->x);
  p->dw = tape_grad(tape, p->w);
  p->dbias = tape_grad(tape, p->bias);
  p->dwindow_in = tape_grad(tape, p->window_in);
  tape->device->flops += 2 * flops(p);
  conv1d_bwd(tape->device, p);
  tape_grad_set(p->dx);
}

Conv1d op_conv1d(Tape *tape, Conv1d in, bool want_state) {
  int64_t n_c = in.x->dim[1], n_seq = in.cu_seqlens->dim[0] - 1;
  CHECK(in.w->n_dim == 3 && in.w->dim[0] == n_c && in.w->dim[1] == 1 && in.w->dim[2] >= 1, "w %s for x %s",
        tensor_shape_text(in.w), tensor_shape_text(in.x));
  CHECK(!in.bias || (in.bias->n_dim == 1 && in.bias->dim[0] == n_c), "bias %s for x %s", tensor_shape_text(in.bias),
        tensor_shape_text(in.x));
  int64_t window[] = {n_seq, n_c, in.w->dim[2] - 1};
  Tensor window_shape = tensor_over(NULL, tape_real(tape), 3, window);
  CHECK(!in.window_in || (tensor_same_shape(in.window_in, &window_shape) && in.window_in->dtype == tape_real(tape)),
        "window_in %s %s, expected %s %s", dtype_name(in.window_in->dtype), tensor_shape_text(in.window_in),
        dtype_name(tape_real(tape)), tensor_shape_text(&window_shape));
  CHECK(!in.y || tensor_same_shape(in.y, in.x), "y %s for x %s", tensor_shape_text(in.y), tensor_shape_text(in.x));

  if (!in.y) in.y = tape_tensor(tape, tape->act, in.x->dim[0], n_c);
  if (want_state && !in.window_out) in.window_out = tensor_new(&tape->device->step, tape_real(tape), 3, window);
  tape->device->flops += flops(&in);
  conv1d_fwd(tape->device, &in);

  bool needs_grad = tape->recording && (in.x->needs_grad || in.w->needs_grad || (in.bias && in.bias->needs_grad) ||
                                        (in.window_in && in.window_in->needs_grad));
  tape_mark_output(in.y, needs_grad);
  tape_mark_output(in.window_out, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, in);
  return in;
}
