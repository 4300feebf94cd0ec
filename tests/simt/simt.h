/* simt: what tests say to the host's twin of the CUDA runtime (include/cuda_runtime.h) and learn from it. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The device that the CUDA kernels are tested on: this twin, or what ASPIS_TEST_DEVICE names (tests/gpu/run.sh: cuda). There
 * the orders of threads are the GPU's own, and running a case again must still give the same bits. */
static inline const char *simt_device(void) {
  const char *asked = getenv("ASPIS_TEST_DEVICE");
  return asked && *asked ? asked : "simt";
}

/* The order of threads, warps and blocks from now on. */
void simt_seed(uint64_t seed);
/* How many processors the device has from now on, also where it is open; 4 without this. */
void simt_processors(int n);
/* Shared memory that a block of it can have; as an H100 without this, 227 KiB. */
void simt_shared(size_t bytes);
/* Watches global memory: traffic is counted, blocks of a launch that get in each other's way end the program. Slower. */
void simt_watch(int on);

/* Bytes that launches took from and brought to global memory while it was watched: each address once a launch. Of the
 * kernels whose name, "<file>.cu: <kernel>", contains `what`, since the last reset. */
typedef struct SimtTraffic {
  uint64_t bytes_in, bytes_out, launches, most_threads, most_shared;
} SimtTraffic;
SimtTraffic simt_traffic(const char *what);
void simt_traffic_reset(void);

#ifdef __cplusplus
}
#endif
