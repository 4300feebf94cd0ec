/* tape: see tape.h. */
#include "autograd/tape.h"

#include <string.h>

struct TapeNode {
  TapeNode *before;
  TapeRule *rule;
  _Alignas(16) char params[];
};

Tape tape_make(Device *device, Dtype act, bool recording) {
  return (Tape){.device = device, .act = act, .recording = recording};
}

void tape_reset(Tape *tape, size_t mark) {
  tape->last = NULL;
  arena_rewind(&tape->device->step, mark);
}

Tensor *tape_tensor(Tape *tape, Dtype dtype, int64_t n_rows, int64_t n_cols) {
  return tensor_new2(&tape->device->step, dtype, n_rows, n_cols);
}

void tape_mark_output(Tensor *out, bool needs_grad) {
  if (!out) return;
  out->needs_grad = needs_grad;
  if (out->base && needs_grad) out->base->needs_grad = true;
}

void tape_record(Tape *tape, TapeRule *rule, const void *params, size_t params_bytes) {
  if (!tape->recording) return;
  TapeNode *node = arena_header(&tape->device->step, sizeof(TapeNode) + params_bytes);
  node->before = tape->last;
  node->rule = rule;
  memcpy(node->params, params, params_bytes);
  tape->last = node;
}

Tensor *tape_grad(Tape *tape, Tensor *t) {
  if (!t || !t->needs_grad) return NULL;
  if (t->grad) return t->grad;
  Arena *arena = &tape->device->step;
  if (t->base) {
    t->grad = tensor_same_view(arena, t, tape_grad(tape, t->base));
    return t->grad;
  }
  t->grad = tensor_new(arena, t->dtype, t->n_dim, t->dim);
  if (!tape->device->dry) tensor_zero(t->grad);
  return t->grad;
}

Tensor *tape_arrived(Tape *tape, Tensor *t) {
  if (!t || !t->needs_grad) return NULL;
  if (t->base) return t->base->grad ? tape_grad(tape, t) : NULL;
  return t->grad;
}

void tape_backward(Tape *tape) {
  for (TapeNode *node = tape->last; node; node = node->before) node->rule(tape, node->params);
}
