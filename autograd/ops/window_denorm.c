/* window_denorm: builder and backward rule (WindowDenorm in tensor/kernels.h). Saves the windows' means and standard
 * deviations. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  WindowDenorm *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dx = tape_grad(tape, p->x);
  p->dlinear = tape_grad(tape, p->linear);
  p->dcycle = tape_grad(tape, p->cycle);
  p->dkeep = tape_grad(tape, p->keep);
  window_denorm_bwd(tape->device, p);
}

Tensor *op_window_denorm(Tape *tape, WindowDenorm p) {
  const int64_t n_seq = p.mean->dim[0], n_c = p.mean->dim[1];
  const int64_t n_rows = p.row_per_series ? n_seq * p.n_out : n_seq;
  const int64_t n_all = n_seq * p.horizon * p.n_out * p.n_q;
  CHECK(p.n_q >= 1 && p.n_q <= MAX_QUANTILES, "%d quantiles", p.n_q);
  CHECK(p.x->n_dim == 2 && p.x->dim[0] == n_rows && tensor_count(p.x) == n_all,
        "forecast %s of %lld sequences, horizon %d, %d outputs, %d quantiles", tensor_shape_text(p.x), (long long)n_seq,
        p.horizon, p.n_out, p.n_q);
  CHECK(!p.linear || (p.linear->dim[0] == n_rows && tensor_count(p.linear) == n_all), "linear forecast %s beside %s",
        tensor_shape_text(p.linear), tensor_shape_text(p.x));
  CHECK(p.first >= 0 && p.first + p.n_out <= n_c, "outputs %d + %d of %lld columns", p.first, p.n_out, (long long)n_c);
  CHECK(!p.cycle || (p.cycle->dim[1] == n_c && p.phase), "cycle %s of %lld columns", tensor_shape_text(p.cycle),
        (long long)n_c);
  CHECK(!p.keep || tensor_count(p.keep) == p.horizon, "keep %s of horizon %d", tensor_shape_text(p.keep), p.horizon);
  p.y = tape_tensor(tape, tape_real(tape), n_seq, n_all / n_seq);
  window_denorm_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && (p.x->needs_grad || (p.linear && p.linear->needs_grad) ||
                                              (p.cycle && p.cycle->needs_grad) || (p.keep && p.keep->needs_grad));
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
