/* aspis eval MODEL: scores a model on the whole validation part, as the training's last evaluation did. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/command.h"
#include "train/evaluate.h"
#include "train/format.h"
#include "train/open.h"

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

static Status evaluate_open(OpenModel *open, const Command *command) {
  Config *config = &open->config;
  static const char *const parts[] = {"train", "val", NULL};
  int part = PART_VAL;
  TRY(command_choice(command, "part", parts, &part));
  Dataset *dataset;
  TRY(dataset_open(&config->data, config->seed, open->is_checkpoint ? open->info.tokenizer_json : NULL, &dataset));
  Status status = STATUS_OK;
  if (dataset_vocab_size(dataset) > config->model.vocab_size)
    status = status_fail(CODE_DATA,
                         "the data has %d token ids, the model a vocabulary of %d: give the data and tokenizer "
                         "it was trained with (--config, --set data.path=...)",
                         dataset_vocab_size(dataset), config->model.vocab_size);
  if (status.code == CODE_OK && dataset_n_samples(dataset, (DataPart)part) > (int64_t)1 << 40)
    status = status_fail(CODE_USAGE, "--part train: %s is made without end, only its validation part has a score",
                         config->data.task);
  double chance;
  int micro = open->is_checkpoint ? open->info.micro_batch_size : 1;
  int64_t n_seq = evaluate_n_seq(dataset_max_length(dataset, PART_TRAIN), dataset_max_length(dataset, PART_VAL), micro);
  PlanShape shape = {.eval_sequences = n_seq,
                     .eval_length = dataset_max_length(dataset, (DataPart)part),
                     .eval_logits = dataset_scores_last(dataset, &chance)};
  if (status.code == CODE_OK) status = open_load(open, &shape);
  if (status.code == CODE_OK) {
    Evaluation evaluation =
        evaluate_part(open->model, &open->device, config->dtype, dataset, (DataPart)part, 0, n_seq, !command->quiet);
    print_values(&evaluation, command_has(command, "json"));
    if (!isfinite(evaluation.nll)) status = status_fail(CODE_NONFINITE, "%s: its loss is not finite", open->path);
  }
  dataset_close(dataset);
  return status;
}

static Status cmd_eval(const Command *command) {
  const char **sets;
  int n_sets = command_all(command, "set", &sets);
  OpenModel open;
  Status status = open_find(&open, command->args[0], command_text(command, "config", NULL), sets, n_sets);
  free(sets);
  TRY(status);
  status = evaluate_open(&open, command);
  open_close(&open);
  return status;
}

const CommandSpec command_eval = {
    .name = "eval",
    .summary = "score a model on the whole validation part",
    .usage = "eval MODEL [options]",
    .examples = {"aspis eval runs/shakespeare", "aspis eval runs/shakespeare/checkpoints/best.h5 --json",
                 "aspis eval runs/parity --set data.eval_length=512"},
    .options =
        (const OptionSpec[]){{"config", "CONFIG", "take data and settings from this config, not the run's own", false},
                             OPTION_SET,
                             {"part", "train|val", "which part of the data (default val)", false},
                             OPTION_JSON,
                             {0}},
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_eval,
};
