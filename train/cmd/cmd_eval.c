/* aspis eval MODEL: scores a model on the whole validation part, as the training's last evaluation did, or on another; a
 * forecaster beside forecasts that need no training. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/cmd/command.h"
#include "train/evaluate.h"
#include "train/forecast/forecast_score.h"
#include "train/format.h"
#include "train/open.h"
#include "train/resolve.h"

static void print_values(const Evaluation *evaluation, bool json) {
  NamedValue values[EVALUATION_MAX_VALUES];
  int n = evaluation_values(evaluation, false, values);
  if (json) printf("{");
  for (int i = 0; i < n; i++) {
    if (json) printf("%s\"%s\": %s", i ? ", " : "", values[i].name, format_double(values[i].value).text);
    else printf("%-16s %.10g\n", values[i].name, values[i].value);
  }
  if (json) printf("}\n");
}

/* A language model's tokens must be its data's; a forecaster's windows are cut as the model wants them. */
static Status fit_data(OpenModel *open, Dataset *dataset, DataPart part) {
  Config *config = &open->config;
  const int64_t n_samples = dataset_n_samples(dataset, part);
  if (config->model.task == TASK_FORECAST || dataset_series(dataset)) {
    TRY(config_fit_data(config, dataset));
    if (n_samples > 0) return STATUS_OK;
    return status_fail(CODE_DATA,
                       "--part: found no windows in this part: expected data.split.test or data.borders to name one");
  }
  if (part == PART_TEST)
    return status_fail(CODE_USAGE,
                       "--part test: found a language model, only series have a test part; expected train or val");
  if (dataset_vocab_size(dataset) > config->model.vocab_size)
    return status_fail(CODE_DATA,
                       "the data has %d token ids, the model a vocabulary of %d: give the data and tokenizer "
                       "it was trained with (--config, --set data.path=...)",
                       dataset_vocab_size(dataset), config->model.vocab_size);
  if (n_samples <= (int64_t)1 << 40) return STATUS_OK;
  return status_fail(CODE_USAGE, "--part train: %s is made without end, only its validation part has a score",
                     config->data.task);
}

static void score_windows(OpenModel *open, Dataset *dataset, DataPart part, int64_t n_seq, bool json, double *loss) {
  const Config *config = &open->config;
  ForecastScore score;
  StrBuf out = {0};
  forecast_score(open->model, &open->device, config->dtype, dataset, part, n_seq, &score);
  if (json) forecast_score_json(&score, &config->model, dataset_series(dataset), &out);
  else forecast_score_table(&score, dataset_series(dataset), &out);
  fputs(out.data, stdout);
  *loss = score.loss;
  free(out.data);
  forecast_score_free(&score);
}

static Status evaluate_open(OpenModel *open, const Command *command) {
  Config *config = &open->config;
  static const char *const parts[] = {"train", "val", "test", NULL};
  int part = PART_VAL;
  TRY(command_choice(command, "part", parts, &part));
  Dataset *dataset;
  config_fit_samples(config);
  TRY(dataset_open(&config->data, config->seed, open->is_checkpoint ? open->info.tokenizer_json : NULL, &dataset));
  Status status = fit_data(open, dataset, (DataPart)part);
  double chance, loss = NAN;
  int micro = open->is_checkpoint ? open->info.micro_batch_size : 1;
  int64_t n_seq = evaluate_n_seq(dataset_max_length(dataset, PART_TRAIN), dataset_max_length(dataset, PART_VAL), micro);
  n_seq = evaluate_n_rows(dataset, (DataPart)part, n_seq);
  PlanShape shape = {.eval_sequences = n_seq,
                     .eval_rows = dataset_n_rows(dataset, (DataPart)part),
                     .eval_run = dataset_max_run(dataset, (DataPart)part),
                     .eval_length = dataset_max_length(dataset, (DataPart)part),
                     .eval_pieces = dataset_max_pieces(dataset, (DataPart)part),
                     .eval_logits = dataset_scores_last(dataset, &chance)};
  const bool json = command_has(command, "json");
  if (status.code == CODE_OK) status = open_load(open, &shape);
  if (status.code == CODE_OK) {
    if (config->model.task == TASK_FORECAST) {
      score_windows(open, dataset, (DataPart)part, n_seq, json, &loss);
    } else {
      Evaluation evaluation =
          evaluate_part(open->model, &open->device, config->dtype, dataset, (DataPart)part, 0, n_seq, !command->quiet);
      print_values(&evaluation, json);
      loss = evaluation.score;
    }
    if (!isfinite(loss)) status = status_fail(CODE_NONFINITE, "%s: its loss is not finite", open->path);
  }
  dataset_close(dataset);
  return status;
}

/* A run's data is in its config; weights have none, and no other data than what is named will do. */
static Status check_data(const OpenModel *open, const Command *command, const char *const *sets, int n_sets) {
  bool named = open->is_checkpoint || command_has(command, "config");
  for (int i = 0; i < n_sets; i++) named |= strncmp(sets[i], "data.kind=", 10) == 0;
  if (named) return STATUS_OK;
  return status_fail(
      CODE_USAGE,
      "%s: weights say nothing of data: expected --config CONFIG, or --set data.kind=text --set data.path=[...]",
      open->path);
}

static Status cmd_eval(const Command *command) {
  const char **sets;
  int n_sets = command_all(command, "set", &sets);
  OpenModel open;
  Status status = open_find(&open, command->args[0], command_text(command, "config", NULL), sets, n_sets);
  TRY_OR(status, free(sets));
  resolve_warn(open.passed_over);
  status = check_data(&open, command, sets, n_sets);
  free(sets);
  if (status.code == CODE_OK) status = evaluate_open(&open, command);
  open_close(&open);
  return status;
}

const CommandSpec command_eval = {
    .name = "eval",
    .summary = "score a model on the whole validation part",
    .usage = "eval MODEL [options]",
    .examples = {"aspis eval runs/shakespeare", "aspis eval runs/shakespeare/checkpoints/best.h5 --json",
                 "aspis eval runs/etth1_96 --part test", "aspis eval runs/parity --set data.eval_length=512"},
    .options =
        (const OptionSpec[]){
            {"config", "CONFIG", "take data and settings from this config, not the run's own", false},
            OPTION_SET,
            {"part", "train|val|test", "which part of the data (default val; test: of a series)", false},
            OPTION_JSON,
            {0}},
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_eval,
};
