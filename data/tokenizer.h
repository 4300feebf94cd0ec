/* tokenizer: what datasets need of tokenizers beyond the public part (data.h): building one from text, and encoding
 * into the narrowest integers that hold the vocabulary. */
#pragma once

#include "data/data.h"

enum { N_CODE_POINTS = 0x110000 };

/* Bytes of the character at `text`, of which `left` bytes are there, and its code point; 0 when they are not UTF-8. */
size_t utf8_decode(const char *text, size_t left, uint32_t *code);
/* The 256 bytes. */
Tokenizer *tokenizer_new_byte(void);
/* The code points with seen[code] != 0, in order; seen has N_CODE_POINTS entries. */
Tokenizer *tokenizer_new_char(const uint8_t *seen);
/* Marks the code points of a UTF-8 text in seen[]. Invalid UTF-8 is CODE_DATA; `where` names the text in the message. */
Status tokenizer_survey(const char *where, const char *text, size_t bytes, uint8_t *seen);
/* Encodes into unsigned integers of `width` bytes (1, 2 or 4) at `to`, which has room for one a byte of text;
 * *n counts them. Errors as tokenizer_encode's, with `where` naming the text. */
Status tokenizer_encode_to(const Tokenizer *tokenizer, const char *where, const char *text, size_t bytes, int width,
                           void *to, int64_t *n);
/* "byte" or "char". */
const char *tokenizer_kind(const Tokenizer *tokenizer);
/* {"kind":"byte"} or {"kind":"char","vocab":["\n"," ",...]}, malloc'ed. */
char *tokenizer_to_json(const Tokenizer *tokenizer);
