/* sampling: choosing a token from logits.
 *
 * The random number of a draw is a pure function of (seed, sequence, draw), so the same options give the same text whatever
 * was generated before. Candidates are taken from a heap, likeliest first: of a vocabulary of 50,000 a draw needs few. */
#include <math.h>
#include <stdlib.h>

#include "models/aspis.h"
#include "tensor/rng.h"

typedef struct Candidate {
  double logit;
  int token;
} Candidate;

/* Most likely first; equal logits by token, so that the order is a function of the logits alone. */
static bool comes_first(const Candidate *a, const Candidate *b) {
  return a->logit != b->logit ? a->logit > b->logit : a->token < b->token;
}

static void sift_down(Candidate *heap, int n, int at) {
  for (int child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && comes_first(&heap[child + 1], &heap[child])) child++;
    if (!comes_first(&heap[child], &heap[at])) return;
    const Candidate swap = heap[at];
    heap[at] = heap[child], heap[child] = swap;
  }
}

static Candidate pop(Candidate *heap, int *n) {
  const Candidate first = heap[0];
  heap[0] = heap[--*n];
  sift_down(heap, *n, 0);
  return first;
}

/* The token at which what is drawn of the mass is used up. `heap` has all candidates, the likeliest logit is `best`. */
static int draw_token(Candidate *heap, int n, double best, const SampleOptions *options, double u) {
  const int n_kept = options->top_k > 0 && options->top_k < n ? options->top_k : n;
  double total = 0, mass = 0;
  Candidate *kept = base_alloc((size_t)n_kept * sizeof *kept);
  int n_taken = 0, n_heap = n;
  if (n_kept < n)
    for (; n_taken < n_kept; n_taken++) kept[n_taken] = pop(heap, &n_heap);
  const Candidate *counted = n_kept < n ? kept : heap;
  for (int i = 0; i < n_kept; i++) total += exp((counted[i].logit - best) / options->temperature);
  /* top_p ends the list at the candidate that fills it; what is drawn is a share of the list's own mass. */
  int n_list = 0;
  double *weight = base_alloc((size_t)n_kept * sizeof *weight);
  const bool whole = options->top_p >= 1;
  double target = whole ? u * total : options->top_p * total;
  while (n_list < n_kept) {
    if (n_list == n_taken) kept[n_taken++] = pop(heap, &n_heap);
    weight[n_list] = exp((kept[n_list].logit - best) / options->temperature);
    mass += weight[n_list++];
    if (whole ? mass > target : mass >= target) break;
  }
  int chosen = n_list - 1;
  if (!whole) {
    double left = u * mass;
    chosen = 0;
    while (chosen + 1 < n_list && left >= weight[chosen]) left -= weight[chosen++];
  }
  const int token = kept[chosen].token;
  free(weight), free(kept);
  return token;
}

/* Logits [first, first + n). */
static void read_logits(const Tensor *logits, int64_t first, int n, double *to) {
  if (logits->dtype == F32)
    for (int i = 0; i < n; i++) to[i] = ((const float *)logits->data)[first + i];
  else
    for (int i = 0; i < n; i++) to[i] = tensor_get(logits, first + i);
}

/* The likeliest of n tokens from `first` on, the first of equals; -1 where a logit is not finite. */
static int likeliest_token(const Tensor *logits, int64_t first, int n) {
  enum { RUN = 256 };
  double run[RUN], highest = -INFINITY;
  int best = 0;
  for (int at = 0; at < n; at += RUN) {
    const int n_run = at + RUN < n ? RUN : n - at;
    double most = -INFINITY, none = 0;
    read_logits(logits, first + at, n_run, run);
#pragma omp simd reduction(max : most) reduction(+ : none)
    for (int i = 0; i < n_run; i++) {
      most = run[i] > most ? run[i] : most;
      none += run[i] * 0; /* no number for what is not finite */
    }
    if (none != 0) return -1;
    if (most > highest)
      for (best = at, highest = most; run[best - at] < most;) best++;
  }
  return best;
}

int sample_token(const Tensor *logits, int64_t row, int vocab_size, const SampleOptions *options, uint64_t draw) {
  CHECK(vocab_size >= 1 && vocab_size <= tensor_last(logits), "vocabulary of %d in logits %s", vocab_size,
        tensor_shape_text(logits));
  const int64_t first = row * tensor_last(logits);
  const int best = likeliest_token(logits, first, vocab_size);
  if (best < 0 || options->temperature <= 0) return best;

  Candidate *heap = base_alloc((size_t)vocab_size * sizeof *heap);
  for (int i = 0; i < vocab_size; i++) heap[i] = (Candidate){tensor_get(logits, first + i), i};
  const double highest = tensor_get(logits, first + best);
  for (int i = vocab_size / 2 - 1; i >= 0; i--) sift_down(heap, vocab_size, i);
  Rng rng = rng_make(options->seed, RNG_SAMPLE, (uint32_t)row, draw);
  const int token = draw_token(heap, vocab_size, highest, options, rng_uniform(&rng));
  free(heap);
  return token;
}

void sample_penalize(Tensor *logits, int64_t row, double penalty, const int32_t *before, int64_t n) {
  const int64_t width = tensor_last(logits);
  bool *seen = base_zalloc((size_t)width);
  for (int64_t i = 0; i < n; i++) {
    CHECK(before[i] >= 0 && before[i] < width, "token %d of %lld", before[i], (long long)width);
    if (seen[before[i]]) continue;
    seen[before[i]] = true;
    const double logit = tensor_get(logits, row * width + before[i]);
    tensor_set(logits, row * width + before[i], logit > 0 ? logit / penalty : logit * penalty);
  }
  free(seen);
}
