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

Tensor *attention_mix(AttentionLayer *m, Tape *tape, Tensor *qkv, Tensor *cu_seqlens) {
  const AttnConfig *c = &m->config;
  const int64_t n_q = (int64_t)c->num_heads * c->head_dim, n_kv = (int64_t)c->num_heads_kv * c->head_dim;
  Arena *arena = &tape->device->step;

  if (c->d_conv > 0)
    qkv = op_conv1d(tape, (Conv1d){.cu_seqlens = cu_seqlens, .x = qkv, .w = m->conv_w, .bias = m->conv_bias}, false).y;
  return op_attention(tape, (Attention){.n_heads = c->num_heads,
                                        .n_heads_kv = c->num_heads_kv,
                                        .head_dim = c->head_dim,
                                        .rotary_dim = c->rotary_emb_dim,
                                        .rotary_interleaved = c->rotary_emb_interleaved,
                                        .rotary_base = c->rotary_emb_base,
                                        .scale = c->softmax_scale,
                                        .cu_seqlens = cu_seqlens,
                                        .q = tensor_cols(arena, qkv, 0, n_q),
                                        .k = tensor_cols(arena, qkv, n_q, n_kv),
                                        .v = tensor_cols(arena, qkv, n_q + n_kv, n_kv)})
      .y;
}
