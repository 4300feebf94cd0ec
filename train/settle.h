/* settle: when the host learns what became of its steps.
 *
 * The update of a step hangs on a verdict in the device's memory (optim_judge), so a bad step changes nothing although the
 * host goes on to the next one. The verdicts are read where somebody must know: before a line of the log, an evaluation, a
 * save, the end. On the processor and among several ranks that is after every step, unless these pass what they share from
 * GPU to GPU. */
#pragma once

#include "train/run.h"

/* Whether the host must know what became of the steps so far. */
bool settle_must(const Run *run);
/* Reads the verdicts since the last call, run->step's into *verdict. Skipped steps are told. CODE_NONFINITE under
 * train.nonfinite: stop: the run is then at the last good step, saved. */
Status settle(Run *run, Verdict *verdict);
