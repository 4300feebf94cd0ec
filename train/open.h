/* open: what MODEL on a command line means: a run directory (its last checkpoint), a checkpoint `.h5`, or a weights
 * directory (config.json + model.safetensors). */
#pragma once

#include "data/data.h"
#include "train/checkpoint.h"
#include "train/config/config.h"
#include "train/plan.h"

typedef struct OpenModel {
  char *path; /* the checkpoint, or the weights directory */
  bool is_checkpoint;
  char *passed_over;      /* damaged checkpoints that are newer, for resolve_warn; NULL: none */
  Config config;          /* of the run, with --set applied; of a weights directory: defaults and its config.json */
  CheckpointInfo info;    /* of a checkpoint */
  Checkpoint *checkpoint; /* until open_load has taken its weights */
  Device device;
  Model *model; /* NULL until open_load */
} OpenModel;

/* Finds and reads everything but the weights. config_path: NULL, or a config to use instead of the checkpoint's own.
 * The model itself is always the file's. */
Status open_find(OpenModel *open, const char *path, const char *config_path, const char *const *sets, int n_sets);
/* Opens the device for the forward passes that shape tells and loads the weights. */
Status open_load(OpenModel *open, const PlanShape *shape);
/* The model's tokenizer: a checkpoint's own, or tokenizer.json of a weights directory; NULL: none. One with more tokens than the
 * model has rows is CODE_CHECKPOINT. */
Status open_tokenizer(const OpenModel *open, Tokenizer **tokenizer);
void open_close(OpenModel *open);
