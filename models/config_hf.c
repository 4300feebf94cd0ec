/* config_hf: see config_hf.h. Defaults of absent keys are those of the transformers package's class Mamba2Config. Its fused kernel
 * norms the gated output by groups, as the models were trained; its slow path does not, which shows where n_groups > 1. */
#include "models/config_hf.h"

#include <math.h>
#include <string.h>

#include "models/fields.h"

typedef struct HfConfig {
  int hidden_size, num_hidden_layers, vocab_size, state_size, conv_kernel, n_groups, head_dim, num_heads, chunk_size;
  bool use_bias, use_conv_bias, tie_word_embeddings;
  double expand, layer_norm_epsilon, time_step_min, time_step_max, time_step_floor;
} HfConfig;

static const HfConfig DEFAULT = {.hidden_size = 4096,
                                 .num_hidden_layers = 64,
                                 .vocab_size = 32768,
                                 .state_size = 128,
                                 .conv_kernel = 4,
                                 .n_groups = 8,
                                 .head_dim = 64,
                                 .num_heads = 128,
                                 .chunk_size = 256,
                                 .use_conv_bias = true,
                                 .expand = 2,
                                 .layer_norm_epsilon = 1e-5,
                                 .time_step_min = 1e-3,
                                 .time_step_max = 0.1,
                                 .time_step_floor = 1e-4};

#define HF(kind, name) FIELD(HfConfig, name, kind, 0)
static const Field KEYS[] = {
    HF(FIELD_COUNT, hidden_size),  HF(FIELD_COUNT, num_hidden_layers), HF(FIELD_COUNT, vocab_size),
    HF(FIELD_COUNT, state_size),   HF(FIELD_COUNT, conv_kernel),       HF(FIELD_COUNT, n_groups),
    HF(FIELD_COUNT, head_dim),     HF(FIELD_COUNT, num_heads),         HF(FIELD_COUNT, chunk_size),
    HF(FIELD_BOOL, use_bias),      HF(FIELD_BOOL, use_conv_bias),      HF(FIELD_BOOL, tie_word_embeddings),
    HF(FIELD_REAL, expand),        HF(FIELD_REAL, layer_norm_epsilon), HF(FIELD_REAL, time_step_min),
    HF(FIELD_REAL, time_step_max), HF(FIELD_REAL, time_step_floor),    {0},
};

static Status read_keys(const json_t *root, const char *where, HfConfig *hf) {
  *hf = DEFAULT;
  for (const Field *key = KEYS; key->name; key++) {
    const json_t *value = json_object_get(root, key->name);
    if (value) TRY(field_read((FieldPlace){where, ""}, key, value, hf));
  }
  return STATUS_OK;
}

static Status refuse(const char *where, const char *key, const json_t *found, const char *expected) {
  return field_refuse((FieldPlace){where, ""}, key, found, expected);
}

/* [low, high]; high may be infinite: FIELD_NO_LIMIT and more, or as transformers 5 writes it. */
static Status read_limit(const json_t *root, const char *where, double limit[2]) {
  const json_t *value = json_object_get(root, "time_step_limit"), *high = json_array_get(value, 1);
  const char *word = json_string_value(json_object_get(high, "__float__"));
  if (!value) return STATUS_OK;
  const bool infinite = (word && !strcmp(word, "Infinity")) || json_number_value(high) >= FIELD_NO_LIMIT;
  if (json_array_size(value) != 2 || !json_is_number(json_array_get(value, 0)) || !(infinite || json_is_number(high)))
    return refuse(where, "time_step_limit", value, "two numbers, the second one of which may be infinite");
  limit[0] = json_number_value(json_array_get(value, 0));
  limit[1] = infinite ? INFINITY : json_number_value(high);
  return STATUS_OK;
}

static Status refuse_others(const json_t *root, const char *where, const HfConfig *hf) {
  const json_t *type = json_object_get(root, "model_type"), *act = json_object_get(root, "hidden_act");
  const char *act_name = act ? json_string_value(act) : "silu";
  if (!json_is_string(type) || strcmp(json_string_value(type), "mamba2") != 0)
    return refuse(where, "model_type", type, "\"mamba2\"");
  if (!act_name || (strcmp(act_name, "silu") != 0 && strcmp(act_name, "swish") != 0))
    return refuse(where, "hidden_act", act, "\"silu\"");
  if (json_is_true(json_object_get(root, "norm_before_gate")))
    return refuse(where, "norm_before_gate", json_true(), "false, which is all that transformers computes");
  if (json_is_false(json_object_get(root, "rms_norm"))) return refuse(where, "rms_norm", json_false(), "true");
  if (fabs(hf->layer_norm_epsilon - 1e-5) > 1e-12)
    return refuse(where, "layer_norm_epsilon", json_object_get(root, "layer_norm_epsilon"), "1e-05");
  const double d_inner = hf->expand * hf->hidden_size;
  if (hf->expand != floor(hf->expand) || hf->expand < 1 || hf->expand > 64)
    return refuse(where, "expand", json_object_get(root, "expand"), "an integer of 1 to 64");
  if (d_inner != (double)hf->num_heads * hf->head_dim)
    return status_fail(CODE_CHECKPOINT, "%s: num_heads: found %d heads of %d, expected expand * hidden_size = %.0f",
                       where, hf->num_heads, hf->head_dim, d_inner);
  return STATUS_OK;
}

Status config_hf_read(const json_t *root, const char *where, ModelConfig *config) {
  HfConfig hf;
  TRY(read_keys(root, where, &hf));
  TRY(refuse_others(root, where, &hf));
  MixerConfig mixer = mixer_config_default(LAYER_MAMBA2);
  mixer.d_model = hf.hidden_size, mixer.d_state = hf.state_size, mixer.expand = (int)hf.expand;
  mixer.headdim = hf.head_dim, mixer.ngroups = hf.n_groups, mixer.chunk_size = hf.chunk_size;
  mixer.d_conv = hf.conv_kernel, mixer.bias = hf.use_bias, mixer.conv_bias = hf.use_conv_bias;
  mixer.dt_min = hf.time_step_min, mixer.dt_max = hf.time_step_max, mixer.dt_init_floor = hf.time_step_floor;
  TRY(read_limit(root, where, mixer.dt_limit));
  config->task = TASK_LM;
  config->d_model = hf.hidden_size, config->n_layer = hf.num_hidden_layers, config->d_intermediate = 0;
  config->vocab_size = hf.vocab_size; /* padded already, the true size is not told */
  config->pad_vocab_size_multiple = 1;
  config->tie_embeddings = hf.tie_word_embeddings;
  config->ssm_cfg = mixer;
  config->n_attn_layers = 0;
  return STATUS_OK;
}

char *model_config_hf_problem(const ModelConfig *c) {
  const MixerConfig *m = &c->ssm_cfg;
  const struct {
    bool other;
    const char *text;
  } rows[] = {
      {c->task != TASK_LM, "task: found forecast, expected lm"},
      {m->layer != LAYER_MAMBA2, "ssm_cfg.layer: found Mamba3, expected Mamba2"},
      {c->d_intermediate > 0, "d_intermediate: found an MLP, expected none"},
      {c->n_attn_layers > 0, "attn_layer_idx: found attention, expected none"},
      {c->ablate != ABLATE_NONE, "ablate: found mixer, expected none"},
      {m->d_ssm > 0 && m->d_ssm != mixer_d_inner(m),
       "ssm_cfg.d_ssm: found a part of the inner width, expected all of it"},
      {m->D_has_hdim, "ssm_cfg.D_has_hdim: found true, expected false"},
      {!m->rmsnorm, "ssm_cfg.rmsnorm: found false, expected true"},
      {m->norm_before_gate, "ssm_cfg.norm_before_gate: found true, expected false"},
      {m->learnable_init_states, "learn_init_state: found true, expected false"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].other) return base_format("model.%s: Hugging Face's Mamba2ForCausalLM has no other", rows[i].text);
  return NULL;
}

char *model_config_to_hf(const ModelConfig *c) {
  const MixerConfig *m = &c->ssm_cfg;
  json_t *root =
      json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:b, s:b, s:b, s:s, s:f, "
                "s:f, s:f, s:f, s:s, s:n, s:n, "
                "s:n}",
                "architectures", "Mamba2ForCausalLM", "model_type", "mamba2", "hidden_size", c->d_model,
                "num_hidden_layers", c->n_layer, "vocab_size", c->vocab_size, "state_size", m->d_state, "conv_kernel",
                m->d_conv, "expand", m->expand, "head_dim", m->headdim, "num_heads", mixer_nheads(m), "n_groups",
                m->ngroups, "chunk_size", m->chunk_size, "use_bias", m->bias, "use_conv_bias", m->conv_bias,
                "tie_word_embeddings", c->tie_embeddings, "residual_in_fp32", 1, "rms_norm", 1, "hidden_act", "silu",
                "layer_norm_epsilon", 1e-5, "time_step_min", m->dt_min, "time_step_max", m->dt_max, "time_step_floor",
                m->dt_init_floor, "torch_dtype", "float32", "bos_token_id", "eos_token_id", "pad_token_id");
  CHECK(root, "json_pack: out of memory");
  if (isfinite(m->dt_limit[1]) || m->dt_limit[0] != 0) /* else the class's own default, which JSON cannot say */
    json_object_set_new(root, "time_step_limit",
                        json_pack("[f, f]", m->dt_limit[0], fmin(m->dt_limit[1], FIELD_NO_LIMIT)));
  char *text = json_dumps(root, JSON_INDENT(2));
  CHECK(text, "json_dumps: out of memory");
  json_decref(root);
  return text;
}
