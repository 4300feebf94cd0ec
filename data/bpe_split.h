/* bpe_split: cutting a text into words, by the regular expressions of a tokenizer.json. */
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "tensor/base.h"

/* GPT-2's words: what pre_tokenizer ByteLevel means by use_regex. */
#define BPE_GPT2_WORDS "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef enum SplitBehavior {
  SPLIT_ISOLATED,
  SPLIT_REMOVED,
  SPLIT_CONTIGUOUS,
  SPLIT_MERGED_WITH_PREVIOUS,
  SPLIT_MERGED_WITH_NEXT
} SplitBehavior;

typedef struct Splitter {
  pcre2_code *code;
  SplitBehavior behavior;
  bool invert; /* what matches is what lies between, and the other way round */
} Splitter;

/* literal: the pattern is a string to be found. A pattern that PCRE2 might read otherwise than the `tokenizers` package, which
 * uses Oniguruma, is refused (CODE_DATA, `where` naming it). */
Status splitter_new(const char *where, const char *pattern, bool literal, Splitter *splitter);
/* False where a pattern may look further than a character beyond what it matches. */
bool splitter_is_local(const char *pattern);
void splitter_free(Splitter *splitter);

typedef struct SplitPiece {
  size_t begin, end;
  bool match;
} SplitPiece;
/* Scratch of one thread: pieces of one call. */
typedef struct SplitPieces {
  SplitPiece *piece;
  size_t n, capacity;
} SplitPieces;
/* The next match from `from` on in valid UTF-8; false: there is none. Empty matches are passed over. */
bool splitter_next(const Splitter *splitter, pcre2_match_data *scratch, const char *text, size_t bytes, size_t from,
                   SplitPiece *match);
/* All pieces, the behaviour applied. */
void splitter_pieces(const Splitter *splitter, pcre2_match_data *scratch, const char *text, size_t bytes,
                     SplitPieces *pieces);
