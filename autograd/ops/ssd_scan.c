/* ssd_scan: builder and backward rule (SsdScan in tensor/kernels.h). Saves its inputs and the state entering each chunk. */
#include "autograd/ops.h"

/* Products of a token, head and rank, two FLOPs a multiply-add: v k^T into the state and the state q out of it (4 P N),
 * and the scores of its chunk times v (2 P COUNTED_CHUNK). Everybody is counted by chunks of 64, whatever chunk_size and
 * the kernel are, so that rates compare. Backward has twice as many (E k, E^T v, S^T dy, dy q^T; scores likewise); what is
 * recomputed is not counted. */
enum { COUNTED_CHUNK = 64 };
static double flops(const SsdScan *p) {
  return (double)p->x->dim[0] * p->n_h * p->n_r * p->n_p * (4.0 * p->n_n + 2.0 * COUNTED_CHUNK);
}

static void rule(Tape *tape, void *params) {
  SsdScan *p = params;
  p->dy = tape_arrived(tape, p->y);
  p->dssm_out = tape_arrived(tape, p->ssm_out);
  p->dangle_out = tape_arrived(tape, p->angle_out);
  p->dk_out = tape_arrived(tape, p->k_out);
  p->dv_out = tape_arrived(tape, p->v_out);
  if (!p->dy && !p->dssm_out && !p->dangle_out && !p->dk_out && !p->dv_out) return;
  p->dx = tape_grad_unset(tape, p->x);
  p->dB = tape_grad_unset(tape, p->B);
  p->dC = tape_grad_unset(tape, p->C);
  p->ddt = tape_grad(tape, p->dt);
  p->da = tape_grad(tape, p->a);
  p->dlambda = tape_grad(tape, p->lambda);
  p->dD = tape_grad(tape, p->D);
  p->dB_norm = tape_grad(tape, p->B_norm);
  p->dC_norm = tape_grad(tape, p->C_norm);
  p->dB_bias = tape_grad(tape, p->B_bias);
  p->dC_bias = tape_grad(tape, p->C_bias);
  p->dangle = tape_grad_unset(tape, p->angle);
  p->dmimo_x = tape_grad(tape, p->mimo_x);
  p->dssm_in = tape_grad(tape, p->ssm_in);
  p->dangle_in = tape_grad(tape, p->angle_in);
  p->dk_in = tape_grad(tape, p->k_in);
  p->dv_in = tape_grad(tape, p->v_in);
  tape->device->flops += 2 * flops(p);
  ssd_scan_bwd(tape->device, p);
  Tensor *const written[] = {p->dx, p->dB, p->dC, p->dangle};
  for (size_t i = 0; i < sizeof written / sizeof *written; i++) tape_grad_set(written[i]);
}

/* The tensors of one call beside what they must be; dimensions end at the first zero. */
typedef struct Expected {
  const char *name;
  Tensor *tensor;
  bool real;
  int64_t dim[TENSOR_MAX_DIM];
} Expected;

static void check_shapes(const Tape *tape, const SsdScan *p) {
  CHECK(p->n_h > 0 && p->n_p > 0 && p->n_n > 0 && p->n_r > 0 && p->chunk_size > 0, "sizes of a scan must be positive");
  CHECK(p->n_g > 0 && p->n_h % p->n_g == 0, "%d heads in %d groups", p->n_h, p->n_g);
  CHECK(p->n_s >= 0 && 2 * p->n_s <= p->n_n, "%d rotated pairs of a state of %d", p->n_s, p->n_n);
  CHECK(p->n_r == 1 || p->mimo_x, "rank %d without mimo_x", p->n_r);
  CHECK(!p->n_s == !p->angle, "%d rotated pairs, angle is %s", p->n_s, p->angle ? "given" : "missing");
  CHECK(!p->B_norm == !p->C_norm && !p->B_norm == !p->B_bias && !p->B_norm == !p->C_bias,
        "B_norm, C_norm, B_bias, C_bias come together");
  CHECK(!p->k_in == !p->v_in && (!p->k_in || p->lambda), "k_in and v_in come together, with lambda");
  int64_t n_t = p->x->dim[0], n_seq = p->cu_seqlens->dim[0] - 1, n_h = p->n_h, n_p = p->n_p, n_n = p->n_n, n_r = p->n_r;
  int64_t n_s = p->n_s, width = n_r * p->n_g * n_n, n_D = p->D->dim[0] == n_h ? n_h : n_h * n_p;
  const Expected expected[] = {{"x", p->x, false, {n_t, n_h * n_p}},
                               {"B", p->B, false, {n_t, width}},
                               {"C", p->C, false, {n_t, width}},
                               {"angle", p->angle, false, {n_t, n_s}},
                               {"y", p->y, false, {n_t, n_r * n_h * n_p}},
                               {"dt", p->dt, true, {n_t, n_h}},
                               {"a", p->a, true, {n_t, n_h}},
                               {"lambda", p->lambda, true, {n_t, n_h}},
                               {"D", p->D, true, {n_D}},
                               {"B_bias", p->B_bias, true, {n_h, n_r, n_n}},
                               {"C_bias", p->C_bias, true, {n_h, n_r, n_n}},
                               {"mimo_x", p->mimo_x, true, {n_h, n_r, n_p}},
                               {"ssm_in", p->ssm_in, true, {n_seq, n_h, n_p, n_n}},
                               {"angle_in", p->angle_in, true, {n_seq, n_h, n_s}},
                               {"k_in", p->k_in, true, {n_seq, n_r, n_h, n_n}},
                               {"v_in", p->v_in, true, {n_seq, n_h, n_p}}};
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
    const Expected *e = &expected[i];
    if (!e->tensor) continue;
    int n_dim = 0;
    while (n_dim < TENSOR_MAX_DIM && e->dim[n_dim] > 0) n_dim++;
    Dtype dtype = e->real ? tape_real(tape) : tape->act;
    Tensor want = tensor_over(NULL, dtype, n_dim, e->dim);
    CHECK(tensor_same_shape(e->tensor, &want) && e->tensor->dtype == dtype, "%s is %s %s, expected %s %s", e->name,
          dtype_name(e->tensor->dtype), tensor_shape_text(e->tensor), dtype_name(dtype), tensor_shape_text(&want));
  }
  CHECK(!p->B_norm || (tensor_count(p->B_norm) == n_n && tensor_count(p->C_norm) == n_n),
        "B_norm %s, C_norm %s for %lld", tensor_shape_text(p->B_norm), tensor_shape_text(p->C_norm), (long long)n_n);
}

static bool any_needs_grad(const SsdScan *p) {
  const Tensor *inputs[] = {p->x,      p->B,      p->C,        p->dt,     p->a,      p->lambda,
                            p->D,      p->B_norm, p->C_norm,   p->B_bias, p->C_bias, p->angle,
                            p->mimo_x, p->ssm_in, p->angle_in, p->k_in,   p->v_in};
  for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
    if (inputs[i] && inputs[i]->needs_grad) return true;
  return false;
}

SsdScan op_ssd_scan(Tape *tape, SsdScan in, bool want_state) {
  check_shapes(tape, &in);
  Arena *arena = &tape->device->step;
  Dtype real = tape_real(tape);
  int64_t n_t = in.x->dim[0], n_seq = in.cu_seqlens->dim[0] - 1;
  bool needs_grad = tape->recording && any_needs_grad(&in);
  if (!in.y) in.y = tape_tensor(tape, tape->act, n_t, (int64_t)in.n_r * in.n_h * in.n_p);
  if (want_state) {
    if (!in.ssm_out) in.ssm_out = tensor_new4(arena, real, n_seq, in.n_h, in.n_p, in.n_n);
    if (!in.angle_out && in.n_s > 0) in.angle_out = tensor_new3(arena, real, n_seq, in.n_h, in.n_s);
    if (!in.k_out && in.lambda) in.k_out = tensor_new4(arena, real, n_seq, in.n_r, in.n_h, in.n_n);
    if (!in.v_out && in.lambda) in.v_out = tensor_new3(arena, real, n_seq, in.n_h, in.n_p);
  }
  if (needs_grad) {
    int64_t n_chunks = ssd_scan_n_chunks(n_t, n_seq, in.chunk_size);
    in.chunk_states = tensor_new4(arena, real, n_chunks, in.n_h, in.n_p, in.n_n);
  }
  tape->device->flops += flops(&in);
  ssd_scan_fwd(tape->device, &in);

  Tensor *outputs[] = {in.y, in.ssm_out, in.angle_out, in.k_out, in.v_out};
  for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) tape_mark_output(outputs[i], needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, in);
  return in;
}
