/* open: see open.h. */
#include "train/open.h"

#include "data/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/check/selftest.h"
#include "train/format.h"
#include "train/resolve.h"

static Status find_checkpoint(OpenModel *open, const char *config_path, const char *const *sets, int n_sets) {
  checkpoint_take_info(open->checkpoint, &open->info); /* closing the file leaves it here */
  if (config_path) TRY(config_load(config_path, sets, n_sets, &open->config));
  else TRY(config_parse(open->info.config_yaml, open->path, sets, n_sets, &open->config));
  TRY(model_config_from_json(open->info.model_json, open->path, &open->config.model));
  open->config.vocab_size_auto = false;
  return STATUS_OK;
}

static Status find_weights(OpenModel *open, const char *config_path, const char *const *sets, int n_sets) {
  if (config_path) TRY(config_load(config_path, sets, n_sets, &open->config));
  else
    TRY(config_parse("name: weights\ndata: {kind: synthetic, task: parity}\n", "defaults", sets, n_sets,
                     &open->config));
  if (!config_path) open->config.data.special_tokens = true; /* as transformers reads a text */
  TRY(weights_read_config(open->path, &open->config.model));
  open->config.vocab_size_auto = false;
  return STATUS_OK;
}

Status open_find(OpenModel *open, const char *path, const char *config_path, const char *const *sets, int n_sets) {
  *open = (OpenModel){0};
  Status status = resolve_checkpoint(path, &open->checkpoint, &open->passed_over);
  open->is_checkpoint = open->checkpoint != NULL;
  open->path = base_strdup(open->is_checkpoint ? open->checkpoint->path : path);
  if (status.code == CODE_OK)
    status = (open->is_checkpoint ? find_checkpoint : find_weights)(open, config_path, sets, n_sets);
  config_fit_samples(&open->config); /* the model's word, not the config's */
  if (status.code != CODE_OK) open_close(open);
  return status;
}

Status open_load(OpenModel *open, const PlanShape *shape) {
  Plan plan;
  Config *config = &open->config;
  TRY(plan_measure(config, shape, &(GradientShape){.batch_size = 1, .virtual_ranks = 1, .micro_batch_size = 1}, &plan));
  size_t available = plan_memory_available(config->device);
  if (plan_total_bytes(&plan) > available)
    return status_fail(CODE_MEMORY, "%s: needs %s, %s are available", open->path,
                       format_bytes((double)plan_total_bytes(&plan)).text, format_bytes((double)available).text);
  TRY(selftest_once(config->device));
  TRY(device_open(&open->device, config->device, F32, plan.sizes));
  open->model = model_new(&config->model);
  params_alloc(&open->model->params, &open->device, config->dtype, false, 0);
  if (!open->is_checkpoint) return weights_load(open->model, open->path);
  CHECK(open->checkpoint, "%s: its weights were taken before", open->path);
  Status status = checkpoint_take(open->checkpoint, &open->model->params, false);
  checkpoint_close(open->checkpoint);
  open->checkpoint = NULL;
  return status;
}

Status open_tokenizer(const OpenModel *open, Tokenizer **tokenizer) {
  *tokenizer = NULL;
  if (open->config.model.task != TASK_LM) return STATUS_OK;
  if (open->is_checkpoint)
    return open->info.tokenizer_json ? tokenizer_from_json(open->info.tokenizer_json, tokenizer) : STATUS_OK;
  char *path = base_format("%s/tokenizer.json", open->path);
  Status status = access(path, F_OK) == 0 ? tokenizer_read(path, tokenizer) : STATUS_OK;
  const int n = *tokenizer ? tokenizer_vocab_size(*tokenizer) : 0, n_rows = model_padded_vocab(&open->config.model);
  if (n > n_rows) {
    status =
        status_fail(CODE_CHECKPOINT, "%s: has %d tokens, the model %d rows: expected the tokenizer it was trained with",
                    path, n, n_rows);
    tokenizer_free(*tokenizer);
    *tokenizer = NULL;
  }
  free(path);
  return status;
}

void open_close(OpenModel *open) {
  if (open->model) model_free(open->model);
  device_close(&open->device);
  checkpoint_close(open->checkpoint);
  checkpoint_info_free(&open->info);
  config_free(&open->config);
  free(open->path), free(open->passed_over);
  *open = (OpenModel){0};
}
