/* mamba3: the Mamba-3 mixer, SISO and MIMO (specification, section 2.2; Lahoti et al. 2026).
 *
 *   in_proj -> [z | x | B | C | dd_dt | dd_A | trap | angle];  dt, a, lambda from dd_dt, dd_A, trap;
 *   y = scan(x, B, C, dt, a, lambda, angle);  out_proj(gate(y, z))
 * There is no convolution. B and C are rank-major (R, G, N); their norm, bias and rotation belong to the scan. */
#include <math.h>

#include "nn/mixer.h"

#define NORM_EPS 1e-5

void mamba3_init(Mamba3 *m, ParamTable *params, const char *prefix, const MixerConfig *c, int n_layer) {
  const int64_t n_e = mixer_d_inner(c), n_h = mixer_nheads(c), n_r = mixer_rank(c), n_n = c->d_state;
  const int64_t n_proj = 2 * n_e + 2 * n_r * c->ngroups * n_n + 3 * n_h + mixer_n_angles(c);
  const int64_t bias_dim[] = {n_h, n_r, n_n}, rank_dim[] = {n_h, n_r, c->headdim};
  *m = (Mamba3){.config = *c};
  m->dt_bias = params_add_real(params, prefix, "dt_bias", 1, &n_h,
                               (Init){.kind = INIT_DT_BIAS, .a = c->dt_min, .b = c->dt_max, .c = c->dt_init_floor});
  m->B_bias = params_add_real(params, prefix, "B_bias", 3, bias_dim, INIT_VALUE(1));
  m->C_bias = params_add_real(params, prefix, "C_bias", 3, bias_dim, INIT_VALUE(1));
  if (c->is_mimo) {
    m->mimo_x = params_add_real(params, prefix, "mimo_x", 3, rank_dim, INIT_VALUE(1.0 / (double)n_r));
    m->mimo_z = params_add_real(params, prefix, "mimo_z", 3, rank_dim, INIT_VALUE(1));
    m->mimo_o = params_add_real(params, prefix, "mimo_o", 3, rank_dim, INIT_VALUE(1.0 / (double)n_r));
  }
  m->D = params_add_real(params, prefix, "D", 1, &n_h, INIT_VALUE(1));
  m->in_proj = params_add_linear(params, prefix, "in_proj.weight", n_proj, c->d_model, 1);
  m->B_norm = params_add_vector(params, prefix, "B_norm.weight", n_n, INIT_VALUE(1));
  m->C_norm = params_add_vector(params, prefix, "C_norm.weight", n_n, INIT_VALUE(1));
  if (c->is_outproj_norm) m->norm = params_add_vector(params, prefix, "norm.weight", n_e, INIT_VALUE(1));
  m->out_proj = params_add_linear(params, prefix, "out_proj.weight", c->d_model, n_e, sqrt(n_layer));
  m->init_states = mixer_add_init_states(params, prefix, c);
}

/* What the scan and the step share: what each part is told, but what goes from part to part, and the state. */
static SsmStep parts_of(const Mamba3 *m, Arena *arena, Tensor *proj) {
  const MixerConfig *c = &m->config;
  const int64_t n_e = mixer_d_inner(c), n_h = mixer_nheads(c), n_s = mixer_n_angles(c);
  const int64_t n_bc = (int64_t)mixer_rank(c) * c->ngroups * c->d_state, scalars = 2 * n_e + 2 * n_bc;
  return (SsmStep){.dt = {.A_softplus = c->A_softplus,
                          .A_floor = c->A_floor,
                          .dt_raw = tensor_cols(arena, proj, scalars, n_h),
                          .dt_bias = m->dt_bias,
                          .A_raw = tensor_cols(arena, proj, scalars + n_h, n_h),
                          .trap = tensor_cols(arena, proj, scalars + 2 * n_h, n_h)},
                   .scan = {.n_h = (int)n_h,
                            .n_p = c->headdim,
                            .n_n = c->d_state,
                            .n_g = c->ngroups,
                            .n_r = mixer_rank(c),
                            .n_s = (int)n_s,
                            .chunk_size = c->chunk_size,
                            .rotate_halves = c->is_mimo,
                            .norm_eps = NORM_EPS,
                            .x = tensor_cols(arena, proj, n_e, n_e),
                            .B = tensor_cols(arena, proj, 2 * n_e, n_bc),
                            .C = tensor_cols(arena, proj, 2 * n_e + n_bc, n_bc),
                            .D = m->D,
                            .B_norm = m->B_norm,
                            .C_norm = m->C_norm,
                            .B_bias = m->B_bias,
                            .C_bias = m->C_bias,
                            .angle = n_s > 0 ? tensor_cols(arena, proj, scalars + 3 * n_h, n_s) : NULL,
                            .mimo_x = m->mimo_x},
                   .gate = {.norm = c->is_outproj_norm ? GATE_NORM_BEFORE : GATE_NORM_NONE,
                            .n_r = mixer_rank(c),
                            .n_h = (int)n_h,
                            .n_p = c->headdim,
                            .group = c->headdim,
                            .eps = NORM_EPS,
                            .z = tensor_cols(arena, proj, 0, n_e),
                            .weight = m->norm,
                            .mimo_z = m->mimo_z,
                            .mimo_o = m->mimo_o}};
}

static void start_from(SsdScan *scan, const LayerState *state) {
  scan->ssm_in = state->ssm, scan->k_in = state->k, scan->v_in = state->v;
  if (scan->n_s > 0) scan->angle_in = state->angle;
}

Tensor *mamba3_mix(Mamba3 *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, const LayerState *state_in,
                   LayerState *state_out) {
  SsmStep part = parts_of(m, &tape->device->step, proj);
  part.dt = op_ssm_dt(tape, part.dt);
  part.scan.cu_seqlens = cu_seqlens;
  part.scan.dt = part.dt.dt, part.scan.a = part.dt.a, part.scan.lambda = part.dt.lambda;
  if (state_in) start_from(&part.scan, state_in);
  part.scan.ssm_in = mixer_start(tape, m->init_states, cu_seqlens, state_in);
  part.scan = op_ssd_scan(tape, part.scan, state_out != NULL);
  const SsdScan *end = &part.scan;
  if (state_out)
    *state_out = (LayerState){.ssm = end->ssm_out, .angle = end->angle_out, .k = end->k_out, .v = end->v_out};
  part.gate.x = part.scan.y;
  return op_gated_norm(tape, part.gate).out;
}

Tensor *mamba3_step(Mamba3 *m, Tape *tape, Tensor *proj, LayerState *state) {
  SsmStep step = parts_of(m, &tape->device->step, proj);
  start_from(&step.scan, state);
  return op_ssm_step(tape, step).gate.out;
}
