/* gather: builder and backward rule (Gather in tensor/kernels.h). Saves the index. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  Gather *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dx = tape_grad(tape, p->x);
  gather_bwd(tape->device, p);
}

Tensor *op_gather(Tape *tape, Tensor *x, Tensor *index, int64_t width, int64_t n_rows, int64_t n_cols) {
  CHECK(index->n_dim == 1 && index->dtype == I32, "index %s %s, expected i32 (n)", dtype_name(index->dtype),
        tensor_shape_text(index));
  CHECK(tensor_contiguous(x) && width > 0 && tensor_count(x) % width == 0, "runs of %lld in %s", (long long)width,
        tensor_shape_text(x));
  CHECK(n_rows * n_cols == index->dim[0] * width, "%lld runs of %lld as (%lld, %lld)", (long long)index->dim[0],
        (long long)width, (long long)n_rows, (long long)n_cols);
  Gather p = {.width = width, .index = index, .x = x, .y = tape_tensor(tape, x->dtype, n_rows, n_cols)};
  gather_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && x->needs_grad;
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
