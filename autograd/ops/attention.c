/* attention: builder and backward rule (Attention in tensor/kernels.h). Saves its inputs, y and one number per query and
 * head; the softmax is computed again from those. */
#include "autograd/ops.h"

/* One of the products over the causal half of the score matrix: q k^T or p v. The lengths of a packed batch are not known
 * here (nor on a dry device): they are taken as equal. */
static double product_flops(const Attention *p) {
  const double n_t = (double)p->q->dim[0], mean_length = n_t / (double)(p->cu_seqlens->dim[0] - 1);
  return n_t * (mean_length + 1) * p->n_heads * p->head_dim;
}

static void rule(Tape *tape, void *params) {
  Attention *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dq = tape_grad(tape, p->q);
  p->dk = tape_grad(tape, p->k);
  p->dv = tape_grad(tape, p->v);
  tape->device->flops += 4 * product_flops(p); /* dp, dq, dk, dv; the scores again are not counted */
  attention_bwd(tape->device, p);
}

Attention op_attention(Tape *tape, Attention in) {
  CHECK(in.n_heads >= 1 && in.n_heads_kv >= 1 && in.head_dim >= 1 && in.n_heads % in.n_heads_kv == 0,
        "%d heads of %d share %d key heads", in.n_heads, in.head_dim, in.n_heads_kv);
  CHECK(in.rotary_dim >= 0 && in.rotary_dim % 2 == 0 && in.rotary_dim <= in.head_dim, "rotary_dim %d of head_dim %d",
        in.rotary_dim, in.head_dim);
  CHECK(in.cu_seqlens->n_dim == 1 && in.cu_seqlens->dtype == I32 && in.cu_seqlens->dim[0] >= 2, "cu_seqlens %s %s",
        dtype_name(in.cu_seqlens->dtype), tensor_shape_text(in.cu_seqlens));
  const int64_t n_q = (int64_t)in.n_heads * in.head_dim, n_kv = (int64_t)in.n_heads_kv * in.head_dim;
  CHECK(in.q->n_dim == 2 && in.q->dim[1] == n_q, "q %s, expected %lld columns", tensor_shape_text(in.q),
        (long long)n_q);
  CHECK(in.k->n_dim == 2 && in.k->dim[0] == in.q->dim[0] && in.k->dim[1] == n_kv && tensor_same_shape(in.k, in.v),
        "k %s and v %s, expected (%lld, %lld)", tensor_shape_text(in.k), tensor_shape_text(in.v),
        (long long)in.q->dim[0], (long long)n_kv);
  CHECK(!in.y || tensor_same_shape(in.y, in.q), "y %s for q %s", tensor_shape_text(in.y), tensor_shape_text(in.q));
  if (!in.y) in.y = tape_tensor(tape, tape->act, in.q->dim[0], n_q);
  tape->device->flops += 2 * product_flops(&in);
  const bool needs_grad = tape->recording && (in.q->needs_grad || in.k->needs_grad || in.v->needs_grad);
  if (needs_grad) in.lse = tape_tensor(tape, tape_real(tape), in.q->dim[0], in.n_heads);
  attention_fwd(tape->device, &in);
  tape_mark_output(in.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, in);
  return in;
}
