/* plan_ranks: see plan_ranks.h. */
#include "train/plan_ranks.h"

#include <math.h>

RanksTime plan_ranks(const RanksShape *shape, const Cluster *cluster, int n, double tokens_per_rank) {
  enum { SMALL_EXCHANGES = 3 };
  RanksTime t = {.compute = shape->flops_per_token * tokens_per_rank / cluster->rate};
  double bytes = shape->gradient_bytes;
  for (int width = 1; width < n; width *= 2) {
    bytes /= 2;
    const double bandwidth = width < cluster->ranks_per_host ? cluster->host_bytes : cluster->net_bytes;
    t.sum += 2 * (bytes / bandwidth + cluster->latency) + SMALL_EXCHANGES * cluster->latency;
  }
  t.step = t.compute + t.sum;
  t.overlapped = t.compute + fmax(t.sum / shape->n_layers, t.sum - t.compute * 2 / 3);
  return t;
}
