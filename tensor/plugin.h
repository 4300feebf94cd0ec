/* plugin: what is kept in shared objects, libaspis_<name>.so, opened when it is asked for, so that the program starts at
 * once and one build serves machines with and without it: backends that compute ("cuda"; tests have "simt", which runs the
 * same sources on the host, and ASPIS_CUDA=simt puts it in the place of "cuda"), and what joins ranks ("mpi", train/dist/dist.h).
 *
 * A plug-in is looked for in $ASPIS_PLUGINS, beside the program, and in ../lib/ beside it. */
#pragma once

#include "tensor/device.h"

/* What a plug-in of a backend exports, as `aspis_plugin`. */
typedef struct Plugin {
  uint64_t layout;                         /* plugin_layout() of its build */
  Status (*open)(const Backend **backend); /* CODE_USAGE with what is missing: driver, device, architecture */
} Plugin;

/* Sizes of all that a backend is handed, folded (FNV-1a): it changes with the table and with every struct that crosses, so
 * that a plug-in of another build is refused instead of misread. */
static inline uint64_t plugin_layout(void) {
#define KERNEL(op, Params, grad, scratch_kind) sizeof(Params),
  const size_t sizes[] = {
#include "tensor/kernels.def"
      sizeof(Backend),       sizeof(BackendMemory), sizeof(BackendLanes),
      sizeof(BackendGraphs), sizeof(Tensor),        sizeof(Status)};
#undef KERNEL
  uint64_t fold = 14695981039346656037u;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) fold = (fold ^ sizes[i]) * 1099511628211u;
  return fold;
}

/* CODE_USAGE where there is no such plug-in, or it cannot run here; the line says why and what to do. Opened once; later
 * calls get the same backend. */
Status plugin_open(const char *name, const Backend **backend);
/* What libaspis_<name>.so exports as `symbol`: a struct whose first field is its layout (uint64_t). Fails with CODE_USAGE,
 * the line beginning with `use`, where there is none, or one of another layout. */
Status plugin_load(const char *name, const char *use, const char *symbol, uint64_t layout, const void **table);
/* Whether a GPU's driver is loaded and the CUDA plug-in is built: what device "auto" asks. Loads nothing. */
bool plugin_has_gpu(void);
/* "cuda", or what ASPIS_CUDA puts in its place. */
const char *plugin_of_gpu(void);
/* Where the plug-in lies, into a fresh string; NULL where it is not built. */
char *plugin_path(const char *name);
