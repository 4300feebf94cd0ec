/* attention: causal self-attention as a mixer, for hybrids (specification, section 1; state-spaces modules/mha.py).
 *
 *   in_proj -> [q | k | v] (optionally through a causal depth-wise convolution without activation);
 *   out_proj(attention(q, k, v)), with rotary positions that restart with each sequence */
#include <math.h>

#include "nn/mixer.h"

void attention_init(AttentionLayer *m, ParamTable *params, const char *prefix, const AttnConfig *config, int d_model,
                    int n_layer) {
  AttnConfig c = *config;
  if (c.num_heads_kv == 0) c.num_heads_kv = c.num_heads;
  if (c.head_dim == 0) c.head_dim = d_model / c.num_heads;
  if (c.softmax_scale == 0) c.softmax_scale = 1.0 / sqrt(c.head_dim);
  const int64_t n_qkv = (int64_t)c.head_dim * (c.num_heads + 2 * c.num_heads_kv);
  *m = (AttentionLayer){.config = c};
  m->in_proj = params_add_linear(params, prefix, "in_proj.weight", n_qkv, d_model, 1);
  if (c.qkv_proj_bias) m->in_proj_bias = params_add_vector(params, prefix, "in_proj.bias", n_qkv, INIT_VALUE(0));
  if (c.d_conv > 0) {
    m->conv_w = params_add_conv(params, prefix, "conv1d.weight", n_qkv, c.d_conv);
    m->conv_bias = params_add_vector(params, prefix, "conv1d.bias", n_qkv,
                                     (Init){.kind = INIT_UNIFORM, .a = 1.0 / sqrt(c.d_conv)});
  }
  m->out_proj =
      params_add_linear(params, prefix, "out_proj.weight", d_model, (int64_t)c.head_dim * c.num_heads, sqrt(n_layer));
  if (c.out_proj_bias) m->out_proj_bias = params_add_vector(params, prefix, "out_proj.bias", d_model, INIT_VALUE(0));
}

/* What both ways share, but the state. */
static Attention heads_of(const AttentionLayer *m, Arena *arena, Tensor *qkv, Tensor *cu_seqlens) {
  const AttnConfig *c = &m->config;
  const int64_t n_q = (int64_t)c->num_heads * c->head_dim, n_kv = (int64_t)c->num_heads_kv * c->head_dim;
  return (Attention){.n_heads = c->num_heads,
                     .n_heads_kv = c->num_heads_kv,
                     .head_dim = c->head_dim,
                     .rotary_dim = c->rotary_emb_dim,
                     .rotary_interleaved = c->rotary_emb_interleaved,
                     .rotary_base = c->rotary_emb_base,
                     .scale = c->softmax_scale,
                     .cu_seqlens = cu_seqlens,
                     .q = tensor_cols(arena, qkv, 0, n_q),
                     .k = tensor_cols(arena, qkv, n_q, n_kv),
                     .v = tensor_cols(arena, qkv, n_q + n_kv, n_kv)};
}

Tensor *attention_mix(AttentionLayer *m, Tape *tape, Tensor *qkv, Tensor *cu_seqlens, const LayerState *state_in,
                      LayerState *state_out) {
  const bool has_window = m->config.d_conv > 1;
  if (m->config.d_conv > 0) {
    Conv1d conv = op_conv1d(tape,
                            (Conv1d){.cu_seqlens = cu_seqlens,
                                     .x = qkv,
                                     .w = m->conv_w,
                                     .bias = m->conv_bias,
                                     .window_in = state_in && has_window ? state_in->conv : NULL},
                            state_out && has_window);
    qkv = conv.y;
    if (state_out) state_out->conv = conv.window_out;
  }
  Attention heads = heads_of(m, &tape->device->step, qkv, cu_seqlens);
  if (state_in && state_in->key)
    heads.past = state_in->length, heads.key_in = state_in->key, heads.value_in = state_in->value;
  if (state_out) heads.key_out = state_out->key, heads.value_out = state_out->value;
  return op_attention(tape, heads).y;
}

Tensor *attention_step(AttentionLayer *m, Tape *tape, Tensor *qkv, Tensor *cu_seqlens, LayerState *state) {
  if (m->config.d_conv > 0) { /* of one token each: a window is read before it is written */
    Conv1d conv = {.cu_seqlens = cu_seqlens, .x = qkv, .w = m->conv_w, .bias = m->conv_bias};
    conv.window_in = conv.window_out = state->conv;
    qkv = op_conv1d(tape, conv, false).y;
  }
  Attention heads = heads_of(m, &tape->device->step, qkv, cu_seqlens);
  heads.past = state->length;
  heads.key_in = heads.key_out = state->key, heads.value_in = heads.value_out = state->value;
  return op_attention(tape, heads).y;
}
