/* config_json: a model's configuration as JSON: the canonical config.json (specification, section 6), the same text in
 * checkpoints, and the golden files' `config`. One table a structure drives reading and writing.
 *
 * Beyond the canonical keys: "task": "forecast" with its sizes, and d_mlp where d_intermediate alone would not give it.
 * A bare Infinity is not JSON but is found in published files; it is read as 1e30, and 1e30 or more means no limit. */
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "models/config_hf.h"

#define NO_LIMIT 1e30

typedef enum FieldKind {
  FIELD_INT,
  FIELD_OPTIONAL, /* int; null and absent mean 0, and 0 is not written */
  FIELD_BOOL,
  FIELD_FLAG, /* bool; false is not written: the canonical package may not know the key */
  FIELD_REAL,
  FIELD_OPTIONAL_REAL,
  FIELD_PAIR,
  FIELD_LIMIT, /* pair whose upper end may be infinite; not written when it is [0, infinite) */
  FIELD_REALS, /* numbers, and elsewhere how many */
  FIELD_CHOICE /* one of words[], as its index; the first is the default and not written */
} FieldKind;

enum { MAMBA2 = 1, MAMBA3 = 2, BOTH = 3 }; /* whose ssm_cfg is written with the key; all are read by both */

typedef struct Field {
  const char *name;
  FieldKind kind;
  size_t offset;
  int written;
  const char *const *words; /* of a choice; NULL ends them */
  size_t size;              /* of its field: a choice's is a bool or an enum */
  size_t count_offset;      /* of a list: where its length is */
} Field;

#define WORDS(...)                                                                                                     \
  (const char *const[]) { __VA_ARGS__, NULL }

#define SSM(name, kind, written)                                                                                       \
  { #name, kind, offsetof(MixerConfig, name), written, NULL, sizeof((MixerConfig){0}.name), 0 }
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
    {"A_activation", FIELD_CHOICE, offsetof(MixerConfig, A_softplus), MAMBA3, WORDS("heavy_tail", "softplus"),
     sizeof(bool), 0},
    SSM(is_outproj_norm, FIELD_BOOL, MAMBA3),
    SSM(is_mimo, FIELD_BOOL, MAMBA3),
    SSM(mimo_rank, FIELD_INT, MAMBA3),
    SSM(learnable_init_states, FIELD_FLAG, BOTH),
    {0},
};

#define ATTN(name, kind)                                                                                               \
  { #name, kind, offsetof(AttnConfig, name), BOTH, NULL, sizeof((AttnConfig){0}.name), 0 }
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

#define MODEL(name, kind)                                                                                              \
  { #name, kind, offsetof(ModelConfig, name), BOTH, NULL, sizeof((ModelConfig){0}.name), 0 }
#define MODEL_CHOICE(name, ...)                                                                                        \
  { #name, FIELD_CHOICE, offsetof(ModelConfig, name), BOTH, WORDS(__VA_ARGS__), sizeof(Ablation), 0 }
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
    {"quantiles", FIELD_REALS, offsetof(ModelConfig, quantiles), BOTH, NULL, 0, offsetof(ModelConfig, n_quantiles)},
    MODEL(dropout, FIELD_OPTIONAL_REAL),
    {0},
};
_Static_assert(sizeof(Ablation) == sizeof(int) && sizeof(WindowStatistic) == sizeof(int) &&
                   sizeof(ForecastHead) == sizeof(int) && sizeof(ForecastLoss) == sizeof(int),
               "choices are read as ints");

/* What lies at a field's place in a config is of the kind's type. */
static void check_size(const Field *field) {
  static const size_t SIZES[] = {
      [FIELD_INT] = sizeof(int),          [FIELD_OPTIONAL] = sizeof(int),    [FIELD_BOOL] = sizeof(bool),
      [FIELD_REAL] = sizeof(double),      [FIELD_PAIR] = 2 * sizeof(double), [FIELD_OPTIONAL_REAL] = sizeof(double),
      [FIELD_LIMIT] = 2 * sizeof(double), [FIELD_FLAG] = sizeof(bool)};
  if (field->kind == FIELD_REALS || field->kind == FIELD_CHOICE) return;
  CHECK(field->size == SIZES[field->kind], "%s: a field of %zu bytes", field->name, field->size);
}

/* ---- reading */

/* Where a value stands, for messages: "config.json: ssm_cfg.headdim". */
typedef struct Place {
  const char *where, *prefix;
} Place;

static Status refuse(Place place, const char *key, const json_t *found, const char *expected) {
  char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
  Status status = status_fail(CODE_CHECKPOINT, "%s: %s%s: found %.60s, expected %s", place.where, place.prefix, key,
                              text ? text : "nothing", expected);
  free(text);
  return status;
}

static Status read_int(Place place, const char *key, const json_t *value, int *out) {
  json_int_t n = json_integer_value(value);
  if (!json_is_integer(value) || n < 0 || n > INT_MAX) return refuse(place, key, value, "an integer, 0 or more");
  *out = (int)n;
  return STATUS_OK;
}

static Status read_real(Place place, const char *key, const json_t *value, double *out) {
  if (!json_is_number(value)) return refuse(place, key, value, "a number");
  *out = json_number_value(value);
  return STATUS_OK;
}

static Status read_pair(Place place, const char *key, const json_t *value, double *out) {
  if (!json_is_array(value) || json_array_size(value) != 2) return refuse(place, key, value, "two numbers");
  for (size_t i = 0; i < 2; i++) TRY(read_real(place, key, json_array_get(value, i), &out[i]));
  return STATUS_OK;
}

static Status read_choice(Place place, const Field *field, const json_t *value, char *at) {
  const char *word = json_string_value(value);
  int index = 0;
  while (field->words[index] && !(word && !strcmp(word, field->words[index]))) index++;
  if (!field->words[index]) {
    char *expected = base_format("\"%s\"", field->words[0]);
    for (int i = 1; field->words[i]; i++) {
      char *longer = base_format("%s or \"%s\"", expected, field->words[i]);
      free(expected);
      expected = longer;
    }
    Status status = refuse(place, field->name, value, expected);
    free(expected);
    return status;
  }
  if (field->size == sizeof(bool)) *(bool *)(void *)at = index;
  else *(int *)(void *)at = index;
  return STATUS_OK;
}

static Status read_field(Place place, const Field *field, const json_t *value, void *target) {
  char *at = (char *)target + field->offset;
  check_size(field);
  int *as_int = (int *)(void *)at;
  double *as_real = (double *)(void *)at;
  bool *as_bool = (bool *)(void *)at;
  switch (field->kind) {
  case FIELD_OPTIONAL:
    if (!json_is_null(value)) return read_int(place, field->name, value, as_int);
    *as_int = 0;
    return STATUS_OK;
  case FIELD_INT: return read_int(place, field->name, value, as_int);
  case FIELD_OPTIONAL_REAL:
    if (!json_is_null(value)) return read_real(place, field->name, value, as_real);
    *as_real = 0;
    return STATUS_OK;
  case FIELD_REAL: return read_real(place, field->name, value, as_real);
  case FIELD_PAIR: return read_pair(place, field->name, value, as_real);
  case FIELD_LIMIT:
    TRY(read_pair(place, field->name, value, as_real));
    if (as_real[1] >= NO_LIMIT) as_real[1] = INFINITY;
    return STATUS_OK;
  case FIELD_FLAG:
  case FIELD_BOOL:
    if (!json_is_boolean(value)) return refuse(place, field->name, value, "true or false");
    *as_bool = json_is_true(value);
    return STATUS_OK;
  case FIELD_REALS: {
    const size_t n = json_array_size(value);
    if (!json_is_array(value) || n > MAX_QUANTILES) return refuse(place, field->name, value, "an array of numbers");
    for (size_t i = 0; i < n; i++) TRY(read_real(place, field->name, json_array_get(value, i), &as_real[i]));
    *(int *)(void *)((char *)target + field->count_offset) = (int)n;
    return STATUS_OK;
  }
  case FIELD_CHOICE: break;
  }
  return read_choice(place, field, value, at);
}

static const Field *find_field(const Field *fields, const char *name) {
  for (; fields->name; fields++)
    if (!strcmp(fields->name, name)) return fields;
  return NULL;
}

/* Fills target from the object's keys that are in one of the tables (at most 3, NULL-terminated); keys in `others` are
 * the caller's. */
static Status read_fields(Place place, const json_t *object, const Field *const *tables, const char *const *others,
                          void *target) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    const Field *field = NULL;
    for (int i = 0; tables[i] && !field; i++) field = find_field(tables[i], key);
    bool known = field != NULL;
    for (int i = 0; others[i] && !known; i++) known = !strcmp(others[i], key);
    if (!known) return status_fail(CODE_CHECKPOINT, "%s: %s%.80s: unknown key", place.where, place.prefix, key);
    if (field) TRY(read_field(place, field, value, target));
  }
  return STATUS_OK;
}

static Status require_object(Place place, const char *key, const json_t *value) {
  return json_is_object(value) ? STATUS_OK : refuse(place, key, value, "an object");
}

/* Defaults follow from the layer; the canonical default, "Mamba1", does not exist here. */
static Status read_ssm(Place place, const json_t *object, MixerConfig *config) {
  const json_t *layer = json_object_get(object, "layer");
  const char *name = layer ? json_string_value(layer) : NULL;
  bool is_mamba2 = name && !strcmp(name, "Mamba2");
  if (!is_mamba2 && !(name && !strcmp(name, "Mamba3")))
    return refuse(place, "layer", layer, "\"Mamba2\" or \"Mamba3\"");
  *config = mixer_config_default(is_mamba2 ? LAYER_MAMBA2 : LAYER_MAMBA3);
  return read_fields(place, object, (const Field *const[]){SSM_FIELDS, NULL}, (const char *const[]){"layer", NULL},
                     config);
}

static Status read_attention(const char *where, const json_t *object, const json_t *indices, ModelConfig *config) {
  Place place = {where, "attn_cfg."};
  if (indices && !json_is_array(indices)) return refuse((Place){where, ""}, "attn_layer_idx", indices, "an array");
  if (object) {
    TRY(require_object((Place){where, ""}, "attn_cfg", object));
    TRY(read_fields(place, object, (const Field *const[]){ATTN_FIELDS, NULL}, (const char *const[]){"causal", NULL},
                    &config->attn_cfg));
  }
  size_t n = json_array_size(indices);
  if (n > MODEL_MAX_LAYERS) return refuse((Place){where, ""}, "attn_layer_idx", indices, "at most 256 layers");
  config->n_attn_layers = (int)n;
  for (size_t i = 0; i < n; i++)
    TRY(read_int((Place){where, ""}, "attn_layer_idx", json_array_get(indices, i), &config->attn_layer_idx[i]));
  /* The canonical package's default is false: without the key the file means attention that sees the future. */
  const json_t *causal = json_object_get(object, "causal");
  if (n > 0 && !json_is_true(causal)) return refuse(place, "causal", causal, "true");
  return STATUS_OK;
}

static Status read_required(Place place, const json_t *object, const char *const *keys) {
  for (; *keys; keys++)
    if (!json_object_get(object, *keys)) return refuse(place, *keys, NULL, "a value");
  return STATUS_OK;
}

static Status problem_status(const char *where, char *problem) {
  if (!problem) return STATUS_OK;
  Status status = status_fail(CODE_CHECKPOINT, "%s: %s", where, problem);
  free(problem);
  return status;
}

static Status read_model(const json_t *root, const char *where, ModelConfig *config) {
  Place place = {where, ""};
  static const char *const OTHERS[] = {"task",           "ssm_cfg", "attn_layer_idx", "attn_cfg", "rms_norm",
                                       "fused_add_norm", NULL};
  TRY(require_object(place, "the file", root));
  if (json_object_get(root, "model_type")) return config_hf_read(root, where, config);
  TRY(read_required(place, root, (const char *const[]){"d_model", "n_layer", "ssm_cfg", NULL}));
  const json_t *task = json_object_get(root, "task"), *rms_norm = json_object_get(root, "rms_norm");
  const char *task_name = task ? json_string_value(task) : "lm";
  bool forecast = task_name && !strcmp(task_name, "forecast");
  if (!forecast && !(task_name && !strcmp(task_name, "lm")))
    return refuse(place, "task", task, "\"lm\" or \"forecast\"");
  if (rms_norm && !json_is_true(rms_norm)) return refuse(place, "rms_norm", rms_norm, "true");
  config->task = forecast ? TASK_FORECAST : TASK_LM;
  if (!forecast) TRY(read_required(place, root, (const char *const[]){"vocab_size", NULL}));
  const Field *const tables[] = {SIZE_FIELDS, HEAD_FIELDS, forecast ? FORECAST_FIELDS : NULL, NULL};
  TRY(read_fields(place, root, tables, OTHERS, config));
  const json_t *ssm = json_object_get(root, "ssm_cfg");
  TRY(require_object(place, "ssm_cfg", ssm));
  TRY(read_ssm((Place){where, "ssm_cfg."}, ssm, &config->ssm_cfg));
  config->ssm_cfg.d_model = config->d_model;
  TRY(read_attention(where, json_object_get(root, "attn_cfg"), json_object_get(root, "attn_layer_idx"), config));
  return problem_status(where, model_config_problem(config));
}

static Status read_forecaster(const json_t *root, const char *where, ModelConfig *config) {
  Place place = {where, ""};
  static const char *const OTHERS[] = {"mixer", "attn_layer_idx", "attn_cfg", NULL};
  TRY(require_object(place, "the text", root));
  TRY(read_required(place, root,
                    (const char *const[]){"mixer", "n_layer", "input_dim", "output_dim", "horizon", NULL}));
  config->task = TASK_FORECAST;
  TRY(read_fields(place, root, (const Field *const[]){SIZE_FIELDS, HEAD_FIELDS, FORECAST_FIELDS, NULL}, OTHERS,
                  config));
  const json_t *mixer = json_object_get(root, "mixer");
  TRY(require_object(place, "mixer", mixer));
  TRY(read_ssm((Place){where, "mixer."}, mixer, &config->ssm_cfg));
  config->d_model = config->ssm_cfg.d_model;
  TRY(read_attention(where, json_object_get(root, "attn_cfg"), json_object_get(root, "attn_layer_idx"), config));
  return problem_status(where, model_config_problem(config));
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

/* *config changes only when all of the text is right. */
static Status parse_model(const char *text, const char *where, ModelConfig *config,
                          Status (*read_root)(const json_t *root, const char *where, ModelConfig *config)) {
  json_t *root;
  TRY(parse(text, where, &root));
  ModelConfig read = model_config_default();
  Status status = read_root(root, where, &read);
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
  Status status = require_object((Place){where, ""}, "the text", root);
  if (status.code == CODE_OK) status = read_ssm((Place){where, ""}, root, &read);
  if (status.code == CODE_OK) status = problem_status(where, mixer_config_problem(&read));
  json_decref(root);
  if (status.code == CODE_OK) *config = read;
  return status;
}

/* ---- writing */

typedef struct Writer {
  FILE *stream;
  int depth;
  bool first;
} Writer;

static void write_key(Writer *w, const char *key) {
  fprintf(w->stream, "%s\n%*s\"%s\": ", w->first ? "" : ",", w->depth, "", key);
  w->first = false;
}

static void open_object(Writer *w) {
  fputc('{', w->stream);
  w->depth++;
  w->first = true;
}

static void close_object(Writer *w) {
  w->depth--;
  if (!w->first) fprintf(w->stream, "\n%*s", w->depth, "");
  fputc('}', w->stream);
  w->first = false;
}

/* The shortest decimal that reads back as the same double. */
static void write_real(FILE *stream, double value) {
  char text[40];
  if (isinf(value)) value = NO_LIMIT;
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  fprintf(stream, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void write_bool(Writer *w, const char *key, bool value) {
  write_key(w, key);
  fputs(value ? "true" : "false", w->stream);
}

static void write_reals(Writer *w, const char *key, const double *values, int n) {
  write_key(w, key);
  fputc('[', w->stream);
  for (int i = 0; i < n; i++) {
    if (i) fputs(", ", w->stream);
    write_real(w->stream, values[i]);
  }
  fputc(']', w->stream);
}

static void write_field(Writer *w, const Field *field, const void *source) {
  const char *at = (const char *)source + field->offset;
  check_size(field);
  int as_int = 0;
  bool as_bool = false;
  const double *as_real = (const double *)(const void *)at;
  switch (field->kind) {
  case FIELD_INT:
  case FIELD_OPTIONAL:
    memcpy(&as_int, at, sizeof as_int);
    if (field->kind == FIELD_OPTIONAL && as_int == 0) return;
    write_key(w, field->name);
    fprintf(w->stream, "%d", as_int);
    return;
  case FIELD_REAL:
  case FIELD_OPTIONAL_REAL:
    if (field->kind == FIELD_OPTIONAL_REAL && *as_real == 0) return;
    write_key(w, field->name);
    write_real(w->stream, *as_real);
    return;
  case FIELD_PAIR: write_reals(w, field->name, as_real, 2); return;
  case FIELD_LIMIT:
    if (as_real[0] != 0 || !isinf(as_real[1])) write_reals(w, field->name, as_real, 2);
    return;
  case FIELD_REALS:
    memcpy(&as_int, (const char *)source + field->count_offset, sizeof as_int);
    write_reals(w, field->name, as_real, as_int);
    return;
  case FIELD_FLAG:
  case FIELD_BOOL:
    memcpy(&as_bool, at, sizeof as_bool);
    if (field->kind == FIELD_FLAG && !as_bool) return;
    write_bool(w, field->name, as_bool);
    return;
  case FIELD_CHOICE: break;
  }
  if (field->size == sizeof(bool)) as_int = *(const bool *)(const void *)at;
  else memcpy(&as_int, at, sizeof as_int);
  if (as_int == 0) return;
  write_key(w, field->name);
  fprintf(w->stream, "\"%s\"", field->words[as_int]);
}

static void write_fields(Writer *w, const Field *fields, int kind, const void *source) {
  for (; fields->name; fields++)
    if (fields->written & kind) write_field(w, fields, source);
}

static void write_model(Writer *w, const ModelConfig *config) {
  bool is_mamba2 = config->ssm_cfg.layer == LAYER_MAMBA2, forecast = config->task == TASK_FORECAST;
  open_object(w);
  if (forecast) {
    write_key(w, "task");
    fputs("\"forecast\"", w->stream);
  }
  write_fields(w, SIZE_FIELDS, BOTH, config);
  if (forecast) write_fields(w, FORECAST_FIELDS, BOTH, config);
  write_key(w, "ssm_cfg");
  open_object(w);
  write_key(w, "layer");
  fputs(is_mamba2 ? "\"Mamba2\"" : "\"Mamba3\"", w->stream);
  write_fields(w, SSM_FIELDS, is_mamba2 ? MAMBA2 : MAMBA3, &config->ssm_cfg);
  close_object(w);
  write_key(w, "attn_layer_idx");
  for (int i = 0; i < config->n_attn_layers; i++) fprintf(w->stream, "%s%d", i ? ", " : "[", config->attn_layer_idx[i]);
  fputs(config->n_attn_layers ? "]" : "[]", w->stream);
  write_key(w, "attn_cfg");
  open_object(w);
  if (config->n_attn_layers) {
    write_fields(w, ATTN_FIELDS, BOTH, &config->attn_cfg);
    write_bool(w, "causal", true);
  }
  close_object(w);
  write_bool(w, "rms_norm", true);
  write_bool(w, "fused_add_norm", true);
  write_fields(w, HEAD_FIELDS, BOTH, config);
  close_object(w);
  fputc('\n', w->stream);
}

char *model_config_to_json(const ModelConfig *config) {
  ModelConfig written = *config;
  if (model_d_mlp(config) == round_up(config->d_intermediate, 128)) written.d_mlp = 0;
  char *text = NULL;
  size_t bytes = 0;
  Writer w = {.stream = open_memstream(&text, &bytes)};
  CHECK(w.stream, "out of memory for the JSON of a model");
  write_model(&w, &written);
  CHECK(fclose(w.stream) == 0, "out of memory for the JSON of a model");
  return text;
}
