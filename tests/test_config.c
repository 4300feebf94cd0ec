/* config: every kind of mistake is named where it stands and with what to write instead, all at once; layers lie over
 * each other in the promised order; the resolved file reads back as the same config. */
#include "train/config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tensor/rng.h"
#include "tests/support/dataset.h"
#include "train/config_table.h"

TestSuite(config, .init = workplace_enter, .fini = workplace_leave);

#define N_OF(array) ((int)(sizeof(array) / sizeof *(array)))

/* Loads or fails the test. */
static Config load_or_fail(const char *path, const char *const *sets, int n_sets, const char *name) {
  Config config;
  Status status = config_load(path, sets, n_sets, &config);
  cr_assert(status.code == CODE_OK, "%s: %s", name, status.line);
  return config;
}

/* The message of a text that must be refused, malloc'ed. */
static char *refusal(const char *text, const char *const *sets, int n_sets, const char *name) {
  Config config;
  Status status = config_parse(text, "c.yaml", sets, n_sets, &config);
  cr_assert(status.code == CODE_USAGE, "%s: code %d, expected %d", name, (int)status.code, (int)CODE_USAGE);
  return status.line;
}

static void assert_message(const char *text, const char *const *sets, int n_sets, const char *expected,
                           const char *name) {
  char *message = refusal(text, sets, n_sets, name);
  cr_expect(!strcmp(message, expected), "%s\n  found:    %s\n  expected: %s", name, message, expected);
  free(message);
}

typedef struct Mistake {
  const char *name, *text, *message;
} Mistake;

Test(config, a_mistake_names_its_place_what_was_found_and_what_is_expected) {
  const Mistake cases[] = {
      {"unknown key", "optim:\n  lrr: 1", "c.yaml:2:3: optim.lrr: unknown key; did you mean \"optim.lr\"?"},
      {"unknown section", "modle: {d_model: 3}", "c.yaml:1:1: modle: unknown key; did you mean \"model\"?"},
      {"right key, wrong section", "model: {d_state: 3}",
       "c.yaml:1:9: model.d_state: unknown key; did you mean \"model.ssm_cfg.d_state\"?"},
      {"part of a name", "train: {batch: 3}",
       "c.yaml:1:9: train.batch: unknown key; did you mean \"train.batch_size\"?"},
      {"nothing like it", "zebra: 1", "c.yaml:1:1: zebra: unknown key; `aspis help config` lists all"},
      {"text for an integer", "seed: many", "c.yaml:1:7: seed: found many, expected an integer in digits, 0 or more"},
      {"exponent for an integer", "train: {steps: 1e3}",
       "c.yaml:1:16: train.steps: found 1e3, expected an integer in digits, 0 or more"},
      {"quoted integer", "seed: \"3\"", "c.yaml:1:7: seed: found \"3\", expected an integer in digits, 0 or more"},
      {"integer past its field", "data: {curriculum_steps: 3000000000}",
       "c.yaml:1:26: data.curriculum_steps: found 3000000000, expected an integer in digits, 0 or more"},
      {"integer past 64 bits", "seed: 9223372036854775808",
       "c.yaml:1:7: seed: found 9223372036854775808, expected an integer in digits, 0 or more"},
      {"below the range", "train: {batch_size: 0}",
       "c.yaml:1:21: train.batch_size: found 0, expected an integer in digits, 1 to 16777216"},
      {"open range", "optim: {lr: 0}", "c.yaml:1:13: optim.lr: found 0, expected a number, above 0"},
      {"infinite number", "optim: {lr: .inf}", "c.yaml:1:13: optim.lr: found .inf, expected a number, above 0"},
      {"not a number", "optim: {lr: .nan}", "c.yaml:1:13: optim.lr: found .nan, expected a number, above 0"},
      {"overflowing number", "optim: {lr: 1e999}", "c.yaml:1:13: optim.lr: found 1e999, expected a number, above 0"},
      {"hexadecimal number", "optim: {lr: 0x1p-3}", "c.yaml:1:13: optim.lr: found 0x1p-3, expected a number, above 0"},
      {"pair out of range", "optim: {betas: [0.9, 1.0]}",
       "c.yaml:1:16: optim.betas: found [0.9, 1.0], expected a list of two numbers, 0 to below 1"},
      {"three for a pair", "optim: {betas: [0.9, 0.9, 0.9]}",
       "c.yaml:1:16: optim.betas: found [0.9, 0.9, 0.9], expected a list of two numbers, 0 to below 1"},
      {"yes for a boolean", "model: {tie_embeddings: yes}",
       "c.yaml:1:25: model.tie_embeddings: found yes, expected true or false"},
      {"wrong choice", "optim: {kind: adam}", "c.yaml:1:15: optim.kind: found adam, expected adamw or sgd"},
      {"wrong word", "train: {micro_batch_size: some}",
       "c.yaml:1:27: train.micro_batch_size: found some, expected an integer in digits, 1 to 16777216, or auto"},
      {"no value", "train:\n  steps:\n  keep: 2",
       "c.yaml:2:3: train.steps: found nothing, expected an integer in digits, 0 or more"},
      {"map for a number", "seed: {a: 1}", "c.yaml:1:7: seed: found a map, expected an integer in digits, 0 or more"},
      {"list for a section", "optim: [1]", "c.yaml:1:8: optim: found [1], expected a map of keys"},
      {"text in a list of integers", "model: {attn_layer_idx: [1, x]}",
       "c.yaml:1:25: model.attn_layer_idx: found [1, x], expected a list of integers, 0 to 255"},
      {"dotted key", "optim.lr: 1",
       "c.yaml:1:1: optim.lr: found a dot in a key, expected nested maps (dotted keys are for --set)"},
      {"duplicate", "optim:\n  lr: 1\n  lr: 2", "c.yaml:3:3: optim.lr: found a second time in this map, expected once"},
      {"alias", "optim: &o {lr: 1}\ntrain: *o",
       "c.yaml:1:8: found an anchor (&), which is not taken; write the value, or use include\n"
       "c.yaml:2:8: found an alias (*), which is not taken; write the value, or use include"},
      {"merge key", "optim:\n  <<: {lr: 1}", "c.yaml:2:3: optim.<<: merge keys are not taken; use include"},
      {"tag", "seed: !!int 3", "c.yaml:1:7: found a tag (!), which is not taken; write the plain value"},
      {"map as a key", "{a: 1}: 2", "c.yaml:1:1: found a map or list as a key, expected a name"},
      {"NUL in a text", "name: \"a\\0b\"", "c.yaml:1:7: found a NUL character in the text, expected none"},
      {"syntax", "optim: {lr: 1\nseed: 2",
       "c.yaml:2:5: not YAML: did not find expected ',' or '}' while parsing a flow mapping"},
      {"tab", "optim:\n\tlr: 1", "c.yaml:2:1: not YAML: found a tab in the indentation, expected spaces"},
      {"bad UTF-8", "seed: 1\nname: a\xff", "c.yaml:2:8: not UTF-8 text: invalid leading UTF-8 octet"},
      {"control character", "name: \x01", "c.yaml:1:7: not UTF-8 text: control characters are not allowed"},
      {"empty", "# only this\n", "c.yaml:1:1: found nothing in it, expected keys (`aspis help config` lists them)"},
      {"no map", "hello", "c.yaml:1:1: found hello, expected keys (`aspis help config` lists them)"},
      {"two documents", "seed: 1\n---\nseed: 2", "c.yaml:2:1: found a second document (---), expected one"},
      {"include that is no path", "include: {a: 1}",
       "c.yaml:1:10: include: found a map, expected a path or a list of paths"},
  };
  for (int i = 0; i < N_OF(cases); i++) assert_message(cases[i].text, NULL, 0, cases[i].message, cases[i].name);
}

Test(config, what_is_not_built_is_refused_by_name) {
  const Mistake cases[] = {
      {"residual_in_fp32", "model: {residual_in_fp32: false}",
       "c.yaml:1:27: model.residual_in_fp32: found false, which is not built in this version, expected true"},
  };
  for (int i = 0; i < N_OF(cases); i++) assert_message(cases[i].text, NULL, 0, cases[i].message, cases[i].name);
  Config config;
  Status status = config_parse("data: {pack: false}", "c.yaml", NULL, 0, &config);
  cr_assert(status.code == CODE_OK, "the values that change nothing are taken: %s", status.line);
  config_free(&config);
}

Test(config, combinations_are_checked_with_the_fix) {
  const Mistake cases[] = {
      {"headdim", "model: {ssm_cfg: {headdim: 60}}",
       "c.yaml:1:28: model.ssm_cfg.headdim: found 60, expected a divisor of the inner width 768"},
      {"attention layer twice", "model: {attn_layer_idx: [1, 1], attn_cfg: {num_heads: 4}}",
       "c.yaml:1:25: model.attn_layer_idx: found layer 1 twice, expected each once"},
      {"virtual ranks, power", "train: {virtual_ranks: 3}",
       "c.yaml:1:24: train.virtual_ranks: found 3, expected a power of two, or auto"},
      {"virtual ranks, divisor", "train: {virtual_ranks: 8, batch_size: 12}",
       "c.yaml:1:24: train.virtual_ranks: found 8, expected a divisor of train.batch_size = 12"},
      {"tbptt, divisor", "data: {seq_len: 64, tbptt: {segment: 24}}",
       "c.yaml:1:38: data.tbptt.segment: found 24, expected a divisor of data.seq_len = 64"},
      {"tbptt, synthetic", "data: {kind: synthetic, tbptt: {segment: 64}}",
       "c.yaml:1:42: data.tbptt.segment: found 64 beside a data.kind whose sequences stand alone, expected data.kind: "
       "text or shards"},
      {"ends of shards' documents", "data: {kind: shards, pack: true, document_end: x}",
       "c.yaml:1:48: data.document_end: found \"x\" beside data.kind: shards, whose documents are those of aspis "
       "prepare "
       "--document-end"},
      {"micro batch", "train: {virtual_ranks: 2, batch_size: 12, micro_batch_size: 4}",
       "c.yaml:1:61: train.micro_batch_size: found 4, expected a divisor of train.batch_size / train.virtual_ranks = "
       "6"},
      {"split", "data: {split: {train: 0.9, val: 0.2}}",
       "c.yaml:1:33: data.split.val: found 0.2 beside data.split.train = 0.9, expected a sum of 1 at most"},
      {"series for a language model", "data: {kind: series}",
       "c.yaml:1:14: data.kind: found series beside model.task: lm, expected text or synthetic (or model.task: "
       "forecast)"},
      {"shares of a series", "model: {task: forecast}\ndata: {kind: series, split: {train: 0.7, val: 0.2, test: 0.2}}",
       "c.yaml:2:58: data.split.test: found 0.2 beside data.split.train = 0.7 and val = 0.2, expected a sum of 1 at "
       "most"},
      {"two files of a series", "model: {task: forecast}\ndata: {kind: series, path: [a, b]}",
       "c.yaml:2:28: data.path: found 2, expected one CSV or HDF5 dataset, or data.generate.task"},
      {"a file and a rule", "model: {task: forecast}\ndata: {kind: series, path: a, generate: {task: sine}}",
       "c.yaml:2:28: data.path: found 1, expected one CSV or HDF5 dataset, or data.generate.task"},
      {"two borders", "model: {task: forecast}\ndata: {kind: series, borders: [2017-06-26, 2017-10-24]}",
       "c.yaml:2:31: data.borders: found 2, expected ett, or three dates: validation starts, test starts, end"},
      {"max_length", "data: {kind: synthetic, seq_len: 30}",
       "c.yaml: data.max_length: found 40, expected at most data.seq_len = 30"},
      {"min_length", "data: {kind: synthetic, min_length: 41}",
       "c.yaml:1:37: data.min_length: found 41, expected at most data.max_length = 40"},
      {"curriculum", "data: {kind: synthetic, curriculum_steps: 5, start_max_length: 41}",
       "c.yaml:1:64: data.start_max_length: found 41, expected data.min_length = 3 to data.max_length = 40"},
      {"warm-up", "train: {steps: 5}\noptim: {warmup_steps: 6}",
       "c.yaml:2:23: optim.warmup_steps: found 6, expected at most train.steps = 5"},
      {"wsd", "optim: {schedule: wsd}",
       "c.yaml: optim.decay_steps: found 0, expected the length of the final decay (optim.schedule is wsd)"},
      {"wsd too long", "train: {steps: 9}\noptim: {schedule: wsd, decay_steps: 5, warmup_steps: 5}",
       "c.yaml:2:37: optim.decay_steps: found 5, expected at most train.steps - optim.warmup_steps = 4"},
      {"steps and epochs", "train: {steps: 5, epochs: 1}",
       "c.yaml:1:27: train.epochs: found 1 beside train.steps = 5, expected one of the two; set the other to 0"},
      {"preset", "model: {preset: mamba2-130}",
       "c.yaml:1:17: model.preset: found \"mamba2-130\", expected a preset; did you mean \"mamba2-130m\"?"},
      {"name", "name: a/b",
       "c.yaml:1:7: name: found \"a/b\", expected the name of a folder, without / and not beginning with a dot"},
      {"fault not allowed", "debug: {fault: nan_loss@3}",
       "c.yaml:1:16: debug.fault: found \"nan_loss@3\", expected none unless debug.allow is true"},
      {"fault unknown", "debug: {allow: true, fault: fire@3}",
       "c.yaml:1:29: debug.fault: found \"fire@3\", expected KIND@STEP[,rank=R][,phase=P][,seconds=S], KIND one of "
       "nan_loss, nan_grad, "
       "kill, stop, slow, diverge, P one of start, data, gradient, reduce, update, compare, evaluate, save, wait, "
       "finish"},
  };
  for (int i = 0; i < N_OF(cases); i++) assert_message(cases[i].text, NULL, 0, cases[i].message, cases[i].name);
}

Test(config, all_mistakes_are_reported_at_once_also_those_of_sets) {
  const char *sets[] = {"optim.lrr=1", "seed=x", "train.steps", "optim.betas=[1", "include=a.yaml"};
  assert_message("seed: -1\noptim: {clip: -1, kind: x}\nseed: 2\n", sets, 5,
                 "c.yaml:3:1: seed: found a second time in this map, expected once\n"
                 "--set train.steps: found no KEY=VALUE, expected for example --set optim.lr=3e-4\n"
                 "--set optim.betas=[1: not YAML: did not find expected ',' or ']' while parsing a flow sequence\n"
                 "c.yaml:1:7: seed: found -1, expected an integer in digits, 0 or more\n"
                 "c.yaml:2:15: optim.clip: found -1, expected a number, 0 or more\n"
                 "c.yaml:2:25: optim.kind: found x, expected adamw or sgd\n"
                 "--set optim.lrr=1: optim.lrr: unknown key; did you mean \"optim.lr\"?\n"
                 "--set seed=x: seed: found x, expected an integer in digits, 0 or more\n"
                 "--set include=a.yaml: include: stands in files only",
                 "several");
}

Test(config, files_that_cannot_be_configs_are_refused_in_one_line) {
  mkdir("folder", 0777);
  const struct {
    const char *path, *message;
  } cases[] = {
      {"missing.yaml", "missing.yaml: cannot be read: No such file or directory; expected a config in YAML"},
      {"folder", "folder: found a folder, expected a config in YAML"},
      {"folder/", "folder/: found a folder, expected a config in YAML"},
  };
  for (int i = 0; i < N_OF(cases); i++) {
    Config config;
    Status status = config_load(cases[i].path, NULL, 0, &config);
    cr_assert(status.code == CODE_USAGE, "%s: code %d", cases[i].path, (int)status.code);
    cr_expect(!strcmp(status.line, cases[i].message), "%s: %s", cases[i].path, status.line);
    status_clear(&status);
  }
}

/* `unit` n times between two texts, malloc'ed. */
static char *repeated(const char *before, const char *unit, int n, const char *after) {
  size_t length = strlen(unit), at = strlen(before);
  char *text = base_alloc(at + (size_t)n * length + strlen(after) + 1);
  memcpy(text, before, at);
  for (int i = 0; i < n; i++, at += length) memcpy(text + at, unit, length);
  strcpy(text + at, after);
  return text;
}

Test(config, a_hostile_file_meets_a_limit) {
  struct {
    const char *name;
    char *text;
    const char *message;
  } cases[] = {
      {"100,000 brackets", repeated("a: ", "[", 100000, ""),
       "c.yaml:1:35: found maps or lists nested deeper than 32, expected a config"},
      {"20,000 values", repeated("a: [", "1,", 20000, "]"),
       "c.yaml:1:19999: found more than 10000 values, expected a config"},
      {"2 MiB", repeated("#", "xy", 1 << 20, "\nseed: 1"), "c.yaml: found more than 1048576 bytes, expected a config"},
  };
  for (int i = 0; i < N_OF(cases); i++) {
    double start = base_seconds();
    assert_message(cases[i].text, NULL, 0, cases[i].message, cases[i].name);
    cr_expect(base_seconds() - start < 2, "%s: took %.1f s", cases[i].name, base_seconds() - start);
    free(cases[i].text);
  }
  char *text = base_strdup("");
  for (int i = 0; i < 300; i++) {
    char *longer = base_format("%sk%d: 1\n", text, i);
    free(text);
    text = longer;
  }
  char *message = refusal(text, NULL, 0, "300 mistakes");
  cr_expect(strstr(message, "... and 200 more mistakes"), "300 mistakes: %s", message);
  free(message);
  free(text);
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
  const struct {
    const char *path, *message;
  } cases[] = {
      {"a.yaml", "b.yaml: include: found a.yaml, which includes this file, expected no circle\n"
                 "b.yaml:2:7: seed: found x, expected an integer in digits, 0 or more"},
      {"c.yaml", "nowhere.yaml: cannot be read: No such file or directory; expected a config in YAML\n"
                 "d.yaml:1:1: sed: unknown key; did you mean \"seed\"?"},
      {"deep0.yaml", "deep8.yaml: include: found more than 8 files deep, expected fewer"},
  };
  for (int i = 0; i < N_OF(cases); i++) {
    Config config;
    Status status = config_load(cases[i].path, NULL, 0, &config);
    cr_assert(status.code == CODE_USAGE, "%s: code %d", cases[i].path, (int)status.code);
    cr_expect(!strcmp(status.line, cases[i].message), "%s: %s", cases[i].path, status.line);
    status_clear(&status);
  }
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

/* One edit of the last name of a path; false when it gives nothing new. */
static bool one_edit(const char *path, Rng *rng, char typo[96]) {
  size_t length = strlen(path), from = strrchr(path, '.') ? (size_t)(strrchr(path, '.') - path) + 1 : 0;
  size_t at = from + rng_below(rng, (uint32_t)(length - from));
  char letter = (char)('a' + rng_below(rng, 26));
  int tail = (int)(length - at);
  switch (rng_below(rng, 4)) {
  case 0: snprintf(typo, 96, "%.*s%.*s", (int)at, path, tail - 1, path + at + 1); break;
  case 1: snprintf(typo, 96, "%.*s%c%.*s", (int)at, path, letter, tail, path + at); break;
  case 2: snprintf(typo, 96, "%.*s%c%.*s", (int)at, path, letter, tail - 1, path + at + 1); break;
  default:
    if (at + 1 >= length) return false;
    snprintf(typo, 96, "%.*s%c%c%.*s", (int)at, path, path[at + 1], path[at], tail - 2, path + at + 2);
  }
  return typo[from] && strcmp(typo, path) && key_index(typo) < 0 && !key_is_section(typo);
}

Test(config, the_right_name_is_suggested_for_a_slip_of_the_finger) {
  Rng rng = rng_make(1, RNG_TEST, 0, 0);
  int n = 0, n_right = 0;
  for (int i = 0; i < n_config_keys; i++)
    for (int j = 0; j < 12; j++) {
      char typo[96];
      if (!one_edit(config_keys[i].path, &rng, typo)) continue;
      char *set = base_format("%s=1", typo), *line = refusal("seed: 1", (const char *const *)&set, 1, typo);
      char *wish = base_format("--set %s=1: %s: unknown key; did you mean \"%s\"?", typo, typo, config_keys[i].path);
      n++;
      if (!strcmp(line, wish)) n_right++;
      free(set);
      free(line);
      free(wish);
    }
  cr_expect(n > 800, "%d slips were tried", n);
  cr_expect(n_right >= 0.98 * n, "%d of %d slips got the right suggestion first", n_right, n);
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
