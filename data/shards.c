/* shards: the folder read; see shards.h. */
#include "data/shards.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static bool hash_of(const json_t *object, const char *key, uint64_t *hash) {
  const char *text = json_string_value(json_object_get(object, key));
  char *end;
  if (!text || strlen(text) != 16) return false;
  *hash = strtoull(text, &end, 16);
  return !*end;
}

static Status read_file(Shards *shards, const json_t *entry) {
  ShardFile file = {.n_documents = -1};
  const char *name = json_string_value(json_object_get(entry, "file"));
  if (!name || !*name || *name == '.' || strchr(name, '/') || !hash_of(entry, "xxh3", &file.hash) ||
      !whole(entry, "tokens", 0, &file.n_tokens))
    return refuse(shards, "shards", "a file beside this one, its tokens and its xxh3 in 16 digits each");
  if (json_object_get(entry, "documents") &&
      (!whole(entry, "documents", 0, &file.n_documents) || !hash_of(entry, "ends_xxh3", &file.ends_hash)))
    return refuse(shards, "shards", "the documents that end in a file and their ends_xxh3 in 16 digits");
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
  shards->special_tokens = json_is_true(json_object_get(root, "special_tokens"));
  shards->next_within = json_is_true(json_object_get(next, "within"));
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

static Status damaged(const char *path) {
  return status_fail(CODE_DATA, "%s: damaged: it is not what was written; prepare it anew", path);
}

static Status check_map(const ShardFile *file, const char *path, const Mapped *map, size_t bytes, bool verify) {
  if (map->bytes != bytes)
    return status_fail(CODE_DATA, "%s: found %zu bytes, expected %zu for the %lld tokens of manifest.json", path,
                       map->bytes, bytes, (long long)file->n_tokens);
  return verify && XXH3_64bits(map->data, bytes) != file->hash ? damaged(path) : STATUS_OK;
}

static Status map_file(Shards *shards, int i, bool verify) {
  const ShardFile *file = &shards->file[i];
  char *path = base_format("%s/%s", shards->folder, file->name);
  Status status = readable_map(path, CODE_DATA, &shards->map[i]);
  if (status.code == CODE_OK)
    status = check_map(file, path, &shards->map[i], (size_t)file->n_tokens * (size_t)shards->width, verify);
  free(path);
  return status;
}

static Status check_ends(const ShardFile *file, const char *path, const Mapped *map) {
  const size_t bytes = (size_t)file->n_documents * sizeof(int64_t);
  const int64_t *end = map->data;
  if (map->bytes != bytes)
    return status_fail(CODE_DATA, "%s: found %zu bytes, expected %zu for the %lld documents of manifest.json", path,
                       map->bytes, bytes, (long long)file->n_documents);
  if (XXH3_64bits(map->data, bytes) != file->ends_hash) return damaged(path);
  for (int64_t d = 0; d < file->n_documents; d++)
    if (end[d] < (d ? end[d - 1] : 0) || end[d] > file->n_tokens)
      return status_fail(CODE_DATA, "%s: document %lld ends at token %lld, expected one behind the last and within %s",
                         path, (long long)d, (long long)end[d], file->name);
  return STATUS_OK;
}

/* The ends of file i's documents, within it. */
static Status read_ends(const Shards *shards, int i, int64_t *to) {
  const ShardFile *file = &shards->file[i];
  char *path = base_format("%s/%.*s.ends", shards->folder, (int)strcspn(file->name, "."), file->name);
  Mapped map;
  Status status = readable_map(path, CODE_DATA, &map);
  if (status.code == CODE_OK) status = check_ends(file, path, &map);
  if (status.code == CODE_OK && map.bytes) memcpy(to, map.data, map.bytes);
  readable_unmap(&map);
  free(path);
  return status;
}

static Status gather_ends(const Shards *shards, int64_t *end, int64_t *n) {
  for (int i = 0; i < shards->n_files; i++) {
    int64_t *mine = end + *n; /* what is kept of them lies before them */
    TRY(read_ends(shards, i, mine));
    for (int64_t d = 0; d < shards->file[i].n_documents; d++) {
      const int64_t at = shards->first[i] + mine[d];
      if (at > (*n ? end[*n - 1] : 0)) end[(*n)++] = at;
    }
  }
  if (shards->n_tokens > (*n ? end[*n - 1] : 0)) end[(*n)++] = shards->n_tokens;
  return STATUS_OK;
}

Status shards_documents(const Shards *shards, int64_t **end, int64_t *n) {
  int64_t room = 1;
  for (int i = 0; i < shards->n_files; i++) {
    if (shards->file[i].n_documents < 0)
      return status_fail(CODE_DATA,
                         "%s: does not say where its documents end, as data.pack needs: an earlier version made it; "
                         "prepare it anew",
                         shards->folder);
    room += shards->file[i].n_documents;
  }
  *end = base_alloc((size_t)room * sizeof **end), *n = 0;
  TRY_OR(gather_ends(shards, *end, n), free(*end));
  return STATUS_OK;
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
    if (shards->map) readable_unmap(&shards->map[i]);
    free(shards->file[i].name);
  }
  free(shards->folder), free(shards->tokenizer_json), free(shards->sources);
  free(shards->file), free(shards->map), free(shards->first);
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
      to[i + j] = shards->width == 2 ? ((const uint16_t *)shards->map[low].data)[from + j]
                                     : ((const int32_t *)shards->map[low].data)[from + j];
    i += here;
  }
  for (int64_t i = 0; i < n; i++)
    CHECK(to[i] >= 0 && to[i] < shards->vocab_size, "%s: token %d of %d: damaged; aspis inspect finds the file",
          shards->folder, to[i], shards->vocab_size);
}

Status shards_write_manifest(const Shards *shards) {
  json_t *root = json_pack("{s:i, s:b, s:i, s:i, s:b, s:I, s:I, s:I, s:o, s:{s:i, s:I, s:b}, s:[]}", "format", FORMAT,
                           "complete", shards->complete, "width", shards->width, "vocab_size", shards->vocab_size,
                           "special_tokens", shards->special_tokens, "tokens", (json_int_t)shards->n_tokens,
                           "text_bytes", (json_int_t)shards->n_text_bytes, "documents", (json_int_t)shards->n_documents,
                           "made_from", json_loads(shards->sources, 0, NULL), "next", "file", shards->next_file,
                           "offset", (json_int_t)shards->next_offset, "within", shards->next_within, "shards");
  CHECK(root, "json_pack: out of memory");
  for (int i = 0; i < shards->n_files; i++) {
    const ShardFile *file = &shards->file[i];
    char hash[17], ends[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, file->hash);
    snprintf(ends, sizeof ends, "%016" PRIx64, file->ends_hash);
    json_t *entry =
        json_pack("{s:s, s:I, s:s}", "file", file->name, "tokens", (json_int_t)file->n_tokens, "xxh3", hash);
    if (file->n_documents >= 0)
      json_object_update_new(entry,
                             json_pack("{s:I, s:s}", "documents", (json_int_t)file->n_documents, "ends_xxh3", ends));
    json_array_append_new(json_object_get(root, "shards"), entry);
  }
  char *text = json_dumps(root, JSON_INDENT(1)), *path = base_format("%s/manifest.json", shards->folder);
  CHECK(text, "json_dumps: out of memory");
  Status status = publish_bytes(path, text, strlen(text), CODE_DATA);
  free(text), free(path);
  json_decref(root);
  return status;
}
