/* Weights as others write them: Hugging Face's names and config.json, shards, pytorch_model.bin; tests/weights has a small Mamba-2
 * that transformers 5.24 and PyTorch 2.15 wrote in each of these, and its logits there. And what is no such file is refused. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "models/aspis.h"
#include "models/weights_file.h"
#include "tensor/rng.h"
#include "tests/support/dataset.h"
#include "tests/support/store.h"

#define WEIGHTS ASPIS_SOURCE_DIR "/tests/weights/"

static Device device;

static void enter(void) {
  workplace_enter();
  store_ok(device_open(&device, "cpu", F32, DEVICE_SIZES_ROOMY), "device");
}

static void leave(void) {
  device_close(&device);
  workplace_leave();
}

TestSuite(weights_formats, .init = enter, .fini = leave, .timeout = 120);

static Model *load(const char *directory) {
  ModelConfig config;
  store_ok(weights_read_config(directory, &config), directory);
  Model *model = model_new(&config);
  params_alloc(&model->params, &device, F32, false, 0);
  store_ok(weights_load(model, directory), directory);
  return model;
}

static char *copy_of(const char *from, const char *name, size_t *bytes) {
  char *path = base_format("%s%s/%s", WEIGHTS, from, name), *data = base_alloc(1 << 20);
  FILE *file = fopen(path, "rb");
  *bytes = file ? fread(data, 1, 1 << 20, file) : 0;
  cr_assert(*bytes > 0 && *bytes < 1 << 20 && fclose(file) == 0, "%s", path);
  free(path);
  return data;
}

Test(weights_formats, logits_are_those_of_transformers) {
  static const char *const FOLDERS[] = {"hf", "hf_shards", "bin"};
  json_t *expected = json_load_file(WEIGHTS "expected.json", 0, NULL), *tokens = json_object_get(expected, "tokens");
  for (int f = 0; f < 3; f++) {
    char *folder = base_format("%s%s", WEIGHTS, FOLDERS[f]);
    Model *model = load(folder);
    const int64_t n = (int64_t)json_array_size(tokens), width = model_padded_vocab(&model->config);
    cr_assert(n == 12 && width == 16, "%s: %lld tokens, %lld rows", FOLDERS[f], (long long)n, (long long)width);
    cr_assert(model->config.vocab_size == (f == 2 ? 13 : 16), "%s: vocabulary %d", FOLDERS[f],
              model->config.vocab_size);
    Tape tape = tape_make(&device, F32, false);
    Tensor *token = tensor_new1(&device.step, I32, n);
    for (int64_t t = 0; t < n; t++)
      ((int32_t *)token->data)[t] = (int32_t)json_integer_value(json_array_get(tokens, (size_t)t));
    const Tensor *logits = lm_logits(model, &tape, token, model_equal_seqlens(&tape, 1, n), NULL, NULL, NULL);
    for (int64_t i = 0; i < n * width; i++) {
      const double want = json_number_value(json_array_get(json_object_get(expected, "logits"), (size_t)i));
      cr_assert(fabs(((const float *)logits->data)[i] - want) < 1e-5, "%s: logit %lld is %g, expected %g", FOLDERS[f],
                (long long)i, ((const float *)logits->data)[i], want);
    }
    free(folder);
    model_free(model);
  }
  json_decref(expected);
}

Test(weights_formats, hugging_faces_layout_reads_back_bitwise) {
  Model *model = load(WEIGHTS "bin");
  store_ok(weights_save(model, "out", LAYOUT_HF), "save");
  WeightsSurvey survey;
  Model *back = load("out");
  store_ok(weights_survey(back, "out", &survey), "survey");
  cr_assert(survey.n_matched == model->params.n_params && survey.n_cast == 0 && survey.n_reshaped == 0, "%d, %d, %d",
            survey.n_matched, survey.n_cast, survey.n_reshaped);
  cr_assert(model_padded_vocab(&model->config) == 16 && model_padded_vocab(&back->config) == 13,
            "rows that pad the vocabulary");
  for (int i = 0; i < model->params.n_params; i++) {
    const Tensor *a = &model->params.params[i]->value, *b = &back->params.params[i]->value;
    const bool words = a == model->embedding || a == model->lm_head;
    cr_assert(tensor_count(b) == (words ? 13 * 8 : tensor_count(a)), "%s", model->params.params[i]->name);
    cr_assert(memcmp(a->data, b->data, sizeof(float) * (size_t)tensor_count(b)) == 0, "%s",
              model->params.params[i]->name);
  }
  model_free(model), model_free(back);
}

Test(weights_formats, what_hugging_face_has_no_words_for_is_not_written) {
  static const char *const PRESETS[] = {"tiny", "mamba3-180m"};
  for (int i = 0; i < 2; i++) {
    ModelConfig config;
    cr_assert(model_preset(PRESETS[i], &config), "%s", PRESETS[i]);
    Model *model = model_new(&config);
    char *problem = model_config_hf_problem(&config);
    if (problem)
      store_expect(weights_save(model, "none", LAYOUT_HF), CODE_USAGE, "Mamba2ForCausalLM has no other", PRESETS[i]);
    cr_assert(problem || config.ssm_cfg.layer == LAYER_MAMBA2, "%s is said to be one", PRESETS[i]);
    cr_assert(access("none", F_OK) != 0, "something was written");
    free(problem);
    model_free(model);
  }
}

Test(weights_formats, a_foreign_config_is_refused_by_its_key) {
  static const struct {
    const char *json, *phrase;
  } CASES[] = {
      {"{\"model_type\": \"mamba\"}", "model_type: found \"mamba\", expected \"mamba2\""},
      {"{\"model_type\": \"mamba2\", \"hidden_act\": \"gelu\"}", "hidden_act: found \"gelu\""},
      {"{\"model_type\": \"mamba2\", \"hidden_size\": 0}", "hidden_size: found 0"},
      {"{\"model_type\": \"mamba2\", \"hidden_size\": NaN}", "hidden_size: found \"\", expected an integer"},
      {"{\"model_type\": \"mamba2\", \"expand\": 1.5}", "expand: found 1.5"},
      {"{\"model_type\": \"mamba2\", \"num_heads\": 5}",
       "num_heads: found 5 heads of 64, expected expand * hidden_size = 8192"},
      {"{\"model_type\": \"mamba2\", \"layer_norm_epsilon\": 1e-3}", "layer_norm_epsilon: found 0.001, expected 1e-05"},
      {"{\"model_type\": \"mamba2\", \"time_step_limit\": [0]}", "time_step_limit: found [0]"},
      {"{\"model_type\": \"mamba2\", \"use_bias\": 1}", "use_bias: found 1, expected true or false"},
      {"{\"model_type\": \"mamba2\", \"norm_before_gate\": true}", "norm_before_gate: found true"},
  };
  ModelConfig config;
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
    store_expect(model_config_from_json(CASES[i].json, "c.json", &config), CODE_CHECKPOINT, CASES[i].phrase,
                 CASES[i].json);
  store_ok(model_config_from_json(
               "{\"model_type\": \"mamba2\", \"time_step_limit\": [0.0, Infinity], \"x\": \"Infinity\"}", "c", &config),
           "Infinity");
  cr_assert(isinf(config.ssm_cfg.dt_limit[1]) && config.d_model == 4096 && config.ssm_cfg.ngroups == 8, "defaults");
  store_ok(model_config_from_json("{\"model_type\": \"mamba2\", \"time_step_limit\": [0.01, 0.5]}", "c", &config),
           "limits");
  cr_assert(config.ssm_cfg.dt_limit[0] == 0.01 && config.ssm_cfg.dt_limit[1] == 0.5, "limits");
}

Test(weights_formats, dimensions_of_one_may_come_and_go) {
  size_t bytes;
  char *config = copy_of("bin", "config.json", &bytes);
  write_file("config.json", config, bytes);
  free(config);
  Model *model = load(WEIGHTS "bin");
  store_ok(weights_save(model, ".", LAYOUT_CANONICAL), "save");
  FILE *file = fopen("model.safetensors", "r+b");
  char *text = base_zalloc(1 << 20), *at;
  cr_assert(file && fread(text, 1, 1 << 20, file) > 100, "read");
  int n = 0;
  for (at = text + 8; (at = memmem(at, 4096, "[24,1,4]", 8)); n++) memcpy(at, "[24,  4]", 8);
  cr_assert(n == 2 && fseek(file, 0, SEEK_SET) == 0 && fwrite(text, 1, 4096, file) == 4096 && fclose(file) == 0,
            "%d shapes", n);
  WeightsSurvey survey;
  store_ok(weights_survey(model, ".", &survey), "squeezed");
  cr_assert(survey.n_reshaped == 2, "%d reshaped", survey.n_reshaped);
  free(text);
  model_free(model);
}

static void put_index(const char *text) { write_text("model.safetensors.index.json", text); }

Test(weights_formats, shards_that_do_not_match_their_index_are_refused) {
  static const struct {
    const char *index, *phrase;
  } CASES[] = {
      {"not JSON at all", "expected JSON with a weight_map"},
      {"{\"weight_map\": {}}", "expected JSON with a weight_map"},
      {"{\"weight_map\": {\"a\": 3}}", "weight_map: a: expected the name of a file"},
      {"{\"weight_map\": {\"a\": \"../a.safetensors\"}}", "weight_map: a: expected the name of a file"},
      {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "weight_map: a: expected the name of a file"},
      {"{\"weight_map\": {\"a\": \"absent.safetensors\"}}", "absent.safetensors: cannot read"},
      {"{\"weight_map\": {\"a\": \"one.safetensors\", \"c\": \"one.safetensors\"}}", "found 1 of its 2 tensors"},
      {"{\"weight_map\": {\"c\": \"one.safetensors\"}}", "a: found in one.safetensors, expected none of this name"},
      {"{\"weight_map\": {\"a\": \"two.safetensors\"}}", "b: found in two.safetensors, expected none of this name"},
  };
  static const char ONE[] =
      "\x3a\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}    1234";
  char two[sizeof ONE];
  memcpy(two, ONE, sizeof two);
  two[10] = 'b';
  write_file("one.safetensors", ONE, sizeof ONE - 1), write_file("two.safetensors", two, sizeof two - 1);
  WeightsFile file;
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    put_index(CASES[i].index);
    store_expect(weights_file_open(".", &file), CODE_CHECKPOINT, CASES[i].phrase, CASES[i].index);
  }
  put_index("{\"metadata\": {}, \"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}");
  store_ok(weights_file_open(".", &file), "both");
  cr_assert(file.n_tensors == 2 && memcmp(weights_file_find(&file, "b")->data, "1234", 4) == 0, "%d tensors",
            file.n_tensors);
  weights_file_close(&file);
}

/* ---- pickles */

typedef struct Part {
  const char *name, *data;
  size_t bytes;
  int method;
} Part;

static void put_number(FILE *file, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) fputc(i < 8 ? (int)(value >> 8 * i & 255) : 0, file);
}

static void write_zip(const Part *part, int n) {
  FILE *file = fopen("pytorch_model.bin", "wb");
  long offset[4];
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < n; i++) {
      if (pass == 0) offset[i] = ftell(file);
      put_number(file, pass ? 0x02014B50 : 0x04034B50, 4);
      if (pass) put_number(file, 0, 2);
      put_number(file, 0, 2), put_number(file, 0, 2), put_number(file, (uint64_t)part[i].method, 2),
          put_number(file, 0, 8);
      put_number(file, part[i].bytes, 4), put_number(file, part[i].bytes, 4);
      put_number(file, strlen(part[i].name), 2), put_number(file, 0, 2);
      if (pass) put_number(file, 0, 10), put_number(file, (uint64_t)offset[i], 4);
      fputs(part[i].name, file);
      if (!pass) fwrite(part[i].data, 1, part[i].bytes, file);
      else if (i == n - 1) {
        const long end = ftell(file);
        put_number(file, 0x06054B50, 4), put_number(file, 0, 4), put_number(file, (uint64_t)n, 2),
            put_number(file, (uint64_t)n, 2);
        const long first = offset[n - 1] + 30 + (long)strlen(part[n - 1].name) + (long)part[n - 1].bytes;
        put_number(file, (uint64_t)(end - first), 4), put_number(file, (uint64_t)first, 4), put_number(file, 0, 2);
      }
    }
  cr_assert(fclose(file) == 0, "zip");
}

static void write_pickle(const char *code, size_t bytes) {
  write_zip((Part[]){{"archive/data.pkl", code, bytes, 0}, {"archive/data/0", "12345678", 8, 0}}, 2);
}

#define W "\x80\x02}X\1\0\0\0w"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define STORAGE(type, n)                                                                                               \
  "(X\7\0\0\0storagec" type "\nX\1\0\0\0"                                                                              \
  "0X\3\0\0\0cpuK" n "tQ"
#define HOOKS                                                                                                          \
  "\x89"                                                                                                               \
  "ccollections\nOrderedDict\n)R"
#define PICKLE(text) text, sizeof text - 1

static void expect_pickle(const char *code, size_t bytes, const char *phrase) {
  WeightsFile file;
  write_pickle(code, bytes);
  Status status = weights_file_open(".", &file);
  cr_assert(status.code == CODE_CHECKPOINT && strstr(status.line, phrase) && !strchr(status.line, '\n'),
            "%s: code %d: %s", phrase, status.code, status.line);
  status_clear(&status);
}

Test(weights_formats, a_pickle_of_tensors_is_read) {
  WeightsFile file;
  write_pickle(PICKLE(W REBUILD "(" STORAGE("torch\nFloatStorage", "\2") "K\0K\2\x85K\1\x85" HOOKS "tRs."));
  store_ok(weights_file_open(".", &file), "one tensor");
  const FileTensor *w = weights_file_find(&file, "w");
  cr_assert(file.n_tensors == 1 && w && w->type == FILE_F32 && w->n_dim == 1 && w->dim[0] == 2 &&
                memcmp(w->data, "12345678", 8) == 0,
            "w");
  weights_file_close(&file);
}

Test(weights_formats, a_pickle_that_does_anything_else_is_refused_and_not_run) {
  expect_pickle(PICKLE("\x80\2cos\nsystem\nX\x0c\0\0\0touch hacked\x85R."),
                "opcode 0x63 at byte 2: it names os.system");
  cr_assert(access("hacked", F_OK) != 0, "it was run");
  expect_pickle(PICKLE("\x80\2cbuiltins\neval\n."), "it names builtins.eval");
  expect_pickle(PICKLE("\x80\2c__builtin__\ngetattr\n."), "it names __builtin__.getattr");
  expect_pickle(PICKLE("\x80\2ctorch._utils\n_rebuild_parameter\n."), "it names torch._utils._rebuild_parameter");
  expect_pickle(PICKLE("\x80\2ctorch\nDoubleStorage\n."), "it names torch.DoubleStorage");
  expect_pickle(PICKLE("\x80\2(ios\nsystem\n."),
                "opcode 0x69 at byte 3: a file of tensors does not need it; nothing was executed");
  expect_pickle(PICKLE("\x80\2X\2\0\0\0osX\6\0\0\0system\x93."), "opcode 0x93 at byte 20");
  expect_pickle(PICKLE("\x80\4\x95."), "opcode 0x80 at byte 0: found another protocol");
  expect_pickle(PICKLE("\x80\2]."), "opcode 0x5D");
  expect_pickle(PICKLE("\x80\2o."), "opcode 0x6F");
  expect_pickle(PICKLE("\x80\2\x81."), "opcode 0x81");
  expect_pickle(PICKLE("\x80\2"), "ends without a STOP");
  expect_pickle(PICKLE("\x80\2."), "not a dictionary of tensors");
  expect_pickle(PICKLE("\x80\2}K\1K\2s."), "not a dictionary of tensors");
  expect_pickle(PICKLE(W "K\1s."), "not a dictionary of tensors");
  expect_pickle(PICKLE("\x80\2X\xff\xff\xff\xff"
                       "a."),
                "the pickle ends in the middle of it");
  expect_pickle(PICKLE("\x80\2q\0."), "found other values");
  expect_pickle(PICKLE("\x80\2h\7."), "found other values");
  expect_pickle(PICKLE("\x80\2t."), "found other values");
  expect_pickle(PICKLE("\x80\2(u."), "found other values");
  expect_pickle(PICKLE("\x80\2}(R."), "found other values");
  expect_pickle(PICKLE("\x80\2\x8a\x09"
                       "123456789."),
                "more than 64 bits");
#define TENSOR(storage, layout) PICKLE(W REBUILD "(" storage layout HOOKS "tRs.")
  expect_pickle(TENSOR(STORAGE("torch\nFloatStorage", "\2"), "K\1K\2\x85K\1\x85"), "larger than its storage");
  expect_pickle(TENSOR(STORAGE("torch\nFloatStorage", "\2"), "K\0M\xff\xff\x85K\1\x85"), "larger than its storage");
  expect_pickle(TENSOR(STORAGE("torch\nFloatStorage", "\3"), "K\0K\2\x85K\1\x85"),
                "a storage that the zip does not hold");
  expect_pickle(TENSOR(STORAGE("torch\nFloatStorage", "\2"), "K\0K\2\x85K\2\x85"), "does not lie row by row");
  expect_pickle(TENSOR(STORAGE("torch\nFloatStorage", "\2"), "J\xff\xff\xff\xffK\2\x85K\1\x85"), "found other values");
  expect_pickle(TENSOR(STORAGE("torch\nFloatStorage", "\2"),
                       "K\0\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x86K\1K\1\x86"),
                "does not lie row by row");
  expect_pickle(TENSOR("K\1", "K\0K\2\x85K\1\x85"), "found other values");
  expect_pickle(PICKLE("\x80\2}("
                       "X\1\0\0\0wh\0"
                       "u."),
                "found other values");
}

Test(weights_formats, a_zip_that_lies_is_refused) {
  static const char CODE[] = "\x80\2}.";
  WeightsFile file;
  write_zip((Part[]){{"archive/data.pkl", CODE, sizeof CODE - 1, 8}}, 1);
  store_expect(weights_file_open(".", &file), CODE_CHECKPOINT, "a compressed or encrypted entry", "compressed");
  write_zip((Part[]){{"archive/other", CODE, sizeof CODE - 1, 0}}, 1);
  store_expect(weights_file_open(".", &file), CODE_CHECKPOINT, "no data.pkl", "no pickle");
  write_zip((Part[]){{"archive/data.pkl", CODE, sizeof CODE - 1, 0}, {"archive/byteorder", "big", 3, 0}}, 2);
  store_expect(weights_file_open(".", &file), CODE_CHECKPOINT, "another byte order", "big-endian");
  write_text("pytorch_model.bin", "\x80\2\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19. the format before zips");
  store_expect(weights_file_open(".", &file), CODE_CHECKPOINT, "not a zip", "the oldest format");
  write_text("pytorch_model.bin", "PK\3\4 and nothing of a zip behind it");
  store_expect(weights_file_open(".", &file), CODE_CHECKPOINT, "no end of a directory", "no directory");
}

Test(weights_formats, damaged_anywhere_they_are_refused_or_whole) {
  size_t bytes;
  char *data = copy_of("bin", "pytorch_model.bin", &bytes), *damaged = base_alloc(bytes);
  Rng rng = rng_make(3, RNG_TEST, 0, 0);
  int n_refused = 0;
  for (int i = 0; i < 1500; i++) {
    size_t n = bytes;
    memcpy(damaged, data, bytes);
    if (i < 500) n = (size_t)i * bytes / 500;
    else
      for (int flips = 1 + i % 3; flips > 0; flips--) {
        const size_t at = rng_below(&rng, i % 2 ? 3000 : (uint32_t)bytes); /* data.pkl is at the beginning */
        damaged[at] = (char)rng_below(&rng, 256);
      }
    write_file("pytorch_model.bin", damaged, n);
    WeightsFile file;
    Status status = weights_file_open(".", &file);
    n_refused += status.code != CODE_OK;
    cr_assert(status.code == CODE_OK || status.code == CODE_CHECKPOINT, "code %d", status.code);
    for (int t = 0; status.code == CODE_OK && t < file.n_tensors; t++) { /* all of it is there */
      volatile unsigned char sum = 0;
      for (int64_t b = 0; b < file.tensors[t].bytes; b++) sum ^= file.tensors[t].data[b];
    }
    if (status.code == CODE_OK) weights_file_close(&file);
    status_clear(&status);
  }
  cr_assert(n_refused > 700, "%d refused", n_refused);
  free(data), free(damaged);
}
