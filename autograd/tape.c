/* tape: see tape.h. */
#include "autograd/tape.h"

#include <string.h>

struct TapeNode {
  TapeNode *before;
  TapeRule *rule;
  _Alignas(16) char params[];
};

Tape tape_make(Device *device, Dtype act, bool recording) {
  return (Tape){.device = device, .act = act, .recording = recording, .owed = SIZE_MAX};
}

void tape_reset(Tape *tape, size_t mark) {
  tape->last = NULL;
  tape->owed = SIZE_MAX;
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

static size_t older(size_t a, size_t b) { return a < b ? a : b; }

Tensor *tape_grad_unset(Tape *tape, Tensor *t) {
  if (!t || !t->needs_grad) return NULL;
  if (t->base) return tape_grad(tape, t);
  if (t->grad) return t->grad;
  Arena *arena = &tape->device->step;
  t->grad = tensor_new(arena, t->dtype, t->n_dim, t->dim);
  t->grad->unset = true;
  tape->owed = older(tape->owed, arena_place(arena, t->data));
  return t->grad;
}

void tape_grad_set(Tensor *grad) {
  if (grad) grad->unset = false;
}

Tensor *tape_grad(Tape *tape, Tensor *t) {
  if (!t || !t->needs_grad) return NULL;
  /* A view's gradient is not remembered: its header may be given back before the view is. */
  if (t->base) return tensor_same_view(&tape->device->step, t, tape_grad(tape, t->base));
  Tensor *grad = tape_grad_unset(tape, t);
  if (grad->unset) device_zero(tape->device, grad);
  grad->unset = false;
  return grad;
}

Tensor *tape_arrived(Tape *tape, Tensor *t) {
  if (!t || !t->needs_grad) return NULL;
  if (t->base) return t->base->grad ? tape_grad(tape, t) : NULL;
  return t->grad;
}

/* A scope may give back the node that is being played, so the way on is read first. */
static void play(Tape *tape, TapeNode *node) {
  while (node) {
    TapeNode *before = node->before;
    node->rule(tape, node->params);
    node = before;
  }
}

void tape_backward(Tape *tape) { play(tape, tape->last); }

/* ---- scopes */

typedef struct ScopeRecord {
  TapeScope scope;
  size_t start;    /* of the scope's memory, its output included unless that was there before */
  size_t owed;     /* tape->owed when it began: of gradients below start */
  TapeNode *inner; /* what the body recorded; NULL: to be replayed */
} ScopeRecord;

static void scope_rule(Tape *tape, void *params) {
  const ScopeRecord r = *(const ScopeRecord *)params;
  Device *device = tape->device;
  tape_grad(tape, r.scope.in);
  const size_t entry = arena_mark(&device->step), owed = tape->owed;
  /* Gradients that older tensors got since the scope began are still to be played: they stay, whatever is inside. */
  const bool whole = !tape->pinned && owed >= r.start, pinned = tape->pinned;

  tape->pinned = !whole;
  tape->owed = SIZE_MAX;
  TapeNode *inner = r.inner;
  if (r.scope.kind == SCOPE_REPLAY) {
    const Tensor *known = tape->known;
    const double flops = device->flops; /* work done twice counts once */
    tape->last = NULL;
    tape->known = r.scope.out;
    r.scope.body(tape, r.scope.args, r.scope.in, r.scope.out);
    tape->known = known;
    device->flops = flops;
    inner = tape->last;
  }
  play(tape, inner);
  CHECK(tape->owed >= r.start, "a scope's body adds to the gradient of a tensor outside of it that is not its input");

  tape->pinned = pinned;
  arena_rewind(&device->step, whole ? r.start : entry);
  tape->owed = whole ? r.owed : older(owed, r.owed);
}

Tensor *tape_scope(Tape *tape, TapeScope scope) {
  Arena *arena = &tape->device->step;
  ScopeRecord r = {.scope = scope, .start = arena_mark(arena), .owed = tape->owed};
  if (!scope.out) r.scope.out = tape_tensor(tape, scope.dtype, scope.in->dim[0], scope.n_cols);
  const bool records = tape->recording && scope.kind != SCOPE_OPEN;
  if (records) r.scope.args = memcpy(arena_header(arena, scope.args_bytes), scope.args, scope.args_bytes);

  TapeNode *outer = tape->last;
  const size_t inside = arena_mark(arena);
  if (records) tape->last = NULL, tape->owed = SIZE_MAX;
  if (records && scope.kind == SCOPE_REPLAY) tape->recording = false;
  scope.body(tape, r.scope.args, scope.in, r.scope.out);
  if (scope.kind == SCOPE_OPEN) return r.scope.out;
  if (!tape->recording) arena_rewind(arena, inside);
  if (!records) return r.scope.out;

  if (scope.kind == SCOPE_REPLAY) {
    tape->recording = true;
    tape_mark_output(r.scope.out, true);
  }
  r.inner = tape->last;
  tape->last = outer;
  TAPE_RECORD(tape, scope_rule, r);
  return r.scope.out;
}
