/* tree: vectors summed over the ranks, and passed on, in the tree that dist.h describes, wherever they lie: in the host's
 * memory, in a GPU's (dist_gpu.h: each level is an exchange and an addition, put on the lane in use; nobody waits), or in a
 * GPU's and through the host's, where the ranks have nothing better.
 *
 * No call returns a failure: see dist.h. */
#pragma once

#include "tensor/device.h"
#include "train/dist/dist.h"

/* x, a vector of floats, becomes the sum over ranks within the rank's own range (dist_range); the rest of x is left as partial
 * sums. spare: as long as x, for what arrives. bounds: of the ranks' ranges in x, size + 1. */
void tree_reduce_scatter(Dist *dist, Device *device, const Tensor *x, const Tensor *spare, const int64_t *bounds);
/* Each range of x becomes its owner's. bounds: size + 1, in bytes. */
void tree_all_gather(Dist *dist, Device *device, const Tensor *x, const int64_t *bounds);
/* Each rank's own `bytes` of x, which lie at its number times that, become known to all. Of a GPU's memory alone. */
void tree_collect(Dist *dist, Device *device, const Tensor *x, int64_t bytes);
/* Behind a step that may not be done: waits until the one before it is, so that the host is never far ahead and learns of a lost
 * peer before it has to wait where it could not ask. */
void tree_keep_pace(Dist *dist, Device *device, int64_t step);
/* Waits for the lane in use, and finds out whether what was put there was done. The host's memory: it was. */
void tree_wait(Dist *dist, Device *device);
