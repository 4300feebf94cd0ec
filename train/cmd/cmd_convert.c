/* aspis convert IN OUT: the weights of any MODEL as a weights directory (config.json and model.safetensors), as Hugging Face has
 * one, or as a checkpoint; what was found in IN, and whether the model computes the same by each of its ways. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/tokenizer.h"
#include "tensor/publish.h"
#include "train/cmd/command.h"
#include "train/format.h"
#include "train/open.h"
#include "train/resolve.h"
#include "train/verify.h"

static bool holds(const char *directory, const char *name) {
  char *path = base_format("%s/%s", directory, name);
  bool found = access(path, F_OK) == 0;
  free(path);
  return found;
}

static Status refuse_h5(const char *out, bool force) {
  if (strlen(out) < 4 || !base_ends_with(out, ".h5"))
    return status_fail(CODE_USAGE, "%s: expected a name that ends in .h5 beside --to h5", out);
  if (access(out, F_OK) == 0 && !force)
    return status_fail(CODE_USAGE, "%s: is there already: give another name, or --force to replace it", out);
  return publish_check(out, CODE_CHECKPOINT);
}

/* A run directory with weights in it would stand for those weights, no longer for its checkpoints. */
static Status refuse_directory(const char *out, bool force) {
  if (holds(out, "checkpoints"))
    return status_fail(CODE_USAGE, "%s: is a run directory, expected another one for the weights", out);
  static const char *const NAMES[] = {"config.json", "model.safetensors"};
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && !force; i++)
    if (holds(out, NAMES[i]))
      return status_fail(CODE_USAGE, "%s: already holds %s: give another directory, or --force to replace it", out,
                         NAMES[i]);
  return publish_check_folder(out, CODE_CHECKPOINT);
}

/* The exact float32 values, also of a bf16 run; no computing, so whatever device the run had is not needed. */
static Status load_exact(OpenModel *open, bool verify) {
  open->config.dtype = F32;
  free(open->config.device);
  open->config.device = base_strdup("cpu");
  return open_load(open, &(PlanShape){.pass = verify ? verify_pass : NULL});
}

typedef enum To { TO_SAFETENSORS, TO_HF, TO_H5 } To;

/* NULL: none. */
static Status read_tokenizer(const OpenModel *open, char **json) {
  Tokenizer *tokenizer;
  TRY(open_tokenizer(open, &tokenizer));
  *json = tokenizer ? tokenizer_to_json(tokenizer) : NULL;
  tokenizer_free(tokenizer);
  return STATUS_OK;
}

/* A checkpoint of these weights that is at step 0 of no run, or where the run was. */
static Status save_h5(OpenModel *open, const char *out) {
  char *yaml = config_to_yaml(&open->config), *json = model_config_to_json(&open->config.model), *tokenizer = NULL;
  CheckpointInfo info = open->info;
  Status status = STATUS_OK;
  if (open->is_checkpoint) tokenizer = info.tokenizer_json ? base_strdup(info.tokenizer_json) : NULL; /* or a series */
  else status = read_tokenizer(open, &tokenizer);
  info.config_yaml = yaml, info.model_json = json, info.tokenizer_json = tokenizer;
  info.version = ASPIS_VERSION, info.commit = ASPIS_COMMIT;
  if (!open->is_checkpoint) info.micro_batch_size = info.virtual_ranks = 1, info.best_loss = INFINITY;
  if (status.code == CODE_OK) status = checkpoint_save(out, &info, &open->model->params);
  free(yaml), free(json), free(tokenizer);
  return status;
}

static Status save_directory(OpenModel *open, const char *out, WeightsLayout layout) {
  TRY(weights_save(open->model, out, layout));
  Tokenizer *tokenizer;
  TRY(open_tokenizer(open, &tokenizer));
  Status status = STATUS_OK;
  if (tokenizer && tokenizer_bpe(tokenizer)) { /* others know no tokenizer.json of bytes or characters */
    char *path = base_format("%s/tokenizer.json", out), *json = tokenizer_to_json(tokenizer);
    status = publish_bytes(path, json, strlen(json), CODE_CHECKPOINT);
    free(path), free(json);
  }
  tokenizer_free(tokenizer);
  return status;
}

static Status print_survey(const OpenModel *open) {
  if (open->is_checkpoint) return STATUS_OK;
  WeightsSurvey s;
  TRY(weights_survey(open->model, open->path, &s));
  printf("%s: %d matched, of them %d cast to float32, %d reshaped; 0 missing, 0 unexpected", s.format, s.n_matched,
         s.n_cast, s.n_reshaped);
  if (s.n_tied) printf("; the tied head is there, too");
  putchar('\n');
  return STATUS_OK;
}

static Status print_verify(OpenModel *open) {
  Verify v;
  TRY(verify_model(open, &v));
  const struct {
    const char *name;
    double difference;
  } rows[] = {{"scan and single steps", v.scan_steps},
              {"scan and definition (float64)", v.scan_definition},
              {"single steps and definition (float64)", v.steps_definition}};
  printf("logits of %lld tokens, the largest %.4g; largest differences:\n", (long long)v.n_tokens, v.largest);
  bool good = isfinite(v.largest);
  for (int i = 0; i < 3; i++) {
    printf("  %-40s %.2e\n", rows[i].name, rows[i].difference);
    good &= rows[i].difference <= VERIFY_TOLERANCE * fmax(1, v.largest);
  }
  return good ? STATUS_OK
              : status_fail(CODE_CHECK_FAILED, "%s: the ways differ by more than %g of the largest logit", open->path,
                            VERIFY_TOLERANCE);
}

static Status convert(OpenModel *open, const Command *command, To to) {
  const char *out = command->args[1];
  const bool verify = command_has(command, "verify");
  if (verify && open->config.model.task != TASK_LM)
    return status_fail(CODE_USAGE, "convert: --verify: found a forecaster, expected a language model");
  TRY(load_exact(open, verify));
  TRY(print_survey(open));
  if (to == TO_H5) TRY(save_h5(open, out));
  else TRY(save_directory(open, out, to == TO_HF ? LAYOUT_HF : LAYOUT_CANONICAL));
  const int64_t n = params_count(&open->model->params);
  printf("%d tensors | %lld parameters | %s | %s\n", open->model->params.n_params, (long long)n,
         format_bytes(4.0 * (double)n).text, out);
  return verify ? print_verify(open) : STATUS_OK;
}

static Status cmd_convert(const Command *command) {
  static const char *const FORMATS[] = {"safetensors", "hf", "h5", NULL};
  int to = base_ends_with(command->args[1], ".h5") ? TO_H5 : TO_SAFETENSORS;
  TRY(command_choice(command, "to", FORMATS, &to));
  TRY((to == TO_H5 ? refuse_h5 : refuse_directory)(command->args[1], command_has(command, "force")));
  OpenModel open;
  TRY(open_find(&open, command->args[0], NULL, NULL, 0));
  resolve_warn(open.passed_over);
  Status status = convert(&open, command, (To)to);
  open_close(&open);
  return status;
}

const CommandSpec command_convert = {
    .name = "convert",
    .summary = "weights of a run, a checkpoint or a weights directory as another of them",
    .usage = "convert IN OUT [--to safetensors|hf|h5] [--verify] [--force]",
    .examples = {"aspis convert runs/shakespeare weights/", "aspis convert mamba2-130m/ mamba2-130m.h5 --verify"},
    .options =
        (const OptionSpec[]){
            {"to", "safetensors|hf|h5",
             "safetensors: config.json and model.safetensors, float32, as state-spaces names things (default); "
             "hf: the same as transformers' Mamba2ForCausalLM; h5: a checkpoint (default where OUT ends in .h5)",
             false},
            {"verify", NULL, "compare a prompt's logits by scan, by single steps and by the definition", false},
            {"force", NULL, "replace such files in OUT", false},
            {0}},
    .args = "IN OUT",
    .min_args = 2,
    .max_args = 2,
    .run = cmd_convert,
};
