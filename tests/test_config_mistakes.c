/* config: every kind of mistake is named where it stands and with what to write instead, all at once. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "tensor/rng.h"
#include "tests/support/configs.h"
#include "tests/support/dataset.h"
#include "train/config/config_table.h"

TestSuite(config_mistakes, .init = workplace_enter, .fini = workplace_leave);

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

Test(config_mistakes, a_mistake_names_its_place_what_was_found_and_what_is_expected) {
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

Test(config_mistakes, what_is_not_built_is_refused_by_name) {
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

Test(config_mistakes, combinations_are_checked_with_the_fix) {
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
       "nan_loss, nan_grad, kill, stop, slow, diverge, P one of start, data, gradient, reduce, update, compare, "
       "evaluate, save, write, wait, finish"},
  };
  for (int i = 0; i < N_OF(cases); i++) assert_message(cases[i].text, NULL, 0, cases[i].message, cases[i].name);
}

Test(config_mistakes, all_mistakes_are_reported_at_once_also_those_of_sets) {
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

Test(config_mistakes, files_that_cannot_be_configs_are_refused_in_one_line) {
  mkdir("folder", 0777);
  const RefusedFile cases[] = {
      {"missing.yaml", "missing.yaml: cannot be read: No such file or directory; expected a config in YAML"},
      {"folder", "folder: found a folder, expected a config in YAML"},
      {"folder/", "folder/: found a folder, expected a config in YAML"},
  };
  assert_files_refused(cases, N_OF(cases));
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

Test(config_mistakes, a_hostile_file_meets_a_limit) {
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
    const clock_t start = clock(); /* of the process: whatever else the machine does */
    assert_message(cases[i].text, NULL, 0, cases[i].message, cases[i].name);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    cr_expect(seconds < 2, "%s: took %.1f s", cases[i].name, seconds);
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

Test(config_mistakes, the_right_name_is_suggested_for_a_slip_of_the_finger) {
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
