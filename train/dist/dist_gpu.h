/* dist_gpu: how vectors pass between ranks that lie in a GPU's memory: what a plug-in (tensor/plugin.h) exports as
 * `aspis_dist_gpu`. There is one, "nccl" (train/dist/nccl/dist_nccl.c). A host backend (dist.h) has joined the ranks before, and
 * goes on to carry what the host says. */
#pragma once

#include "tensor/base.h"

/* How vectors in a GPU's memory go between ranks; auto: by NCCL where its plug-in was built. */
typedef enum Transport { TRANSPORT_AUTO, TRANSPORT_HOST, TRANSPORT_NCCL } Transport;

enum { DIST_GPU_ID_BYTES = 128 };

typedef struct DistGpu {
  uint64_t layout; /* DIST_GPU_LAYOUT of its build */
  const char *name;
  Status (*make_id)(char id[DIST_GPU_ID_BYTES]); /* rank 0's, which all start with */
  Status (*start)(const char id[DIST_GPU_ID_BYTES], int rank, int size);
  /* As of DistBackend, but the work is put on `stream` (the runtime's), and done when that comes to it. `out` and `in` are apart. */
  bool (*exchange)(int peer, const void *out, size_t out_bytes, void *in, size_t in_bytes, void *stream);
  bool (*healthy)(void); /* false: a peer is lost, and work may never be done */
  void (*abort)(void);   /* by any thread: work that waits for peers ends, undone; nothing may be asked for any more */
  void (*finish)(void);
} DistGpu;

/* Changes when the above does. */
#define DIST_GPU_LAYOUT (((uint64_t)2 << 32) + ((uint64_t)sizeof(Status) << 16) + sizeof(DistGpu))
