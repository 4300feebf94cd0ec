/* dist: see dist.h. */
#include "train/dist.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "tensor/plugin.h"
#include "train/dist_tcp.h"
#include "train/log.h"
#include "train/rendezvous.h"

/* MPI is one a process, and so are ranks. */
static Dist world;

/* ---- opening */

/* A rank takes its share of the host's cores, unless it was given fewer than all, or a number of threads. */
static void take_threads(const Dist *dist) {
#ifdef _OPENMP
  const char *asked = getenv("OMP_NUM_THREADS");
  const int n = omp_get_num_procs();
  if ((asked && *asked) || n < (int)sysconf(_SC_NPROCESSORS_ONLN)) return;
  omp_set_num_threads(n > dist->local_size ? n / dist->local_size : 1);
#else
  (void)dist;
#endif
}

/* Ranks of a host take its GPUs in turn, unless somebody has dealt them already. */
static void take_gpu(const Dist *dist) {
  char number[16];
  snprintf(number, sizeof number, "%d", dist->local_rank);
  char *path = base_format("/dev/nvidia%d", dist->local_rank);
  if (dist->local_size > 1 && access(path, F_OK) == 0) setenv("CUDA_VISIBLE_DEVICES", number, 0);
  free(path);
}

Status dist_open(Dist **dist) {
  CHECK(world.size == 0, "ranks opened twice");
  world = (Dist){.size = 1, .local_size = 1};
  *dist = &world;
  char host[DIST_HOST_BYTES] = "";
  gethostname(host, sizeof host - 1);
  StartKind kind;
  Rendezvous unused;
  TRY(rendezvous_find(&kind, &unused));
  if (kind != START_ALONE) {
    const void *table = &dist_tcp;
    if (kind == START_MPI) TRY(plugin_load("mpi", "several ranks", "aspis_dist", DIST_LAYOUT, &table));
    const DistBackend *backend = table;
    TRY(backend->start(&world.rank, &world.size, &world.local_rank, &world.local_size));
    world.backend = backend;
    take_threads(&world);
    take_gpu(&world);
  }
  world.hosts = base_zalloc((size_t)world.size * sizeof *world.hosts);
  dist_gather_all(&world, host, world.hosts, sizeof host);
  return STATUS_OK;
}

void dist_finish(Dist *dist) {
  if (dist->backend) dist->backend->finish();
  free(dist->hosts), free(dist->directory), free(dist->verdict);
  *dist = (Dist){0};
}

Status dist_fits(const Dist *dist, int virtual_ranks) {
  if (virtual_ranks % dist->size == 0) return STATUS_OK;
  return status_fail(CODE_USAGE,
                     "found %d ranks, expected a divisor of train.virtual_ranks = %d: start as many, or set "
                     "train.virtual_ranks to a power of two that they divide (before the first step of a run)",
                     dist->size, virtual_ranks);
}

/* ---- a lost peer */

void dist_set_run(Dist *dist, const char *directory) {
  const char *given = getenv("ASPIS_VERDICT"); /* the launcher looks there, too */
  free(dist->directory), free(dist->verdict);
  dist->directory = base_strdup(directory);
  dist->verdict = given && *given ? base_strdup(given) : base_format("%s/peer_failure", directory);
  if (dist_is_first(dist)) unlink(dist->verdict);
}

void dist_tell(Dist *dist, const char *line) {
  int fd = dist->verdict ? open(dist->verdict, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
  if (fd < 0 && dist->verdict && errno == EEXIST) return;
  /* first what the launcher finishes, should mpirun kill us now; then the line, in one piece whatever the main thread prints */
  if (fd >= 0) dprintf(fd, "%s\n%s\n", dist->directory, line);
  dprintf(STDERR_FILENO, "aspis: %s\n", line);
  if (dist->directory) runlog_end(dist->directory, CODE_PEER, line);
}

/* The watch knows within seconds who it was and ends this process; this is for when it does not. */
enum { PATIENCE_SECONDS = 5 };

static NO_RETURN void lost(Dist *dist, const char *what) {
  sleep(dist->watched ? PATIENCE_SECONDS : 1);
  char *line = base_format("rank %d on %s: lost its peers in %s", dist->rank, dist->hosts[dist->rank], what);
  dist_tell(dist, line);
  _exit(CODE_PEER);
}

/* ---- small things */

void dist_broadcast(Dist *dist, void *x, size_t bytes) {
  if (dist->backend && !dist->backend->broadcast(x, bytes)) lost(dist, "a broadcast");
}

void dist_broadcast_text(Dist *dist, char **text) {
  if (dist->size == 1) return;
  int64_t bytes = dist_is_first(dist) && *text ? (int64_t)strlen(*text) + 1 : 0;
  dist_broadcast(dist, &bytes, sizeof bytes);
  if (!dist_is_first(dist)) *text = bytes ? base_zalloc((size_t)bytes) : NULL;
  if (bytes) dist_broadcast(dist, *text, (size_t)bytes);
}

void dist_gather_all(Dist *dist, const void *mine, void *all, size_t bytes) {
  if (!dist->backend) memcpy(all, mine, bytes);
  else if (!dist->backend->gather_all(mine, all, bytes)) lost(dist, "gathering");
}

int64_t dist_max(Dist *dist, int64_t value) {
  if (dist->size == 1) return value;
  int64_t *all = base_alloc((size_t)dist->size * sizeof *all), most = value;
  dist_gather_all(dist, &value, all, sizeof value);
  for (int i = 0; i < dist->size; i++) most = max_i64(most, all[i]);
  free(all);
  return most;
}

int64_t dist_min(Dist *dist, int64_t value) { return -dist_max(dist, -value); }

Status dist_agree(Dist *dist, Status status) {
  if (dist->size == 1) return status;
  const int64_t first = dist_min(dist, status.code == CODE_OK ? dist->size : dist->rank);
  if (first == dist->size) return status;
  struct {
    Code code;
    char line[4092];
  } mine = {.code = status.code}, *all = base_alloc((size_t)dist->size * sizeof *all);
  if (status.code != CODE_OK) snprintf(mine.line, sizeof mine.line, "%s", status.line ? status.line : "");
  dist_gather_all(dist, &mine, all, sizeof mine);
  const Code code = all[first].code;
  Status agreed = {.code = code};
  if (dist_is_first(dist))
    agreed =
        first == 0 ? status : status_fail(code, "rank %d on %s: %s", (int)first, dist->hosts[first], all[first].line);
  if (first != 0 || !dist_is_first(dist)) status_clear(&status);
  free(all);
  return agreed;
}

/* ---- the tree */

double dist_sum(Dist *dist, double value) {
  for (int bit = 1; bit < dist->size; bit <<= 1) {
    double other;
    if (!dist->backend->exchange(dist->rank ^ bit, &value, sizeof value, &other, sizeof other)) lost(dist, "a sum");
    value += other;
  }
  return value;
}

int dist_range(const Dist *dist) {
  int range = 0;
  for (int bit = 1; bit < dist->size; bit <<= 1) range = 2 * range + ((dist->rank & bit) != 0);
  return range;
}

static void add(float *restrict x, const float *restrict other, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 15)
  for (int64_t i = 0; i < n; i++) x[i] += other[i];
}

void dist_reduce_scatter(Dist *dist, float *x, float *spare, const int64_t *bounds) {
  int first = 0, width = dist->size;
  for (int bit = 1; bit < dist->size; bit <<= 1) {
    width /= 2;
    const bool upper = dist->rank & bit;
    const int keep = first + (upper ? width : 0), give = first + (upper ? 0 : width);
    const int64_t n = bounds[keep + width] - bounds[keep], n_given = bounds[give + width] - bounds[give];
    if (!dist->backend->exchange(dist->rank ^ bit, x + bounds[give], (size_t)n_given * sizeof *x, spare + bounds[keep],
                                 (size_t)n * sizeof *x))
      lost(dist, "the sum of gradients");
    add(x + bounds[keep], spare + bounds[keep], n);
    first = keep;
  }
}

void dist_all_gather(Dist *dist, void *x, const int64_t *bounds) {
  int first = dist_range(dist), width = 1;
  for (int bit = dist->size / 2; bit > 0; bit >>= 1) {
    const bool upper = dist->rank & bit;
    const int other = first + (upper ? -width : width);
    if (!dist->backend->exchange(dist->rank ^ bit, (char *)x + bounds[first],
                                 (size_t)(bounds[first + width] - bounds[first]), (char *)x + bounds[other],
                                 (size_t)(bounds[other + width] - bounds[other])))
      lost(dist, "gathering what was summed");
    if (upper) first = other;
    width *= 2;
  }
}
