/* aspis bench [CASE...]: operations, mixers, updates and whole training steps, timed on this machine and held to what it
 * can do at best (train/bench/bench.h). Sizes are those of a config; without one, of a small language model. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/bench/bench.h"
#include "train/cmd/command.h"

/* Without --config: d_model 384, 6 layers, 8 x 512 tokens. */
static const char *const SMALL_LM[] = {"name=small",
                                       "model.d_model=384",
                                       "model.n_layer=6",
                                       "model.vocab_size=256",
                                       "train.batch_size=8",
                                       "data.seq_len=512",
                                       "model.ssm_cfg.layer=Mamba2",
                                       "model.ssm_cfg.d_state=64",
                                       "model.ssm_cfg.headdim=64",
                                       "model.ssm_cfg.chunk_size=64"};
enum { N_SMALL_LM = sizeof SMALL_LM / sizeof SMALL_LM[0] };

static Status load_config(const Command *command, Config *config) {
  static const char *const DEVICES[] = {"auto", "cpu", "cuda", NULL};
  int chosen = -1;
  TRY(command_choice(command, "device", DEVICES, &chosen));
  const char *path = command_text(command, "config", NULL), *device = chosen < 0 ? NULL : DEVICES[chosen], **sets;
  const int n_sets = command_all(command, "set", &sets), n_own = path ? 0 : N_SMALL_LM;
  const char **all = base_alloc((size_t)(n_own + n_sets + 1) * sizeof *all);
  memcpy(all, SMALL_LM, (size_t)n_own * sizeof *all);
  memcpy(all + n_own, sets, (size_t)n_sets * sizeof *all);
  char *set_device = device ? base_format("device=%s", device) : NULL;
  all[n_own + n_sets] = set_device;
  Status status = config_load(path, all, n_own + n_sets + (device != NULL), config);
  free(all);
  free(set_device);
  free(sets);
  if (status.code == CODE_OK) config_fit_any(config);
  return status;
}

static bool answers_to(const BenchCase *c, const char *word) {
  return strcmp(c->name, word) == 0 || (c->group && strcmp(c->group, word) == 0);
}

static const BenchCase *const TABLES[] = {bench_ops, bench_steps, bench_decodes};
enum { N_TABLES = 3 };

/* All words must name something; "machine" is printed in any case. */
static Status check_words(const Command *command) {
  for (int i = 0; i < command->n_args; i++) {
    const char *word = command->args[i];
    bool known = strcmp(word, "machine") == 0;
    for (int t = 0; t < N_TABLES; t++)
      for (const BenchCase *c = TABLES[t]; c->name; c++) known |= answers_to(c, word);
    if (known) continue;
    return status_fail(CODE_USAGE, "bench: found case %s, expected one of those that `aspis bench --list` names", word);
  }
  return STATUS_OK;
}

/* A case that this model has not. */
static Status check_model(const Command *command, const Config *config) {
  for (int i = 0; i < command->n_args; i++)
    if (config->model.task != TASK_LM && strcmp(command->args[i], "decode") == 0)
      return status_fail(CODE_USAGE, "bench decode: found a forecaster, expected model.task: lm");
  return STATUS_OK;
}

static void print_list(void) {
  printf("%-14s %-8s %s\n", "machine", "", "what this machine can do at best");
  for (int t = 0; t < N_TABLES; t++)
    for (const BenchCase *c = TABLES[t]; c->name; c++)
      printf("%-14s %-8s %s\n", c->name, c->group ? c->group : "", c->summary);
}

static bool wanted(const Command *command, const BenchCase *c) {
  for (int i = 0; i < command->n_args; i++)
    if (answers_to(c, command->args[i])) return true;
  return command->n_args == 0;
}

static Status run_cases(const Command *command, Bench *bench) {
  bool machine_only = command->n_args > 0, machine_asked = command->n_args == 0;
  for (int i = 0; i < command->n_args; i++) {
    const bool machine = strcmp(command->args[i], "machine") == 0;
    machine_only &= machine, machine_asked |= machine;
  }
  if (machine_asked || !bench->json) bench_print_machine(bench);
  if (machine_only) return STATUS_OK;
  bench_print_head(bench);
  for (int t = 0; t < N_TABLES; t++)
    for (const BenchCase *c = TABLES[t]; c->name; c++) {
      if (!wanted(command, c)) continue;
      bench_begin(bench);
      TRY(c->run(bench, c));
    }
  return STATUS_OK;
}

static Status cmd_bench(const Command *command) {
  double seconds = 0.5;
  int64_t batch = 1, prompt = 128, tokens = 0;
  if (command_has(command, "list")) {
    print_list();
    return STATUS_OK;
  }
  TRY(command_real(command, "seconds", 0, 3600, &seconds));
  TRY(command_int(command, "batch", 1, 4096, &batch));
  TRY(command_int(command, "prompt", 1, 1 << 24, &prompt));
  TRY(command_int(command, "tokens", 1, 1 << 20, &tokens));
  if (tokens > 0 && batch > 1)
    return status_fail(CODE_USAGE,
                       "bench: --tokens: found --batch %lld beside it, expected 1: one sequence is compared",
                       (long long)batch);
  TRY(check_words(command));
  Config config = {0};
  TRY_OR(load_config(command, &config), config_free(&config));
  TRY_OR(check_model(command, &config), config_free(&config));
  if (config.train.threads > 0) omp_set_num_threads(config.train.threads);
  Bench bench = {.config = &config,
                 .n_seq = config.train.batch_size,
                 .length = config.model.task == TASK_LM ? config.data.seq_len : forecaster_window_rows(&config.model),
                 .seconds = seconds,
                 .decode_batch = batch,
                 .decode_prompt = prompt,
                 .decode_tokens = tokens,
                 .json = command_has(command, "json")};
  Status status = machine_measure(&bench.machine, config.device);
  if (status.code == CODE_OK) status = run_cases(command, &bench);
  machine_free(&bench.machine);
  config_free(&config);
  return status;
}

const CommandSpec command_bench = {
    .name = "bench",
    .summary = "time operations and training steps, and hold them to what this machine can do",
    .usage = "bench [CASE...] [options]",
    .examples = {"aspis bench", "aspis bench scan gemm --set dtype=bf16 --json",
                 "aspis bench step --config configs/bench/w2.yaml",
                 "aspis bench mixer --config configs/bench/w2.yaml --set data.seq_len=8192 --set train.batch_size=1"},
    .options =
        (const OptionSpec[]){
            {"config", "CONFIG", "sizes, batch and dtype of all cases (default: a small language model)", false},
            OPTION_SET,
            {"device", "auto|cpu|cuda", "where to compute (default: the config's)", false},
            {"list", NULL, "print the cases, their groups and what they do", false},
            {"seconds", "S", "time each case for S seconds, at least five runs (default 0.5)", false},
            {"batch", "N", "decode: sequences continued together (default 1)", false},
            {"prompt", "N", "decode: tokens of their prompt (default 128)", false},
            {"tokens", "N", "decode: also N tokens as a whole, with the cache, and each from all before it", false},
            {"json", NULL, "print a JSON object a line; the machine's only when asked for", false},
            {0}},
    .args = "CASE...",
    .min_args = 0,
    .max_args = -1,
    .run = cmd_bench,
};
