/* residual: y = stream + update;  dstream += dy,  dupdate += dy. A thread has a run of a row. */
#include "tensor/cuda/cuda.h"

static __global__ void forward(int64_t n_rows, int64_t width, Rows stream, Rows update, Rows y) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float a[Rows::RUN], b[Rows::RUN];
  stream.get_run(at.row, at.col, at.n, a);
  update.get_run(at.row, at.col, at.n, b);
  for (int i = 0; i < Rows::RUN; i++) a[i] += b[i];
  y.put_run(at.row, at.col, at.n, a);
}

static __global__ void backward(int64_t n_rows, int64_t width, Rows dy, Rows dstream, Rows dupdate) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float d[Rows::RUN];
  dy.get_run(at.row, at.col, at.n, d);
  if (dstream) dstream.add_run(at.row, at.col, at.n, d);
  if (dupdate) dupdate.add_run(at.row, at.col, at.n, d);
}

KERNEL_FWD(residual, Residual) {
  const int64_t n_rows = tensor_rows(p->y), width = tensor_last(p->y);
  LAUNCH_RUNS(forward, n_rows, width, rows_of(p->stream), rows_of(p->update), rows_of(p->y));
}

KERNEL_BWD(residual, Residual) {
  const int64_t n_rows = tensor_rows(p->dy), width = tensor_last(p->dy);
  LAUNCH_RUNS(backward, n_rows, width, rows_of(p->dy), rows_of(p->dstream), rows_of(p->dupdate));
}
