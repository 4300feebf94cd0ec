/* weights_file: tensors by name out of a weights directory, whatever they are stored as: model.safetensors, shards named by
 * model.safetensors.index.json, or the zip of an old pytorch_model.bin. Files are mapped; nothing in them is believed before
 * it is checked. Errors are CODE_CHECKPOINT, one line with the file. */
#pragma once

#include "tensor/readable.h"

enum { FILE_MAX_DIM = 8 };

typedef enum FileType { FILE_F32, FILE_F16, FILE_BF16, N_FILE_TYPES } FileType;

typedef struct FileTensor {
  char *name; /* canonical: what Hugging Face calls backbone.embeddings.weight is backbone.embedding.weight */
  FileType type;
  int n_dim;
  int64_t dim[FILE_MAX_DIM];
  const unsigned char *data; /* need not be aligned */
  int64_t bytes;
} FileTensor;

typedef struct WeightsFile {
  char *path;         /* of what was opened: a file */
  const char *format; /* "safetensors", "sharded safetensors", "pytorch_model.bin" */
  FileTensor *tensors;
  int n_tensors, capacity;
  Mapped *maps;
  int n_maps;
} WeightsFile;

Status weights_file_open(const char *directory, WeightsFile *file);
void weights_file_close(WeightsFile *file);
const FileTensor *weights_file_find(const WeightsFile *file, const char *name); /* NULL: none */
const char *file_type_name(FileType type);                                      /* as safetensors has it */
int64_t file_type_bytes(FileType type);

/* For the readers of one format each (weights_safetensors.c, weights_pickle.c). */
Status weights_file_map(WeightsFile *file, const char *path, const Mapped **map);
/* Room for one more, zeroed but for its name, which is copied. */
FileTensor *weights_file_add(WeightsFile *file, const char *name);
Status safetensors_read(WeightsFile *file, const char *path);
Status safetensors_read_index(WeightsFile *file, const char *directory, const char *path);
Status pickle_read(WeightsFile *file, const char *path);
