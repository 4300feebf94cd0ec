/* snapshot: see snapshot.h. */
#include "train/snapshot.h"

#include <stdlib.h>

/* In the order that a split table's ranks bring them (zero.h): all values are there, of what follows each comes with a set. */
enum { PART_VALUES, PART_LOWS, PART_M, PART_V, N_PARTS };
enum { HOST_RESULT, HOST_HIGH, HOST_LOW, N_HOST };

struct Snapshot {
  Device *device;
  char *memory;
  size_t bytes, used;
  char *part[N_PARTS], **further; /* where they lie in it */
  struct {
    char *at;
    size_t bytes;
  } host[N_HOST]; /* what was fetched last */
};

static size_t aligned(size_t bytes) { return (size_t)round_up((int64_t)bytes, ARENA_ALIGN); }

/* Bytes of each part. */
static void part_bytes(const ParamTable *params, size_t bytes[N_PARTS]) {
  const size_t n = (size_t)tensor_count(&params->grads_flat);
  bytes[PART_VALUES] = tensor_bytes(&params->values_flat);
  bytes[PART_LOWS] = params->lows_flat.data ? n * sizeof(int16_t) : 0;
  bytes[PART_M] = bytes[PART_V] = n * sizeof(float);
}

size_t snapshot_bytes(const ParamTable *params, const CheckpointTensor *further, int n_further) {
  if (!params->device->backend->aside) return 0;
  size_t part[N_PARTS], bytes = 0;
  part_bytes(params, part);
  for (int p = 0; p < N_PARTS; p++) bytes += aligned(part[p]);
  for (int i = 0; i < n_further; i++) bytes += aligned(tensor_bytes(further[i].tensor));
  return bytes;
}

Status snapshot_open(Device *device, size_t bytes, Snapshot **snapshot) {
  void *memory;
  *snapshot = NULL;
  TRY(device->backend->memory->open("checkpoint", bytes, &memory));
  Snapshot *s = *snapshot = base_zalloc(sizeof *s);
  *s = (Snapshot){.device = device, .memory = memory, .bytes = bytes};
  return STATUS_OK;
}

void snapshot_close(Snapshot *s) {
  if (!s) return;
  s->device->backend->memory->close(s->memory);
  for (int i = 0; i < N_HOST; i++) free(s->host[i].at);
  free(s->further);
  free(s);
}

static char *take(Snapshot *s, const void *from, size_t bytes) {
  char *to = s->memory + s->used;
  s->used += aligned(bytes);
  CHECK(s->used <= s->bytes, "a checkpoint's copy takes more than the %zu bytes that were planned", s->bytes);
  if (bytes > 0) s->device->backend->aside->take(to, from, bytes);
  return to;
}

void snapshot_take(Snapshot *s, const ParamTable *params, const CheckpointTensor *further, int n_further,
                   void (*begin_set)(void *user, int set), void *user) {
  const bool split = params_split(params); /* its sets become whole in the spare block, one after the other */
  size_t bytes[N_PARTS];
  part_bytes(params, bytes);
  s->used = 0;
  for (int p = 0; p < N_PARTS; p++) {
    if (begin_set && p > 0) begin_set(user, p - 1);
    const Tensor *const own[N_PARTS] = {&params->values_flat, &params->lows_flat, &params->m_flat, &params->v_flat};
    s->part[p] = take(s, split && p > 0 ? params->spare_grads[0].data : own[p]->data, bytes[p]);
  }
  s->further = base_realloc(s->further, (size_t)(n_further + 1) * sizeof *s->further);
  for (int i = 0; i < n_further; i++) s->further[i] = take(s, further[i].tensor->data, tensor_bytes(further[i].tensor));
  s->device->backend->aside->taken();
}

/* ---- fetching */

static void *host_room(Snapshot *s, int into, size_t bytes) {
  if (bytes > s->host[into].bytes) {
    free(s->host[into].at);
    s->host[into].at = base_alloc(bytes), s->host[into].bytes = bytes;
  }
  return s->host[into].at;
}

static void *fetch(Snapshot *s, int into, const char *at, size_t bytes) {
  void *to = host_room(s, into, bytes);
  s->device->backend->aside->fetch(to, at, bytes);
  return to;
}

Tensor snapshot_tensor(Snapshot *s, const ParamTable *params, int set, int i) {
  const Param *param = params->params[i];
  const Tensor *value = &param->value;
  const size_t n = (size_t)tensor_count(value), flat = (size_t)param->flat;
  void *found;
  if (set > 0) {
    found = fetch(s, HOST_RESULT, s->part[set == 1 ? PART_M : PART_V] + flat * sizeof(float), n * sizeof(float));
  } else {
    const char *at = s->part[PART_VALUES] + ((char *)value->data - (char *)params->values_flat.data);
    if (value->dtype == F32) {
      found = fetch(s, HOST_RESULT, at, n * sizeof(float));
    } else { /* its master */
      const uint16_t *high = fetch(s, HOST_HIGH, at, n * sizeof *high);
      const int16_t *low = fetch(s, HOST_LOW, s->part[PART_LOWS] + flat * sizeof *low, n * sizeof *low);
      float *exact = found = host_room(s, HOST_RESULT, n * sizeof *exact);
      for (size_t e = 0; e < n; e++) exact[e] = bf16_join(high[e], low[e]);
    }
  }
  return tensor_over(found, F32, value->n_dim, value->dim);
}

Tensor snapshot_further(Snapshot *s, const Tensor *own, int i) {
  return tensor_over(fetch(s, HOST_RESULT, s->further[i], tensor_bytes(own)), own->dtype, own->n_dim, own->dim);
}
