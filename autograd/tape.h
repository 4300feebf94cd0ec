/* tape: records operations as they run and plays their backward rules in reverse.
 *
 * Everything recorded lives in the device's step arena; tape_reset rewinds it. All gradients are added to (+=).
 *
 * Scopes bound the memory. The arena is a stack, and backward undoes what forward did from the top down: once a scope is
 * played back, everything taken since it began, activations and gradients, is given back at once. So gradients need the
 * room of one scope, and come to lie where the activations of later scopes were. A scope that replays keeps nothing but
 * its output: backward runs its body a second time, recording. (Chen et al. 2016) */
#pragma once

#include "tensor/device.h"

typedef struct TapeNode TapeNode;

/* What random operations draw by: the numbers of the training samples on the tape, counted from samples_before[0] where
 * that is given (in the device's memory). n_samples 0: nothing is random. */
typedef struct TapeDraws {
  uint64_t seed, first_sample;
  int64_t n_samples;
  const int64_t *samples_before;
} TapeDraws;

/* Told behind every rule that backward plays, inside of scopes too: who counts how often a parameter's gradient was asked
 * for (Tensor.n_asked) knows from the pass before when nothing will be added to it any more. */
typedef struct TapeWatcher {
  void (*played)(void *user); /* NULL: nobody */
  void *user;
} TapeWatcher;

typedef struct Tape {
  Device *device;
  Dtype act;      /* dtype of activations: F32, BF16, or F64 on the double backend */
  bool recording; /* off: evaluation; nothing is saved for backward */
  TapeDraws draws;
  TapeWatcher watcher;
  const double *dloss; /* what the gradient of every token's nll will be, where that is known before, in the device's
                        * memory; NULL: it is seeded */
  TapeNode *last;
  const Tensor *known; /* the output of the scope being replayed */
  size_t owed;         /* place of the oldest tensor that got its gradient since the last scope began; SIZE_MAX: none */
  bool pinned;         /* inside of a scope that may not give back what it began with */
} Tape;

/* A backward rule: fills the gradient fields of its params struct with tape_grad and calls <op>_bwd. */
typedef void TapeRule(Tape *tape, void *params);

Tape tape_make(Device *device, Dtype act, bool recording);
/* Forgets all nodes and rewinds the step arena to where it was when the tape was made (mark). */
void tape_reset(Tape *tape, size_t mark);

/* The backend's real: F32, or F64 in the double twin. */
static inline Dtype tape_real(const Tape *tape) { return tape->device->backend->real; }

/* A fresh (n_rows, n_cols) activation in the step arena. needs_grad is set by the op that fills it. */
Tensor *tape_tensor(Tape *tape, Dtype dtype, int64_t n_rows, int64_t n_cols);

/* Marks an operation's output (and, when it is a view that was handed in to be filled, its base) as needing a gradient. */
void tape_mark_output(Tensor *out, bool needs_grad);

/* Copies params and records the rule, unless the tape is not recording. (The op leaves it out when no input
 * needs a gradient.) */
void tape_record(Tape *tape, TapeRule *rule, const void *params, size_t params_bytes);
#define TAPE_RECORD(tape, rule, params) tape_record(tape, rule, &(params), sizeof(params))

/* Where t's gradient is added to: NULL where none is needed (or t is NULL); a parameter's permanent slot; else a buffer
 * in the step arena, zeroed on first use. A view's is the same view of its base's; what no view has written of that when
 * it is wanted whole is zeroed then. */
Tensor *tape_grad(Tape *tape, Tensor *t);
/* The same without the zeroing, which `unset` of the result then tells: for operations that write every element of it, and
 * only once. They call tape_grad_set behind. */
Tensor *tape_grad_unset(Tape *tape, Tensor *t);
void tape_grad_set(Tensor *grad); /* NULL: nothing to do */
/* The gradient that has arrived at an output so far: NULL when nothing used it. */
Tensor *tape_arrived(Tape *tape, Tensor *t);

typedef enum ScopeKind {
  SCOPE_OPEN,  /* as if there were none: what the body makes stays until the tape is reset */
  SCOPE_KEEP,  /* what the body recorded is kept for backward */
  SCOPE_REPLAY /* only `out` is kept; backward runs the body again */
} ScopeKind;
/* Fills out from in. Run a second time by a replay, with the same bits; `out` is known then, and the operation that fills
 * it need not compute (tape_known). Tensors it makes, out apart, are gone when it returns, unless the scope is open. */
typedef void TapeBody(Tape *tape, const void *args, Tensor *in, Tensor *out);
/* Runs body as a scope and returns out. args (args_bytes) are copied. `out` NULL: made, (rows of in, n_cols) of dtype.
 * The body adds to no gradient of a tensor outside but in's, and those that were there before the scope began (CHECK). */
typedef struct TapeScope {
  ScopeKind kind;
  TapeBody *body;
  const void *args;
  size_t args_bytes;
  Tensor *in, *out;
  Dtype dtype;
  int64_t n_cols;
} TapeScope;
Tensor *tape_scope(Tape *tape, TapeScope scope);
/* True when `out` holds its values already: an operation that may be a scope's last asks before it computes. */
static inline bool tape_known(const Tape *tape, const Tensor *out) { return out && out == tape->known; }

/* Plays the rules from the last to the first. The caller has seeded the outputs' gradients through tape_grad. */
void tape_backward(Tape *tape);
