/* read: from the device's memory to the host's. What is large, and what was set aside (BackendAside in tensor/device.h), goes out in
 * pieces through pinned memory, on a stream of its own: while one piece is on its way the host takes the one before.
 *
 * Copies set aside have a way out of their own, and the thread that fetches them touches nothing else of the backend: not the
 * lane in use, which the other thread changes as it likes. */
#include "tensor/cuda/cuda.h"

#include <cstring>

namespace {

constexpr size_t PIECE = (size_t)1 << 20;

struct WayOut {
  cudaStream_t stream; /* NULL: not made yet */
  cudaEvent_t computed, come[2];
  void *pinned[2];
};

/* What goes this way from now on begins when all that is on the lane in use so far is done. */
void begin_behind_lane(WayOut *way, unsigned how_to_wait) {
  if (!way->stream) {
    CUDA_CHECK(cudaStreamCreateWithFlags(&way->stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&way->computed, cudaEventDisableTiming));
    for (int i = 0; i < 2; i++) {
      CUDA_CHECK(cudaHostAlloc(&way->pinned[i], PIECE, cudaHostAllocDefault));
      CUDA_CHECK(cudaEventCreateWithFlags(&way->come[i], cudaEventDisableTiming | how_to_wait));
    }
  }
  CUDA_CHECK(cudaEventRecord(way->computed, cuda_device.stream));
  CUDA_CHECK(cudaStreamWaitEvent(way->stream, way->computed, 0));
}

void take_out(const WayOut *way, char *to, const char *from, size_t bytes) {
  const size_t n = (bytes + PIECE - 1) / PIECE;
  const auto size = [=](size_t i) { return i + 1 < n ? PIECE : bytes - i * PIECE; };
  for (size_t i = 0; i <= n; i++) {
    if (i < n) {
      CUDA_CHECK(cudaMemcpyAsync(way->pinned[i % 2], from + i * PIECE, size(i), cudaMemcpyDeviceToHost, way->stream));
      CUDA_CHECK(cudaEventRecord(way->come[i % 2], way->stream));
    }
    if (i == 0) continue;
    CUDA_CHECK(cudaEventSynchronize(way->come[(i - 1) % 2]));
    memcpy(to + (i - 1) * PIECE, way->pinned[(i - 1) % 2], size(i - 1));
  }
}

WayOut for_reading, for_fetching;

void aside_take(void *to, const void *from, size_t bytes) {
  CHECK(cuda_device.mode == CUDA_RUNS, "something is set aside by work that is walked through or captured");
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_device.stream));
}
/* Who fetches sleeps meanwhile: a core that spins would be missed by whoever computes. */
void aside_taken() { begin_behind_lane(&for_fetching, cudaEventBlockingSync); }
void aside_fetch(void *to, const void *from, size_t bytes) {
  take_out(&for_fetching, (char *)to, (const char *)from, bytes);
}

} /* namespace */

void cuda_read(void *to, const void *from, size_t bytes) {
  if (cuda_walk_ends()) return;
  if (bytes >= 2 * PIECE) {
    begin_behind_lane(&for_reading, cudaEventDefault);
    take_out(&for_reading, (char *)to, (const char *)from, bytes);
    return;
  }
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_device.stream));
  CUDA_CHECK(cudaStreamSynchronize(cuda_device.stream));
}

const BackendAside cuda_aside = {aside_take, aside_taken, aside_fetch};
