/* graph: work that is put together once and launched as a whole (BackendGraphs in tensor/device.h), as CUDA graphs.
 *
 * What a walk writes goes into pinned memory, one piece behind the other. A captured write is a copy from the same place of a
 * block of the device's memory, the graph's own. A launch brings the whole piece there: on a stream of its own to a block
 * that all graphs share, then, on the stream in use and before the graph, into the graph's. So the copy over the bus goes
 * beside the work before; it begins once that work has taken what came for it, and the work begins once it has come. There are
 * two pieces of pinned memory, in turn: the host fills one while the other is on its way. */
#include "tensor/cuda/cuda.h"

#include <cstring>

namespace {

constexpr size_t ALIGN = GRAPH_WRITE_ALIGN, FIRST_BYTES = (size_t)1 << 16;
constexpr uint64_t FOLD_BASIS = 14695981039346656037u, FOLD_PRIME = 1099511628211u;

struct Graph {
  cudaGraphExec_t exec;
  char *written; /* what the work finds written */
  size_t bytes;
};

struct Pinned {
  char *at;
  size_t capacity;
  cudaEvent_t sent; /* the last copy out of it */
};

uint64_t fold;
bool needs_host;
Pinned pinned[2];
int turn;
size_t used;         /* of pinned[turn], by the last walk, and again by the capture of it */
Graph *making;
cudaStream_t bus;    /* the copies' own stream */
char *come;          /* where they go */
size_t come_bytes;
cudaEvent_t taken;   /* the last copy out of it */

void open_once() {
  if (bus) return;
  CUDA_CHECK(cudaStreamCreateWithFlags(&bus, cudaStreamNonBlocking));
  CUDA_CHECK(cudaEventCreateWithFlags(&taken, cudaEventDisableTiming));
  for (Pinned &p : pinned) CUDA_CHECK(cudaEventCreateWithFlags(&p.sent, cudaEventDisableTiming));
}

/* Room for n more bytes behind what is used. */
char *room(size_t n) {
  Pinned *p = &pinned[turn];
  if (used + n > p->capacity) {
    size_t capacity = p->capacity ? p->capacity : FIRST_BYTES;
    while (capacity < used + n) capacity *= 2;
    void *larger;
    CUDA_CHECK(cudaHostAlloc(&larger, capacity, cudaHostAllocDefault));
    if (used > 0) memcpy(larger, p->at, used);
    if (p->at) CUDA_CHECK(cudaFreeHost(p->at));
    p->at = (char *)larger, p->capacity = capacity;
  }
  char *at = p->at + used;
  used += (n + ALIGN - 1) / ALIGN * ALIGN;
  return at;
}

void walk() {
  CHECK(cuda_device.mode == CUDA_RUNS, "a walk inside of another, or of a capture");
  open_once();
  turn = 1 - turn;
  CUDA_CHECK(cudaEventSynchronize(pinned[turn].sent));
  used = 0, fold = FOLD_BASIS, needs_host = false;
  cuda_device.mode = CUDA_WALKS;
}

bool walked(uint64_t *found) {
  cuda_device.mode = CUDA_RUNS;
  *found = fold;
  return !needs_host;
}

/* NULL: there is none. */
char *device_memory(size_t bytes) {
  void *at = nullptr;
  if (cudaMalloc(&at, bytes) == cudaSuccess) return (char *)at;
  cudaGetLastError(); /* forgotten: who asks does without */
  return nullptr;
}

/* Room for what comes, once nothing is on its way. */
bool come_fits(size_t bytes) {
  if (bytes <= come_bytes) return true;
  CUDA_CHECK(cudaStreamSynchronize(bus));
  CUDA_CHECK(cudaStreamSynchronize(cuda_device.stream));
  if (come) CUDA_CHECK(cudaFree(come));
  come = device_memory(bytes), come_bytes = come ? bytes : 0;
  return come != nullptr;
}

void *make() {
  if (!come_fits(used)) return nullptr;
  char *written = used > 0 ? device_memory(used) : nullptr;
  return used > 0 && !written ? nullptr : new Graph{nullptr, written, used};
}

void capture(void *graph) {
  making = (Graph *)graph;
  used = 0;
  CUDA_CHECK(cudaStreamBeginCapture(cuda_device.stream, cudaStreamCaptureModeThreadLocal));
  cuda_device.mode = CUDA_CAPTURES;
}

void captured() {
  cuda_device.mode = CUDA_RUNS;
  cudaGraph_t graph;
  CUDA_CHECK(cudaStreamEndCapture(cuda_device.stream, &graph));
  CHECK(used == making->bytes, "%zu bytes written where the walk wrote %zu", used, making->bytes);
  CUDA_CHECK(cudaGraphInstantiate(&making->exec, graph, 0));
  CUDA_CHECK(cudaGraphDestroy(graph));
}

void launch(void *of) {
  const Graph *graph = (const Graph *)of;
  CHECK(used == graph->bytes, "%zu bytes written for a graph that takes %zu", used, graph->bytes);
  if (used > 0) {
    Pinned *p = &pinned[turn];
    CUDA_CHECK(cudaStreamWaitEvent(bus, taken, 0));
    CUDA_CHECK(cudaMemcpyAsync(come, p->at, used, cudaMemcpyHostToDevice, bus));
    CUDA_CHECK(cudaEventRecord(p->sent, bus));
    CUDA_CHECK(cudaStreamWaitEvent(cuda_device.stream, p->sent, 0));
    CUDA_CHECK(cudaMemcpyAsync(graph->written, come, used, cudaMemcpyDeviceToDevice, cuda_device.stream));
    CUDA_CHECK(cudaEventRecord(taken, cuda_device.stream));
  }
  CUDA_CHECK(cudaGraphLaunch(graph->exec, cuda_device.stream));
}

void drop(void *of) {
  Graph *graph = (Graph *)of;
  CUDA_CHECK(cudaStreamSynchronize(cuda_device.stream));
  if (graph->exec) CUDA_CHECK(cudaGraphExecDestroy(graph->exec));
  if (graph->written) CUDA_CHECK(cudaFree(graph->written));
  delete graph;
}

} /* namespace */

void cuda_fold(const void *bytes, size_t n) {
  uint64_t word = 0;
  for (const char *at = (const char *)bytes; n > 0; at += sizeof word) {
    const size_t taken_now = n < sizeof word ? n : sizeof word;
    word = 0;
    memcpy(&word, at, taken_now);
    fold = (fold ^ word) * FOLD_PRIME;
    fold ^= fold >> 29; /* a product carries upwards only */
    n -= taken_now;
  }
}

bool cuda_walk_ends() {
  CHECK(cuda_device.mode != CUDA_CAPTURES, "work that a CUDA graph is made of waits for the device; train.graph: off");
  needs_host |= cuda_device.mode == CUDA_WALKS;
  return cuda_device.mode == CUDA_WALKS;
}

bool cuda_keeps_write(void *to, const void *from, size_t bytes) {
  if (cuda_device.mode == CUDA_RUNS || bytes == 0) return false;
  if (cuda_walks(nullptr, 2, 1, 0, to, bytes)) {
    memcpy(room(bytes), from, bytes);
    return true;
  }
  CHECK(used + bytes <= making->bytes, "more is written than the walk wrote");
  CUDA_CHECK(cudaMemcpyAsync(to, making->written + used, bytes, cudaMemcpyDeviceToDevice, cuda_device.stream));
  used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
  return true;
}

const BackendGraphs cuda_graphs = {walk, walked, make, capture, captured, launch, drop};
