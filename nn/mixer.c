/* mixer: see mixer.h. Defaults are the canonical package's; what a config must satisfy follows from the shapes of the
 * specification, sections 0 and 2. */
#include "nn/mixer.h"

#include <math.h>

MixerConfig mixer_config_default(LayerKind layer) {
  return (MixerConfig){
      .layer = layer,
      .d_state = 128,
      .expand = 2,
      .headdim = 64,
      .ngroups = 1,
      .chunk_size = layer == LAYER_MAMBA2 ? 256 : 64,
      .dt_min = 1e-3,
      .dt_max = 1e-1,
      .dt_init_floor = 1e-4,
      .d_conv = 4,
      .rmsnorm = true,
      .conv_bias = true,
      .dt_limit = {0.0, INFINITY},
      .A_init_range = {1.0, 16.0},
      .rope_fraction = 0.5,
      .A_floor = 1e-4,
      .mimo_rank = 4,
  };
}

AttnConfig attn_config_default(void) {
  return (AttnConfig){.rotary_emb_base = 10000.0, .qkv_proj_bias = true, .out_proj_bias = true};
}

int mixer_n_angles(const MixerConfig *c) {
  int width = (int)(c->d_state * c->rope_fraction);
  return width / 2;
}

/* The first size below 1, of those every mixer has. */
static char *size_problem(const MixerConfig *c) {
  const struct {
    const char *key;
    int value;
  } sizes[] = {{"d_model", c->d_model},         {"ssm_cfg.d_state", c->d_state},
               {"ssm_cfg.expand", c->expand},   {"ssm_cfg.headdim", c->headdim},
               {"ssm_cfg.ngroups", c->ngroups}, {"ssm_cfg.chunk_size", c->chunk_size},
               {"ssm_cfg.d_conv", c->d_conv},   {"ssm_cfg.mimo_rank", c->mimo_rank}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i].value < 1) return base_format("%s: found %d, expected at least 1", sizes[i].key, sizes[i].value);
  return NULL;
}

static char *mamba2_problem(const MixerConfig *c) {
  if (c->d_ssm < 0 || c->d_ssm > mixer_d_inner(c))
    return base_format("ssm_cfg.d_ssm: found %d, expected 1 to expand * d_model = %d, or null for all of it", c->d_ssm,
                       mixer_d_inner(c));
  if (!(c->dt_limit[0] >= 0 && c->dt_limit[0] <= c->dt_limit[1]))
    return base_format("ssm_cfg.dt_limit: found [%g, %g], expected 0 <= lower <= upper", c->dt_limit[0],
                       c->dt_limit[1]);
  if (!(c->A_init_range[0] > 0 && c->A_init_range[0] <= c->A_init_range[1] && isfinite(c->A_init_range[1])))
    return base_format("ssm_cfg.A_init_range: found [%g, %g], expected 0 < lower <= upper", c->A_init_range[0],
                       c->A_init_range[1]);
  return NULL;
}

static char *mamba3_problem(const MixerConfig *c) {
  if (!(c->rope_fraction >= 0 && c->rope_fraction <= 1))
    return base_format("ssm_cfg.rope_fraction: found %g, expected 0 to 1 (published models: 0.5 or 1.0)",
                       c->rope_fraction);
  if (!(c->A_floor >= 0 && isfinite(c->A_floor)))
    return base_format("ssm_cfg.A_floor: found %g, expected 0 or more", c->A_floor);
  return NULL;
}

char *mixer_config_problem(const MixerConfig *c) {
  char *problem = size_problem(c);
  if (problem) return problem;
  problem = c->layer == LAYER_MAMBA2 ? mamba2_problem(c) : mamba3_problem(c);
  if (problem) return problem;
  if (mixer_d_ssm(c) % c->headdim != 0)
    return base_format("ssm_cfg.headdim: found %d, expected a divisor of the inner width %d", c->headdim,
                       mixer_d_ssm(c));
  if (mixer_nheads(c) % c->ngroups != 0)
    return base_format("ssm_cfg.ngroups: found %d, expected a divisor of the %d heads", c->ngroups, mixer_nheads(c));
  if (!(c->dt_min > 0 && c->dt_min <= c->dt_max && isfinite(c->dt_max)))
    return base_format("ssm_cfg.dt_min: found %g with dt_max %g, expected 0 < dt_min <= dt_max", c->dt_min, c->dt_max);
  if (!(c->dt_init_floor > 0 && isfinite(c->dt_init_floor)))
    return base_format("ssm_cfg.dt_init_floor: found %g, expected more than 0", c->dt_init_floor);
  return NULL;
}

char *attn_config_problem(const AttnConfig *c, int d_model) {
  if (c->num_heads < 1)
    return base_format("attn_cfg.num_heads: found %d, expected at least 1 (attn_layer_idx names attention layers)",
                       c->num_heads);
  if (c->num_heads_kv < 0 || (c->num_heads_kv > 0 && c->num_heads % c->num_heads_kv != 0))
    return base_format("attn_cfg.num_heads_kv: found %d, expected a divisor of num_heads = %d", c->num_heads_kv,
                       c->num_heads);
  if (c->head_dim < 0) return base_format("attn_cfg.head_dim: found %d, expected at least 1", c->head_dim);
  if (c->head_dim == 0 && d_model % c->num_heads != 0)
    return base_format("attn_cfg.num_heads: found %d, expected a divisor of d_model = %d, or head_dim to be set",
                       c->num_heads, d_model);
  int head_dim = c->head_dim ? c->head_dim : d_model / c->num_heads;
  if (c->rotary_emb_dim < 0 || c->rotary_emb_dim > head_dim || c->rotary_emb_dim % 2 != 0)
    return base_format("attn_cfg.rotary_emb_dim: found %d, expected an even number up to head_dim = %d",
                       c->rotary_emb_dim, head_dim);
  if (!(c->rotary_emb_base > 0 && isfinite(c->rotary_emb_base)))
    return base_format("attn_cfg.rotary_emb_base: found %g, expected more than 0", c->rotary_emb_base);
  if (!(c->softmax_scale >= 0 && isfinite(c->softmax_scale)))
    return base_format("attn_cfg.softmax_scale: found %g, expected more than 0, or null", c->softmax_scale);
  if (c->d_conv < 0) return base_format("attn_cfg.d_conv: found %d, expected 0 or more", c->d_conv);
  return NULL;
}

Tensor *mixer_mix(Mixer *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, const LayerState *state_in,
                  LayerState *state_out) {
  switch (m->kind) {
  case LAYER_MAMBA2: return mamba2_mix(&m->mamba2, tape, proj, cu_seqlens, state_in, state_out);
  case LAYER_MAMBA3: return mamba3_mix(&m->mamba3, tape, proj, cu_seqlens, state_in, state_out);
  case LAYER_ATTENTION: return attention_mix(&m->attention, tape, proj, cu_seqlens, state_in, state_out);
  case LAYER_IDENTITY: break;
  }
  CHECK(false, "layer kind %d", (int)m->kind);
}

Tensor *mixer_step(Mixer *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, LayerState *state) {
  switch (m->kind) {
  case LAYER_MAMBA2: return mamba2_step(&m->mamba2, tape, proj, state);
  case LAYER_MAMBA3: return mamba3_step(&m->mamba3, tape, proj, state);
  case LAYER_ATTENTION: return attention_step(&m->attention, tape, proj, cu_seqlens, state);
  case LAYER_IDENTITY: break;
  }
  CHECK(false, "layer kind %d", (int)m->kind);
}

Tensor *mixer_add_init_states(ParamTable *params, const char *prefix, const MixerConfig *c) {
  const int64_t dim[] = {mixer_nheads(c), c->headdim, c->d_state};
  return c->learnable_init_states ? params_add_real(params, prefix, "init_states", 3, dim, INIT_VALUE(0)) : NULL;
}

const Tensor *mixer_init_states(const Mixer *m) {
  if (m->kind == LAYER_MAMBA2) return m->mamba2.init_states;
  return m->kind == LAYER_MAMBA3 ? m->mamba3.init_states : NULL;
}

Tensor *mixer_start(Tape *tape, Tensor *init_states, Tensor *cu_seqlens, const LayerState *state_in) {
  if (!init_states || (state_in && !state_in->starts)) return state_in ? state_in->ssm : NULL;
  if (state_in) return op_gather_or(tape, init_states, state_in->starts, state_in->ssm);
  const int64_t n_seq = cu_seqlens->dim[0] - 1, *dim = init_states->dim;
  Tensor *first = tensor_new1(&tape->device->step, I32, n_seq);
  device_zero(tape->device, first);
  Tensor *start = op_gather(tape, init_states, first, tensor_count(init_states), n_seq * dim[0] * dim[1], dim[2]);
  tensor_reshape(start, 4, (const int64_t[]){n_seq, dim[0], dim[1], dim[2]});
  return start;
}

MixerProducts mixer_products(const Mixer *m) {
  switch (m->kind) {
  case LAYER_MAMBA2:
    return (MixerProducts){m->mamba2.in_proj, m->mamba2.in_proj_bias, m->mamba2.out_proj, m->mamba2.out_proj_bias};
  case LAYER_MAMBA3: return (MixerProducts){.in_proj = m->mamba3.in_proj, .out_proj = m->mamba3.out_proj};
  case LAYER_ATTENTION:
    return (MixerProducts){m->attention.in_proj, m->attention.in_proj_bias, m->attention.out_proj,
                           m->attention.out_proj_bias};
  case LAYER_IDENTITY: return (MixerProducts){0};
  }
  CHECK(false, "layer kind %d", (int)m->kind);
}

Tensor *mixer_forward(Mixer *m, Tape *tape, Tensor *x, Tensor *cu_seqlens, const LayerState *state_in,
                      LayerState *state_out) {
  const MixerProducts p = mixer_products(m);
  if (!p.in_proj) return x;
  Tensor *proj = op_linear(tape, x, p.in_proj, p.in_proj_bias, tape->act);
  Tensor *mixed = mixer_mix(m, tape, proj, cu_seqlens, state_in, state_out);
  return op_linear(tape, mixed, p.out_proj, p.out_proj_bias, tape->act);
}

/* One field, zero; NULL where it would have no elements. */
static Tensor *field_new(Device *device, Arena *arena, Dtype real, int n_dim, const int64_t *dim) {
  for (int i = 0; i < n_dim; i++)
    if (dim[i] == 0) return NULL;
  Tensor *field = tensor_new(arena, real, n_dim, dim);
  if (device) device_zero(device, field);
  else if (arena->memory) tensor_zero(field); /* a dry arena's tensors must not be touched */
  return field;
}
#define FIELD(...)                                                                                                     \
  field_new(device, arena, real, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]){__VA_ARGS__})

static LayerState attention_zero_state(const AttnConfig *c, Device *device, Arena *arena, Dtype real, int64_t n_seq,
                                       int64_t room, Tensor *length) {
  const int64_t n_kv = (int64_t)c->num_heads_kv * c->head_dim, n_qkv = (int64_t)c->num_heads * c->head_dim + 2 * n_kv;
  return (LayerState){.conv = FIELD(n_seq, n_qkv, max_i64(0, c->d_conv - 1)),
                      .key = FIELD(n_seq, room, n_kv),
                      .value = FIELD(n_seq, room, n_kv),
                      .length = length};
}

LayerState mixer_zero_state(const Mixer *m, Device *device, Arena *arena, Dtype real, int64_t n_seq, int64_t room,
                            Tensor *length) {
  if (m->kind == LAYER_IDENTITY) return (LayerState){0};
  if (m->kind == LAYER_ATTENTION)
    return attention_zero_state(&m->attention.config, device, arena, real, n_seq, room, length);
  const MixerConfig *c = m->kind == LAYER_MAMBA2 ? &m->mamba2.config : &m->mamba3.config;
  const int64_t n_h = mixer_nheads(c), n_p = c->headdim, n_n = c->d_state;
  LayerState state = {.ssm = FIELD(n_seq, n_h, n_p, n_n)};
  if (m->kind == LAYER_MAMBA2) {
    state.conv = FIELD(n_seq, mixer_d_ssm(c) + 2 * c->ngroups * n_n, c->d_conv - 1);
  } else {
    state.angle = FIELD(n_seq, n_h, mixer_n_angles(c));
    state.k = FIELD(n_seq, mixer_rank(c), n_h, n_n);
    state.v = FIELD(n_seq, n_h, n_p);
  }
  return state;
}
