/* config: layers lie over each other in the promised order; the resolved file reads back as the same config; the table of keys is
 * right. Mistakes: test_config_mistakes. */
#include "train/config/config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/configs.h"
#include "tests/support/dataset.h"
#include "train/config/config_table.h"

TestSuite(config, .init = workplace_enter, .fini = workplace_leave);

/* Loads or fails the test. */
static Config load_or_fail(const char *path, const char *const *sets, int n_sets, const char *name) {
  Config config;
  Status status = config_load(path, sets, n_sets, &config);
  cr_assert(status.code == CODE_OK, "%s: %s", name, status.line);
  return config;
}

Test(config, layers_lie_over_each_other_in_order) {
  mkdir("sub", 0777);
  write_text("sub/low.yaml", "seed: 1\noptim: {lr: 0.1, clip: 7}\ntrain: {steps: 10, keep: 5}\n"
                             "model: {n_layer: 3, ssm_cfg: {d_state: 16}}\n");
  write_text("sub/mid.yaml", "include: low.yaml\noptim: {lr: 0.2}\n");
  write_text("top.yaml", "include: [sub/mid.yaml]\nmodel: {preset: mamba2-130m}\nseed: 2\ntrain: {steps: 20}\n");
  const char *sets[] = {"train.steps=30", "model.ssm_cfg={headdim: 32, ngroups: 2}", "optim.betas=[0.5, 0.75]",
                        "train.steps=31"};
  Config c = load_or_fail("top.yaml", sets, N_OF(sets), "layers");
  cr_expect(c.optim.eps == 1e-8, "default: eps %g", c.optim.eps);
  cr_expect(c.model.d_model == 768 && c.model.ssm_cfg.layer == LAYER_MAMBA2, "preset over default");
  cr_expect(c.model.ssm_cfg.d_model == 768, "the mixer's d_model mirrors the model's");
  cr_expect(c.model.vocab_size == 50277 && !c.vocab_size_auto, "the preset names its vocabulary");
  cr_expect(c.model.n_layer == 3 && c.model.ssm_cfg.d_state == 16, "include over preset");
  cr_expect(c.optim.clip == 7 && c.train.keep == 5, "an include's include");
  cr_expect(c.optim.lr == 0.2, "a file over what it includes: lr %g", c.optim.lr);
  cr_expect(c.seed == 2, "the file over its includes");
  cr_expect(c.train.steps == 31, "the last --set over all: %lld", (long long)c.train.steps);
  cr_expect(c.model.ssm_cfg.headdim == 32 && c.model.ssm_cfg.ngroups == 2, "a --set of a map");
  cr_expect(c.optim.beta1 == 0.5 && c.optim.beta2 == 0.75, "a --set of a list");
  config_free(&c);
  const char *preset[] = {"model.preset=tiny", "model.vocab_size=auto"};
  c = load_or_fail("top.yaml", preset, 2, "preset by --set");
  cr_expect(c.model.d_model == 128 && c.model.n_layer == 3 && c.vocab_size_auto, "a preset by --set lies low as well");
  config_free(&c);
}

Test(config, an_include_that_fails_is_named) {
  write_text("a.yaml", "include: b.yaml\n");
  write_text("b.yaml", "include: a.yaml\nseed: x\n");
  write_text("c.yaml", "include: [nowhere.yaml, d.yaml]\n");
  write_text("d.yaml", "sed: 1\n");
  write_text("e.yaml", "include: [base.yaml, base2.yaml]\n");
  write_text("base.yaml", "seed: 5\n");
  write_text("base2.yaml", "include: base.yaml\n");
  for (int i = 0; i < 12; i++) {
    char *path = base_format("deep%d.yaml", i), *text = base_format("include: deep%d.yaml\n", i + 1);
    write_text(path, text);
    free(path);
    free(text);
  }
  const RefusedFile cases[] = {
      {"a.yaml", "b.yaml: include: found a.yaml, which includes this file, expected no circle\n"
                 "b.yaml:2:7: seed: found x, expected an integer in digits, 0 or more"},
      {"c.yaml", "nowhere.yaml: cannot be read: No such file or directory; expected a config in YAML\n"
                 "d.yaml:1:1: sed: unknown key; did you mean \"seed\"?"},
      {"deep0.yaml", "deep8.yaml: include: found more than 8 files deep, expected fewer"},
  };
  assert_files_refused(cases, N_OF(cases));
  Config c = load_or_fail("e.yaml", NULL, 0, "the same file on two ways");
  cr_expect(c.seed == 5, "seed %llu", (unsigned long long)c.seed);
  config_free(&c);
}

Test(config, data_lies_beside_the_config_or_in_the_working_directory) {
  mkdir("sub", 0777);
  write_text("sub/beside.txt", "x");
  write_text("sub/both.txt", "x");
  write_text("both.txt", "x");
  write_text("here.txt", "x");
  write_text("sub/c.yaml", "data: {path: [beside.txt, both.txt, here.txt, \"b*.txt\", \"h*.txt\", /abs, gone]}\n"
                           "model: {init_from: null}\n");
  write_text("sub/w.yaml", "model: {init_from: both.txt}\n");
  const char *const expected[] = {"sub/beside.txt", "sub/both.txt", "here.txt", "sub/b*.txt", "h*.txt", "/abs", "gone"};
  Config c = load_or_fail("sub/c.yaml", NULL, 0, "paths");
  cr_assert(c.data.n_paths == N_OF(expected), "%d paths", c.data.n_paths);
  for (int i = 0; i < N_OF(expected); i++)
    cr_expect(!strcmp(c.data.paths[i], expected[i]), "%s, expected %s", c.data.paths[i], expected[i]);
  config_free(&c);
  Status status = config_load("sub/w.yaml", NULL, 0, &c);
  cr_expect(status.code == CODE_USAGE && strstr(status.line, "sub/w.yaml:1:20: model.init_from: sub/both.txt: "),
            "weights: code %d, %s", (int)status.code, status.line);
  status_clear(&status);
  const char *none[] = {"model.init_from=null"};
  c = load_or_fail("sub/w.yaml", none, 1, "null takes a path back");
  cr_expect(!c.init_from, "null takes a path back");
  config_free(&c);
  const char *sets[] = {"data.path=beside.txt"};
  c = load_or_fail("sub/c.yaml", sets, 1, "a path by --set, one without a list");
  cr_expect(c.data.n_paths == 1 && !strcmp(c.data.paths[0], "sub/beside.txt"), "%s", c.data.paths[0]);
  config_free(&c);
  write_text("sub/s.h5", "x");
  write_text("s.h5", "x");
  const char *h5[] = {"data.path=[\"s.h5:/a/b\"]"};
  c = load_or_fail("sub/c.yaml", h5, 1, "a dataset in a file");
  cr_expect(!strcmp(c.data.paths[0], "sub/s.h5:/a/b"), "%s", c.data.paths[0]);
  config_free(&c);
}

Test(config, a_series_takes_its_windows_from_the_model) {
  Config c;
  Status status =
      config_parse("model: {task: forecast, context: 36, horizon: 7}\n"
                   "data: {kind: series, path: a.csv, borders: ett, columns: [OT, \"2\"], delimiter: \";\",\n"
                   "       header: false, date_column: null, calendar: [hour], features: MS, target: OT}\n",
                   "c.yaml", NULL, 0, &c);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  const SeriesConfig *s = &c.data.series;
  cr_expect(s->context == 36 && s->horizon == 7, "windows of %d + %d", s->context, s->horizon);
  cr_expect(s->n_borders == 1 && !strcmp(s->borders[0], "ett"), "one text stands for a list of one");
  cr_expect(s->n_columns == 2 && !strcmp(s->columns[1], "2") && !strcmp(s->delimiter, ";"), "columns, delimiter");
  cr_expect(s->header == HEADER_NO && !s->date_column && s->features == SERIES_MS && !strcmp(s->target, "OT"),
            "choices");
  cr_expect(s->scale && s->missing == MISSING_REFUSE && !s->task && s->season == 0, "defaults");
  config_free(&c);
}

Test(config, values_read_as_the_field_writes_them) {
  Config c;
  Status status = config_parse("optim: {lr: 3e-4, eps: 1.0e-9, clip: 1}\n"
                               "model:\n  ssm_cfg: {dt_limit: [0, inf], A_activation: softplus, d_ssm: null}\n"
                               "name: 2024\nout_dir: \"null\"\nseed: 9223372036854775806\ndata:\n",
                               "c.yaml", NULL, 0, &c);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  cr_expect(c.optim.lr == 3e-4 && c.optim.eps == 1e-9 && c.optim.clip == 1, "numbers");
  cr_expect(isinf(c.model.ssm_cfg.dt_limit[1]) && c.model.ssm_cfg.dt_limit[0] == 0, "dt_limit");
  cr_expect(c.model.ssm_cfg.A_softplus && c.model.ssm_cfg.d_ssm == 0, "choice and null");
  cr_expect(!strcmp(c.name, "2024") && !strcmp(c.out_dir, "null"), "texts that look like something else");
  cr_expect(c.seed == 9223372036854775806u, "seed %llu", (unsigned long long)c.seed);
  config_free(&c);
}

Test(config, the_table_holds_the_models_own_defaults) {
  Config c = load_or_fail(NULL, NULL, 0, "defaults");
  const ModelConfig model = model_config_default();
  cr_expect(c.vocab_size_auto && c.model.vocab_size == 0, "the vocabulary is the tokenizer's");
  c.model.vocab_size = model.vocab_size;
  char *json = model_config_to_json(&c.model), *expected = model_config_to_json(&model);
  cr_expect(!strcmp(json, expected), "found %s\nexpected %s", json, expected);
  free(json);
  free(expected);
  config_free(&c);
}

static void assert_round_trip(Config *c, const char *name) {
  char *text = config_to_yaml(c);
  Config again;
  Status status = config_parse(text, "resolved", NULL, 0, &again);
  cr_assert(status.code == CODE_OK, "%s: %s\n%s", name, status.line, text);
  char *text_again = config_to_yaml(&again);
  cr_expect(!strcmp(text, text_again), "%s\n%s\nread back as\n%s", name, text, text_again);
  cr_expect(!memcmp(&c->model.ssm_cfg.dt_limit, &again.model.ssm_cfg.dt_limit, 2 * sizeof(double)), "%s: dt_limit",
            name);
  cr_expect(c->optim.lr == again.optim.lr && c->optim.beta2 == again.optim.beta2 && c->optim.eps == again.optim.eps,
            "%s: optim", name);
  cr_expect(c->model.n_attn_layers == again.model.n_attn_layers &&
                !memcmp(c->model.attn_layer_idx, again.model.attn_layer_idx, sizeof c->model.attn_layer_idx),
            "%s: attn_layer_idx", name);
  cr_assert(c->data.series.n_columns == again.data.series.n_columns, "%s: %d columns", name,
            again.data.series.n_columns);
  for (int i = 0; i < c->data.series.n_columns; i++)
    cr_expect(!strcmp(c->data.series.columns[i], again.data.series.columns[i]), "%s: column %d", name, i);
  cr_assert(c->data.n_paths == again.data.n_paths, "%s: %d paths", name, again.data.n_paths);
  for (int i = 0; i < c->data.n_paths; i++)
    cr_expect(!strcmp(c->data.paths[i], again.data.paths[i]), "%s: path \"%s\" read back as \"%s\"", name,
              c->data.paths[i], again.data.paths[i]);
  cr_expect(!strcmp(c->name, again.name) && c->seed == again.seed && c->dtype == again.dtype, "%s: name, seed", name);
  cr_expect(c->vocab_size_auto == again.vocab_size_auto && c->model.vocab_size == again.model.vocab_size,
            "%s: vocabulary", name);
  cr_expect(c->train.epochs == again.train.epochs && c->train.micro_batch_size == again.train.micro_batch_size,
            "%s: train", name);
  config_free(&again);
  free(text);
  free(text_again);
}

Test(config, the_resolved_file_reads_back_as_the_same_config) {
  for (const char *const *preset = model_preset_names(); *preset; preset++) {
    char *set = base_format("model.preset=%s", *preset);
    Config c = load_or_fail(NULL, (const char *const *)&set, 1, *preset);
    assert_round_trip(&c, *preset);
    config_free(&c);
    free(set);
  }
  const char *sets[] = {
      "name=\"it's: a \\\"name\\\" #1\\t\"",
      "out_dir=\"~\"",
      ("data.path=[\"a b.txt\", \"-\", \"true\", \"*.txt\", \"12\", \"\xc3\xa9\", "
       "\"a \\u0085 \\u2028 \\uFFFF\\x80\\x7F\\u1F600 \", \"a\\\\b\"]"),
      "optim.lr=0.1000000000000000055511151231257827",
      "optim.min_lr_ratio=0.30000000000000004",
      "model.attn_layer_idx=[5, 0]",
      "model.attn_cfg={num_heads: 4, num_heads_kv: 2, softmax_scale: 0.3}",
      "model.ssm_cfg={layer: Mamba2, dt_limit: [0.001, 0.7], d_ssm: 384}",
      "train={epochs: 1.5, micro_batch_size: 2, virtual_ranks: 4}",
      "debug={allow: true, fault: nan_grad@12}",
      "dtype=bf16",
      "data.borders=[2017-06-26, \"2017-10-24 00:00\", 2018-02-21]",
      "data.columns=[\"a b\", \"3\", \"null\"]",
      "data.delimiter=\",\"",
      "data.date_column=null",
      "data.header=true",
      "data.generate={task: regimes, noise: 0.3}",
  };
  Config c = load_or_fail(NULL, sets, N_OF(sets), "odd values");
  c.init_from = base_strdup("-");
  c.train.steps = 77; /* what a run makes of its epochs */
  c.model.vocab_size = 300;
  char *text = config_to_yaml(&c);
  cr_expect(strstr(text, "  steps: 0\n") && strstr(text, "  vocab_size: auto\n"), "what follows is left to follow");
  cr_expect(strstr(text, "  lr: 0.1\n") && strstr(text, "  min_lr_ratio: 0.30000000000000004\n"), "shortest numbers");
  free(text);
  c.train.steps = 0;
  c.model.vocab_size = 0;
  assert_round_trip(&c, "odd values");
  config_free(&c);
}

Test(config, a_run_is_asked_for_its_length_and_data) {
  Config c = load_or_fail(NULL, NULL, 0, "defaults");
  Status status = config_require_run(&c, "c.yaml");
  cr_assert(status.code == CODE_USAGE, "neither: code %d", (int)status.code);
  cr_expect(!strcmp(status.line,
                    "c.yaml: data.path: found nothing, expected files, folders or globs (or data.kind: synthetic)\n"
                    "c.yaml: train.steps: found 0, expected the number of steps (or train.epochs)"),
            "%s", status.line);
  status_clear(&status);
  config_free(&c);
  const char *series[] = {"model.task=forecast", "data.kind=series", "train.steps=1"};
  c = load_or_fail(NULL, series, 3, "series");
  status = config_require_run(&c, "c.yaml");
  cr_expect(status.code == CODE_USAGE && strstr(status.line, "data.path: found nothing, expected one CSV"),
            "series: %s", status.line);
  status_clear(&status);
  config_free(&c);
  const char *sets[] = {"data.kind=synthetic", "train.epochs=0.5"};
  c = load_or_fail(NULL, sets, 2, "complete");
  cr_expect(config_require_run(&c, "c.yaml").code == CODE_OK, "complete");
  config_free(&c);
}

Test(config, every_key_has_its_row_right) {
  for (int i = 0; i < n_config_keys; i++) {
    const Key *key = &config_keys[i];
    cr_expect(key_index(key->path) == i, "%s stands once", key->path);
    cr_expect(key->help && strlen(key->help) > 5, "%s has help", key->path);
    cr_expect(!key_is_section(key->path), "%s is a key, not a section", key->path);
    char *expected = key_expected(key);
    cr_expect(strlen(expected) > 1, "%s says what it takes", key->path);
    free(expected);
  }
}
