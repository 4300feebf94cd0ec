/* gradient: one training step's gradient and loss, from a global batch.
 *
 * The batch is cut into `virtual_ranks` parts; a part's gradient is summed over its micro-batches in order, and the parts
 * are added in a fixed binary tree. The tree, not the number of machines or threads, decides every rounding. */
#pragma once

#include "train/batch.h"

typedef struct GradientShape {
  int batch_size, virtual_ranks, micro_batch_size; /* micro_batch_size divides batch_size / virtual_ranks */
} GradientShape;

/* Spare gradient blocks the tree needs: log2(virtual_ranks). */
int gradient_n_spare(int virtual_ranks);

/* Forward and backward of one micro-batch: adds grad_scale * d(sum of losses)/dparam to the gradients and returns the sum
 * of losses, in order and in double: of a language model nll over targets, of a forecaster the loss over windows. Rewinds
 * the step arena. On a dry device nothing is computed and nothing of the batch but its shape is read. */
double gradient_micro_batch(Model *model, Device *device, Dtype act, const Batch *batch, double grad_scale);

/* The whole step: gradients of the mean loss over the batch's targets are left in model->params; returns that mean. */
double gradient_step(Model *model, Device *device, Dtype act, const GradientShape *shape, const Batch *batch);
