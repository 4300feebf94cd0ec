/* simt: how a kernel runs, and what is watched meanwhile; see simt.h and include/cuda_runtime.h. Fibers are made by ucontext and
 * switched by _setjmp and _longjmp, which leave the signal mask alone and so need no system call. A fiber that waits jumps to the
 * next one itself. */
#include "tests/simt/simt.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#include "tensor/cuda/cuda.h"
#include "tests/simt/inside.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

dim3 blockIdx, blockDim, gridDim, simt_thread_index;
bool simt_is_watched;

namespace {

struct Product;
typedef void SimtProduct(const Product *const *lanes);

enum { LANES = 32, STACK_BYTES = 256 << 10, MOST_THREADS = SIMT_MOST_THREADS, GUARD_BYTES = 256 };
enum { LINE_BYTES = 64, LINES_OF_PAGE = 64 };

SimtDraw draw;

struct AsyncCopy {
  void *to;
  unsigned char bytes[16];
};

struct Product {
  SimtProduct *op;
  float *d;
  uint32_t a[4], b[2];
};

struct Thread {
  char *stack;
  jmp_buf here;
  bool started;
  dim3 index;
  int number;
  const void *read_last; /* from global memory, and how often in a row */
  long n_reads;
  std::vector<std::vector<AsyncCopy>> groups; /* committed; the last is being filled */
  std::vector<Product> products;              /* under way */
};

struct Warp {
  SimtLane lanes[LANES];
  SimtWarpOp *op;
  unsigned mask, arrived;
};

struct Block {
  Thread thread[MOST_THREADS];
  Warp warp[MOST_THREADS / LANES];
  int n_threads, n_alive, n_at_barrier, barrier_line;
  const char *barrier_file;
  int ready[MOST_THREADS], n_ready, waiting[MOST_THREADS];
  alignas(16) unsigned char shared[SIMT_SHARED_BYTES + GUARD_BYTES];
  size_t shared_bytes;
  std::function<void()> body;
  const char *kernel;
} block;

Thread *now, *next; /* not on a stack that is left */
jmp_buf scheduler;
#ifdef __SANITIZE_ADDRESS__
void *scheduler_fake;
const void *scheduler_stack;
size_t scheduler_stack_bytes;
#endif

void ready(int thread) { block.ready[block.n_ready++] = thread; }

Thread *draw_ready() {
  const unsigned pick = draw.below((unsigned)block.n_ready);
  const int thread = block.ready[pick];
  block.ready[pick] = block.ready[--block.n_ready];
  return &block.thread[thread];
}

void entry();

/* Goes on with a thread, from another's fiber or from the scheduler. */
[[noreturn]] void jump_to(Thread *thread) {
  now = thread;
  simt_thread_index = thread->index;
  if (thread->started) _longjmp(thread->here, 1);
  thread->started = true;
  static ucontext_t context; /* on no stack: what is left for good would stay marked there */
  getcontext(&context);
  /* stacks begin at other lines of their pages: threads do the same at the same depth, and would all want one cache set */
  context.uc_stack.ss_sp = thread->stack;
  context.uc_stack.ss_size = STACK_BYTES - (size_t)(thread->number % LINES_OF_PAGE * LINE_BYTES);
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
  setcontext(&context);
  abort();
}

/* Leaves the running fiber for another that can go on, or for the scheduler where there is none. */
void leave() {
  next = block.n_ready > 0 ? draw_ready() : nullptr;
  if (next == now) return;
#ifdef __SANITIZE_ADDRESS__
  void *fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, next ? next->stack : scheduler_stack,
                                 next ? (size_t)STACK_BYTES : scheduler_stack_bytes);
#endif
  if (!_setjmp(now->here)) {
    if (next) jump_to(next);
    _longjmp(scheduler, 1);
  }
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void release_barrier() {
  for (int i = 0; i < block.n_at_barrier; i++) ready(block.waiting[i]);
  block.n_at_barrier = 0;
}

void entry() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  for (;;) { /* a fiber is made once and runs a thread of every block to come */
    block.body();
    block.n_alive--;
    if (block.n_alive > 0 && block.n_at_barrier == block.n_alive)
      release_barrier(); /* as the hardware counts the living */
    leave();
  }
}

#ifdef __SANITIZE_ADDRESS__
/* The scheduler is on the stack of whichever of the host's threads runs the kernel. */
void find_scheduler() {
  thread_local void *stack;
  thread_local size_t bytes;
  pthread_attr_t attributes;
  if (!stack && pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &stack, &bytes);
    pthread_attr_destroy(&attributes);
  }
  scheduler_stack = stack, scheduler_stack_bytes = bytes;
}
#endif

/* Runs threads until none can go on. */
void run_threads() {
  if (_setjmp(scheduler)) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
    return;
  }
  Thread *first = draw_ready();
#ifdef __SANITIZE_ADDRESS__
  find_scheduler();
  __sanitizer_start_switch_fiber(&scheduler_fake, first->stack, STACK_BYTES);
#endif
  jump_to(first);
}

void run_block() {
  memset(block.shared, 0xff, block.shared_bytes); /* NaN as float and as BF16 */
#ifndef __SANITIZE_ADDRESS__                      /* which guards better */
  memset(block.shared + block.shared_bytes, 0xff, GUARD_BYTES);
#endif
  block.n_alive = block.n_threads, block.n_at_barrier = block.n_ready = 0;
  for (int i = 0; i < block.n_threads; i++) {
    Thread *t = &block.thread[i];
    if (!t->stack) {
      t->stack = (char *)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                              -1, 0);
      if (t->stack == MAP_FAILED) FAULT("no memory for a stack");
    }
    t->number = i;
    t->read_last = nullptr;
    if (t->groups.size() != 1 || !t->groups[0].empty()) t->groups.assign(1, {});
    t->products.clear();
    t->index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
    ready(i);
  }
  for (int w = 0; w * LANES < block.n_threads; w++) block.warp[w].arrived = 0;
  run_threads();
  if (block.n_alive > 0)
    FAULT("%s, block (%u, %u, %u): %d of %d threads wait at a barrier or for lanes that never come", block.kernel,
          blockIdx.x, blockIdx.y, blockIdx.z, block.n_alive, block.n_threads);
  for (int i = 0; i < block.n_threads; i++)
    if (!block.thread[i].products.empty()) FAULT("%s: thread %d ends without mma_wait", block.kernel, i);
#ifndef __SANITIZE_ADDRESS__
  for (int i = 0; i < GUARD_BYTES; i++)
    if (block.shared[block.shared_bytes + i] != 0xff)
      FAULT("%s: byte %zu of %zu bytes of shared memory is written", block.kernel, block.shared_bytes + i,
            block.shared_bytes);
#endif
}

/* ---- global memory: a granule is two bytes, the smallest element */

struct Granule {
  uint32_t written_in, writer, read_in, reader; /* launch and block */
};
enum : uint32_t { MANY = 0xffffffffu };
struct Region {
  char *begin;
  size_t bytes;
  Granule *granules;
};
std::vector<Region> regions;
uint32_t launch_number, block_number;
std::map<std::string, SimtTraffic> traffic; /* by kernel */
SimtTraffic *traffic_now;
Granule *granules_of(const void *at, size_t bytes, const Region **region) {
  for (const Region &r : regions)
    if ((const char *)at >= r.begin && (const char *)at + bytes <= r.begin + r.bytes) {
      *region = &r;
      return r.granules + ((const char *)at - r.begin) / 2;
    }
  FAULT("%s: %zu bytes at %p are not global memory", block.kernel, bytes, at);
  return nullptr;
}

void collision(const char *what, const Region *region, const void *at, uint32_t other) {
  FAULT("%s: block %u %s what block %u of the same launch touches, at byte %zu of an arena", block.kernel, block_number,
        what, other, (size_t)((const char *)at - region->begin));
}

} /* namespace */

void simt_open_memory(bool open) {
  static const bool guarded = getenv("ASPIS_SIMT_GUARD") && *getenv("ASPIS_SIMT_GUARD") == '1';
  for (const Region &r : regions)
    if (guarded && mprotect(r.begin, r.bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
      FAULT("memory cannot be protected");
}

static size_t granules_bytes(size_t bytes) { return bytes / 2 * sizeof(Granule); }

bool simt_add_memory(char *begin, size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *granules = mmap(nullptr, granules_bytes(bytes), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (granules == MAP_FAILED) return false;
  regions.push_back({begin, bytes, (Granule *)granules});
  simt_open_memory(false);
  return true;
}

size_t simt_drop_memory(void *begin) {
  for (size_t i = 0; i < regions.size(); i++) {
    if (regions[i].begin != begin) continue;
    const size_t bytes = regions[i].bytes;
    munmap(regions[i].granules, granules_bytes(bytes));
    regions.erase(regions.begin() + (long)i);
    return bytes;
  }
  return 0;
}

void simt_must_be_global(const char *who, const void *at, size_t bytes) {
  for (const Region &r : regions)
    if ((const char *)at >= r.begin && (const char *)at + bytes <= r.begin + r.bytes) return;
  FAULT("%s: %zu bytes at %p are not global memory", who, bytes, at);
}

void simt_misaligned(const void *at, size_t bytes) {
  FAULT("%s: an access at %p that must lie at a multiple of %zu bytes", block.kernel, at, bytes);
  abort();
}

/* A thread that looks at one place over and over waits for another to write it. On a GPU that one may be of a block that
 * does not begin before this one ends. */
static void note_wait(const void *at) {
  enum { MOST_LOOKS = 1 << 20 };
  if (at != now->read_last) now->read_last = at, now->n_reads = 0;
  if (++now->n_reads > MOST_LOOKS)
    FAULT("%s: thread %d of block (%u, %u, %u) waits for what another thread writes to %p", block.kernel, now->number,
          blockIdx.x, blockIdx.y, blockIdx.z, at);
}

void simt_read(const void *at, size_t bytes) {
  if (now) note_wait(at);
  const Region *region = nullptr;
  Granule *g = granules_of(at, bytes, &region);
  for (size_t i = 0; i < bytes / 2; i++) {
    const bool written = g[i].written_in == launch_number;
    if (written && g[i].writer != block_number) collision("reads", region, at, g[i].writer);
    if (g[i].read_in != launch_number) {
      g[i].read_in = launch_number, g[i].reader = block_number;
      if (!written) traffic_now->bytes_in += 2;
    } else if (g[i].reader != block_number) g[i].reader = MANY;
  }
}

void simt_write(const void *at, size_t bytes) {
  const Region *region = nullptr;
  Granule *g = granules_of(at, bytes, &region);
  for (size_t i = 0; i < bytes / 2; i++) {
    if (g[i].written_in == launch_number && g[i].writer != block_number) collision("writes", region, at, g[i].writer);
    if (g[i].read_in == launch_number && g[i].reader != block_number) collision("writes", region, at, g[i].reader);
    if (g[i].written_in != launch_number) traffic_now->bytes_out += 2;
    g[i].written_in = launch_number, g[i].writer = block_number;
  }
}

static void begin_launch(unsigned n_threads, size_t shared_bytes) {
  launch_number++;
  if (!simt_is_watched) return;
  traffic_now = &traffic[block.kernel];
  traffic_now->launches++;
  traffic_now->most_threads = std::max(traffic_now->most_threads, (uint64_t)n_threads);
  traffic_now->most_shared = std::max(traffic_now->most_shared, (uint64_t)shared_bytes);
}

/* ASPIS_SIMT_BREAK=<part of a name>: such kernels do nothing, for tests of what notices. */
static bool is_broken(const char *kernel) {
  static const char *const broken = getenv("ASPIS_SIMT_BREAK");
  return broken && *broken && strstr(kernel, broken);
}

void simt_run(const char *kernel, dim3 grid, dim3 block_dim, size_t shared_bytes, const std::function<void()> &body) {
  if (is_broken(kernel)) return;
  const unsigned n_threads = block_dim.x * block_dim.y * block_dim.z, n_blocks = grid.x * grid.y * grid.z;
  block.n_threads = (int)n_threads, block.shared_bytes = shared_bytes;
  block.body = body, block.kernel = kernel;
  blockDim = block_dim, gridDim = grid;
  begin_launch(n_threads, shared_bytes);
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(block.shared, sizeof block.shared);
  ASAN_POISON_MEMORY_REGION(block.shared + shared_bytes, sizeof block.shared - shared_bytes);
#endif
  simt_open_memory(true);
  std::vector<unsigned> order(n_blocks);
  for (unsigned i = 0; i < n_blocks; i++) order[i] = i;
  for (unsigned i = n_blocks; i > 1; i--) std::swap(order[i - 1], order[draw.below(i)]);
  for (unsigned number : order) {
    block_number = number;
    blockIdx = dim3(number % grid.x, number / grid.x % grid.y, number / (grid.x * grid.y));
    run_block();
  }
  simt_open_memory(false);
}

SimtLibraryCall::SimtLibraryCall(const char *name) {
  simt_open_memory(true);
  block.kernel = name, block_number = 0;
  begin_launch(0, 0);
  now = nullptr;
}
SimtLibraryCall::~SimtLibraryCall() { simt_open_memory(false); }

void *simt_shared() { return block.shared; }

/* ---- barriers and warps */

void simt_barrier(const char *file, int line) {
  if (block.n_at_barrier > 0 &&
      (block.barrier_line != line || (block.barrier_file != file && strcmp(block.barrier_file, file) != 0)))
    FAULT("%s: some threads wait at %s:%d, others at %s:%d", block.kernel, block.barrier_file, block.barrier_line, file,
          line);
  block.barrier_file = file, block.barrier_line = line;
  block.waiting[block.n_at_barrier++] = now->number;
  if (block.n_at_barrier == block.n_alive) release_barrier();
  leave();
}

int simt_lane() { return now->number % LANES; }

SimtLane simt_meet(SimtWarpOp *op, unsigned mask, const SimtLane &mine) {
  const int w = now->number / LANES, lane = simt_lane();
  Warp *warp = &block.warp[w];
  const int n_lanes = block.n_threads - w * LANES < LANES ? block.n_threads - w * LANES : LANES;
  if (n_lanes < LANES) mask &= (1u << n_lanes) - 1;
  if (!(mask >> lane & 1)) FAULT("%s: lane %d is not in its own mask %08x", block.kernel, lane, mask);
  if (!warp->arrived) warp->op = op, warp->mask = mask;
  if (warp->op != op || warp->mask != mask)
    FAULT("%s: lanes of warp %d meet in different operations or with different masks", block.kernel, w);
  warp->lanes[lane] = mine;
  warp->arrived |= 1u << lane;
  if (warp->arrived == mask) {
    op(warp->lanes, mask);
    warp->arrived = 0;
    for (int i = 0; i < LANES; i++)
      if (mask >> i & 1) ready(w * LANES + i);
  }
  leave();
  return warp->lanes[lane];
}

void __syncwarp(unsigned mask) {
  simt_meet([](SimtLane *, unsigned) {}, mask, SimtLane{});
}

static void shuffle(SimtLane *lanes, unsigned mask) {
  uint32_t x[LANES];
  for (int i = 0; i < LANES; i++) {
    if (!(mask >> i & 1)) continue;
    if (!(mask >> lanes[i].from & 1))
      FAULT("%s: a shuffle from lane %d, which does not take part", block.kernel, lanes[i].from);
    x[i] = lanes[lanes[i].from].bits;
  }
  for (int i = 0; i < LANES; i++)
    if (mask >> i & 1) lanes[i].bits = x[i];
}
uint32_t simt_shuffle(unsigned mask, uint32_t x, int from) {
  SimtLane mine = {};
  mine.bits = x, mine.from = from;
  return simt_meet(shuffle, mask, mine).bits;
}

/* x_l <- f(x_l, x_{l^step}) for steps 16, 8, ..., 1 */
template <class F> static void butterfly(SimtLane *lanes, F f) {
  float x[LANES], y[LANES];
  for (int i = 0; i < LANES; i++) memcpy(&x[i], &lanes[i].bits, 4);
  for (int step = LANES / 2; step > 0; step /= 2) {
    for (int i = 0; i < LANES; i++) y[i] = f(x[i], x[i ^ step]);
    memcpy(x, y, sizeof x);
  }
  for (int i = 0; i < LANES; i++) memcpy(&lanes[i].bits, &x[i], 4);
}
static void butterfly_sum(SimtLane *lanes, unsigned) {
  butterfly(lanes, [](float x, float y) { return x + y; });
}
static void butterfly_max(SimtLane *lanes, unsigned) {
  butterfly(lanes, [](float x, float y) { return fmaxf(x, y); });
}
static float meet_all(SimtWarpOp *op, float x) {
  if (block.n_threads % LANES) FAULT("%s: a warp of %d threads", block.kernel, block.n_threads % LANES);
  SimtLane mine = {};
  memcpy(&mine.bits, &x, 4);
  mine = simt_meet(op, 0xffffffffu, mine);
  memcpy(&x, &mine.bits, 4);
  return x;
}
float warp_sum(float x) { return meet_all(butterfly_sum, x); }
float warp_max(float x) { return meet_all(butterfly_max, x); }

static void ballot(SimtLane *lanes, unsigned mask) {
  uint32_t votes = 0;
  for (int i = 0; i < LANES; i++)
    if (mask >> i & 1 && lanes[i].bits) votes |= 1u << i;
  for (int i = 0; i < LANES; i++) lanes[i].bits = votes;
}
unsigned __ballot_sync(unsigned mask, int predicate) {
  SimtLane mine = {};
  mine.bits = predicate != 0;
  return simt_meet(ballot, mask, mine).bits;
}

/* ---- matrix products of a warp: registers are spread over the lanes as the hardware does (tensor/cuda/cuda.h). They are
 * done at their wait, so that lanes meet once for a row of them. */

static float half_of(uint32_t pair, int k) {
  const uint32_t bits = k ? pair & 0xffff0000u : pair << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
static float tf32(uint32_t bits) {
  bits &= 0xffffe000u;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
/* A sum as tensor cores keep it: rounded towards zero. (Fasi, Higham, Mikaitis & Pranesh 2021, Numerical behavior of NVIDIA
 * tensor cores; Ootomo & Yokota 2022) */
static float toward_zero(double x) {
  const float nearest = (float)x;
  uint32_t bits;
  memcpy(&bits, &nearest, 4);
  bits -= std::fabs((double)nearest) > std::fabs(x);
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
/* d (16, 8) += a (16, n_k) b (n_k, 8): n_step products and the sum before are added at once, as the A100 does. */
template <int n_k, int n_step> static void add_product(const Product *const *lanes, const float *a, const float *b) {
  float sum[16][8];
  for (int l = 0; l < LANES; l++)
    for (int r = 0; r < 4; r++) sum[l / 4 + (r >= 2 ? 8 : 0)][l % 4 * 2 + r % 2] = lanes[l]->d[r];
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < n_k; k += n_step) {
      double exact[8];
      for (int col = 0; col < 8; col++) exact[col] = sum[row][col];
      for (int i = k; i < k + n_step; i++)
        for (int col = 0; col < 8; col++) exact[col] += (double)a[row * n_k + i] * (double)b[i * 8 + col];
      for (int col = 0; col < 8; col++) sum[row][col] = toward_zero(exact[col]);
    }
  for (int l = 0; l < LANES; l++)
    for (int r = 0; r < 4; r++) lanes[l]->d[r] = sum[l / 4 + (r >= 2 ? 8 : 0)][l % 4 * 2 + r % 2];
}
static void product_bf16(const Product *const *lanes) {
  float a[16 * 16], b[16 * 8];
  for (int l = 0; l < LANES; l++)
    for (int r = 0; r < 4; r++)
      for (int k = 0; k < 2; k++) {
        a[(l / 4 + (r % 2 ? 8 : 0)) * 16 + l % 4 * 2 + k + (r >= 2 ? 8 : 0)] = half_of(lanes[l]->a[r], k);
        if (r < 2) b[(l % 4 * 2 + k + (r ? 8 : 0)) * 8 + l / 4] = half_of(lanes[l]->b[r], k);
      }
  add_product<16, 8>(lanes, a, b);
}
static void product_tf32(const Product *const *lanes) {
  float a[16 * 8], b[8 * 8];
  for (int l = 0; l < LANES; l++)
    for (int r = 0; r < 4; r++) {
      a[(l / 4 + (r % 2 ? 8 : 0)) * 8 + l % 4 + (r >= 2 ? 4 : 0)] = tf32(lanes[l]->a[r]);
      if (r < 2) b[(l % 4 + (r ? 4 : 0)) * 8 + l / 4] = tf32(lanes[l]->b[r]);
    }
  add_product<8, 4>(lanes, a, b);
}
static void put_product(SimtProduct *op, float *d, const uint32_t *a, const uint32_t *b) {
  Product mine = {op, d, {}, {}};
  memcpy(mine.a, a, sizeof mine.a), memcpy(mine.b, b, sizeof mine.b);
  now->products.push_back(mine);
}
void mma_bf16(float *d, const uint32_t *a, const uint32_t *b) { put_product(product_bf16, d, a, b); }
void mma_tf32(float *d, const uint32_t *a, const uint32_t *b) { put_product(product_tf32, d, a, b); }

/* The products that the lanes of a warp have put, one after the other. */
static void multiply(SimtLane *, unsigned) {
  Thread *const lanes = &block.thread[now->number / LANES * LANES];
  const size_t n = now->products.size();
  for (int l = 0; l < LANES; l++)
    if (lanes[l].products.size() != n)
      FAULT("%s: lane %d brings %zu products, lane %d of its warp %zu", block.kernel, l, lanes[l].products.size(),
            now->number % LANES, n);
  for (size_t i = 0; i < n; i++) {
    const Product *all[LANES];
    for (int l = 0; l < LANES; l++) {
      all[l] = &lanes[l].products[i];
      if (all[l]->op != all[0]->op) FAULT("%s: lanes of a warp bring products of two kinds", block.kernel);
    }
    all[0]->op(all);
  }
  for (int l = 0; l < LANES; l++) lanes[l].products.clear();
}
void mma_wait() { simt_meet(multiply, 0xffffffffu, SimtLane{}); }

/* ---- asynchronous copies: what is read early is what was there before */

void copy_async(void *to, const void *from) {
  const size_t at = (size_t)((unsigned char *)to - block.shared);
  if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || at + 16 > block.shared_bytes)
    FAULT("%s: an asynchronous copy from %p to byte %zu of shared memory", block.kernel, from, at);
  SIMT_READ(from, 16);
  AsyncCopy copy = {to, {}};
  memcpy(copy.bytes, from, 16);
  now->groups.back().push_back(copy);
}
void copy_async_commit() { now->groups.emplace_back(); }
void simt_copy_wait(int n_open) {
  while ((int)now->groups.size() - 1 > n_open) {
    for (const AsyncCopy &copy : now->groups.front()) memcpy(copy.to, copy.bytes, 16);
    now->groups.erase(now->groups.begin());
  }
}

/* ASPIS_SIMT_TRAFFIC=1: global memory is watched from the beginning, and at the end of the process every kernel's bytes, and
 * the largest block it was launched with, are told. */
namespace {
struct TellTraffic {
  const bool wanted = getenv("ASPIS_SIMT_TRAFFIC") && *getenv("ASPIS_SIMT_TRAFFIC") == '1';
  TellTraffic() { simt_is_watched = wanted; }
  ~TellTraffic() {
    for (const auto &[kernel, bytes] : traffic)
      if (wanted)
        fprintf(stderr, "simt: %s: %llu launches, %llu bytes in, %llu out, at most %llu threads, %llu shared\n",
                kernel.c_str(), (unsigned long long)bytes.launches, (unsigned long long)bytes.bytes_in,
                (unsigned long long)bytes.bytes_out, (unsigned long long)bytes.most_threads,
                (unsigned long long)bytes.most_shared);
  }
} tell_traffic;
} /* namespace */

extern "C" {
void simt_seed(uint64_t seed) { draw.state = seed * 2862933555777941757u + 3037000493u; }
void simt_watch(int on) { simt_is_watched = on != 0; }
SimtTraffic simt_traffic(const char *what) {
  SimtTraffic sum = {};
  for (const auto &[kernel, bytes] : traffic)
    if (kernel.find(what) != std::string::npos)
      sum.bytes_in += bytes.bytes_in, sum.bytes_out += bytes.bytes_out, sum.launches += bytes.launches;
  return sum;
}
void simt_traffic_reset(void) { traffic.clear(); }
}

