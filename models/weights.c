/* weights: model.safetensors in and out.
 *
 * The file: 8 bytes little-endian n, n bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...} with an
 * optional "__metadata__" of strings, then the data. Rules of the reader (safetensors, README and tensor.rs; plus ours):
 * n <= 100 MB, the JSON starts with '{' and has no key twice, the tensors' ranges follow one another without hole or
 * overlap and end with the file, each as long as shape x dtype says. Nothing is believed before it is checked. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/aspis.h"
#include "tensor/publish.h"

enum { MAX_HEADER_BYTES = 100 * 1000 * 1000, MAX_CONFIG_BYTES = 1 << 20, MAX_DIM = 8 };

typedef enum FileType { FILE_F32, FILE_F16, FILE_BF16, N_FILE_TYPES } FileType;
static const struct {
  const char *name;
  int64_t bytes;
} FILE_TYPES[N_FILE_TYPES] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}};

typedef struct FileTensor {
  const char *name; /* owned by the header */
  FileType type;
  int n_dim;
  int64_t dim[MAX_DIM];
  int64_t begin, end; /* in the data */
} FileTensor;

typedef struct Safetensors {
  char *path;
  const unsigned char *map; /* the whole file, read-only */
  size_t map_bytes;
  const unsigned char *data;
  int64_t data_bytes;
  json_t *header;
  FileTensor *tensors; /* by begin */
  int n_tensors;
} Safetensors;

static void safetensors_close(Safetensors *file) {
  if (file->map) munmap((void *)(uintptr_t)file->map, file->map_bytes);
  json_decref(file->header);
  free(file->tensors);
  free(file->path);
  *file = (Safetensors){0};
}

/* ---- reading the header */

static Status map_file(Safetensors *file) {
  int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return status_fail(CODE_CHECKPOINT, "%s: cannot open: %s", file->path, strerror(errno));
  struct stat st;
  Status status = STATUS_OK;
  void *map = MAP_FAILED;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
    status = status_fail(CODE_CHECKPOINT, "%s: not a regular file", file->path);
  else if (st.st_size < 10)
    status =
        status_fail(CODE_CHECKPOINT, "%s: not a safetensors file: found %lld bytes", file->path, (long long)st.st_size);
  else if ((map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
    status = status_fail(CODE_CHECKPOINT, "%s: cannot map: %s", file->path, strerror(errno));
  close(fd);
  if (map != MAP_FAILED) file->map = map, file->map_bytes = (size_t)st.st_size;
  return status;
}

static Status parse_header(Safetensors *file) {
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; i--) header_bytes = header_bytes << 8 | file->map[i];
  uint64_t room = file->map_bytes - 8;
  if (header_bytes > MAX_HEADER_BYTES || header_bytes > room)
    return status_fail(CODE_CHECKPOINT, "%s: header: found a length of %" PRIu64 " bytes, expected at most %" PRIu64,
                       file->path, header_bytes, room < MAX_HEADER_BYTES ? room : (uint64_t)MAX_HEADER_BYTES);
  const char *text = (const char *)file->map + 8;
  if (header_bytes < 2 || text[0] != '{')
    return status_fail(CODE_CHECKPOINT, "%s: header: it does not start with {", file->path);
  json_error_t error;
  file->header = json_loadb(text, header_bytes, JSON_REJECT_DUPLICATES, &error);
  if (!file->header || !json_is_object(file->header))
    return status_fail(CODE_CHECKPOINT, "%s: header: %s", file->path, file->header ? "not an object" : error.text);
  file->data = file->map + 8 + header_bytes;
  file->data_bytes = (int64_t)(room - header_bytes);
  return STATUS_OK;
}

/* NULL, or what is wrong with one entry of the header. */
static const char *entry_problem(json_t *entry, int64_t data_bytes, FileTensor *tensor) {
  const char *type = json_string_value(json_object_get(entry, "dtype"));
  json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
  if (json_object_size(entry) != 3 || !type || !json_is_array(shape) || json_array_size(offsets) != 2)
    return "expected dtype, shape and two data_offsets";
  int t = 0;
  while (t < N_FILE_TYPES && strcmp(FILE_TYPES[t].name, type) != 0) t++;
  if (t == N_FILE_TYPES) return "dtype: expected F32, F16 or BF16";
  tensor->type = (FileType)t;
  if (json_array_size(shape) > MAX_DIM) return "shape: more than 8 dimensions";
  tensor->n_dim = (int)json_array_size(shape);
  int64_t bytes = FILE_TYPES[t].bytes;
  for (int i = 0; i < tensor->n_dim; i++) {
    json_t *dim = json_array_get(shape, (size_t)i);
    tensor->dim[i] = json_integer_value(dim);
    if (!json_is_integer(dim) || tensor->dim[i] < 0) return "shape: expected sizes of 0 or more";
    if (__builtin_mul_overflow(bytes, tensor->dim[i], &bytes)) return "shape: sizes overflow";
  }
  json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
  tensor->begin = json_integer_value(begin), tensor->end = json_integer_value(end);
  if (!json_is_integer(begin) || !json_is_integer(end) || tensor->begin < 0 || tensor->begin > tensor->end ||
      tensor->end > data_bytes)
    return "data_offsets: outside of the file";
  return tensor->end - tensor->begin == bytes ? NULL : "data_offsets: not as long as shape and dtype say";
}

static const char *metadata_problem(json_t *metadata) {
  const char *key;
  json_t *value;
  if (!json_is_object(metadata)) return "expected an object of strings";
  json_object_foreach(metadata, key, value) if (!json_is_string(value)) return "expected an object of strings";
  return NULL;
}

static int compare_begin(const void *a, const void *b) {
  const FileTensor *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->end > y->end) - (x->end < y->end);
}

static Status read_entries(Safetensors *file) {
  file->tensors = base_zalloc(json_object_size(file->header) * sizeof *file->tensors);
  const char *name;
  json_t *entry;
  json_object_foreach(file->header, name, entry) {
    const char *problem = NULL;
    for (const char *c = name; *c; c++)
      if (!isgraph((unsigned char)*c)) return status_fail(CODE_CHECKPOINT, "%s: header: strange names", file->path);
    if (!strcmp(name, "__metadata__")) {
      problem = metadata_problem(entry);
    } else {
      FileTensor *tensor = &file->tensors[file->n_tensors++];
      tensor->name = name;
      problem = entry_problem(entry, file->data_bytes, tensor);
    }
    if (problem) return status_fail(CODE_CHECKPOINT, "%s: %.96s: %s", file->path, name, problem);
  }
  if (file->n_tensors) qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, compare_begin);
  int64_t at = 0;
  for (int i = 0; i < file->n_tensors; at = file->tensors[i++].end)
    if (file->tensors[i].begin != at)
      return status_fail(CODE_CHECKPOINT,
                         "%s: %.96s: data_offsets: begins at %" PRId64 ", expected %" PRId64
                         ", the end of the tensor before",
                         file->path, file->tensors[i].name, file->tensors[i].begin, at);
  if (at != file->data_bytes)
    return status_fail(CODE_CHECKPOINT, "%s: found %" PRId64 " bytes of data, expected %" PRId64, file->path,
                       file->data_bytes, at);
  return STATUS_OK;
}

/* Takes the path. */
static Status safetensors_open(char *path, Safetensors *file) {
  *file = (Safetensors){.path = path};
  TRY_OR(map_file(file), safetensors_close(file));
  TRY_OR(parse_header(file), safetensors_close(file));
  TRY_OR(read_entries(file), safetensors_close(file));
  return STATUS_OK;
}

static const FileTensor *safetensors_find(const Safetensors *file, const char *name) {
  for (int i = 0; i < file->n_tensors; i++)
    if (!strcmp(file->tensors[i].name, name)) return &file->tensors[i];
  return NULL;
}

/* ---- the model's configuration */

/* A whole small text file. */
static Status read_small_file(const char *path, char **text) {
  FILE *stream = fopen(path, "rbe");
  if (!stream) return status_fail(CODE_CHECKPOINT, "%s: cannot open: %s", path, strerror(errno));
  char *buffer = base_alloc(MAX_CONFIG_BYTES + 1);
  size_t n = fread(buffer, 1, MAX_CONFIG_BYTES + 1, stream);
  bool failed = ferror(stream) != 0;
  fclose(stream);
  buffer[n <= MAX_CONFIG_BYTES ? n : 0] = '\0';
  Status status = STATUS_OK;
  if (failed) status = status_fail(CODE_CHECKPOINT, "%s: cannot read", path);
  else if (n > MAX_CONFIG_BYTES || strlen(buffer) != n)
    status = status_fail(CODE_CHECKPOINT, "%s: not a config.json: longer than 1 MiB, or with zero bytes", path);
  TRY_OR(status, free(buffer));
  *text = buffer;
  return STATUS_OK;
}

static char *weights_path(const char *directory) { return base_format("%s/model.safetensors", directory); }

Status weights_read_config(const char *directory, ModelConfig *config) {
  char *path = base_format("%s/config.json", directory), *text = NULL;
  TRY_OR(read_small_file(path, &text), free(path));
  Status status = model_config_from_json(text, path, config);
  free(text);
  free(path);
  if (status.code != CODE_OK || config->d_intermediate == 0) return status;
  Safetensors file;
  TRY(safetensors_open(weights_path(directory), &file));
  /* F need not be what d_intermediate rounds to: published files differ. */
  const FileTensor *fc1 = safetensors_find(&file, "backbone.layers.0.mlp.fc1.weight");
  if (fc1 && fc1->n_dim == 2 && fc1->dim[0] >= 2 && fc1->dim[0] % 2 == 0 && fc1->dim[0] <= INT_MAX)
    config->d_mlp = (int)(fc1->dim[0] / 2);
  safetensors_close(&file);
  return STATUS_OK;
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

static void tensor_fill(const Safetensors *file, const FileTensor *from, Tensor *to) {
  int64_t n = tensor_count(to);
  float *floats = to->dtype == F32 ? to->data : base_alloc((size_t)n * sizeof *floats);
  to_floats(from->type, file->data + from->begin, n, floats);
  if (to->dtype == F32) return;
  Tensor exact = tensor_over(floats, F32, to->n_dim, to->dim);
  tensor_copy(to, &exact);
  free(floats);
}

static void shape_print(FILE *stream, const FileTensor *t) {
  for (int i = 0; i < t->n_dim; i++) fprintf(stream, "%s%" PRId64, i ? ", " : "(", t->dim[i]);
  fputs(t->n_dim ? ")" : "()", stream);
}

static bool same_shape(const FileTensor *from, const Tensor *to) {
  bool same = from->n_dim == to->n_dim;
  for (int i = 0; i < to->n_dim && same; i++) same = from->dim[i] == to->dim[i];
  return same;
}

/* A tied model's file may hold the head too, as long as it is the embedding, to the byte. */
static bool is_tied_head(const Safetensors *file, const Model *model, const FileTensor *head) {
  const FileTensor *embedding = safetensors_find(file, "backbone.embedding.weight");
  return model->config.tie_embeddings && !strcmp(head->name, "lm_head.weight") && embedding &&
         head->type == embedding->type && head->end - head->begin == embedding->end - embedding->begin &&
         !memcmp(file->data + head->begin, file->data + embedding->begin, (size_t)(head->end - head->begin));
}

enum { SHOWN = 20 };

static void difference(FILE *stream, int *n, const char *name) {
  if ((*n)++ < SHOWN) fprintf(stream, "\n  %.96s: ", name);
}

/* Writes every difference between file and model; returns their number. */
static int differences_print(const Safetensors *file, const Model *model, FILE *stream) {
  int n = 0;
  for (int i = 0; i < model->params.n_params; i++) {
    const Param *param = model->params.params[i];
    const FileTensor *from = safetensors_find(file, param->name);
    if (from && same_shape(from, &param->value)) continue;
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

static Status compare(const Safetensors *file, const Model *model) {
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

Status weights_check(const Model *model, const char *directory) {
  Safetensors file;
  TRY(safetensors_open(weights_path(directory), &file));
  Status status = compare(&file, model);
  safetensors_close(&file);
  return status;
}

Status weights_load(Model *model, const char *directory) {
  Safetensors file;
  TRY(safetensors_open(weights_path(directory), &file));
  Status status = compare(&file, model);
  for (int i = 0; i < model->params.n_params && status.code == CODE_OK; i++) {
    Param *param = model->params.params[i];
    tensor_fill(&file, safetensors_find(&file, param->name), param_exact(param));
    param_refresh(param);
  }
  safetensors_close(&file);
  return status;
}

/* ---- saving */

static char *header_text(const Model *model, size_t *bytes) {
  char *text = NULL;
  FILE *stream = open_memstream(&text, bytes);
  CHECK(stream, "out of memory for a header");
  fputs("{\"__metadata__\":{\"format\":\"pt\"}", stream);
  int64_t at = 0;
  for (int i = 0; i < model->params.n_params; i++) {
    const Param *param = model->params.params[i];
    int64_t end = at + 4 * tensor_count(&param->value);
    fprintf(stream, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", param->name);
    for (int d = 0; d < param->value.n_dim; d++) fprintf(stream, "%s%" PRId64, d ? "," : "", param->value.dim[d]);
    fprintf(stream, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, end);
    at = end;
  }
  fputc('}', stream);
  fflush(stream);
  for (size_t padding = (8 - *bytes % 8) % 8; padding > 0; padding--) fputc(' ', stream);
  CHECK(fclose(stream) == 0, "out of memory for a header");
  return text;
}

static Status tensors_save(Model *model, const char *path) {
  ParamTable *params = &model->params;
  size_t header_bytes;
  char *header = header_text(model, &header_bytes);
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
    pieces[i + 2] = (PublishPiece){converted[i] ? (const void *)converted[i] : exact->data, (size_t)n * sizeof(float)};
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

Status weights_save(Model *model, const char *directory) {
  if (mkdir(directory, 0777) != 0 && errno != EEXIST)
    return status_fail(CODE_CHECKPOINT, "%s: cannot make the folder: %s", directory, strerror(errno));
  char *path = weights_path(directory);
  Status status = tensors_save(model, path);
  free(path);
  TRY(status);
  char *text = model_config_to_json(&model->config);
  path = base_format("%s/config.json", directory);
  status = publish_bytes(path, text, strlen(text), CODE_CHECKPOINT);
  free(path);
  free(text);
  return status;
}
