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

/* ---- gradients */

/* Columns of a gradient that views have written, as runs, sorted and apart. */
enum { MAX_COLUMN_RUNS = 8 };
typedef struct ColumnRuns {
  int n;
  struct {
    int64_t first, end;
  } run[MAX_COLUMN_RUNS];
} ColumnRuns;

/* The gradient's buffer of a tensor that is no view; `by_columns`: a new one may be written view by view. */
static Tensor *grad_buffer(Tape *tape, Tensor *t, bool by_columns) {
  if (t->grad) {
    t->grad->n_asked++;
    return t->grad;
  }
  Arena *arena = &tape->device->step;
  t->grad = tensor_new(arena, t->dtype, t->n_dim, t->dim);
  t->grad->unset = true;
  if (by_columns) { /* beside the buffer, so that neither outlives the other */
    t->grad->written = arena_header(arena, sizeof(ColumnRuns));
    t->grad->written->n = 0;
  }
  tape->owed = older(tape->owed, arena_place(arena, t->data));
  return t->grad;
}

static void zero_columns(Tape *tape, Tensor *grad, int64_t first, int64_t end) {
  const size_t mark = arena_mark(&tape->device->step);
  if (first < end) device_zero(tape->device, tensor_cols(&tape->device->step, grad, first, end - first));
  arena_rewind(&tape->device->step, mark);
}

/* Zeroes what no view has written. */
static void complete(Tape *tape, Tensor *grad) {
  if (!grad->unset) return;
  const ColumnRuns *written = grad->written;
  if (written) {
    int64_t at = 0;
    for (int i = 0; i < written->n; i++) {
      zero_columns(tape, grad, at, written->run[i].first);
      at = written->run[i].end;
    }
    zero_columns(tape, grad, at, grad->dim[1]);
  } else device_zero(tape->device, grad);
  grad->unset = false, grad->written = NULL;
}

/* The runs' number that begin before column `col`. */
static int runs_before(const ColumnRuns *runs, int64_t col) {
  int n = 0;
  while (n < runs->n && runs->run[n].first < col) n++;
  return n;
}

/* The columns of a view of whole rows. */
static int64_t first_column(const Tensor *view) { return view->base_offset; }
static int64_t end_column(const Tensor *view) { return view->base_offset + view->dim[1]; }

/* Whether no column of the view is written yet; a gradient of which that cannot be said is completed. */
static bool view_is_unset(Tape *tape, const Tensor *view, Tensor *base) {
  ColumnRuns *written = base->written;
  const bool of_columns = view->base_step == 1 && view->dim[0] == base->dim[0] && view->base_offset < base->ld;
  if (base->unset && written && of_columns) {
    const int n = runs_before(written, end_column(view));
    const bool apart = n == 0 || written->run[n - 1].end <= first_column(view);
    if (apart && written->n < MAX_COLUMN_RUNS) return true;
    if (!apart && written->run[n - 1].first <= first_column(view) && end_column(view) <= written->run[n - 1].end)
      return false;
  }
  complete(tape, base);
  return false;
}

/* Adds a view's columns to those its base's gradient holds. */
static void write_columns(const Tensor *view) {
  ColumnRuns *runs = view->base->written;
  int64_t first = first_column(view), end = end_column(view);
  int n = runs_before(runs, first);
  const int joins_before = n > 0 && runs->run[n - 1].end == first;
  const int joins_behind = n < runs->n && runs->run[n].first == end, joined = joins_before + joins_behind;
  if (joins_behind) end = runs->run[n].end;
  if (joins_before) first = runs->run[--n].first;
  memmove(runs->run + n + 1, runs->run + n + joined, (size_t)(runs->n - n - joined) * sizeof *runs->run);
  runs->run[n].first = first, runs->run[n].end = end;
  runs->n += 1 - joined;
  if (first == 0 && end == view->base->dim[1]) view->base->unset = false, view->base->written = NULL;
}

/* A view's gradient is not remembered: its header may be given back before the view is. */
static Tensor *view_grad(Tape *tape, const Tensor *view) {
  Tensor *base = grad_buffer(tape, view->base, true);
  const bool unset = view_is_unset(tape, view, base);
  Tensor *grad = tensor_same_view(&tape->device->step, view, base);
  grad->unset = unset;
  return grad;
}

Tensor *tape_grad_unset(Tape *tape, Tensor *t) {
  if (!t || !t->needs_grad) return NULL;
  if (t->base) return view_grad(tape, t);
  Tensor *grad = grad_buffer(tape, t, false);
  if (grad->written) complete(tape, grad);
  return grad;
}

void tape_grad_set(Tensor *grad) {
  if (!grad || !grad->unset) return;
  if (grad->base) write_columns(grad);
  grad->unset = false;
}

Tensor *tape_grad(Tape *tape, Tensor *t) {
  Tensor *grad = tape_grad_unset(tape, t);
  if (grad && grad->unset) {
    device_zero(tape->device, grad);
    tape_grad_set(grad);
  }
  return grad;
}

Tensor *tape_arrived(Tape *tape, Tensor *t) {
  if (!t || !t->needs_grad) return NULL;
  if (t->base) return t->base->grad ? tape_grad(tape, t) : NULL;
  if (t->grad && t->grad->written) complete(tape, t->grad);
  return t->grad;
}

/* ---- playing */

/* A scope may give back the node that is being played, so the way on is read first. */
static void play(Tape *tape, TapeNode *node) {
  while (node) {
    TapeNode *before = node->before;
    node->rule(tape, node->params);
    if (tape->watcher.played) tape->watcher.played(tape->watcher.user);
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
