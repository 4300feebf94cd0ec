/* h5_seal: the seal of a checkpoint: what it is over, and its verification; see h5.h.
 *
 * Record of the digest, entries sorted by (name, tag): tag, name with its zero, kind, n_dim (one byte each), dimensions
 * (8 bytes each), hash (8 bytes). Numbers little-endian, as everything in the file. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "tensor/h5_internal.h"

enum { MAX_DEPTH = 4, MAX_OBJECTS = 1 << 17, MAX_ROOT_ATTRS = 64 };

void seal_add(SealList *list, SealTag tag, const char *name, const H5Shape *shape, uint64_t hash) {
  if (list->n == list->capacity) {
    list->capacity = list->capacity ? 2 * list->capacity : 64;
    list->entries = base_realloc(list->entries, (size_t)list->capacity * sizeof *list->entries);
  }
  list->entries[list->n++] = (SealEntry){tag, base_strdup(name), *shape, hash};
}

void seal_free(SealList *list) {
  for (int i = 0; i < list->n; i++) free(list->entries[i].name);
  free(list->entries);
  *list = (SealList){0};
}

uint64_t seal_hash(const void *data, size_t bytes) { return XXH3_64bits(data, bytes); }

static int compare_entries(const void *a, const void *b) {
  const SealEntry *x = a, *y = b;
  int order = strcmp(x->name, y->name);
  return order ? order : (int)x->tag - (int)y->tag;
}

uint64_t seal_digest(SealList *list) {
  if (list->n) qsort(list->entries, (size_t)list->n, sizeof *list->entries, compare_entries);
  XXH3_state_t *state = XXH3_createState();
  CHECK(state, "out of memory for a hash state");
  XXH3_64bits_reset(state);
  for (int i = 0; i < list->n; i++) {
    const SealEntry *e = &list->entries[i];
    XXH3_64bits_update(state, &(unsigned char){(unsigned char)e->tag}, 1);
    XXH3_64bits_update(state, e->name, strlen(e->name) + 1);
    XXH3_64bits_update(state, (const unsigned char[]){(unsigned char)e->shape.kind, (unsigned char)e->shape.n_dim}, 2);
    XXH3_64bits_update(state, e->shape.dim, (size_t)e->shape.n_dim * sizeof e->shape.dim[0]);
    XXH3_64bits_update(state, &e->hash, sizeof e->hash);
  }
  uint64_t digest = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return digest;
}

/* An attribute of one 64-bit number: its kind and bits. */
static Status attr_bits(const H5File *file, hid_t object, const char *name, const char *attr, H5Kind *kind,
                        uint64_t *bits) {
  hid_t id = H5Aopen(object, attr, H5P_DEFAULT);
  if (id < 0) return h5_fail_library(file, "opening an attribute of", name);
  hid_t type = H5Aget_type(id), space = H5Aget_space(id);
  *kind = type >= 0 ? h5_kind_of(type) : H5_OTHER;
  bool plain = (*kind == H5_I64 || *kind == H5_F64) && space >= 0 && H5Sget_simple_extent_type(space) == H5S_SCALAR;
  Status status = STATUS_OK;
  if (!plain) status = h5_refuse(file, name, "refused: attribute %s is not one 64-bit number", attr);
  else if (H5Aread(id, h5_kind_type(*kind), bits) < 0) status = h5_fail_library(file, "reading an attribute of", name);
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
  H5Aclose(id);
  return status;
}

/* ---- structure: nothing of the data is read before all of it is found plain */

static Status walk_dataset(H5File *file, hid_t group, const char *link, const char *name, const H5O_info_t *info) {
  if (info->num_attrs != 1) return h5_refuse(file, name, "refused: attributes other than its hash");
  H5Dataset dataset;
  TRY(h5_dataset_open(file, group, link, &dataset));
  H5Kind kind;
  uint64_t hash;
  Status status = attr_bits(file, dataset.id, name, SEAL_HASH_ATTR, &kind, &hash);
  if (status.code == CODE_OK) seal_add(&file->list, SEAL_DATASET, name, &dataset.shape, hash);
  h5_dataset_close(&dataset);
  return status;
}

static Status walk_group(H5File *file, hid_t group, const char *name, int depth);

/* One hard link. A second link to an object would let a file of a few bytes name endless trees. */
static Status walk_object(H5File *file, hid_t group, const char *link, const char *name, int depth) {
  hid_t object = H5Oopen(group, link, H5P_DEFAULT);
  if (object < 0) return h5_fail_library(file, "opening", name);
  H5O_info_t info;
  Status status = STATUS_OK;
  if (H5Oget_info2(object, &info, H5O_INFO_BASIC | H5O_INFO_NUM_ATTRS) < 0)
    status = h5_fail_library(file, "opening", name);
  else if (info.rc != 1) status = h5_refuse(file, name, "refused: an object with several links");
  else if (info.type == H5O_TYPE_DATASET) status = walk_dataset(file, group, link, name, &info);
  else if (info.type != H5O_TYPE_GROUP || info.num_attrs != 0 || depth == MAX_DEPTH)
    status = h5_refuse(file, name, "refused: neither a dataset nor a plain group");
  else {
    seal_add(&file->list, SEAL_GROUP, name, &(H5Shape){0}, 0);
    status = walk_group(file, object, name, depth + 1);
  }
  H5Oclose(object);
  return status;
}

static Status walk_group(H5File *file, hid_t group, const char *name, int depth) {
  H5Names links;
  TRY(h5_names_of_links(file, group, *name ? name : "/", MAX_OBJECTS - file->list.n, &links));
  Status status = STATUS_OK;
  if (!links.all_hard) status = h5_refuse(file, *name ? name : "/", "refused: a soft, external or user-defined link");
  if (status.code == CODE_OK && !links.all_plain)
    status = h5_refuse(file, *name ? name : "/", "refused: strange names inside");
  for (int i = 0; i < links.n && status.code == CODE_OK; i++) {
    char *path = *name ? base_format("%s/%s", name, links.names[i]) : base_strdup(links.names[i]);
    status = walk_object(file, group, links.names[i], path, depth);
    free(path);
  }
  h5_list_free(links.names, links.n);
  return status;
}

static Status walk_root_attrs(H5File *file, uint64_t *digest) {
  H5Names attrs;
  TRY(h5_names_of_attrs(file, file->id, "/", MAX_ROOT_ATTRS, &attrs));
  bool sealed = H5Aexists(file->id, SEAL_DIGEST_ATTR) > 0;
  Status status = STATUS_OK;
  if (!sealed)
    status = status_fail(file->code, "%s: an HDF5 file, but not a checkpoint (it has no digest)", file->path);
  else if (!attrs.all_plain) status = h5_refuse(file, "/", "refused: strange attribute names");
  for (int i = 0; i < attrs.n && status.code == CODE_OK; i++) {
    H5Kind kind;
    uint64_t bits;
    status = attr_bits(file, file->id, "/", attrs.names[i], &kind, &bits);
    if (status.code != CODE_OK) break;
    if (!strcmp(attrs.names[i], SEAL_DIGEST_ATTR)) *digest = bits;
    else seal_add(&file->list, SEAL_ATTR, attrs.names[i], &(H5Shape){.kind = kind}, bits);
  }
  h5_list_free(attrs.names, attrs.n);
  return status;
}

/* ---- data */

/* The hash of a dataset's bytes, read some rows of chunks at a time. */
static Status hash_data(const H5File *file, const char *name, const H5Dataset *dataset, uint64_t *hash) {
  const H5Shape *shape = &dataset->shape;
  int64_t step = (int64_t)dataset->chunk[0], row_count = shape->dim[0] ? shape->count / shape->dim[0] : 0;
  size_t row_bytes = (size_t)row_count * h5_kind_bytes(shape->kind);
  void *buffer = base_alloc((size_t)min_i64(step, shape->dim[0]) * row_bytes);
  XXH3_state_t *state = XXH3_createState();
  CHECK(state, "out of memory for a hash state");
  XXH3_64bits_reset(state);
  bool read = true;
  for (int64_t first = 0; first < shape->dim[0] && read; first += step) {
    int64_t n_rows = min_i64(step, shape->dim[0] - first);
    hsize_t start[H5_MAX_DIM] = {(hsize_t)first}, size[H5_MAX_DIM] = {(hsize_t)n_rows};
    for (int i = 1; i < shape->n_dim; i++) size[i] = (hsize_t)shape->dim[i];
    hid_t memory = H5Screate_simple(shape->n_dim, size, NULL);
    read = memory >= 0 && H5Sselect_hyperslab(dataset->space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0 &&
           H5Dread(dataset->id, h5_kind_type(shape->kind), memory, dataset->space, H5P_DEFAULT, buffer) >= 0;
    if (memory >= 0) H5Sclose(memory);
    if (read) XXH3_64bits_update(state, buffer, (size_t)n_rows * row_bytes);
  }
  *hash = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  free(buffer);
  return read ? STATUS_OK : h5_fail_library(file, "reading", name);
}

static Status verify_dataset(const H5File *file, const SealEntry *entry) {
  H5Dataset dataset;
  TRY(h5_dataset_open(file, file->id, entry->name, &dataset));
  uint64_t hash = 0;
  Status status = hash_data(file, entry->name, &dataset, &hash);
  h5_dataset_close(&dataset);
  TRY(status);
  return hash == entry->hash ? STATUS_OK : h5_refuse(file, entry->name, "damaged: its data does not match its hash");
}

Status seal_verify(H5File *file) {
  uint64_t digest = 0;
  TRY(walk_root_attrs(file, &digest));
  hid_t root = H5Gopen2(file->id, "/", H5P_DEFAULT);
  if (root < 0) return h5_fail_library(file, "opening", "/");
  Status status = walk_group(file, root, "", 0);
  H5Gclose(root);
  TRY(status);
  if (seal_digest(&file->list) != digest)
    return h5_refuse(file, "/", "damaged: its list of contents does not match its digest");
  for (int i = 0; i < file->list.n; i++)
    if (file->list.entries[i].tag == SEAL_DATASET) TRY(verify_dataset(file, &file->list.entries[i]));
  return STATUS_OK;
}
