/* tokenizer: what datasets need of tokenizers beyond the public part (data.h): building one from text, and encoding
 * into the narrowest integers that hold the vocabulary. */
#pragma once

#include "data/data.h"

enum { N_CODE_POINTS = 0x110000 };

/* Bytes of the character at `text`, of which `left` bytes are there, and its code point; 0 when they are not UTF-8. */
size_t utf8_decode(const char *text, size_t left, uint32_t *code);
bool utf8_is(const char *text);
/* The 256 bytes. */
Tokenizer *tokenizer_new_byte(void);
/* The code points with seen[code] != 0, in order; seen has N_CODE_POINTS entries. */
Tokenizer *tokenizer_new_char(const uint8_t *seen);
/* Marks the code points of a UTF-8 text in seen[]. Invalid UTF-8 is CODE_DATA; `where` names the text in the message. */
Status tokenizer_survey(const char *where, const char *text, size_t bytes, uint8_t *seen);
/* A row of tokens that grows, as unsigned integers of `width` bytes (1, 2 or 4). */
typedef struct TokenRow {
  void *token;
  int width;
  int64_t n, capacity;
} TokenRow;
void token_row_grow(TokenRow *row); /* room for one more at least */
static inline void token_row_add(TokenRow *row, uint32_t id) {
  if (row->n == row->capacity) token_row_grow(row);
  switch (row->width) {
  case 1: ((uint8_t *)row->token)[row->n++] = (uint8_t)id; break;
  case 2: ((uint16_t *)row->token)[row->n++] = (uint16_t)id; break;
  default: ((uint32_t *)row->token)[row->n++] = id; break;
  }
}
void token_row_add_all(TokenRow *row, const int32_t *ids, int n);
static inline uint32_t token_row_get(const TokenRow *row, int64_t i) {
  switch (row->width) {
  case 1: return ((const uint8_t *)row->token)[i];
  case 2: return ((const uint16_t *)row->token)[i];
  default: return ((const uint32_t *)row->token)[i];
  }
}
/* Bytes of the narrowest integers that hold the vocabulary. */
static inline int token_width(int vocab_size) { return vocab_size <= 1 << 8 ? 1 : vocab_size <= 1 << 16 ? 2 : 4; }
/* Appends the tokens of a text. Errors as tokenizer_encode's, with `where` naming the text. Threads may share a tokenizer. */
Status tokenizer_encode_to(const Tokenizer *tokenizer, const char *where, const char *text, size_t bytes,
                           TokenRow *row);
/* Reads a tokenizer.json. CODE_DATA names the file. */
Status tokenizer_read(const char *path, Tokenizer **tokenizer);
/* The byte-pair encoding; NULL: another kind. */
const struct Bpe *tokenizer_bpe(const Tokenizer *tokenizer);
/* "byte", "char" or "bpe". */
const char *tokenizer_kind(const Tokenizer *tokenizer);
/* {"kind":"byte"}, {"kind":"char","vocab":["\n"," ",...]}, or the tokenizer.json on one line; malloc'ed. */
char *tokenizer_to_json(const Tokenizer *tokenizer);
