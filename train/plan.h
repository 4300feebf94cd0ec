/* plan: what a run will need, found by making the run's own steps on dry arenas (tensor/arena.h): parameters by part,
 * bytes by arena, FLOPs a token, and the micro-batch that `auto` means. Nothing is allocated or computed. */
#pragma once

#include "train/config/config.h"
#include "train/gradient.h"

/* A forward pass made on the dry device, to be planned for. */
typedef void PlanPass(Model *model, Device *device, Dtype act, const void *shape);

typedef struct PlanShape {
  int64_t train_length;              /* longest training sequence; 0: no training (eval, score, generate) */
  int64_t eval_length;               /* of an evaluation's sequences; 0: none */
  int64_t train_rows, eval_rows;     /* rows whose states are carried from batch to batch; 0: none */
  int64_t train_run, eval_run;       /* tokens that such a row goes on for at most: attention's room */
  int64_t train_pieces, eval_pieces; /* most pieces of a sequence of each; 0: sequences are one piece */
  int64_t
      eval_sequences; /* of one evaluation forward, eval_rows where there are; 0: as evaluate_n_seq has it for the micro-batch */
  bool eval_logits;       /* evaluation reads logits instead of nll */
  int64_t sample_length;  /* tokens of a sample; 0: none */
  int n_ranks, rank;      /* of a run of several; 0: one */
  int64_t prefix_length;  /* longest prefix that generation without a state computes anew; 0: none */
  PlanPass *pass;         /* one more forward pass, or NULL ... */
  const void *pass_shape; /* ... and what it is told */
} PlanShape;

typedef struct Plan {
  DeviceSizes sizes;      /* exact peaks of the three arenas */
  size_t graph_bytes;     /* what steps launched as graphs take at most beside them (replay_bytes) */
  size_t snapshot_bytes;  /* a checkpoint's copy on the device (snapshot.h), of rank 0; 0: none is wanted, or ... */
  size_t snapshot_lacks;  /* ... there is no room for one of so many bytes */
  GradientShape gradient; /* resolved */
  int64_t eval_sequences; /* resolved */
  double flops_per_token; /* one training step, forward and backward */
  int64_t n_params;
} Plan;

/* What training on this data asks for: its sequences, rows and pieces, evaluations and samples. Ranks are the caller's. */
PlanShape plan_training(const Config *config, const Dataset *dataset);
/* Peaks for a resolved gradient shape. vocab_size is in config->model already. Fails as device_open does. */
Status plan_measure(const Config *config, const PlanShape *shape, const GradientShape *gradient, Plan *plan);
/* Resolves virtual_ranks (length 512-token rule of the config reference) and micro_batch_size: the smallest divisor of a
 * part that makes 2048 tokens, or the largest below it whose plan fits into memory_bytes. So bits depend on a machine's
 * memory only where it is too small for that. CODE_MEMORY with the figures when not even 1 fits. A snapshot gets what is left. */
Status plan_make(const Config *config, const PlanShape *shape, size_t memory_bytes, Plan *plan);
/* Bytes this process may use on the device of a config: of a GPU what is free; of the host what the system calls available,
 * within the control group's and the process's limits. */
size_t plan_memory_available(const char *device);

static inline size_t plan_total_bytes(const Plan *plan) {
  return plan->sizes.weights_bytes + plan->sizes.step_bytes + plan->sizes.scratch_bytes + plan->graph_bytes +
         plan->snapshot_bytes;
}
