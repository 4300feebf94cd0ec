/* bpe_model: what a Bpe holds: written by bpe_json.c, read by bpe.c. */
#pragma once

#include "data/bpe_split.h"
#include "data/bpe_table.h"

enum { BPE_MAX_STAGES = 16, BPE_MAX_VOCAB = 1 << 24 };

/* Metaspace: whether what does not begin with its sign for a space gets one, everywhere or only at the text's start. */
typedef enum SpacePrefix { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS } SpacePrefix;

/* One step of pre_tokenizer. */
typedef struct BpeStage {
  bool prefix_space; /* a space before what does not begin with one */
  Splitter splitter; /* code NULL: none */
  char *space;       /* Metaspace: what stands for a space; NULL: another step */
  SpacePrefix prefix;
} BpeStage;

typedef enum NormalKind { NORMAL_NFC, NORMAL_NFD, NORMAL_NFKC, NORMAL_NFKD, NORMAL_PREPEND, NORMAL_REPLACE } NormalKind;
typedef struct BpeNormal {
  NormalKind kind;
  char *pattern, *content; /* replace: a string and what takes its place; prepend: content */
} BpeNormal;

typedef struct BpePiece {
  char *text; /* NULL: no such token */
  int bytes;
} BpePiece;

typedef struct BpeAdded {
  char *content, *sought; /* sought: the content, normalised where the token is looked for in normalised text */
  size_t bytes;           /* of sought */
  uint32_t id;
  bool special, single_word, lstrip, rstrip, normalized;
} BpeAdded;

/* Added tokens to be looked for in one pass: the longest first. */
typedef struct BpeAddedSet {
  const BpeAdded **token;
  int n;
  uint8_t begins[256]; /* bytes that tokens begin with */
} BpeAddedSet;

struct Bpe {
  BpeVocab vocab; /* byte_level: bytes; else UTF-8 */
  BpeMerges merges;
  BpePiece *piece; /* [n_vocab] */
  int n_vocab;
  bool byte_level, byte_fallback, fuse_unk, ignore_merges, drops_first_space;
  bool local; /* words depend on what is near them alone */
  uint32_t unk, byte_id[256];
  BpeStage stage[BPE_MAX_STAGES];
  BpeNormal normal[BPE_MAX_STAGES];
  int n_stages, n_normals;
  BpeAdded *added;
  int n_added;
  BpeAddedSet raw, normalized;
  Splitter word_character;  /* one character of a word, for single_word */
  int32_t *before, *behind; /* of post_processor */
  int n_before, n_behind;
};

/* The code point, below 512, that stands for a byte in GPT-2's alphabet. */
uint32_t bpe_code_of_byte(int byte);

/* A growing text. */
typedef struct BpeText {
  char *data;
  size_t n, capacity;
} BpeText;
void bpe_text_add(BpeText *text, const char *bytes, size_t n);
/* Valid UTF-8 through normalizer, into an empty text. */
void bpe_normalize(const Bpe *bpe, const char *text, size_t bytes, BpeText *to);
