/* model.safetensors: what is published is read, what is written reads back bitwise, nothing else does. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/aspis.h"
#include "tests/support/rundir.h"
#include "tests/support/store.h"

#define GOLDEN ASPIS_SOURCE_DIR "/tests/golden/"

static char *folder, *file_path, *config_path;
static Device device;

static void enter(void) {
  folder = rundir_make();
  file_path = base_format("%s/model.safetensors", folder);
  config_path = base_format("%s/config.json", folder);
  store_ok(device_open(&device, "cpu", F32, DEVICE_SIZES_ROOMY), "device");
}

static void leave(void) {
  device_close(&device);
  free(file_path), free(config_path);
  rundir_remove(folder);
}

TestSuite(weights, .init = enter, .fini = leave, .timeout = 120);

static Model *model_made(const ModelConfig *config, Dtype act, bool training) {
  Model *model = model_new(config);
  params_alloc(&model->params, &device, act, training, 0);
  params_init(&model->params, 5);
  return model;
}

static ModelConfig small_config(void) {
  ModelConfig c = model_config_default();
  c.d_model = 64, c.n_layer = 1, c.vocab_size = 1024;
  c.ssm_cfg.d_model = 64, c.ssm_cfg.d_state = 16, c.ssm_cfg.headdim = 32;
  return c;
}

static bool models_equal(const Model *a, const Model *b) {
  bool equal = a->params.n_params == b->params.n_params;
  for (int i = 0; i < a->params.n_params && equal; i++) {
    Tensor *x = param_exact(a->params.params[i]), *y = param_exact(b->params.params[i]);
    equal = tensor_same_shape(x, y) && !memcmp(x->data, y->data, tensor_bytes(x));
  }
  return equal;
}

static void zero(Model *model) {
  for (int i = 0; i < model->params.n_params; i++) {
    tensor_zero(param_exact(model->params.params[i]));
    param_refresh(model->params.params[i]);
  }
}

Test(weights, saved_ones_load_bitwise) {
  static const char *const DTYPES[] = {"f32", "bf16 with masters"};
  for (int bf16 = 0; bf16 < 2; bf16++) {
    ModelConfig config = small_config(), read;
    config.d_intermediate = 100;
    Model *saved = model_made(&config, bf16 ? BF16 : F32, true), *loaded = model_made(&config, F32, false);
    store_ok(weights_save(saved, folder, LAYOUT_CANONICAL), "save");
    zero(loaded);
    store_ok(weights_read_config(folder, &read), "config");
    store_ok(weights_load(loaded, folder), "load");
    cr_assert(models_equal(saved, loaded), "%s", DTYPES[bf16]);
    char *a = model_config_to_json(&config), *b = model_config_to_json(&read);
    cr_assert_str_eq(a, b, "%s: config", DTYPES[bf16]);
    cr_assert_eq(store_count_files(folder, ".tmp-"), 0, "temp files are left");
    free(a), free(b);
    model_free(saved), model_free(loaded);
  }
}

Test(weights, golden_ones_load_and_save_as_they_are) {
  ModelConfig config;
  store_ok(weights_read_config(GOLDEN "lm_packed", &config), "config");
  cr_assert(config.n_attn_layers == 1 && config.attn_layer_idx[0] == 2 && config.attn_cfg.qkv_proj_bias &&
                config.attn_cfg.rotary_emb_base == 500 && config.ssm_cfg.A_softplus,
            "config of lm_packed");
  Model *model = model_made(&config, F32, false), *back = model_made(&config, F32, false);
  store_ok(weights_load(model, GOLDEN "lm_packed"), "load");
  size_t n;
  char *bytes = store_read(GOLDEN "lm_packed/model.safetensors", &n);
  uint64_t header;
  memcpy(&header, bytes, 8);
  cr_assert_arr_eq((char *)model->embedding->data, bytes + 8 + header, tensor_bytes(model->embedding),
                   "the first tensor");
  free(bytes);
  store_ok(weights_save(model, folder, LAYOUT_CANONICAL), "save");
  zero(back);
  store_ok(weights_load(back, folder), "load again");
  cr_assert(models_equal(model, back), "what was saved differs");
  model_free(model), model_free(back);
}

/* A file with the model's tensors in one 16-bit type; element k of all is pattern k. */
static void write_patterns(const Model *model, const char *dtype) {
  char *header = base_strdup("");
  int64_t at = 0;
  for (int i = 0; i < model->params.n_params; i++) {
    const Param *param = model->params.params[i];
    char shape[64] = "";
    for (int d = 0; d < param->value.n_dim; d++)
      snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%lld", d ? "," : "",
               (long long)param->value.dim[d]);
    int64_t end = at + 2 * tensor_count(&param->value);
    char *longer = base_format("%s%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%lld,%lld]}", header,
                               i ? ',' : '{', param->name, dtype, shape, (long long)at, (long long)end);
    free(header);
    header = longer, at = end;
  }
  uint64_t n = strlen(header) + 1; /* odd or even: data need not be aligned */
  char *file = base_alloc(8 + n + (size_t)at);
  memcpy(file, &n, 8);
  memcpy(file + 8, header, n - 1);
  file[8 + n - 1] = '}';
  for (int64_t k = 0; k < at / 2; k++) {
    uint16_t bits = (uint16_t)k;
    memcpy(file + 8 + n + 2 * k, &bits, 2);
  }
  store_write(file_path, file, 8 + n + (size_t)at);
  free(file), free(header);
}

static double half_value(int bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent == 0    ? ldexp(fraction, -24)
                 : exponent == 31 ? (fraction ? NAN : INFINITY)
                                  : ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 ? -value : value;
}

Test(weights, all_16_bit_numbers_are_read_right) {
  ModelConfig config = small_config();
  Model *model = model_made(&config, F32, false);
  cr_assert_eq(tensor_count(model->embedding), 65536, "the embedding holds every pattern once");
  write_patterns(model, "F16");
  store_ok(weights_load(model, folder), "F16");
  const float *found = model->embedding->data;
  for (int k = 0; k < 65536; k++) {
    double expected = half_value(k);
    cr_assert(isnan(expected) ? isnan(found[k]) : found[k] == expected && !signbit(found[k]) == !signbit(expected),
              "half %04x: found %g, expected %g", k, found[k], expected);
  }
  write_patterns(model, "BF16");
  store_ok(weights_load(model, folder), "BF16");
  for (int k = 0; k < 65536; k++) {
    uint32_t bits, expected = (uint32_t)k << 16;
    memcpy(&bits, &found[k], 4);
    cr_assert_eq(bits, expected, "bfloat16 %04x: found %08x", k, bits);
  }
  model_free(model);
}

/* The header with `from` replaced by a text of the same length. */
static void patch_file(const char *from, const char *to) {
  size_t n;
  char *bytes = store_read(file_path, &n), *at = memmem(bytes, n, from, strlen(from));
  cr_assert(at && strlen(from) == strlen(to), "%s is in the file", from);
  memcpy(at, to, strlen(to));
  store_write(file_path, bytes, n);
  free(bytes);
}

Test(weights, of_another_model_are_refused_with_every_difference) {
  ModelConfig config = small_config();
  Model *model = model_made(&config, F32, false), *kept = model_made(&config, F32, false);
  config.vocab_size = 512;
  Model *smaller = model_made(&config, F32, false);
  store_ok(weights_save(smaller, folder, LAYOUT_CANONICAL), "save");
  patch_file("backbone.norm_f.weight", "backbone.norm_x.weight");
  static const char *const PHRASES[] = {"backbone.embedding.weight: found (512, 64), expected (1024, 64)",
                                        "backbone.norm_f.weight: missing", "backbone.norm_x.weight: unexpected"};
  for (int i = 0; i < 3; i++) store_expect(weights_load(model, folder), CODE_CHECKPOINT, PHRASES[i], PHRASES[i]);
  cr_assert(models_equal(model, kept), "refused, but parameters were written");
  model_free(model), model_free(kept), model_free(smaller);
}

Test(weights, a_tied_head_must_equal_the_embedding) {
  ModelConfig config = small_config();
  config.tie_embeddings = false;
  Model *untied = model_made(&config, F32, false);
  config.tie_embeddings = true;
  Model *tied = model_made(&config, F32, false);
  store_ok(weights_save(untied, folder, LAYOUT_CANONICAL), "save");
  store_expect(weights_load(tied, folder), CODE_CHECKPOINT, "lm_head.weight: differs from the embedding", "other head");
  memcpy(untied->lm_head->data, untied->embedding->data, tensor_bytes(untied->embedding));
  store_ok(weights_save(untied, folder, LAYOUT_CANONICAL), "save");
  zero(tied);
  store_ok(weights_load(tied, folder), "equal head");
  cr_assert(!memcmp(tied->embedding->data, untied->embedding->data, tensor_bytes(untied->embedding)), "embedding");
  store_ok(weights_save(tied, folder, LAYOUT_CANONICAL), "save");
  store_expect(weights_load(untied, folder), CODE_CHECKPOINT, "lm_head.weight: missing", "untied model, tied file");
  model_free(untied), model_free(tied);
}

Test(weights, the_width_of_the_mlp_is_the_files) {
  ModelConfig config = small_config(), read;
  config.d_intermediate = 100, config.d_mlp = 104;
  Model *model = model_made(&config, F32, false);
  store_ok(weights_save(model, folder, LAYOUT_CANONICAL), "save");
  config.d_mlp = 0;
  char *text = model_config_to_json(&config); /* as others write it: without d_mlp */
  store_write(config_path, text, strlen(text));
  store_ok(weights_read_config(folder, &read), "config");
  cr_assert_eq(model_d_mlp(&read), 104, "found %d", model_d_mlp(&read));
  Model *loaded = model_made(&read, F32, false);
  zero(loaded);
  store_ok(weights_load(loaded, folder), "load");
  cr_assert(models_equal(model, loaded), "weights");
  free(text);
  model_free(model), model_free(loaded);
}

static Model *attacked; /* any model: the attacks are refused before names matter */

static void write_attack(uint64_t length, const char *header, size_t n_data) {
  size_t n = strlen(header);
  char *file = base_zalloc(8 + n + n_data);
  memcpy(file, &length, 8);
  memcpy(file + 8, header, n);
  store_write(file_path, file, 8 + n + n_data);
  free(file);
}

#define ENTRY(dtype, shape, offsets) "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ACCEPTED "not the weights of this model"

Test(weights, attacks_on_the_header_are_refused) {
  static const struct {
    char header[260];
    int n_data;
    char phrase[60];
  } CASES[] = {
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0,8]") "}", 8, ACCEPTED},
      {"{\"b\":" ENTRY("\"F32\"", "[2]", "[4,12]") ",\"a\":" ENTRY("\"F32\"", "[]", "[0,4]") "}", 12, ACCEPTED},
      {"{\"__metadata__\":{\"format\":\"pt\"},\"a\":" ENTRY("\"F16\"", "[0,3]", "[0,0]") "}", 0, ACCEPTED},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0,8]") "}", 9, "found 9 bytes of data, expected 8"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0,8]") "}", 7, "a: data_offsets: outside"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[1,9]") "}", 9, "begins at 1, expected 0"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0,8]") ",\"b\":" ENTRY("\"F32\"", "[2]", "[4,12]") "}", 12,
       "b: data_offsets: begins at 4"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0,8]") ",\"b\":" ENTRY("\"F32\"", "[2]", "[0,8]") "}", 8,
       "begins at 0, expected 8"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0,8]") ",\"b\":" ENTRY("\"F32\"", "[2]", "[12,20]") "}", 20,
       "begins at 12, expected 8"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0,8]") ",\"a\":" ENTRY("\"F32\"", "[2]", "[8,16]") "}", 16, "duplicate"},
      {"{\"a\":" ENTRY("\"F32\"", "[3]", "[0,8]") "}", 8, "not as long as shape and dtype say"},
      {"{\"a\":" ENTRY("\"F32\"", "[4294967296,4294967296]", "[0,0]") "}", 0, "sizes overflow"},
      {"{\"a\":" ENTRY("\"F32\"", "[9223372036854775807]", "[0,4]") "}", 4, "sizes overflow"},
      {"{\"a\":" ENTRY("\"F32\"", "[-1]", "[0,4]") "}", 4, "expected sizes of 0 or more"},
      {"{\"a\":" ENTRY("\"F32\"", "[2.0]", "[0,8]") "}", 8, "expected sizes of 0 or more"},
      {"{\"a\":" ENTRY("\"F32\"", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, "more than 8 dimensions"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[8,0]") "}", 8, "outside of the file"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[-8,0]") "}", 8, "outside of the file"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0,8,16]") "}", 8, "expected dtype, shape and two data_offsets"},
      {"{\"a\":" ENTRY("\"F32\"", "[2]", "[0.0,8]") "}", 8, "outside of the file"},
      {"{\"a\":" ENTRY("\"I64\"", "[1]", "[0,8]") "}", 8, "dtype: expected F32, F16 or BF16"},
      {"{\"a\":" ENTRY("3", "[1]", "[0,8]") "}", 8, "expected dtype, shape and two data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "expected dtype, shape and two data_offsets"},
      {"{\"a\":7}", 8, "expected dtype, shape and two data_offsets"},
      {"{\"__metadata__\":{\"format\":1}}", 0, "expected an object of strings"},
      {"{\"a\\u001b[2J\":" ENTRY("\"F32\"", "[2]", "[0,8]") "}", 8, "strange names"},
      {"{\"a\\u0000b\":" ENTRY("\"F32\"", "[2]", "[0,8]") "}", 8, "header"},
      {" {\"a\":1}", 0, "does not start with {"},
      {"[1,2,3,4,5]", 0, "does not start with {"},
      {"{\"a\":", 8, "header"},
      {"{}", 3, "found 3 bytes of data, expected 0"},
  };
  ModelConfig config = small_config();
  attacked = model_new(&config);
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    write_attack(strlen(CASES[i].header), CASES[i].header, (size_t)CASES[i].n_data);
    store_expect(weights_survey(attacked, folder, &(WeightsSurvey){0}), CODE_CHECKPOINT, CASES[i].phrase,
                 CASES[i].header);
  }
  static const uint64_t LENGTHS[] = {3, 1000, 100000001, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
  for (int i = 0; i < 6; i++) {
    write_attack(LENGTHS[i], "{}", 0);
    store_expect(weights_survey(attacked, folder, &(WeightsSurvey){0}), CODE_CHECKPOINT, "header: found a length",
                 "length");
  }
  store_write(file_path, "\2\0\0\0\0\0\0\0{", 9);
  store_expect(weights_survey(attacked, folder, &(WeightsSurvey){0}), CODE_CHECKPOINT, "not a safetensors file",
               "9 bytes");
  store_write(file_path, "", 0);
  store_expect(weights_survey(attacked, folder, &(WeightsSurvey){0}), CODE_CHECKPOINT, "not a safetensors file",
               "empty");
  model_free(attacked);
}

Test(weights, truncated_anywhere_or_damaged_in_the_header_never_load_wrong) {
  ModelConfig config = small_config();
  config.vocab_size = 8;
  Model *model = model_made(&config, F32, false), *loaded = model_made(&config, F32, false);
  store_ok(weights_save(model, folder, LAYOUT_CANONICAL), "save");
  size_t n;
  char *bytes = store_read(file_path, &n);
  uint64_t header;
  memcpy(&header, bytes, 8);
  for (size_t length = n; length-- > 0;) {
    if (length > header + 300 && length % 97 != 0) continue;
    cr_assert_eq(truncate(file_path, (off_t)length), 0, "truncate");
    store_expect(weights_survey(model, folder, &(WeightsSurvey){0}), CODE_CHECKPOINT, "model.safetensors", "truncated");
  }
  for (size_t at = 0; at < 8 + header; at++) {
    bytes[at] = (char)(bytes[at] ^ (1 << at % 8));
    store_write(file_path, bytes, n);
    bytes[at] = (char)(bytes[at] ^ (1 << at % 8));
    Status status = weights_load(loaded, folder);
    if (status.code == CODE_OK) cr_assert(models_equal(model, loaded), "byte %zu: accepted, but weights differ", at);
    status_clear(&status);
  }
  free(bytes);
  model_free(model), model_free(loaded);
}

Test(weights, a_folder_without_them_says_so) {
  ModelConfig config = small_config();
  Model *model = model_new(&config);
  store_expect(weights_read_config(folder, &config), CODE_CHECKPOINT, "config.json: cannot read: No such file",
               "no config");
  store_expect(weights_survey(model, folder, &(WeightsSurvey){0}), CODE_CHECKPOINT,
               "model.safetensors: cannot read: No such file", "no weights");
  char *pipe = base_format("%s/config.json", folder);
  cr_assert(mkfifo(pipe, 0600) == 0, "%s", pipe);
  store_expect(weights_read_config(folder, &config), CODE_CHECKPOINT, "config.json: found a pipe or a device",
               "a pipe");
  free(pipe);
  model_free(model);
}
