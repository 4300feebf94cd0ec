/* Gradient check of ssd_scan: both models, every option, edge lengths, packed sequences, states in and out. x, B, C and
 * angle are columns of one projection and y is a view, as in a model. */
#include "tests/support/gradcheck.h"

#include <stdio.h>

enum { MAX_SEQ = 4, CHUNK = 4 };

typedef struct ScanOptions {
  int n_h, n_p, n_n, n_g, n_r, n_s;
  bool mamba3, halves, D_has_hdim, state_in, state_out;
  double decay; /* mean of a */
  int lengths[MAX_SEQ];
} ScanOptions;

enum Input { PROJ, DT, A, LAMBDA, D, B_NORM, C_NORM, B_BIAS, C_BIAS, MIMO_X, SSM, ANGLE, K, V, CU_SEQLENS, N_INPUTS };

static int build(Tape *tape, Tensor **inputs, const void *options, Tensor **outputs) {
  const ScanOptions *o = options;
  Arena *arena = &tape->device->step;
  int64_t n_x = o->n_h * o->n_p, n_B = o->n_r * o->n_g * o->n_n, n_y = o->n_r * n_x;
  SsdScan in = {.n_h = o->n_h, .n_p = o->n_p, .n_n = o->n_n, .n_g = o->n_g, .n_r = o->n_r, .n_s = o->n_s};
  in.chunk_size = CHUNK, in.rotate_halves = o->halves, in.norm_eps = 1e-5, in.cu_seqlens = inputs[CU_SEQLENS];
  in.x = tensor_cols(arena, inputs[PROJ], 0, n_x);
  in.B = tensor_cols(arena, inputs[PROJ], n_x, n_B);
  in.C = tensor_cols(arena, inputs[PROJ], n_x + n_B, n_B);
  if (o->n_s > 0) in.angle = tensor_cols(arena, inputs[PROJ], n_x + 2 * n_B, o->n_s);
  in.dt = inputs[DT], in.a = inputs[A], in.lambda = inputs[LAMBDA], in.D = inputs[D];
  in.B_norm = inputs[B_NORM], in.C_norm = inputs[C_NORM], in.B_bias = inputs[B_BIAS], in.C_bias = inputs[C_BIAS];
  in.mimo_x = inputs[MIMO_X];
  in.ssm_in = inputs[SSM], in.angle_in = inputs[ANGLE], in.k_in = inputs[K], in.v_in = inputs[V];
  in.y = tensor_cols(arena, tape_tensor(tape, tape->act, in.x->dim[0], n_y + 3), 2, n_y);
  SsdScan out = op_ssd_scan(tape, in, o->state_out);
  Tensor *all[] = {out.y, out.ssm_out, out.angle_out, out.k_out, out.v_out};
  int n = 0;
  for (int i = 0; i < 5; i++)
    if (all[i]) outputs[n++] = all[i];
  return n;
}

static Tensor *randn(int64_t d0, int64_t d1, int64_t d2, int64_t d3, double mean, double std, uint64_t seed) {
  const int64_t dim[] = {d0, d1, d2, d3};
  int n_dim = 0;
  while (n_dim < 4 && dim[n_dim] > 0) n_dim++;
  return gradcheck_randn(n_dim, dim, mean, std, seed);
}

static void run(const char *what, ScanOptions o) {
  int32_t starts[MAX_SEQ + 1] = {0};
  int n_seq = 0;
  for (; n_seq < MAX_SEQ && o.lengths[n_seq] > 0; n_seq++) starts[n_seq + 1] = starts[n_seq] + o.lengths[n_seq];
  int64_t n_t = starts[n_seq], width = o.n_h * o.n_p + 2 * o.n_r * o.n_g * o.n_n + o.n_s;
  Tensor *inputs[N_INPUTS] = {
      [PROJ] = randn(n_t, width, 0, 0, 0, 1, 11),
      [DT] = randn(n_t, o.n_h, 0, 0, 0.6, 0.15, 12),
      [A] = randn(n_t, o.n_h, 0, 0, o.decay, -0.2 * o.decay, 13),
      [D] = randn(o.D_has_hdim ? o.n_h * o.n_p : o.n_h, 0, 0, 0, 1, 0.3, 14),
      [CU_SEQLENS] = gradcheck_ints(n_seq + 1, starts),
  };
  if (o.mamba3) {
    inputs[LAMBDA] = randn(n_t, o.n_h, 0, 0, 0.5, 0.15, 15);
    inputs[B_NORM] = randn(o.n_n, 0, 0, 0, 1, 0.2, 16);
    inputs[C_NORM] = randn(o.n_n, 0, 0, 0, 1, 0.2, 17);
    inputs[B_BIAS] = randn(o.n_h, o.n_r, o.n_n, 0, 1, 0.3, 18);
    inputs[C_BIAS] = randn(o.n_h, o.n_r, o.n_n, 0, 1, 0.3, 19);
    if (o.halves) inputs[MIMO_X] = randn(o.n_h, o.n_r, o.n_p, 0, 1, 0.3, 20);
  }
  if (o.state_in) {
    inputs[SSM] = randn(n_seq, o.n_h, o.n_p, o.n_n, 0, 1, 21);
    if (o.n_s > 0) inputs[ANGLE] = randn(n_seq, o.n_h, o.n_s, 0, 3, 1, 22);
    if (o.mamba3) inputs[K] = randn(n_seq, o.n_r, o.n_h, o.n_n, 0, 1, 23);
    if (o.mamba3) inputs[V] = randn(n_seq, o.n_h, o.n_p, 0, 0, 1, 24);
  }
  /* k, q and y are rounded, and along a chain of two or three products each factor; gradients of angles are what is left of
   * sums that nearly cancel, because turning all k and q of a tile together changes little: five times that */
  GradCase c = {.build = build,
                .options = &o,
                .inputs = inputs,
                .n_inputs = N_INPUTS,
                .acts = 1u << PROJ,
                .bf16_roundings = o.n_s > 0 ? 25 : 5,
                .max_entries = 40};
  snprintf(c.name, sizeof c.name, "ssd_scan %s: H%d P%d N%d G%d R%d S%d%s%s%s%s a=%g, %lld tokens in %d", what, o.n_h,
           o.n_p, o.n_n, o.n_g, o.n_r, o.n_s, o.halves ? " halves" : "", o.D_has_hdim ? " D_has_hdim" : "",
           o.state_in ? " state in" : "", o.state_out ? " state out" : "", o.decay, (long long)n_t, n_seq);
  gradcheck_run(&c);
}

static const ScanOptions MAMBA2 = {.n_h = 4, .n_p = 3, .n_n = 4, .n_g = 1, .n_r = 1, .decay = -0.4, .lengths = {9}};
static const ScanOptions SISO = {
    .n_h = 4, .n_p = 3, .n_n = 8, .n_g = 1, .n_r = 1, .n_s = 2, .mamba3 = true, .decay = -0.4, .lengths = {9}};

static void check_lengths_and_states(const char *what, ScanOptions o) {
  static const int LENGTHS[] = {1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 2};
  for (size_t i = 0; i < sizeof LENGTHS / sizeof LENGTHS[0]; i++)
    for (int states = 0; states < 4; states++) {
      o.lengths[0] = LENGTHS[i], o.state_in = states & 1, o.state_out = states & 2;
      run(what, o);
    }
}

static void check_packed(const char *what, ScanOptions o) {
  static const int PACKED[][MAX_SEQ] = {{1, 1, 1}, {3, 1, 6}, {1, 5, 1, 4}, {9, 2}};
  for (size_t i = 0; i < sizeof PACKED / sizeof PACKED[0]; i++)
    for (int states = 0; states < 2; states++) {
      memcpy(o.lengths, PACKED[i], sizeof o.lengths);
      o.state_in = o.state_out = states;
      run(what, o);
    }
}

static void check_options(const char *what, ScanOptions o) {
  static const int GROUPS[] = {1, 2, 4};
  static const double DECAYS[] = {-1e-4, -0.4, -3};
  for (int g = 0; g < 3; g++) {
    o.n_g = GROUPS[g];
    for (int d = 0; d < 3; d++) {
      o.decay = DECAYS[d], o.D_has_hdim = d == 1, o.state_in = o.state_out = d != 1;
      run(what, o);
    }
  }
}

void gradcheck_ssd_scan(void) {
  check_lengths_and_states("Mamba-2", MAMBA2);
  check_packed("Mamba-2", MAMBA2);
  check_options("Mamba-2", MAMBA2);

  check_lengths_and_states("Mamba-3", SISO);
  check_packed("Mamba-3", SISO);
  check_options("Mamba-3", SISO);
  ScanOptions o = SISO;
  o.n_s = 4; /* rope_fraction 1 */
  check_options("Mamba-3, all of N rotated", o);
  o.n_s = 0;
  check_options("Mamba-3, not rotated", o);

  /* more heads a group than backward has parts for: some parts sum over two heads */
  o = SISO;
  o.n_h = 12, o.state_in = o.state_out = true;
  memcpy(o.lengths, (const int[]){2, 5, 1, 3}, sizeof o.lengths);
  run("Mamba-3, many heads", o);

  static const int RANKS[] = {1, 2, 4};
  for (int r = 0; r < 3; r++)
    for (int n_s = 2; n_s <= 4; n_s += 2) {
      o = SISO;
      o.halves = true, o.n_r = RANKS[r], o.n_s = n_s;
      check_packed("Mamba-3 MIMO", o);
      check_options("Mamba-3 MIMO", o);
      if (r == 1) check_lengths_and_states("Mamba-3 MIMO", o);
    }
}
