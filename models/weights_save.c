/* weights_save: a weights directory written, config.json and model.safetensors, float32, as state-spaces or as Hugging Face
 * names things. Each file appears whole or not at all. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/aspis.h"
#include "tensor/publish.h"

static const char *stored_name(const char *name, WeightsLayout layout) {
  return layout == LAYOUT_HF && !strcmp(name, "backbone.embedding.weight") ? "backbone.embeddings.weight" : name;
}

/* Rows of the first dimension. Embedding and head lose those that pad the vocabulary where a layout does not tell them apart: a
 * sampler there would take them for tokens. */
static int64_t stored_rows(const Model *model, int i, WeightsLayout layout) {
  const Param *param = model->params.params[i];
  const bool words = &param->value == model->embedding || &param->value == model->lm_head;
  return layout == LAYOUT_HF && words ? model->config.vocab_size : param->value.dim[0];
}

static int64_t stored_count(const Model *model, int i, WeightsLayout layout) {
  const Tensor *value = &model->params.params[i]->value;
  return tensor_count(value) / value->dim[0] * stored_rows(model, i, layout);
}

static char *header_text(const Model *model, WeightsLayout layout, size_t *bytes) {
  char *text = NULL;
  FILE *stream = open_memstream(&text, bytes);
  CHECK(stream, "out of memory for a header");
  fputs("{\"__metadata__\":{\"format\":\"pt\"}", stream);
  int64_t at = 0;
  for (int i = 0; i < model->params.n_params; i++) {
    const Param *param = model->params.params[i];
    int64_t end = at + 4 * stored_count(model, i, layout);
    fprintf(stream, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", stored_name(param->name, layout));
    fprintf(stream, "%" PRId64, stored_rows(model, i, layout));
    for (int d = 1; d < param->value.n_dim; d++) fprintf(stream, ",%" PRId64, param->value.dim[d]);
    fprintf(stream, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, end);
    at = end;
  }
  fputc('}', stream);
  fflush(stream);
  for (size_t padding = (8 - *bytes % 8) % 8; padding > 0; padding--) fputc(' ', stream);
  CHECK(fclose(stream) == 0, "out of memory for a header");
  return text;
}

static Status tensors_save(Model *model, WeightsLayout layout, const char *path) {
  ParamTable *params = &model->params;
  size_t header_bytes;
  char *header = header_text(model, layout, &header_bytes);
  uint64_t length = header_bytes;
  int n_pieces = params->n_params + 2;
  PublishPiece *pieces = base_alloc((size_t)n_pieces * sizeof *pieces);
  float **converted = base_zalloc((size_t)params->n_params * sizeof *converted);
  pieces[0] = (PublishPiece){&length, sizeof length};
  pieces[1] = (PublishPiece){header, header_bytes};
  for (int i = 0; i < params->n_params; i++) {
    Tensor *exact = param_exact(params->params[i]);
    int64_t n = tensor_count(exact);
    if (exact->dtype != F32) {
      converted[i] = base_alloc((size_t)n * sizeof(float));
      Tensor floats = tensor_over(converted[i], F32, exact->n_dim, exact->dim);
      tensor_copy(&floats, exact);
    }
    pieces[i + 2] = (PublishPiece){converted[i] ? (const void *)converted[i] : exact->data,
                                   (size_t)stored_count(model, i, layout) * sizeof(float)};
  }
  Publish publish = {0};
  Status status = publish_begin(&publish, path, 4 * params_count(params) + (int64_t)header_bytes, CODE_CHECKPOINT);
  if (status.code == CODE_OK) status = publish_write(&publish, pieces, n_pieces);
  for (int i = 0; i < params->n_params; i++) free(converted[i]);
  free(converted);
  free(pieces);
  free(header);
  return status;
}

Status weights_save(Model *model, const char *directory, WeightsLayout layout) {
  char *problem = layout == LAYOUT_HF ? model_config_hf_problem(&model->config) : NULL;
  if (problem) {
    Status status = status_fail(CODE_USAGE, "%s", problem);
    free(problem);
    return status;
  }
  const bool made = mkdir(directory, 0777) == 0;
  if (!made && errno != EEXIST)
    return status_fail(CODE_CHECKPOINT, "%s: cannot make the folder: %s", directory, strerror(errno));
  char *path = base_format("%s/model.safetensors", directory);
  Status status = tensors_save(model, layout, path);
  free(path);
  if (status.code != CODE_OK && made) rmdir(directory);
  TRY(status);
  char *text = layout == LAYOUT_HF ? model_config_to_hf(&model->config) : model_config_to_json(&model->config);
  path = base_format("%s/config.json", directory);
  status = publish_bytes(path, text, strlen(text), CODE_CHECKPOINT);
  free(path);
  free(text);
  return status;
}
