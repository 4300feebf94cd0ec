/* optim: the update. AdamW (or SGD) over the parameter table, learning-rate schedules, clipping by the global norm. */
#pragma once

#include "nn/params.h"

typedef enum OptimKind { OPTIM_ADAMW, OPTIM_SGD } OptimKind;
typedef enum ScheduleKind { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_WSD } ScheduleKind;

typedef struct OptimConfig {
  OptimKind kind;
  double lr, beta1, beta2, eps, weight_decay, clip; /* clip 0: off */
  ScheduleKind schedule;
  int64_t warmup_steps, decay_steps; /* decay_steps: WSD only */
  double min_lr_ratio;
} OptimConfig;

/* Learning rate of step `step` (1-based) of `steps`: linear warm-up to lr, then to lr * min_lr_ratio at the last step by
 * the schedule (WSD: constant until the last decay_steps, then linear). */
double schedule_lr(const OptimConfig *config, int64_t step, int64_t steps);

/* Global norm of all gradients of a table that is not split, in double, one pass over their block. *bad is NULL, or the first
 * parameter whose gradient is not finite. */
double optim_grad_norm(ParamTable *params, Device *device, const Param **bad);
/* min(1, clip / (norm + 1e-6)); 1 when clip is 0. (spec 2.4) */
double optim_clip_scale(double norm, double clip);
/* One update of every parameter, in the table's own ranges; step counts from 1; gradients are taken times grad_scale. */
void optim_update(ParamTable *params, Device *device, const OptimConfig *config, double lr, double grad_scale,
                  int64_t step);
/* The same as the verdict says that the device has (optim_judge): not at all, or with its scale; by the numbers that the
 * device has (params_tell_numbers, optim_numbers). */
void optim_update_judged(ParamTable *params, Device *device, const OptimConfig *config);
/* What a step of this number is to go by, but for its batch. */
StepNumbers optim_numbers(const OptimConfig *config, double lr, int64_t step);

/* What a step is judged by beside its gradients and losses, which are in the table. */
typedef struct StepEvidence {
  int n_losses; /* parts with a loss */
  double clip;
  bool follows; /* held where the step before was: after a step that ends the run nothing changes */
} StepEvidence;

/* Leaves in params->found what the own ranges' gradients have to say, and, once that of all owners is there, judges the step
 * by it and by the numbers that the device has. Nobody waits. */
void optim_measure(ParamTable *params, Device *device);
void optim_judge(ParamTable *params, Device *device, const StepEvidence *evidence);
