/* gather: y_i = x_{index[i]} in runs of `width` elements, rest_i where the index is negative;  dx_{index[i]} += dy_i in the order of i. */
#include "tensor/cuda/scatter.h"

static __global__ void forward(int64_t n_rows, int64_t width, const int32_t *index, Rows x, Rows rest, Rows y) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float run[Rows::RUN] = {};
  const int32_t row = global_load(index + at.row);
  if (row >= 0) x.get_run(row, at.col, at.n, run);
  else if (rest) rest.get_run(at.row, at.col, at.n, run);
  y.put_run(at.row, at.col, at.n, run);
}

KERNEL_FWD(gather, Gather) {
  const int64_t n_rows = p->index->dim[0];
  LAUNCH_RUNS(forward, n_rows, p->width, ints_of(p->index), rows_of_width(p->x, p->width),
              rows_of_width(p->rest, p->width), rows_of_width(p->y, p->width));
}

KERNEL_BWD(gather, Gather) {
  scatter_add(ints_of(p->index), p->index->dim[0], p->width, rows_of_width(p->dy, p->width),
              rows_of_width(p->dx, p->width));
}
