/* backend: the CUDA backend's struct of functions, made from the table, its memory, and what opening it needs. */
#include "tensor/cuda/cuda.h"

#include "tensor/cuda/matmul.h"

#include <stdio.h>

extern "C" {
#include "tensor/plugin.h"
}

CudaDevice cuda_device;

/* ---- memory */

static Status memory_open(const char *name, size_t bytes, void **memory) {
  const cudaError_t error = cudaMalloc(memory, bytes);
  if (error == cudaSuccess) return status_ok();
  cudaGetLastError(); /* forgotten: it is told here */
  return status_fail(CODE_MEMORY, "the GPU has no %.1f MiB for the %s arena (%s); lower train.micro_batch_size",
                     (double)bytes / 1048576.0, name, cudaGetErrorString(error));
}
static void memory_close(void *memory) { CUDA_CHECK(cudaFree(memory)); }
static size_t memory_available() {
  size_t free_bytes = 0, all_bytes = 0;
  CUDA_CHECK(cudaMemGetInfo(&free_bytes, &all_bytes));
  return free_bytes;
}
static void memory_zero(void *at, size_t bytes) {
  if (cuda_walks(nullptr, 1, 1, 0, at, bytes)) return;
  CUDA_CHECK(cudaMemsetAsync(at, 0, bytes, cuda_device.stream));
}
/* From memory that is not pinned the runtime returns once it has taken a copy. */
static void memory_write(void *to, const void *from, size_t bytes) {
  if (cuda_keeps_write(to, from, bytes)) return;
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda_device.stream));
}
static const BackendMemory MEMORY = {
#ifdef __CUDACC__
    true,        false,
#else
    false,       simt_delays(), /* the host's twin of a device */
#endif
    memory_open, memory_close, memory_available, memory_zero, memory_write, cuda_read};

/* ---- lanes: streams, and events that order them */

static cudaStream_t lane_streams[2];

static cudaStream_t lane_stream(int lane) {
  if (!lane_streams[lane]) CUDA_CHECK(cudaStreamCreateWithFlags(&lane_streams[lane], cudaStreamNonBlocking));
  return lane_streams[lane];
}
/* In a walk what lanes do is taken note of; a stream that follows one that is captured joins it (cudaStreamWaitEvent). */
enum LaneCall { LANE_USE = 3, LANE_FOLLOW, LANE_MARK, LANE_OTHERS };

static void lanes_use(int lane) {
  cuda_walks(nullptr, LANE_USE, 1, 0, lane);
  cuda_device.stream = lane_stream(lane);
}
static void *lanes_stream() { return cuda_device.stream; }
static void lanes_follow(int lane, int other) {
  if (cuda_walks(nullptr, LANE_FOLLOW, 1, 0, lane, other)) return;
  static cudaEvent_t reached[2];
  if (!reached[other]) CUDA_CHECK(cudaEventCreateWithFlags(&reached[other], cudaEventDisableTiming));
  CUDA_CHECK(cudaEventRecord(reached[other], lane_stream(other)));
  CUDA_CHECK(cudaStreamWaitEvent(lane_stream(lane), reached[other], 0));
}
static bool lanes_walks(const void *call, size_t bytes) {
  const bool walks = cuda_walks(nullptr, LANE_OTHERS, 1, 0, bytes);
  if (walks) cuda_fold(call, bytes);
  return walks;
}
/* What was asked for is done, or under way: no error, but some versions of the runtime keep it as the last one. */
static bool is_done(cudaError_t answer) {
  if (answer == cudaErrorNotReady) cudaGetLastError();
  else CUDA_CHECK(answer);
  return answer == cudaSuccess;
}
static bool lanes_idle() { return cuda_walk_ends() || is_done(cudaStreamQuery(cuda_device.stream)); }
static cudaEvent_t marks[LANES_MARKS];
static void lanes_mark(int i) {
  if (cuda_walks(nullptr, LANE_MARK, 1, 0, i)) return;
  if (!marks[i]) CUDA_CHECK(cudaEventCreateWithFlags(&marks[i], cudaEventDefault));
  const bool inside = cuda_device.mode == CUDA_CAPTURES; /* the host asks after it, whoever launches it */
  CUDA_CHECK(cudaEventRecordWithFlags(marks[i], cuda_device.stream,
                                      inside ? cudaEventRecordExternal : cudaEventRecordDefault));
}
static bool lanes_passed(int i) { return cuda_walk_ends() || !marks[i] || is_done(cudaEventQuery(marks[i])); }
static double lanes_seconds(int from, int to) {
  float ms = 0;
  CUDA_CHECK(cudaEventElapsedTime(&ms, marks[from], marks[to]));
  return 1e-3 * (double)ms;
}
static const BackendLanes LANES = {lanes_use, lanes_stream, lanes_follow, lanes_walks, lanes_idle,
                                   lanes_mark, lanes_passed, lanes_seconds};

/* ---- shared memory */

void cuda_allow_shared(const void *kernel, size_t bytes) {
  constexpr int MOST_KERNELS = 256;
  static struct {
    const void *kernel;
    size_t bytes;
  } allowed[MOST_KERNELS];
  int i = 0;
  while (i < MOST_KERNELS && allowed[i].kernel && allowed[i].kernel != kernel) i++;
  CHECK(i < MOST_KERNELS, "more than %d kernels", MOST_KERNELS);
  if (allowed[i].bytes >= bytes) return;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
  allowed[i] = {kernel, bytes};
}

/* ---- sums over rows */

static __global__ void sum_columns_kernel(const float *parts, int64_t n_rows, int64_t width, int64_t ld, Rows to) {
  const int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (col >= width) return;
  float sum = 0;
  for (int64_t r = 0; r < n_rows; r++) sum += global_load(parts + r * ld + col);
  to.add(0, col, sum);
}

void sum_columns(const float *parts, int64_t n_rows, int64_t width, int64_t ld, Rows to) {
  if (width > 0) LAUNCH(sum_columns_kernel, blocks_of(width, 128), 128, 0, parts, n_rows, width, ld, to);
}

/* ---- opening */

#define SET_GRAD(op) backend.op##_bwd = op##_bwd_cuda;
#define SET_PLAIN(op)
#define SET_SCRATCH(op) backend.op##_scratch = op##_scratch_cuda;
#define SET_NONE(op)
#define KERNEL(op, Params, grad, scratch_kind)                                                                         \
  backend.op##_fwd = op##_fwd_cuda;                                                                                    \
  SET_##grad(op) SET_##scratch_kind(op)
static const Backend *make_backend(const char *identity) {
  static Backend backend;
  backend.name = "cuda";
  backend.identity = identity;
  backend.real = F32;
  backend.multiplies_bf16 = true;
  backend.memory = &MEMORY;
  backend.lanes = &LANES;
  backend.graphs = &cuda_graphs;
  backend.aside = &cuda_aside;
#include "tensor/kernels.def"
  return &backend;
}
#undef KERNEL

static Status missing(cudaError_t error) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0)
    return status_fail(CODE_USAGE,
                       "device: cuda: no NVIDIA driver is loaded; install one (nvidia-smi shows it), or use "
                       "device: cpu");
  if (driver / 1000 < runtime / 1000)
    return status_fail(CODE_USAGE,
                       "device: cuda: the driver knows CUDA %d.%d, this build needs %d: update the driver, or "
                       "build with an older toolkit",
                       driver / 1000, driver % 100 / 10, runtime / 1000);
  if (error == cudaErrorNoDevice)
    return status_fail(CODE_USAGE,
                       "device: cuda: a driver but no GPU (CUDA_VISIBLE_DEVICES may hide it); use device: cpu");
  return status_fail(CODE_USAGE, "device: cuda: %s", cudaGetErrorString(error));
}

/* Whether this build's code runs here: machine code for this GPU, or PTX that the driver can compile for it. */
static Status check_code(const char *gpu) {
  cudaFuncAttributes unused;
  const cudaError_t error = cudaFuncGetAttributes(&unused, (const void *)sum_columns_kernel);
  if (error == cudaSuccess) return status_ok();
  cudaGetLastError(); /* forgotten: it is told here */
  return status_fail(CODE_USAGE,
                     "device: cuda: this build has no code for a GPU of %s (%s); build with "
                     "-DCMAKE_CUDA_ARCHITECTURES=native there, or use device: cpu",
                     gpu, cudaGetErrorString(error));
}

static Status open_backend(const Backend **backend) {
  int n_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&n_devices);
  if (error != cudaSuccess || n_devices == 0) return missing(error != cudaSuccess ? error : cudaErrorNoDevice);
  int major = 0, minor = 0, shared_bytes = 0;
  CUDA_CHECK(cudaSetDevice(0));
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  CUDA_CHECK(cudaDeviceGetAttribute(&cuda_device.n_processors, cudaDevAttrMultiProcessorCount, 0));
  CUDA_CHECK(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  if (major < 8)
    return status_fail(CODE_USAGE,
                       "device: cuda: found a GPU of compute capability %d.%d, expected 8.0 (A100, RTX 30) or "
                       "later; use device: cpu",
                       major, minor);
  char gpu[16];
  snprintf(gpu, sizeof gpu, "sm_%d%d", major, minor);
  TRY(check_code(gpu));
  cuda_device.shared_bytes = (size_t)shared_bytes;
  lanes_use(0);
  matmul_open();
  static char identity[384];
  cudaDeviceProp properties;
  int driver = 0;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  CUDA_CHECK(cudaDriverGetVersion(&driver));
  snprintf(identity, sizeof identity, "%s, %s, %d processors, driver for CUDA %d.%d", properties.name, gpu,
           cuda_device.n_processors, driver / 1000, driver % 100 / 10);
  *backend = make_backend(identity);
  return status_ok();
}

extern "C" {
extern const Plugin aspis_plugin;
const Plugin aspis_plugin = {plugin_layout(), open_backend};
}
