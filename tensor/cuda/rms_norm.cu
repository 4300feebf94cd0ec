/* rms_norm: y = x s w,  s = 1 / sqrt(mean(x^2) + eps);   dx = s (dy w - x s^2 mean(dy w x)),  dw = sum over rows of dy x s.
 * (spec 1)  A block has a row; backward, a block of rows, whose share of dw lies in its row of scratch. */
#include "tensor/cuda/cuda.h"

static __device__ float inverse_rms(float squares, int64_t width, float eps) {
  return 1 / sqrtf(squares / (float)width + eps);
}

static __global__ void forward(int64_t width, float eps, Rows x, Rows weight, Rows y) {
  SHARED(float, spare);
  const int64_t t = blockIdx.x;
  float run[Rows::RUN], w[Rows::RUN], squares = 0;
  for (int64_t c = (int64_t)threadIdx.x * Rows::RUN; c < width; c += blockDim.x * Rows::RUN) {
    x.get_run(t, c, width - c, run);
    for (int i = 0; i < Rows::RUN; i++) squares += run[i] * run[i];
  }
  const float s = inverse_rms(block_sum(squares, spare), width, eps);
  for (int64_t c = (int64_t)threadIdx.x * Rows::RUN; c < width; c += blockDim.x * Rows::RUN) {
    x.get_run(t, c, width - c, run);
    weight.get_run(0, c, width - c, w);
    for (int i = 0; i < Rows::RUN; i++) run[i] *= s * w[i];
    y.put_run(t, c, width - c, run);
  }
}

static __global__ void backward(int64_t n_rows, int64_t width, float eps, Rows x, Rows weight, Rows dy, Rows dx,
                                float *parts) {
  SHARED(float, spare);
  const Rows part = {parts + blockIdx.x * width, width, false, false};
  const int64_t first = sum_block_start(n_rows, blockIdx.x), end = sum_block_start(n_rows, blockIdx.x + 1);
  float run[Rows::RUN], w[Rows::RUN], d[Rows::RUN], dw[Rows::RUN];
  for (int64_t t = first; t < end; t++) {
    float squares = 0, dot = 0;
    for (int64_t c = (int64_t)threadIdx.x * Rows::RUN; c < width; c += blockDim.x * Rows::RUN) {
      x.get_run(t, c, width - c, run);
      weight.get_run(0, c, width - c, w);
      dy.get_run(t, c, width - c, d);
      for (int i = 0; i < Rows::RUN; i++) squares += run[i] * run[i], dot += d[i] * w[i] * run[i];
    }
    const float s = inverse_rms(block_sum(squares, spare), width, eps);
    const float pull = block_sum(dot, spare) / (float)width * s * s;
    for (int64_t c = (int64_t)threadIdx.x * Rows::RUN; c < width; c += blockDim.x * Rows::RUN) {
      x.get_run(t, c, width - c, run);
      weight.get_run(0, c, width - c, w);
      dy.get_run(t, c, width - c, d);
      if (t > first) part.get_run(0, c, width - c, dw);
      for (int i = 0; i < Rows::RUN; i++) {
        dw[i] = (t > first ? dw[i] : 0) + d[i] * run[i] * s;
        run[i] = s * (d[i] * w[i] - run[i] * pull);
      }
      part.put_run(0, c, width - c, dw);
      if (dx) dx.add_run(t, c, width - c, run);
    }
  }
}

KERNEL_SCRATCH(rms_norm, RmsNorm) {
  return backward ? (size_t)(sum_blocks(tensor_rows(p->x)) * tensor_last(p->x)) * sizeof(float) : 0;
}

KERNEL_FWD(rms_norm, RmsNorm) {
  const int64_t n_rows = tensor_rows(p->x), width = tensor_last(p->x);
  LAUNCH(forward, blocks_of(n_rows, 1), row_threads(width), WARP * sizeof(float), width, (float)p->eps, rows_of(p->x),
         rows_of(p->weight), rows_of(p->y));
}

KERNEL_BWD(rms_norm, RmsNorm) {
  const int64_t n_rows = tensor_rows(p->x), width = tensor_last(p->x);
  float *parts = (float *)p->scratch;
  LAUNCH(backward, (unsigned)sum_blocks(n_rows), row_threads(width), WARP * sizeof(float), n_rows, width, (float)p->eps,
         rows_of(p->x), rows_of(p->weight), rows_of(p->dy), rows_of(p->dx), parts);
  if (p->dweight) sum_columns(parts, sum_blocks(n_rows), width, rows_of(p->dweight));
}
