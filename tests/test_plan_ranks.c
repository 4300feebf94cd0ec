/* What `plan --ranks` says of many ranks (train/plan_ranks.h). */
#include <criterion/criterion.h>
#include <math.h>

#include "train/plan_ranks.h"

static const RanksShape SHAPE = {
    .flops_per_token = 6e9, .gradient_bytes = 4e9, .tokens_per_pass = 1000, .n_layers = 10, .n_buckets = 40};
static const Cluster CLUSTER = {.rate = 3e12, .host_bytes = 4e11, .net_bytes = 5e10, .ranks_per_host = 8};

Test(plan_ranks, one_rank_only_computes) {
  const RanksTime t = plan_ranks(&SHAPE, &CLUSTER, 1, 1000);
  cr_assert_float_eq(t.compute, 2, 1e-12, "%g s", t.compute);
  cr_assert(t.sum == 0 && t.step == t.compute && t.at_once == t.compute, "%g, %g, %g s", t.sum, t.step, t.at_once);
}

Test(plan_ranks, every_link_carries_what_is_left_after_each_halving) {
  /* 8 of a host: 2 (7/8) of the gradient within it; 64: 1/8 of it goes on over the network, 2 (7/8) of that */
  const double inside = 2 * 7.0 / 8 * 4e9 / 4e11, outside = 2 * 7.0 / 8 * 5e8 / 5e10;
  const RanksTime host = plan_ranks(&SHAPE, &CLUSTER, 8, 1000), hosts = plan_ranks(&SHAPE, &CLUSTER, 64, 1000);
  cr_assert_float_eq(host.sum, inside, 1e-12, "8 ranks: %g s, expected %g", host.sum, inside);
  cr_assert_float_eq(hosts.sum, inside + outside, 1e-12, "64 ranks: %g s, expected %g", hosts.sum, inside + outside);
}

Test(plan_ranks, a_hidden_sum_leaves_its_last_layer) {
  const RanksTime t = plan_ranks(&SHAPE, &CLUSTER, 8, 1000);
  cr_assert_float_eq(t.step, t.compute + t.sum / 10, 1e-12, "%g s of %g + %g", t.step, t.compute, t.sum);
  cr_assert_float_eq(t.at_once, t.compute + t.sum, 1e-12, "%g s of %g + %g", t.at_once, t.compute, t.sum);
}

Test(plan_ranks, a_sum_hides_behind_the_last_pass_alone) {
  RanksShape small = SHAPE;
  small.tokens_per_pass = 1; /* whose backward pass lasts 2/3 of 2 ms */
  const RanksTime t = plan_ranks(&small, &CLUSTER, 8, 1000);
  cr_assert_float_eq(t.step, t.compute + t.sum - 2e-3 * 2 / 3, 1e-12, "%g s of %g + %g", t.step, t.compute, t.sum);
}

Test(plan_ranks, a_bucket_costs_a_message_each_way_and_level) {
  Cluster slow = CLUSTER;
  slow.latency = 1e-3;
  const RanksTime none = plan_ranks(&SHAPE, &CLUSTER, 8, 1000), t = plan_ranks(&SHAPE, &slow, 8, 1000);
  cr_assert_float_eq(t.sum - none.sum, 3 * (2 * 40 + 3) * 1e-3, 1e-12, "%g s more of latency", t.sum - none.sum);
  cr_assert_float_eq(t.at_once - none.at_once, 3 * (2 + 3) * 1e-3, 1e-12, "%g s more at once",
                     t.at_once - none.at_once);
  RanksShape one = SHAPE;
  one.n_buckets = 1;
  const RanksTime whole = plan_ranks(&one, &slow, 8, 1000);
  cr_assert_float_eq(whole.step, whole.at_once, 1e-12, "one bucket: %g s, %g s at once", whole.step, whole.at_once);
}
