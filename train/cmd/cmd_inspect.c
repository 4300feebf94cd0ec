/* aspis inspect PATH: what is in a checkpoint, a run directory, a weights directory or a folder of shards. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/shards.h"
#include "models/aspis.h"
#include "tensor/h5.h"
#include "train/cmd/command.h"
#include "train/format.h"
#include "train/resolve.h"

static void print_line(const char *label, const char *text) { printf("%-12s %s\n", label, text); }

static void print_count(const char *label, int64_t n) { printf("%-12s %" PRId64 "\n", label, n); }

static void print_model(const ModelConfig *c) {
  const MixerConfig *ssm = &c->ssm_cfg;
  printf("%-12s %s%s, %d layers, d_model %d, d_state %d, headdim %d, expand %d, ngroups %d", "model",
         ssm->layer == LAYER_MAMBA2 ? "Mamba2" : "Mamba3", mixer_rank(ssm) > 1 ? " MIMO" : "", c->n_layer, c->d_model,
         ssm->d_state, ssm->headdim, ssm->expand, ssm->ngroups);
  if (mixer_rank(ssm) > 1) printf(", mimo_rank %d", ssm->mimo_rank);
  if (model_d_mlp(c)) printf(", MLP %d", model_d_mlp(c));
  for (int i = 0; i < c->n_attn_layers; i++) printf("%s%d", i ? ", " : ", attention at ", c->attn_layer_idx[i]);
  if (c->task == TASK_LM)
    printf(", vocabulary %d (%d rows), %s", c->vocab_size, model_padded_vocab(c),
           c->tie_embeddings ? "tied" : "untied");
  else printf(", forecasts %d x %d from %d channels", c->horizon, c->output_dim, c->input_dim);
  putchar('\n');
  Model *model = model_new(c);
  const StateBytes state = model_state_bytes(model, F32);
  model_free(model);
  printf("%-12s %s a sequence", "state", format_bytes((double)state.fixed).text);
  if (state.per_token) printf(", and %s a token", format_bytes((double)state.per_token).text);
  putchar('\n');
}

/* The tokenizer's kind: its JSON says it. */
static void print_tokenizer(const char *text) {
  json_t *root = text ? json_loads(text, JSON_ALLOW_NUL, NULL) : NULL;
  const char *kind = json_object_get(root, "model") ? "bpe" : json_string_value(json_object_get(root, "kind"));
  print_line("tokenizer", kind ? kind : text ? "unknown" : "none");
  json_decref(root);
}

static void print_tensor(const char *name, int n_dim, const int64_t *dim, int64_t count) {
  printf("  %-56s (", name);
  for (int i = 0; i < n_dim; i++) printf("%s%" PRId64, i ? ", " : "", dim[i]);
  printf(") %" PRId64 "\n", count);
}

/* The tensors as they lie in the file; with `print` false, only their elements are summed. */
static Status walk_tensors(H5File *file, bool print, int64_t *total) {
  char **names;
  int n;
  TRY(h5_list(file, "model", &names, &n));
  Status status = STATUS_OK;
  *total = 0;
  for (int i = 0; i < n && status.code == CODE_OK; i++) {
    char *path = base_format("model/%s", names[i]);
    H5Shape shape = {0};
    status = h5_shape(file, path, &shape);
    free(path);
    *total += shape.count;
    if (print && status.code == CODE_OK) print_tensor(names[i], shape.n_dim, shape.dim, shape.count);
  }
  h5_list_free(names, n);
  return status;
}

static void print_info(const char *path, const CheckpointInfo *info, const ModelConfig *model) {
  print_line("kind", "checkpoint (all hashes verified)");
  print_line("file", path);
  printf("%-12s %s (commit %s)\n", "written by", info->version, info->commit);
  print_count("step", info->step);
  print_count("tokens", info->tokens);
  print_count("data cursor", info->data_cursor);
  printf("%-12s %" PRIu64 "\n", "seed", info->seed);
  printf("%-12s %d sequences, %d virtual ranks\n", "micro-batch", info->micro_batch_size, info->virtual_ranks);
  if (isfinite(info->best_loss)) printf("%-12s %.6g\n", "best loss", info->best_loss);
  for (int i = 0; i < info->n_values; i++) printf("%-12s %.17g\n", info->values[i].name, info->values[i].value);
  print_line("optimizer", info->has_optimizer ? "moments included: training can resume" : "not included");
  print_tokenizer(info->tokenizer_json);
  print_model(model);
}

static Status inspect_opened(H5File *file, const char *path, const CheckpointInfo *info) {
  ModelConfig model;
  TRY(model_config_from_json(info->model_json, path, &model));
  int64_t total;
  TRY(walk_tensors(file, false, &total));
  print_info(path, info, &model);
  print_count("parameters", total);
  return walk_tensors(file, true, &total);
}

/* Closes it. */
static Status inspect_checkpoint(Checkpoint *checkpoint) {
  Status status = inspect_opened(checkpoint->file, checkpoint->path, &checkpoint->info);
  checkpoint_close(checkpoint);
  return status;
}

static Status inspect_weights(const char *directory) {
  ModelConfig config;
  TRY(weights_read_config(directory, &config));
  Model *model = model_new(&config);
  WeightsSurvey survey;
  Status status = weights_survey(model, directory, &survey);
  if (status.code == CODE_OK) {
    print_line("kind", "weights (config.json and tensors)");
    printf("%-12s %s: %d matched, of them %d in half precision, %d of another shape; 0 missing, 0 unexpected\n",
           "tensors", survey.format, survey.n_matched, survey.n_cast, survey.n_reshaped);
    print_line("directory", directory);
    print_model(&config);
    print_count("parameters", params_count(&model->params));
    for (int i = 0; i < model->params.n_params; i++) {
      const Param *param = model->params.params[i];
      print_tensor(param->name, param->value.n_dim, param->value.dim, tensor_count(&param->value));
    }
  }
  model_free(model);
  return status;
}

static Status inspect_shards(const char *folder) {
  Shards shards;
  TRY(shards_open(folder, true, &shards));
  print_line("kind", "shards of tokens (all hashes verified)");
  print_line("directory", folder);
  print_tokenizer(shards.tokenizer_json);
  print_count("vocabulary", shards.vocab_size);
  print_count("tokens", shards.n_tokens);
  print_count("documents", shards.n_documents);
  print_count("text bytes", shards.n_text_bytes);
  for (int i = 0; i < shards.n_files; i++)
    printf("  %-20s %12" PRId64 " tokens of %d bits\n", shards.file[i].name, shards.file[i].n_tokens, 8 * shards.width);
  shards_close(&shards);
  return STATUS_OK;
}

static bool is_shards(const char *folder) {
  char *path = base_format("%s/manifest.json", folder);
  const bool found = access(path, F_OK) == 0;
  free(path);
  return found;
}

/* The file itself stands for its directory, because its config.json lies there. */
static Status inspect_file(const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  if (strcmp(name, "model.safetensors") != 0 && strcmp(name, "pytorch_model.bin") != 0)
    return status_fail(
        CODE_CHECKPOINT,
        "%s: expected a file named model.safetensors or pytorch_model.bin with its config.json beside it", path);
  char *directory = slash ? base_format("%.*s", (int)(slash - path), path) : base_strdup(".");
  Status status = inspect_weights(*directory ? directory : "/");
  free(directory);
  return status;
}

static Status cmd_inspect(const Command *command) {
  const char *path = command->args[0], *dot = strrchr(path, '.');
  struct stat st;
  const bool is_file = stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
  if (is_shards(path)) return inspect_shards(path);
  if (is_file && dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".bin"))) return inspect_file(path);
  Checkpoint *checkpoint;
  char *passed_over;
  TRY(resolve_checkpoint(path, &checkpoint, &passed_over));
  resolve_warn(passed_over);
  free(passed_over);
  return checkpoint ? inspect_checkpoint(checkpoint) : inspect_weights(path);
}

const CommandSpec command_inspect = {
    .name = "inspect",
    .summary = "what is in a checkpoint, a run directory, weights or a folder of shards",
    .usage = "inspect PATH",
    .examples = {"aspis inspect runs/shakespeare", "aspis inspect runs/shakespeare/checkpoints/best.h5"},
    .args = "PATH",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_inspect,
};
