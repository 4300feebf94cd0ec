/* simt: see simt.h and include/cuda_runtime.h. Fibers are made by ucontext and switched by _setjmp and _longjmp, which
 * leave the signal mask alone and so need no system call. A fiber that waits jumps to the next one itself. */
#include "tests/simt/simt.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

#include "tensor/cuda/cuda.h"
#include "tests/simt/stream.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" void check_failed(const char *file, int line, const char *condition, const char *format, ...);
#define FAULT(...) check_failed(__FILE__, __LINE__, "simt", __VA_ARGS__)

dim3 blockIdx, blockDim, gridDim, simt_thread_index;
bool simt_is_watched;

namespace {

struct Product;
typedef void SimtProduct(const Product *const *lanes);

enum { LANES = 32, STACK_BYTES = 256 << 10, MOST_THREADS = 1024, SHARED_BYTES = 227 << 10, GUARD_BYTES = 256 };
enum { LINE_BYTES = 64, LINES_OF_PAGE = 64 };

/* xorshift64*: all that is wanted is another order for another seed */
struct Draw {
  uint64_t state = 88172645463325252u;
  unsigned below(unsigned n) {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (unsigned)((state * 2685821657736338717u >> 32) % n);
  }
} draw;

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
  alignas(16) unsigned char shared[SHARED_BYTES + GUARD_BYTES];
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
int n_processors = 4;
size_t most_shared_bytes = SHARED_BYTES;

/* ASPIS_SIMT_GUARD=1: the device's memory is out of the host's reach but while a kernel or a copy runs, so that host code
 * that touches it ends in a segmentation fault, as it would with a GPU. */
bool is_guarded() {
  static const bool guarded = getenv("ASPIS_SIMT_GUARD") && *getenv("ASPIS_SIMT_GUARD") == '1';
  return guarded;
}
void protect(bool open) {
  for (const Region &r : regions)
    if (is_guarded() && mprotect(r.begin, r.bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
      FAULT("memory cannot be protected");
}

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

/* The launches that CUDA takes: (programming guide, technical specifications of compute capabilities 8.0 and later). */
static std::map<const void *, size_t> shared_allowed; /* by kernel: what it was allowed beyond SHARED_ALWAYS */
static void check_launch(const char *kernel, const void *function, dim3 grid, dim3 block_dim, size_t shared_bytes) {
  const uint64_t n_threads = (uint64_t)block_dim.x * block_dim.y * block_dim.z;
  if (n_threads == 0 || n_threads > MOST_THREADS || block_dim.z > 64)
    FAULT("%s: blocks of (%u, %u, %u) threads", kernel, block_dim.x, block_dim.y, block_dim.z);
  if ((uint64_t)grid.x * grid.y * grid.z == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535)
    FAULT("%s: a grid of (%u, %u, %u) blocks", kernel, grid.x, grid.y, grid.z);
  const auto allowed = shared_allowed.find(function);
  const size_t most = allowed == shared_allowed.end() ? SHARED_ALWAYS : allowed->second;
  if (shared_bytes > most || shared_bytes > most_shared_bytes)
    FAULT("%s: %zu bytes of shared memory, %zu asked for, %zu there", kernel, shared_bytes, most, most_shared_bytes);
}

static void run_kernel(const char *kernel, dim3 grid, dim3 block_dim, size_t shared_bytes,
                       const std::function<void()> &body) {
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
  protect(true);
  std::vector<unsigned> order(n_blocks);
  for (unsigned i = 0; i < n_blocks; i++) order[i] = i;
  for (unsigned i = n_blocks; i > 1; i--) std::swap(order[i - 1], order[draw.below(i)]);
  for (unsigned number : order) {
    block_number = number;
    blockIdx = dim3(number % grid.x, number / grid.x % grid.y, number / (grid.x * grid.y));
    run_block();
  }
  protect(false);
}

/* ---- streams: work is done when it is asked for; with ASPIS_SIMT_STREAMS=1 it waits in its stream's queue until somebody
 * waits for it or its turn is drawn, so that work of two streams comes in any order that their events allow. */

/* A graph is what its streams were given, in order; stream 0 is the one that the capture began with. */
struct SimtItem {
  size_t stream;
  std::function<bool()> work; /* none: one of these */
  SimtEvent *outside;         /* an event that is recorded for others than the graph */
  int reaches, awaits;        /* an event of its own; -1: none */
};
struct SimtGraph {
  std::vector<SimtItem> items;
  size_t n_streams, n_events;
};
struct SimtGraphExec {
  SimtGraph graph;
  std::vector<SimtStream *> others; /* streams that play those from 1 on */
};
/* How many items of each stream come before something. */
typedef std::vector<size_t> Known;
struct SimtCapture {
  uint64_t number;
  SimtGraph graph;
  std::vector<SimtStream *> streams;
  std::vector<Known> known; /* by each stream */
  bool spoiled;
};
struct SimtStream {
  std::deque<std::function<bool()>> work;
  SimtCapture *capture; /* NULL: what it is given is done */
  size_t place;         /* in it */
  bool is_last;         /* goes on where no other can and somebody waits */
};
struct SimtEvent {
  uint64_t recorded, reached; /* how often */
  double seconds;
  uint64_t captured; /* the capture that it was recorded in last; 0: none */
  int number;        /* in it, and ... */
  Known known;       /* ... what is known behind it */
};

static std::vector<SimtStream *> streams;
static std::recursive_mutex running;
static Draw turn;
static SimtCapture *capturing; /* one at a time */
static uint64_t n_captures;

/* ASPIS_SIMT_WAITS=1: tells at the end how often the host waited for a stream. Asking again and again is one wait. */
namespace {
struct Waits {
  long n = 0;
  bool asking = false;
  ~Waits() {
    const char *wanted = getenv("ASPIS_SIMT_WAITS");
    if (wanted && *wanted == '1') fprintf(stderr, "simt: %ld waits\n", n);
  }
} waits;
} /* namespace */

/* What a call says of itself stays for cudaGetLastError. */
static thread_local cudaError_t last_error;
static cudaError_t failed(cudaError_t error) { return last_error = error; }
cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  return last_error = cudaSuccess, error;
}

/* A call that is forbidden while something is captured. */
static bool forbidden() {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (capturing) capturing->spoiled = true;
  return capturing != nullptr;
}

bool simt_delays() {
  static const bool delays = getenv("ASPIS_SIMT_STREAMS") && *getenv("ASPIS_SIMT_STREAMS") == '1';
  return delays;
}

/* One step of some stream; false: none can go on. waited: somebody waits for one. */
static bool step_some(bool waited) {
  const size_t n = streams.size(), first = turn.below((unsigned)n);
  for (int last = 0; last <= waited; last++)
    for (size_t i = 0; i < n; i++) {
      SimtStream *s = streams[(first + i) % n];
      if (s->is_last != (last == 1) || s->work.empty() || !s->work.front()()) continue;
      s->work.pop_front();
      return true;
    }
  return false;
}

static void nap() {
  const timespec time = {0, 50000};
  nanosleep(&time, nullptr);
}

static void capture(SimtStream *stream, SimtItem item) {
  item.stream = stream->place;
  stream->capture->graph.items.push_back(std::move(item));
  stream->capture->known[stream->place][stream->place]++;
}

void simt_enqueue(cudaStream_t stream, std::function<bool()> work) {
  std::unique_lock<std::recursive_mutex> lock(running);
  waits.asking = false;
  if (stream && stream->capture) {
    capture(stream, {0, std::move(work), nullptr, -1, -1});
    return;
  }
  if (!simt_delays()) {
    while (!work()) nap();
    return;
  }
  if (!stream) FAULT("work without a stream beside %zu streams", streams.size());
  stream->work.push_back(std::move(work));
  for (unsigned n = turn.below(3); n > 0 && step_some(false); n--) continue;
}

void simt_launch(const char *kernel, const void *function, dim3 grid, dim3 block_dim, size_t shared_bytes,
                 std::function<void()> body, cudaStream_t stream) {
  check_launch(kernel, function, grid, block_dim, shared_bytes);
  simt_enqueue(stream, [=] { return run_kernel(kernel, grid, block_dim, shared_bytes, body), true; });
}

SimtLibraryCall::SimtLibraryCall(const char *name) {
  protect(true);
  block.kernel = name, block_number = 0;
  begin_launch(0, 0);
  now = nullptr;
}
SimtLibraryCall::~SimtLibraryCall() { protect(false); }

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

/* ---- the runtime */

const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess                         ? "no error"
         : error == cudaErrorMemoryAllocation         ? "out of memory"
         : error == cudaErrorNotReady                 ? "not ready"
         : error == cudaErrorIllegalState             ? "illegal state"
         : error == cudaErrorStreamCaptureUnsupported ? "operation not permitted when stream is capturing"
         : error == cudaErrorStreamCaptureInvalidated ? "operation failed due to a previous error during capture"
         : error == cudaErrorStreamCaptureIsolation   ? "dependency created on uncaptured work in another stream"
         : error == cudaErrorNoKernelImageForDevice   ? "no kernel image is available for execution on the device"
         : error == cudaErrorUnsupportedPtxVersion    ? "the provided PTX was compiled with an unsupported toolchain"
         : error == cudaErrorNoDevice                 ? "no CUDA-capable device is detected"
         : error == cudaErrorInsufficientDriver       ? "CUDA driver version is insufficient for CUDA runtime version"
         : error == cudaErrorStreamCaptureUnjoined    ? "capturing stream has unjoined work"
                                                      : "invalid argument";
}
/* ASPIS_SIMT_LACKS=driver | newer-driver | gpu | newer-gpu | code | newer-code: what the machine does not have, for tests of
 * what is said of it. */
static bool lacks(const char *what) {
  const char *lacking = getenv("ASPIS_SIMT_LACKS");
  return lacking && strcmp(lacking, what) == 0;
}

cudaError_t cudaGetDeviceCount(int *n) {
  if (lacks("driver") || lacks("newer-driver")) return failed(cudaErrorInsufficientDriver);
  if (lacks("gpu")) return failed(cudaErrorNoDevice);
  return *n = 1, cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : failed(cudaErrorInvalidValue); }
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
  case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)most_shared_bytes; break;
  case cudaDevAttrMultiProcessorCount: *value = n_processors; break;
  case cudaDevAttrComputeCapabilityMajor: *value = lacks("newer-gpu") ? 7 : 8; break;
  case cudaDevAttrComputeCapabilityMinor: *value = lacks("newer-gpu") ? 5 : 0; break;
  default: return failed(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
  snprintf(properties->name, sizeof properties->name, "the host's twin of a GPU");
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
  return *version = lacks("driver") ? 0 : lacks("newer-driver") ? 12040 : 13000, cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *) {
  if (lacks("code")) return failed(cudaErrorNoKernelImageForDevice);
  if (lacks("newer-code")) return failed(cudaErrorUnsupportedPtxVersion);
  return attributes->numRegs = 0, cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || (size_t)bytes > most_shared_bytes) return failed(cudaErrorInvalidValue);
  return shared_allowed[kernel] = (size_t)bytes, cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  streams.push_back(*stream = new SimtStream{});
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (stream->capture) return stream->capture->spoiled = true, failed(cudaErrorStreamCaptureUnsupported);
  if (!waits.asking) waits.n++;
  waits.asking = true;
  if (!stream->work.empty()) step_some(true);
  return stream->work.empty() ? cudaSuccess : cudaErrorNotReady; /* no error, and not kept as one */
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (stream && stream->capture) return stream->capture->spoiled = true, failed(cudaErrorStreamCaptureUnsupported);
  waits.n++;
  while (stream && !stream->work.empty())
    if (!step_some(true)) nap();
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return *event = new SimtEvent{}, cudaSuccess; }
static std::function<bool()> recording(cudaEvent_t event) {
  const uint64_t number = ++event->recorded;
  return [=] {
    timespec now_is;
    clock_gettime(CLOCK_MONOTONIC, &now_is);
    event->reached = number, event->seconds = (double)now_is.tv_sec + 1e-9 * (double)now_is.tv_nsec;
    return true;
  };
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  SimtCapture *c = stream ? stream->capture : nullptr;
  event->captured = c ? c->number : 0;
  if (c) {
    event->number = (int)c->graph.n_events++;
    capture(stream, {0, nullptr, nullptr, event->number, -1});
    event->known = c->known[stream->place];
  } else {
    simt_enqueue(stream, recording(event));
  }
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (flags == cudaEventRecordDefault) return cudaEventRecord(event, stream);
  if (!stream || !stream->capture) return failed(cudaErrorInvalidValue);
  event->captured = 0;
  return capture(stream, {0, nullptr, event, -1, -1}), cudaSuccess;
}
/* ASPIS_SIMT_STALE=1: copies from pinned memory bring what its first copy brought; ASPIS_SIMT_UNORDERED=1: no stream waits
 * for an event; ASPIS_SIMT_STRAY=1: copies within the device that are of no graph are put into a stream of their own, which goes on
 * where no other can and somebody waits. For tests of what notices. */
static bool is_set(const char *name) {
  const char *value = getenv(name);
  return value && *value == '1';
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  static const bool unordered = is_set("ASPIS_SIMT_UNORDERED");
  if (stream && (stream->capture || event->captured)) {
    SimtCapture *c = capturing;
    if (!c || event->captured != c->number) return forbidden(), failed(cudaErrorStreamCaptureIsolation);
    if (!stream->capture) { /* it joins */
      stream->capture = c, stream->place = c->streams.size();
      c->streams.push_back(stream), c->graph.n_streams++;
      for (Known &known : c->known) known.push_back(0);
      c->known.emplace_back(c->streams.size(), 0);
    }
    Known &known = c->known[stream->place];
    for (size_t i = 0; i < event->known.size(); i++) known[i] = std::max(known[i], event->known[i]);
    if (!unordered) capture(stream, {0, nullptr, nullptr, -1, event->number});
    return cudaSuccess;
  }
  if (unordered) return cudaSuccess;
  const uint64_t number = event->recorded;
  simt_enqueue(stream, [=] { return event->reached >= number; });
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (!from->recorded || !to->recorded) return failed(cudaErrorInvalidValue);
  if (from->reached < from->recorded || to->reached < to->recorded) return cudaErrorNotReady;
  return *ms = (float)(1000 * (to->seconds - from->seconds)), cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (event->captured) return forbidden(), failed(cudaErrorStreamCaptureUnsupported);
  if (event->reached < event->recorded) step_some(true);
  return event->reached < event->recorded ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (event->captured) return forbidden(), failed(cudaErrorStreamCaptureUnsupported);
  while (event->reached < event->recorded)
    if (!step_some(true)) nap();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (!stream || capturing) return failed(cudaErrorIllegalState);
  capturing = stream->capture = new SimtCapture{++n_captures, {{}, 1, 0}, {stream}, {{0}}, false};
  return stream->place = 0, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  *graph = nullptr;
  if (!stream || !stream->capture || stream->place != 0) return failed(cudaErrorIllegalState);
  const std::unique_ptr<SimtCapture> c(capturing);
  for (SimtStream *s : c->streams) s->capture = nullptr;
  capturing = nullptr;
  if (c->spoiled) return failed(cudaErrorStreamCaptureInvalidated);
  for (size_t i = 1; i < c->streams.size(); i++)
    if (c->known[0][i] != c->known[i][i]) return failed(cudaErrorStreamCaptureUnjoined);
  return *graph = new SimtGraph(std::move(c->graph)), cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  *exec = new SimtGraphExec{*graph, {}};
  for (size_t i = 1; i < graph->n_streams; i++) {
    (*exec)->others.emplace_back();
    cudaStreamCreateWithFlags(&(*exec)->others.back(), cudaStreamNonBlocking);
  }
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  const auto reached = std::make_shared<std::vector<char>>(exec->graph.n_events);
  for (const SimtItem &item : exec->graph.items) {
    SimtStream *s = item.stream == 0 ? stream : exec->others[item.stream - 1];
    const int reaches = item.reaches, awaits = item.awaits;
    std::function<bool()> work = item.work;
    if (item.outside) work = recording(item.outside);
    else if (awaits >= 0) work = [=] { return (*reached)[(size_t)awaits] != 0; };
    else if (reaches >= 0) work = [=] { return (*reached)[(size_t)reaches] = 1, true; };
    if (simt_delays()) s->work.push_back(work); /* one call: nothing is done in between, and the host is far ahead */
    else simt_enqueue(s, work);
  }
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  for (SimtStream *s : exec->others) {
    while (!s->work.empty())
      if (!step_some(true)) nap();
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
  }
  return delete exec, cudaSuccess;
}
uint64_t simt_capture(cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  return stream && stream->capture ? stream->capture->number : 0;
}

/* Memory of the host that copies may read and write when their turn comes. */
static std::map<const char *, size_t> pinned;

static bool is_pinned(const void *at, size_t bytes) {
  auto after = pinned.upper_bound((const char *)at);
  if (after == pinned.begin()) return false;
  const auto &[begin, length] = *--after;
  return (const char *)at + bytes <= begin + length;
}
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  if (!(*memory = malloc(bytes))) return failed(cudaErrorMemoryAllocation);
  pinned[(const char *)*memory] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void *memory) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  if (!pinned.erase((const char *)memory)) return failed(cudaErrorInvalidValue);
  return free(memory), cudaSuccess;
}

/* Memory begins as NaN of any type, not as zeros that a GPU need not have: pages of one file, copied where they are written. */
static void begin_as_nan(char *memory, size_t bytes) {
  static const size_t PIECE = (size_t)4 << 20,
                      MOST_PIECES = 8192; /* the kernel has some 65,000 mappings for a process */
  static const int file = [] {
    const int fd = memfd_create("simt", MFD_CLOEXEC);
    const std::vector<char> nan(PIECE, (char)0xff);
    if (fd < 0 || write(fd, nan.data(), PIECE) != (ssize_t)PIECE) FAULT("no file for memory to begin with");
    return fd;
  }();
  const int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
  for (size_t at = 0; at < bytes && at < PIECE * MOST_PIECES; at += PIECE)
    if (mmap(memory + at, std::min(PIECE, bytes - at), PROT_READ | PROT_WRITE, flags, file, 0) == MAP_FAILED)
      FAULT("memory cannot be mapped");
}

/* ASPIS_SIMT_MEMORY=1: tells at the end how many bytes of the device's memory were taken at most. */
namespace {
struct Taken {
  size_t now = 0, most = 0;
  ~Taken() {
    if (is_set("ASPIS_SIMT_MEMORY")) fprintf(stderr, "simt: %zu bytes of memory\n", most);
  }
} taken;
} /* namespace */

/* ASPIS_SIMT_ROOM=<bytes>: so much memory the device has. Without it, it says that 16 GiB are free, and never runs out. */
static size_t most_memory() {
  static const char *const given = getenv("ASPIS_SIMT_ROOM");
  static const size_t bytes = given && *given ? strtoull(given, nullptr, 10) : SIZE_MAX;
  return bytes;
}

cudaError_t cudaMalloc(void **memory, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  if (bytes > most_memory() - taken.now) return failed(cudaErrorMemoryAllocation);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, access = PROT_READ | PROT_WRITE;
  void *own = mmap(nullptr, bytes, access, flags, -1, 0);
  void *granules = mmap(nullptr, bytes / 2 * sizeof(Granule), access, flags, -1, 0);
  if (own == MAP_FAILED || granules == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
  begin_as_nan((char *)own, bytes);
  regions.push_back({(char *)own, bytes, (Granule *)granules});
  taken.now += bytes, taken.most = std::max(taken.most, taken.now);
  protect(false);
  return *memory = own, cudaSuccess;
}
cudaError_t cudaFree(void *memory) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  for (size_t i = 0; i < regions.size(); i++)
    if (regions[i].begin == memory) {
      munmap(regions[i].begin, regions[i].bytes);
      taken.now -= regions[i].bytes;
      munmap(regions[i].granules, regions[i].bytes / 2 * sizeof(Granule));
      regions.erase(regions.begin() + (long)i);
      return cudaSuccess;
    }
  return failed(cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes) {
  const size_t most = most_memory();
  *all_bytes = most < SIZE_MAX ? most : (size_t)16 << 30;
  return *free_bytes = most < SIZE_MAX ? most - taken.now : *all_bytes, cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  const bool waits = kind == cudaMemcpyDeviceToDevice || is_pinned(kind == cudaMemcpyHostToDevice ? from : to, bytes);
  if (stream && stream->capture && !waits) return forbidden(), failed(cudaErrorStreamCaptureUnsupported);
  std::shared_ptr<std::vector<char>> staged; /* memory that is not pinned may change once the call is back */
  if (kind == cudaMemcpyHostToDevice && !waits && simt_delays())
    staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
  static const bool stale = is_set("ASPIS_SIMT_STALE");
  if (stale && kind == cudaMemcpyHostToDevice && waits) {
    static const std::vector<char> first((const char *)from, (const char *)from + bytes);
    if (first.size() == bytes) from = first.data();
  }
  static const bool strays = is_set("ASPIS_SIMT_STRAY") && simt_delays();
  if (strays && kind == cudaMemcpyDeviceToDevice && !stream->capture) {
    static SimtStream *stray;
    if (!stray) streams.push_back(stray = new SimtStream{}), stray->is_last = true;
    stream = stray;
  }
  simt_enqueue(stream, [=] {
    protect(true);
    memmove(to, staged ? staged->data() : from, bytes);
    protect(false);
    return true;
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) {
  simt_enqueue(stream, [=] {
    protect(true);
    memset(at, value, bytes);
    protect(false);
    return true;
  });
  return cudaSuccess;
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
void simt_processors(int n) { cuda_device.n_processors = n_processors = n; }
void simt_shared(size_t bytes) { cuda_device.shared_bytes = most_shared_bytes = std::min(bytes, (size_t)SHARED_BYTES); }
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
