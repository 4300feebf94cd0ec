/* config_json: a model's configuration as JSON: the canonical config.json (specification, section 6), the same text in
 * checkpoints, and the golden files' `config`. One table a structure drives reading and writing.
 *
 * Beyond the canonical keys: "task": "forecast" with its sizes, and d_mlp where d_intermediate alone would not give it.
 * A bare Infinity is not JSON but is found in published files; it is read as 1e30, and 1e30 or more means no limit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "models/config_hf.h"
#include "models/fields.h"

enum { MAMBA2 = 1, MAMBA3 = 2, BOTH = 3 }; /* whose ssm_cfg is written with the key; all are read by both */

#define SSM(name, kind, written) FIELD(MixerConfig, name, kind, written)
static const Field SSM_FIELDS[] = {
    SSM(d_model, FIELD_INT, 0),
    SSM(d_state, FIELD_INT, BOTH),
    SSM(expand, FIELD_INT, BOTH),
    SSM(headdim, FIELD_INT, BOTH),
    SSM(ngroups, FIELD_INT, BOTH),
    SSM(chunk_size, FIELD_INT, BOTH),
    SSM(dt_min, FIELD_REAL, BOTH),
    SSM(dt_max, FIELD_REAL, BOTH),
    SSM(dt_init_floor, FIELD_REAL, BOTH),
    SSM(d_conv, FIELD_INT, MAMBA2),
    SSM(d_ssm, FIELD_OPTIONAL, MAMBA2),
    SSM(D_has_hdim, FIELD_BOOL, MAMBA2),
    SSM(rmsnorm, FIELD_BOOL, MAMBA2),
    SSM(norm_before_gate, FIELD_BOOL, MAMBA2),
    SSM(bias, FIELD_BOOL, MAMBA2),
    SSM(conv_bias, FIELD_BOOL, MAMBA2),
    SSM(dt_limit, FIELD_LIMIT, MAMBA2),
    SSM(A_init_range, FIELD_PAIR, MAMBA2),
    SSM(rope_fraction, FIELD_REAL, MAMBA3),
    SSM(A_floor, FIELD_REAL, MAMBA3),
    FIELD_OF_WORDS(MixerConfig, "A_activation", A_softplus, MAMBA3, "heavy_tail", "softplus"),
    SSM(is_outproj_norm, FIELD_BOOL, MAMBA3),
    SSM(is_mimo, FIELD_BOOL, MAMBA3),
    SSM(mimo_rank, FIELD_INT, MAMBA3),
    SSM(learnable_init_states, FIELD_FLAG, BOTH),
    {0},
};

#define ATTN(name, kind) FIELD(AttnConfig, name, kind, BOTH)
static const Field ATTN_FIELDS[] = {
    ATTN(num_heads, FIELD_INT),
    ATTN(num_heads_kv, FIELD_OPTIONAL),
    ATTN(head_dim, FIELD_OPTIONAL),
    ATTN(rotary_emb_dim, FIELD_INT),
    ATTN(rotary_emb_base, FIELD_REAL),
    ATTN(rotary_emb_interleaved, FIELD_BOOL),
    ATTN(softmax_scale, FIELD_OPTIONAL_REAL),
    ATTN(d_conv, FIELD_INT),
    ATTN(qkv_proj_bias, FIELD_BOOL),
    ATTN(out_proj_bias, FIELD_BOOL),
    {0},
};

#define MODEL(name, kind) FIELD(ModelConfig, name, kind, BOTH)
#define MODEL_CHOICE(name, ...) FIELD_OF_WORDS(ModelConfig, #name, name, BOTH, __VA_ARGS__)
static const Field SIZE_FIELDS[] = {MODEL(d_model, FIELD_INT),
                                    MODEL(d_intermediate, FIELD_INT),
                                    MODEL(n_layer, FIELD_INT),
                                    MODEL(vocab_size, FIELD_INT),
                                    {0}};
static const Field HEAD_FIELDS[] = {MODEL(residual_in_fp32, FIELD_BOOL),   MODEL(pad_vocab_size_multiple, FIELD_INT),
                                    MODEL(tie_embeddings, FIELD_BOOL),     MODEL(d_mlp, FIELD_OPTIONAL),
                                    MODEL_CHOICE(ablate, "none", "mixer"), {0}};
static const Field FORECAST_FIELDS[] = {
    MODEL(input_dim, FIELD_INT),
    MODEL(output_dim, FIELD_INT),
    MODEL(horizon, FIELD_INT),
    MODEL(context, FIELD_INT),
    MODEL(value_dim, FIELD_OPTIONAL),
    MODEL(target_first, FIELD_OPTIONAL),
    MODEL_CHOICE(revin, "none", "standard", "last", "mean"),
    MODEL(revert, FIELD_BOOL),
    MODEL(cycle, FIELD_OPTIONAL),
    MODEL(linear, FIELD_BOOL),
    MODEL(known_future, FIELD_BOOL),
    MODEL(channel_independent, FIELD_BOOL),
    MODEL(patch_len, FIELD_INT),
    MODEL(stride, FIELD_INT),
    MODEL(bidirectional, FIELD_BOOL),
    MODEL_CHOICE(head, "last", "flatten", "rows"),
    MODEL_CHOICE(loss, "mse", "mae", "huber", "quantile"),
    MODEL(huber_delta, FIELD_REAL),
    FIELD_OF_REALS(ModelConfig, quantiles, n_quantiles, BOTH),
    MODEL(dropout, FIELD_OPTIONAL_REAL),
    {0},
};

/* ---- reading */

/* Defaults follow from the layer; the canonical default, "Mamba1", does not exist here. */
static Status read_ssm(FieldPlace place, const json_t *object, MixerConfig *config) {
  const json_t *layer = json_object_get(object, "layer");
  const char *name = layer ? json_string_value(layer) : NULL;
  bool is_mamba2 = name && !strcmp(name, "Mamba2");
  if (!is_mamba2 && !(name && !strcmp(name, "Mamba3")))
    return field_refuse(place, "layer", layer, "\"Mamba2\" or \"Mamba3\"");
  *config = mixer_config_default(is_mamba2 ? LAYER_MAMBA2 : LAYER_MAMBA3);
  return fields_read(place, object, (const Field *const[]){SSM_FIELDS, NULL}, (const char *const[]){"layer", NULL},
                     config);
}

static Status read_attention(const char *where, const json_t *object, const json_t *indices, ModelConfig *config) {
  FieldPlace place = {where, "attn_cfg."};
  if (indices && !json_is_array(indices))
    return field_refuse((FieldPlace){where, ""}, "attn_layer_idx", indices, "an array");
  if (object) {
    TRY(field_require_object((FieldPlace){where, ""}, "attn_cfg", object));
    TRY(fields_read(place, object, (const Field *const[]){ATTN_FIELDS, NULL}, (const char *const[]){"causal", NULL},
                    &config->attn_cfg));
  }
  size_t n = json_array_size(indices);
  if (n > MODEL_MAX_LAYERS)
    return field_refuse((FieldPlace){where, ""}, "attn_layer_idx", indices, "at most 256 layers");
  config->n_attn_layers = (int)n;
  for (size_t i = 0; i < n; i++)
    TRY(field_read_int((FieldPlace){where, ""}, "attn_layer_idx", json_array_get(indices, i),
                       &config->attn_layer_idx[i]));
  /* The canonical package's default is false: without the key the file means attention that sees the future. */
  const json_t *causal = json_object_get(object, "causal");
  if (n > 0 && !json_is_true(causal)) return field_refuse(place, "causal", causal, "true");
  return STATUS_OK;
}

static Status read_required(FieldPlace place, const json_t *object, const char *const *keys) {
  for (; *keys; keys++)
    if (!json_object_get(object, *keys)) return field_refuse(place, *keys, NULL, "a value");
  return STATUS_OK;
}

static Status read_model(const json_t *root, const char *where, ModelConfig *config) {
  FieldPlace place = {where, ""};
  static const char *const OTHERS[] = {"task",           "ssm_cfg", "attn_layer_idx", "attn_cfg", "rms_norm",
                                       "fused_add_norm", NULL};
  TRY(field_require_object(place, "the file", root));
  if (json_object_get(root, "model_type")) return config_hf_read(root, where, config);
  TRY(read_required(place, root, (const char *const[]){"d_model", "n_layer", "ssm_cfg", NULL}));
  const json_t *task = json_object_get(root, "task"), *rms_norm = json_object_get(root, "rms_norm");
  const char *task_name = task ? json_string_value(task) : "lm";
  bool forecast = task_name && !strcmp(task_name, "forecast");
  if (!forecast && !(task_name && !strcmp(task_name, "lm")))
    return field_refuse(place, "task", task, "\"lm\" or \"forecast\"");
  if (rms_norm && !json_is_true(rms_norm)) return field_refuse(place, "rms_norm", rms_norm, "true");
  config->task = forecast ? TASK_FORECAST : TASK_LM;
  if (!forecast) TRY(read_required(place, root, (const char *const[]){"vocab_size", NULL}));
  const Field *const tables[] = {SIZE_FIELDS, HEAD_FIELDS, forecast ? FORECAST_FIELDS : NULL, NULL};
  TRY(fields_read(place, root, tables, OTHERS, config));
  const json_t *ssm = json_object_get(root, "ssm_cfg");
  TRY(field_require_object(place, "ssm_cfg", ssm));
  TRY(read_ssm((FieldPlace){where, "ssm_cfg."}, ssm, &config->ssm_cfg));
  config->ssm_cfg.d_model = config->d_model;
  return read_attention(where, json_object_get(root, "attn_cfg"), json_object_get(root, "attn_layer_idx"), config);
}

static Status read_forecaster(const json_t *root, const char *where, ModelConfig *config) {
  FieldPlace place = {where, ""};
  static const char *const OTHERS[] = {"mixer", "attn_layer_idx", "attn_cfg", NULL};
  TRY(field_require_object(place, "the text", root));
  TRY(read_required(place, root,
                    (const char *const[]){"mixer", "n_layer", "input_dim", "output_dim", "horizon", NULL}));
  config->task = TASK_FORECAST;
  TRY(fields_read(place, root, (const Field *const[]){SIZE_FIELDS, HEAD_FIELDS, FORECAST_FIELDS, NULL}, OTHERS,
                  config));
  const json_t *mixer = json_object_get(root, "mixer");
  TRY(field_require_object(place, "mixer", mixer));
  TRY(read_ssm((FieldPlace){where, "mixer."}, mixer, &config->ssm_cfg));
  config->d_model = config->ssm_cfg.d_model;
  return read_attention(where, json_object_get(root, "attn_cfg"), json_object_get(root, "attn_layer_idx"), config);
}

/* A copy with what is no JSON but is found, outside strings: every Infinity replaced by a number of the same length, every NaN by
 * an empty text, which no number's key takes. */
static char *without_infinity(const char *text) {
  static const char WORD[] = "Infinity", NUMBER[] = "1e30    ";
  char *copy = base_strdup(text);
  bool in_string = false;
  for (char *c = copy; *c; c++) {
    if (in_string && *c == '\\' && c[1]) c++;
    else if (*c == '"') in_string = !in_string;
    else if (!in_string && !strncmp(c, WORD, strlen(WORD))) memcpy(c, NUMBER, strlen(NUMBER));
    else if (!in_string && !strncmp(c, "NaN", 3)) memcpy(c, "\"\" ", 3), c += 2;
  }
  return copy;
}

static Status parse(const char *text, const char *where, json_t **root) {
  char *plain = without_infinity(text);
  json_error_t error;
  *root = json_loads(plain, JSON_REJECT_DUPLICATES, &error);
  free(plain);
  if (*root) return STATUS_OK;
  return status_fail(CODE_CHECKPOINT, "%s:%d:%d: not JSON: %s", where, error.line, error.column, error.text);
}

static Status problem_status(const char *where, char *problem) {
  if (!problem) return STATUS_OK;
  Status status = status_fail(CODE_CHECKPOINT, "%s: %s", where, problem);
  free(problem);
  return status;
}

/* *config changes only when all of the text is right. */
static Status parse_model(const char *text, const char *where, ModelConfig *config,
                          Status (*read_root)(const json_t *root, const char *where, ModelConfig *config)) {
  json_t *root;
  TRY(parse(text, where, &root));
  ModelConfig read = model_config_default();
  Status status = read_root(root, where, &read);
  if (status.code == CODE_OK) status = problem_status(where, model_config_problem(&read));
  json_decref(root);
  if (status.code == CODE_OK) *config = read;
  return status;
}

Status model_config_from_json(const char *text, const char *where, ModelConfig *config) {
  return parse_model(text, where, config, read_model);
}

Status forecaster_config_from_json(const char *text, const char *where, ModelConfig *config) {
  return parse_model(text, where, config, read_forecaster);
}

Status mixer_config_from_json(const char *text, const char *where, MixerConfig *config) {
  json_t *root;
  TRY(parse(text, where, &root));
  MixerConfig read;
  Status status = field_require_object((FieldPlace){where, ""}, "the text", root);
  if (status.code == CODE_OK) status = read_ssm((FieldPlace){where, ""}, root, &read);
  if (status.code == CODE_OK) status = problem_status(where, mixer_config_problem(&read));
  json_decref(root);
  if (status.code == CODE_OK) *config = read;
  return status;
}

/* ---- writing */

static void write_model(FieldWriter *w, const ModelConfig *config) {
  bool is_mamba2 = config->ssm_cfg.layer == LAYER_MAMBA2, forecast = config->task == TASK_FORECAST;
  field_open_object(w);
  if (forecast) {
    field_write_key(w, "task");
    fputs("\"forecast\"", w->stream);
  }
  fields_write(w, SIZE_FIELDS, BOTH, config);
  if (forecast) fields_write(w, FORECAST_FIELDS, BOTH, config);
  field_write_key(w, "ssm_cfg");
  field_open_object(w);
  field_write_key(w, "layer");
  fputs(is_mamba2 ? "\"Mamba2\"" : "\"Mamba3\"", w->stream);
  fields_write(w, SSM_FIELDS, is_mamba2 ? MAMBA2 : MAMBA3, &config->ssm_cfg);
  field_close_object(w);
  field_write_key(w, "attn_layer_idx");
  for (int i = 0; i < config->n_attn_layers; i++) fprintf(w->stream, "%s%d", i ? ", " : "[", config->attn_layer_idx[i]);
  fputs(config->n_attn_layers ? "]" : "[]", w->stream);
  field_write_key(w, "attn_cfg");
  field_open_object(w);
  if (config->n_attn_layers) {
    fields_write(w, ATTN_FIELDS, BOTH, &config->attn_cfg);
    field_write_bool(w, "causal", true);
  }
  field_close_object(w);
  field_write_bool(w, "rms_norm", true);
  field_write_bool(w, "fused_add_norm", true);
  fields_write(w, HEAD_FIELDS, BOTH, config);
  field_close_object(w);
  fputc('\n', w->stream);
}

char *model_config_to_json(const ModelConfig *config) {
  ModelConfig written = *config;
  if (model_d_mlp(config) == round_up(config->d_intermediate, 128)) written.d_mlp = 0;
  char *text = NULL;
  size_t bytes = 0;
  FieldWriter w = {.stream = open_memstream(&text, &bytes)};
  CHECK(w.stream, "out of memory for the JSON of a model");
  write_model(&w, &written);
  CHECK(fclose(w.stream) == 0, "out of memory for the JSON of a model");
  return text;
}
