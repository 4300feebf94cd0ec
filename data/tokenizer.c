/* tokenizer: text <-> tokens.
 *   byte: token = byte, 256 of them: takes any file, never fails.
 *   char: token = rank of a Unicode code point among those of the training text, in code point order.
 *   bpe:  a Hugging Face tokenizer.json (data/bpe.h), kept as it was read.
 * UTF-8 is decoded strictly (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF), so that decoding the
 * tokens gives back the text to the byte. */
#include "data/tokenizer.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe.h"
#include "tensor/readable.h"

typedef struct Piece {
  char text[4];
  uint8_t bytes;
} Piece;

struct Tokenizer {
  bool is_byte;
  int vocab_size;
  Piece *piece;        /* [vocab_size] */
  int32_t *id_of_code; /* [N_CODE_POINTS], -1 where outside the vocabulary; NULL for bytes */
  Bpe *bpe;            /* NULL: one of the two above */
  char *json;          /* of bpe */
  _Atomic(BpeEncoder *)
      encoder; /* one to be taken by whoever encodes, with the words that it met; NULL: taken, or none yet */
};

size_t utf8_decode(const char *text, size_t left, uint32_t *code) {
  static const struct {
    uint8_t mask, lead;
    uint32_t smallest;
  } FORM[] = {{0x80, 0x00, 0}, {0xE0, 0xC0, 0x80}, {0xF0, 0xE0, 0x800}, {0xF8, 0xF0, 0x10000}};
  uint8_t lead = (uint8_t)text[0];
  if (lead < 0x80) { /* the common case needs no table */
    *code = lead;
    return 1;
  }
  for (size_t n = 2; n <= 4 && n <= left; n++) {
    if ((lead & FORM[n - 1].mask) != FORM[n - 1].lead) continue;
    uint32_t c = lead & (uint8_t)~FORM[n - 1].mask;
    for (size_t i = 1; i < n; i++) {
      if (((uint8_t)text[i] & 0xC0) != 0x80) return 0;
      c = c << 6 | ((uint8_t)text[i] & 0x3F);
    }
    if (c < FORM[n - 1].smallest || (c >= 0xD800 && c < 0xE000) || c >= N_CODE_POINTS) return 0;
    *code = c;
    return n;
  }
  return 0;
}

bool utf8_is(const char *text) {
  uint32_t code;
  for (size_t n; *text; text += n) {
    n = utf8_decode(text, strlen(text), &code);
    if (n == 0) return false;
  }
  return true;
}

static Piece utf8_encode(uint32_t c) {
  if (c < 0x80) return (Piece){{(char)c}, 1};
  if (c < 0x800) return (Piece){{(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))}, 2};
  if (c < 0x10000)
    return (Piece){{(char)(0xE0 | c >> 12), (char)(0x80 | (c >> 6 & 0x3F)), (char)(0x80 | (c & 0x3F))}, 3};
  return (Piece){{(char)(0xF0 | c >> 18), (char)(0x80 | (c >> 12 & 0x3F)), (char)(0x80 | (c >> 6 & 0x3F)),
                  (char)(0x80 | (c & 0x3F))},
                 4};
}

static Status not_utf8(const char *where, const char *text, size_t offset) {
  return status_fail(CODE_DATA,
                     "%s: byte offset %zu: not UTF-8 (found byte 0x%02X); convert the text to UTF-8 or set "
                     "data.tokenizer: byte",
                     where, offset, (uint8_t)text[offset]);
}

static Status not_in_vocabulary(const Tokenizer *t, const char *where, size_t offset, uint32_t code) {
  char shown[16] = "";
  Piece piece = utf8_encode(code);
  if (code >= 0xA0 || (code >= 0x20 && code < 0x7F)) snprintf(shown, sizeof shown, "'%.*s' ", piece.bytes, piece.text);
  return status_fail(CODE_DATA,
                     "%s: byte offset %zu: character %s(U+%04X) is not among the %d the model was trained with; remove "
                     "it from the text, or train with data.tokenizer: byte",
                     where, offset, shown, code, t->vocab_size);
}

static Tokenizer *new_empty_char(void) {
  Tokenizer *t = base_zalloc(sizeof *t);
  t->id_of_code = base_alloc(sizeof *t->id_of_code * N_CODE_POINTS);
  memset(t->id_of_code, 0xFF, sizeof *t->id_of_code * N_CODE_POINTS);
  return t;
}

static void append_char(Tokenizer *t, uint32_t code) {
  if ((t->vocab_size & (t->vocab_size - 1)) == 0) /* a power of two: full */
    t->piece = base_realloc(t->piece, sizeof *t->piece * (t->vocab_size ? 2 * (size_t)t->vocab_size : 1));
  t->id_of_code[code] = t->vocab_size;
  t->piece[t->vocab_size++] = utf8_encode(code);
}

Tokenizer *tokenizer_new_byte(void) {
  Tokenizer *t = base_zalloc(sizeof *t);
  *t = (Tokenizer){.is_byte = true, .vocab_size = 256, .piece = base_zalloc(sizeof *t->piece * 256)};
  for (int b = 0; b < 256; b++) t->piece[b] = (Piece){{(char)b}, 1};
  return t;
}

Tokenizer *tokenizer_new_char(const uint8_t *seen) {
  Tokenizer *t = new_empty_char();
  for (uint32_t code = 0; code < N_CODE_POINTS; code++)
    if (seen[code]) append_char(t, code);
  return t;
}

Status tokenizer_survey(const char *where, const char *text, size_t bytes, uint8_t *seen) {
  for (size_t at = 0; at < bytes;) {
    uint32_t code;
    size_t n = utf8_decode(text + at, bytes - at, &code);
    if (n == 0) return not_utf8(where, text, at);
    seen[code] = 1;
    at += n;
  }
  return STATUS_OK;
}

void token_row_grow(TokenRow *row) {
  row->capacity = row->capacity ? row->capacity + row->capacity / 2 : 256;
  row->token = base_realloc(row->token, (size_t)row->width * (size_t)row->capacity);
}

void token_row_add_all(TokenRow *row, const int32_t *ids, int n) {
  for (int i = 0; i < n; i++) token_row_add(row, (uint32_t)ids[i]);
}

static Status encode_bpe(const Tokenizer *t, const char *where, const char *text, size_t bytes, TokenRow *row) {
  _Atomic(BpeEncoder *) *place = (_Atomic(BpeEncoder *) *)(uintptr_t)&t->encoder;
  BpeEncoder *encoder = atomic_exchange(place, NULL);
  if (!encoder) encoder = bpe_encoder_new(t->bpe);
  Status status = bpe_encode(encoder, where, text, bytes, row);
  bpe_encoder_free(atomic_exchange(place, encoder));
  return status;
}

Status tokenizer_encode_to(const Tokenizer *t, const char *where, const char *text, size_t bytes, TokenRow *row) {
  if (t->bpe) return encode_bpe(t, where, text, bytes, row);
  for (size_t at = 0; at < bytes;) {
    uint32_t id = (uint8_t)text[at];
    size_t step = 1;
    if (!t->is_byte) {
      uint32_t code;
      step = utf8_decode(text + at, bytes - at, &code);
      if (step == 0) return not_utf8(where, text, at);
      if (t->id_of_code[code] < 0) return not_in_vocabulary(t, where, at, code);
      id = (uint32_t)t->id_of_code[code];
    }
    token_row_add(row, id);
    at += step;
  }
  return STATUS_OK;
}

static Status encode_behind(const Tokenizer *t, const int32_t *before, int n_before, const char *where,
                            const char *text, size_t bytes, int32_t **tokens, int64_t *n) {
  TokenRow row = {.width = sizeof(int32_t)};
  token_row_grow(&row);
  token_row_add_all(&row, before, n_before);
  TRY_OR(tokenizer_encode_to(t, where, text, bytes, &row), free(row.token));
  *tokens = row.token;
  *n = row.n;
  return STATUS_OK;
}

Status tokenizer_encode(const Tokenizer *t, const char *where, const char *text, size_t bytes, int32_t **tokens,
                        int64_t *n) {
  return encode_behind(t, NULL, 0, where, text, bytes, tokens, n);
}

Status tokenizer_encode_prompt(const Tokenizer *t, const char *where, const char *text, size_t bytes, int32_t **tokens,
                               int64_t *n, int *n_before) {
  const TokenTemplate around = tokenizer_template(t);
  *n_before = around.n_before;
  return encode_behind(t, around.before, around.n_before, where, text, bytes, tokens, n);
}

const char *tokenizer_piece(const Tokenizer *t, int32_t token, int *bytes) {
  if (t->bpe) return bpe_piece(t->bpe, token, bytes);
  if (token < 0 || token >= t->vocab_size) return NULL;
  *bytes = t->piece[token].bytes;
  return t->piece[token].text;
}

Status tokenizer_decode(const Tokenizer *t, const int32_t *tokens, int64_t n, char **text, size_t *bytes) {
  size_t used = 0, capacity = 64;
  char *to = base_alloc(capacity);
  for (int64_t i = 0; i < n; i++) {
    int length;
    const char *piece = tokenizer_piece(t, tokens[i], &length);
    if (!piece) {
      free(to);
      return status_fail(CODE_DATA, "token %lld: found %d, which the tokenizer does not have", (long long)i, tokens[i]);
    }
    while (used + (size_t)length >= capacity) to = base_realloc(to, capacity *= 2);
    memcpy(to + used, piece, (size_t)length);
    used += (size_t)length;
  }
  if (t->bpe && bpe_drops_first_space(t->bpe) && used > 0 && *to == ' ') memmove(to, to + 1, --used);
  to[used] = '\0';
  *text = to, *bytes = used;
  return STATUS_OK;
}

bool tokenizer_is_file(const char *tokenizer) {
  const size_t n = strlen(tokenizer);
  return n > 5 && strcmp(tokenizer + n - 5, ".json") == 0;
}

const Bpe *tokenizer_bpe(const Tokenizer *t) { return t->bpe; }

TokenTemplate tokenizer_template(const Tokenizer *t) {
  TokenTemplate around = {0};
  if (t->bpe) bpe_template(t->bpe, &around.before, &around.n_before, &around.behind, &around.n_behind);
  return around;
}

int tokenizer_vocab_size(const Tokenizer *t) { return t->vocab_size; }

const char *tokenizer_kind(const Tokenizer *t) { return t->bpe ? "bpe" : t->is_byte ? "byte" : "char"; }

void tokenizer_free(Tokenizer *t) {
  if (!t) return;
  free(t->piece);
  free(t->id_of_code);
  bpe_encoder_free(t->encoder);
  bpe_free(t->bpe);
  free(t->json);
  free(t);
}

char *tokenizer_to_json(const Tokenizer *t) {
  if (t->bpe) return base_strdup(t->json);
  json_t *root = json_pack("{s:s}", "kind", tokenizer_kind(t));
  CHECK(root, "json_pack: out of memory");
  if (!t->is_byte) {
    json_t *vocab = json_array();
    for (int id = 0; id < t->vocab_size; id++) {
      int rc = json_array_append_new(vocab, json_stringn(t->piece[id].text, t->piece[id].bytes));
      CHECK(rc == 0, "json_stringn refuses token %d", id);
    }
    json_object_set_new(root, "vocab", vocab);
  }
  char *text = json_dumps(root, JSON_COMPACT);
  CHECK(text, "json_dumps: out of memory");
  json_decref(root);
  return text;
}

static Status read_vocab(const json_t *vocab, Tokenizer *t) {
  if (json_array_size(vocab) == 0)
    return status_fail(CODE_DATA, "tokenizer: \"vocab\": expected a list of characters that is not empty");
  for (size_t id = 0; id < json_array_size(vocab); id++) {
    const json_t *entry = json_array_get(vocab, id);
    size_t bytes = json_string_length(entry);
    uint32_t code;
    if (bytes == 0 || utf8_decode(json_string_value(entry), bytes, &code) != bytes)
      return status_fail(CODE_DATA, "tokenizer: \"vocab\", entry %zu: expected a string of one character", id);
    if (t->id_of_code[code] >= 0)
      return status_fail(CODE_DATA, "tokenizer: \"vocab\", entry %zu: U+%04X stands at entry %d already", id, code,
                         t->id_of_code[code]);
    append_char(t, code);
  }
  return STATUS_OK;
}

static Status read_bpe(const json_t *root, Tokenizer **tokenizer) {
  Tokenizer *t = base_zalloc(sizeof *t);
  TRY_OR(bpe_read(root, &t->bpe), free(t));
  t->vocab_size = bpe_vocab_size(t->bpe);
  t->json = json_dumps(root, JSON_COMPACT);
  CHECK(t->json, "json_dumps: out of memory");
  *tokenizer = t;
  return STATUS_OK;
}

static Status read_root(const json_t *root, Tokenizer **tokenizer) {
  if (json_object_get(root, "model")) return read_bpe(root, tokenizer);
  const char *kind = json_string_value(json_object_get(root, "kind"));
  if (kind && strcmp(kind, "byte") == 0) {
    *tokenizer = tokenizer_new_byte();
    return STATUS_OK;
  }
  if (!kind || strcmp(kind, "char") != 0)
    return status_fail(CODE_DATA,
                       "tokenizer: \"kind\": found %s, expected \"byte\" or \"char\", or a tokenizer.json with a model",
                       kind ? kind : "none");
  Tokenizer *t = new_empty_char();
  TRY_OR(read_vocab(json_object_get(root, "vocab"), t), tokenizer_free(t));
  *tokenizer = t;
  return STATUS_OK;
}

Status tokenizer_from_json(const char *json, Tokenizer **tokenizer) {
  json_error_t error;
  json_t *root = json_loads(json, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
  if (!root) return status_fail(CODE_DATA, "tokenizer: line %d, column %d: %s", error.line, error.column, error.text);
  Status status = read_root(root, tokenizer);
  json_decref(root);
  return status;
}

Status tokenizer_read(const char *path, Tokenizer **tokenizer) {
  enum { MOST_BYTES = 1 << 28 };
  char *text;
  TRY(readable_text(path, MOST_BYTES, "a tokenizer.json", CODE_DATA, &text));
  Status status = tokenizer_from_json(text, tokenizer);
  free(text);
  if (status.code == CODE_OK) return status;
  Status named = status_fail(status.code, "%s: %s", path, status.line);
  status_clear(&status);
  return named;
}
