/* simt: what tests say to the host's twin of the CUDA runtime (include/cuda_runtime.h) and learn from it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The order of threads, warps and blocks from now on. */
void simt_seed(uint64_t seed);
/* Watches global memory: traffic is counted, blocks of a launch that get in each other's way end the program. Slower. */
void simt_watch(int on);

/* Bytes that the launches since the last reset took from and brought to global memory: each address once a launch. */
typedef struct SimtTraffic {
  uint64_t bytes_in, bytes_out, launches;
} SimtTraffic;
SimtTraffic simt_traffic(void);
void simt_traffic_reset(void);

#ifdef __cplusplus
}
#endif
