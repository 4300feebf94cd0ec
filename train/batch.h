/* batch: a batch's memory, its parts, and what of it the model reads. */
#pragma once

#include "data/data.h"
#include "models/aspis.h"

/* Memory for n_seq sequences of `length` for this model: tokens and targets, or windows; where sequences have pieces
 * (dataset_max_pieces), of where they begin, too. Freed by batch_release. */
Batch batch_make(const ModelConfig *config, int64_t n_seq, int64_t length, int64_t max_pieces);
/* The same filled at random: tokens of the vocabulary, or normal values. */
Batch batch_random(const ModelConfig *config, int64_t n_seq, int64_t length, uint64_t seed);
void batch_release(Batch *batch);

/* Targets that the loss is the mean over: tokens that are not ignored, or windows. */
int64_t batch_n_targets(const Batch *batch);
/* Rows [first, first + n) of a batch; shares its memory. */
Batch batch_rows(const Batch *batch, const ModelConfig *config, int64_t first, int64_t n);
/* Tokens [at, at + n) of each row of a batch, as segment at / n of it; freed by batch_release. */
Batch batch_segment(const Batch *batch, int64_t at, int64_t n);
/* The tokens (or targets) of a batch as a (T) I32 tensor on a tape. On a dry device they are not read. */
Tensor *batch_tensor(const Batch *batch, const int32_t *values, Tape *tape);

/* Where the sequences of a batch of tokens begin, each piece of one counting as one: cu_seqlens (n + 1) I32 in the step arena. On
 * a dry device there are as many as batch->dry_pieces says. */
Tensor *batch_seqlens(const Batch *batch, Tape *tape);

/* The inputs of a series batch on a tape, and its outputs (n_seq, horizon * output_dim) real. On a dry device nothing of
 * the batch is read. */
Windows batch_windows(const Batch *batch, const ModelConfig *config, Tape *tape);
Tensor *batch_outputs(const Batch *batch, const ModelConfig *config, Tape *tape);
