/* gradient: one training step's gradient and loss, from a global batch.
 *
 * The batch is cut into `virtual_ranks` parts; a part's gradient is summed over its micro-batches in order, and the parts
 * are added in a fixed binary tree. The tree, not the number of machines or threads, decides every rounding. */
#pragma once

#include "data/data.h"
#include "models/aspis.h"

typedef struct GradientShape {
  int batch_size, virtual_ranks, micro_batch_size; /* micro_batch_size divides batch_size / virtual_ranks */
} GradientShape;

/* Spare gradient blocks the tree needs: log2(virtual_ranks). */
int gradient_n_spare(int virtual_ranks);

/* Forward and backward of one micro-batch of a language model: adds grad_scale * d(sum of nll)/dparam to the gradients and
 * returns the sum of nll over its targets, added in token order in double. Rewinds the step arena. On a dry device
 * nothing is computed and batch->token is not read. */
double gradient_micro_batch(Model *model, Device *device, Dtype act, const Batch *batch, double grad_scale);

/* The whole step: gradients of the mean nll over the batch's targets are left in model->params; returns that mean. */
double gradient_step(Model *model, Device *device, Dtype act, const GradientShape *shape, const Batch *batch);

/* Targets that count in a batch. */
int64_t batch_n_targets(const Batch *batch);
/* Rows [first, first + n) of a batch; shares its memory. */
Batch batch_rows(const Batch *batch, int64_t first, int64_t n);
/* The tokens (or targets) of a batch as a (T) I32 tensor over the batch's own memory. */
Tensor batch_tensor(const Batch *batch, int32_t *values);
