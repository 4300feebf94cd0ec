/* state_file: see state_file.h. Which fields a layer has, and their shapes, is what model_zero_state makes. */
#include "train/state_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_FIELDS = 5, PATH_BYTES = 48 };
static const struct {
  const char *name;
  size_t offset;
} FIELDS[N_FIELDS] = {{"conv", offsetof(LayerState, conv)},
                      {"ssm", offsetof(LayerState, ssm)},
                      {"angle", offsetof(LayerState, angle)},
                      {"k", offsetof(LayerState, k)},
                      {"v", offsetof(LayerState, v)}};

static Tensor *state_field(const ModelState *state, int layer, int field) {
  Tensor *const *slot = (Tensor *const *)(const void *)((const char *)&state->layers[layer] + FIELDS[field].offset);
  return *slot;
}

static const char *field_path(char path[PATH_BYTES], int layer, int field) {
  snprintf(path, PATH_BYTES, "layers/%d/%s", layer, FIELDS[field].name);
  return path;
}

Status state_file_supports(const ModelConfig *config, const char *where) {
  if (config->n_attn_layers == 0) return STATUS_OK;
  return status_fail(CODE_USAGE, "%s: layer %d is attention: attention layers have no state in this version", where,
                     config->attn_layer_idx[0]);
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

static Status read_field(H5File *file, const char *path, const char *name, Tensor *to) {
  H5Shape shape;
  TRY(h5_shape(file, name, &shape));
  TRY(check_shape(path, name, &shape, to));
  TRY(h5_read_f32(file, name, to->data, shape.count));
  for (int64_t i = 0; i < shape.count; i++)
    if (!isfinite(((const float *)to->data)[i]))
      return status_fail(CODE_DATA, "%s: %s: element %lld is not finite", path, name, (long long)i);
  return STATUS_OK;
}

static Status read_all(H5File *file, const char *path, const Model *model, const ModelState *state) {
  const int n_layer = model->config.n_layer;
  char name[PATH_BYTES];
  for (int i = 0; i < n_layer; i++)
    for (int f = 0; f < N_FIELDS; f++) {
      Tensor *to = state_field(state, i, f);
      field_path(name, i, f);
      if (to) TRY(read_field(file, path, name, to));
      else if (h5_has(file, name))
        return status_fail(CODE_DATA, "%s: %s: this model's layers have none: the state of another model?", path, name);
    }
  char **names;
  int n_names;
  TRY(h5_list(file, "layers", &names, &n_names));
  h5_list_free(names, n_names);
  if (n_names != n_layer)
    return status_fail(CODE_DATA, "%s: layers: found %d, expected the model's %d", path, n_names, n_layer);
  return STATUS_OK;
}

Status state_file_read(const char *path, const Model *model, int64_t n_seq, StateBatch *batch) {
  Arena dry;
  arena_open_dry(&dry, "states");
  model_zero_state(model, &dry, F32, n_seq);
  const size_t bytes = dry.peak_bytes;
  arena_close(&dry);
  H5File *file;
  TRY(h5_open_read(path, CODE_DATA, &file));
  Status status = arena_open(&batch->arena, "states", bytes);
  if (status.code == CODE_OK) {
    batch->state = model_zero_state(model, &batch->arena, F32, n_seq);
    status = read_all(file, path, model, &batch->state);
    if (status.code != CODE_OK) state_batch_free(batch);
  }
  h5_close(file);
  return status;
}

void state_batch_free(StateBatch *batch) {
  arena_close(&batch->arena);
  *batch = (StateBatch){0};
}

void state_batch_take(const StateBatch *batch, const Model *model, int64_t s, const ModelState *to) {
  for (int i = 0; i < model->config.n_layer; i++)
    for (int f = 0; f < N_FIELDS; f++) {
      Tensor *one = state_field(to, i, f);
      if (!one) continue;
      const Tensor *all = state_field(&batch->state, i, f);
      CHECK(s < all->dim[0] && tensor_count(one) * all->dim[0] == tensor_count(all), "sequence %lld of %s",
            (long long)s, tensor_shape_text(all));
      Tensor row = tensor_over((float *)all->data + s * tensor_count(one), F32, one->n_dim, one->dim);
      tensor_copy(one, &row);
    }
}

static Status make_all(H5File *file, const Model *model, const ModelState *shapes) {
  char name[PATH_BYTES];
  for (int i = 0; i < model->config.n_layer; i++)
    for (int f = 0; f < N_FIELDS; f++) {
      const Tensor *t = state_field(shapes, i, f);
      if (t) TRY(h5_make(file, field_path(name, i, f), H5_F32, t->n_dim, t->dim));
    }
  return STATUS_OK;
}

Status state_file_create(const char *path, const Model *model, int64_t n_seq, H5File **file) {
  Arena dry;
  arena_open_dry(&dry, "states");
  ModelState shapes = model_zero_state(model, &dry, F32, n_seq);
  Status status = h5_create(path, (int64_t)dry.used_bytes, false, CODE_DATA, file);
  if (status.code == CODE_OK) {
    status = make_all(*file, model, &shapes);
    if (status.code != CODE_OK) h5_close(*file), *file = NULL;
  }
  arena_close(&dry);
  return status;
}

Status state_file_write(H5File *file, const Model *model, int64_t s, const ModelState *state) {
  char name[PATH_BYTES];
  for (int i = 0; i < model->config.n_layer; i++)
    for (int f = 0; f < N_FIELDS; f++) {
      const Tensor *t = state_field(state, i, f);
      if (!t) continue;
      CHECK(t->dtype == F32 && t->dim[0] == 1 && tensor_contiguous(t), "state %s of dtype %s", tensor_shape_text(t),
            dtype_name(t->dtype));
      TRY(h5_write_rows(file, field_path(name, i, f), s, 1, t->data));
    }
  return STATUS_OK;
}
