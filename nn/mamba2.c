/* mamba2: the Mamba-2 mixer (specification, section 2.1; Dao & Gu 2024).
 *
 *   in_proj -> [z0 | x0 | z | xBC | dt];  xBC <- silu(conv1d(xBC));  y = scan(x, B, C, dt, a);
 *   out_proj([silu(z0) x0 | gated_norm(y, z)])
 * z0 and x0 exist where d_ssm is smaller than d_inner. All parts are column views; nothing is copied. */
#include <math.h>

#include "nn/mixer.h"

#define NORM_EPS 1e-5

void mamba2_init(Mamba2 *m, ParamTable *params, const char *prefix, const MixerConfig *c, int n_layer) {
  const int64_t n_e = mixer_d_inner(c), n_ssm = mixer_d_ssm(c), n_h = mixer_nheads(c);
  const int64_t n_bc = 2 * (int64_t)c->ngroups * c->d_state;
  const int64_t n_channels = n_ssm + n_bc, n_proj = 2 * n_e + n_bc + n_h, n_skip = c->D_has_hdim ? n_ssm : n_h;
  const Init tap = {.kind = INIT_UNIFORM, .a = 1.0 / sqrt(c->d_conv)};
  *m = (Mamba2){.config = *c};
  m->dt_bias = params_add_real(params, prefix, "dt_bias", 1, &n_h,
                               (Init){.kind = INIT_DT_BIAS, .a = c->dt_min, .b = c->dt_max, .c = c->dt_init_floor});
  m->A_log = params_add_real(params, prefix, "A_log", 1, &n_h,
                             (Init){.kind = INIT_LOG_UNIFORM_A, .a = c->A_init_range[0], .b = c->A_init_range[1]});
  m->D = params_add_real(params, prefix, "D", 1, &n_skip, INIT_VALUE(1));
  m->in_proj = params_add_linear(params, prefix, "in_proj.weight", n_proj, c->d_model, 1);
  if (c->bias) m->in_proj_bias = params_add_vector(params, prefix, "in_proj.bias", n_proj, INIT_VALUE(0));
  m->conv_w = params_add_conv(params, prefix, "conv1d.weight", n_channels, c->d_conv);
  if (c->conv_bias) m->conv_bias = params_add_vector(params, prefix, "conv1d.bias", n_channels, tap);
  if (c->rmsnorm) m->norm = params_add_vector(params, prefix, "norm.weight", n_ssm, INIT_VALUE(1));
  m->out_proj = params_add_linear(params, prefix, "out_proj.weight", c->d_model, n_e, sqrt(n_layer));
  if (c->bias) m->out_proj_bias = params_add_vector(params, prefix, "out_proj.bias", c->d_model, INIT_VALUE(0));
  m->init_states = mixer_add_init_states(params, prefix, c);
}

/* What the scan and the step share: what each part is told, but what goes from part to part, and the state. */
static SsmStep parts_of(const Mamba2 *m, Arena *arena, Tensor *proj) {
  const MixerConfig *c = &m->config;
  const int64_t n_ssm = mixer_d_ssm(c), n_mlp = mixer_d_inner(c) - n_ssm, n_h = mixer_nheads(c);
  const int64_t n_bc = 2 * (int64_t)c->ngroups * c->d_state, at = 2 * n_mlp;
  return (SsmStep){.conv = {.silu = true,
                            .x = tensor_cols(arena, proj, at + n_ssm, n_ssm + n_bc),
                            .w = m->conv_w,
                            .bias = m->conv_bias},
                   .dt = {.dt_min = c->dt_limit[0],
                          .dt_max = c->dt_limit[1],
                          .dt_raw = tensor_cols(arena, proj, at + 2 * n_ssm + n_bc, n_h),
                          .dt_bias = m->dt_bias,
                          .A_log = m->A_log},
                   .scan = {.n_h = (int)n_h,
                            .n_p = c->headdim,
                            .n_n = c->d_state,
                            .n_g = c->ngroups,
                            .n_r = 1,
                            .chunk_size = c->chunk_size,
                            .D = m->D},
                   .gate = {.norm = !c->rmsnorm           ? GATE_NORM_NONE
                                    : c->norm_before_gate ? GATE_NORM_BEFORE
                                                          : GATE_NORM_AFTER,
                            .n_r = 1,
                            .n_h = (int)n_h,
                            .n_p = c->headdim,
                            .group = (int)n_ssm / c->ngroups,
                            .eps = NORM_EPS,
                            .z = tensor_cols(arena, proj, at, n_ssm),
                            .weight = m->norm}};
}

/* [silu(z0) x0 | room for the gate's output, a view of it in *out]; NULL without that MLP. */
static Tensor *beside_mlp(const Mamba2 *m, Tape *tape, Tensor *proj, Tensor **out) {
  const int64_t n_e = mixer_d_inner(&m->config), n_mlp = n_e - mixer_d_ssm(&m->config);
  if (n_mlp == 0) return NULL;
  Arena *arena = &tape->device->step;
  Tensor *joined = tape_tensor(tape, tape->act, proj->dim[0], n_e);
  op_swiglu(tape, tensor_cols(arena, proj, n_mlp, n_mlp), tensor_cols(arena, proj, 0, n_mlp),
            tensor_cols(arena, joined, 0, n_mlp));
  *out = tensor_cols(arena, joined, n_mlp, n_e - n_mlp);
  return joined;
}

Tensor *mamba2_mix(Mamba2 *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, const LayerState *state_in,
                   LayerState *state_out) {
  const MixerConfig *c = &m->config;
  const int64_t n_ssm = mixer_d_ssm(c), n_gn = (int64_t)c->ngroups * c->d_state;
  const bool has_window = c->d_conv > 1;
  Arena *arena = &tape->device->step;
  SsmStep part = parts_of(m, arena, proj);

  part.conv.cu_seqlens = part.scan.cu_seqlens = cu_seqlens;
  part.conv.window_in = state_in && has_window ? state_in->conv : NULL;
  part.scan.ssm_in = mixer_start(tape, m->init_states, cu_seqlens, state_in);
  part.conv = op_conv1d(tape, part.conv, state_out && has_window);
  part.dt = op_ssm_dt(tape, part.dt);
  part.scan.x = tensor_cols(arena, part.conv.y, 0, n_ssm);
  part.scan.B = tensor_cols(arena, part.conv.y, n_ssm, n_gn);
  part.scan.C = tensor_cols(arena, part.conv.y, n_ssm + n_gn, n_gn);
  part.scan.dt = part.dt.dt, part.scan.a = part.dt.a;
  part.scan = op_ssd_scan(tape, part.scan, state_out != NULL);
  if (state_out) *state_out = (LayerState){.conv = part.conv.window_out, .ssm = part.scan.ssm_out};

  Tensor *joined = beside_mlp(m, tape, proj, &part.gate.out);
  part.gate.x = part.scan.y;
  part.gate = op_gated_norm(tape, part.gate);
  return joined ? joined : part.gate.out;
}

Tensor *mamba2_step(Mamba2 *m, Tape *tape, Tensor *proj, LayerState *state) {
  SsmStep step = parts_of(m, &tape->device->step, proj);
  step.conv.window_in = state->conv, step.scan.ssm_in = state->ssm;
  Tensor *joined = beside_mlp(m, tape, proj, &step.gate.out);
  step = op_ssm_step(tape, step);
  return joined ? joined : step.gate.out;
}
