/* generate: choosing tokens from logits, and continuing a prompt.
 *
 * The random number of a draw is a pure function of (seed, sample, draw), so the same options give the same text
 * whatever was generated before. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "tensor/rng.h"

typedef struct Candidate {
  double logit;
  int token;
} Candidate;

/* Most likely first; equal logits by token, so that the order is a function of the logits alone. */
static int compare_candidates(const void *a, const void *b) {
  const Candidate *x = a, *y = b;
  if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
  return x->token < y->token ? -1 : x->token > y->token;
}

/* How many of the sorted candidates remain under top_k and top_p; turns their logits into unnormalised probabilities. */
static int keep_candidates(Candidate *candidates, int n, const SampleOptions *options, double *mass) {
  if (options->top_k > 0 && options->top_k < n) n = options->top_k;
  const double best = candidates[0].logit;
  double total = 0;
  for (int i = 0; i < n; i++) {
    candidates[i].logit = exp((candidates[i].logit - best) / options->temperature);
    total += candidates[i].logit;
  }
  *mass = 0;
  for (int i = 0; i < n; i++) {
    *mass += candidates[i].logit;
    if (*mass >= options->top_p * total) return i + 1;
  }
  return n;
}

int sample_token(const Tensor *logits, int64_t row, int vocab_size, const SampleOptions *options, uint64_t draw) {
  CHECK(vocab_size >= 1 && vocab_size <= tensor_last(logits), "vocabulary of %d in logits %s", vocab_size,
        tensor_shape_text(logits));
  const int64_t first = row * tensor_last(logits);
  int best = 0;
  double highest = -INFINITY;
  for (int i = 0; i < vocab_size; i++) {
    double logit = tensor_get(logits, first + i);
    if (!isfinite(logit)) return -1;
    if (logit > highest) highest = logit, best = i;
  }
  if (options->temperature <= 0) return best;

  Candidate *candidates = base_alloc((size_t)vocab_size * sizeof *candidates);
  for (int i = 0; i < vocab_size; i++) candidates[i] = (Candidate){tensor_get(logits, first + i), i};
  qsort(candidates, (size_t)vocab_size, sizeof *candidates, compare_candidates);
  double mass;
  const int n = keep_candidates(candidates, vocab_size, options, &mass);
  Rng rng = rng_make(options->seed, RNG_SAMPLE, (uint32_t)row, draw);
  double left = rng_uniform(&rng) * mass;
  int chosen = 0;
  while (chosen + 1 < n && left >= candidates[chosen].logit) left -= candidates[chosen++].logit;
  const int token = candidates[chosen].token;
  free(candidates);
  return token;
}

int generate_tokens(Model *model, Device *device, Dtype act, const int32_t *prompt, int n_prompt, int n_new,
                    const SampleOptions *options, bool (*on_token)(void *user, int32_t token), void *user) {
  CHECK(n_prompt >= 1, "generation continues a prompt of at least one token");
  int32_t *tokens = base_alloc((size_t)(n_prompt + n_new) * sizeof *tokens);
  memcpy(tokens, prompt, (size_t)n_prompt * sizeof *tokens);
  int made = 0;
  while (made < n_new) {
    const size_t mark = arena_mark(&device->step);
    Tape tape = tape_make(device, act, false);
    Tensor *prefix = tensor_new1(&device->step, I32, n_prompt + made);
    memcpy(prefix->data, tokens, tensor_bytes(prefix));
    Tensor *logits = lm_last_logits(model, &tape, prefix, NULL, NULL);
    const int token = sample_token(logits, 0, model->config.vocab_size, options, (uint64_t)made);
    tape_reset(&tape, mark);
    if (token < 0) {
      made = -1;
      break;
    }
    tokens[n_prompt + made++] = token;
    if (on_token && !on_token(user, token)) break;
  }
  free(tokens);
  return made;
}
