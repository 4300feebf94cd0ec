/* plan_ranks: see plan_ranks.h. */
#include "train/plan_ranks.h"

#include <math.h>

static double sum_of(const RanksShape *shape, const Cluster *cluster, int n, int n_buckets) {
  enum { SMALL_EXCHANGES = 3 };
  double bytes = shape->gradient_bytes, sum = 0;
  for (int width = 1; width < n; width *= 2) {
    bytes /= 2;
    const double bandwidth = width < cluster->ranks_per_host ? cluster->host_bytes : cluster->net_bytes;
    sum += 2 * (bytes / bandwidth + n_buckets * cluster->latency) + SMALL_EXCHANGES * cluster->latency;
  }
  return sum;
}

RanksTime plan_ranks(const RanksShape *shape, const Cluster *cluster, int n, double tokens_per_rank) {
  RanksTime t = {.compute = shape->flops_per_token * tokens_per_rank / cluster->rate,
                 .sum = sum_of(shape, cluster, n, shape->n_buckets)};
  const double last_pass = shape->flops_per_token * fmin(tokens_per_rank, shape->tokens_per_pass) / cluster->rate;
  const double last = t.sum / (double)min_i64(shape->n_buckets, shape->n_layers);
  t.step = t.compute + (shape->n_buckets > 1 ? fmax(last, t.sum - last_pass * 2 / 3) : t.sum);
  t.at_once = t.compute + sum_of(shape, cluster, n, 1);
  return t;
}
