/* gather: builder and backward rule (Gather in tensor/kernels.h). Saves the index. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  Gather *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dx = tape_grad(tape, p->x);
  gather_bwd(tape->device, p);
}

static Tensor *gather(Tape *tape, Gather p) {
  CHECK(p.index->n_dim == 1 && p.index->dtype == I32, "index %s %s, expected i32 (n)", dtype_name(p.index->dtype),
        tensor_shape_text(p.index));
  CHECK(tensor_contiguous(p.x) && p.width > 0 && tensor_count(p.x) % p.width == 0, "runs of %lld in %s",
        (long long)p.width, tensor_shape_text(p.x));
  CHECK(tensor_count(p.y) == p.index->dim[0] * p.width, "%lld runs of %lld as %s", (long long)p.index->dim[0],
        (long long)p.width, tensor_shape_text(p.y));
  gather_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && p.x->needs_grad;
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}

Tensor *op_gather(Tape *tape, Tensor *x, Tensor *index, int64_t width, int64_t n_rows, int64_t n_cols) {
  return gather(tape,
                (Gather){.width = width, .index = index, .x = x, .y = tape_tensor(tape, x->dtype, n_rows, n_cols)});
}

Tensor *op_gather_or(Tape *tape, Tensor *x, Tensor *index, Tensor *rest) {
  CHECK(tensor_contiguous(rest) && rest->dtype == x->dtype && !rest->needs_grad, "the rest is %s %s beside %s",
        dtype_name(rest->dtype), tensor_shape_text(rest), dtype_name(x->dtype));
  Tensor *y = tensor_new(&tape->device->step, rest->dtype, rest->n_dim, rest->dim);
  return gather(tape,
                (Gather){.width = tensor_count(rest) / index->dim[0], .index = index, .x = x, .rest = rest, .y = y});
}
