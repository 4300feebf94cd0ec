/* Golden files: what we compute is Mamba, as an independent float64 recurrence says (tests/golden/README.md); and the
 * checker sees what is wrong. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/store.h"
#include "train/check/check_config.h"
#include "train/check/golden.h"

/* Room for small models; address sanitizer pays for every byte reserved. */
#define SIZES ((DeviceSizes){(size_t)64 << 20, (size_t)512 << 20, (size_t)64 << 20})

#define GOLDEN_DIR ASPIS_SOURCE_DIR "/tests/golden"

static void all_cases_pass(Dtype dtype) {
  char **paths;
  int n;
  Status status = golden_list(GOLDEN_DIR, &paths, &n);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  cr_assert_geq(n, 10, "%d golden cases", n);
  Device device;
  status = device_open(&device, "cpu", dtype == F64 ? F64 : F32, SIZES);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  for (int i = 0; i < n; i++) {
    GoldenResult result;
    status = golden_check(&device, dtype, 0, paths[i], &result);
    cr_assert_eq(status.code, CODE_OK, "%s", status.line);
    cr_assert(result.ok, "%s in %s: %s: error %g, tolerance %g", paths[i], dtype_name(dtype), result.where,
              result.error, result.tolerance);
    cr_assert(result.where[0], "%s: nothing was compared", paths[i]);
  }
  golden_list_free(paths, n);
  device_close(&device);
}

Test(golden, holds_in_f32) { all_cases_pass(F32); }
Test(golden, holds_in_f64_to_one_part_in_a_thousand_million) { all_cases_pass(F64); }
Test(golden, holds_in_bf16_within_its_rounding) { all_cases_pass(BF16); }

Test(golden, listing_finds_cases_of_all_kinds_in_order_and_refuses_an_empty_folder) {
  char folder[] = "/tmp/aspis-golden-XXXXXX", **paths;
  int n;
  cr_assert(mkdtemp(folder), "no temporary folder");
  Status status = golden_list(folder, &paths, &n);
  cr_assert_eq(status.code, CODE_DATA, "empty folder: code %d", status.code);
  status_clear(&status);
  rmdir(folder);
  status = golden_list(folder, &paths, &n);
  cr_assert_eq(status.code, CODE_DATA, "missing folder: code %d", status.code);
  status_clear(&status);

  status = golden_list(GOLDEN_DIR, &paths, &n);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  int kinds[3] = {0};
  for (int i = 0; i < n; i++) {
    cr_assert(i == 0 || strcmp(paths[i - 1], paths[i]) < 0, "%s: out of order", paths[i]);
    kinds[0] += strstr(paths[i], "/mixer_") != NULL;
    kinds[1] += strstr(paths[i], "/lm_") != NULL;
    kinds[2] += strstr(paths[i], "/forecaster_") != NULL;
  }
  cr_assert(kinds[0] && kinds[1] && kinds[2], "mixers %d, language models %d, forecasters %d", kinds[0], kinds[1],
            kinds[2]);
  golden_list_free(paths, n);
}

Test(golden, a_file_that_is_no_hdf5_or_lacks_tensors_is_an_error_and_no_result) {
  char folder[] = "/tmp/aspis-golden-XXXXXX";
  cr_assert(mkdtemp(folder), "no temporary folder");
  Device device;
  Status status = device_open(&device, "cpu", F32, SIZES);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  GoldenResult result;

  char *path = base_format("%s/mixer_text.h5", folder);
  FILE *file = fopen(path, "w");
  fputs("not HDF5", file);
  fclose(file);
  status = golden_check(&device, F32, 0, path, &result);
  cr_assert_eq(status.code, CODE_CHECKPOINT, "text file: code %d", status.code);
  status_clear(&status);
  unlink(path);
  free(path);

  path = base_format("%s/forecaster_empty.h5", folder);
  H5File *h5;
  status = h5_create(path, 1000, false, CODE_CHECKPOINT, &h5);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  status = h5_write(h5, "series", H5_F64, 1, (const int64_t[]){1}, (const double[]){1});
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  status = h5_commit(h5);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  status = golden_check(&device, F32, 0, path, &result);
  cr_assert_eq(status.code, CODE_CHECKPOINT, "file without config: code %d", status.code);
  status_clear(&status);
  unlink(path);
  free(path);

  status = golden_check(&device, F32, 0, "/tmp/whatever.h5", &result);
  cr_assert_eq(status.code, CODE_DATA, "unknown kind: code %d", status.code);
  status_clear(&status);
  rmdir(folder);
  device_close(&device);
}

/* forecaster_mamba3.h5 with another key in its config, in the place of one of the same length. */
static void expect_refused_config(Device *device, const char *key) {
  static const char OLD[] = "\"attn_layer_idx\": []";
  char path[] = "/tmp/forecaster_XXXXXX.h5";
  size_t n;
  char *bytes = store_read(ASPIS_SOURCE_DIR "/tests/golden/forecaster_mamba3.h5", &n),
       *at = memmem(bytes, n, OLD, sizeof OLD - 1);
  cr_assert(at && strlen(key) == sizeof OLD - 1, "%s: no place for it", key);
  memcpy(at, key, strlen(key));
  cr_assert(mkstemps(path, 3) >= 0, "no temporary file");
  store_write(path, bytes, n);
  GoldenResult result;
  store_expect(golden_check(device, F32, 0, path, &result), CODE_CHECKPOINT,
               "expected one without a cycle, trained by mse", key);
  unlink(path);
  free(bytes);
}

Test(golden, a_forecaster_that_the_files_cannot_describe_is_refused) {
  Device device;
  store_ok(device_open(&device, "cpu", F32, SIZES), "device");
  expect_refused_config(&device, "\"cycle\": 3          ");
  expect_refused_config(&device, "\"loss\": \"quantile\"  ");
  device_close(&device);
}

Test(golden, an_error_counts_by_how_much_of_its_tolerance_it_uses_and_nan_most) {
  GoldenResult result = {.ok = true};
  GoldenCase c = {.act = F32, .result = &result};
  golden_record(&c, GOLDEN_GRADIENT, 5e-5, "dparam/a", 0);
  golden_record(&c, GOLDEN_FORWARD, 6e-6, "y", 0);
  cr_assert_str_eq(result.where, "y", "6e-6 of 1e-5 is worse than 5e-5 of 1e-4");
  cr_assert(result.ok, "both are within tolerance");
  golden_record(&c, GOLDEN_GRADIENT, NAN, "dparam/b", 0);
  golden_record(&c, GOLDEN_GRADIENT, 3, "dparam/c", 0);
  cr_assert_str_eq(result.where, "dparam/b", "NaN is the worst");
  cr_assert_not(result.ok, "NaN is out of tolerance");
  GoldenResult tokens = {.ok = true};
  c.result = &tokens;
  golden_record(&c, GOLDEN_TOKENS, 0, "greedy", 0);
  cr_assert(tokens.ok, "no wrong token");
  golden_record(&c, GOLDEN_TOKENS, 1, "greedy", 0);
  cr_assert_not(tokens.ok, "one wrong token");
}

Test(golden, comparing_sees_a_wrong_entry_a_missing_tensor_and_angles_modulo_two_pi) {
  char path[] = "/tmp/aspis-golden-XXXXXX";
  int fd = mkstemp(path);
  cr_assert_geq(fd, 0, "no temporary file");
  close(fd);
  GoldenResult result = {.ok = true};
  Device device;
  GoldenCase c = {.device = &device, .act = F32, .path = path, .result = &result};
  Status status = device_open(&device, "cpu", F32, SIZES);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  status = arena_open(&c.host, "golden", 1 << 20);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  status = h5_create(path, 1000, false, CODE_CHECKPOINT, &c.file);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  const double values[] = {0.5, -2, 6.25};
  status = h5_write(c.file, "t", H5_F64, 1, (const int64_t[]){3}, values);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  status = h5_commit(c.file);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  status = h5_open_read(path, CODE_CHECKPOINT, &c.file);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);

  float got[] = {0.5f, -2, 6.25f};
  Tensor tensor = tensor_over(got, F32, 1, (const int64_t[]){3});
  status = golden_compare(&c, GOLDEN_FORWARD, "t", &tensor);
  cr_assert(status.code == CODE_OK && result.error == 0, "equal: error %g", result.error);
  got[2] = 6.25f - 6.2831853f;
  status = golden_compare(&c, GOLDEN_ANGLE, "t", &tensor);
  cr_assert(status.code == CODE_OK && result.ok, "a full turn: error %g", result.error);
  got[2] = 6.25f, got[1] = -2.125f;
  status = golden_compare(&c, GOLDEN_GRADIENT, "t", &tensor);
  cr_assert(status.code == CODE_OK && fabs(result.error - 0.02) < 1e-12, "0.125 of 6.25: error %g", result.error);
  status = golden_compare(&c, GOLDEN_GRADIENT, "t", NULL);
  cr_assert(status.code == CODE_OK && isinf(result.error) && !result.ok, "missing: error %g", result.error);
  Tensor shorter = tensor_over(got, F32, 1, (const int64_t[]){2});
  status = golden_compare(&c, GOLDEN_GRADIENT, "t", &shorter);
  cr_assert_eq(status.code, CODE_CHECKPOINT, "two of three elements: code %d", status.code);
  status_clear(&status);
  h5_close(c.file);
  device_close(&device);
  unlink(path);
}

/* ---- a config's own gradients */

static Config small_config(LayerKind layer, Task task) {
  Config config = {.seed = 5, .model = model_config_default()};
  ModelConfig *m = &config.model;
  m->task = task, m->d_model = 16, m->n_layer = 2, m->d_intermediate = 8, m->vocab_size = 13;
  m->input_dim = 3, m->output_dim = 2, m->horizon = 2;
  m->ssm_cfg = mixer_config_default(layer);
  m->ssm_cfg.d_model = 16, m->ssm_cfg.d_state = 8, m->ssm_cfg.headdim = 8, m->ssm_cfg.chunk_size = 8;
  m->attn_layer_idx[0] = 1, m->n_attn_layers = 1, m->attn_cfg.num_heads = 2;
  return config;
}

Test(check_config, finds_the_gradients_of_small_models_right) {
  static const struct {
    const char *name;
    LayerKind layer;
    Task task;
    Dtype dtype;
  } CASES[] = {{"mamba2 lm f32", LAYER_MAMBA2, TASK_LM, F32},
               {"mamba3 lm bf16", LAYER_MAMBA3, TASK_LM, BF16},
               {"mamba3 forecaster f32", LAYER_MAMBA3, TASK_FORECAST, F32},
               {"mamba2 lm f64", LAYER_MAMBA2, TASK_LM, F64}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    Config config = small_config(CASES[i].layer, CASES[i].task);
    GradientReport report;
    Status status = check_config(&config, "cpu", CASES[i].dtype, 0, &report);
    cr_assert_eq(status.code, CODE_OK, "%s: %s", CASES[i].name, status.line);
    cr_assert_gt(report.n_groups, 10, "%s: %d groups", CASES[i].name, report.n_groups);
    for (int g = 0; g < report.n_groups; g++)
      cr_assert(gradient_group_ok(&report, &report.groups[g]), "%s: %s: against differences %g, against f64 %g",
                CASES[i].name, report.groups[g].name, report.groups[g].difference_error, report.groups[g].dtype_error);
    gradient_report_free(&report);
  }
}

Test(check_config, groups_parameters_over_layers) {
  Config config = small_config(LAYER_MAMBA3, TASK_LM);
  GradientReport report;
  Status status = check_config(&config, "cpu", F64, 0, &report);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  bool found = false;
  for (int g = 0; g < report.n_groups; g++) {
    if (strcmp(report.groups[g].name, "backbone.layers.*.norm.weight") != 0) continue;
    found = true;
    cr_assert_eq(report.groups[g].n_tensors, 2, "norm.weight of %d layers", report.groups[g].n_tensors);
  }
  cr_assert(found, "no group backbone.layers.*.norm.weight");
  gradient_report_free(&report);
}

Test(check_config, a_tolerance_nobody_can_meet_is_not_met) {
  Config config = small_config(LAYER_MAMBA2, TASK_LM);
  GradientReport report;
  Status status = check_config(&config, "cpu", F32, 1e-12, &report);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  int n_failed = 0;
  for (int g = 0; g < report.n_groups; g++) n_failed += !gradient_group_ok(&report, &report.groups[g]);
  cr_assert_gt(n_failed, 0, "f32 within 1e-12 of f64");
  gradient_report_free(&report);
}
