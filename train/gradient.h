/* gradient: one training step's gradient and loss, from a global batch.
 *
 * The batch is cut into `virtual_ranks` parts; a part's gradient is summed over its micro-batches in order, and the parts
 * are added in a fixed binary tree. The tree, not the number of machines or threads, decides every rounding: of n ranks
 * each makes a whole subtree, the parts [rank, rank + 1) virtual_ranks / n, and the levels above join ranks (dist.h). */
#pragma once

#include "train/carry.h"
#include "train/dist/buckets.h"

typedef struct GradientShape {
  int batch_size, virtual_ranks, micro_batch_size; /* micro_batch_size divides batch_size / virtual_ranks */
  int n_ranks, rank;                               /* n_ranks divides virtual_ranks; 0: one */
  int segment; /* tokens after which gradients are cut, a divisor of the rows' length; 0: never within a step */
} GradientShape;

/* A rank's. */
int gradient_n_parts(const GradientShape *shape);
/* Spare gradient blocks the tree needs: log2 of a rank's parts, and one for what comes from other ranks. */
int gradient_n_spare(const GradientShape *shape);

/* Forward and backward of one micro-batch, `row` the row of the whole batch that it begins with: adds grad_scale (what the
 * device's StepNumbers have as loss_scale) * d(sum of losses)/dparam to the gradients and to *sum (in
 * the device's memory) the losses, in order and in double: of a language model nll over targets, of a forecaster the loss over windows. carry: NULL, or
 * the states it starts from and leaves. Rewinds the step arena. On a dry device nothing is computed and nothing of the batch but its shape is read. */
void gradient_micro_batch(Model *model, Device *device, Dtype act, const Batch *batch, int64_t row, double grad_scale,
                          Carry *carry, double *sum, TapeWatcher watcher);

/* What the step of a batch goes by, but for the update (optim_numbers). */
StepNumbers gradient_numbers(const Batch *batch);

/* This rank's share of a step that goes by the numbers of params_tell_numbers: the gradient of its parts of the mean loss over
 * the batch's targets is left in model->params (of which `buckets`, NULL for a rank alone, already passes on what is whole),
 * and what each adds to that loss's sum in its losses, behind the places of the ranks before; returns how many they are. Nobody waits for the device. Whether what it
 * leaves in `carry` (or NULL) is taken is the caller's to say (carry_commit). */
int gradient_parts(Model *model, Device *device, Dtype act, const GradientShape *shape, const Batch *batch,
                   Carry *carry, Buckets *buckets);
/* Collective: the gradients become those of all ranks, of a split table (zero.h) in the own ranges, and so do the losses: their
 * number is returned, which is 1, their sum, where ranks pass vectors through the host's memory. Ranks that pass them between
 * GPUs do not wait for these. */
int gradient_reduce(ParamTable *params, Device *device, Dist *dist, Buckets *buckets, int n_losses);
/* What turns the sum of losses into the mean. */
double gradient_scale(const Batch *batch);
/* The whole step of a rank alone, which tells the numbers itself; returns the mean loss. */
double gradient_step(Model *model, Device *device, Dtype act, const GradientShape *shape, const Batch *batch,
                     Carry *carry);
