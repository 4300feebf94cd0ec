/* zero: the optimiser's state split over the ranks (train.zero: 1, as in ZeRO stage 1). Gradients are summed as ever, but
 * each rank keeps the range that it has the sum of, has moments (and of BF16 values the masters' lower halves) for it alone,
 * updates its values, and all gather the values.
 * The ranges are whole numbers of the virtual ranks' (params_share), and so is what the norm is summed in: no bit changes. */
#pragma once

#include "optim/optim.h"
#include "train/dist/dist.h"

/* Which ranges of `virtual_ranks` rank `rank` of `size` updates: all, or with `split` its share. Before params_alloc. */
void zero_share(ParamTable *params, int rank, int size, int virtual_ranks, bool split);
/* Collective, on split tables; nothing otherwise. After the update: every rank gets all values. Ranks that pass them between GPUs
 * do not wait for it. */
void zero_gather_values(ParamTable *params, Dist *dist);
/* Collective: measures and judges a step (optim.h) whose gradients are whole in the own ranges: of a split table each rank says what
 * its own have to say. Ranks that pass that between GPUs do not wait for it. */
void zero_judge(ParamTable *params, Dist *dist, const StepEvidence *evidence);

/* Collective, while rank 0 saves: the lower halves, the first and the second moment become whole, one after the other, in
 * spare block 0. */
typedef enum ZeroSet { ZERO_LOWS, ZERO_M, ZERO_V, N_ZERO_SETS } ZeroSet;
void zero_gather_set(ParamTable *params, Dist *dist, ZeroSet set);
