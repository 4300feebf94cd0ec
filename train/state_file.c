/* state_file: see state_file.h. Which fields a layer has, and their shapes, is what model_zero_state makes. */
#include "train/state_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 48 };

static const char *field_path(char path[PATH_BYTES], int layer, int field) {
  snprintf(path, PATH_BYTES, "layers/%d/%s", layer, state_field_name(field));
  return path;
}

/* As files have it: keys and values with their heads told apart. */
static Tensor file_shape(const Model *model, int layer, int field, const Tensor *t) {
  if (!state_field_grows(field)) return *t;
  const AttnConfig *c = &model->blocks[layer].mixer.attention.config;
  return tensor_over(t->data, t->dtype, 4, (const int64_t[]){t->dim[0], t->dim[1], c->num_heads_kv, c->head_dim});
}

static Status check_shape(const char *path, const char *name, const H5Shape *found, const Tensor *wanted) {
  if (found->kind != H5_F32 && found->kind != H5_F64)
    return status_fail(CODE_DATA, "%s: %s: expected floating-point numbers", path, name);
  bool fits = found->n_dim == wanted->n_dim;
  for (int i = 1; i < wanted->n_dim && fits; i++) fits = found->dim[i] == wanted->dim[i];
  if (fits && found->dim[0] == wanted->dim[0]) return STATUS_OK;
  if (fits)
    return status_fail(CODE_DATA, "%s: %s: found the states of %lld sequences, expected %lld, as many as the tokens",
                       path, name, (long long)found->dim[0], (long long)wanted->dim[0]);
  if (found->n_dim < 1 || found->n_dim > TENSOR_MAX_DIM)
    return status_fail(CODE_DATA, "%s: %s: found %d dimensions, expected %s", path, name, found->n_dim,
                       tensor_shape_text(wanted));
  Tensor shape = tensor_over(NULL, F32, found->n_dim, found->dim);
  char *text = base_strdup(tensor_shape_text(&shape));
  Status status = status_fail(CODE_DATA, "%s: %s: found %s, expected %s: the state of another model?", path, name, text,
                              tensor_shape_text(wanted));
  free(text);
  return status;
}

static Status read_field(H5File *file, const char *path, const char *name, const Tensor *shape_wanted) {
  H5Shape shape;
  TRY(h5_shape(file, name, &shape));
  TRY(check_shape(path, name, &shape, shape_wanted));
  TRY(h5_read_f32(file, name, shape_wanted->data, shape.count));
  for (int64_t i = 0; i < shape.count; i++)
    if (!isfinite(((const float *)shape_wanted->data)[i]))
      return status_fail(CODE_DATA, "%s: %s: element %lld is not finite", path, name, (long long)i);
  return STATUS_OK;
}

/* How many tokens came before, of each sequence: as many as keys are there at most. */
static Status read_length(H5File *file, const char *path, const ModelState *state) {
  H5Shape shape;
  TRY(h5_shape(file, "length", &shape));
  if (shape.n_dim != 1 || shape.count != state->n_seq)
    return status_fail(CODE_DATA, "%s: length: found %d dimensions and %lld elements, expected (%lld)", path,
                       shape.n_dim, (long long)shape.count, (long long)state->n_seq);
  int32_t *length = state->length->data;
  TRY(h5_read_i32(file, "length", length, shape.count));
  for (int64_t s = 0; s < state->n_seq; s++)
    if (length[s] < 0 || length[s] > state->room)
      return status_fail(CODE_DATA, "%s: length[%lld]: found %d, expected 0 to %lld, the keys that are there", path,
                         (long long)s, length[s], (long long)state->room);
  return STATUS_OK;
}

static Status read_all(H5File *file, const char *path, const Model *model, const ModelState *state) {
  const int n_layer = model->config.n_layer;
  char name[PATH_BYTES];
  for (int i = 0; i < n_layer; i++)
    for (int f = 0; f < STATE_N_FIELDS; f++) {
      const Tensor *to = *state_field(&state->layers[i], f);
      field_path(name, i, f);
      if (to) {
        const Tensor wanted = file_shape(model, i, f, to);
        TRY(read_field(file, path, name, &wanted));
      } else if (h5_has(file, name)) {
        return status_fail(CODE_DATA, "%s: %s: this model's layers have none: the state of another model?", path, name);
      }
    }
  char **names;
  int n_names;
  TRY(h5_list(file, "layers", &names, &n_names));
  h5_list_free(names, n_names);
  int n_wanted = 0; /* a layer without a mixer has no group */
  for (int i = 0; i < n_layer; i++) n_wanted += model->blocks[i].mixer.kind != LAYER_IDENTITY;
  if (n_names != n_wanted)
    return status_fail(CODE_DATA, "%s: layers: found %d, expected the model's %d", path, n_names, n_wanted);
  return state->length ? read_length(file, path, state) : STATUS_OK;
}

/* Tokens that the keys in the file have room for; 0: the model has none. */
static Status read_room(H5File *file, const char *path, const Model *model, int64_t *room) {
  *room = 0;
  for (int i = 0; i < model->config.n_layer && *room == 0; i++) {
    if (model->blocks[i].mixer.kind != LAYER_ATTENTION) continue;
    char name[PATH_BYTES];
    H5Shape shape;
    snprintf(name, sizeof name, "layers/%d/key", i);
    TRY(h5_shape(file, name, &shape));
    if (shape.n_dim != 4 || shape.count == 0)
      return status_fail(CODE_DATA, "%s: %s: found %d dimensions, expected (B, tokens, heads, head_dim)", path, name,
                         shape.n_dim);
    *room = shape.dim[1];
  }
  return STATUS_OK;
}

static Status read_batch(H5File *file, const char *path, const Model *model, int64_t n_seq, StateBatch *batch) {
  int64_t room;
  TRY(read_room(file, path, model, &room));
  Arena dry;
  arena_open_dry(&dry, "states");
  model_zero_state(model, NULL, &dry, F32, n_seq, room);
  const size_t bytes = dry.peak_bytes;
  arena_close(&dry);
  TRY(arena_open(&batch->arena, "states", bytes));
  batch->state = model_zero_state(model, NULL, &batch->arena, F32, n_seq, room);
  TRY_OR(read_all(file, path, model, &batch->state), state_batch_free(batch));
  return STATUS_OK;
}

Status state_file_read(const char *path, const Model *model, int64_t n_seq, StateBatch *batch) {
  H5File *file;
  *batch = (StateBatch){0};
  TRY(h5_open_read(path, CODE_DATA, &file));
  Status status = read_batch(file, path, model, n_seq, batch);
  h5_close(file);
  return status;
}

void state_batch_free(StateBatch *batch) {
  arena_close(&batch->arena);
  *batch = (StateBatch){0};
}

int64_t state_batch_longest(const StateBatch *batch) {
  int64_t longest = 0;
  for (int64_t s = 0; batch->state.length && s < batch->state.n_seq; s++)
    longest = max_i64(longest, ((const int32_t *)batch->state.length->data)[s]);
  return longest;
}

static Status make_all(H5File *file, const Model *model, const ModelState *shapes) {
  char name[PATH_BYTES];
  for (int i = 0; i < model->config.n_layer; i++)
    for (int f = 0; f < STATE_N_FIELDS; f++) {
      const Tensor *t = *state_field(&shapes->layers[i], f);
      if (!t) continue;
      const Tensor shape = file_shape(model, i, f, t);
      TRY(h5_make(file, field_path(name, i, f), H5_F32, shape.n_dim, shape.dim));
    }
  return shapes->length ? h5_make(file, "length", H5_I32, 1, &shapes->n_seq) : STATUS_OK;
}

Status state_file_create(const char *path, const Model *model, int64_t n_seq, int64_t room, H5File **file) {
  Arena dry;
  arena_open_dry(&dry, "states");
  ModelState shapes = model_zero_state(model, NULL, &dry, F32, n_seq, max_i64(room, 1));
  Status status = h5_create(path, (int64_t)dry.used_bytes, false, CODE_DATA, file);
  if (status.code == CODE_OK) {
    status = make_all(*file, model, &shapes);
    if (status.code != CODE_OK) h5_close(*file), *file = NULL;
  }
  arena_close(&dry);
  return status;
}

Status state_file_write(H5File *file, const Model *model, Device *device, int64_t s, const ModelState *state,
                        int64_t room) {
  char name[PATH_BYTES];
  const int64_t length = model_state_length(device, state, 0);
  const int32_t counted = (int32_t)length;
  for (int i = 0; i < model->config.n_layer; i++)
    for (int f = 0; f < STATE_N_FIELDS; f++) {
      const Tensor *field = *state_field(&state->layers[i], f);
      if (!field) continue;
      const Tensor host = device ? device_pull(device, field) : *field, *t = &host;
      CHECK(t->dtype == F32 && t->dim[0] == 1 && tensor_contiguous(t), "state %s of dtype %s", tensor_shape_text(t),
            dtype_name(t->dtype));
      if (state_field_grows(f)) {
        CHECK(length <= room && room <= t->dim[1], "%lld tokens in a room of %lld", (long long)length, (long long)room);
        memset((float *)t->data + length * t->dim[2], 0, (size_t)((room - length) * t->dim[2]) * sizeof(float));
      }
      TRY(h5_write_rows(file, field_path(name, i, f), s, 1, t->data));
    }
  return state->length ? h5_write_rows(file, "length", s, 1, &counted) : STATUS_OK;
}

Status state_file_save(const char *path, const Model *model, Device *device, const ModelState *state) {
  int64_t room = 1;
  for (int64_t s = 0; s < state->n_seq; s++) room = max_i64(room, model_state_length(device, state, s));
  Arena headers;
  arena_open_dry(&headers, "states");
  H5File *file;
  Status status = state_file_create(path, model, state->n_seq, room, &file);
  for (int64_t s = 0; s < state->n_seq && status.code == CODE_OK; s++) {
    const ModelState row = model_state_row(model, &headers, state, s);
    status = state_file_write(file, model, device, s, &row, room);
    if (status.code != CODE_OK) h5_close(file);
  }
  arena_close(&headers);
  return status.code == CODE_OK ? h5_commit(file) : status;
}
