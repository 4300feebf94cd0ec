/* run: everything one training run consists of, opened from a config and a run directory. */
#pragma once

#include "tensor/replay.h"
#include "train/checkpoint.h"
#include "train/config/config.h"
#include "train/dist/buckets.h"
#include "train/dist/watch.h"
#include "train/evaluate.h"
#include "train/fault.h"
#include "train/plan.h"

typedef struct Saver Saver; /* train/save.h */

typedef struct Run {
  Config *config;  /* the caller's; vocab_size and the resolved shapes are filled in */
  char *directory; /* the run directory */
  Dataset *dataset;
  Device device;
  Model *model;
  Replay *replay; /* of the step */
  Plan plan;
  size_t memory_bytes; /* that the plan may use */
  RunLog *log;         /* rank 0's; NULL elsewhere */
  Dist *dist;          /* the caller's */
  Watch *watch;
  Buckets *buckets; /* NULL: a rank alone */
  Saver *saver;
  Fault fault;
  int64_t settled;                        /* step up to which the verdicts were read (settle.h) */
  int64_t tokens_before[PARAMS_VERDICTS]; /* tokens seen before each step that was not settled */
  int64_t compared;                       /* step after which the ranks' weights were last known to be the same */
  Batch batch;                            /* the global batch; room for the longest */
  Carry *carry;                           /* the states of its rows (data.tbptt); NULL: rows stand alone */
  char *resumed_from;                     /* path, or NULL */
  Checkpoint *checkpoint; /* the same, until all of it is taken; other ranks than 0 open it themselves */
  bool quiet, verbose;
  int lock;
  bool made; /* the directory is this run's own */
  /* what a checkpoint keeps beside the weights */
  int64_t step, cursor, tokens; /* steps done, training samples consumed, training tokens seen */
  double best_loss;             /* lowest validation loss so far; infinite: none */
  int64_t n_stale;              /* evaluations since then */
  double *losses;               /* of the steps logged in this session, for the line at the end */
  int64_t n_losses;
  Evaluation last; /* of the last evaluation */
} Run;

typedef enum ResumeKind { RESUME_REFUSE, RESUME_AUTO, RESUME_NEVER, RESUME_PATH } ResumeKind;

typedef struct RunOptions {
  const char *directory; /* NULL: <out_dir>/<name> */
  ResumeKind resume;
  const char *resume_path;
  bool quiet, verbose;
  const char *command; /* the command line, for the record; may be NULL */
  Dist *dist;
} RunOptions;

/* Collective, like all of these: each rank opens data, plan, device and model, and loads the checkpoint when resuming; the
 * directory, the log and what is written are rank 0's. On failure everything is closed again. */
Status run_open(Run *run, Config *config, const RunOptions *options);
void run_close(Run *run);
/* Tells the watch what this rank does now, in the step after run->step; planted faults strike here. */
void run_enter(Run *run, Phase phase);
/* Saves checkpoints/step-%08d.h5 (and best.h5 when `best`), verifies it, removes what train.keep no longer covers. Only after
 * the ranks' weights were found the same: CODE_PEER. A file that could not be written is told, and fails when it is the third
 * in a row or was to be the last. Where files are written beside training (train/save.h) that is known at the next save, or by
 * run_saved; for the last one it waits. */
Status run_save(Run *run, bool best, bool last);
/* Waits for what is being written; no other save follows. */
Status run_saved(Run *run);
/* What the loop keeps of itself in a checkpoint, by name. */
void run_put_values(const Run *run, CheckpointInfo *info);

/* Finds out whether the ranks' weights are the same. */
Status run_compare(Run *run);
/* The score on n_samples samples of the validation part (0: all), by rank 0, into everyone's run->last. */
void run_evaluate(Run *run, int64_t n_samples);

/* True when train.patience evaluations in a row were no new best. */
bool run_is_stale(const Run *run);
/* The end of a run with early stopping: the best weights, from best.h5, become the last: they are scored into run->last and
 * saved under the present step. */
Status run_end_with_best(Run *run);

/* The training loop, from run->step to the last step; the last evaluation, over the whole validation part, is left in
 * run->last. CODE_STOPPED after a signal, CODE_NONFINITE before a bad update. */
Status loop_train(Run *run);
