/* runtime: the calls of the CUDA runtime (include/cuda_runtime.h): the device and its memory, streams, events, graphs, copies, and what
 * CUDA refuses. Kernels themselves are run by simt.cc. */
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "tensor/cuda/cuda.h"
#include "tests/simt/inside.h"
#include "tests/simt/simt.h"

static int n_processors = 4;
static size_t most_shared_bytes = SIMT_SHARED_BYTES;

/* ---- what a launch may be */

/* The launches that CUDA takes: (programming guide, technical specifications of compute capabilities 8.0 and later). */
static std::map<const void *, size_t> shared_allowed; /* by kernel: what it was allowed beyond SHARED_ALWAYS */
static void check_launch(const char *kernel, const void *function, dim3 grid, dim3 block_dim, size_t shared_bytes) {
  const uint64_t n_threads = (uint64_t)block_dim.x * block_dim.y * block_dim.z;
  if (n_threads == 0 || n_threads > SIMT_MOST_THREADS || block_dim.z > 64)
    FAULT("%s: blocks of (%u, %u, %u) threads", kernel, block_dim.x, block_dim.y, block_dim.z);
  if ((uint64_t)grid.x * grid.y * grid.z == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535)
    FAULT("%s: a grid of (%u, %u, %u) blocks", kernel, grid.x, grid.y, grid.z);
  const auto allowed = shared_allowed.find(function);
  const size_t most = allowed == shared_allowed.end() ? SHARED_ALWAYS : allowed->second;
  if (shared_bytes > most || shared_bytes > most_shared_bytes)
    FAULT("%s: %zu bytes of shared memory, %zu asked for, %zu there", kernel, shared_bytes, most, most_shared_bytes);
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
static SimtDraw turn;
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
  simt_enqueue(stream, [=] { return simt_run(kernel, grid, block_dim, shared_bytes, body), true; });
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
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char *own = (char *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (own == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
  begin_as_nan(own, bytes);
  if (!simt_add_memory(own, bytes)) return munmap(own, bytes), failed(cudaErrorMemoryAllocation);
  taken.now += bytes, taken.most = std::max(taken.most, taken.now);
  return *memory = own, cudaSuccess;
}
cudaError_t cudaFree(void *memory) {
  const std::lock_guard<std::recursive_mutex> lock(running);
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  const size_t bytes = simt_drop_memory(memory);
  if (bytes == 0) return failed(cudaErrorInvalidValue);
  taken.now -= bytes;
  return munmap(memory, bytes), cudaSuccess;
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
    simt_open_memory(true);
    memmove(to, staged ? staged->data() : from, bytes);
    simt_open_memory(false);
    return true;
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) {
  simt_enqueue(stream, [=] {
    simt_open_memory(true);
    memset(at, value, bytes);
    simt_open_memory(false);
    return true;
  });
  return cudaSuccess;
}

extern "C" {
void simt_processors(int n) { cuda_device.n_processors = n_processors = n; }
void simt_shared(size_t bytes) {
  cuda_device.shared_bytes = most_shared_bytes = std::min(bytes, (size_t)SIMT_SHARED_BYTES);
}
}
