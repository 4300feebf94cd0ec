/* HDF5 files: what others wrote is read or refused by name; a hostile checkpoint is refused before its data is read, and
 * no other file is opened (the files it points to are pipes without a writer: opening one would hang the test). */
#include <criterion/criterion.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/h5.h"
#include "tests/support/rundir.h"
#include "tests/support/store.h"

static char *folder, *pipe_path, *path;

static void enter(void) {
  folder = rundir_make();
  path = base_format("%s/file.h5", folder);
  pipe_path = base_format("%s/pipe", folder);
  cr_assert_eq(mkfifo(pipe_path, 0600), 0, "mkfifo");
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static void leave(void) {
  free(path), free(pipe_path);
  rundir_remove(folder);
}

TestSuite(h5, .init = enter, .fini = leave, .timeout = 120);

/* ---- plain files */

Test(h5, plain_files_are_written_and_read) {
  H5File *file;
  const int32_t tokens[6] = {1, -2, 3, INT32_MAX, 5, 6};
  const float rows[4] = {1, 2, 3, NAN};
  float rows_back[8];
  int32_t tokens_back[6];
  store_ok(h5_create(path, 100, false, CODE_DATA, &file), "create");
  store_ok(h5_write(file, "a/b/tokens", H5_I32, 2, (const int64_t[]){2, 3}, tokens), "write");
  store_ok(h5_make(file, "logits", H5_F32, 2, (const int64_t[]){4, 2}), "make");
  store_ok(h5_write_rows(file, "logits", 2, 2, rows), "rows");
  store_ok(h5_write_rows(file, "logits", 0, 2, rows), "rows");
  store_ok(h5_set_double(file, "loss", 0.1), "attribute");
  store_ok(h5_commit(file), "commit");

  H5Shape shape;
  double loss;
  char **names;
  int n;
  store_ok(h5_open_read(path, CODE_DATA, &file), "open");
  store_ok(h5_shape(file, "a/b/tokens", &shape), "shape");
  cr_assert(shape.kind == H5_I32 && shape.n_dim == 2 && shape.dim[0] == 2 && shape.dim[1] == 3 && shape.count == 6,
            "shape");
  store_ok(h5_read_i32(file, "a/b/tokens", tokens_back, 6), "tokens");
  store_ok(h5_read_f32(file, "logits", rows_back, 8), "logits");
  store_ok(h5_attr_double(file, "/", "loss", &loss), "loss");
  store_ok(h5_list(file, "/", &names, &n), "list");
  cr_assert(!memcmp(tokens, tokens_back, sizeof tokens), "tokens");
  cr_assert(!memcmp(rows, rows_back, sizeof rows) && !memcmp(rows, rows_back + 4, sizeof rows), "rows");
  cr_assert(loss == 0.1 && n == 2 && !strcmp(names[0], "a") && !strcmp(names[1], "logits"), "attribute and list");
  cr_assert(h5_has(file, "a/b") && !h5_has(file, "a/c") && !h5_has(file, "x/y/z"), "has");
  h5_list_free(names, n);
  h5_close(file);
}

Test(h5, a_plain_file_not_committed_leaves_nothing) {
  H5File *file;
  store_write(path, "old", 3);
  store_ok(h5_create(path, 100, false, CODE_DATA, &file), "create");
  store_ok(h5_write(file, "x", H5_F32, 1, (const int64_t[]){1}, &(float){1}), "write");
  h5_close(file);
  size_t n;
  char *bytes = store_read(path, &n);
  cr_assert(n == 3 && !strcmp(bytes, "old"), "the old file changed");
  cr_assert_eq(store_count_files(folder, ".tmp-"), 0, "the temp file is left");
  free(bytes);
}

Test(h5, what_cannot_be_read_is_named) {
  H5File *file;
  int32_t ints[3];
  int64_t value;
  double real;
  char *text;
  const int64_t wide[3] = {1, 2, (int64_t)1 << 31};
  store_ok(h5_create(path, 100, false, CODE_DATA, &file), "create");
  store_ok(h5_write(file, "wide", H5_I64, 1, (const int64_t[]){3}, wide), "write");
  store_ok(h5_write(file, "real", H5_F32, 1, (const int64_t[]){3}, (const float[]){1, 2, 3}), "write");
  store_ok(h5_set_double(file, "loss", 0.1), "attribute");
  store_ok(h5_commit(file), "commit");
  store_ok(h5_open_read(path, CODE_DATA, &file), "open");
  store_expect(h5_read_i32(file, "wide", ints, 3), CODE_DATA, "wide: element 2: found 2147483648", "too wide");
  store_expect(h5_read_i32(file, "real", ints, 3), CODE_DATA, "expected integers", "real");
  store_expect(h5_read_i32(file, "wide", ints, 2), CODE_DATA, "found 3 elements, expected 2", "count");
  store_expect(h5_read_i32(file, "none", ints, 2), CODE_DATA, "none: missing", "none");
  store_expect(h5_attr_int(file, "/", "loss", &value), CODE_DATA, "expected an integer", "loss as int");
  store_expect(h5_attr_double(file, "/", "lost", &real), CODE_DATA, "lost: missing", "lost");
  store_expect(h5_attr_string(file, "/", "loss", &text), CODE_DATA, "expected a string", "loss as string");
  h5_close(file);
  char *nowhere = base_format("%s/nowhere.h5", folder);
  store_expect(h5_open_read(nowhere, CODE_DATA, &file), CODE_DATA, "No such file", "missing file");
  store_expect(h5_open_read(folder, CODE_DATA, &file), CODE_DATA, "found a folder", "folder");
  store_expect(h5_open_read(pipe_path, CODE_DATA, &file), CODE_DATA, "found a pipe or a device", "pipe");
  store_write(path, "\x89HDX\r\n\x1a\n and more", 18);
  store_expect(h5_open_read(path, CODE_DATA, &file), CODE_DATA, "not an HDF5 file", "other signature");
  free(nowhere);
}

/* A file as h5py makes them: default format, contiguous, doubles, variable-length UTF-8 attribute. */
Test(h5, files_of_h5py_are_read) {
  hid_t id = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  hid_t space = H5Screate_simple(2, (const hsize_t[]){2, 2}, NULL), scalar = H5Screate(H5S_SCALAR);
  hid_t data = H5Dcreate2(id, "y", H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const double y[4] = {0.1, 0.2, 1e300, -4};
  H5Dwrite(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, y);
  hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE), H5Tset_cset(type, H5T_CSET_UTF8);
  hid_t attr = H5Acreate2(id, "config", type, scalar, H5P_DEFAULT, H5P_DEFAULT);
  const char *config = "{\"a\": \"\xc3\xa9\"}";
  H5Awrite(attr, type, &config);
  H5Aclose(attr), H5Tclose(type);
  type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, 8), H5Tset_strpad(type, H5T_STR_SPACEPAD);
  attr = H5Acreate2(data, "kind", type, scalar, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attr, type, "fixed   ");
  H5Aclose(attr), H5Tclose(type), H5Dclose(data), H5Sclose(space), H5Sclose(scalar), H5Fclose(id);

  H5File *file;
  double back[4];
  float narrow[4];
  char *text, *kind;
  store_ok(h5_open_read(path, CODE_DATA, &file), "open");
  store_ok(h5_read_f64(file, "y", back, 4), "f64");
  store_ok(h5_read_f32(file, "y", narrow, 4), "f32");
  store_ok(h5_attr_string(file, "/", "config", &text), "config");
  store_ok(h5_attr_string(file, "y", "kind", &kind), "kind");
  cr_assert(!memcmp(y, back, sizeof y), "doubles");
  cr_assert(narrow[0] == 0.1f && isinf(narrow[2]) && narrow[3] == -4, "floats");
  cr_assert(!strcmp(text, config) && !strcmp(kind, "fixed"), "strings: %s, %s", text, kind);
  free(text), free(kind);
  h5_close(file);
}

/* ---- hostile files: each is what a checkpoint looks like, but for one thing */

static hid_t chunked(int n_dim, const hsize_t *chunk) {
  hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(creation, n_dim, chunk);
  H5Pset_fletcher32(creation);
  return creation;
}

/* A dataset made so, with a hash attribute; `written` times floats of zeros. */
static void put(hid_t at, const char *name, hid_t type, hid_t space, hid_t creation, bool written) {
  static const char zeros[1 << 16];
  hid_t data = H5Dcreate2(at, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  hid_t scalar = H5Screate(H5S_SCALAR);
  cr_assert(data >= 0, "%s is made", name);
  if (written) cr_assert(H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros) >= 0, "%s is written", name);
  hid_t attr = H5Acreate2(data, "xxh3", H5T_STD_I64LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attr, H5T_NATIVE_INT64, &(int64_t){0});
  H5Aclose(attr), H5Sclose(scalar), H5Dclose(data), H5Sclose(space), H5Pclose(creation);
}

static hid_t line(hsize_t n) { return H5Screate_simple(1, &n, NULL); }

static void external_storage(hid_t group) {
  hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_external(creation, pipe_path, 0, 64);
  put(group, "t", H5T_IEEE_F32LE, line(16), creation, false);
}

static void external_link(hid_t group) {
  cr_assert(H5Lcreate_external(pipe_path, "/model/x", group, "t", H5P_DEFAULT, H5P_DEFAULT) >= 0, "link");
}

static void soft_link(hid_t group) {
  cr_assert(H5Lcreate_soft("/model/x", group, "t", H5P_DEFAULT, H5P_DEFAULT) >= 0, "link");
}

static void virtual_dataset(hid_t group) {
  hid_t creation = H5Pcreate(H5P_DATASET_CREATE), space = line(16), source = line(16);
  H5Pset_virtual(creation, space, pipe_path, "/model/x", source);
  H5Sclose(source);
  put(group, "t", H5T_IEEE_F32LE, space, creation, false);
}

static void huge(hid_t group) {
  put(group, "t", H5T_IEEE_F32LE, line((hsize_t)1 << 30), chunked(1, (const hsize_t[]){1024}), false);
}

static void overflowing(hid_t group) {
  hsize_t size[3] = {(hsize_t)1 << 31, (hsize_t)1 << 31, (hsize_t)1 << 31};
  put(group, "t", H5T_STD_U8LE, H5Screate_simple(3, size, NULL), chunked(3, (const hsize_t[]){64, 64, 64}), false);
}

static void large_chunk(hid_t group) {
  put(group, "t", H5T_IEEE_F32LE, line(1 << 19), chunked(1, (const hsize_t[]){1 << 19}), false);
}

static size_t pass_through(unsigned flags, size_t n_values, const unsigned values[], size_t n, size_t *size,
                           void **data) {
  (void)flags, (void)n_values, (void)values, (void)size, (void)data;
  return n;
}

static void unknown_filter(hid_t group) {
  const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, 300, 1, 1, "test", NULL, NULL, pass_through};
  H5Zregister(&filter);
  hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(creation, 1, (const hsize_t[]){16});
  H5Pset_filter(creation, 300, H5Z_FLAG_MANDATORY, 0, NULL);
  put(group, "t", H5T_IEEE_F32LE, line(16), creation, true);
}

static void deflate(hid_t group) {
  hid_t creation = chunked(1, (const hsize_t[]){16});
  H5Pset_deflate(creation, 9);
  put(group, "t", H5T_IEEE_F32LE, line(16), creation, true);
}

static void contiguous(hid_t group) { put(group, "t", H5T_IEEE_F32LE, line(16), H5Pcreate(H5P_DATASET_CREATE), true); }

static void of_strings(hid_t group) {
  hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(creation, 1, (const hsize_t[]){16});
  put(group, "t", type, line(16), creation, false);
  H5Tclose(type);
}

static void of_compounds(hid_t group) {
  hid_t type = H5Tcreate(H5T_COMPOUND, 8);
  H5Tinsert(type, "a", 0, H5T_IEEE_F32LE), H5Tinsert(type, "b", 4, H5T_IEEE_F32LE);
  put(group, "t", type, line(16), chunked(1, (const hsize_t[]){16}), true);
  H5Tclose(type);
}

static void big_endian(hid_t group) {
  put(group, "t", H5T_IEEE_F32BE, line(16), chunked(1, (const hsize_t[]){16}), true);
}

static void nine_dimensions(hid_t group) {
  const hsize_t ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
  put(group, "t", H5T_IEEE_F32LE, H5Screate_simple(9, ones, NULL), chunked(9, ones), true);
}

static void growable(hid_t group) {
  hid_t space = H5Screate_simple(1, (const hsize_t[]){16}, (const hsize_t[]){H5S_UNLIMITED});
  put(group, "t", H5T_IEEE_F32LE, space, chunked(1, (const hsize_t[]){16}), true);
}

static void cyclic(hid_t group) { H5Lcreate_hard(group, ".", group, "t", H5P_DEFAULT, H5P_DEFAULT); }

static void two_names(hid_t group) {
  put(group, "t", H5T_IEEE_F32LE, line(16), chunked(1, (const hsize_t[]){16}), true);
  H5Lcreate_hard(group, "t", group, "u", H5P_DEFAULT, H5P_DEFAULT);
}

static void deep(hid_t group) {
  hid_t at = group;
  for (int i = 0; i < 50; i++) {
    hid_t next = H5Gcreate2(at, "t", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (at != group) H5Gclose(at);
    at = next;
  }
  H5Gclose(at);
}

static void named_type(hid_t group) {
  hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tcommit2(group, "t", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Tclose(type);
}

static void strange_name(hid_t group) {
  put(group, "t\x1b[2J", H5T_IEEE_F32LE, line(16), chunked(1, (const hsize_t[]){16}), true);
}

static void text_attribute(hid_t group) {
  hid_t scalar = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, 60000);
  hid_t attr = H5Acreate2(group, "t", type, scalar, H5P_DEFAULT, H5P_DEFAULT);
  H5Aclose(attr), H5Tclose(type), H5Sclose(scalar);
}

static void more_attributes(hid_t group) {
  put(group, "t", H5T_IEEE_F32LE, line(16), chunked(1, (const hsize_t[]){16}), true);
  hid_t scalar = H5Screate(H5S_SCALAR);
  H5Aclose(H5Acreate_by_name(group, "t", "more", H5T_STD_I64LE, scalar, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Sclose(scalar);
}

static void not_listed(hid_t group) {
  put(group, "t", H5T_IEEE_F32LE, line(16), chunked(1, (const hsize_t[]){16}), true);
}

/* An object takes 65535 links at most, so three of them share the names. */
static void many_objects(hid_t group) {
  char name[16];
  for (char c = 'a'; c <= 'c'; c++)
    H5Gclose(H5Gcreate2(group, (const char[]){c, 0}, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  for (int i = 0; i < 1 << 17; i++) {
    snprintf(name, sizeof name, "%d", i);
    cr_assert(H5Lcreate_hard(group, (const char[]){(char)('a' + i % 3), 0}, group, name, H5P_DEFAULT, H5P_DEFAULT) >= 0,
              "link %d", i);
  }
}

typedef struct Hostile {
  const char *name;
  void (*make)(hid_t group);
  const char *phrase;
} Hostile;

static const Hostile HOSTILE[] = {
    {"external storage", external_storage, "external storage"},
    {"external link", external_link, "soft, external or user-defined link"},
    {"soft link", soft_link, "soft, external or user-defined link"},
    {"virtual dataset", virtual_dataset, "virtual dataset"},
    {"4 GiB in 6 kB", huge, "claims more data than the file holds"},
    {"sizes that overflow", overflowing, "sizes overflow"},
    {"large chunk", large_chunk, "claims more data"},
    {"unknown filter", unknown_filter, "a filter other than"},
    {"deflate", deflate, "a filter other than"},
    {"contiguous", contiguous, "expected chunks with Fletcher32"},
    {"strings", of_strings, "expected chunks with Fletcher32"},
    {"compounds", of_compounds, "unexpected type"},
    {"big endian", big_endian, "unexpected type"},
    {"nine dimensions", nine_dimensions, "impossible chunk sizes"},
    {"growable", growable, "can grow"},
    {"cyclic group", cyclic, "several links"},
    {"two names", two_names, "several links"},
    {"deep groups", deep, "neither a dataset nor a plain group"},
    {"named type", named_type, "neither a dataset nor a plain group"},
    {"strange name", strange_name, "strange names"},
    {"attribute of a group", text_attribute, "neither a dataset nor a plain group"},
    {"two attributes", more_attributes, "attributes other than its hash"},
    {"dataset outside the list", not_listed, "does not match its digest"},
    {"too many objects", many_objects, "more than"},
};

static void make_hostile(const Hostile *hostile) {
  hid_t access = H5Pcreate(H5P_FILE_ACCESS), scalar = H5Screate(H5S_SCALAR);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  hid_t id = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
  hid_t attr = H5Acreate2(id, "digest", H5T_STD_I64LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attr, H5T_NATIVE_INT64, &(int64_t){12345});
  hid_t group = H5Gcreate2(id, "model", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  hostile->make(group);
  H5Aclose(attr), H5Gclose(group), H5Sclose(scalar), H5Pclose(access);
  cr_assert(H5Fclose(id) >= 0, "%s is made", hostile->name);
}

Test(h5, hostile_checkpoints_are_refused) {
  for (size_t i = 0; i < sizeof HOSTILE / sizeof HOSTILE[0]; i++) {
    make_hostile(&HOSTILE[i]);
    H5File *file = NULL;
    store_expect(h5_open_sealed(path, 0, CODE_CHECKPOINT, &file), CODE_CHECKPOINT, HOSTILE[i].phrase, HOSTILE[i].name);
  }
}

/* The looser reader refuses what leads out of the file, and claims without data. */
Test(h5, plain_files_cannot_lead_elsewhere) {
  static const Hostile CASES[] = {{"external storage", external_storage, "external storage"},
                                  {"external link", external_link, "soft or external link"},
                                  {"soft link", soft_link, "soft or external link"},
                                  {"virtual dataset", virtual_dataset, "virtual dataset"},
                                  {"4 GiB in 6 kB", huge, "claims more data than the file holds"},
                                  {"unknown filter", unknown_filter, "a filter other than"},
                                  {"strings", of_strings, "unexpected type"}};
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    make_hostile(&CASES[i]);
    H5File *file;
    H5Shape shape;
    store_ok(h5_open_read(path, CODE_DATA, &file), CASES[i].name);
    store_expect(h5_shape(file, "model/t", &shape), CODE_DATA, CASES[i].phrase, CASES[i].name);
    h5_close(file);
  }
}

typedef enum Change { CHANGE_NOTHING, CHANGE_DATA, CHANGE_HASH, CHANGE_ATTRIBUTE, CHANGE_NAME } Change;

static void change_file(Change change) {
  hid_t id = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), data = H5Dopen2(id, "model/w", H5P_DEFAULT);
  hid_t hash = H5Aopen(data, "xxh3", H5P_DEFAULT), step = H5Aopen(id, "step", H5P_DEFAULT);
  cr_assert(data >= 0 && hash >= 0 && step >= 0, "the file opens for change %d", (int)change);
  if (change == CHANGE_DATA) H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, (const float[]){1, 2, 4});
  if (change == CHANGE_HASH) H5Awrite(hash, H5T_NATIVE_INT64, &(int64_t){1});
  if (change == CHANGE_ATTRIBUTE) H5Awrite(step, H5T_NATIVE_INT64, &(int64_t){8});
  if (change == CHANGE_NAME) H5Lmove(id, "model/w", id, "model/v", H5P_DEFAULT, H5P_DEFAULT);
  H5Aclose(hash), H5Aclose(step), H5Dclose(data);
  cr_assert(H5Fclose(id) >= 0, "change %d is made", (int)change);
}

/* Changes that come with HDF5's own checksums put right. */
Test(h5, a_sealed_file_changed_through_the_library_is_refused) {
  static const char *const PHRASES[] = {"", "model/w: damaged", "digest", "digest", "digest"};
  for (Change change = CHANGE_NOTHING; change <= CHANGE_NAME; change++) {
    H5File *file;
    store_ok(h5_create(path, 100, true, CODE_CHECKPOINT, &file), "create");
    store_ok(h5_set_int(file, "step", 7), "attribute");
    store_ok(h5_write(file, "model/w", H5_F32, 1, (const int64_t[]){3}, (const float[]){1, 2, 3}), "write");
    store_ok(h5_commit(file), "commit");
    change_file(change);
    Status status = h5_open_sealed(path, 0, CODE_CHECKPOINT, &file);
    if (change != CHANGE_NOTHING) {
      store_expect(status, CODE_CHECKPOINT, PHRASES[change], PHRASES[change]);
      continue;
    }
    store_ok(status, "nothing changed");
    h5_close(file);
  }
}

Test(h5, a_sealed_file_larger_than_expected_is_refused) {
  H5File *file;
  store_ok(h5_create(path, 100, true, CODE_CHECKPOINT, &file), "create");
  store_ok(h5_set_int(file, "step", 1), "attribute");
  store_ok(h5_commit(file), "commit");
  store_expect(h5_open_sealed(path, 10, CODE_CHECKPOINT, &file), CODE_CHECKPOINT, "too large", "10 bytes");
  store_ok(h5_open_sealed(path, 1 << 20, CODE_CHECKPOINT, &file), "1 MiB");
  h5_close(file);
}

Test(h5, no_space_is_said_before_writing) {
  H5File *file;
  store_expect(h5_create(path, (int64_t)1 << 60, true, CODE_CHECKPOINT, &file), CODE_CHECKPOINT, "not enough space",
               "an exbibyte");
  cr_assert_eq(store_count_files(folder, ".tmp-"), 0, "the temp file is left");
}
