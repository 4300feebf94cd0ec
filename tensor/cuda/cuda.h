/* cuda: what the CUDA kernels share. A kernel file has numbered __global__ kernels above and the row's launchers below.
 *
 * The same files are read by the host compiler, against tests/simt/include, where a block's threads are fibers. So that
 * both can:
 *   - kernels are launched by LAUNCH, never by <<<>>>;
 *   - shared memory is dynamic and named by SHARED, so that its bounds and its first contents are the launch's;
 *   - global memory is touched through Rows (or global_load, global_store), which the host counts and guards;
 *   - matrix products of a warp go through mma_* and are there behind mma_wait, asynchronous copies through copy_async*.
 *
 * Results do not depend on the order of blocks: no float atomics; a sum over rows is cut into blocks by the number of rows
 * alone (the scan's backward pass: by the number of the device's processors too), and the blocks' sums are added in order. */
#pragma once

#include <cuda_runtime.h>
#include <float.h>
#include <math.h>
#include <stdint.h>

extern "C" {
#include "tensor/device.h"
}

/* Copies to the host what was computed before, and waits for it; not during a capture (read.cu). */
void cuda_read(void *to_host, const void *from, size_t bytes);
extern const BackendAside cuda_aside;
/* During a walk: says that the work needs the host, and so is for no graph. False: there is none. During a capture: the end.
 * (graph.cu) */
bool cuda_walk_ends();
/* During a walk or a capture: what is written is kept aside, or its copying is kept. False: neither. (graph.cu) */
bool cuda_keeps_write(void *to, const void *from_host, size_t bytes);
extern const BackendGraphs cuda_graphs;

static inline Status status_ok() { return {CODE_OK, nullptr}; }

/* ---- launching */

/* What becomes of what is launched, copied or zeroed (graph.cu). */
enum CudaMode { CUDA_RUNS, CUDA_WALKS, CUDA_CAPTURES };

/* The stream of the lane in use, and what the launchers need to know of the device (backend.cu). */
struct CudaDevice {
  cudaStream_t stream;
  CudaMode mode;
  int n_processors;    /* streaming multiprocessors */
  size_t shared_bytes; /* the most a block can have */
};
extern CudaDevice cuda_device;

/* A failing call of the runtime is a fault of ours or of the machine: reported by name, and the end. */
#define CUDA_CHECK(call)                                                                                               \
  do {                                                                                                                 \
    const cudaError_t error_ = (call);                                                                                 \
    CHECK(error_ == cudaSuccess, "CUDA: %s", cudaGetErrorString(error_));                                              \
  } while (0)

/* During a walk (graph.cu): takes note of bytes, and of a launch with all that a kernel is handed. */
void cuda_fold(const void *bytes, size_t n);
template <class T> static inline void cuda_fold_value(T value) {
  __builtin_clear_padding(&value);
  cuda_fold(&value, sizeof value);
}
/* True: the launch is not to be made. */
template <class... Arguments>
static inline bool cuda_walks(const void *kernel, dim3 grid, dim3 block, size_t shared, const Arguments &...arguments) {
  if (cuda_device.mode != CUDA_WALKS) return false;
  const uint64_t shape[] = {(uint64_t)(uintptr_t)kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared};
  cuda_fold(shape, sizeof shape);
  (cuda_fold_value(arguments), ...);
  return true;
}

/* Lets a kernel's blocks have more than 48 KiB, once for every size beyond what it may have already (backend.cu). */
void cuda_allow_shared(const void *kernel, size_t bytes);
constexpr size_t SHARED_ALWAYS = 48 << 10; /* what no kernel has to ask for */

/* LAUNCH(kernel, grid, block, shared_bytes, arguments...) */
#define LAUNCH(kernel, grid, block, shared, ...)                                                                       \
  do {                                                                                                                 \
    const size_t shared_ = (shared);                                                                                   \
    if (cuda_walks((const void *)(kernel), (grid), (block), shared_, __VA_ARGS__)) break;                              \
    if (shared_ > SHARED_ALWAYS) cuda_allow_shared((const void *)(kernel), shared_);                                   \
    LAUNCH_NOW(kernel, grid, block, shared_, __VA_ARGS__);                                                             \
    CUDA_CHECK(cudaGetLastError());                                                                                    \
  } while (0)

#ifdef __CUDACC__
#define LAUNCH_NOW(kernel, grid, block, shared, ...)                                                                   \
  kernel<<<(grid), (block), (shared), cuda_device.stream>>>(__VA_ARGS__)
/* SHARED(float, rows): the block's shared memory from its beginning */
#define SHARED(type, name)                                                                                             \
  extern __shared__ __align__(16) unsigned char shared_memory_[];                                                      \
  type *name = reinterpret_cast<type *>(shared_memory_)
#define SIMT_ALIGNED(at, bytes) ((void)0)
#define SIMT_READ(at, bytes) ((void)0)
#define SIMT_WRITE(at, bytes) ((void)0)
#endif

#define KERNEL_FWD(op, Params) extern "C" void op##_fwd_cuda(const Params *p)
#define KERNEL_BWD(op, Params) extern "C" void op##_bwd_cuda(const Params *p)
#define KERNEL_SCRATCH(op, Params) extern "C" size_t op##_scratch_cuda(const Params *p, bool backward)

#define KERNEL_GRAD(op, Params) KERNEL_BWD(op, Params);
#define KERNEL_PLAIN(op, Params)
#define SCRATCH_SCRATCH(op, Params) KERNEL_SCRATCH(op, Params);
#define SCRATCH_NONE(op, Params)
#define KERNEL(op, Params, grad, scratch_kind)                                                                         \
  KERNEL_FWD(op, Params);                                                                                              \
  KERNEL_##grad(op, Params) SCRATCH_##scratch_kind(op, Params)
#include "tensor/kernels.def"
#undef KERNEL
#undef KERNEL_GRAD
#undef KERNEL_PLAIN
#undef SCRATCH_SCRATCH
#undef SCRATCH_NONE

/* Blocks of `threads` that cover n. A grid's first dimension takes 2^31-1. */
static inline unsigned blocks_of(int64_t n, int64_t threads) { return (unsigned)ceil_div(n, threads); }

/* ---- global memory */

struct bf16 {
  uint16_t bits;
};
__device__ static inline float as_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
__device__ static inline uint32_t as_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}
__device__ static inline float to_float(float x) { return x; }
__device__ static inline float to_float(bf16 x) { return as_float((uint32_t)x.bits << 16); }
/* to nearest even; NaN stays NaN */
__device__ static inline bf16 to_bf16(float x) {
  const uint32_t u = as_bits(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {(uint16_t)(u >> 16 | 0x40u)};
  return {(uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
}
__device__ static inline void set(float &to, float x) { to = x; }
__device__ static inline void set(bf16 &to, float x) { to = to_bf16(x); }

template <class T> __device__ static inline T global_load(const T *at) {
  SIMT_ALIGNED(at, alignof(T));
  SIMT_READ(at, sizeof(T));
  return *at;
}
template <class T> __device__ static inline void global_store(T *at, T value) {
  SIMT_ALIGNED(at, alignof(T));
  SIMT_WRITE(at, sizeof(T));
  *at = value;
}

/* A tensor as a kernel sees it: rows of F32 or BF16, each element a float. */
struct Rows {
  void *data; /* NULL: absent */
  int64_t ld;
  bool is_bf16;
  bool unset; /* a gradient nothing was added to: add stores */

  __device__ explicit operator bool() const { return data != nullptr; }
  __device__ float get(int64_t row, int64_t col) const {
    const int64_t at = row * ld + col;
    return is_bf16 ? to_float(global_load((const bf16 *)data + at)) : global_load((const float *)data + at);
  }
  __device__ float get_or(int64_t row, int64_t col, float otherwise) const { return data ? get(row, col) : otherwise; }
  __device__ void put(int64_t row, int64_t col, float x) const {
    const int64_t at = row * ld + col;
    if (is_bf16) global_store((bf16 *)data + at, to_bf16(x));
    else global_store((float *)data + at, x);
  }
  __device__ void add(int64_t row, int64_t col, float x) const { put(row, col, unset ? x : get(row, col) + x); }

  /* RUN elements from col on, those from n on (n > 0) not there: 16 bytes at once where they lie so. */
  static constexpr int RUN = 8;
  __device__ bool whole(int64_t at, int64_t n) const {
    return n >= RUN && ((uintptr_t)data + (uintptr_t)at * (is_bf16 ? 2 : 4)) % 16 == 0;
  }
  __device__ void get_run(int64_t row, int64_t col, int64_t n, float *x) const {
    const int64_t at = row * ld + col;
    if (!whole(at, n)) {
      for (int i = 0; i < RUN; i++) x[i] = i < n ? get(row, col + i) : 0;
    } else if (is_bf16) {
      const uint4 four = global_load((const uint4 *)((const bf16 *)data + at));
      const uint32_t pairs[4] = {four.x, four.y, four.z, four.w};
      for (int i = 0; i < 4; i++) x[2 * i] = as_float(pairs[i] << 16), x[2 * i + 1] = as_float(pairs[i] & 0xffff0000u);
    } else {
      for (int i = 0; i < 2; i++) {
        const float4 four = global_load((const float4 *)((const float *)data + at) + i);
        x[4 * i] = four.x, x[4 * i + 1] = four.y, x[4 * i + 2] = four.z, x[4 * i + 3] = four.w;
      }
    }
  }
  __device__ void put_run(int64_t row, int64_t col, int64_t n, const float *x) const {
    const int64_t at = row * ld + col;
    if (!whole(at, n)) {
      for (int i = 0; i < RUN && i < n; i++) put(row, col + i, x[i]);
    } else if (is_bf16) {
      uint32_t pairs[4];
      for (int i = 0; i < 4; i++) pairs[i] = to_bf16(x[2 * i]).bits | (uint32_t)to_bf16(x[2 * i + 1]).bits << 16;
      global_store((uint4 *)((bf16 *)data + at), make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
    } else {
      for (int i = 0; i < 2; i++)
        global_store((float4 *)((float *)data + at) + i,
                     make_float4(x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]));
    }
  }
  __device__ void add_run(int64_t row, int64_t col, int64_t n, const float *x) const {
    if (unset) return put_run(row, col, n, x);
    float sum[RUN];
    get_run(row, col, n, sum);
    for (int i = 0; i < RUN; i++) sum[i] += x[i];
    put_run(row, col, n, sum);
  }
};
static inline Rows rows_of(const Tensor *t) {
  if (!t) return {};
  CHECK(t->dtype == F32 || t->dtype == BF16, "%s in a CUDA kernel", dtype_name(t->dtype));
  return {t->data, t->ld, t->dtype == BF16, t->unset};
}
/* The same, read as rows of `width` whatever the tensor's own shape; it must be contiguous. */
static inline Rows rows_of_width(const Tensor *t, int64_t width) {
  Rows rows = rows_of(t);
  rows.ld = width;
  return rows;
}
static inline const int32_t *ints_of(const Tensor *t) { return t ? (const int32_t *)t->data : nullptr; }

/* Where a thread works: a row and a run of its columns, the grid being all of them laid end to end. */
struct Place {
  int64_t row, col, n; /* n columns are there: at least 1, RUN or more where the run is whole */
};
static inline unsigned run_blocks(int64_t n_rows, int64_t width) {
  return blocks_of(n_rows * ceil_div(width, Rows::RUN), 128);
}
/* Whether this thread has a place; blocks of 128 threads. */
__device__ static inline bool place_of(int64_t n_rows, int64_t width, Place *place) {
  const int64_t runs = (width + Rows::RUN - 1) / Rows::RUN, at = (int64_t)blockIdx.x * 128 + threadIdx.x;
  place->row = at / runs, place->col = at % runs * Rows::RUN, place->n = width - place->col;
  return place->row < n_rows;
}
/* LAUNCH over the runs of (n_rows, width) */
#define LAUNCH_RUNS(kernel, n_rows, width, ...)                                                                        \
  do {                                                                                                                 \
    if ((n_rows) > 0 && (width) > 0) LAUNCH(kernel, run_blocks(n_rows, width), 128, 0, n_rows, width, __VA_ARGS__);    \
  } while (0)

/* ---- a warp and a block */

constexpr int WARP = 32;
#define ALL_LANES 0xffffffffu

/* The warp's sum and largest, for every lane: lane l takes lane l^16's, then l^8's, and so on. (The host's twin has them in
 * one meeting of the lanes.) */
#ifdef __CUDACC__
__device__ static inline float warp_sum(float x) {
  for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
  return x;
}
__device__ static inline float warp_max(float x) {
  for (int step = WARP / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
  return x;
}
#endif
/* The block's sum, for every thread; `spare` is WARP floats of shared memory, free again behind the next barrier. The
 * block has whole warps, and all its threads call. */
__device__ static inline float block_sum(float x, float *spare) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
  x = warp_sum(x);
  __syncthreads(); /* whoever still reads the sum before */
  if (lane == 0) spare[warp] = x;
  __syncthreads();
  return warp_sum(lane < n_warps ? spare[lane] : 0);
}
__device__ static inline float block_max(float x, float *spare) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
  x = warp_max(x);
  __syncthreads();
  if (lane == 0) spare[warp] = x;
  __syncthreads();
  return warp_max(lane < n_warps ? spare[lane] : -INFINITY);
}

/* Threads of a block that has a row of `width`, a run of it each at a time. */
static inline unsigned row_threads(int64_t width) {
  const int64_t threads = round_up(ceil_div(width, Rows::RUN), WARP);
  return (unsigned)(threads < 256 ? threads : 256);
}

/* ---- functions of a float; __expf and its like are left alone: their error is not stated for all arguments */

__device__ static inline float sigmoid(float x) { return 1 / (1 + expf(-x)); }
__device__ static inline float silu(float x) { return x * sigmoid(x); }
__device__ static inline float silu_slope(float x) {
  const float s = sigmoid(x);
  return s * (1 + x * (1 - s));
}
__device__ static inline float softplus(float x) { return fmaxf(x, 0) + log1pf(expf(-fabsf(x))); }

/* ---- sums over rows */

/* Rows are cut into at most SUM_BLOCKS blocks by their number alone, each block sums into its own row of scratch, and
 * sum_columns adds the rows in order. */
constexpr int64_t SUM_BLOCKS = 512;
__host__ __device__ static inline int64_t sum_blocks(int64_t n_rows) {
  return n_rows < SUM_BLOCKS ? n_rows : SUM_BLOCKS;
}
__host__ __device__ static inline int64_t sum_block_start(int64_t n_rows, int64_t block) {
  return n_rows * block / sum_blocks(n_rows);
}
/* to[0, col] += sum over n_rows rows of `width` floats, ld apart (backend.cu). */
void sum_columns(const float *parts, int64_t n_rows, int64_t width, int64_t ld, Rows to);
static inline void sum_columns(const float *parts, int64_t n_rows, int64_t width, Rows to) {
  sum_columns(parts, n_rows, width, width, to);
}

/* ---- tensor cores and asynchronous copies, in the instructions of sm_80 */

#ifdef __CUDACC__
/* d (16, 8) += a (16, 16) b (16, 8), BF16 into float. Of lane l with g = l/4, i = l%4, two neighbours in k a register:
 *   a: rows g, g+8, g, g+8 at k = 2i, 2i, 2i+8, 2i+8;  b: column g at k = 2i, 2i+8;  d: rows g, g, g+8, g+8 at columns
 *   2i, 2i+1, 2i, 2i+1. (PTX ISA, mma.m16n8k16) */
__device__ static inline void mma_bf16(float *d, const uint32_t *a, const uint32_t *b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* d (16, 8) += a (16, 8) b (8, 8), TF32 (the upper 19 bits of a float) into float: a: rows g, g+8, g, g+8 at k = i, i,
 * i+4, i+4;  b: column g at k = i, i+4;  d as above. (PTX ISA, mma.m16n8k8) */
__device__ static inline void mma_tf32(float *d, const uint32_t *a, const uint32_t *b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* The warp's products so far are in their registers: at once on a GPU; on the host its lanes meet here. */
__device__ static inline void mma_wait() {}
/* 16 bytes from global to shared memory, both aligned so; there once copy_async_wait and a barrier are behind. */
__device__ static inline void copy_async(void *to_shared, const void *from_global) {
  const unsigned to = (unsigned)__cvta_generic_to_shared(to_shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from_global) : "memory");
}
__device__ static inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until at most n_open of this thread's committed groups are under way. */
template <int n_open> __device__ static inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(n_open) : "memory");
}
#endif
