/* tree: see tree.h. */
#include "train/dist/tree.h"

#include <time.h>

/* The memory that a vector is exchanged in. */
typedef struct Place {
  Dist *dist;
  Device *device; /* NULL: the host */
} Place;

static void exchange(const Place *p, int peer, const void *out, int64_t out_bytes, void *in, int64_t in_bytes,
                     const char *what) {
  const Dist *dist = p->dist;
  const struct {
    int64_t peer, out_bytes, in_bytes;
    const void *out, *in;
  } call = {peer, out_bytes, in_bytes, out, in};
  if (p->device && p->device->backend->lanes->walks(&call, sizeof call)) return;
  const bool went = p->device ? dist->gpu->exchange(peer, out, (size_t)out_bytes, in, (size_t)in_bytes,
                                                    p->device->backend->lanes->stream())
                              : dist->backend->exchange(peer, out, (size_t)out_bytes, in, (size_t)in_bytes);
  if (!went) dist_lost(p->dist, what);
}

static void add_here(float *restrict x, const float *restrict other, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > 1 << 15)
  for (int64_t i = 0; i < n; i++) x[i] += other[i];
}

static void add(const Place *p, float *x, float *other, int64_t n) {
  if (!p->device) {
    add_here(x, other, n);
    return;
  }
  Tensor to = tensor_over(x, F32, 1, &n), from = tensor_over(other, F32, 1, &n);
  add_fwd(p->device, &(Add){.x = &from, .y = &to});
}

static void reduce_scatter(const Place *p, float *x, float *spare, const int64_t *bounds) {
  const Dist *dist = p->dist;
  int first = 0, width = dist->size;
  for (int bit = 1; bit < dist->size; bit <<= 1) {
    width /= 2;
    const bool upper = dist->rank & bit;
    const int keep = first + (upper ? width : 0), give = first + (upper ? 0 : width);
    const int64_t n = bounds[keep + width] - bounds[keep], n_given = bounds[give + width] - bounds[give];
    exchange(p, dist->rank ^ bit, x + bounds[give], n_given * (int64_t)sizeof *x, spare + bounds[keep],
             n * (int64_t)sizeof *x, "the sum of gradients");
    add(p, x + bounds[keep], spare + bounds[keep], n);
    first = keep;
  }
}

static void all_gather(const Place *p, char *x, const int64_t *bounds) {
  const Dist *dist = p->dist;
  int first = dist_range(dist), width = 1;
  for (int bit = dist->size / 2; bit > 0; bit >>= 1) {
    const bool upper = dist->rank & bit;
    const int other = first + (upper ? -width : width);
    exchange(p, dist->rank ^ bit, x + bounds[first], bounds[first + width] - bounds[first], x + bounds[other],
             bounds[other + width] - bounds[other], "gathering what was summed");
    if (upper) first = other;
    width *= 2;
  }
}

void tree_reduce_scatter(Dist *dist, Device *device, const Tensor *x, const Tensor *spare, const int64_t *bounds) {
  if (dist->gpu) {
    reduce_scatter(&(Place){dist, device}, x->data, spare->data, bounds);
    return;
  }
  const Tensor host = device_pull(device, x), host_spare = device_mirror(device, spare);
  reduce_scatter(&(Place){dist, NULL}, host.data, host_spare.data, bounds);
  device_push(device, x);
}

void tree_all_gather(Dist *dist, Device *device, const Tensor *x, const int64_t *bounds) {
  if (dist->gpu) {
    all_gather(&(Place){dist, device}, x->data, bounds);
    return;
  }
  const Tensor host = device_pull(device, x);
  all_gather(&(Place){dist, NULL}, host.data, bounds);
  device_push(device, x);
}

void tree_collect(Dist *dist, Device *device, const Tensor *x, int64_t bytes) {
  CHECK(dist->gpu, "ranks' own bytes are collected on a GPU");
  char *data = x->data;
  for (int64_t bit = 1; bit < dist->size; bit <<= 1) {
    const int64_t own = dist->rank / bit * bit;
    exchange(&(Place){dist, device}, dist->rank ^ (int)bit, data + own * bytes, bit * bytes, data + (own ^ bit) * bytes,
             bit * bytes, "the sum of losses");
  }
}

enum { ALL_MARKS = -1 };

/* NCCL's work waits for a lost peer until somebody aborts it, so who waits for the work asks after the peers meanwhile. */
static void wait_for_mark(Dist *dist, const BackendLanes *lanes, int mark) {
  while (mark == ALL_MARKS ? !lanes->idle() : !lanes->passed(mark)) {
    if (!dist->gpu->healthy()) break;
    nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
  }
  if (!dist->gpu->healthy()) dist_lost(dist, "the sum of gradients");
}

void tree_wait(Dist *dist, Device *device) {
  if (dist->gpu) wait_for_mark(dist, device->backend->lanes, ALL_MARKS);
}

void tree_keep_pace(Dist *dist, Device *device, int64_t step) {
  if (!dist->gpu) return;
  const BackendLanes *lanes = device->backend->lanes;
  lanes->mark(LANES_PACE + (int)(step % 2));
  wait_for_mark(dist, lanes, LANES_PACE + (int)((step + 1) % 2));
}
