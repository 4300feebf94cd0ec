/* shards_prepare: text to shards. A reader cuts the texts into pieces of at most a block: documents, or parts of long ones, cut where
 * both sides alone give the tokens of the whole (bpe_safe_cut). Pieces are gathered, encoded by all threads and written in
 * order. A shard is as many whole pieces as fill it; when it is there, the manifest says where the next one begins. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "data/bpe.h"
#include "data/files.h"
#include "data/shards.h"
#include "tensor/publish.h"
#include "tensor/readable.h"

enum { MOST_PIECES = 1 << 14, MOST_BLOCK = 1 << 30 };

typedef struct Piece {
  char *text;
  size_t bytes;
  int file;
  bool begins, ends; /* a document */
  TokenRow row;
  Status status;
} Piece;

typedef struct Reader {
  const PrepareOptions *options;
  const SourceText *list;
  BpeEncoder *cutter; /* NULL: another kind of tokenizer */
  int file, fd;       /* fd -1: the file is not open */
  char *buffer;
  size_t at, n, capacity; /* the text in buffer[at, n) is next */
  int64_t offset;         /* of buffer[at] in the file */
  bool at_end;            /* the file has nothing behind buffer[n) */
  bool within;            /* a document that has begun */
} Reader;

static Status refill(Reader *r) {
  const char *path = r->list->file[r->file].path;
  if (r->fd < 0) {
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 || lseek(r->fd, r->offset, SEEK_SET) < 0) return readable_failed(path, CODE_DATA);
    r->at = r->n = 0;
  }
  if (r->at > 0) memmove(r->buffer, r->buffer + r->at, r->n -= r->at), r->at = 0;
  if (r->n == r->capacity) {
    if (r->capacity >= MOST_BLOCK)
      return status_fail(CODE_DATA,
                         "%s: byte offset %lld: no place to cut in 1 GiB; give --document-end, or smaller files", path,
                         (long long)r->offset);
    r->buffer = base_realloc(r->buffer, r->capacity *= 2);
  }
  while (r->n < r->capacity && !r->at_end) {
    const ssize_t n = read(r->fd, r->buffer + r->n, r->capacity - r->n);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return readable_failed(path, CODE_DATA);
    r->at_end = n == 0;
    r->n += (size_t)n;
  }
  return STATUS_OK;
}

static size_t character_end(const char *text, size_t bytes) {
  size_t cut = bytes;
  while (cut > 0 && bytes - cut < 4 && ((unsigned char)text[cut] & 0xC0) == 0x80) cut--;
  return cut;
}

/* How much of what is there is the next piece; 0: more must be read. */
static size_t find_end(Reader *r, bool *ends) {
  const char *text = r->buffer + r->at, *mark = r->options->document_end;
  const size_t left = r->n - r->at;
  const char *found = mark && left > 0 ? memmem(text, left, mark, strlen(mark)) : NULL;
  *ends = found != NULL || r->at_end;
  if (found) return (size_t)(found - text) + strlen(mark);
  if (r->at_end) return left;
  if (left < (size_t)r->options->block_bytes) return 0;
  return r->cutter ? bpe_safe_cut(r->cutter, text, left) : character_end(text, left - 4);
}

/* bytes 0: there is no more. */
static Status next_piece(Reader *r, Piece *piece) {
  *piece = (Piece){0};
  while (r->file < r->list->n_files) {
    bool ends = false;
    size_t n = r->fd >= 0 ? find_end(r, &ends) : 0;
    if (n > 0) {
      *piece = (Piece){.text = base_alloc(n), .bytes = n, .file = r->file, .begins = !r->within, .ends = ends};
      r->within = !ends;
      memcpy(piece->text, r->buffer + r->at, n);
      r->at += n, r->offset += (int64_t)n;
      return STATUS_OK;
    }
    if (r->fd >= 0 && r->at_end) {
      close(r->fd);
      r->fd = -1, r->at_end = false, r->file++, r->offset = 0;
      continue;
    }
    TRY(refill(r));
  }
  return STATUS_OK;
}

typedef struct Writer {
  const PrepareOptions *options;
  Shards *shards;
  FILE *file;
  char *path, *temp;
  XXH3_state_t *hash;
  int64_t n_tokens;
  int64_t *end, n_ends, ends_capacity; /* of the shard's documents, within it */
  Piece *piece;                        /* [MOST_PIECES] */
  int n_pieces;
} Writer;

static void encode_pieces(Writer *w) {
  const Tokenizer *tokenizer = w->options->tokenizer;
  const Bpe *bpe = tokenizer_bpe(tokenizer);
  const TokenTemplate around = w->options->special_tokens ? tokenizer_template(tokenizer) : (TokenTemplate){0};
#pragma omp parallel
  {
    BpeEncoder *encoder = bpe ? bpe_encoder_new(bpe) : NULL;
#pragma omp for schedule(dynamic)
    for (int i = 0; i < w->n_pieces; i++) {
      Piece *p = &w->piece[i];
      p->row = (TokenRow){.width = w->shards->width};
      if (p->begins) token_row_add_all(&p->row, around.before, around.n_before);
      p->status = encoder ? bpe_encode(encoder, "text", p->text, p->bytes, &p->row)
                          : tokenizer_encode_to(tokenizer, "text", p->text, p->bytes, &p->row);
      if (p->ends) token_row_add_all(&p->row, around.behind, around.n_behind);
      if (p->ends && w->options->end_token >= 0) token_row_add(&p->row, (uint32_t)w->options->end_token);
    }
    bpe_encoder_free(encoder);
  }
}

static void free_pieces(Writer *w) {
  for (int i = 0; i < w->n_pieces; i++)
    free(w->piece[i].text), free(w->piece[i].row.token), status_clear(&w->piece[i].status);
  w->n_pieces = 0;
}

static void add_end(Writer *w) {
  if (w->n_ends == w->ends_capacity)
    w->end = base_realloc(w->end, (size_t)(w->ends_capacity = 2 * w->ends_capacity + 64) * sizeof *w->end);
  w->end[w->n_ends++] = w->n_tokens;
}

static Status write_pieces(Writer *w, const Reader *r) {
  encode_pieces(w);
  for (int i = 0; i < w->n_pieces; i++) {
    Piece *p = &w->piece[i];
    if (p->status.code != CODE_OK)
      return status_fail(CODE_DATA, "%s: %s (in the piece that ends before byte %lld)", r->list->file[p->file].path,
                         p->status.line, (long long)r->offset);
    const size_t bytes = (size_t)p->row.n * (size_t)w->shards->width;
    if (bytes && fwrite(p->row.token, 1, bytes, w->file) != bytes)
      return status_fail(CODE_DATA, "%s: cannot write: %s", w->temp, strerror(errno));
    if (bytes) XXH3_64bits_update(w->hash, p->row.token, bytes);
    w->n_tokens += p->row.n;
    w->shards->n_text_bytes += (int64_t)p->bytes;
    w->shards->n_documents += p->ends;
    if (p->ends) add_end(w);
  }
  free_pieces(w);
  return STATUS_OK;
}

static Status begin_shard(Writer *w) {
  free(w->path), free(w->temp);
  w->path = base_format("%s/shard-%05d.bin", w->shards->folder, w->shards->n_files);
  w->temp = base_format("%s.tmp", w->path);
  w->file = fopen(w->temp, "wbe");
  w->n_tokens = w->n_ends = 0;
  XXH3_64bits_reset(w->hash);
  return w->file ? STATUS_OK : status_fail(CODE_DATA, "%s: cannot write: %s", w->temp, strerror(errno));
}

static Status end_shard(Writer *w, const Reader *r, bool last) {
  Shards *s = w->shards;
  const bool failed = fflush(w->file) != 0 || fsync(fileno(w->file)) != 0;
  const bool bad = (fclose(w->file) != 0) | failed;
  w->file = NULL;
  if (bad || rename(w->temp, w->path) != 0)
    return status_fail(CODE_DATA, "%s: cannot write: %s", w->path, strerror(errno));
  const size_t n_bytes = (size_t)w->n_ends * sizeof *w->end;
  char *ends = base_format("%s/shard-%05d.ends", s->folder, s->n_files);
  Status status = publish_bytes(ends, w->end, n_bytes, CODE_DATA);
  free(ends);
  TRY(status);
  s->file = base_realloc(s->file, (size_t)(s->n_files + 1) * sizeof *s->file);
  s->file[s->n_files] = (ShardFile){.name = base_format("shard-%05d.bin", s->n_files),
                                    .n_tokens = w->n_tokens,
                                    .hash = XXH3_64bits_digest(w->hash),
                                    .n_documents = w->n_ends,
                                    .ends_hash = XXH3_64bits(w->end, n_bytes)};
  s->n_files++, s->n_tokens += w->n_tokens;
  s->next_file = r->file, s->next_offset = r->offset, s->next_within = r->within;
  s->complete = last;
  return shards_write_manifest(s);
}

static Status write_shard(Writer *w, Reader *r, bool *last) {
  int64_t bytes = 0, gathered = 0;
  TRY(begin_shard(w));
  for (*last = false; !*last && bytes < w->options->shard_bytes;) {
    Piece *piece = &w->piece[w->n_pieces];
    TRY(next_piece(r, piece));
    *last = piece->bytes == 0;
    if (!*last) w->n_pieces++;
    bytes += (int64_t)piece->bytes, gathered += (int64_t)piece->bytes;
    if (*last || bytes >= w->options->shard_bytes || gathered >= 16 * w->options->block_bytes ||
        w->n_pieces == MOST_PIECES) {
      TRY(write_pieces(w, r));
      gathered = 0;
    }
  }
  return end_shard(w, r, *last);
}

static Status write_all(const PrepareOptions *options, const SourceText *list, Shards *shards) {
  const Bpe *bpe = tokenizer_bpe(options->tokenizer);
  Reader reader = {.options = options,
                   .list = list,
                   .cutter = bpe ? bpe_encoder_new(bpe) : NULL,
                   .file = shards->next_file,
                   .fd = -1,
                   .capacity = (size_t)options->block_bytes + 256,
                   .offset = shards->next_offset,
                   .within = shards->next_within};
  Writer writer = {.options = options,
                   .shards = shards,
                   .hash = XXH3_createState(),
                   .piece = base_zalloc(MOST_PIECES * sizeof(Piece))};
  CHECK(writer.hash, "XXH3_createState: out of memory");
  reader.buffer = base_alloc(reader.capacity);
  Status status = STATUS_OK;
  bool last = false;
  for (int n = 0; !last && status.code == CODE_OK && (options->stop_after == 0 || n < options->stop_after); n++)
    status = write_shard(&writer, &reader, &last);
  if (reader.fd >= 0) close(reader.fd);
  if (writer.file) fclose(writer.file), unlink(writer.temp);
  free_pieces(&writer);
  XXH3_freeState(writer.hash);
  free(reader.buffer), free(writer.piece), free(writer.end), free(writer.path), free(writer.temp);
  bpe_encoder_free(reader.cutter);
  return status;
}

/* A name or mark as JSON, which has no bytes that are no UTF-8: of such a text those above ASCII are written as %E9. */
static json_t *json_bytes(const char *text) {
  if (utf8_is(text)) return json_string(text);
  char *escaped = base_alloc(3 * strlen(text) + 1), *to = escaped;
  for (const unsigned char *c = (const unsigned char *)text; *c; c++)
    to += sprintf(to, *c < 0x80 ? "%c" : "%%%02X", *c);
  json_t *string = json_string(escaped);
  free(escaped);
  return string;
}

/* What the tokens depend on, to tell whether a folder that was begun is of the same. */
static char *describe(const PrepareOptions *options, const SourceText *list) {
  json_t *texts = json_array();
  for (int i = 0; i < list->n_files; i++)
    json_array_append_new(texts, json_pack("[o, I]", json_bytes(list->file[i].path),
                                           (json_int_t)(list->file[i].end - list->file[i].begin)));
  json_t *root = json_pack("{s:o, s:o, s:i, s:b, s:I, s:I}", "texts", texts, "document_end",
                           options->document_end ? json_bytes(options->document_end) : json_null(), "end_token",
                           (int)options->end_token, "special_tokens", options->special_tokens, "shard_bytes",
                           (json_int_t)options->shard_bytes, "block_bytes", (json_int_t)options->block_bytes);
  CHECK(root, "json_pack: out of memory");
  char *text = json_dumps(root, JSON_COMPACT);
  json_decref(root);
  return text;
}

/* Reads what was begun; it must be of the same. */
static Status go_on(const PrepareOptions *options, const char *sources, const char *tokenizer_json, Shards *shards) {
  TRY(shards_read(options->out, shards));
  if (shards->complete)
    return status_fail(CODE_USAGE, "%s: is finished: give another folder, or --force to make it anew", options->out);
  if (strcmp(shards->sources, sources) == 0 && strcmp(shards->tokenizer_json, tokenizer_json) == 0) return STATUS_OK;
  return status_fail(
      CODE_USAGE,
      "%s: was begun with other texts, options or another tokenizer: give the same, another folder, or --force to "
      "make it anew",
      options->out);
}

/* The folder with its tokenizer and a manifest of nothing yet; one that cannot be is not left behind. */
static Status make_folder(const PrepareOptions *options, const char *sources, const char *tokenizer_json,
                          Shards *shards) {
  const int n = tokenizer_vocab_size(options->tokenizer), width = token_width(n);
  *shards = (Shards){.folder = base_strdup(options->out),
                     .tokenizer_json = base_strdup(tokenizer_json),
                     .sources = base_strdup(sources),
                     .vocab_size = n,
                     .width = width < 2 ? 2 : width,
                     .special_tokens = options->special_tokens};
  const bool made = mkdir(options->out, 0777) == 0;
  if (!made && errno != EEXIST)
    return status_fail(CODE_DATA, "%s: cannot make the folder: %s", options->out, strerror(errno));
  char *path = base_format("%s/tokenizer.json", options->out);
  Status status = publish_bytes(path, tokenizer_json, strlen(tokenizer_json), CODE_DATA);
  if (status.code == CODE_OK) status = shards_write_manifest(shards);
  if (status.code != CODE_OK && made) unlink(path), rmdir(options->out);
  free(path);
  return status;
}

static Status begin(const PrepareOptions *options, const SourceText *list, Shards *shards) {
  char *manifest = base_format("%s/manifest.json", options->out), *sources = describe(options, list),
       *json = tokenizer_to_json(options->tokenizer);
  const bool begun = access(manifest, F_OK) == 0 && !options->force;
  Status status = (begun ? go_on : make_folder)(options, sources, json, shards);
  if (status.code != CODE_OK) shards_close(shards);
  free(manifest), free(sources), free(json);
  return status;
}

Status shards_prepare(const PrepareOptions *options, Shards *shards) {
  SourceText list;
  *shards = (Shards){0};
  if (options->document_end && (!*options->document_end || strlen(options->document_end) > 64))
    return status_fail(CODE_USAGE, "--document-end: expected 1 to 64 bytes");
  TRY(files_list(options->paths, options->n_paths, &list));
  Status status = begin(options, &list, shards);
  if (status.code == CODE_OK) TRY_OR(write_all(options, &list, shards), (shards_close(shards), files_free(&list)));
  files_free(&list);
  return status;
}
