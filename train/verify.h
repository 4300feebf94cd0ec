/* verify: whether a model computes the same by each of its ways: a fixed prompt through the scan, token by token with the state
 * kept, and through the definition in float64. */
#pragma once

#include "train/open.h"

typedef struct Verify {
  int64_t n_tokens;
  double largest;                                       /* of the definition's logits, by absolute value */
  double scan_steps, scan_definition, steps_definition; /* largest differences of logits */
} Verify;

/* What open_load is to plan for (PlanShape.pass). */
void verify_pass(Model *model, Device *dry, Dtype act, const void *shape);
/* open: with its weights loaded on the CPU in float32, verify_pass planned for. */
Status verify_model(OpenModel *open, Verify *verify);
/* The differences over the largest logit that are still rounding. */
#define VERIFY_TOLERANCE 1e-3
