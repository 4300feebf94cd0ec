/* h5: opening, errors and reading; see h5.h. */
#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/h5_internal.h"

/* ---- the library and its errors */

static void prepare_once(void) {
  H5dont_atexit();
  H5open();
  H5PLset_loading_state(0);
}

void h5_prepare(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare_once);
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* Keeps the innermost description, or the system's words inside it. */
static herr_t error_innermost(unsigned n, const H5E_error2_t *error, void *user) {
  char *reason = user;
  if (n > 0 || !error->desc) return 0;
  const char *mark = "error message = '", *at = strstr(error->desc, mark);
  const char *from = at ? at + strlen(mark) : error->desc;
  size_t length = at ? strcspn(from, "'") : strlen(from);
  snprintf(reason, 160, "%.*s", (int)(length < 150 ? length : 150), from);
  return 0;
}

void h5_version(unsigned version[3]) {
  h5_prepare();
  H5get_libversion(&version[0], &version[1], &version[2]);
}

Status h5_fail_library(const H5File *file, const char *what, const char *name) {
  char reason[160] = "damaged file";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, error_innermost, reason);
  H5Eclear2(H5E_DEFAULT);
  return status_fail(file->code, "%s: %s%s%s: %s", file->path, what, *name ? " " : "", name, reason);
}

Status h5_refuse(const H5File *file, const char *name, const char *format, ...) {
  char reason[256];
  va_list args;
  va_start(args, format);
  vsnprintf(reason, sizeof reason, format, args);
  va_end(args);
  return status_fail(file->code, "%s: %s: %s", file->path, name, reason);
}

/* ---- types */

H5Kind h5_kind_of(hid_t type) {
  for (H5Kind kind = H5_F32; kind < H5_OTHER; kind++)
    if (H5Tequal(type, h5_kind_type(kind)) > 0) return kind;
  return H5_OTHER;
}

hid_t h5_kind_type(H5Kind kind) {
  switch (kind) {
  case H5_F32: return H5T_IEEE_F32LE;
  case H5_F64: return H5T_IEEE_F64LE;
  case H5_I32: return H5T_STD_I32LE;
  case H5_I64: return H5T_STD_I64LE;
  case H5_U8: return H5T_STD_U8LE;
  default: break;
  }
  CHECK(false, "kind %d has no type", kind);
}

size_t h5_kind_bytes(H5Kind kind) {
  static const size_t BYTES[] = {[H5_F32] = 4, [H5_F64] = 8, [H5_I32] = 4, [H5_I64] = 8, [H5_U8] = 1};
  CHECK(kind < H5_OTHER, "kind %d has no size", kind);
  return BYTES[kind];
}

/* ---- opening */

/* What can be said before HDF5 sees the file: that it is a file, of a sane size, that begins like one. */
static Status file_check(const H5File *file, int64_t max_bytes) {
  static const unsigned char SIGNATURE[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  int fd;
  size_t bytes;
  unsigned char head[sizeof SIGNATURE];
  TRY(readable_open(file->path, file->code, &fd, &bytes));
  const bool begins = pread(fd, head, sizeof head, 0) == sizeof head && !memcmp(head, SIGNATURE, sizeof head);
  close(fd);
  if (!begins)
    return status_fail(file->code, "%s: not an HDF5 file (its first bytes are not the signature)", file->path);
  if (max_bytes > 0 && bytes > (size_t)max_bytes)
    return status_fail(file->code, "%s: too large: found %zu bytes, expected at most %lld", file->path, bytes,
                       (long long)max_bytes);
  return STATUS_OK;
}

static Status file_open(H5File *file, int64_t max_bytes) {
  h5_prepare();
  TRY(file_check(file, max_bytes));
  hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  file->id = H5Fopen(file->path, H5F_ACC_RDONLY, access);
  H5Pclose(access);
  if (file->id < 0) return h5_fail_library(file, "cannot open", "");
  return file->sealed ? seal_verify(file) : STATUS_OK;
}

static Status open_any(const char *path, int64_t max_bytes, bool sealed, Code code, H5File **result) {
  H5File *file = base_zalloc(sizeof *file);
  *file = (H5File){.id = -1, .path = base_strdup(path), .code = code, .sealed = sealed};
  TRY_OR(file_open(file, max_bytes), h5_close(file));
  *result = file;
  return STATUS_OK;
}

Status h5_open_read(const char *path, Code code, H5File **file) { return open_any(path, 0, false, code, file); }

Status h5_open_sealed(const char *path, int64_t max_bytes, Code code, H5File **file) {
  return open_any(path, max_bytes, true, code, file);
}

/* A file that will be thrown away is pointed at /dev/null, where writing cannot fail: a close whose flush fails leaves
 * the library's whole cache of the file behind (measured: 640 KiB a failed save). */
static void write_nowhere(const H5File *file) {
  int *fd = NULL, nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nowhere >= 0 && H5Fget_vfd_handle(file->id, H5P_DEFAULT, (void **)&fd) >= 0 && fd) dup3(nowhere, *fd, O_CLOEXEC);
  if (nowhere >= 0) close(nowhere);
}

void h5_close(H5File *file) {
  if (!file) return;
  if (file->id >= 0 && file->writing) write_nowhere(file);
  if (file->id >= 0) H5Fclose(file->id);
  publish_abandon(&file->publish);
  seal_free(&file->list);
  free(file->path);
  free(file);
}

/* ---- names */

static herr_t names_add(H5Names *names, const char *name) {
  if (names->n == names->limit) return 1;
  if (strlen(name) > 255) names->all_plain = false;
  for (const char *c = name; *c; c++)
    if (!isgraph((unsigned char)*c)) names->all_plain = false;
  if (names->n == names->capacity) {
    names->capacity = names->capacity ? 2 * names->capacity : 32;
    names->names = base_realloc(names->names, (size_t)names->capacity * sizeof *names->names);
  }
  names->names[names->n++] = base_strdup(name);
  return 0;
}

static herr_t link_add(hid_t group, const char *name, const H5L_info_t *info, void *user) {
  (void)group;
  H5Names *names = user;
  if (info->type != H5L_TYPE_HARD) names->all_hard = false;
  return names_add(names, name);
}

static herr_t attr_add(hid_t object, const char *name, const H5A_info_t *info, void *user) {
  (void)object, (void)info;
  return names_add(user, name);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static Status names_finish(const H5File *file, herr_t rc, const char *what, const char *name, H5Names *names) {
  Status status = STATUS_OK;
  if (rc < 0) status = h5_fail_library(file, what, name);
  if (rc > 0) status = h5_refuse(file, name, "more than %d members", names->limit);
  TRY_OR(status, h5_list_free(names->names, names->n));
  if (names->n) qsort(names->names, (size_t)names->n, sizeof *names->names, compare_names);
  return STATUS_OK;
}

Status h5_names_of_links(const H5File *file, hid_t group, const char *name, int limit, H5Names *names) {
  *names = (H5Names){.limit = limit, .all_hard = true, .all_plain = true};
  herr_t rc = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, link_add, names);
  return names_finish(file, rc, "listing", name, names);
}

Status h5_names_of_attrs(const H5File *file, hid_t object, const char *name, int limit, H5Names *names) {
  *names = (H5Names){.limit = limit, .all_hard = true, .all_plain = true};
  herr_t rc = H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, attr_add, names);
  return names_finish(file, rc, "listing attributes of", name, names);
}

void h5_list_free(char **names, int n) {
  for (int i = 0; i < n; i++) free(names[i]);
  free(names);
}

/* ---- finding objects: through hard links only, because every other kind can lead out of the file */

typedef enum Found { FOUND_NOTHING, FOUND_OBJECT, FOUND_LINK } Found;

static Found find_object(const H5File *file, const char *name) {
  if (!strcmp(name, "/")) return FOUND_OBJECT;
  char *path = base_strdup(name);
  Found found = FOUND_OBJECT;
  for (char *slash = path; slash && found == FOUND_OBJECT;) {
    slash = strchr(slash, '/');
    if (slash) *slash = '\0';
    H5L_info_t info;
    if (H5Lexists(file->id, path, H5P_DEFAULT) <= 0 || H5Lget_info(file->id, path, &info, H5P_DEFAULT) < 0)
      found = FOUND_NOTHING;
    else if (info.type != H5L_TYPE_HARD) found = FOUND_LINK;
    if (slash) *slash++ = '/';
  }
  H5Eclear2(H5E_DEFAULT);
  free(path);
  return found;
}

Status h5_require_object(const H5File *file, const char *name) {
  Found found = find_object(file, name);
  if (found == FOUND_NOTHING) return h5_refuse(file, name, "missing");
  if (found == FOUND_LINK) return h5_refuse(file, name, "refused: a soft or external link, expected the object itself");
  return STATUS_OK;
}

bool h5_has(H5File *file, const char *name) { return find_object(file, name) == FOUND_OBJECT; }

/* ---- datasets */

/* NULL, or what is wrong with how a dataset is stored. Sealed files know one storage only. */
static const char *storage_problem(const H5File *file, hid_t properties, H5Dataset *dataset) {
  H5D_layout_t layout = H5Pget_layout(properties);
  if (layout == H5D_VIRTUAL) return "refused: virtual dataset, its data may lie in other files";
  if (H5Pget_external_count(properties) != 0) return "refused: external storage, its data lies in other files";
  if (layout < 0) return "unknown storage layout";
  int n_filters = H5Pget_nfilters(properties);
  for (int i = 0; i < n_filters; i++) {
    unsigned flags, config;
    size_t n_values = 0;
    H5Z_filter_t filter = H5Pget_filter2(properties, (unsigned)i, &flags, &n_values, NULL, 0, NULL, &config);
    if (filter != H5Z_FILTER_FLETCHER32 &&
        (file->sealed || (filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE)))
      return "refused: a filter other than those expected";
  }
  if (!file->sealed) return NULL;
  if (layout != H5D_CHUNKED || n_filters != 1) return "refused: expected chunks with Fletcher32";
  int n_dim = H5Pget_chunk(properties, H5_MAX_DIM, dataset->chunk);
  bool positive = n_dim > 0 && n_dim <= H5_MAX_DIM;
  for (int i = 0; i < n_dim && positive; i++) positive = dataset->chunk[i] > 0;
  return positive ? NULL : "refused: impossible chunk sizes";
}

/* NULL, or why the sizes a dataset claims cannot be: nothing is allocated from a claim that the file has no room for. */
static const char *size_problem(const H5File *file, H5Dataset *dataset) {
  H5Shape *shape = &dataset->shape;
  shape->n_dim = H5Sget_simple_extent_ndims(dataset->space);
  if (H5Sis_simple(dataset->space) <= 0 || shape->n_dim < 0 || shape->n_dim > H5_MAX_DIM)
    return "refused: not a simple array of up to 8 dimensions";
  hsize_t dim[H5_MAX_DIM], limit[H5_MAX_DIM];
  H5Sget_simple_extent_dims(dataset->space, dim, limit);
  size_t element_bytes = H5Tget_size(dataset->type);
  if (H5Sget_simple_extent_type(dataset->space) == H5S_NULL) return "refused: an empty data space";
  int64_t bytes = element_bytes > 0 && element_bytes <= 8 ? (int64_t)element_bytes : -1;
  if (bytes < 0) return "refused: elements are not numbers of up to 8 bytes";
  int64_t chunk_bytes = bytes;
  for (int i = 0; i < shape->n_dim; i++) {
    shape->dim[i] = dim[i] <= INT64_MAX ? (int64_t)dim[i] : -1;
    if (shape->dim[i] < 0 || __builtin_mul_overflow(bytes, shape->dim[i], &bytes)) return "refused: sizes overflow";
    if (!file->sealed) continue;
    if (limit[i] != dim[i]) return "refused: a dataset that can grow";
    if (__builtin_mul_overflow(chunk_bytes, (int64_t)dataset->chunk[i], &chunk_bytes))
      return "refused: chunk sizes overflow";
  }
  shape->count = bytes / (int64_t)element_bytes;
  hsize_t stored = H5Dget_storage_size(dataset->id);
  /* Deflate packs at most about 1000 to 1, unfilled chunks of a plain file are zeros: a bound on bombs, not a rule. */
  hsize_t expansion = file->sealed ? 1 : 2000;
  if ((hsize_t)bytes / expansion > stored + (file->sealed ? 0 : 1 << 20))
    return "refused: it claims more data than the file holds";
  if (file->sealed && (shape->n_dim == 0 || chunk_bytes > SEAL_CHUNK_BYTES))
    return "refused: a scalar or a chunk above 1 MiB";
  return NULL;
}

static Status dataset_check(const H5File *file, const char *name, H5Dataset *dataset) {
  /* The layout first: asking a virtual dataset for its size opens its sources. */
  hid_t properties = H5Dget_create_plist(dataset->id);
  if (properties < 0) return h5_fail_library(file, "opening dataset", name);
  const char *problem = storage_problem(file, properties, dataset);
  H5Pclose(properties);
  if (problem) return h5_refuse(file, name, "%s", problem);
  dataset->type = H5Dget_type(dataset->id);
  dataset->space = H5Dget_space(dataset->id);
  if (dataset->type < 0 || dataset->space < 0) return h5_fail_library(file, "opening dataset", name);
  H5T_class_t class = H5Tget_class(dataset->type);
  dataset->shape.kind = h5_kind_of(dataset->type);
  if ((class != H5T_INTEGER && class != H5T_FLOAT) || (file->sealed && dataset->shape.kind == H5_OTHER))
    return h5_refuse(file, name, "refused: elements of an unexpected type");
  problem = size_problem(file, dataset);
  return problem ? h5_refuse(file, name, "%s", problem) : STATUS_OK;
}

Status h5_dataset_open(const H5File *file, hid_t at, const char *name, H5Dataset *dataset) {
  *dataset = (H5Dataset){.id = -1, .space = -1, .type = -1};
  dataset->id = H5Dopen2(at, name, H5P_DEFAULT);
  if (dataset->id < 0) return h5_fail_library(file, "opening dataset", name);
  TRY_OR(dataset_check(file, name, dataset), h5_dataset_close(dataset));
  return STATUS_OK;
}

void h5_dataset_close(H5Dataset *dataset) {
  if (dataset->type >= 0) H5Tclose(dataset->type);
  if (dataset->space >= 0) H5Sclose(dataset->space);
  if (dataset->id >= 0) H5Dclose(dataset->id);
}

static Status open_by_name(H5File *file, const char *name, H5Dataset *dataset) {
  TRY(h5_require_object(file, name));
  return h5_dataset_open(file, file->id, name, dataset);
}

Status h5_shape(H5File *file, const char *name, H5Shape *shape) {
  H5Dataset dataset;
  TRY(open_by_name(file, name, &dataset));
  *shape = dataset.shape;
  h5_dataset_close(&dataset);
  return STATUS_OK;
}

/* The whole dataset as memory_type. HDF5 converts, and clamps integers without a word: hence the checks. */
static Status read_all(H5File *file, const char *name, hid_t memory_type, void *out, int64_t count) {
  H5Dataset dataset;
  TRY(open_by_name(file, name, &dataset));
  Status status = STATUS_OK;
  bool wants_integer = H5Tget_class(memory_type) == H5T_INTEGER;
  if (dataset.shape.count != count)
    status =
        h5_refuse(file, name, "found %lld elements, expected %lld", (long long)dataset.shape.count, (long long)count);
  else if (wants_integer && H5Tget_class(dataset.type) != H5T_INTEGER)
    status = h5_refuse(file, name, "found floating point numbers, expected integers");
  else if (wants_integer && H5Tget_sign(dataset.type) == H5T_SGN_NONE && H5Tget_size(dataset.type) > 4)
    status = h5_refuse(file, name, "found unsigned 64-bit integers, expected signed ones");
  else if (H5Dread(dataset.id, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
    status = h5_fail_library(file, "reading", name);
  h5_dataset_close(&dataset);
  return status;
}

Status h5_read_f64(H5File *file, const char *name, double *out, int64_t count) {
  return read_all(file, name, H5T_NATIVE_DOUBLE, out, count);
}

Status h5_read_f32(H5File *file, const char *name, float *out, int64_t count) {
  return read_all(file, name, H5T_NATIVE_FLOAT, out, count);
}

Status h5_read_i32(H5File *file, const char *name, int32_t *out, int64_t count) {
  H5Shape shape;
  TRY(h5_shape(file, name, &shape));
  if (shape.count != count)
    return h5_refuse(file, name, "found %lld elements, expected %lld", (long long)shape.count, (long long)count);
  int64_t *wide = base_alloc((size_t)count * sizeof *wide);
  Status status = read_all(file, name, H5T_NATIVE_INT64, wide, count);
  for (int64_t i = 0; i < count && status.code == CODE_OK; i++) {
    if (wide[i] < INT32_MIN || wide[i] > INT32_MAX)
      status = h5_refuse(file, name, "element %lld: found %lld, expected a 32-bit integer", (long long)i,
                         (long long)wide[i]);
    out[i] = (int32_t)wide[i];
  }
  free(wide);
  return status;
}

Status h5_read_text(H5File *file, const char *name, int64_t max_bytes, char **text) {
  H5Shape shape;
  TRY(h5_shape(file, name, &shape));
  if (shape.kind != H5_U8 || shape.n_dim != 1 || shape.count < 1 || shape.count > max_bytes)
    return h5_refuse(file, name, "not a text of up to %lld bytes", (long long)max_bytes);
  char *bytes = base_alloc((size_t)shape.count);
  Status status = read_all(file, name, H5T_NATIVE_UCHAR, bytes, shape.count);
  if (status.code == CODE_OK && strnlen(bytes, (size_t)shape.count) != (size_t)shape.count - 1)
    status = h5_refuse(file, name, "not a text: its zero byte is not where it ends");
  TRY_OR(status, free(bytes));
  *text = bytes;
  return STATUS_OK;
}

Status h5_list(H5File *file, const char *group, char ***names, int *n) {
  TRY(h5_require_object(file, group));
  hid_t id = H5Gopen2(file->id, group, H5P_DEFAULT);
  if (id < 0) return h5_fail_library(file, "opening group", group);
  H5Names found;
  Status status = h5_names_of_links(file, id, group, 1 << 20, &found);
  H5Gclose(id);
  TRY(status);
  *names = found.names, *n = found.n;
  return STATUS_OK;
}
