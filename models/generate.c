/* generate: continuing prompts token by token. */
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"

/* What the continued sequences are made of. */
typedef struct Progress {
  const Generate *g;
  int64_t n_seq, n_made;
  int32_t **tokens; /* of each: the prompt and what was made */
  int64_t *n;
  bool *ended;
} Progress;

static Progress progress_new(const Generate *g, int64_t n_seq) {
  Progress p = {.g = g,
                .n_seq = n_seq,
                .tokens = base_alloc((size_t)n_seq * sizeof *p.tokens),
                .n = base_alloc((size_t)n_seq * sizeof *p.n),
                .ended = base_zalloc((size_t)n_seq * sizeof *p.ended)};
  for (int64_t s = 0; s < n_seq; s++) {
    CHECK(g->n_prompt[s] >= 1, "generation continues a prompt of at least one token");
    p.n[s] = g->n_prompt[s];
    p.tokens[s] = base_alloc((size_t)(p.n[s] + g->n_new) * sizeof **p.tokens);
    memcpy(p.tokens[s], g->prompt[s], (size_t)p.n[s] * sizeof **p.tokens);
  }
  return p;
}

static void progress_free(Progress *p) {
  for (int64_t s = 0; s < p->n_seq; s++) free(p->tokens[s]);
  free(p->tokens), free(p->n), free(p->ended);
}

/* The next token of every sequence from its row of logits. False: they are not finite. */
static bool choose(Progress *p, Tensor *logits, int vocab_size, int64_t draw) {
  const SampleOptions *sample = &p->g->sample;
  for (int64_t s = 0; s < p->n_seq; s++) {
    if (p->ended[s]) continue;
    if (sample->repetition_penalty > 0 && sample->repetition_penalty != 1)
      sample_penalize(logits, s, sample->repetition_penalty, p->tokens[s], p->n[s]);
    const int token = sample_token(logits, s, vocab_size, sample, (uint64_t)draw);
    if (token < 0) return false;
    p->tokens[s][p->n[s]++] = token;
    p->n_made++;
    p->ended[s] = p->g->on_token && !p->g->on_token(p->g->user, s, token);
  }
  return true;
}

static bool all_ended(const Progress *p) {
  for (int64_t s = 0; s < p->n_seq; s++)
    if (!p->ended[s]) return false;
  return true;
}

/* A sequence before s with the same prompt and, as at the start, the same state; -1: none. */
static int64_t same_prompt(const Generate *g, int64_t s) {
  for (int64_t i = 0; i < s; i++)
    if (g->n_prompt[i] == g->n_prompt[s] &&
        memcmp(g->prompt[i], g->prompt[s], (size_t)g->n_prompt[s] * sizeof **g->prompt) == 0)
      return i;
  return -1;
}

static void read_prompts(Decoder *d, const Generate *g, float *logits, int64_t width) {
  for (int64_t s = 0; s < d->state.n_seq; s++) {
    const int64_t same = same_prompt(g, s);
    if (same < 0) {
      decoder_read(d, s, g->prompt[s], g->n_prompt[s], logits + s * width);
      continue;
    }
    model_state_put(d->model, d->device, &d->state, s, &d->state, same);
    memcpy(logits + s * width, logits + same * width, (size_t)width * sizeof *logits);
  }
}

int64_t generate_tokens(Decoder *d, const Generate *g) {
  const int64_t n_seq = d->state.n_seq, width = model_padded_vocab(&d->model->config);
  const int vocab_size = d->model->config.vocab_size;
  float *row = base_alloc((size_t)(n_seq * width) * sizeof *row);
  int32_t *last = base_zalloc((size_t)n_seq * sizeof *last);
  Tensor logits = tensor_over(row, F32, 2, (const int64_t[]){n_seq, width});
  Progress p = progress_new(g, n_seq);
  read_prompts(d, g, row, width);
  for (int64_t i = 0; i < g->n_new; i++) {
    if (i > 0) {
      for (int64_t s = 0; s < n_seq; s++) last[s] = p.tokens[s][p.n[s] - 1];
      decoder_step(d, last, row);
    }
    if (!choose(&p, &logits, vocab_size, i)) {
      p.n_made = -1;
      break;
    }
    if (all_ended(&p)) break;
  }
  const int64_t n_made = p.n_made;
  progress_free(&p);
  free(last), free(row);
  return n_made;
}

int64_t generate_uncached(Model *model, Device *device, Dtype act, const Generate *g) {
  Progress p = progress_new(g, 1);
  for (int64_t i = 0; i < g->n_new && !p.ended[0]; i++) {
    const size_t mark = arena_mark(&device->step);
    Tape tape = tape_make(device, act, false);
    Tensor *prefix = tensor_new1(&device->step, I32, p.n[0]);
    const Tensor tokens = tensor_over(p.tokens[0], I32, 1, &p.n[0]);
    device_fill(device, prefix, &tokens);
    Tensor logits = device_pull(device, lm_last_logits(model, &tape, prefix, NULL, NULL));
    const bool finite = choose(&p, &logits, model->config.vocab_size, i);
    tape_reset(&tape, mark);
    if (!finite) {
      p.n_made = -1;
      break;
    }
  }
  const int64_t n_made = p.n_made;
  progress_free(&p);
  return n_made;
}
