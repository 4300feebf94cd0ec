/* shards: the folder read; see shards.h. */
#include "data/shards.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "data/tokenizer.h"
#include "tensor/publish.h"

enum { FORMAT = 1 };

static Status refuse(const Shards *shards, const char *key, const char *expected) {
  return status_fail(CODE_DATA, "%s/manifest.json: %s: expected %s, as aspis prepare writes it", shards->folder, key,
                     expected);
}

static bool whole(const json_t *object, const char *key, int64_t least, int64_t *value) {
  const json_t *found = json_object_get(object, key);
  *value = json_integer_value(found);
  return json_is_integer(found) && *value >= least;
}

static Status read_file(Shards *shards, const json_t *entry) {
  ShardFile file = {0};
  const char *name = json_string_value(json_object_get(entry, "file")),
             *hash = json_string_value(json_object_get(entry, "xxh3"));
  char *end = NULL;
  if (!name || !*name || *name == '.' || strchr(name, '/') || !hash || strlen(hash) != 16 ||
      !whole(entry, "tokens", 0, &file.n_tokens))
    return refuse(shards, "shards", "a file beside this one, its tokens and its xxh3 each");
  file.hash = strtoull(hash, &end, 16);
  if (*end) return refuse(shards, "shards", "an xxh3 in 16 digits");
  file.name = base_strdup(name);
  shards->file = base_realloc(shards->file, (size_t)(shards->n_files + 1) * sizeof *shards->file);
  shards->file[shards->n_files++] = file;
  return STATUS_OK;
}

static Status read_manifest(Shards *shards, const json_t *root) {
  int64_t format, width, vocab, next_file;
  const json_t *files = json_object_get(root, "shards"), *next = json_object_get(root, "next");
  if (!whole(root, "format", 1, &format)) return refuse(shards, "format", "a number");
  if (format > FORMAT)
    return status_fail(CODE_DATA, "%s/manifest.json: format: found %" PRId64 ", this version reads up to %d",
                       shards->folder, format, FORMAT);
  if (!whole(root, "width", 2, &width) || (width != 2 && width != 4)) return refuse(shards, "width", "2 or 4");
  if (!whole(root, "vocab_size", 1, &vocab) || vocab > INT32_MAX) return refuse(shards, "vocab_size", "a number");
  if (!whole(root, "tokens", 0, &shards->n_tokens)) return refuse(shards, "tokens", "a number");
  if (!whole(root, "text_bytes", 0, &shards->n_text_bytes)) return refuse(shards, "text_bytes", "a number");
  if (!whole(root, "documents", 0, &shards->n_documents)) return refuse(shards, "documents", "a number");
  if (!json_is_array(files)) return refuse(shards, "shards", "a list");
  if (!whole(next, "file", 0, &next_file) || !whole(next, "offset", 0, &shards->next_offset))
    return refuse(shards, "next", "a file and an offset");
  shards->complete = json_is_true(json_object_get(root, "complete"));
  shards->width = (int)width, shards->vocab_size = (int)vocab, shards->next_file = (int)next_file;
  shards->sources = json_dumps(json_object_get(root, "made_from"), JSON_COMPACT | JSON_ENCODE_ANY);
  for (size_t i = 0; i < json_array_size(files); i++) TRY(read_file(shards, json_array_get(files, i)));
  int64_t sum = 0;
  for (int i = 0; i < shards->n_files; i++) sum += shards->file[i].n_tokens;
  return sum == shards->n_tokens ? STATUS_OK : refuse(shards, "tokens", "the sum of its shards");
}

static Status read_folder(Shards *shards) {
  char *path = base_format("%s/manifest.json", shards->folder);
  json_error_t error;
  json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
  Status status =
      root ? read_manifest(shards, root) : status_fail(CODE_DATA, "%s: not a folder of shards: %s", path, error.text);
  json_decref(root);
  free(path);
  TRY(status);
  Tokenizer *tokenizer;
  path = base_format("%s/tokenizer.json", shards->folder);
  status = tokenizer_read(path, &tokenizer);
  free(path);
  TRY(status);
  const int n = tokenizer_vocab_size(tokenizer);
  shards->tokenizer_json = tokenizer_to_json(tokenizer);
  tokenizer_free(tokenizer);
  if (n == shards->vocab_size) return STATUS_OK;
  return status_fail(CODE_DATA, "%s/tokenizer.json: has %d tokens, expected manifest.json's %d", shards->folder, n,
                     shards->vocab_size);
}

Status shards_read(const char *folder, Shards *shards) {
  *shards = (Shards){.folder = base_strdup(folder)};
  TRY_OR(read_folder(shards), shards_close(shards));
  return STATUS_OK;
}

static Status map_file(Shards *shards, int i, bool verify) {
  const ShardFile *file = &shards->file[i];
  char *path = base_format("%s/%s", shards->folder, file->name);
  const size_t bytes = (size_t)file->n_tokens * (size_t)shards->width;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat st;
  Status status = STATUS_OK;
  void *map = MAP_FAILED;
  if (fd < 0 || fstat(fd, &st) != 0) status = status_fail(CODE_DATA, "%s: cannot open: %s", path, strerror(errno));
  else if (!S_ISREG(st.st_mode) || (size_t)st.st_size != bytes)
    status = status_fail(CODE_DATA, "%s: found %lld bytes, expected %zu for the %lld tokens of manifest.json", path,
                         (long long)st.st_size, bytes, (long long)file->n_tokens);
  else if (bytes > 0 && (map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
    status = status_fail(CODE_DATA, "%s: cannot map: %s", path, strerror(errno));
  if (fd >= 0) close(fd);
  if (map != MAP_FAILED) shards->map[i] = map;
  if (status.code == CODE_OK && verify && XXH3_64bits(shards->map[i], bytes) != file->hash)
    status = status_fail(CODE_DATA, "%s: damaged: it is not what was written; prepare it anew", path);
  free(path);
  return status;
}

static Status map_all(Shards *shards, bool verify) {
  if (!shards->complete)
    return status_fail(CODE_DATA, "%s: not finished: run the same aspis prepare again, it goes on where it was",
                       shards->folder);
  shards->map = base_zalloc((size_t)(shards->n_files + 1) * sizeof *shards->map);
  shards->first = base_zalloc((size_t)(shards->n_files + 1) * sizeof *shards->first);
  for (int i = 0; i < shards->n_files; i++) {
    shards->first[i + 1] = shards->first[i] + shards->file[i].n_tokens;
    TRY(map_file(shards, i, verify));
  }
  return STATUS_OK;
}

Status shards_open(const char *folder, bool verify, Shards *shards) {
  TRY(shards_read(folder, shards));
  TRY_OR(map_all(shards, verify), shards_close(shards));
  return STATUS_OK;
}

void shards_close(Shards *shards) {
  for (int i = 0; i < shards->n_files; i++) {
    if (shards->map && shards->map[i])
      munmap((void *)(uintptr_t)shards->map[i], (size_t)shards->file[i].n_tokens * (size_t)shards->width);
    free(shards->file[i].name);
  }
  free(shards->folder), free(shards->tokenizer_json), free(shards->sources);
  free(shards->file), free((void *)shards->map), free(shards->first);
  *shards = (Shards){0};
}

void shards_copy(const Shards *shards, int64_t first, int64_t n, int32_t *to) {
  CHECK(first >= 0 && n >= 0 && first + n <= shards->n_tokens, "tokens %lld to %lld of %lld", (long long)first,
        (long long)(first + n), (long long)shards->n_tokens);
  int low = 0, high = shards->n_files; /* first[low] <= first < first[high] */
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (shards->first[middle] <= first) low = middle;
    else high = middle;
  }
  for (int64_t i = 0; i < n; low++) {
    const int64_t from = first + i - shards->first[low], here = min_i64(shards->file[low].n_tokens - from, n - i);
    for (int64_t j = 0; j < here; j++)
      to[i + j] = shards->width == 2 ? ((const uint16_t *)shards->map[low])[from + j]
                                     : ((const int32_t *)shards->map[low])[from + j];
    i += here;
  }
  for (int64_t i = 0; i < n; i++)
    CHECK(to[i] >= 0 && to[i] < shards->vocab_size, "%s: token %d of %d: damaged; aspis inspect finds the file",
          shards->folder, to[i], shards->vocab_size);
}

Status shards_write_manifest(const Shards *shards) {
  json_t *root = json_pack("{s:i, s:b, s:i, s:i, s:I, s:I, s:I, s:o, s:{s:i, s:I}, s:[]}", "format", FORMAT, "complete",
                           shards->complete, "width", shards->width, "vocab_size", shards->vocab_size, "tokens",
                           (json_int_t)shards->n_tokens, "text_bytes", (json_int_t)shards->n_text_bytes, "documents",
                           (json_int_t)shards->n_documents, "made_from", json_loads(shards->sources, 0, NULL), "next",
                           "file", shards->next_file, "offset", (json_int_t)shards->next_offset, "shards");
  CHECK(root, "json_pack: out of memory");
  for (int i = 0; i < shards->n_files; i++) {
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, shards->file[i].hash);
    json_array_append_new(json_object_get(root, "shards"),
                          json_pack("{s:s, s:I, s:s}", "file", shards->file[i].name, "tokens",
                                    (json_int_t)shards->file[i].n_tokens, "xxh3", hash));
  }
  char *text = json_dumps(root, JSON_INDENT(1)), *path = base_format("%s/manifest.json", shards->folder);
  CHECK(text, "json_dumps: out of memory");
  Status status = publish_bytes(path, text, strlen(text), CODE_DATA);
  free(text), free(path);
  json_decref(root);
  return status;
}
