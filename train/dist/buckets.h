/* buckets: the sum of gradients over the ranks, piece by piece, while backward goes on.
 *
 * The flat gradients are cut between parameters into buckets of about train.bucket_mb, from their end down, which is the order
 * that backward comes to them. A bucket is whole once nothing more will be added to any of its gradients: how often each was asked for
 * (Tensor.n_asked) is known from the pass before, which had the same operations. Then the parts before are added to it (gradient.h), and
 * it is handed on: of the host's memory to a thread, which alone speaks to the ranks until buckets_finish; of a GPU's to its second
 * lane. Buckets go in one order on all ranks. The one that backward ends in, and in the first pass all, wait for buckets_finish.
 *
 * Within a bucket ranks sum and gather as in tree.h. An element's sum is over the same tree whatever bucket it is in, so
 * their size changes no bit. */
#pragma once

#include "autograd/tape.h"
#include "nn/params.h"
#include "train/dist/dist.h"

typedef struct Buckets Buckets;

/* How many that would be, were parameters cut where it suits: at most as many as are marked on a lane (LANES_MARKS). */
int buckets_most(int64_t gradient_bytes, double bucket_bytes);
/* NULL for a rank alone, which every function here takes and does nothing. n_parts: the rank's, a power of two. bucket_bytes 0: one
 * bucket, that waits. Also where a GPU's memory goes through the host's. */
Buckets *buckets_open(ParamTable *params, Device *device, Dist *dist, int n_parts, double bucket_bytes);
void buckets_close(Buckets *buckets);

/* Around a forward and backward pass; `last`: nothing is added to the gradients behind it. What is returned goes to the pass's tape. */
TapeWatcher buckets_begin(Buckets *buckets, bool last);
void buckets_end(Buckets *buckets, bool last);
/* Once the last pass has ended: what stands in the gradients is this rank's share, but for buckets that are handed on. */
void buckets_complete(Buckets *buckets);
/* Collective: the gradients become the ranks' sum: of a split table (zero.h) in the own ranges. On a GPU they do once its work is
 * done, for which nobody waits here. */
void buckets_finish(Buckets *buckets);
/* The device is known to have done the last step: its figures are taken, where they are a GPU's. */
void buckets_settle(Buckets *buckets);

/* Bytes of gradients in the steps so far that knew what to expect (on a GPU, in those that somebody waited for): all, those handed on before backward ended, and those
 * that were the ranks' sum by then. */
typedef struct BucketsFigures {
  int n, n_steps;
  double bytes, begun, hidden;
} BucketsFigures;
BucketsFigures buckets_figures(const Buckets *buckets);
