/* h5: the only place that calls HDF5. Three uses of one file type:
 *
 *  - plain files written for others (score, states): h5_create(..., false) .. h5_commit;
 *  - plain files read from others (golden files, tokens; h5py's defaults): h5_open_read. Any numeric dataset without
 *    links out of the file, external or virtual storage, or filters beyond Fletcher32, shuffle and deflate;
 *  - sealed files (checkpoints): h5_create(..., true) and h5_open_sealed. Chunked, Fletcher32, format V110, no times: equal
 *    content is equal bytes. Each dataset carries its XXH3-64; the root's `digest` is the XXH3-64 of the sorted list of all
 *    datasets (name, type, shape, hash), groups and root attributes. h5_open_sealed refuses everything a checkpoint never
 *    holds before it reads any data, then verifies every hash, so what opens is what was saved.
 *
 * Names are paths inside the file: "model/backbone.norm_f.weight". An error is one line with file, object and reason, and
 * carries the code given at opening. Missing objects are errors (ask h5_has first where they may be missing).
 * Measurements behind the rules: docs/decisions.md. */
#pragma once

#include "tensor/tensor.h"

#define H5_MAX_DIM 8

typedef struct H5File H5File;

typedef enum H5Kind {
  H5_F32,
  H5_F64,
  H5_I32,
  H5_I64,
  H5_U8,
  H5_OTHER
} H5Kind; /* stored element types; H5_OTHER: reading only */

typedef struct H5Shape {
  H5Kind kind;
  int n_dim; /* 0: a scalar */
  int64_t dim[H5_MAX_DIM];
  int64_t count; /* elements */
} H5Shape;

/* ---- opening and ending */

/* A plain file of any origin. */
Status h5_open_read(const char *path, Code code, H5File **file);
/* A sealed file, verified. max_bytes: largest file to accept; 0: no limit but the machine's. */
Status h5_open_sealed(const char *path, int64_t max_bytes, Code code, H5File **file);
/* A new file, to replace `path` at h5_commit. expected_bytes: for the check of free space. */
Status h5_create(const char *path, int64_t expected_bytes, bool sealed, Code code, H5File **file);
/* Closes, reads a sealed file back and verifies it, fsyncs, renames. Frees *file, also on failure (then the temp file is
 * removed and the old file untouched). */
Status h5_commit(H5File *file);
/* Closes a file; one that was created and not committed is removed. NULL is fine. */
void h5_close(H5File *file);

/* ---- reading */

bool h5_has(H5File *file, const char *name); /* a dataset or group */
Status h5_shape(H5File *file, const char *name, H5Shape *shape);
/* The whole dataset, converted; `count` is the room in elements and must equal the dataset's. Integer readers refuse
 * float datasets and values out of range; float readers take any number. */
Status h5_read_f64(H5File *file, const char *name, double *out, int64_t count);
Status h5_read_f32(H5File *file, const char *name, float *out, int64_t count);
Status h5_read_i32(H5File *file, const char *name, int32_t *out, int64_t count);
/* A text written by h5_write_text: malloc'ed, at most max_bytes long. */
Status h5_read_text(H5File *file, const char *name, int64_t max_bytes, char **text);
/* Attributes of a group or dataset ("/" for the file's own). Strings: fixed or variable length, malloc'ed. */
Status h5_attr_string(H5File *file, const char *object, const char *attr, char **text);
Status h5_attr_double(H5File *file, const char *object, const char *attr, double *value);
Status h5_attr_int(H5File *file, const char *object, const char *attr, int64_t *value);
/* Names of the members of a group ("/": the root), sorted by name; of root attributes likewise. */
Status h5_list(H5File *file, const char *group, char ***names, int *n);
Status h5_list_attrs(H5File *file, char ***names, int *n);
void h5_list_free(char **names, int n);

/* ---- writing; groups on the way are made */

/* A dataset and its values, row by row. kind is not H5_OTHER; count > 0. */
Status h5_write(H5File *file, const char *name, H5Kind kind, int n_dim, const int64_t *dim, const void *data);
/* A plain file's dataset in pieces: made once, then rows [first, first + n_rows) of its first dimension at a time. */
Status h5_make(H5File *file, const char *name, H5Kind kind, int n_dim, const int64_t *dim);
Status h5_write_rows(H5File *file, const char *name, int64_t first, int64_t n_rows, const void *data);
/* A text as bytes with its terminating zero: one-dimensional, of any length, checksummed like data. */
Status h5_write_text(H5File *file, const char *name, const char *text);
/* Root attributes; once a name. */
Status h5_set_int(H5File *file, const char *attr, int64_t value);
Status h5_set_double(H5File *file, const char *attr, double value);

/* The library's major, minor and release number. */
void h5_version(unsigned version[3]);
