/* store: see store.h. */
#include "tests/support/store.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"

static void fill(Tensor *t, Rng *rng) {
  static const double ODD[] = {INFINITY, -INFINITY, NAN, -0.0, 1e-42, 3e38};
  for (int64_t i = 0; i < tensor_count(t); i++) tensor_set(t, i, i % 7 == 3 ? ODD[i / 7 % 6] : rng_normal(rng));
}

Store *store_new(Dtype act, bool training, bool large, uint64_t seed) {
  Store *store = base_zalloc(sizeof *store);
  store_ok(device_open(&store->device, "cpu", F32, DEVICE_SIZES_ROOMY), "device");
  const Init init = {.kind = INIT_NORMAL, .a = 1};
  const int64_t n_rows = large ? 700 : 7;
  params_add(&store->params, "backbone.embedding.weight", false, 2, (const int64_t[]){n_rows, large ? 500 : 5}, init,
             true);
  params_add(&store->params, "backbone.layers.0.norm.weight", false, 1, (const int64_t[]){5}, init, false);
  params_add(&store->params, "backbone.layers.0.mixer.conv1d.weight", false, 3, (const int64_t[]){6, 1, 4}, init, true);
  params_add(&store->params, "backbone.layers.0.mixer.dt_bias", true, 1, (const int64_t[]){1}, init, false);
  params_add(&store->params, "backbone.layers.0.mixer.B_bias", true, 3, (const int64_t[]){2, 3, 4}, init, false);
  params_add(&store->params, "backbone.norm_f.weight", false, 1, (const int64_t[]){5}, init, false);
  params_alloc(&store->params, &store->device, act, training, 0);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int i = 0; i < store->params.n_params; i++) {
    Param *param = store->params.params[i];
    fill(param_exact(param), &rng);
    param_refresh(param);
    if (training) fill(&param->m, &rng), fill(&param->v, &rng);
  }
  return store;
}

void store_free(Store *store) {
  params_free(&store->params);
  device_close(&store->device);
  free(store);
}

static bool same(const Tensor *a, const Tensor *b) {
  return a->dtype == b->dtype && tensor_same_shape(a, b) && !memcmp(a->data, b->data, tensor_bytes(a));
}

bool store_equal(const Store *a, const Store *b, bool moments) {
  bool equal = a->params.n_params == b->params.n_params;
  for (int i = 0; i < a->params.n_params && equal; i++) {
    Param *p = a->params.params[i], *q = b->params.params[i];
    equal = same(&p->value, &q->value) && same(param_exact(p), param_exact(q));
    if (equal && moments) equal = same(&p->m, &q->m) && same(&p->v, &q->v);
  }
  return equal;
}

static void copy(Tensor *to, const Tensor *from) {
  if (from->data) memcpy(to->data, from->data, tensor_bytes(from));
}

void store_copy(Store *to, const Store *from) {
  for (int i = 0; i < from->params.n_params; i++) {
    Param *p = to->params.params[i], *q = from->params.params[i];
    copy(&p->value, &q->value), copy(&p->m, &q->m), copy(&p->v, &q->v);
    if (p->low) memcpy(p->low, q->low, (size_t)tensor_count(&p->value) * sizeof *p->low);
  }
}

CheckpointInfo store_info(int64_t step) {
  CheckpointInfo info = {
      .step = step,
      .data_cursor = 32 * step,
      .tokens = 8192 * step,
      .seed = UINT64_MAX - 5,
      .micro_batch_size = 4,
      .virtual_ranks = 8,
      .best_loss = 0.1 + 0.2,
      .config_yaml = base_strdup("name: test\nseed: 7\n"),
      .model_json = base_strdup("{\"d_model\": 5}\n"),
      .tokenizer_json = base_strdup("{\"kind\": \"char\", \"vocab\": [\"\xc3\xa9\"]}"),
      .version = base_strdup("1.2.3"),
      .commit = base_strdup(""),
      .values = {{"best_step", 17}, {"skipped", -0.0}},
      .n_values = 2,
      .has_optimizer = true,
  };
  return info;
}

static bool same_text(const char *a, const char *b) { return a && b ? !strcmp(a, b) : a == b; }

bool store_info_equal(const CheckpointInfo *a, const CheckpointInfo *b) {
  bool equal = a->step == b->step && a->data_cursor == b->data_cursor && a->tokens == b->tokens && a->seed == b->seed &&
               a->micro_batch_size == b->micro_batch_size && a->virtual_ranks == b->virtual_ranks &&
               a->n_values == b->n_values && a->has_optimizer == b->has_optimizer &&
               !memcmp(&a->best_loss, &b->best_loss, sizeof a->best_loss);
  equal = equal && same_text(a->config_yaml, b->config_yaml) && same_text(a->model_json, b->model_json) &&
          same_text(a->tokenizer_json, b->tokenizer_json) && same_text(a->version, b->version) &&
          same_text(a->commit, b->commit);
  for (int i = 0; i < a->n_values && equal; i++)
    equal = !strcmp(a->values[i].name, b->values[i].name) &&
            !memcmp(&a->values[i].value, &b->values[i].value, sizeof a->values[i].value);
  return equal;
}

char *store_read(const char *path, size_t *bytes) {
  FILE *stream = fopen(path, "rb");
  cr_assert_not_null(stream, "%s opens", path);
  cr_assert_eq(fseek(stream, 0, SEEK_END), 0, "%s", path);
  *bytes = (size_t)ftell(stream);
  rewind(stream);
  char *data = base_alloc(*bytes + 1);
  cr_assert_eq(fread(data, 1, *bytes, stream), *bytes, "%s reads", path);
  data[*bytes] = '\0';
  fclose(stream);
  return data;
}

void store_write(const char *path, const void *data, size_t bytes) {
  FILE *stream = fopen(path, "wb");
  cr_assert_not_null(stream, "%s opens", path);
  cr_assert_eq(fwrite(data, 1, bytes, stream), bytes, "%s takes its bytes", path);
  cr_assert_eq(fclose(stream), 0, "%s closes", path);
}

int store_count_files(const char *folder, const char *part) {
  DIR *dir = opendir(folder);
  cr_assert_not_null(dir, "%s lists", folder);
  int n = 0;
  for (struct dirent *entry; (entry = readdir(dir));) n += strstr(entry->d_name, part) != NULL;
  closedir(dir);
  return n;
}

void store_expect(Status status, Code code, const char *phrase, const char *name) {
  cr_assert_eq(status.code, code, "%s: code %d, expected %d: %s", name, status.code, code,
               status.line ? status.line : "OK");
  cr_assert(strstr(status.line, phrase), "%s: \"%s\" does not say \"%s\"", name, status.line, phrase);
  status_clear(&status);
}

void store_ok(Status status, const char *name) {
  cr_assert_eq(status.code, CODE_OK, "%s: %s", name, status.line ? status.line : "?");
}
