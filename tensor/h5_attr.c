/* h5_attr: attributes of groups and datasets, read (h5.h). */
#include <stdlib.h>

#include "tensor/h5_internal.h"

Status h5_list_attrs(H5File *file, char ***names, int *n) {
  H5Names found;
  TRY(h5_names_of_attrs(file, file->id, "/", 1 << 16, &found));
  *names = found.names, *n = found.n;
  return STATUS_OK;
}

static bool has_attr(H5File *file, const char *object, const char *attr) {
  bool has = h5_has(file, object) && H5Aexists_by_name(file->id, object, attr, H5P_DEFAULT) > 0;
  H5Eclear2(H5E_DEFAULT);
  return has;
}

/* An attribute of one value, opened. */
static Status attr_open(H5File *file, const char *object, const char *attr, hid_t *id, hid_t *type) {
  TRY(h5_require_object(file, object));
  if (!has_attr(file, object, attr)) return h5_refuse(file, object, "attribute %s: missing", attr);
  *id = H5Aopen_by_name(file->id, object, attr, H5P_DEFAULT, H5P_DEFAULT);
  if (*id < 0) return h5_fail_library(file, "opening attribute", attr);
  hid_t space = H5Aget_space(*id);
  bool one = space >= 0 && H5Sget_simple_extent_npoints(space) == 1;
  if (space >= 0) H5Sclose(space);
  *type = one ? H5Aget_type(*id) : -1;
  if (*type >= 0) return STATUS_OK;
  H5Aclose(*id);
  return h5_refuse(file, object, "attribute %s: expected one value", attr);
}

static Status attr_number(H5File *file, const char *object, const char *attr, hid_t memory_type, void *value) {
  hid_t id, type;
  TRY(attr_open(file, object, attr, &id, &type));
  H5T_class_t class = H5Tget_class(type);
  bool fits = class == H5T_INTEGER || (class == H5T_FLOAT && H5Tget_class(memory_type) == H5T_FLOAT);
  Status status = STATUS_OK;
  if (!fits)
    status = h5_refuse(file, object, "attribute %s: expected %s", attr,
                       H5Tget_class(memory_type) == H5T_FLOAT ? "a number" : "an integer");
  else if (H5Aread(id, memory_type, value) < 0) status = h5_fail_library(file, "reading attribute", attr);
  H5Tclose(type);
  H5Aclose(id);
  return status;
}

Status h5_attr_double(H5File *file, const char *object, const char *attr, double *value) {
  return attr_number(file, object, attr, H5T_NATIVE_DOUBLE, value);
}

Status h5_attr_int(H5File *file, const char *object, const char *attr, int64_t *value) {
  return attr_number(file, object, attr, H5T_NATIVE_INT64, value);
}

/* Reads with the file's own type: HDF5 does not convert between ASCII and UTF-8. NULL on failure. */
static char *attr_text(hid_t id, hid_t type) {
  if (H5Tis_variable_str(type) > 0) {
    char *library_owned = NULL;
    if (H5Aread(id, type, &library_owned) < 0) return NULL;
    char *text = base_strdup(library_owned ? library_owned : "");
    H5free_memory(library_owned);
    return text;
  }
  size_t bytes = H5Tget_size(type);
  char *text = base_zalloc(bytes + 1);
  if (H5Aread(id, type, text) < 0) {
    free(text);
    return NULL;
  }
  if (H5Tget_strpad(type) == H5T_STR_SPACEPAD)
    while (bytes > 0 && text[bytes - 1] == ' ') text[--bytes] = '\0';
  return text;
}

Status h5_attr_string(H5File *file, const char *object, const char *attr, char **text) {
  hid_t id, type;
  TRY(attr_open(file, object, attr, &id, &type));
  Status status = STATUS_OK;
  if (H5Tget_class(type) != H5T_STRING) status = h5_refuse(file, object, "attribute %s: expected a string", attr);
  else if (!(*text = attr_text(id, type))) status = h5_fail_library(file, "reading attribute", attr);
  H5Tclose(type);
  H5Aclose(id);
  return status;
}
