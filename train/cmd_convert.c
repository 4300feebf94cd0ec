/* aspis convert IN OUT: the weights of any MODEL as a weights directory (config.json and model.safetensors). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/command.h"
#include "train/format.h"
#include "train/open.h"

static bool holds(const char *directory, const char *name) {
  char *path = base_format("%s/%s", directory, name);
  bool found = access(path, F_OK) == 0;
  free(path);
  return found;
}

/* A run directory with weights in it would stand for those weights, no longer for its checkpoints. */
static Status refuse_existing(const char *out, bool force) {
  if (holds(out, "checkpoints"))
    return status_fail(CODE_USAGE, "%s: is a run directory, expected another one for the weights", out);
  static const char *const NAMES[] = {"config.json", "model.safetensors"};
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && !force; i++)
    if (holds(out, NAMES[i]))
      return status_fail(CODE_USAGE, "%s: already holds %s: give another directory, or --force to replace it", out,
                         NAMES[i]);
  return STATUS_OK;
}

/* The exact float32 values, also of a bf16 run; no computing, so whatever device the run had is not needed. */
static Status load_exact(OpenModel *open) {
  open->config.dtype = F32;
  free(open->config.device);
  open->config.device = base_strdup("cpu");
  return open_load(open, &(PlanShape){0});
}

static Status cmd_convert(const Command *command) {
  const char *in = command->args[0], *out = command->args[1], *format = command_text(command, "to", "safetensors");
  if (strcmp(format, "safetensors") != 0)
    return status_fail(CODE_USAGE,
                       "convert: --to: found \"%s\", expected safetensors (hf and h5 are not built in this version)",
                       format);
  TRY(refuse_existing(out, command_has(command, "force")));
  OpenModel open;
  TRY(open_find(&open, in, NULL, NULL, 0));
  Status status = load_exact(&open);
  if (status.code == CODE_OK) status = weights_save(open.model, out);
  if (status.code == CODE_OK) {
    int64_t n = params_count(&open.model->params);
    printf("%d tensors | %lld parameters | %s | %s\n", open.model->params.n_params, (long long)n,
           format_bytes(4.0 * (double)n).text, out);
  }
  open_close(&open);
  return status;
}

const CommandSpec command_convert = {
    .name = "convert",
    .summary = "weights of a run, a checkpoint or a weights directory as safetensors",
    .usage = "convert IN OUT [--to safetensors] [--force]",
    .examples = {"aspis convert runs/shakespeare weights/",
                 "aspis convert runs/shakespeare/checkpoints/best.h5 weights/ --force"},
    .options =
        (const OptionSpec[]){{"to", "safetensors", "config.json and model.safetensors, float32 (default)", false},
                             {"force", NULL, "replace such files in OUT", false},
                             {0}},
    .args = "IN OUT",
    .min_args = 2,
    .max_args = 2,
    .run = cmd_convert,
};
