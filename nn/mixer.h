/* mixer: the options and the state of one layer's mixer (Mamba-2, Mamba-3, attention) and the call they share.
 * Options carry the canonical package's names; defaults are in mixer_config_default. */
#pragma once

#include "autograd/ops.h"
#include "nn/params.h"

/* LAYER_IDENTITY passes its input on: what is left when the mixer is taken out (model.ablate). */
typedef enum LayerKind { LAYER_MAMBA2, LAYER_MAMBA3, LAYER_ATTENTION, LAYER_IDENTITY } LayerKind;

typedef struct MixerConfig { /* ssm_cfg */
  LayerKind layer;           /* LAYER_MAMBA2 or LAYER_MAMBA3 */
  int d_model, d_state, expand, headdim, ngroups, chunk_size;
  double dt_min, dt_max, dt_init_floor; /* initialisation of dt_bias */
  /* Mamba-2 only */
  int d_conv;
  int d_ssm; /* 0: d_inner */
  bool D_has_hdim, rmsnorm, norm_before_gate, bias, conv_bias;
  double dt_limit[2]; /* upper end may be infinite */
  double A_init_range[2];
  /* Mamba-3 only */
  double rope_fraction, A_floor;
  bool A_softplus; /* A_activation: heavy_tail (false) or softplus */
  bool is_outproj_norm, is_mimo;
  int mimo_rank;
  bool learnable_init_states; /* sequences start from a state that is trained (the canonical package: Mamba-2 only) */
} MixerConfig;

typedef struct AttnConfig {              /* attn_cfg */
  int num_heads, num_heads_kv, head_dim; /* kv 0: num_heads; head_dim 0: d_model / num_heads */
  int rotary_emb_dim;
  double rotary_emb_base;
  bool rotary_emb_interleaved;
  double softmax_scale; /* 0: 1/sqrt(head_dim) */
  int d_conv;           /* 0: none */
  bool qkv_proj_bias, out_proj_bias;
} AttnConfig;

MixerConfig mixer_config_default(LayerKind layer);
AttnConfig attn_config_default(void);

/* Derived sizes (spec 0). */
static inline int mixer_d_inner(const MixerConfig *c) { return c->expand * c->d_model; }
static inline int mixer_d_ssm(const MixerConfig *c) {
  return c->layer == LAYER_MAMBA2 && c->d_ssm > 0 ? c->d_ssm : mixer_d_inner(c);
}
static inline int mixer_nheads(const MixerConfig *c) { return mixer_d_ssm(c) / c->headdim; }
static inline int mixer_rank(const MixerConfig *c) { return c->layer == LAYER_MAMBA3 && c->is_mimo ? c->mimo_rank : 1; }
int mixer_n_angles(const MixerConfig *c); /* S */

/* What a layer carries from token to token (spec 5); fields a layer does not have are NULL. All real but length.
 * n_seq sequences: conv (n_seq, C, W-1), ssm (n_seq, H, P, N), angle (n_seq, H, S), k (n_seq, R, H, N), v (n_seq, H, P);
 * attention: conv of q, k and v where it has one; key, value (n_seq, room, n_heads_kv * head_dim): the rotated keys and the
 * values of the first length[s] tokens of sequence s in its first rows. */
typedef struct LayerState {
  Tensor *conv, *ssm, *angle, *k, *v, *key, *value;
  Tensor *length; /* (n_seq) I32, one for all layers of a model; NULL without attention */
  /* (n_seq) I32, one for all layers: 0 for a sequence at its start, whose ssm lacks init_states; -1: has all; NULL: all do */
  Tensor *starts;
} LayerState;

/* A mixer's parameters, registered in the model's table; names and shapes as in the specification, section 6. */
typedef struct Mamba2 {
  MixerConfig config;
  Tensor *in_proj, *in_proj_bias, *conv_w, *conv_bias, *dt_bias, *A_log, *D, *norm, *out_proj, *out_proj_bias;
  Tensor *init_states; /* (H, P, N) real: where the scan's state starts; NULL: at zero */
} Mamba2;
typedef struct Mamba3 {
  MixerConfig config;
  Tensor *in_proj, *dt_bias, *B_bias, *C_bias, *B_norm, *C_norm, *D, *mimo_x, *mimo_z, *mimo_o, *norm, *out_proj;
  Tensor *init_states; /* as Mamba-2's */
} Mamba3;
typedef struct AttentionLayer {
  AttnConfig config; /* with kv heads, head_dim and scale filled in */
  Tensor *in_proj, *in_proj_bias, *conv_w, *conv_bias, *out_proj, *out_proj_bias;
} AttentionLayer;

typedef struct Mixer {
  LayerKind kind;
  union {
    Mamba2 mamba2;
    Mamba3 mamba3;
    AttentionLayer attention;
  };
} Mixer;

/* Registers a mixer's parameters under `prefix` ("backbone.layers.3.mixer."); n_layer scales out_proj's init (spec 2.3).
 * The config must be valid (mixer_config_problem). */
void mamba2_init(Mamba2 *m, ParamTable *params, const char *prefix, const MixerConfig *config, int n_layer);
void mamba3_init(Mamba3 *m, ParamTable *params, const char *prefix, const MixerConfig *config, int n_layer);
void attention_init(AttentionLayer *m, ParamTable *params, const char *prefix, const AttnConfig *config, int d_model,
                    int n_layer);
/* A mixer is out_proj(mix(in_proj(x))). The middle: proj (T, n_proj) act -> what out_proj reads (T, n_inner) act.
 * state_in NULL: the start, which is zero but for init_states. state_out NULL: not wanted; else its fields are set, but key
 * and value, which are filled: their room is the caller's to know. */
Tensor *mamba2_mix(Mamba2 *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, const LayerState *state_in,
                   LayerState *state_out);
Tensor *mamba3_mix(Mamba3 *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, const LayerState *state_in,
                   LayerState *state_out);
Tensor *attention_mix(AttentionLayer *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, const LayerState *state_in,
                      LayerState *state_out);
/* The three above by kind. */
Tensor *mixer_mix(Mixer *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, const LayerState *state_in,
                  LayerState *state_out);
/* The middle for one token of each sequence, T = n_seq, the state updated in place (its length is the caller's to count).
 * Not recorded. */
Tensor *mamba2_step(Mamba2 *m, Tape *tape, Tensor *proj, LayerState *state);
Tensor *mamba3_step(Mamba3 *m, Tape *tape, Tensor *proj, LayerState *state);
Tensor *attention_step(AttentionLayer *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, LayerState *state);
Tensor *mixer_step(Mixer *m, Tape *tape, Tensor *proj, Tensor *cu_seqlens, LayerState *state);
/* Where the scan's states of the sequences of cu_seqlens begin: state_in's or, at a sequence's start, init_states; NULL: zero. */
Tensor *mixer_start(Tape *tape, Tensor *init_states, Tensor *cu_seqlens, const LayerState *state_in);
/* The mixer's init_states, or NULL. */
const Tensor *mixer_init_states(const Mixer *m);
/* Adds them, zero at first, where the config has them; NULL where not. They do not decay. */
Tensor *mixer_add_init_states(ParamTable *params, const char *prefix, const MixerConfig *config);
/* The products around it; a bias may be NULL, and all are where there is no mixer. */
typedef struct MixerProducts {
  Tensor *in_proj, *in_proj_bias, *out_proj, *out_proj_bias;
} MixerProducts;
MixerProducts mixer_products(const Mixer *m);
/* The whole: x (T, d_model) act -> (T, d_model) act */
Tensor *mixer_forward(Mixer *m, Tape *tape, Tensor *x, Tensor *cu_seqlens, const LayerState *state_in,
                      LayerState *state_out);
/* NULL when the combination is valid; else what is wrong and what to do, "ssm_cfg.headdim: found 60, expected a divisor
 * of ..." (malloc'ed, free()). Key names are relative to `model.` */
char *mixer_config_problem(const MixerConfig *config);
char *attn_config_problem(const AttnConfig *config, int d_model);

/* Zero states for n_seq sequences, in `arena` of `device` (NULL: the host's own); attention's with room for `room` tokens (0: no keys and values yet) and
 * counting in `length`. */
LayerState mixer_zero_state(const Mixer *m, Device *device, Arena *arena, Dtype real, int64_t n_seq, int64_t room,
                            Tensor *length);
