/* device: where a run computes: a backend (one struct of functions, made from kernels.def) and its three arenas.
 *
 * Backends: "cpu" (float), chosen at start among builds of the same sources for the baseline processor, AVX2, AVX-512,
 * AVX-512 with BF16 dot products, and AMX (ASPIS_CPU=generic|avx2|avx512|avx512_bf16|amx forces one); "cpu_f64", the same
 * sources in double, for checks; "cuda", a plug-in that is opened when a GPU is asked for (plugin.h).
 *
 * Host code never touches a tensor of another backend than the CPU: it pulls it, reads the host's copy, or writes that
 * and pushes it. On the CPU a tensor is its own copy. */
#pragma once

#include "tensor/kernels.h"

/* A backend's own memory. */
typedef struct BackendMemory {
  bool out_of_reach; /* no host address: arena_open_over */
  bool delayed;      /* of a twin: work may come to it after its arena gave it back */
  Status (*open)(const char *name, size_t bytes, void **memory); /* fails with CODE_MEMORY */
  void (*close)(void *memory);
  size_t (*available)(void); /* bytes that open can still give */
  void (*zero)(void *at, size_t bytes);
  void (*write)(void *to, const void *from_host, size_t bytes); /* `from_host` may be changed once it returns */
  void (*read)(void *to_host, const void *from, size_t bytes);  /* waits for what was launched before */
} BackendMemory;

/* Two lanes of work that may go on at the same time; each is done in order. Lane 1 exists from its first use on. */
typedef struct BackendLanes {
  void (*use)(int lane);               /* what is launched, copied or read from now on is on it; 0 at first */
  void *(*stream)(void);               /* the runtime's name of the lane in use */
  void (*follow)(int lane, int other); /* what comes on `lane` begins when all that is on `other` so far is done */
  /* Who puts work of its own on stream() asks before, and says all that makes it: true, it is taken note of and is not to be put
   * there (BackendGraphs.walk). */
  bool (*walks)(const void *call, size_t bytes);
  bool (*idle)(void);                  /* whether all on the lane in use is done */
  void (*mark)(int i);                 /* notes when the lane in use comes to here; i < LANES_MARKS */
  bool (*passed)(int i);               /* whether it has; true of a mark that was never made */
  double (*seconds)(int from, int to); /* between two marks that were passed */
} BackendLanes;
enum {
  LANES_MARKS = 260,
  LANES_PACE = LANES_MARKS - 2
}; /* LANES_PACE and the one behind: of two steps (train/dist/tree.h) */

/* Work that is put together once and then launched as a whole, as often as wanted. Its host code is gone through every time,
 * but as a walk: nothing is launched; all that the device would be told is folded into a number, and what would be written is
 * kept aside. Work of one number is the same work but for what is written: so what differs from time to time must be
 * written, not handed to a kernel, or the number differs, too. */
typedef struct BackendGraphs {
  void (*walk)(void);             /* begins one */
  bool (*walked)(uint64_t *fold); /* ends it; false: work like this (it waits for the device) is not for a graph */
  void *(*make)(void);            /* a graph for what the last walk went through; NULL: no memory */
  void (*capture)(void *graph);   /* that, gone through again, is kept in it */
  void (*captured)(void);         /* ends that */
  void (*launch)(void *graph);    /* does it all, with what the last walk wrote; returns before it is done */
  void (*drop)(void *graph);
} BackendGraphs;
enum { GRAPH_WRITE_ALIGN = 256 }; /* what is written is kept in pieces, each at a multiple of this */

/* Copies set aside in the backend's own memory, as things are once all that was launched so far is done, and fetched from there while
 * later work goes on. They are taken by the thread that launches; nobody waits. */
typedef struct BackendAside {
  void (*take)(void *to, const void *from, size_t bytes); /* on the lane in use, from the backend's memory to it */
  void (*taken)(void);                                    /* behind the last */
  /* By one other thread, if wanted, until the next is taken: to the host, from where something was taken to. Waits until it is there. */
  void (*fetch)(void *to_host, const void *from, size_t bytes);
} BackendAside;

typedef struct Backend {
  const char *name;
  const BackendMemory *memory; /* NULL: the host's */
  const BackendLanes *lanes;   /* NULL: work is done when a call returns */
  const BackendGraphs *graphs; /* NULL: there is no such thing */
  const BackendAside *aside;   /* NULL: there is no such thing */
  const char *identity;        /* of a GPU: its name, architecture, processors and driver; else NULL */
  Dtype real;                  /* F32 or F64 */
  bool multiplies_bf16;        /* where not, BF16 is widened for products: float32's speed, less memory */
#define KERNEL_GRAD(op, Params) void (*op##_bwd)(const Params *p);
#define KERNEL_PLAIN(op, Params)
#define SCRATCH_SCRATCH(op, Params) size_t (*op##_scratch)(const Params *p, bool backward);
#define SCRATCH_NONE(op, Params)
#define KERNEL(op, Params, grad, scratch_kind)                                                                         \
  void (*op##_fwd)(const Params *p);                                                                                   \
  KERNEL_##grad(op, Params) SCRATCH_##scratch_kind(op, Params)
#include "tensor/kernels.def"
#undef KERNEL
#undef KERNEL_GRAD
#undef KERNEL_PLAIN
#undef SCRATCH_SCRATCH
#undef SCRATCH_NONE
} Backend;

typedef struct Device {
  const Backend *backend;
  Arena weights;        /* values | gradients | m | v | lower halves; lives for the run */
  Arena step;           /* activations, tape; rewound each micro-batch */
  Arena scratch;        /* one kernel's workspace; rewound by the dispatcher */
  bool dry;             /* arenas count, kernels do not run: the plan of a run is the run itself, made dry */
  double flops;         /* what the operations since the last reset would compute; counted dry or not */
  size_t written_bytes; /* what device_push and device_fill wrote since then, as a graph keeps it; counted dry or not */
} Device;

/* Arena capacities in bytes; from a plan. 0: that arena stays closed. */
typedef struct DeviceSizes {
  size_t weights_bytes, step_bytes, scratch_bytes;
} DeviceSizes;

/* For programs without a plan (tests, checks): address space on the CPU; shares of what a GPU has free. */
#define DEVICE_SIZES_ROOMY ((DeviceSizes){SIZE_MAX, SIZE_MAX, SIZE_MAX})

/* name: "auto", "cpu" (real F32 or F64), "cuda" or another plug-in. CODE_USAGE where that cannot run here, with the reason
 * (plugin.h); "auto" is the GPU where there is one, else the CPU. */
Status device_open(Device *device, const char *name, Dtype real, DeviceSizes sizes);
Status device_open_dry(Device *device, const char *name, Dtype real);
void device_close(Device *device);

/* The host's copy of a tensor of one of the device's arenas: t itself on the CPU. Its values are those of the last pull
 * or of what the host has written since; nothing may be pulled on a dry device. */
Tensor device_mirror(Device *device, const Tensor *t);
/* The host's copy after copying the tensor to it. */
Tensor device_pull(Device *device, const Tensor *t);
/* Copies the host's copy to the tensor; nothing to do on the CPU. A dry device counts it. */
void device_push(Device *device, const Tensor *t);
/* Fills the tensor from the host's, converting between types (tensor_copy). A dry device counts it and reads nothing. */
void device_fill(Device *device, Tensor *to, const Tensor *from);
/* Returns once everything that was launched is done; on the CPU it is. */
void device_wait(Device *device);
/* Zeroes the tensor (a view: its elements alone); nothing on a dry device. */
void device_zero(Device *device, Tensor *t);

/* Names of the float CPU builds of this program, fastest first, whether or not this processor runs them; NULL past the
 * last. */
const char *device_cpu_build(int i);

/* The dispatch: <op>_fwd(device, &params), <op>_bwd(device, &params). Scratch is taken and given back here. */
#define KERNEL_GRAD(op, Params) void op##_bwd(Device *device, Params *p);
#define KERNEL_PLAIN(op, Params)
#define KERNEL(op, Params, grad, scratch_kind)                                                                         \
  void op##_fwd(Device *device, Params *p);                                                                            \
  KERNEL_##grad(op, Params)
#include "tensor/kernels.def"
#undef KERNEL
#undef KERNEL_GRAD
#undef KERNEL_PLAIN
