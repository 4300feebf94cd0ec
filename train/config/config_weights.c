/* config_weights: what weights to start from decide of a model (config_check.h, config_take_weights). */
#include <stdlib.h>
#include <string.h>

#include "train/config/config_check.h"
#include "train/config/config_table.h"
#include "train/resolve.h"

/* Keys that weights have no say in: they change what is drawn at the start, how fast a step is, or what training adds. */
static const char *const OWN[] = {"model.preset",
                                  "model.init_from",
                                  "model.dropout",
                                  "model.loss",
                                  "model.huber_delta",
                                  "model.ssm_cfg.chunk_size",
                                  "model.ssm_cfg.dt_min",
                                  "model.ssm_cfg.dt_max",
                                  "model.ssm_cfg.dt_init_floor",
                                  "model.ssm_cfg.A_init_range"};

static bool is_own(const char *path) {
  for (size_t i = 0; i < sizeof OWN / sizeof *OWN; i++)
    if (strcmp(path, OWN[i]) == 0) return true;
  return false;
}

static bool is_models(const Key *key) { return strncmp(key->path, "model.", 6) == 0; }

/* The model's config of a weights directory, a run directory or a checkpoint. */
static Status read_model(const char *from, ModelConfig *model) {
  Checkpoint *checkpoint;
  char *passed_over;
  TRY(resolve_checkpoint(from, &checkpoint, &passed_over));
  free(passed_over); /* told when its weights are taken */
  if (!checkpoint) return weights_read_config(from, model);
  Status status = model_config_from_json(checkpoint->info.model_json, checkpoint->path, model);
  checkpoint_close(checkpoint);
  return status;
}

static void copy_field(const Key *key, Config *to, const Config *from) {
  memcpy((char *)to + key->offset, (const char *)from + key->offset, key->size);
  if (key->count_offset) memcpy((char *)to + key->count_offset, (const char *)from + key->count_offset, sizeof(int));
}

void config_take_weights(Config *config, const bool *stated, ConfigReport *report, void *user) {
  Config theirs = *config; /* borrows the texts */
  bool complete = true;
  for (int i = 0; i < n_config_keys; i++)
    if (is_models(&config_keys[i]) && !is_own(config_keys[i].path)) complete &= stated[i];
  Status status = read_model(config->init_from, &theirs.model);
  if (status.code != CODE_OK) {
    if (!complete) report(user, "model.init_from", status.line); /* else a run goes on without them */
    status_clear(&status);
    return;
  }
  Config fitted = theirs;
  for (int i = 0; i < n_config_keys; i++) {
    const Key *key = &config_keys[i];
    if (!is_models(key) || key->kind == KIND_TEXT || key->kind == KIND_PATH) continue;
    char *ours = key_write(key, config), *weights = key_write(key, &theirs);
    const bool says = stated[i] && !(key->word && strcmp(ours, key->word) == 0);
    if (is_own(key->path)) {
      copy_field(key, &fitted, config);
    } else if (says && strcmp(ours, weights) != 0) {
      char *what = base_format("found %s, expected %s, which the weights of model.init_from (%s) have; leave it out",
                               ours, weights, config->init_from);
      report(user, key->path, what);
      free(what);
    }
    free(ours), free(weights);
  }
  config->model = fitted.model;
  config->model.ssm_cfg.d_model = config->model.d_model;
}
