/* dist: see dist.h. */
#include "train/dist/dist.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "tensor/plugin.h"
#include "train/dist/dist_tcp.h"
#include "train/log.h"

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
  Rendezvous rendezvous;
  TRY(rendezvous_find(&kind, &rendezvous));
  if (kind != START_ALONE) {
    const void *table = &dist_tcp;
    if (kind == START_MPI) TRY(plugin_load("mpi", "several ranks", "aspis_dist", DIST_LAYOUT, &table));
    const DistBackend *backend = table;
    TRY(backend->start(&rendezvous, &world.rank, &world.size, &world.local_rank, &world.local_size));
    world.backend = backend;
    take_threads(&world);
    take_gpu(&world);
  }
  world.hosts = base_zalloc((size_t)world.size * sizeof *world.hosts);
  dist_gather_all(&world, host, world.hosts, sizeof host);
  return STATUS_OK;
}

/* ---- GPUs */

/* A twin of the device has its NCCL beside it. */
static char *gpu_plugin(void) {
  const char *gpu = plugin_of_gpu();
  return strcmp(gpu, "cuda") != 0 ? base_format("%s_nccl", gpu) : base_strdup("nccl");
}

static bool wants_gpu(const Device *device, Transport transport) {
  if (transport != TRANSPORT_AUTO) return transport == TRANSPORT_NCCL;
  char *plugin = gpu_plugin(), *path = device->backend->lanes ? plugin_path(plugin) : NULL;
  free(plugin), free(path);
  return path != NULL;
}

static Status load_gpu(const Device *device, const DistGpu **gpu) {
  if (!device->backend->lanes)
    return status_fail(CODE_USAGE, "train.transport: found nccl, expected auto or host where device is not cuda");
  char *plugin = gpu_plugin();
  const void *table;
  Status status = plugin_load(plugin, "train.transport: nccl", "aspis_dist_gpu", DIST_GPU_LAYOUT, &table);
  free(plugin);
  TRY(status);
  *gpu = table;
  return STATUS_OK;
}

Status dist_open_gpu(Dist *dist, Device *device, Transport transport) {
  if (dist->size == 1 || !wants_gpu(device, transport)) return STATUS_OK;
  const DistGpu *gpu = NULL;
  char id[DIST_GPU_ID_BYTES] = "";
  Status status = load_gpu(device, &gpu);
  if (status.code == CODE_OK && dist_is_first(dist)) status = gpu->make_id(id);
  TRY(dist_agree(dist, status));
  dist_broadcast(dist, id, sizeof id);
  TRY(dist_agree(dist, gpu->start(id, dist->rank, dist->size)));
  dist->gpu = gpu;
  return STATUS_OK;
}

/* Ending what waits on the GPU may itself wait for the driver, and the process must end. */
static void *abort_gpu(void *gpu) {
  ((const DistGpu *)gpu)->abort();
  return NULL;
}

void dist_abort(Dist *dist) {
  enum { ABORT_SECONDS = 2 };
  pthread_t thread;
  if (!dist->gpu || pthread_create(&thread, NULL, abort_gpu, (void *)dist->gpu) != 0) return;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += ABORT_SECONDS;
  pthread_timedjoin_np(thread, NULL, &until);
}

void dist_finish(Dist *dist) {
  if (dist->gpu) dist->gpu->finish();
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

enum { PATIENCE_SECONDS = 5 };

void dist_lost(Dist *dist, const char *what) {
  sleep(dist->watched ? PATIENCE_SECONDS : 1);
  char *line = base_format("rank %d on %s: lost its peers in %s", dist->rank, dist->hosts[dist->rank], what);
  dist_tell(dist, line);
  _exit(CODE_PEER);
}

/* ---- small things */

void dist_broadcast(Dist *dist, void *x, size_t bytes) {
  if (dist->backend && !dist->backend->broadcast(x, bytes)) dist_lost(dist, "a broadcast");
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
  else if (!dist->backend->gather_all(mine, all, bytes)) dist_lost(dist, "gathering");
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
    if (!dist->backend->exchange(dist->rank ^ bit, &value, sizeof value, &other, sizeof other))
      dist_lost(dist, "a sum");
    value += other;
  }
  return value;
}

int dist_range(const Dist *dist) {
  int range = 0;
  for (int bit = 1; bit < dist->size; bit <<= 1) range = 2 * range + ((dist->rank & bit) != 0);
  return range;
}
