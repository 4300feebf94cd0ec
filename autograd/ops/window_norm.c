/* window_norm: builder and backward rule (WindowNorm in tensor/kernels.h). Saves nothing: only the cycle, which is
 * subtracted, has a gradient. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  WindowNorm *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dcycle = tape_grad(tape, p->cycle);
  window_norm_bwd(tape->device, p);
}

WindowNorm op_window_norm(Tape *tape, WindowNorm p) {
  const Dtype real = tape_real(tape);
  const Tensor *x = p.x;
  CHECK(x->n_dim == 2 && x->dtype == real && tensor_contiguous(x) && !x->needs_grad, "windows %s %s, expected %s data",
        dtype_name(x->dtype), tensor_shape_text(x), dtype_name(real));
  CHECK(p.length > 0 && x->dim[0] % p.length == 0, "windows of %lld rows, x %s", (long long)p.length,
        tensor_shape_text(x));
  CHECK(p.n_past > 0 && p.n_past <= p.length, "%lld of %lld rows have values", (long long)p.n_past,
        (long long)p.length);
  const int64_t n_seq = x->dim[0] / p.length;
  CHECK(p.n_c > 0 && p.n_c <= x->dim[1], "%d columns of %s", p.n_c, tensor_shape_text(x));
  CHECK(!p.cycle || (p.cycle->n_dim == 2 && p.cycle->dim[1] == p.n_c && p.cycle->dtype == real),
        "cycle %s of %d columns", tensor_shape_text(p.cycle), p.n_c);
  CHECK(!p.cycle || (p.phase && p.phase->dtype == I32 && tensor_count(p.phase) == n_seq), "%lld windows have no phase",
        (long long)n_seq);
  p.y = tape_tensor(tape, real, x->dim[0], x->dim[1]);
  p.mean = tape_tensor(tape, real, n_seq, p.n_c);
  p.std = tape_tensor(tape, real, n_seq, p.n_c);
  window_norm_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && p.cycle && p.cycle->needs_grad;
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p;
}
