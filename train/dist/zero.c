/* zero: see zero.h. */
#include "train/dist/zero.h"

#include <stdlib.h>

#include "train/dist/tree.h"

void zero_share(ParamTable *params, int rank, int size, int virtual_ranks, bool split) {
  const Dist dist = {.rank = rank, .size = size};
  const int n_own = split ? virtual_ranks / size : virtual_ranks;
  params_share(params, virtual_ranks, split ? dist_range(&dist) * n_own : 0, n_own);
}

/* Where the ranks' ranges begin, in elements. */
static int64_t *rank_bounds(const ParamTable *params, const Dist *dist) {
  int64_t *bounds = base_alloc(((size_t)dist->size + 1) * sizeof *bounds);
  params_bounds(tensor_count(&params->grads_flat), dist->size, bounds);
  return bounds;
}

/* A flat block as long as the gradients becomes whole on every rank, each range its owner's. */
static void gather(ParamTable *params, Dist *dist, Tensor *block) {
  int64_t *bounds = rank_bounds(params, dist);
  for (int i = 0; i <= dist->size; i++) bounds[i] *= (int64_t)dtype_bytes(block->dtype);
  tree_all_gather(dist, params->device, block, bounds);
  tree_wait(dist, params->device);
  free(bounds);
}

void zero_gather_values(ParamTable *params, Dist *dist) {
  if (!params_split(params)) return;
  int64_t *bounds = rank_bounds(params, dist);
  for (int i = 0; i <= dist->size; i++) bounds[i] = params_value_place(params, bounds[i]);
  tree_all_gather(dist, params->device, &params->values_flat, bounds);
  free(bounds);
}

void zero_judge(ParamTable *params, Dist *dist, const StepEvidence *evidence) {
  optim_measure(params, params->device);
  if (params_split(params)) {
    int64_t *bounds = base_alloc(((size_t)dist->size + 1) * sizeof *bounds);
    for (int i = 0; i <= dist->size; i++) bounds[i] = (int64_t)sizeof(double) * i * (params->n_own + 1);
    tree_all_gather(dist, params->device, &params->found, bounds);
    free(bounds);
  }
  optim_judge(params, params->device, evidence);
}

void zero_gather_set(ParamTable *params, Dist *dist, ZeroSet set) {
  const bool has_lows = params->lows_flat.data;
  if (set == ZERO_LOWS) {
    if (!has_lows) return;
    Tensor all = params_show_lows(params, true);
    gather(params, dist, &all);
    return;
  }
  if (has_lows) params_show_lows(params, false);
  params_show_moment(params, set == ZERO_V, false);
  gather(params, dist, &params->spare_grads[0]);
}
