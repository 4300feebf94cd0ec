/* swiglu: y = value * silu(gate);  dvalue += dy silu(gate),  dgate += dy value silu'(gate). */
#include "tensor/cuda/cuda.h"

static __global__ void forward(int64_t n_rows, int64_t width, Rows value, Rows gate, Rows y) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float v[Rows::RUN], g[Rows::RUN];
  value.get_run(at.row, at.col, at.n, v);
  gate.get_run(at.row, at.col, at.n, g);
  for (int i = 0; i < Rows::RUN; i++) v[i] *= silu(g[i]);
  y.put_run(at.row, at.col, at.n, v);
}

static __global__ void backward(int64_t n_rows, int64_t width, Rows value, Rows gate, Rows dy, Rows dvalue,
                                Rows dgate) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float v[Rows::RUN], g[Rows::RUN], d[Rows::RUN];
  value.get_run(at.row, at.col, at.n, v);
  gate.get_run(at.row, at.col, at.n, g);
  dy.get_run(at.row, at.col, at.n, d);
  for (int i = 0; i < Rows::RUN; i++) {
    v[i] *= d[i] * silu_slope(g[i]);
    d[i] *= silu(g[i]);
  }
  if (dvalue) dvalue.add_run(at.row, at.col, at.n, d);
  if (dgate) dgate.add_run(at.row, at.col, at.n, v);
}

KERNEL_FWD(swiglu, Swiglu) {
  const int64_t n_rows = tensor_rows(p->y), width = tensor_last(p->y);
  LAUNCH_RUNS(forward, n_rows, width, rows_of(p->value), rows_of(p->gate), rows_of(p->y));
}

KERNEL_BWD(swiglu, Swiglu) {
  const int64_t n_rows = tensor_rows(p->y), width = tensor_last(p->y);
  LAUNCH_RUNS(backward, n_rows, width, rows_of(p->value), rows_of(p->gate), rows_of(p->dy), rows_of(p->dvalue),
              rows_of(p->dgate));
}
