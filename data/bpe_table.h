/* bpe_table: the vocabulary and the merges of a byte-pair encoding, as hash tables, and the merging of a word. */
#pragma once

#include "data/bpe.h"

/* Strings -> ids. Keys are copied. */
typedef struct BpeVocab {
  struct BpeVocabSlot {
    uint64_t hash;
    uint32_t at, bytes; /* in pool */
    uint32_t id;        /* BPE_NONE: empty */
  } * slot;
  size_t capacity, n; /* a power of two */
  char *pool;
  size_t pool_bytes, pool_capacity;
} BpeVocab;

void bpe_vocab_free(BpeVocab *vocab);
/* False where the key is there already. */
bool bpe_vocab_add(BpeVocab *vocab, const char *key, size_t bytes, uint32_t id);
uint32_t bpe_vocab_find(const BpeVocab *vocab, const char *key, size_t bytes); /* BPE_NONE: not there */

/* Pairs of ids -> rank of the merge and what it makes. */
typedef struct BpeMerge {
  uint32_t left, right, rank, made; /* rank BPE_NONE: empty */
} BpeMerge;
typedef struct BpeMerges {
  BpeMerge *slot;
  size_t capacity; /* a power of two, at least twice the number of pairs */
} BpeMerges;

BpeMerges bpe_merges_new(size_t n);
void bpe_merges_free(BpeMerges *merges);
/* A pair that is there already gets the new rank, as a map's insert would have it. */
void bpe_merges_put(BpeMerges *merges, BpeMerge merge);
const BpeMerge *bpe_merges_find(const BpeMerges *merges, uint32_t left, uint32_t right); /* NULL: no merge */

/* A word being merged: symbols in a list, candidate merges in a heap by (rank, place). n symbols cost O(n log n). */
typedef struct BpeSymbol {
  uint32_t id;
  int32_t before, next; /* -1: none */
} BpeSymbol;
typedef struct BpeCandidate {
  uint32_t rank, at, made;
} BpeCandidate;
typedef struct BpeWord {
  BpeSymbol *symbol;
  BpeCandidate *heap;
  size_t n, capacity, n_heap, heap_capacity;
} BpeWord;

void bpe_word_free(BpeWord *word);
void bpe_word_add(BpeWord *word, uint32_t id);
/* Merges what was added; the word's ids are then those of the list from symbol 0, `next` leading on. */
void bpe_word_merge(BpeWord *word, const BpeMerges *merges);
