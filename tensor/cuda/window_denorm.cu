/* window_denorm: y = (x + linear + cycle) std + keep mean (WindowDenorm in tensor/kernels.h);  dx, dlinear += dy std;
 * dcycle[(phase + length + h) mod W, first + j] += dy std, dkeep[h] += dy mean, windows in order, a thread an element. */
#include "tensor/cuda/cuda.h"

struct Window {
  int64_t length, n_seq, n_cycle;
  int horizon, n_out, n_q, first;
  bool row_per_series;
};
static Window window_of(const WindowDenorm *p) {
  return {p->length, tensor_rows(p->y), p->cycle ? p->cycle->dim[0] : 0, p->horizon, p->n_out, p->n_q,
          p->first,  p->row_per_series};
}

/* One forecast: its window, step, output and quantile; where x has it. */
struct Forecast {
  int64_t s, h, j, q, row, col;
};
static __device__ bool forecast_of(Window w, Forecast *f) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, of_step = at / w.n_q,
                of_window = of_step / w.n_out;
  f->q = at % w.n_q, f->j = of_step % w.n_out, f->h = of_window % w.horizon, f->s = of_window / w.horizon;
  f->row = w.row_per_series ? f->s * w.n_out + f->j : f->s;
  f->col = (w.row_per_series ? f->h : f->h * w.n_out + f->j) * w.n_q + f->q;
  return f->s < w.n_seq;
}
static __device__ int64_t column_of(Window w, Forecast f) { return (f.h * w.n_out + f.j) * w.n_q + f.q; }

static __global__ void forward(Window w, const int32_t *phase, Rows x, Rows linear, Rows cycle, Rows keep,
                               Rows mean, Rows std, Rows y) {
  Forecast f;
  if (!forecast_of(w, &f)) return;
  const int64_t c = w.first + f.j;
  float value = x.get(f.row, f.col);
  if (cycle) value += cycle.get((global_load(phase + f.s) + w.length + f.h) % w.n_cycle, c);
  value = value * std.get(f.s, c) + keep.get_or(0, f.h, 1) * mean.get(f.s, c);
  if (linear) value += linear.get(f.row, f.col) * std.get(f.s, c);
  y.put(f.s, column_of(w, f), value);
}

static __global__ void backward(Window w, Rows std, Rows dy, Rows dx, Rows dlinear) {
  Forecast f;
  if (!forecast_of(w, &f)) return;
  const float d = dy.get(f.s, column_of(w, f)) * std.get(f.s, w.first + f.j);
  if (dx) dx.add(f.row, f.col, d);
  if (dlinear) dlinear.add(f.row, f.col, d);
}

static __global__ void backward_cycle(Window w, const int32_t *phase, Rows std, Rows dy, Rows dcycle) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, place = at / w.n_out, j = at % w.n_out;
  if (place >= w.n_cycle) return;
  float sum = dcycle.unset ? 0 : dcycle.get(place, w.first + j);
  for (int64_t s = 0; s < w.n_seq; s++) {
    const int64_t begin = (global_load(phase + s) + w.length) % w.n_cycle;
    for (int64_t h = (place - begin + w.n_cycle) % w.n_cycle; h < w.horizon; h += w.n_cycle) {
      float step = 0;
      for (int64_t q = 0; q < w.n_q; q++) step += dy.get(s, (h * w.n_out + j) * w.n_q + q) * std.get(s, w.first + j);
      sum += step;
    }
  }
  dcycle.put(place, w.first + j, sum);
}

static __global__ void backward_keep(Window w, Rows mean, Rows dy, Rows dkeep) {
  const int64_t h = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (h >= w.horizon) return;
  float sum = 0;
  for (int64_t s = 0; s < w.n_seq; s++)
    for (int64_t j = 0; j < w.n_out; j++)
      for (int64_t q = 0; q < w.n_q; q++) sum += dy.get(s, (h * w.n_out + j) * w.n_q + q) * mean.get(s, w.first + j);
  dkeep.add(0, h, sum);
}

KERNEL_FWD(window_denorm, WindowDenorm) {
  LAUNCH(forward, blocks_of(tensor_count(p->y), 128), 128, 0, window_of(p), ints_of(p->phase), rows_of(p->x),
         rows_of(p->linear), rows_of(p->cycle), rows_of(p->keep), rows_of(p->mean), rows_of(p->std), rows_of(p->y));
}

KERNEL_BWD(window_denorm, WindowDenorm) {
  const Window w = window_of(p);
  LAUNCH(backward, blocks_of(tensor_count(p->y), 128), 128, 0, w, rows_of(p->std), rows_of(p->dy), rows_of(p->dx),
         rows_of(p->dlinear));
  if (p->dcycle)
    LAUNCH(backward_cycle, blocks_of(w.n_cycle * w.n_out, 64), 64, 0, w, ints_of(p->phase), rows_of(p->std),
           rows_of(p->dy), rows_of(p->dcycle));
  if (p->dkeep)
    LAUNCH(backward_keep, blocks_of(w.horizon, 64), 64, 0, w, rows_of(p->mean), rows_of(p->dy), rows_of(p->dkeep));
}
