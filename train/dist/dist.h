/* dist: the ranks of a run: processes that train one model together, each on its share of every batch.
 *
 * A backend is a few calls (DistBackend): "mpi" comes as a plug-in (tensor/plugin.h), so that a run alone starts no MPI, and
 * is opened where the environment says that mpirun or srun started the process; "tcp" (dist_tcp.h) joins ranks that others
 * started (rendezvous.h). Without either there is one rank, and every call here returns at once.
 *
 * Sums are made by us (tree.h), not by the backend's library, whose order of additions nobody promises. The ranks are a power of
 * two; in level l of the tree rank r and rank r ^ 2^l exchange halves of what they still hold, and each adds its half
 * (recursive halving, nearest first). An element so is summed over ((0 1) (2 3)) ((4 5) (6 7)) whoever adds it, as the
 * parts of a batch are within a rank (gradient.h), and 2 (n - 1)/n of the vector pass a link, the least there is.
 *
 * No call returns a failure: when a peer is gone there is nothing to go on with. The watch (watch.h) says who was lost;
 * where it does not, dist_lost does. */
#pragma once

#include "tensor/device.h"
#include "train/dist/dist_gpu.h"
#include "train/dist/rendezvous.h"

/* What a plug-in exports as `aspis_dist`. Ranks call in step, one thread of each. A false return: a peer is lost. */
typedef struct DistBackend {
  uint64_t layout; /* DIST_LAYOUT of its build */
  const char *name;
  /* Who this process is, as `rendezvous` has it, or as the backend finds out (START_MPI). local: among those on one host. */
  Status (*start)(const Rendezvous *rendezvous, int *rank, int *size, int *local_rank, int *local_size);
  /* Sends to and receives from `peer` at once, every one as many bytes as the other expects. */
  bool (*exchange)(int peer, const void *out, size_t out_bytes, void *in, size_t in_bytes);
  bool (*broadcast)(void *x, size_t bytes);                      /* rank 0's */
  bool (*gather_all)(const void *mine, void *all, size_t bytes); /* `bytes` of each rank, in order, on each */
  void (*finish)(void);
} DistBackend;

/* Changes when the above does. */
#define DIST_LAYOUT (((uint64_t)2 << 32) + ((uint64_t)sizeof(Status) << 16) + sizeof(DistBackend))

enum { DIST_HOST_BYTES = 64 };

typedef struct Dist {
  const DistBackend *backend; /* NULL: one rank */
  const DistGpu *gpu;         /* NULL: what lies in a GPU's memory goes through the host's */
  int rank, size, local_rank, local_size;
  char (*hosts)[DIST_HOST_BYTES]; /* of each rank */
  char *directory, *verdict;      /* of the run; the file whose creation gives the right to tell of a failure */
  bool watched;
} Dist;

/* The ranks this process is one of: one, unless somebody started several. Also gives a rank its share of the host:
 * OMP_NUM_THREADS, where nobody said, and a GPU. Opened once a process. CODE_USAGE where the plug-in is missing or the
 * environment contradicts itself, CODE_PEER where ranks do not find each other. */
Status dist_open(Dist **dist);
/* Collective, once the device is open. CODE_USAGE where NCCL was asked for and is not to be had, or does not join the ranks' GPUs. */
Status dist_open_gpu(Dist *dist, Device *device, Transport transport);
/* Waits for the others. Nothing may be called after it. */
void dist_finish(Dist *dist);
static inline bool dist_is_first(const Dist *dist) { return dist->rank == 0; }

/* CODE_USAGE unless the number of ranks divides the virtual ranks. */
Status dist_fits(const Dist *dist, int virtual_ranks);
/* Where the run is: from here on a failure of a peer is told once, in this directory's status.json too. */
void dist_set_run(Dist *dist, const char *directory);

/* Every rank gets the failure of the first rank that has one; rank 0 gets the line, the others none. */
Status dist_agree(Dist *dist, Status status);
/* Rank 0's. */
void dist_broadcast(Dist *dist, void *x, size_t bytes);
void dist_broadcast_text(Dist *dist, char **text); /* of the others *text is set: malloc'ed, or NULL */
void dist_gather_all(Dist *dist, const void *mine, void *all, size_t bytes);
int64_t dist_max(Dist *dist, int64_t value);
int64_t dist_min(Dist *dist, int64_t value);
/* The sum of one number of each rank, by the tree. */
double dist_sum(Dist *dist, double value);

/* The range, of as many as ranks (params_bounds), that a rank owns after tree_reduce_scatter. */
int dist_range(const Dist *dist);
/* A failure of a peer: of all ranks, the first to come here tells the line, and status.json says it. */
void dist_tell(Dist *dist, const char *line);
/* A peer is gone and `what` with it. Never returns: the watch knows within seconds who it was and ends this process; where it
 * does not, the line is told here. Any thread. */
NO_RETURN void dist_lost(Dist *dist, const char *what);
/* Ends what waits for peers on the GPU, as well as that can be done within two seconds; the process ends next. Any thread. */
void dist_abort(Dist *dist);
