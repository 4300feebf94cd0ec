/* attention: builder and backward rule (Attention in tensor/kernels.h). Saves its inputs, y and one number per query and
 * head; the softmax is computed again from those. How long the past is stands in memory, not in shapes: its work is not
 * counted. */
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
  p->dkey_out = tape_arrived(tape, p->key_out);
  p->dvalue_out = tape_arrived(tape, p->value_out);
  if (!p->dy && !p->dkey_out && !p->dvalue_out) return;
  if (!p->dy) p->dy = tape_grad(tape, p->y); /* only the state went on: zero */
  p->dq = tape_grad(tape, p->q);
  p->dk = tape_grad(tape, p->k);
  p->dv = tape_grad(tape, p->v);
  p->dkey_in = tape_grad(tape, p->key_in);
  p->dvalue_in = tape_grad(tape, p->value_in);
  tape->device->flops += 4 * product_flops(p); /* dp, dq, dk, dv; the scores again are not counted */
  attention_bwd(tape->device, p);
}

/* The past: all of it or none, and rooms for every sequence. */
static void check_state(const Tape *tape, const Attention *p, int64_t n_kv) {
  CHECK(!p->past == !p->key_in && !p->past == !p->value_in, "past, key_in and value_in come together");
  CHECK(!p->key_out == !p->value_out, "key_out and value_out come together");
  const int64_t n_seq = p->cu_seqlens->dim[0] - 1;
  const Tensor *const states[] = {p->key_in, p->value_in, p->key_out, p->value_out};
  for (int i = 0; i < 4; i++) {
    const Tensor *t = states[i];
    CHECK(!t || (t->dtype == tape_real(tape) && t->n_dim == 3 && t->dim[0] == n_seq && t->dim[2] == n_kv &&
                 t->dim[1] == states[i / 2 * 2]->dim[1]),
          "a state of %s %s, expected %lld sequences of rows of %lld", dtype_name(t->dtype), tensor_shape_text(t),
          (long long)n_seq, (long long)n_kv);
  }
  CHECK(!p->past || (p->past->dtype == I32 && p->past->n_dim == 1 && p->past->dim[0] == n_seq), "past %s",
        tensor_shape_text(p->past));
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
  check_state(tape, &in, n_kv);
  CHECK(!in.y || tensor_same_shape(in.y, in.q), "y %s for q %s", tensor_shape_text(in.y), tensor_shape_text(in.q));
  if (!in.y) in.y = tape_tensor(tape, tape->act, in.q->dim[0], n_q);
  tape->device->flops += 2 * product_flops(&in);
  const bool needs_grad = tape->recording && (in.q->needs_grad || in.k->needs_grad || in.v->needs_grad ||
                                              (in.key_in && (in.key_in->needs_grad || in.value_in->needs_grad)));
  if (needs_grad) in.lse = tape_tensor(tape, tape_real(tape), in.q->dim[0], in.n_heads);
  attention_fwd(tape->device, &in);
  tape_mark_output(in.y, needs_grad);
  tape_mark_output(in.key_out, needs_grad);
  tape_mark_output(in.value_out, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, in);
  return in;
}
