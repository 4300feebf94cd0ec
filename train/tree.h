/* tree: vectors summed over the ranks, and passed on, in the tree that dist.h describes, wherever they lie: in the host's
 * memory, in a GPU's (dist_gpu.h: each level is an exchange and an addition, put on the lane in use; nobody waits), or in a
 * GPU's and through the host's, where the ranks have nothing better.
 *
 * No call returns a failure: see dist.h. */
#pragma once

#include "tensor/device.h"
#include "train/dist.h"

/* x, a vector of floats, becomes the sum over ranks within the rank's own range (dist_range); the rest of x is left as partial
 * sums. spare: as long as x, for what arrives. bounds: of the ranks' ranges in x, size + 1. */
void tree_reduce_scatter(Dist *dist, Device *device, const Tensor *x, const Tensor *spare, const int64_t *bounds);
/* Each range of x becomes its owner's. bounds: size + 1, in bytes. */
void tree_all_gather(Dist *dist, Device *device, const Tensor *x, const int64_t *bounds);
/* Waits for the lane in use, and finds out whether what was put there was done. The host's memory: it was. */
void tree_wait(Dist *dist, Device *device);
