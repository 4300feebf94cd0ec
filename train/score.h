/* score: the logits of given tokens and their negative log-likelihoods, from files to files. One sequence at a time:
 * memory does not grow with the batch.
 *
 *   in   tokens (B, T) integers;  optionally the states the sequences start from (train/state_file.h)
 *   out  logits (B, T, V padded) float32 and nll (B, T-1) float32, nll[:, t] that of token t+1;  optionally the states the
 *        sequences end in, and hidden/<i> (B, T, D) float32: the residual stream after layer i */
#pragma once

#include "train/open.h"

typedef struct ScoreFiles {
  const char *tokens, *out;
  const char *state_in, *state_out; /* NULL: zero, not wanted */
  bool hidden;                      /* the residual stream after every layer, too */
} ScoreFiles;

typedef struct ScoreSummary {
  int64_t n_seq, length;
  double nll; /* mean over all tokens but the first ones; NaN for sequences of one token */
} ScoreSummary;

/* Loads the weights into `open`, scores, writes. Nothing is written unless everything went well. CODE_DATA for the files,
 * CODE_NONFINITE for a likelihood that is not finite. */
Status score_files(OpenModel *open, const ScoreFiles *files, ScoreSummary *summary);

/* The forward pass of one sequence as score_files makes it, for the plan. */
typedef struct ScorePass {
  int64_t length, past; /* past: tokens of the state it starts from, of models with attention */
  bool state_in, state_out;
} ScorePass;
PlanPass score_pass; /* its shape is a ScorePass */
