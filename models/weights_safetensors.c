/* weights_safetensors: model.safetensors, one or in shards.
 *
 * The file: 8 bytes little-endian n, n bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...} with an
 * optional "__metadata__" of strings, then the data. Rules of the reader (safetensors, README and tensor.rs; plus ours):
 * n <= 100 MB, the JSON starts with '{' and has no key twice, the tensors' ranges follow one another without hole or
 * overlap and end with the file, each as long as shape x dtype says. Nothing is believed before it is checked.
 * Shards: model.safetensors.index.json has "weight_map", the file of each tensor, which must have it, and no other. */
#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "models/weights_file.h"

enum { MAX_HEADER_BYTES = 100 * 1000 * 1000 };

typedef struct Entry {
  const char *name; /* owned by the header */
  FileType type;
  int n_dim;
  int64_t dim[FILE_MAX_DIM];
  int64_t begin, end; /* in the data */
} Entry;

typedef struct Safetensors {
  const char *path;
  const unsigned char *map, *data;
  size_t map_bytes;
  int64_t data_bytes;
  json_t *header;
  Entry *tensors; /* by begin */
  int n_tensors;
} Safetensors;

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
static const char *entry_problem(json_t *entry, int64_t data_bytes, Entry *tensor) {
  const char *type = json_string_value(json_object_get(entry, "dtype"));
  json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
  if (json_object_size(entry) != 3 || !type || !json_is_array(shape) || json_array_size(offsets) != 2)
    return "expected dtype, shape and two data_offsets";
  int t = 0;
  while (t < N_FILE_TYPES && strcmp(file_type_name((FileType)t), type) != 0) t++;
  if (t == N_FILE_TYPES) return "dtype: expected F32, F16 or BF16";
  tensor->type = (FileType)t;
  if (json_array_size(shape) > FILE_MAX_DIM) return "shape: more than 8 dimensions";
  tensor->n_dim = (int)json_array_size(shape);
  int64_t bytes = file_type_bytes((FileType)t);
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
  const Entry *x = a, *y = b;
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
      Entry *tensor = &file->tensors[file->n_tensors++];
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

static Status read_shard(WeightsFile *file, Safetensors *shard) {
  const Mapped *map;
  TRY(weights_file_map(file, shard->path, &map));
  shard->map = map->data, shard->map_bytes = map->bytes;
  TRY(parse_header(shard));
  TRY(read_entries(shard));
  for (int i = 0; i < shard->n_tensors; i++) {
    const Entry *entry = &shard->tensors[i];
    FileTensor *tensor = weights_file_add(file, entry->name);
    tensor->type = entry->type, tensor->n_dim = entry->n_dim;
    memcpy(tensor->dim, entry->dim, sizeof tensor->dim);
    tensor->data = shard->data + entry->begin, tensor->bytes = entry->end - entry->begin;
  }
  return STATUS_OK;
}

Status safetensors_read(WeightsFile *file, const char *path) {
  Safetensors shard = {.path = path};
  Status status = read_shard(file, &shard);
  json_decref(shard.header);
  free(shard.tensors);
  return status;
}

/* The tensors of the shard, from `first` on, are those that the map says. */
static Status match_shard(const WeightsFile *file, int first, const json_t *weight_map, const char *shard,
                          size_t *n_found) {
  for (int i = first; i < file->n_tensors; i++, (*n_found)++) {
    const char *name = file->tensors[i].name;
    const json_t *named = json_object_get(weight_map, name);
    if (!named && !strcmp(name, "backbone.embedding.weight"))
      named = json_object_get(weight_map, "backbone.embeddings.weight");
    if (!named || strcmp(json_string_value(named), shard) != 0)
      return status_fail(CODE_CHECKPOINT, "%s: %.96s: found in %.96s, expected %.96s", file->path, name, shard,
                         named ? json_string_value(named) : "none of this name");
  }
  return STATUS_OK;
}

static Status read_shards(WeightsFile *file, const char *directory, const json_t *weight_map) {
  const char *name;
  json_t *value, *done = json_object();
  size_t n_found = 0;
  Status status = STATUS_OK;
  json_object_foreach((json_t *)(uintptr_t)weight_map, name, value) {
    const char *shard = json_string_value(value);
    if (!shard || !*shard || *shard == '.' || strchr(shard, '/')) {
      status = status_fail(CODE_CHECKPOINT, "%s: weight_map: %.96s: expected the name of a file beside this one",
                           file->path, name);
      break;
    }
    if (json_object_get(done, shard)) continue;
    json_object_set_new(done, shard, json_true());
    char *path = base_format("%s/%s", directory, shard);
    const int first = file->n_tensors;
    status = safetensors_read(file, path);
    if (status.code == CODE_OK) status = match_shard(file, first, weight_map, shard, &n_found);
    free(path);
    if (status.code != CODE_OK) break;
  }
  json_decref(done);
  TRY(status);
  if (n_found == json_object_size(weight_map)) return STATUS_OK;
  return status_fail(CODE_CHECKPOINT, "%s: weight_map: found %zu of its %zu tensors in their files", file->path,
                     n_found, json_object_size(weight_map));
}

Status safetensors_read_index(WeightsFile *file, const char *directory, const char *path) {
  const Mapped *map;
  TRY(weights_file_map(file, path, &map));
  json_error_t error;
  json_t *root =
      map->bytes <= MAX_HEADER_BYTES ? json_loadb(map->data, map->bytes, JSON_REJECT_DUPLICATES, &error) : NULL;
  json_t *weight_map = json_object_get(root, "weight_map");
  Status status = json_object_size(weight_map) > 0
                      ? read_shards(file, directory, weight_map)
                      : status_fail(CODE_CHECKPOINT, "%s: expected JSON with a weight_map of tensors and files", path);
  json_decref(root);
  return status;
}
