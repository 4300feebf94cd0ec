/* faults: see faults.h. */
#include "tests/simt/faults.h"

#include <cuda_runtime.h>

static struct { cudaStream_t stream; } cuda_device; /* the one that LAUNCH asks */

static __global__ void reverse_block(bool faulty, float *out) { /* through shared memory */
  SHARED(float, shared);
  const int i = threadIdx.x;
  shared[FAULT_N - 1 - i] = (float)(FAULT_N - 1 - i);
  if (!faulty) __syncthreads();
  out[i] = shared[i];
}

static __global__ void reverse_warp(bool faulty, float *out) {
  SHARED(float, shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x - lane, to = warp + 31 - lane;
  shared[to] = (float)to;
  if (!faulty) __syncwarp();
  out[threadIdx.x] = shared[threadIdx.x];
}

static __global__ void write_shared(bool faulty, float *out) {
  SHARED(float, shared);
  const int i = threadIdx.x;
  shared[faulty && i == FAULT_N - 1 ? FAULT_N : i] = (float)i;
  __syncthreads();
  out[i] = shared[i];
}

static __global__ void read_global(bool faulty, const float *in, float *out) {
  const int i = threadIdx.x, from = faulty && i == FAULT_N - 1 ? FAULT_N : i;
  SIMT_READ(in + from, sizeof *in);
  out[i] = in[from];
}

/* Block b makes its half; the faulty one takes the other's first element along. */
static __global__ void two_blocks(bool faulty, float *between, float *out) {
  const int half = FAULT_N / 2, i = (int)blockIdx.x * half + (int)threadIdx.x;
  SIMT_WRITE(between + i, sizeof *between);
  between[i] = (float)i;
  const int from = faulty && threadIdx.x == 0 ? (i + half) % FAULT_N : i;
  SIMT_READ(between + from, sizeof *between);
  out[i] = between[from];
}

static __global__ void copy_ahead(bool faulty, const float *in, float *out) {
  SHARED(float, shared);
  const int i = threadIdx.x;
  if (i % 4 == 0) copy_async(shared + i, in + i);
  copy_async_commit();
  if (!faulty) copy_async_wait<0>();
  __syncthreads();
  out[i] = shared[i];
  copy_async_wait<0>();
}

static __global__ void half_waits(bool faulty, float *out) {
  const int i = threadIdx.x;
  out[i] = (float)i;
  if (!faulty || i < FAULT_N / 2) __syncthreads();
  else __syncthreads();
}

static __global__ void read_four(bool faulty, const float *in, float *out) {
  const int i = threadIdx.x, from = i < 4 ? 0 : faulty ? i - 3 : i - i % 4;
  const float4 *at = reinterpret_cast<const float4 *>(in + from);
  SIMT_ALIGNED(at, alignof(float4));
  float four[4];
  memcpy(four, at, sizeof four);
  out[i] = four[i - from];
}

static __global__ void add_to(bool faulty, float *sums, float *out) {
  const int i = threadIdx.x;
  if (!faulty) sums[i] = 0;
  out[i] = sums[i] + (float)i;
}

/* The last block raises a flag that the others wait for; the right ones look once and do without. */
static __global__ void wait_for_last(bool faulty, int *flag, float *out) {
  const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (blockIdx.x + 1 == gridDim.x && threadIdx.x == 0 && faulty) {
    SIMT_WRITE(flag, sizeof *flag);
    *flag = 1;
  }
  while (blockIdx.x + 1 < gridDim.x && faulty) {
    SIMT_READ(flag, sizeof *flag);
    if (*flag == 1) break;
  }
  out[i] = (float)i;
}

static __global__ void rows_of_grid(bool faulty, float *out) {
  if (faulty || blockIdx.y > 0) return;
  out[threadIdx.x] = (float)threadIdx.x;
}

static __global__ void some_lanes(bool faulty, float *out) {
  const int i = threadIdx.x;
  float x = (float)i;
  if (!faulty || i % 32 < 16) x = __shfl_xor_sync(0xffffffffu, x, 1);
  x = __shfl_xor_sync(0xffffffffu, x, faulty ? 2 : 1);
  out[i] = x;
}

const char *fault_name(Fault fault) {
  static const char *const NAMES[N_FAULTS] = {"a missing barrier",
                                              "a missing barrier of a warp",
                                              "an index too far in shared memory",
                                              "an index too far in global memory",
                                              "a race between blocks",
                                              "an asynchronous copy read too early",
                                              "two barriers, each for half of the threads",
                                              "a shuffle that some lanes do not reach",
                                              "16 bytes read off their alignment",
                                              "memory read that nothing was written to",
                                              "a block that waits for another",
                                              "a grid beyond the limits",
                                              "shared memory that was not asked for"};
  return NAMES[fault];
}

void fault_run(Fault fault, int faulty, float *out) {
  const bool bad = faulty != 0;
  void *memory = nullptr, *between = nullptr;
  const size_t bytes = FAULT_N * sizeof(float);
  if (cudaMalloc(&memory, bytes) != cudaSuccess || cudaMalloc(&between, bytes) != cudaSuccess) return;
  float *in = (float *)memory;
  for (int i = 0; i < FAULT_N; i++) in[i] = (float)i;
  switch (fault) {
  case FAULT_BARRIER: LAUNCH_NOW(reverse_block, 1, FAULT_N, bytes, bad, out); break;
  case FAULT_WARP_BARRIER: LAUNCH_NOW(reverse_warp, 1, FAULT_N, bytes, bad, out); break;
  case FAULT_SHARED_INDEX: LAUNCH_NOW(write_shared, 1, FAULT_N, bytes, bad, out); break;
  case FAULT_GLOBAL_INDEX: LAUNCH_NOW(read_global, 1, FAULT_N, 0, bad, in, out); break;
  case FAULT_BLOCK_RACE: LAUNCH_NOW(two_blocks, 2, FAULT_N / 2, 0, bad, (float *)between, out); break;
  case FAULT_ASYNC_COPY: LAUNCH_NOW(copy_ahead, 1, FAULT_N, bytes, bad, in, out); break;
  case FAULT_DIVERGENCE: LAUNCH_NOW(half_waits, 1, FAULT_N, 0, bad, out); break;
  case FAULT_LANES: LAUNCH_NOW(some_lanes, 1, FAULT_N, 0, bad, out); break;
  case FAULT_ALIGNMENT: LAUNCH_NOW(read_four, 1, FAULT_N, 0, bad, in, out); break;
  case FAULT_UNWRITTEN: LAUNCH_NOW(add_to, 1, FAULT_N, 0, bad, (float *)between, out); break;
  case FAULT_WAIT: LAUNCH_NOW(wait_for_last, FAULT_N / 32, 32, 0, bad, (int *)between, out); break;
  case FAULT_GRID: LAUNCH_NOW(rows_of_grid, dim3(1, bad ? 65536 : 2), FAULT_N, 0, bad, out); break;
  case FAULT_SHARED_MUCH:
    if (!bad) cudaFuncSetAttribute((const void *)reverse_block, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
    LAUNCH_NOW(reverse_block, 1, FAULT_N, 64 << 10, false, out);
    break;
  case N_FAULTS: break;
  }
  cudaFree(memory);
  cudaFree(between);
}

/* ---- captures */

static cudaStream_t capture_stream() {
  static cudaStream_t stream;
  if (!stream) cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  return stream;
}

bool fault_capture(CaptureFault fault) {
  static float there[4];
  float here[4] = {};
  static cudaEvent_t outside;
  if (!outside) cudaEventCreateWithFlags(&outside, cudaEventDisableTiming);
  const cudaStream_t stream = capture_stream();
  static cudaStream_t other;
  if (!other) cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) return false;
  void *memory = nullptr;
  cudaError_t error = cudaSuccess, wanted = cudaErrorStreamCaptureUnsupported, end = cudaErrorStreamCaptureInvalidated;
  switch (fault) {
  case CAPTURE_WAITS: error = cudaStreamSynchronize(stream); break;
  case CAPTURE_ASKS: error = cudaStreamQuery(stream); break;
  case CAPTURE_ALLOCATES: error = cudaMalloc(&memory, 64); break;
  case CAPTURE_PINS: error = cudaHostAlloc(&memory, 64, cudaHostAllocDefault); break;
  case CAPTURE_COPIES: error = cudaMemcpyAsync(there, here, sizeof here, cudaMemcpyHostToDevice, stream); break;
  case CAPTURE_DEPENDS:
    error = cudaStreamWaitEvent(stream, outside, 0), wanted = cudaErrorStreamCaptureIsolation;
    break;
  case CAPTURE_LEAVES:
    cudaEventRecord(outside, stream);
    cudaStreamWaitEvent(other, outside, 0);
    error = cudaMemsetAsync(there, 0, sizeof there, other);
    wanted = cudaSuccess, end = cudaErrorStreamCaptureUnjoined;
    break;
  case N_CAPTURE_FAULTS: break;
  }
  cudaGraph_t graph;
  return cudaStreamEndCapture(stream, &graph) == end && error == wanted;
}

static __global__ void store(float x, float *out) { *out = x; }

void fault_frozen(float *out) {
  static float there;
  const cudaStream_t stream = cuda_device.stream = capture_stream();
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  float x = 1;
  there = 0;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  LAUNCH_NOW(store, 1, 1, 0, x, &there);
  if (cudaStreamEndCapture(stream, &graph) != cudaSuccess) return;
  cudaStreamSynchronize(stream), out[0] = there;
  cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  for (int i = 1; i <= 2; i++) {
    there = 0;
    cudaGraphLaunch(exec, stream);
    cudaStreamSynchronize(stream), out[i] = there;
    x = 2;
  }
  cudaGraphExecDestroy(exec);
}
