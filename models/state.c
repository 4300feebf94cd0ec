/* state: see state.h. */
#include "models/state.h"

#include <string.h>

#include "models/aspis.h"

static const struct {
  const char *name;
  size_t offset;
  bool grows;
} FIELDS[STATE_N_FIELDS] = {{"conv", offsetof(LayerState, conv), false},   {"ssm", offsetof(LayerState, ssm), false},
                            {"angle", offsetof(LayerState, angle), false}, {"k", offsetof(LayerState, k), false},
                            {"v", offsetof(LayerState, v), false},         {"key", offsetof(LayerState, key), true},
                            {"value", offsetof(LayerState, value), true}};

const char *state_field_name(int field) { return FIELDS[field].name; }
bool state_field_grows(int field) { return FIELDS[field].grows; }
Tensor **state_field(LayerState *state, int field) { return (Tensor **)(void *)((char *)state + FIELDS[field].offset); }

bool model_state_grows(const Model *model) {
  for (int i = 0; i < model->config.n_layer; i++)
    if (model->blocks[i].mixer.kind == LAYER_ATTENTION) return true;
  return false;
}

/* n_layer empty states, and the count of tokens where there is one. */
static ModelState state_new(const Model *model, Arena *arena, int64_t n_seq, int64_t room) {
  const size_t bytes = (size_t)model->config.n_layer * sizeof(LayerState);
  const bool grows = model_state_grows(model);
  ModelState state = {.n_seq = n_seq, .room = grows ? room : 0, .layers = arena_header(arena, bytes)};
  memset(state.layers, 0, bytes);
  if (grows) state.length = tensor_new1(arena, I32, n_seq);
  return state;
}

ModelState model_zero_state(const Model *model, Device *device, Arena *arena, Dtype real, int64_t n_seq, int64_t room) {
  ModelState state = state_new(model, arena, n_seq, room);
  if (state.length && device) device_zero(device, state.length);
  else if (state.length && arena->memory) tensor_zero(state.length);
  for (int i = 0; i < model->config.n_layer; i++)
    state.layers[i] = mixer_zero_state(&model->blocks[i].mixer, device, arena, real, n_seq, room, state.length);
  return state;
}

ModelState model_state_out(const Model *model, Tape *tape, int64_t n_seq, int64_t room) {
  Arena *arena = &tape->device->step;
  ModelState state = state_new(model, arena, n_seq, room);
  for (int i = 0; i < model->config.n_layer; i++) {
    const Mixer *m = &model->blocks[i].mixer;
    if (m->kind != LAYER_ATTENTION) continue;
    const int64_t n_kv = (int64_t)m->attention.config.num_heads_kv * m->attention.config.head_dim;
    state.layers[i].length = state.length;
    if (room == 0) continue;
    state.layers[i].key = tensor_new3(arena, tape_real(tape), n_seq, room, n_kv);
    state.layers[i].value = tensor_new3(arena, tape_real(tape), n_seq, room, n_kv);
  }
  return state;
}

static Tensor *rows_of(Arena *arena, Tensor *field, int64_t s, int64_t n) {
  if (!field) return NULL;
  CHECK(s >= 0 && n >= 1 && s + n <= field->dim[0], "sequences %lld + %lld of %s", (long long)s, (long long)n,
        tensor_shape_text(field));
  Tensor *rows = arena_header(arena, sizeof *rows);
  const size_t bytes = tensor_bytes(field) / (size_t)field->dim[0];
  int64_t dim[TENSOR_MAX_DIM];
  memcpy(dim, field->dim, sizeof dim);
  dim[0] = n;
  *rows = tensor_over((char *)field->data + (size_t)s * bytes, field->dtype, field->n_dim, dim);
  return rows;
}

ModelState model_state_rows(const Model *model, Arena *arena, const ModelState *state, int64_t s, int64_t n) {
  const size_t bytes = (size_t)model->config.n_layer * sizeof(LayerState);
  ModelState rows = {.n_seq = n, .room = state->room, .layers = arena_header(arena, bytes)};
  memset(rows.layers, 0, bytes);
  rows.length = rows_of(arena, state->length, s, n);
  for (int i = 0; i < model->config.n_layer; i++) {
    for (int f = 0; f < STATE_N_FIELDS; f++)
      *state_field(&rows.layers[i], f) = rows_of(arena, *state_field(&state->layers[i], f), s, n);
    if (state->layers[i].length) rows.layers[i].length = rows.length;
  }
  return rows;
}

ModelState model_state_row(const Model *model, Arena *arena, const ModelState *state, int64_t s) {
  return model_state_rows(model, arena, state, s, 1);
}

/* Whether a tensor is in memory that the host must not touch. */
static bool is_away(const Device *device, const Tensor *t) {
  return device && device->backend->memory &&
         (arena_owns(&device->weights, t->data) || arena_owns(&device->step, t->data));
}

/* The host's view of a tensor with its values, and the way back. */
static Tensor host_of(Device *device, const Tensor *t) { return is_away(device, t) ? device_pull(device, t) : *t; }
static void give_back(Device *device, const Tensor *t) {
  if (is_away(device, t)) device_push(device, t);
}

/* Where sequence s of a field begins, and how many bytes it has. */
static char *sequence_of(const Tensor *field, int64_t s, size_t *bytes) {
  CHECK(s >= 0 && s < field->dim[0], "sequence %lld of %s", (long long)s, tensor_shape_text(field));
  *bytes = tensor_bytes(field) / (size_t)field->dim[0];
  return (char *)field->data + (size_t)s * *bytes;
}

static void put_field(Tensor *to, int64_t s, const Tensor *from, int64_t of, int64_t n_rows) {
  size_t bytes, from_bytes = 0;
  char *target = sequence_of(to, s, &bytes);
  const char *source = from ? sequence_of(from, of, &from_bytes) : NULL;
  if (n_rows >= 0) { /* a row for each token: only those that are there */
    CHECK(n_rows <= to->dim[1] && (!from || n_rows <= from->dim[1]), "%lld tokens in a room of %lld", (long long)n_rows,
          (long long)to->dim[1]);
    bytes = from_bytes = (size_t)n_rows * (size_t)to->dim[2] * dtype_bytes(to->dtype);
  }
  CHECK(!from || (to->dtype == from->dtype && bytes == from_bytes), "states %s and %s of different models",
        tensor_shape_text(to), tensor_shape_text(from));
  if (source) memmove(target, source, bytes);
  else memset(target, 0, bytes);
}

int64_t model_state_length(Device *device, const ModelState *state, int64_t s) {
  if (!state->length || (device && device->dry)) return 0;
  const Tensor host = host_of(device, state->length);
  return ((const int32_t *)host.data)[s];
}

void model_state_count(Device *device, const ModelState *state, int64_t s, int64_t n) {
  if (!state->length || (device && device->dry)) return;
  const Tensor host = host_of(device, state->length);
  ((int32_t *)host.data)[s] += (int32_t)n;
  give_back(device, state->length);
}

/* What layer i has learned to start from becomes sequence s of its state. */
static void put_learned(const Model *model, Device *device, const ModelState *to, int64_t s, int i) {
  const Tensor *learned = mixer_init_states(&model->blocks[i].mixer);
  if (!learned) return;
  const Tensor origin = host_of(device, learned);
  const Tensor row =
      tensor_over(origin.data, origin.dtype, 4, (const int64_t[]){1, origin.dim[0], origin.dim[1], origin.dim[2]});
  Tensor target = host_of(device, to->layers[i].ssm);
  put_field(&target, s, &row, 0, -1);
  give_back(device, to->layers[i].ssm);
}

void model_state_put(const Model *model, Device *device, const ModelState *to, int64_t s, const ModelState *from,
                     int64_t of) {
  const int64_t n_rows = from ? model_state_length(device, from, of) : 0;
  model_state_count(device, to, s, n_rows - model_state_length(device, to, s));
  for (int i = 0; i < model->config.n_layer; i++) {
    for (int f = 0; f < STATE_N_FIELDS; f++) {
      Tensor *field = *state_field(&to->layers[i], f);
      const Tensor *source = from ? *state_field(&from->layers[i], f) : NULL;
      if (!field) continue;
      CHECK(!from || source, "layer %d: a state without %s", i, FIELDS[f].name);
      size_t bytes;
      if (source && sequence_of(source, of, &bytes) == sequence_of(field, s, &bytes))
        continue; /* filled where it stays */
      Tensor target = host_of(device, field), origin = source ? host_of(device, source) : (Tensor){0};
      put_field(&target, s, source ? &origin : NULL, of, FIELDS[f].grows ? n_rows : -1);
      give_back(device, field);
    }
    if (!from) put_learned(model, device, to, s, i);
  }
}

ModelState model_start_state(const Model *model, Device *device, Arena *arena, Dtype real, int64_t n_seq,
                             int64_t room) {
  ModelState state = model_zero_state(model, device, arena, real, n_seq, room);
  for (int i = 0; i < model->config.n_layer && arena->memory; i++)
    for (int64_t s = 0; s < n_seq; s++) put_learned(model, device, &state, s, i);
  return state;
}

StateBytes model_state_bytes(const Model *model, Dtype real) {
  StateBytes bytes = {0};
  Arena dry;
  arena_open_dry(&dry, "state");
  const ModelState state = model_zero_state(model, NULL, &dry, real, 1, 1);
  for (int i = 0; i < model->config.n_layer; i++)
    for (int f = 0; f < STATE_N_FIELDS; f++) {
      const Tensor *field = *state_field(&state.layers[i], f);
      if (field) *(FIELDS[f].grows ? &bytes.per_token : &bytes.fixed) += (int64_t)tensor_bytes(field);
    }
  arena_close(&dry);
  return bytes;
}
