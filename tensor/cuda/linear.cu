/* linear: y = x w^T + bias;  dx += dy w,  dw += dy^T x,  dbias += column sums of dy. The products are matmul.h; a factor of
 * another type than the weight, and a bias of another than y, is converted first. */
#include "tensor/cuda/matmul.h"

constexpr int THREADS = 128;

static __global__ void convert(int64_t n_rows, int64_t width, Rows from, Rows to) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  float run[Rows::RUN];
  from.get_run(at.row, at.col, at.n, run);
  to.put_run(at.row, at.col, at.n, run);
}

static __global__ void sum_rows(int64_t n_rows, int64_t width, Rows dy, float *parts) {
  const int64_t c = (int64_t)blockIdx.y * THREADS + threadIdx.x;
  if (c >= width) return;
  float sum = 0;
  for (int64_t t = sum_block_start(n_rows, blockIdx.x); t < sum_block_start(n_rows, blockIdx.x + 1); t++)
    sum += dy.get(t, c);
  global_store(parts + blockIdx.x * width + c, sum);
}

/* The scratch: cuBLASLt's workspace, the bias's sums, then x and dy in the weight's type where they have another. */
static size_t rows_bytes(const Tensor *t, Dtype dtype) {
  return t && t->dtype != dtype ? (size_t)round_up(tensor_count(t), 128) * dtype_bytes(dtype) : 0;
}
static Factor as_type(const Tensor *t, Dtype dtype, bool transposed, char **scratch) {
  if (t->dtype == dtype) return factor_of(t, transposed);
  const int64_t n_rows = tensor_rows(t), width = tensor_last(t);
  const Rows to = {*scratch, width, dtype == BF16, false};
  *scratch += rows_bytes(t, dtype);
  LAUNCH_RUNS(convert, n_rows, width, rows_of(t), to);
  return {to.data, width, to.is_bf16, transposed};
}
static size_t dbias_bytes(const Linear *p) {
  const int64_t n = p->dbias ? sum_blocks(tensor_rows(p->dy)) * tensor_last(p->dy) : 0;
  return (size_t)round_up(n, 128) * sizeof(float); /* what lies behind is as well aligned */
}

KERNEL_SCRATCH(linear, Linear) {
  const size_t types =
      rows_bytes(p->x, p->w->dtype) + (backward ? rows_bytes(p->dy, p->w->dtype) : rows_bytes(p->bias, p->y->dtype));
  return matmul_scratch() + types + (backward ? dbias_bytes(p) : 0);
}

KERNEL_FWD(linear, Linear) {
  const int64_t n_t = tensor_rows(p->x), n_out = p->w->dim[0], n_in = p->w->dim[1];
  char *own = (char *)p->scratch + matmul_scratch();
  const Factor x = as_type(p->x, p->w->dtype, false, &own);
  const void *bias = p->bias ? as_type(p->bias, p->y->dtype, false, &own).data : nullptr;
  matmul(n_t, n_out, n_in, x, factor_of(p->w, true), bias, p->y->data, p->y->ld, p->y->dtype == BF16, false,
         p->scratch);
}

KERNEL_BWD(linear, Linear) {
  const int64_t n_t = tensor_rows(p->x), n_out = p->w->dim[0], n_in = p->w->dim[1];
  char *own = (char *)p->scratch + matmul_scratch();
  if (p->dbias) {
    float *parts = (float *)own;
    own += dbias_bytes(p);
    const int64_t n_blocks = sum_blocks(n_t);
    LAUNCH(sum_rows, dim3((unsigned)n_blocks, blocks_of(n_out, THREADS)), THREADS, 0, n_t, n_out, rows_of(p->dy),
           parts);
    sum_columns(parts, n_blocks, n_out, rows_of(p->dbias));
  }
  if (!p->dx && !p->dw) return;
  Factor dy = as_type(p->dy, p->w->dtype, false, &own);
  if (p->dx)
    matmul(n_t, n_in, n_out, dy, factor_of(p->w, false), nullptr, p->dx->data, p->dx->ld, p->dx->dtype == BF16,
           !p->dx->unset, p->scratch);
  if (!p->dw) return;
  dy.transposed = true;
  matmul(n_out, n_in, n_t, dy, as_type(p->x, p->w->dtype, false, &own), nullptr, p->dw->data, p->dw->ld, false,
         !p->dw->unset, p->scratch);
}
