/* embedding: y[t] = w[token[t]];  dw[token[t]] += dy[t]. A token outside the vocabulary, a fault of the caller, makes NaN. */
#include "tensor/cuda/scatter.h"

static __global__ void forward(int64_t n_rows, int64_t width, const int32_t *token, int64_t n_v, Rows w, Rows y) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  const int64_t row = global_load(token + at.row);
  float x[Rows::RUN];
  if (row >= 0 && row < n_v) w.get_run(row, at.col, at.n, x);
  else
    for (int i = 0; i < Rows::RUN; i++) x[i] = NAN;
  y.put_run(at.row, at.col, at.n, x);
}

KERNEL_FWD(embedding, Embedding) {
  const int64_t n_rows = tensor_count(p->token), width = p->w->dim[1];
  LAUNCH_RUNS(forward, n_rows, width, ints_of(p->token), p->w->dim[0], rows_of(p->w), rows_of(p->y));
}

KERNEL_BWD(embedding, Embedding) {
  scatter_add(ints_of(p->token), tensor_count(p->token), p->w->dim[1], rows_of(p->dy), rows_of(p->dw));
}
