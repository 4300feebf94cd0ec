/* decode: sequences that are continued token by token with the state kept: a prompt is scanned in pieces, every further token is
 * one step. */
#include <string.h>

#include "models/aspis.h"

/* Tokens of a prompt scanned at once: enough for the products' full rate. */
enum { PIECE = 1024 };

Decoder decoder_open(Model *model, Device *device, Dtype act, int64_t n_seq, int64_t room) {
  return (Decoder){.model = model,
                   .device = device,
                   .act = act,
                   .state = model_start_state(model, device, &device->weights, device->backend->real, n_seq, room)};
}

void decoder_plan(Model *model, Device *dry, Dtype act, int64_t n_seq, int64_t n_prompt, int64_t room) {
  const size_t mark = arena_mark(&dry->weights);
  Decoder decoder = decoder_open(model, dry, act, n_seq, room);
  decoder_read(&decoder, 0, NULL, n_prompt, NULL);
  decoder_step(&decoder, NULL, NULL);
  arena_rewind(&dry->weights, mark);
}

static void keep_logits(Device *device, const Tensor *from, float *logits) {
  if (!logits || device->dry) return;
  const Tensor host = device_pull(device, from);
  Tensor to = tensor_over(logits, F32, 2, host.dim);
  tensor_copy(&to, &host);
}

/* What is read: tokens, or vectors in their place. */
typedef struct Input {
  const int32_t *token;
  const float *embedded;
} Input;

static Tensor *embedded_of(Tape *tape, const Model *model, const float *embedded, int64_t n) {
  Tensor *h = tape_tensor(tape, tape_real(tape), n, model->config.d_model);
  const Tensor from = tensor_over((void *)(uintptr_t)embedded, F32, 2, h->dim);
  if (!tape->device->dry) device_fill(tape->device, h, &from);
  return h;
}

/* One piece of sequence s. Attention's rows are written where they stay; the rest is copied there. */
static void read_piece(Decoder *d, int64_t s, Input input, int64_t n, bool goes_on, float *logits) {
  Device *device = d->device;
  const size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, d->act, false);
  const ModelState in = model_state_row(d->model, &device->step, &d->state, s);
  ModelState out = model_state_out(d->model, &tape, 1, 0);
  for (int i = 0; i < d->model->config.n_layer; i++)
    out.layers[i].key = in.layers[i].key, out.layers[i].value = in.layers[i].value;
  Tensor *found = input.embedded
                      ? lm_last_logits_of(d->model, &tape, embedded_of(&tape, d->model, input.embedded, n),
                                          goes_on ? &in : NULL, &out)
                      : lm_last_logits(d->model, &tape, model_ints(device, input.token, n), goes_on ? &in : NULL, &out);
  keep_logits(device, found, logits);
  if (!device->dry) model_state_put(d->model, device, &d->state, s, &out, 0);
  tape_reset(&tape, mark);
}

/* What has been read already is in the state, which is as at the start before; attention then has no rows to look back at. */
static bool begins(const Decoder *d, int64_t s) {
  return d->state.length && model_state_length(d->device, &d->state, s) == 0;
}

static void read_input(Decoder *d, int64_t s, Input input, int64_t n, float *logits) {
  CHECK(n >= 1 && s >= 0 && s < d->state.n_seq, "%lld tokens for sequence %lld of %lld", (long long)n, (long long)s,
        (long long)d->state.n_seq);
  if (d->device->dry) { /* the largest piece, at the start where that is another call, and later */
    if (d->state.length) read_piece(d, s, input, min_i64(n, PIECE), false, NULL);
    read_piece(d, s, input, min_i64(n, PIECE), true, NULL);
    return;
  }
  for (int64_t at = 0; at < n; at += PIECE) {
    const Input piece = {input.token ? input.token + at : NULL,
                         input.embedded ? input.embedded + at * d->model->config.d_model : NULL};
    read_piece(d, s, piece, min_i64(PIECE, n - at), !begins(d, s), at + PIECE < n ? NULL : logits);
  }
}

void decoder_read(Decoder *d, int64_t s, const int32_t *token, int64_t n, float *logits) {
  read_input(d, s, (Input){.token = token}, n, logits);
}

void decoder_read_embedded(Decoder *d, int64_t s, const float *embedded, int64_t n, float *logits) {
  read_input(d, s, (Input){.embedded = embedded}, n, logits);
}

void decoder_use_graphs(Decoder *d) { d->replay = replay_open(d->device, true, NULL); }

void decoder_close(Decoder *d) {
  replay_close(d->replay);
  d->replay = NULL;
}

typedef struct Step {
  Decoder *decoder;
  const int32_t *token;
  Tensor *logits; /* made by it */
} Step;

/* All of a step but the count of the tokens, which the host does. */
static void do_step(void *user) {
  Step *step = user;
  Decoder *d = step->decoder;
  Tape tape = tape_make(d->device, d->act, false);
  ModelState state = d->state;
  state.length = NULL;
  step->logits = lm_step(d->model, &tape, model_ints(d->device, step->token, d->state.n_seq), &state);
}

void decoder_step(Decoder *d, const int32_t *token, float *logits) {
  const size_t mark = arena_mark(&d->device->step);
  Step step = {d, token, NULL};
  if (d->replay) replay_run(d->replay, do_step, &step);
  else do_step(&step);
  for (int64_t s = 0; s < d->state.n_seq; s++) model_state_count(d->device, &d->state, s, 1);
  keep_logits(d->device, step.logits, logits);
  arena_rewind(&d->device->step, mark);
}
