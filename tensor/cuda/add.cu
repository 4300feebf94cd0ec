/* add: y += x. */
#include "tensor/cuda/cuda.h"

static __global__ void forward(int64_t n_rows, int64_t width, Rows x, Rows y) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float a[Rows::RUN];
  x.get_run(at.row, at.col, at.n, a);
  y.add_run(at.row, at.col, at.n, a);
}

KERNEL_FWD(add, Add) {
  const int64_t n = tensor_count(p->y);
  LAUNCH_RUNS(forward, (int64_t)1, n, rows_of_width(p->x, n), rows_of_width(p->y, n));
}
