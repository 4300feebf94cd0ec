/* fault: what a run does when, and faults planted there (debug.fault), so that what follows can be tested.
 *
 *   KIND@STEP[,rank=R][,phase=P][,seconds=S]     rank 0, the gradient's phase and 1 second where nothing is said */
#pragma once

#include "tensor/base.h"

/* What a rank is doing. In PHASE_REDUCE, COMPARE and WAIT it waits for others. */
typedef enum Phase {
  PHASE_START,
  PHASE_DATA,
  PHASE_GRADIENT,
  PHASE_REDUCE,
  PHASE_UPDATE,
  PHASE_COMPARE,
  PHASE_EVALUATE,
  PHASE_SAVE,
  PHASE_WRITE, /* of the file, its values being written: beside later steps where there is a snapshot (snapshot.h) */
  PHASE_WAIT,
  PHASE_FINISH,
  N_PHASES
} Phase;
const char *phase_name(Phase phase);
bool phase_waits(Phase phase);

typedef enum FaultKind {
  FAULT_NONE,
  FAULT_NAN_LOSS, /* the rank's loss of this step is NaN */
  FAULT_NAN_GRAD, /* an element of its gradient is */
  FAULT_KILL,     /* SIGKILL at the phase's begin */
  FAULT_STOP,     /* SIGSTOP there */
  FAULT_SLOW,     /* from this step on, that phase begins `seconds` late */
  FAULT_DIVERGE   /* after this step's update one of its weights is another */
} FaultKind;

typedef struct Fault {
  FaultKind kind;
  int64_t step; /* counts from 1 */
  int rank;
  Phase phase;
  double seconds;
} Fault;

/* False when the text is no fault; the empty text is FAULT_NONE. */
bool fault_parse(const char *text, Fault *fault);
/* What messages expect of one. */
extern const char fault_form[];
/* Whether a fault of the kind is due on this rank in this step. */
bool fault_is(const Fault *fault, FaultKind kind, int rank, int64_t step);
/* Kills, stops or delays this process where it is due. */
void fault_strike(const Fault *fault, int rank, int64_t step, Phase phase);
