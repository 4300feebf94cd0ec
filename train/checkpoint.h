/* checkpoint: the whole state of a run in one sealed HDF5 file (tensor/h5.h), and which files of a run to trust and keep.
 *
 *   model/<canonical name>          float32: the exact values (of a BF16 run its float32 masters)
 *   optim/m/<name>, optim/v/<name>  float32: AdamW's moments; absent when the parameters were made without them
 *   carry/<layer>/<field>           float32: the states of the batch's rows (train/carry.h), of runs that carry them
 *   text/config.yaml, text/model.json, text/tokenizer.json, text/version, text/commit
 *   attributes of the root: format, step, data_cursor, tokens, seed, micro_batch_size, virtual_ranks, best_loss, and
 *   `value.<name>` for the numbers of the loop
 *
 * No time, host or process id is stored: equal content is equal bytes. A file of a newer format is refused with both
 * versions named. All errors are CODE_CHECKPOINT. */
#pragma once

#include "nn/params.h"
#include "tensor/h5.h"

#define CHECKPOINT_FORMAT 1
#define CHECKPOINT_MAX_VALUES 16

typedef struct CheckpointValue {
  char name[32];
  double value;
} CheckpointValue;

/* A further tensor of a run, by its path in the file. */
typedef struct CheckpointTensor {
  char name[48];
  Tensor *tensor; /* real, on the parameters' device */
} CheckpointTensor;

typedef struct CheckpointInfo {
  int64_t step, data_cursor, tokens;
  uint64_t seed;
  int micro_batch_size, virtual_ranks;           /* as resolved at the start: they order sums */
  double best_loss;                              /* validation; INFINITY: none yet */
  char *config_yaml, *model_json;                /* resolved; required */
  char *tokenizer_json;                          /* NULL: none */
  char *version, *commit;                        /* required */
  CheckpointValue values[CHECKPOINT_MAX_VALUES]; /* small numbers the loop wants back, sorted by name when read */
  int n_values;
  CheckpointTensor *tensors; /* saved, too; reading leaves them to checkpoint_take_tensors */
  int n_tensors;
  bool has_optimizer; /* set by reading */
} CheckpointInfo;

/* Frees the texts. */
void checkpoint_info_free(CheckpointInfo *info);

/* Where a checkpoint's tensors come from: set 0 has the values, 1 and 2 the moments. Without a function they are the table's own, and
 * info's. A tensor is on the host, and good until the next is asked for. */
typedef struct CheckpointSource {
  Tensor (*tensor)(void *user, const ParamTable *params, int set, int i); /* of parameter i */
  Tensor (*further)(void *user, const Tensor *own, int i);                /* info's i-th, shaped as that is */
  /* Before a set; each once and in order, also after a failure, because other ranks take part (zero.h). NULL: all is there. */
  void (*begin_set)(void *user, int set);
  void *user;
} CheckpointSource;

/* Writes a checkpoint; the parameters' moments too, where they have them. Atomic: on any failure `path` is as before. */
Status checkpoint_save(const char *path, const CheckpointInfo *info, const ParamTable *params);
/* The same; of the table nothing is read but names and shapes where the source has all of the tensors. */
Status checkpoint_save_from(const char *path, const CheckpointInfo *info, const ParamTable *params,
                            const CheckpointSource *source);

/* A file that was verified and is kept open, so that all of it can be taken without verifying it again. */
typedef struct Checkpoint {
  char *path;
  CheckpointInfo info;
  H5File *file;
} Checkpoint;
/* Verifies the whole file and reads everything but tensors. */
Status checkpoint_open(const char *path, Checkpoint **checkpoint);
void checkpoint_close(Checkpoint *checkpoint); /* NULL: nothing */
/* Its info, which is the caller's from now on. */
void checkpoint_take_info(Checkpoint *checkpoint, CheckpointInfo *info);
/* Requires exactly the table's parameters and shapes (all differences are listed), then fills values, masters and, when asked
 * for, moments. Nothing is written into params before everything is checked. */
Status checkpoint_take(Checkpoint *checkpoint, ParamTable *params, bool with_optimizer);
/* Fills these from a file that holds all of them, in these shapes; *found is false where it holds none. */
Status checkpoint_take_tensors(Checkpoint *checkpoint, Device *device, const CheckpointTensor *tensors, int n,
                               bool *found);
/* Of a file that one thing is wanted of: opened, read or taken, and closed. */
Status checkpoint_read_info(const char *path, CheckpointInfo *info);
Status checkpoint_load(const char *path, CheckpointInfo *info, ParamTable *params, bool with_optimizer);

/* <run_dir>/checkpoints/step-%08d.h5 and <run_dir>/checkpoints/best.h5 (a file like any other: checkpoint_save);
 * malloc'ed. */
char *checkpoint_step_path(const char *run_dir, int64_t step);
char *checkpoint_best_path(const char *run_dir);
/* The newest step-*.h5 that verifies; NULL when the run has none at all. *message: NULL, or what was damaged and passed over,
 * malloc'ed. Fails when there are some and none verifies. */
Status checkpoint_open_last(const char *run_dir, Checkpoint **checkpoint, char **message);
/* Keeps the newest `keep` (>= 1) step files, deletes older ones; best.h5 stays. Nothing is deleted unless the newest
 * verifies. */
Status checkpoint_prune(const char *run_dir, int keep);
