/* state_file: the states that layers carry from token to token (specification, section 5), in plain HDF5 files:
 *
 *   layers/<i>/conv, ssm          Mamba-2: (B, C, W-1), (B, H, P, N)
 *   layers/<i>/angle, ssm, k, v   Mamba-3: (B, H, S), (B, H, P, N), (B, R, H, N), (B, H, P)
 *
 * float32; B sequences. What has no elements (conv of one tap, angle without rotation) has no dataset. */
#pragma once

#include "models/aspis.h"
#include "tensor/h5.h"

/* CODE_USAGE for a model with layers whose state files do not hold (attention); `where` names it. */
Status state_file_supports(const ModelConfig *config, const char *where);

/* The states of n_seq sequences on the host. */
typedef struct StateBatch {
  Arena arena;
  ModelState state;
} StateBatch;

/* Reads a file that must hold exactly this model's states of n_seq sequences: what is missing, too much, misshapen or not
 * finite is CODE_DATA. state_batch_free after success. */
Status state_file_read(const char *path, const Model *model, int64_t n_seq, StateBatch *batch);
/* Copies sequence s into `to`, which is for one sequence. */
void state_batch_take(const StateBatch *batch, const Model *model, int64_t s, const ModelState *to);
void state_batch_free(StateBatch *batch);

/* A new file with room for n_seq sequences, to replace `path` at h5_commit. */
Status state_file_create(const char *path, const Model *model, int64_t n_seq, H5File **file);
/* Writes a state of one sequence as that of sequence s. */
Status state_file_write(H5File *file, const Model *model, int64_t s, const ModelState *state);
