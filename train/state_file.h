/* state_file: the states that layers carry from token to token (specification, section 5), in plain HDF5 files:
 *
 *   layers/<i>/conv, ssm          Mamba-2: (B, C, W-1), (B, H, P, N)
 *   layers/<i>/angle, ssm, k, v   Mamba-3: (B, H, S), (B, H, P, N), (B, R, H, N), (B, H, P)
 *   layers/<i>/key, value         attention: (B, L, heads_kv, head_dim), keys rotated; conv where its q, k and v have one
 *   length                        with attention: (B) int32, how many of the L tokens each sequence has; the rest is zero
 *
 * float32; B sequences. What has no elements (conv of one tap, angle without rotation) has no dataset. */
#pragma once

#include "models/aspis.h"
#include "tensor/h5.h"

/* The states of n_seq sequences on the host. */
typedef struct StateBatch {
  Arena arena;
  ModelState state;
} StateBatch;

/* Reads a file that must hold exactly this model's states of n_seq sequences: what is missing, too much, misshapen or not
 * finite is CODE_DATA. The model needs no memory for values. state_batch_free after success. */
Status state_file_read(const char *path, const Model *model, int64_t n_seq, StateBatch *batch);
/* Tokens of the longest of its sequences, where they are counted; else 0. */
int64_t state_batch_longest(const StateBatch *batch);
void state_batch_free(StateBatch *batch);

/* A new file for n_seq sequences of at most `room` tokens, to replace `path` at h5_commit. */
Status state_file_create(const char *path, const Model *model, int64_t n_seq, int64_t room, H5File **file);
/* Writes a state of one sequence, on `device` (NULL: on the host), as that of sequence s, with as much room as the file; writes zeros for rows that hold no token. */
Status state_file_write(H5File *file, const Model *model, Device *device, int64_t s, const ModelState *state,
                        int64_t room);
/* The whole of it: all sequences of a state. */
Status state_file_save(const char *path, const Model *model, Device *device, const ModelState *state);
