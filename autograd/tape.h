/* tape: records operations as they run and plays their backward rules in reverse.
 *
 * Everything recorded lives in the device's step arena; tape_reset rewinds it. All gradients are added to (+=). */
#pragma once

#include "tensor/device.h"

typedef struct TapeNode TapeNode;

typedef struct Tape {
  Device *device;
  Dtype act;      /* dtype of activations: F32, BF16, or F64 on the double backend */
  bool recording; /* off: evaluation; nothing is saved for backward */
  TapeNode *last;
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
 * in the step arena, zeroed on first use. A view's is the same view of its base's. */
Tensor *tape_grad(Tape *tape, Tensor *t);
/* The gradient that has arrived at an output so far: NULL when nothing used it. */
Tensor *tape_arrived(Tape *tape, Tensor *t);

/* Plays the rules from the last to the first. The caller has seeded the outputs' gradients through tape_grad. */
void tape_backward(Tape *tape);
