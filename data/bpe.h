/* bpe: byte-pair encoding as a Hugging Face tokenizer.json describes it: added tokens are found first, what lies between
 * them is normalised, split into words by regular expressions, and each word merged pair by pair in the order of the
 * pairs' ranks. Results equal those of the `tokenizers` package; what a file asks for beyond that is refused by name.
 *
 * A Bpe is read-only and may be used by many threads; each needs a BpeEncoder of its own. */
#pragma once

#include <jansson.h>

#include "data/tokenizer.h"

#define BPE_NONE UINT32_MAX

typedef struct Bpe Bpe;
typedef struct BpeEncoder BpeEncoder;

/* root: the tokenizer.json. Anything wrong or not supported is CODE_DATA, with the key named. */
Status bpe_read(const json_t *root, Bpe **bpe);
void bpe_free(Bpe *bpe);
/* The largest id + 1. */
int bpe_vocab_size(const Bpe *bpe);
/* As tokenizer_piece. */
const char *bpe_piece(const Bpe *bpe, int32_t token, int *bytes);
/* True where a text begins with a space that decoding takes away again (decoder Strip). */
bool bpe_drops_first_space(const Bpe *bpe);
/* What post_processor puts before and behind a text, as ids owned by the Bpe. */
void bpe_template(const Bpe *bpe, const int32_t **before, int *n_before, const int32_t **behind, int *n_behind);
/* The id of an added token, or -1. */
int32_t bpe_added_token(const Bpe *bpe, const char *content);

/* Trains a byte-level encoding of at most vocab_size tokens on texts: a tokenizer.json (malloc'ed). */
Status bpe_train(char *const *paths, int n_paths, int vocab_size, char **json);

BpeEncoder *bpe_encoder_new(const Bpe *bpe);
void bpe_encoder_free(BpeEncoder *encoder);
/* Appends the tokens of a text. Bytes that are no UTF-8 are words of their own where the vocabulary has bytes, else
 * CODE_DATA, with `where` naming the text. */
Status bpe_encode(BpeEncoder *encoder, const char *where, const char *text, size_t bytes, TokenRow *row);
/* A place near the middle of these bytes of a longer text where it may be cut: both sides encoded alone give the tokens of
 * the whole. 0: none is found. */
size_t bpe_safe_cut(BpeEncoder *encoder, const char *text, size_t bytes);
