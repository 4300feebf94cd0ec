/* snapshot: what a checkpoint is made of, copied aside in the device's own memory (BackendAside), so that training goes on while it
 * is fetched from there and written. A device without that has no snapshots.
 *
 * Its memory is one block: values | lower halves | m | v, as they lie in the parameters' own blocks, and further tensors. */
#pragma once

#include "train/checkpoint.h"

typedef struct Snapshot Snapshot;

/* Bytes for these parameters, laid out for training (dry, too), and further tensors; of a split table (zero.h) for all ranks'. 0 on a
 * device that has no snapshots. */
size_t snapshot_bytes(const ParamTable *params, const CheckpointTensor *further, int n_further);
/* CODE_MEMORY where the device has not as many bytes after all. */
Status snapshot_open(Device *device, size_t bytes, Snapshot **snapshot);
void snapshot_close(Snapshot *snapshot); /* NULL: nothing to do. Once nobody fetches any more */

/* Takes everything as it is once all that was launched is done; nobody waits, and nobody may fetch meanwhile. begin_set: as of
 * CheckpointSource. */
void snapshot_take(Snapshot *snapshot, const ParamTable *params, const CheckpointTensor *further, int n_further,
                   void (*begin_set)(void *user, int set), void *user);
/* What was taken, as of a CheckpointSource: fetched by whoever asks, one thread at a time. */
Tensor snapshot_tensor(Snapshot *snapshot, const ParamTable *params, int set, int i);
Tensor snapshot_further(Snapshot *snapshot, const Tensor *own, int i);
