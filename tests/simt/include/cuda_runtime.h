/* cuda_runtime.h of the host: the part of the CUDA runtime that Aspis uses, so that its .cu files are compiled and run on
 * a machine without a GPU. A block's threads are fibers that run one at a time; which runs next is drawn from a seed.
 *
 * What it makes visible: a missing barrier (the order of threads changes the result, or a value is still the NaN that
 * shared memory begins with), a barrier that not all threads reach, lanes that meet in different warp operations, an
 * asynchronous copy read before its wait, two blocks of a launch that touch the same global memory where one writes, a thread
 * that waits for what another writes, memory read that nothing was written to (all of it begins as NaN), loads and stores off
 * their alignment, launches beyond the card's limits or with shared memory that was not asked for, work of two streams that
 * neither waits for the other, and under AddressSanitizer every access out of bounds. */
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

/* ---- the runtime */

typedef struct SimtStream *cudaStream_t;
typedef struct SimtEvent *cudaEvent_t;
typedef struct SimtGraph *cudaGraph_t;
typedef struct SimtGraphExec *cudaGraphExec_t;
typedef enum cudaError {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorNotReady = 600,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorIllegalState = 401,
  cudaErrorStreamCaptureUnjoined = 904,
  cudaErrorStreamCaptureIsolation = 905
} cudaError_t;
typedef enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1
} cudaStreamCaptureMode;
typedef enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
} cudaMemcpyKind;
typedef enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76
} cudaDeviceAttr;
enum { cudaEventRecordDefault = 0, cudaEventRecordExternal = 1 };
enum { cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
struct cudaDeviceProp {
  char name[256];
};
struct cudaFuncAttributes {
  int numRegs;
};
typedef enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 } cudaFuncAttribute;

const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel);
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaFree(void *memory);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream);

/* Graphs. While a stream captures, what it is given is kept with its arguments as they are and nothing is done; a stream that
 * waits for an event of the capture joins it, and the first must have waited for all that the others were given before it
 * ends; whatever
 * CUDA forbids then (waiting for the stream, memory taken or given back, events of work that is not captured) returns its
 * error and spoils the capture. Copies to and from memory that is not pinned are refused, too: CUDA would read that memory
 * when the graph is launched. */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

/* ASPIS_SIMT_STREAMS=1: work waits in its stream's queue, instead of being done when it is asked for. */
bool simt_delays();

/* ---- running a kernel */

extern dim3 blockIdx, blockDim, gridDim;
struct SimtThread; /* the fiber that runs */
extern dim3 simt_thread_index;
#define threadIdx simt_thread_index

/* Runs body once for every thread of every block, when its stream comes to it; `function` is the kernel's own address. */
void simt_launch(const char *kernel, const void *function, dim3 grid, dim3 block, size_t shared_bytes,
                 std::function<void()> body, cudaStream_t stream);
/* What a library launches: reads and writes are its own while this lives. */
struct SimtLibraryCall {
  explicit SimtLibraryCall(const char *name);
  ~SimtLibraryCall();
};
void *simt_shared();
#define SHARED(type, name) type *name = reinterpret_cast<type *>(simt_shared())

template <class... Parameters, class... Arguments>
static inline void simt_launch_kernel(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                                      void (*kernel)(Parameters...), Arguments... arguments) {
  simt_launch(
      name, (const void *)kernel, grid, block, shared, [=] { kernel(arguments...); }, stream);
}
#define LAUNCH_NOW(kernel, grid, block, shared, ...)                                                                   \
  simt_launch_kernel(__FILE__ ": " #kernel, (grid), (block), (shared), cuda_device.stream, kernel, __VA_ARGS__)

/* All threads must come to the same barrier of the source. */
void simt_barrier(const char *file, int line);
#define __syncthreads() simt_barrier(__FILE__, __LINE__)
void __syncwarp(unsigned mask = 0xffffffffu);

/* What a lane brings to a warp operation and takes from it. */
struct SimtLane {
  uint32_t bits;
  int from;
};
typedef void SimtWarpOp(SimtLane *lanes, unsigned mask);
/* Meets the other lanes of the mask; the last to come runs op over all of them. Returns this lane's entry. */
SimtLane simt_meet(SimtWarpOp *op, unsigned mask, const SimtLane &mine);
int simt_lane();

uint32_t simt_shuffle(unsigned mask, uint32_t x, int from);
template <class T> static inline T simt_shuffle_as(unsigned mask, T x, int from) {
  static_assert(sizeof(T) == 4, "a shuffle of 4 bytes");
  uint32_t bits;
  memcpy(&bits, &x, 4);
  bits = simt_shuffle(mask, bits, from);
  memcpy(&x, &bits, 4);
  return x;
}
template <class T> static inline T __shfl_sync(unsigned mask, T x, int from) {
  return simt_shuffle_as(mask, x, from % 32);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T x, int step) {
  return simt_shuffle_as(mask, x, simt_lane() ^ step);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T x, int step) {
  const int from = simt_lane() - step;
  return simt_shuffle_as(mask, x, from < 0 ? simt_lane() : from);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T x, int step) {
  const int from = simt_lane() + step;
  return simt_shuffle_as(mask, x, from > 31 ? simt_lane() : from);
}
float warp_sum(float x); /* as tensor/cuda/cuda.h adds, in one meeting */
float warp_max(float x);
unsigned __ballot_sync(unsigned mask, int predicate);
static inline int __popc(unsigned x) { return __builtin_popcount(x); }

void mma_bf16(float *d, const uint32_t *a, const uint32_t *b);
void mma_tf32(float *d, const uint32_t *a, const uint32_t *b);
void mma_wait();

void copy_async(void *to_shared, const void *from_global);
void copy_async_commit();
void simt_copy_wait(int n_open);
template <int n_open> static inline void copy_async_wait() { simt_copy_wait(n_open); }

/* ---- global memory */

/* A load or store must lie at a multiple of its type's alignment: always looked at. */
[[noreturn]] void simt_misaligned(const void *at, size_t bytes);
#define SIMT_ALIGNED(at, bytes) ((uintptr_t)(at) % (bytes) ? simt_misaligned((at), (bytes)) : (void)0)
/* Called where global memory is watched (simt.h). */
void simt_read(const void *at, size_t bytes);
void simt_write(const void *at, size_t bytes);
extern bool simt_is_watched;
#define SIMT_READ(at, bytes) (simt_is_watched ? simt_read((at), (bytes)) : (void)0)
#define SIMT_WRITE(at, bytes) (simt_is_watched ? simt_write((at), (bytes)) : (void)0)
