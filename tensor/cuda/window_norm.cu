/* window_norm: y = (x - mean) / std - cycle (WindowNorm in tensor/kernels.h). Forward: a thread has a column of a window;
 * backward: dcycle[w, c] -= the dy that its place in the cycle meets, windows in order, a thread an element. */
#include "tensor/cuda/cuda.h"

struct Window {
  WindowStatistic statistic;
  float eps;
  int64_t length, n_past, n_seq, n_in, n_c, n_cycle;
};
static Window window_of(const WindowNorm *p) {
  return {p->statistic,
          (float)p->eps,
          p->length,
          p->n_past,
          tensor_rows(p->x) / p->length,
          tensor_last(p->x),
          tensor_last(p->mean),
          p->cycle ? p->cycle->dim[0] : 0};
}

static __global__ void forward(Window w, const int32_t *phase, Rows x, Rows cycle, Rows y, Rows mean, Rows std) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, s = at / w.n_in, c = at % w.n_in;
  if (s >= w.n_seq) return;
  const int64_t first = s * w.length;
  const bool own = c < w.n_c;
  float m = 0, d = 1;
  if (own && w.statistic == WINDOW_LAST) m = x.get(first + w.n_past - 1, c);
  if (own && (w.statistic == WINDOW_MEAN || w.statistic == WINDOW_STANDARD)) {
    for (int64_t t = 0; t < w.n_past; t++) m += x.get(first + t, c);
    m /= (float)w.n_past;
  }
  if (own && w.statistic == WINDOW_STANDARD) {
    float squares = 0;
    for (int64_t t = 0; t < w.n_past; t++) {
      const float e = x.get(first + t, c) - m;
      squares += e * e;
    }
    d = sqrtf(squares / (float)w.n_past + w.eps);
  }
  if (own) mean.put(s, c, m), std.put(s, c, d);
  for (int64_t t = 0; t < w.length; t++) {
    if (own && t >= w.n_past) {
      y.put(first + t, c, 0);
      continue;
    }
    float value = (x.get(first + t, c) - m) / d;
    if (own && cycle) value -= cycle.get((global_load(phase + s) + t) % w.n_cycle, c);
    y.put(first + t, c, value);
  }
}

static __global__ void backward(Window w, const int32_t *phase, Rows dy, Rows dcycle) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, place = at / w.n_c, c = at % w.n_c;
  if (place >= w.n_cycle) return;
  float sum = dcycle.unset ? 0 : dcycle.get(place, c);
  for (int64_t s = 0; s < w.n_seq; s++) {
    const int64_t first = (place - global_load(phase + s) % w.n_cycle + w.n_cycle) % w.n_cycle;
    for (int64_t t = first; t < w.n_past; t += w.n_cycle) sum -= dy.get(s * w.length + t, c);
  }
  dcycle.put(place, c, sum);
}

KERNEL_FWD(window_norm, WindowNorm) {
  const Window w = window_of(p);
  LAUNCH(forward, blocks_of(w.n_seq * w.n_in, 64), 64, 0, w, ints_of(p->phase), rows_of(p->x), rows_of(p->cycle),
         rows_of(p->y), rows_of(p->mean), rows_of(p->std));
}

KERNEL_BWD(window_norm, WindowNorm) {
  const Window w = window_of(p);
  LAUNCH(backward, blocks_of(w.n_cycle * w.n_c, 64), 64, 0, w, ints_of(p->phase), rows_of(p->dy), rows_of(p->dcycle));
}
