/* golden_mixer: mixer_*.h5: one mixer, with carried-in state or packed pieces; the loss is
 * sum(y * dy) + sum(state_out * dstate_out). Run with the file's chunk size and with a small one, so that sequences and
 * packed pieces cross chunks. */
#include "train/check/golden.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_CHUNK = 16 };

/* Angles are compared modulo 2 pi. */
static GoldenKind state_kind(int field) {
  return strcmp(state_field_name(field), "angle") == 0 ? GOLDEN_ANGLE : GOLDEN_STATE;
}

static const char *field_path(const char *group, int field, char path[64]) {
  snprintf(path, 64, "%s/%s", group, state_field_name(field));
  return path;
}

/* Copies the dataset into `to`, whose number of elements it must have. */
static Status read_into(GoldenCase *c, const char *name, Tensor *to) {
  Tensor *value;
  TRY(golden_read(c, name, &value));
  if (tensor_count(value) != tensor_count(to))
    return status_fail(CODE_CHECKPOINT, "%s: %s is %s, expected %s", c->path, name, tensor_shape_text(value),
                       tensor_shape_text(to));
  device_fill(c->device, to, value);
  return STATUS_OK;
}

/* u as (B * L, D) and the sequences it is made of. */
static Status read_input(GoldenCase *c, Tape *tape, const MixerConfig *config, Tensor **u, Tensor **cu_seqlens) {
  Tensor *value;
  TRY(golden_read(c, "u", &value));
  if (value->n_dim != 3 || value->dim[2] != config->d_model)
    return status_fail(CODE_CHECKPOINT, "%s: u is %s, expected (B, L, %d)", c->path, tensor_shape_text(value),
                       config->d_model);
  const int64_t n_tokens = value->dim[0] * value->dim[1];
  *u = tape_tensor(tape, c->act, n_tokens, config->d_model);
  (*u)->needs_grad = true;
  device_fill(c->device, *u, value);
  TRY(golden_read_seqlens(c, n_tokens, cu_seqlens));
  if (!*cu_seqlens) *cu_seqlens = model_equal_seqlens(tape, value->dim[0], value->dim[1]);
  return STATUS_OK;
}

static Status check_once(GoldenCase *c, Mixer *mixer, ParamTable *params, const MixerConfig *config) {
  Device *device = c->device;
  Tape tape = tape_make(device, c->act, true);
  Tensor *u, *cu_seqlens;
  TRY(read_input(c, &tape, config, &u, &cu_seqlens));

  const bool has_state_in = h5_has(c->file, "state_in");
  LayerState state_out = {0};
  LayerState state_in =
      mixer_zero_state(mixer, device, &device->step, tape_real(&tape), cu_seqlens->dim[0] - 1, 0, NULL);
  char path[64];
  for (int i = 0; i < STATE_N_FIELDS && has_state_in; i++) {
    Tensor *field = *state_field(&state_in, i);
    if (!field) continue;
    TRY(read_into(c, field_path("state_in", i, path), field));
    field->needs_grad = true;
  }

  Tensor *y = mixer_forward(mixer, &tape, u, cu_seqlens, has_state_in ? &state_in : NULL, &state_out);
  TRY(golden_compare(c, GOLDEN_FORWARD, "y", y));
  for (int i = 0; i < STATE_N_FIELDS; i++)
    if (*state_field(&state_out, i))
      TRY(golden_compare(c, state_kind(i), field_path("state_out", i, path), *state_field(&state_out, i)));

  params_zero_grads(params);
  TRY(read_into(c, "dy", tape_grad(&tape, y)));
  for (int i = 0; i < STATE_N_FIELDS && h5_has(c->file, "dstate_out"); i++)
    if (*state_field(&state_out, i))
      TRY(read_into(c, field_path("dstate_out", i, path), tape_grad(&tape, *state_field(&state_out, i))));
  tape_backward(&tape);
  TRY(golden_compare(c, GOLDEN_GRADIENT, "du", u->grad));
  TRY(golden_compare_params(c, params, "dparam", GOLDEN_GRADIENT));
  for (int i = 0; i < STATE_N_FIELDS && has_state_in; i++)
    if (*state_field(&state_in, i))
      TRY(golden_compare(c, GOLDEN_GRADIENT, field_path("dstate_in", i, path), (*state_field(&state_in, i))->grad));
  return STATUS_OK;
}

static Status check_with_chunk(GoldenCase *c, const MixerConfig *config) {
  ParamTable params = {0};
  Mixer mixer = {.kind = config->layer};
  if (config->layer == LAYER_MAMBA2) mamba2_init(&mixer.mamba2, &params, "", config, 1);
  else mamba3_init(&mixer.mamba3, &params, "", config, 1);
  params_alloc(&params, c->device, c->act, true, 0);
  Status status = golden_load_params(c, &params, "param");
  if (status.code == CODE_OK) status = check_once(c, &mixer, &params, config);
  params_free(&params);
  return status;
}

Status golden_check_mixer(GoldenCase *c) {
  char *text;
  TRY(h5_attr_string(c->file, "/", "config", &text));
  MixerConfig config;
  Status status = mixer_config_from_json(text, c->path, &config);
  free(text);
  if (status.code != CODE_OK) return status;
  TRY(check_with_chunk(c, &config));
  config.chunk_size = SMALL_CHUNK;
  return check_with_chunk(c, &config);
}
