/* h5_internal: what the files of h5 share: the file's struct, errors, and the checks of foreign objects. */
#pragma once

#include <hdf5.h>

#include "tensor/h5.h"
#include "tensor/publish.h"
#include "tensor/readable.h"

typedef enum SealTag { SEAL_ATTR = 'A', SEAL_DATASET = 'D', SEAL_GROUP = 'G' } SealTag;

/* One line of the list that the digest is over. */
typedef struct SealEntry {
  SealTag tag;
  char *name;
  H5Shape shape; /* of a dataset; an attribute's kind */
  uint64_t hash; /* XXH3-64 of a dataset's bytes; the bits of an attribute's value */
} SealEntry;

typedef struct SealList {
  SealEntry *entries;
  int n, capacity;
} SealList;

struct H5File {
  hid_t id;
  char *path;
  Code code;
  bool sealed, writing;
  Publish publish; /* when writing */
  SealList list;   /* when sealed: what was written, or what was found */
};

/* Once a process: HDF5 without its exit handler (it crashes after a close that failed) and without plug-ins; once a
 * thread: no printing of errors. */
void h5_prepare(void);
/* "file: what name: the innermost reason on HDF5's error stack"; call it right after the HDF5 call that failed. */
Status h5_fail_library(const H5File *file, const char *what, const char *name);
/* "file: name: reason" */
Status h5_refuse(const H5File *file, const char *name, const char *format, ...) PRINTF_LIKE(3, 4);

/* The stored element type; H5_OTHER for all that are not exactly one of ours. */
H5Kind h5_kind_of(hid_t type);
hid_t h5_kind_type(H5Kind kind); /* a predefined HDF5 type: never closed */
size_t h5_kind_bytes(H5Kind kind);

/* An opened dataset, its storage found harmless. Its space belongs to it. */
typedef struct H5Dataset {
  hid_t id, space, type;
  H5Shape shape;
  hsize_t chunk[H5_MAX_DIM]; /* sealed files */
} H5Dataset;
/* name: relative to `at` */
Status h5_dataset_open(const H5File *file, hid_t at, const char *name, H5Dataset *dataset);
void h5_dataset_close(H5Dataset *dataset);

/* Refused where there is none, or where it is not reached through hard links alone. */
Status h5_require_object(const H5File *file, const char *name);

/* Names of links or attributes, sorted; at most `limit` of them. */
typedef struct H5Names {
  char **names;
  int n, capacity, limit;
  bool all_hard;  /* no soft, external or user-defined link among them */
  bool all_plain; /* printable ASCII of a sane length only */
} H5Names;
Status h5_names_of_links(const H5File *file, hid_t group, const char *name, int limit, H5Names *names);
Status h5_names_of_attrs(const H5File *file, hid_t object, const char *name, int limit, H5Names *names);

/* ---- h5_seal.c */
void seal_add(SealList *list, SealTag tag, const char *name, const H5Shape *shape, uint64_t hash);
void seal_free(SealList *list);
uint64_t seal_hash(const void *data, size_t bytes);
/* Sorts the list and hashes it. */
uint64_t seal_digest(SealList *list);
/* Walks an opened file, fills file->list, refuses what a sealed file never holds, verifies every hash. */
Status seal_verify(H5File *file);

#define SEAL_HASH_ATTR "xxh3"
#define SEAL_DIGEST_ATTR "digest"
#define SEAL_CHUNK_BYTES (1 << 20)
