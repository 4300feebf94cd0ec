/* libaspis: see libaspis.h. A model is opened as the program opens it; a state is a decoder with arenas of its own, so that
 * states share nothing but weights that nobody writes. */
#include "train/libaspis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/format.h"
#include "train/open.h"
#include "train/state_file.h"

#define EXPORT __attribute__((visibility("default")))

struct AspisModel {
  OpenModel open;
  Tokenizer *tokenizer; /* NULL: none */
};

struct AspisState {
  AspisModel *model;
  Device device; /* its weights arena holds the state */
  Decoder decoder;
  int64_t room; /* INT64_MAX where the state does not grow */
};

/* Tokens read at once while a state's memory is planned: longer input goes in pieces of this. */
enum { PLANNED_TOKENS = 4096, MOST_SEQUENCES = 1 << 16 };

static _Thread_local char last_error[1024];

EXPORT const char *aspis_error(void) { return last_error; }
EXPORT const char *aspis_version(void) { return ASPIS_VERSION; }

/* The code of a status; its line is kept, the first of several. */
static int tell(Status status) {
  const int code = (int)status.code;
  if (code == 0) return 0;
  snprintf(last_error, sizeof last_error, "%s", status.line ? status.line : "");
  last_error[strcspn(last_error, "\n")] = 0;
  status_clear(&status);
  return code;
}

/* A foreign function interface makes NULL of whatever its caller forgot. */
static Status need(const void *argument, const char *name) {
  return argument ? STATUS_OK : status_fail(CODE_USAGE, "%s: found NULL", name);
}

static Status open_model(AspisModel *model, const char *path, const char *dtype) {
  TRY(need(path, "path"));
  if (dtype && strcmp(dtype, "f32") != 0 && strcmp(dtype, "bf16") != 0)
    return status_fail(CODE_USAGE, "dtype: found \"%s\", expected f32 or bf16", dtype);
  char *set = dtype ? base_format("dtype=%s", dtype) : NULL;
  const char *sets[] = {set};
  Status status = open_find(&model->open, path, NULL, sets, dtype ? 1 : 0);
  free(set);
  TRY(status);
  if (model->open.config.model.task != TASK_LM)
    return status_fail(CODE_CHECKPOINT, "%s: found a forecaster, expected a language model", path);
  TRY(open_load(&model->open, &(PlanShape){0}));
  return open_tokenizer(&model->open, &model->tokenizer);
}

EXPORT int aspis_open(const char *path, const char *dtype, AspisModel **model) {
  if (!model) return tell(need(model, "model"));
  *model = NULL;
  AspisModel *opened = base_zalloc(sizeof *opened);
  Status status = open_model(opened, path, dtype);
  if (status.code != CODE_OK) {
    aspis_close(opened);
    return tell(status);
  }
  *model = opened;
  return 0;
}

EXPORT void aspis_close(AspisModel *model) {
  if (!model) return;
  if (model->tokenizer) tokenizer_free(model->tokenizer);
  open_close(&model->open);
  free(model);
}

EXPORT int aspis_d_model(const AspisModel *model) { return model->open.config.model.d_model; }
EXPORT int aspis_n_layer(const AspisModel *model) { return model->open.config.model.n_layer; }
EXPORT int aspis_vocab_size(const AspisModel *model) { return model->open.config.model.vocab_size; }
EXPORT int aspis_n_logits(const AspisModel *model) { return model_padded_vocab(&model->open.config.model); }

/* A device with the memory that a dry run of `pass` takes beside the weights, which are the model's. */
static Status open_device(const AspisModel *model, PlanPass *pass, const void *shape, Device *device) {
  const Config *config = &model->open.config;
  Device dry;
  TRY(device_open_dry(&dry, config->device, F32));
  pass(model->open.model, &dry, config->dtype, shape);
  const DeviceSizes sizes = {dry.weights.peak_bytes, dry.step.peak_bytes, dry.scratch.peak_bytes};
  device_close(&dry);
  const size_t bytes = sizes.weights_bytes + sizes.step_bytes + sizes.scratch_bytes,
               available = plan_memory_available(config->device);
  if (bytes > available)
    return status_fail(CODE_MEMORY, "%s: needs %s, %s are available", model->open.path,
                       format_bytes((double)bytes).text, format_bytes((double)available).text);
  return device_open(device, config->device, F32, sizes);
}

typedef struct StateShape {
  int64_t n_seq, room;
} StateShape;

static void plan_state(Model *model, Device *dry, Dtype act, const void *shape) {
  const StateShape *s = shape;
  decoder_plan(model, dry, act, s->n_seq, PLANNED_TOKENS, s->room);
}

static Status open_state(AspisState *state, int n_seq, int64_t room) {
  TRY(need(state->model, "model"));
  Model *model = state->model->open.model;
  const bool grows = model_state_grows(model);
  if (n_seq < 1 || n_seq > MOST_SEQUENCES)
    return status_fail(CODE_USAGE, "n_seq: found %d, expected 1 to %d", n_seq, MOST_SEQUENCES);
  if (grows && (room < 1 || room > INT32_MAX))
    return status_fail(CODE_USAGE, "room: found %lld, expected the tokens that attention is to hold", (long long)room);
  state->room = grows ? room : INT64_MAX;
  const StateShape shape = {n_seq, grows ? room : 0};
  TRY(open_device(state->model, plan_state, &shape, &state->device));
  state->decoder = decoder_open(model, &state->device, state->model->open.config.dtype, n_seq, shape.room);
  if (state->model->open.config.train.graph == GRAPH_AUTO) decoder_use_graphs(&state->decoder);
  return STATUS_OK;
}

EXPORT int aspis_state_new(AspisModel *model, int n_seq, int64_t room, AspisState **state) {
  if (!state) return tell(need(state, "state"));
  *state = NULL;
  AspisState *opened = base_zalloc(sizeof *opened);
  opened->model = model;
  Status status = open_state(opened, n_seq, room);
  if (status.code != CODE_OK) {
    free(opened);
    return tell(status);
  }
  *state = opened;
  return 0;
}

EXPORT void aspis_state_free(AspisState *state) {
  if (!state) return;
  decoder_close(&state->decoder);
  device_close(&state->device);
  free(state);
}

static int64_t n_read(const AspisState *state, int64_t s) {
  return model_state_length((Device *)(uintptr_t)&state->device, &state->decoder.state, s);
}

static Status check_sequence(const AspisState *state, int s) {
  TRY(need(state, "state"));
  if (s >= 0 && s < state->decoder.state.n_seq) return STATUS_OK;
  return status_fail(CODE_USAGE, "sequence %d: expected 0 to %lld", s, (long long)state->decoder.state.n_seq - 1);
}

static Status check_room(const AspisState *state, int64_t s, int64_t n) {
  if (n < 1) return status_fail(CODE_USAGE, "found %lld tokens, expected at least 1", (long long)n);
  if (n <= state->room - n_read(state, s)) return STATUS_OK;
  return status_fail(CODE_USAGE, "sequence %lld: %lld tokens after %lld, its room is %lld", (long long)s, (long long)n,
                     (long long)n_read(state, s), (long long)state->room);
}

static Status check_tokens(const AspisModel *model, const int32_t *tokens, int64_t n) {
  TRY(need(tokens, "tokens"));
  for (int64_t i = 0; i < n; i++)
    if (tokens[i] < 0 || tokens[i] >= aspis_vocab_size(model))
      return status_fail(CODE_DATA, "token %lld: found %d, expected 0 to %d", (long long)i, tokens[i],
                         aspis_vocab_size(model) - 1);
  return STATUS_OK;
}

static Status read_tokens(AspisState *state, int s, const int32_t *tokens, int64_t n, float *logits) {
  TRY(check_sequence(state, s));
  TRY(check_room(state, s, n));
  TRY(check_tokens(state->model, tokens, n));
  decoder_read(&state->decoder, s, tokens, n, logits);
  return STATUS_OK;
}

EXPORT int aspis_read(AspisState *state, int s, const int32_t *tokens, int64_t n, float *logits) {
  return tell(read_tokens(state, s, tokens, n, logits));
}

static Status read_vectors(AspisState *state, int s, const float *vectors, int64_t n, float *logits) {
  TRY(check_sequence(state, s));
  TRY(check_room(state, s, n));
  TRY(need(vectors, "vectors"));
  decoder_read_embedded(&state->decoder, s, vectors, n, logits);
  return STATUS_OK;
}

EXPORT int aspis_read_embedded(AspisState *state, int s, const float *vectors, int64_t n, float *logits) {
  return tell(read_vectors(state, s, vectors, n, logits));
}

static Status step(AspisState *state, const int32_t *tokens, float *logits) {
  TRY(need(state, "state"));
  const int64_t n_seq = state->decoder.state.n_seq;
  for (int64_t s = 0; s < n_seq; s++) TRY(check_room(state, s, 1));
  TRY(check_tokens(state->model, tokens, n_seq));
  decoder_step(&state->decoder, tokens, logits);
  return STATUS_OK;
}

EXPORT int aspis_step(AspisState *state, const int32_t *tokens, float *logits) {
  return tell(step(state, tokens, logits));
}

static Status copy_sequence(AspisState *to, int s, const AspisState *from, int of) {
  TRY(check_sequence(to, s));
  if (from) TRY(check_sequence(from, of));
  if (from && from->model != to->model) return status_fail(CODE_USAGE, "found states of two models, expected of one");
  if (from && n_read(from, of) > to->room)
    return status_fail(CODE_USAGE, "sequence %d: %lld tokens, the other state's room is %lld", of,
                       (long long)n_read(from, of), (long long)to->room);
  model_state_put(to->model->open.model, &to->device, &to->decoder.state, s, from ? &from->decoder.state : NULL, of);
  return STATUS_OK;
}

EXPORT int aspis_state_copy(AspisState *to, int s, const AspisState *from, int of) {
  return tell(copy_sequence(to, s, from, of));
}

static Status save_state(const AspisState *state, const char *path) {
  TRY(need(state, "state"));
  TRY(need(path, "path"));
  return state_file_save(path, state->model->open.model, (Device *)(uintptr_t)&state->device, &state->decoder.state);
}

EXPORT int aspis_state_save(const AspisState *state, const char *path) { return tell(save_state(state, path)); }

static Status load_state(AspisState *state, const char *path) {
  TRY(need(state, "state"));
  TRY(need(path, "path"));
  const Model *model = state->model->open.model;
  const int64_t n_seq = state->decoder.state.n_seq;
  StateBatch batch;
  TRY(state_file_read(path, model, n_seq, &batch));
  Status status = STATUS_OK;
  if (state_batch_longest(&batch) > state->room)
    status = status_fail(CODE_USAGE, "%s: %lld tokens, the state's room is %lld", path,
                         (long long)state_batch_longest(&batch), (long long)state->room);
  for (int64_t s = 0; s < n_seq && status.code == CODE_OK; s++)
    model_state_put(model, &state->device, &state->decoder.state, s, &batch.state, s);
  state_batch_free(&batch);
  return status;
}

EXPORT int aspis_state_load(AspisState *state, const char *path) { return tell(load_state(state, path)); }

/* ---- hidden states */

static Tensor *hidden_forward(Model *model, Device *device, Dtype act, const int32_t *tokens, int64_t n,
                              Tensor **hidden) {
  Tape tape = tape_make(device, act, false);
  Tensor *token = tensor_new1(&device->step, I32, n);
  const Tensor from = tensor_over((void *)(uintptr_t)tokens, I32, 1, &n);
  if (!device->dry) device_fill(device, token, &from);
  Tensor *h = op_embedding(&tape, model->embedding, token);
  return backbone_forward(model, &tape, h, model_equal_seqlens(&tape, 1, n), NULL, NULL, hidden);
}

static void plan_hidden(Model *model, Device *dry, Dtype act, const void *shape) {
  Tensor **hidden = base_alloc((size_t)model->config.n_layer * sizeof *hidden);
  hidden_forward(model, dry, act, NULL, *(const int64_t *)shape, hidden);
  free(hidden);
}

static Status read_hidden(AspisModel *model, const int32_t *tokens, int64_t n, float *out) {
  TRY(need(model, "model"));
  TRY(need(out, "hidden"));
  if (n < 1 || n > INT32_MAX) return status_fail(CODE_USAGE, "found %lld tokens, expected at least 1", (long long)n);
  TRY(check_tokens(model, tokens, n));
  Device device;
  TRY(open_device(model, plan_hidden, &n, &device));
  const int64_t n_layer = aspis_n_layer(model), width = aspis_d_model(model);
  Tensor **hidden = base_alloc((size_t)n_layer * sizeof *hidden);
  hidden_forward(model->open.model, &device, model->open.config.dtype, tokens, n, hidden);
  for (int64_t i = 0; i < n_layer; i++)
    memcpy(out + i * n * width, device_pull(&device, hidden[i]).data, (size_t)(n * width) * sizeof *out);
  free(hidden);
  device_close(&device);
  return STATUS_OK;
}

EXPORT int aspis_hidden(AspisModel *model, const int32_t *tokens, int64_t n, float *hidden) {
  return tell(read_hidden(model, tokens, n, hidden));
}

/* ---- text */

static Status need_tokenizer(const AspisModel *model) {
  TRY(need(model, "model"));
  if (model->tokenizer) return STATUS_OK;
  return status_fail(CODE_USAGE, "%s: has no tokenizer", model->open.path);
}

static Status need_text(const char *text, int32_t **tokens, const int64_t *n) {
  TRY(need(text, "text"));
  TRY(need(tokens, "tokens"));
  return need(n, "n");
}

static Status encode(const AspisModel *model, const char *text, size_t bytes, int32_t **tokens, int64_t *n) {
  TRY(need_tokenizer(model));
  TRY(need_text(text, tokens, n));
  return tokenizer_encode(model->tokenizer, "text", text, bytes, tokens, n);
}

EXPORT int aspis_encode(const AspisModel *model, const char *text, size_t bytes, int32_t **tokens, int64_t *n) {
  return tell(encode(model, text, bytes, tokens, n));
}

static Status encode_prompt(const AspisModel *model, const char *text, size_t bytes, int32_t **tokens, int64_t *n) {
  int n_before;
  TRY(need_tokenizer(model));
  TRY(need_text(text, tokens, n));
  if (!model->open.config.data.special_tokens)
    return tokenizer_encode(model->tokenizer, "text", text, bytes, tokens, n);
  return tokenizer_encode_prompt(model->tokenizer, "text", text, bytes, tokens, n, &n_before);
}

EXPORT int aspis_encode_prompt(const AspisModel *model, const char *text, size_t bytes, int32_t **tokens, int64_t *n) {
  return tell(encode_prompt(model, text, bytes, tokens, n));
}

static Status decode(const AspisModel *model, const int32_t *tokens, int64_t n, char **text, size_t *bytes) {
  TRY(need_tokenizer(model));
  TRY(need(tokens, "tokens"));
  TRY(need(text, "text"));
  TRY(need(bytes, "bytes"));
  if (n < 0) return status_fail(CODE_USAGE, "found %lld tokens, expected 0 or more", (long long)n);
  return tokenizer_decode(model->tokenizer, tokens, n, text, bytes);
}

EXPORT int aspis_decode(const AspisModel *model, const int32_t *tokens, int64_t n, char **text, size_t *bytes) {
  return tell(decode(model, tokens, n, text, bytes));
}

EXPORT void aspis_free(void *memory) { free(memory); }
