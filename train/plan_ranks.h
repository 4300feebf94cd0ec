/* plan_ranks: how long a step of n ranks would take, from what a rank computes, what the sum of gradients moves (dist.h)
 * and how fast it moves. On paper: nothing is measured here but the model.
 *
 *   compute(n) = FLOPs a token * tokens of a rank / rate
 *   sum(n)     = sum over levels l = 1 .. log2 n of 2 (bytes / 2^l / bandwidth_l + buckets * latency): halves exchanged on the way
 *                up, and again on the way down; the levels below ranks-per-host within a host, the others over the network;
 *                and three exchanges of a few bytes a level (loss, signals, comparison)
 *   step       = compute + max(sum / pieces, sum - 2/3 compute of the last pass): buckets (buckets.h) are summed while the last
 *                backward pass, two thirds of its pass's work, goes on below; the last piece, a bucket or what the first
 *                layer has, whichever is more, has nothing to hide behind. One bucket: compute + sum
 *   at_once    = the same with one bucket (train.bucket_mb: 0) */
#pragma once

#include "tensor/base.h"

typedef struct Cluster {
  double rate;                  /* FLOP/s of a rank in training */
  double host_bytes, net_bytes; /* per second, of a rank, each way: within a host, and between hosts */
  double latency;               /* seconds of a message */
  int ranks_per_host;           /* a power of two */
} Cluster;

/* What of the run matters here. */
typedef struct RanksShape {
  double flops_per_token;
  double gradient_bytes;
  double tokens_per_pass; /* at most: of a micro-batch */
  int n_layers, n_buckets;
} RanksShape;

typedef struct RanksTime {
  double compute, sum, step, at_once; /* seconds */
} RanksTime;

/* n: a power of two. tokens_per_rank of each. */
RanksTime plan_ranks(const RanksShape *shape, const Cluster *cluster, int n, double tokens_per_rank);
