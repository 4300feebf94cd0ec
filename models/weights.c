/* weights: the tensors of a weights directory into a model, all or none; what is not as the model wants it is listed.
 * Half-precision values become float32. A shape may differ by dimensions of 1. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "models/aspis.h"
#include "models/weights_file.h"
#include "tensor/readable.h"

enum { MAX_CONFIG_BYTES = 1 << 20 };

Status weights_read_config(const char *directory, ModelConfig *config) {
  char *path = base_format("%s/config.json", directory), *text = NULL;
  TRY_OR(readable_text(path, MAX_CONFIG_BYTES, "a config.json", CODE_CHECKPOINT, &text), free(path));
  Status status = model_config_from_json(text, path, config);
  free(text);
  free(path);
  if (status.code != CODE_OK || config->d_intermediate == 0) return status;
  WeightsFile file;
  TRY(weights_file_open(directory, &file));
  /* F need not be what d_intermediate rounds to: published files differ. */
  const FileTensor *fc1 = weights_file_find(&file, "backbone.layers.0.mlp.fc1.weight");
  if (fc1 && fc1->n_dim == 2 && fc1->dim[0] >= 2 && fc1->dim[0] % 2 == 0 && fc1->dim[0] <= INT_MAX)
    config->d_mlp = (int)(fc1->dim[0] / 2);
  weights_file_close(&file);
  return STATUS_OK;
}

bool weights_directory(const char *path) {
  static const char *const NAMES[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"};
  bool found = false;
  for (int i = 0; i < 3 && !found; i++) {
    char *name = base_format("%s/%s", path, NAMES[i]);
    found = access(name, F_OK) == 0;
    free(name);
  }
  return found;
}

/* ---- loading */

static float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 1023u;
  union {
    uint32_t u;
    float f;
  } bits;
  if (exponent == 0) {
    bits.f = (float)fraction * 0x1p-24f;
    bits.u |= sign;
  } else {
    uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
    bits.u = sign | wide << 23 | fraction << 13;
  }
  return bits.f;
}

/* Data need not be aligned in the file. */
static void to_floats(FileType type, const unsigned char *data, int64_t n, float *out) {
  if (type == FILE_F32) {
    memcpy(out, data, (size_t)n * sizeof *out);
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    uint16_t bits;
    memcpy(&bits, data + 2 * i, sizeof bits);
    out[i] = type == FILE_F16 ? half_to_float(bits) : bf16_to_float(bits);
  }
}

static void tensor_fill(const FileTensor *from, Tensor *to) {
  int64_t n = tensor_count(to);
  float *floats = to->dtype == F32 ? to->data : base_alloc((size_t)n * sizeof *floats);
  to_floats(from->type, from->data, n, floats);
  if (to->dtype == F32) return;
  Tensor exact = tensor_over(floats, F32, to->n_dim, to->dim);
  tensor_copy(to, &exact);
  free(floats);
}

static void shape_print(FILE *stream, const FileTensor *t) {
  for (int i = 0; i < t->n_dim; i++) fprintf(stream, "%s%" PRId64, i ? ", " : "(", t->dim[i]);
  fputs(t->n_dim ? ")" : "()", stream);
}

typedef enum Fit { FIT_SAME, FIT_RESHAPED, FIT_NOT } Fit;

/* Reshaped: as long as only dimensions of 1 are there or not. */
static Fit fit_shape(const FileTensor *from, const Tensor *to) {
  bool same = from->n_dim == to->n_dim;
  for (int i = 0; i < to->n_dim && same; i++) same = from->dim[i] == to->dim[i];
  if (same) return FIT_SAME;
  int f = 0, t = 0;
  for (;; f++, t++) {
    while (f < from->n_dim && from->dim[f] == 1) f++;
    while (t < to->n_dim && to->dim[t] == 1) t++;
    if (f == from->n_dim || t == to->n_dim) return f == from->n_dim && t == to->n_dim ? FIT_RESHAPED : FIT_NOT;
    if (from->dim[f] != to->dim[t]) return FIT_NOT;
  }
}

/* A tied model's file may hold the head too, as long as it is the embedding, to the byte. */
static bool is_tied_head(const WeightsFile *file, const Model *model, const FileTensor *head) {
  const FileTensor *embedding = weights_file_find(file, "backbone.embedding.weight");
  return model->config.tie_embeddings && !strcmp(head->name, "lm_head.weight") && embedding &&
         head->type == embedding->type && head->bytes == embedding->bytes &&
         !memcmp(head->data, embedding->data, (size_t)head->bytes);
}

enum { SHOWN = 20 };

static void difference(FILE *stream, int *n, const char *name) {
  if ((*n)++ < SHOWN) fprintf(stream, "\n  %.96s: ", name);
}

/* Writes every difference between file and model; returns their number. */
static int differences_print(const WeightsFile *file, const Model *model, FILE *stream) {
  int n = 0;
  for (int i = 0; i < model->params.n_params; i++) {
    const Param *param = model->params.params[i];
    const FileTensor *from = weights_file_find(file, param->name);
    if (from && fit_shape(from, &param->value) != FIT_NOT) continue;
    difference(stream, &n, param->name);
    if (n > SHOWN) continue;
    if (!from) {
      fputs("missing", stream);
      continue;
    }
    fputs("found ", stream);
    shape_print(stream, from);
    fprintf(stream, ", expected %s", tensor_shape_text(&param->value));
  }
  for (int i = 0; i < file->n_tensors; i++) {
    const FileTensor *from = &file->tensors[i];
    if (params_find(&model->params, from->name) || is_tied_head(file, model, from)) continue;
    difference(stream, &n, from->name);
    if (n <= SHOWN)
      fputs(strcmp(from->name, "lm_head.weight") != 0 ? "unexpected"
                                                      : "differs from the embedding that tie_embeddings ties it to",
            stream);
  }
  if (n > SHOWN) fprintf(stream, "\n  and %d more", n - SHOWN);
  return n;
}

static Status compare(const WeightsFile *file, const Model *model) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *stream = open_memstream(&text, &bytes);
  CHECK(stream, "out of memory for a message");
  int n = differences_print(file, model, stream);
  CHECK(fclose(stream) == 0, "out of memory for a message");
  Status status =
      n ? status_fail(CODE_CHECKPOINT, "%s: not the weights of this model:%s", file->path, text) : STATUS_OK;
  free(text);
  return status;
}

/* To be called when they fit. */
static void survey(const WeightsFile *file, const Model *model, WeightsSurvey *told) {
  *told = (WeightsSurvey){.format = file->format};
  for (int i = 0; i < file->n_tensors; i++) {
    const FileTensor *from = &file->tensors[i];
    const Param *param = params_find(&model->params, from->name);
    if (!param) continue;
    told->n_matched++;
    told->n_cast += from->type != FILE_F32;
    told->n_reshaped += fit_shape(from, &param->value) == FIT_RESHAPED;
  }
  told->n_tied = file->n_tensors - told->n_matched;
}

Status weights_survey(const Model *model, const char *directory, WeightsSurvey *told) {
  WeightsFile file;
  TRY(weights_file_open(directory, &file));
  Status status = compare(&file, model);
  if (status.code == CODE_OK) survey(&file, model, told);
  weights_file_close(&file);
  return status;
}

Status weights_load(Model *model, const char *directory) {
  WeightsFile file;
  TRY(weights_file_open(directory, &file));
  Status status = compare(&file, model);
  for (int i = 0; i < model->params.n_params && status.code == CODE_OK; i++) {
    Param *param = model->params.params[i];
    tensor_fill(weights_file_find(&file, param->name), param_exact(param));
    param_refresh(param);
  }
  weights_file_close(&file);
  return status;
}
