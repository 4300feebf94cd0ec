/* carry: the states of a batch's rows, carried from training step to training step and from segment to segment
 * (data.tbptt). Gradients do not go back into a carried state, but into what sequences start from (model.learn_init_state).
 *
 * There are two of each: `now` is what the last step left, `next` what this one leaves. A step that the device held must change
 * nothing, and the host need not know of it: on the device `next` becomes `now` again (carry_hold), and then they change places
 * all the same. Both lie in the device's weights arena. */
#pragma once

#include "train/batch.h"
#include "train/checkpoint.h"
#include "train/dist/dist.h"

typedef struct Carry {
  ModelState now, next; /* of n_seq rows */
  bool lost;            /* nothing has been carried here: rows that would go on start anew */
} Carry;

/* For n_rows rows; with attention, room is the most tokens that one goes on for (dataset_max_run). */
Carry carry_open(const Model *model, Device *device, int64_t n_rows, int64_t room);
/* What a pass over some rows of a batch, or of a segment of one, starts from and leaves in `next`: the batch's first row is
 * row batch->first mod n_rows. cu_seqlens are the batch's pieces; `start` and `end` get headers and memory in the tape's
 * step arena. Nothing of the batch but its shape is read on a dry device. */
void carry_pass(Carry *carry, const Model *model, Tape *tape, const Batch *batch, const Tensor *cu_seqlens,
                ModelState *start, ModelState *end);
/* Behind a step that was judged: where it was held (params_verdict), it leaves what it found. */
void carry_hold(Carry *carry, const Model *model, Device *device);
/* What the step left is what the next one starts from. Where it is the first to leave anything (lost), only if it was good. */
void carry_commit(Carry *carry);

/* Collective: every rank's rows of `now` become known to all, as a checkpoint has them. Ranks have equal numbers of rows, in
 * order. */
void carry_gather(Carry *carry, const Model *model, Device *device, Dist *dist);
/* What a checkpoint keeps of it: names and tensors, malloc'ed; n is their number. */
CheckpointTensor *carry_tensors(const Carry *carry, const Model *model, int *n);
