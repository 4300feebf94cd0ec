/* zero: see zero.h. */
#include "train/dist/zero.h"

#include <math.h>
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
  tree_wait(dist, params->device);
  free(bounds);
}

static double split_norm(ParamTable *params, Dist *dist) {
  const size_t bytes = (size_t)params->n_own * sizeof(double);
  double *own = base_alloc(bytes), *all = base_alloc(bytes * (size_t)dist->size);
  double *ordered = base_alloc(bytes * (size_t)dist->size);
  optim_squares(params, params->device, params->first_range, params->n_own, own);
  dist_gather_all(dist, own, all, bytes);
  for (int rank = 0; rank < dist->size; rank++) {
    const Dist other = {.rank = rank, .size = dist->size};
    const int first = dist_range(&other) * params->n_own;
    for (int i = 0; i < params->n_own; i++) ordered[first + i] = all[rank * params->n_own + i];
  }
  const double norm = optim_norm(ordered, params->n_ranges);
  free(own), free(all), free(ordered);
  return norm;
}

void zero_judge(ParamTable *params, Dist *dist, const StepEvidence *e) {
  if (!params_split(params)) {
    optim_judge(params, params->device, e);
    return;
  }
  tree_wait(dist, params->device);
  const Tensor losses = device_pull(params->device, &params->losses);
  Verdict verdict = {.loss = sum_by_pairs(losses.data, e->n_losses) * e->numbers->loss_scale,
                     .norm = split_norm(params, dist),
                     .bad = -1};
  verdict.grad_scale = optim_clip_scale(verdict.norm, e->clip);
  if (!isfinite(verdict.norm)) {
    gather(params, dist, &params->grads_flat);
    const Param *bad = optim_bad(params, params->device);
    if (bad) verdict.bad = bad->flat;
  }
  verdict.held = !isfinite(verdict.loss) || !isfinite(verdict.norm);
  optim_set_verdict(params, params->device, e->numbers->step, &verdict);
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
