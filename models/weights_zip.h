/* weights_zip: a zip of stored entries, as torch.save writes it, in memory. (APPNOTE 4.3 for zip; caffe2/serialize.) */
#pragma once

#include "tensor/base.h"

typedef struct ZipEntry {
  const char *name; /* not NUL-terminated */
  size_t n_name;
  const unsigned char *data;
  uint64_t bytes;
} ZipEntry;

typedef struct Zip {
  const char *path;
  const unsigned char *bytes;
  size_t n;
  ZipEntry *entry;
  size_t n_entries;
  size_t n_prefix; /* every name begins with "<folder>/" */
} Zip;

/* Finds the entries of path, bytes and n; what is no such zip is CODE_CHECKPOINT. The caller frees zip->entry, also on failure. */
Status zip_read(Zip *zip);
/* The entry "<folder>/<name>"; NULL: none. */
const ZipEntry *zip_find(const Zip *zip, const char *name);
/* CODE_CHECKPOINT: the file, the problem and what to do. */
Status zip_refuse(const Zip *zip, const char *problem);
/* A number of 1 to 8 bytes, the lowest first. */
static inline uint64_t little(const unsigned char *at, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; i--) value = value << 8 | at[i];
  return value;
}
