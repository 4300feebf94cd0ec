/* weights_file: see weights_file.h. */
#include "models/weights_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
  const char *name;
  int64_t bytes;
} FILE_TYPES[N_FILE_TYPES] = {[FILE_F32] = {"F32", 4}, [FILE_F16] = {"F16", 2}, [FILE_BF16] = {"BF16", 2}};

const char *file_type_name(FileType type) { return FILE_TYPES[type].name; }
int64_t file_type_bytes(FileType type) { return FILE_TYPES[type].bytes; }

Status weights_file_map(WeightsFile *file, const char *path, const Mapped **map) {
  enum { LEAST_BYTES = 10 }; /* of a format that is read: a safetensors' length and an empty header */
  Mapped mapped;
  TRY(readable_map(path, CODE_CHECKPOINT, &mapped));
  if (mapped.bytes < LEAST_BYTES) {
    const size_t bytes = mapped.bytes;
    readable_unmap(&mapped);
    return status_fail(CODE_CHECKPOINT, "%s: not a %s file: found %zu bytes", path, file->format, bytes);
  }
  file->maps = base_realloc(file->maps, (size_t)(file->n_maps + 1) * sizeof *file->maps);
  file->maps[file->n_maps] = mapped;
  *map = &file->maps[file->n_maps++];
  return STATUS_OK;
}

FileTensor *weights_file_add(WeightsFile *file, const char *name) {
  if (file->n_tensors == file->capacity) {
    file->capacity = file->capacity ? 2 * file->capacity : 64;
    file->tensors = base_realloc(file->tensors, (size_t)file->capacity * sizeof *file->tensors);
  }
  FileTensor *tensor = &file->tensors[file->n_tensors++];
  *tensor = (FileTensor){
      .name = base_strdup(strcmp(name, "backbone.embeddings.weight") ? name : "backbone.embedding.weight")};
  return tensor;
}

const FileTensor *weights_file_find(const WeightsFile *file, const char *name) {
  for (int i = 0; i < file->n_tensors; i++)
    if (!strcmp(file->tensors[i].name, name)) return &file->tensors[i];
  return NULL;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const FileTensor *)a)->name, ((const FileTensor *)b)->name);
}

static Status refuse_twice(WeightsFile *file) {
  if (file->n_tensors) qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_name);
  for (int i = 1; i < file->n_tensors; i++)
    if (by_name(&file->tensors[i - 1], &file->tensors[i]) == 0)
      return status_fail(CODE_CHECKPOINT, "%s: %.96s: found twice, expected once", file->path, file->tensors[i].name);
  return STATUS_OK;
}

static Status read_directory(const char *directory, WeightsFile *file) {
  static const struct {
    const char *name, *format;
  } FORMS[] = {{"model.safetensors", "safetensors"},
               {"model.safetensors.index.json", "sharded safetensors"},
               {"pytorch_model.bin", "pytorch_model.bin"}};
  int form = 0;
  for (int i = 2; i >= 0; i--) {
    char *path = base_format("%s/%s", directory, FORMS[i].name);
    if (access(path, F_OK) == 0) form = i;
    free(path);
  }
  *file = (WeightsFile){.path = base_format("%s/%s", directory, FORMS[form].name), .format = FORMS[form].format};
  if (form == 0) TRY(safetensors_read(file, file->path));
  else if (form == 1) TRY(safetensors_read_index(file, directory, file->path));
  else TRY(pickle_read(file, file->path));
  return refuse_twice(file);
}

Status weights_file_open(const char *directory, WeightsFile *file) {
  TRY_OR(read_directory(directory, file), weights_file_close(file));
  return STATUS_OK;
}

void weights_file_close(WeightsFile *file) {
  for (int i = 0; i < file->n_maps; i++) readable_unmap(&file->maps[i]);
  for (int i = 0; i < file->n_tensors; i++) free(file->tensors[i].name);
  free(file->maps), free(file->tensors), free(file->path);
  *file = (WeightsFile){0};
}
