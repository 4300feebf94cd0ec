/* peak: kernels that do one thing, as fast as the device can: the ceilings that `aspis bench` holds every operation to. They
 * return when it is done, so that the caller's clock is right. */
#include "tensor/cuda/cuda.h"

constexpr int THREADS = 256, CHAINS = 8;

/* s <- s/2 + 1: stays between 0 and 2. */
static __global__ void multiply_add(int64_t n_rounds, float *out) {
  float chain[CHAINS];
  for (int c = 0; c < CHAINS; c++) chain[c] = (float)c / CHAINS;
  for (int64_t round = 0; round < n_rounds; round++)
    for (int c = 0; c < CHAINS; c++) chain[c] = chain[c] * 0.5f + 1;
  for (int c = 1; c < CHAINS; c++) chain[0] += chain[c];
  if (chain[0] < 0) global_store(out, chain[0]); /* never; the compiler cannot know */
}

static __global__ void multiply_add_bf16(int64_t n_rounds, float *out) {
  const uint32_t one = 0x3f803f80u, a[4] = {one, one, one, one}, b[2] = {one, one};
  float chain[CHAINS][4] = {};
  for (int64_t round = 0; round < n_rounds; round++)
    for (int c = 0; c < CHAINS; c++) mma_bf16(chain[c], a, b);
  mma_wait();
  for (int c = 1; c < CHAINS; c++) chain[0][0] += chain[c][0];
  if (chain[0][0] < 0) global_store(out, chain[0][0]);
}

static __global__ void write(int64_t n_rows, int64_t width, Rows x) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  const float zeros[Rows::RUN] = {};
  x.put_run(at.row, at.col, at.n, zeros);
}

static __global__ void copy(int64_t n_rows, int64_t width, Rows x, Rows y) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float run[Rows::RUN];
  x.get_run(at.row, at.col, at.n, run);
  y.put_run(at.row, at.col, at.n, run);
}

/* A block's threads read its part of a row, and keep the sum from being thrown away. */
static __global__ void read(int64_t n_rows, int64_t width, Rows x, Rows y) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float run[Rows::RUN], sum = 0;
  x.get_run(at.row, at.col, at.n, run);
  for (int i = 0; i < Rows::RUN; i++) sum += run[i];
  if (sum == 12345.678f) y.put(at.row, 0, sum);
}

KERNEL_FWD(peak, Peak) {
  const int64_t n_rows = tensor_rows(p->x), width = tensor_last(p->x);
  const double bytes = (double)tensor_bytes(p->x) * (double)p->n_rounds;
  const unsigned n_blocks = (unsigned)cuda_device.n_processors * 8;
  switch (p->kind) {
  case PEAK_FMA:
    LAUNCH(multiply_add, n_blocks, THREADS, 0, p->n_rounds, (float *)p->x->data);
    *p->work = 2.0 * CHAINS * THREADS * n_blocks * (double)p->n_rounds;
    break;
  case PEAK_FMA_BF16:
    LAUNCH(multiply_add_bf16, n_blocks, THREADS, 0, p->n_rounds, (float *)p->x->data);
    *p->work = 2.0 * 16 * 16 * 8 * CHAINS * (THREADS / WARP) * n_blocks * (double)p->n_rounds;
    break;
  case PEAK_WRITE:
    for (int64_t round = 0; round < p->n_rounds; round++) LAUNCH_RUNS(write, n_rows, width, rows_of(p->x));
    *p->work = bytes;
    break;
  case PEAK_READ:
    for (int64_t round = 0; round < p->n_rounds; round++)
      LAUNCH_RUNS(read, n_rows, width, rows_of(p->x), rows_of(p->y));
    *p->work = bytes;
    break;
  case PEAK_COPY:
    for (int64_t round = 0; round < p->n_rounds; round++)
      LAUNCH_RUNS(copy, n_rows, width, rows_of(p->x), rows_of(p->y));
    *p->work = 2 * bytes;
    break;
  }
  CUDA_CHECK(cudaStreamSynchronize(cuda_device.stream));
}
