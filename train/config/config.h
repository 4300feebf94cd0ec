/* config: one table (config.def) drives parsing, defaults, checks, `--set`, `aspis help config` and the resolved file.
 *
 * defaults < model.preset < include < file < --set. All mistakes are reported together, each
 * `file:line:column: key: found X, expected Y`, unknown keys with the nearest name. */
#pragma once

#include "data/data.h"
#include "models/aspis.h"
#include "optim/optim.h"
#include "train/dist/dist_gpu.h"

typedef enum NonfinitePolicy { NONFINITE_STOP, NONFINITE_SKIP } NonfinitePolicy;

typedef enum GraphPolicy { GRAPH_AUTO, GRAPH_OFF } GraphPolicy;

typedef enum SnapshotPolicy { SNAPSHOT_AUTO, SNAPSHOT_OFF } SnapshotPolicy;

#define TRAIN_BUCKET_MB 1.0 /* the default, which checkpoints name */

typedef struct TrainConfig {
  int64_t steps;
  double epochs;        /* > 0: steps follow from it */
  int batch_size;       /* sequences of the global batch */
  int micro_batch_size; /* 0: auto */
  int virtual_ranks; /* 0: auto: the largest power of two up to 8 that divides batch_size and leaves a part 512 tokens */
  int64_t eval_every, eval_batches, save_every, log_every, sample_every;
  int keep, patience; /* patience 0: no early stopping */
  NonfinitePolicy nonfinite;
  Recompute recompute;
  int threads;            /* 0: all */
  double watchdog, stall; /* seconds; 0: never (train/dist/watch.h) */
  int64_t compare_every;
  GraphPolicy graph;       /* of a GPU (tensor/replay.h) */
  SnapshotPolicy snapshot; /* of a GPU (train/snapshot.h) */
  int zero;                /* 1: the optimiser's state is split over ranks (train/dist/zero.h) */
  Transport transport;     /* of several ranks with GPUs (train/dist/dist_gpu.h) */
  double bucket_mb;        /* of several ranks (train/dist/buckets.h); 0: no buckets */
} TrainConfig;

typedef struct Config {
  char *name, *out_dir;
  uint64_t seed;
  char *device; /* auto | cpu | cuda */
  Dtype dtype;  /* F32 or BF16 */
  ModelConfig model;
  char *model_preset; /* NULL: none */
  char *init_from;    /* NULL, or a weights directory or checkpoint */
  bool vocab_size_auto;
  DataConfig data;
  OptimConfig optim;
  TrainConfig train;
  struct {
    bool allow;
    char *fault; /* train/fault.h; "": none */
  } debug;
} Config;

/* path NULL: defaults and sets only. sets: "a.b=c" strings, the value as YAML. On failure the Status (CODE_USAGE) lists
 * every mistake, a line each, and *config owns nothing. Relative data.path and model.init_from are resolved against the
 * folder of the file they stand in, then the working directory. What the weights of model.init_from are is the model's. */
Status config_load(const char *path, const char *const *sets, int n_sets, Config *config);
/* From YAML text (a checkpoint's resolved config, which needs no weights); `where` stands for the file's name in messages, paths are relative to
 * the working directory. */
Status config_parse(const char *text, const char *where, const char *const *sets, int n_sets, Config *config);
/* What a run needs beyond a valid config: train.steps or train.epochs, and data.path for text. CODE_USAGE otherwise;
 * `where` is the file's name. */
Status config_require_run(const Config *config, const char *where);
/* The resolved config as YAML (malloc'ed): every key with its value; parses back to the same Config. What follows from
 * other keys is left to them: vocab_size is `auto` where vocab_size_auto is set, steps 0 where epochs are given. */
char *config_to_yaml(const Config *config);
/* Fills in what the data decides: vocab_size where it is auto; of a forecaster input_dim and output_dim where they are,
 * and which columns are forecast. CODE_USAGE when config and data do not go together. */
Status config_fit_data(Config *config, const Dataset *dataset);
/* The same where there is no data and any will do: gradient checks, timings. */
void config_fit_any(Config *config);
/* The samples of the data are the model's windows (context, horizon, known_future) and the rows of training's batches. */
void config_fit_samples(Config *config);
void config_free(Config *config);
/* `aspis help config [KEY]`: prints the table, or one key, to stdout. CODE_USAGE for an unknown key (nearest named). */
Status config_print_help(const char *key);
