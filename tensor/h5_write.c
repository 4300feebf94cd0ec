/* h5_write: creating and writing; see h5.h. Every return value of HDF5 is kept: on a full disk H5Dwrite may fail and all
 * later calls succeed. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tensor/h5_internal.h"

static Status file_create(H5File *file) {
  hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE);
  bool ready = access >= 0 && creation >= 0 && H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
               H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 && H5Pset_obj_track_times(creation, false) >= 0;
  if (ready) file->id = H5Fcreate(file->publish.temp, H5F_ACC_TRUNC, creation, access);
  Status status = file->id < 0 ? h5_fail_library(file, "cannot create", "") : STATUS_OK;
  H5Pclose(access);
  H5Pclose(creation);
  return status;
}

Status h5_create(const char *path, int64_t expected_bytes, bool sealed, Code code, H5File **result) {
  h5_prepare();
  Publish publish;
  TRY(publish_begin(&publish, path, expected_bytes, code));
  H5File *file = base_zalloc(sizeof *file);
  *file = (H5File){
      .id = -1, .path = base_strdup(path), .code = code, .sealed = sealed, .writing = true, .publish = publish};
  TRY_OR(file_create(file), h5_close(file));
  *result = file;
  return STATUS_OK;
}

static Status attr_write(H5File *file, hid_t object, const char *name, const char *attr, H5Kind kind,
                         const void *value) {
  hid_t space = H5Screate(H5S_SCALAR), type = h5_kind_type(kind);
  hid_t id = space < 0 ? -1 : H5Acreate2(object, attr, type, space, H5P_DEFAULT, H5P_DEFAULT);
  bool written = id >= 0 && H5Awrite(id, type, value) >= 0;
  Status status = written ? STATUS_OK : h5_fail_library(file, "writing an attribute of", name);
  if (id >= 0 && H5Aclose(id) < 0 && written) status = h5_fail_library(file, "writing an attribute of", name);
  if (space >= 0) H5Sclose(space);
  return status;
}

/* Makes the groups on the way to a dataset; sealed files list them. */
static Status groups_make(H5File *file, const char *name) {
  char *path = base_strdup(name);
  Status status = STATUS_OK;
  for (char *slash = path; status.code == CODE_OK && (slash = strchr(slash, '/')); *slash++ = '/') {
    *slash = '\0';
    if (H5Lexists(file->id, path, H5P_DEFAULT) > 0) continue;
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE), id = -1;
    if (creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0)
      id = H5Gcreate2(file->id, path, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (id < 0 || H5Gclose(id) < 0) status = h5_fail_library(file, "making group", path);
    H5Pclose(creation);
    if (file->sealed) seal_add(&file->list, SEAL_GROUP, path, &(H5Shape){0}, 0);
  }
  free(path);
  return status;
}

/* Chunks of at most SEAL_CHUNK_BYTES: whole rows as far as they fit, cut evenly so that little is padding. */
static void chunk_choose(H5Kind kind, int n_dim, const int64_t *dim, hsize_t *chunk) {
  int64_t room = SEAL_CHUNK_BYTES / (int64_t)h5_kind_bytes(kind);
  for (int i = n_dim - 1; i >= 0; i--) {
    int64_t n_pieces = ceil_div(dim[i], room);
    chunk[i] = (hsize_t)ceil_div(dim[i], n_pieces);
    room = max_i64(1, room / (int64_t)chunk[i]);
  }
}

static hid_t dataset_properties(H5Kind kind, int n_dim, const int64_t *dim) {
  hsize_t chunk[H5_MAX_DIM];
  chunk_choose(kind, n_dim, dim, chunk);
  hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  if (creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0 && H5Pset_chunk(creation, n_dim, chunk) >= 0 &&
      H5Pset_fletcher32(creation) >= 0)
    return creation;
  H5Pclose(creation);
  return -1;
}

/* A new dataset's id; the caller closes it. */
static Status dataset_make(H5File *file, const char *name, H5Kind kind, int n_dim, const int64_t *dim, hid_t *id) {
  CHECK(file->writing && kind != H5_OTHER && n_dim >= 1 && n_dim <= H5_MAX_DIM, "%s: kind %d, %d dimensions", name,
        kind, n_dim);
  hsize_t size[H5_MAX_DIM];
  for (int i = 0; i < n_dim; i++) {
    CHECK(dim[i] > 0, "%s: dimension %d is %lld", name, i, (long long)dim[i]);
    size[i] = (hsize_t)dim[i];
  }
  TRY(groups_make(file, name));
  hid_t space = H5Screate_simple(n_dim, size, NULL), creation = dataset_properties(kind, n_dim, dim);
  *id = -1;
  if (space >= 0 && creation >= 0)
    *id = H5Dcreate2(file->id, name, h5_kind_type(kind), space, H5P_DEFAULT, creation, H5P_DEFAULT);
  Status status = *id < 0 ? h5_fail_library(file, "making dataset", name) : STATUS_OK;
  if (space >= 0) H5Sclose(space);
  if (creation >= 0) H5Pclose(creation);
  return status;
}

static Status dataset_end(H5File *file, const char *name, hid_t id, Status status) {
  if (H5Dclose(id) < 0 && status.code == CODE_OK) status = h5_fail_library(file, "writing", name);
  return status;
}

Status h5_write(H5File *file, const char *name, H5Kind kind, int n_dim, const int64_t *dim, const void *data) {
  hid_t id;
  TRY(dataset_make(file, name, kind, n_dim, dim, &id));
  Status status = STATUS_OK;
  if (H5Dwrite(id, h5_kind_type(kind), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
    status = h5_fail_library(file, "writing", name);
  if (file->sealed && status.code == CODE_OK) {
    H5Shape shape = {.kind = kind, .n_dim = n_dim, .count = 1};
    for (int i = 0; i < n_dim; i++) shape.count *= shape.dim[i] = dim[i];
    uint64_t hash = seal_hash(data, (size_t)shape.count * h5_kind_bytes(kind));
    seal_add(&file->list, SEAL_DATASET, name, &shape, hash);
    status = attr_write(file, id, name, SEAL_HASH_ATTR, H5_I64, &hash);
  }
  return dataset_end(file, name, id, status);
}

Status h5_make(H5File *file, const char *name, H5Kind kind, int n_dim, const int64_t *dim) {
  CHECK(!file->sealed, "%s: a sealed file's datasets are written whole", name);
  hid_t id;
  TRY(dataset_make(file, name, kind, n_dim, dim, &id));
  return dataset_end(file, name, id, STATUS_OK);
}

static bool rows_write(const H5Dataset *dataset, int64_t first, int64_t n_rows, const void *data) {
  hsize_t start[H5_MAX_DIM] = {(hsize_t)first}, size[H5_MAX_DIM] = {(hsize_t)n_rows};
  for (int i = 1; i < dataset->shape.n_dim; i++) size[i] = (hsize_t)dataset->shape.dim[i];
  hid_t memory = H5Screate_simple(dataset->shape.n_dim, size, NULL);
  bool written =
      memory >= 0 && H5Sselect_hyperslab(dataset->space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0 &&
      H5Dwrite(dataset->id, h5_kind_type(dataset->shape.kind), memory, dataset->space, H5P_DEFAULT, data) >= 0;
  if (memory >= 0) H5Sclose(memory);
  return written;
}

Status h5_write_rows(H5File *file, const char *name, int64_t first, int64_t n_rows, const void *data) {
  H5Dataset dataset = {.id = H5Dopen2(file->id, name, H5P_DEFAULT)};
  if (dataset.id < 0) return h5_fail_library(file, "writing", name);
  dataset.space = H5Dget_space(dataset.id), dataset.type = H5Dget_type(dataset.id);
  dataset.shape.kind = h5_kind_of(dataset.type);
  dataset.shape.n_dim = H5Sget_simple_extent_ndims(dataset.space);
  hsize_t dim[H5_MAX_DIM];
  H5Sget_simple_extent_dims(dataset.space, dim, NULL);
  for (int i = 0; i < dataset.shape.n_dim; i++) dataset.shape.dim[i] = (int64_t)dim[i];
  CHECK(first >= 0 && n_rows > 0 && first + n_rows <= dataset.shape.dim[0], "%s: rows %lld + %lld of %lld", name,
        (long long)first, (long long)n_rows, (long long)dataset.shape.dim[0]);
  Status status = rows_write(&dataset, first, n_rows, data) ? STATUS_OK : h5_fail_library(file, "writing", name);
  H5Tclose(dataset.type);
  H5Sclose(dataset.space);
  return dataset_end(file, name, dataset.id, status);
}

Status h5_write_text(H5File *file, const char *name, const char *text) {
  return h5_write(file, name, H5_U8, 1, (const int64_t[]){(int64_t)strlen(text) + 1}, text);
}

static Status root_attr(H5File *file, const char *attr, H5Kind kind, const void *value) {
  CHECK(file->writing, "%s: attribute %s of a file opened for reading", file->path, attr);
  uint64_t bits;
  memcpy(&bits, value, sizeof bits);
  if (file->sealed) seal_add(&file->list, SEAL_ATTR, attr, &(H5Shape){.kind = kind}, bits);
  return attr_write(file, file->id, "/", attr, kind, value);
}

Status h5_set_int(H5File *file, const char *attr, int64_t value) { return root_attr(file, attr, H5_I64, &value); }
Status h5_set_double(H5File *file, const char *attr, double value) { return root_attr(file, attr, H5_F64, &value); }

/* Reads a sealed file back under its temp name, so that only a file known to be good takes the old one's place. */
static Status read_back(const H5File *file) {
  H5File *again;
  TRY(h5_open_sealed(file->publish.temp, 0, file->code, &again));
  h5_close(again);
  return STATUS_OK;
}

static Status commit(H5File *file) {
  if (file->sealed) {
    uint64_t digest = seal_digest(&file->list);
    TRY(attr_write(file, file->id, "/", SEAL_DIGEST_ATTR, H5_I64, &digest));
  }
  if (H5Fflush(file->id, H5F_SCOPE_GLOBAL) < 0) return h5_fail_library(file, "cannot write", "");
  herr_t closed = H5Fclose(file->id);
  file->id = -1;
  if (closed < 0) return h5_fail_library(file, "cannot write", "");
  if (file->sealed) TRY(read_back(file));
  return publish_commit(&file->publish);
}

Status h5_commit(H5File *file) {
  Status status = commit(file);
  h5_close(file);
  return status;
}
