/* bpe_table: see bpe_table.h. */
#include "data/bpe_table.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- strings */

void bpe_vocab_free(BpeVocab *vocab) {
  free(vocab->slot), free(vocab->pool);
  *vocab = (BpeVocab){0};
}

static struct BpeVocabSlot *vocab_slot(const BpeVocab *vocab, uint64_t hash, const char *key, size_t bytes) {
  for (size_t i = hash & (vocab->capacity - 1);; i = (i + 1) & (vocab->capacity - 1)) {
    struct BpeVocabSlot *slot = &vocab->slot[i];
    if (slot->id == BPE_NONE) return slot;
    if (slot->hash == hash && slot->bytes == bytes && memcmp(vocab->pool + slot->at, key, bytes) == 0) return slot;
  }
}

static void vocab_grow(BpeVocab *vocab) {
  BpeVocab old = *vocab;
  vocab->capacity = old.capacity ? 2 * old.capacity : 1024;
  vocab->slot = base_alloc(vocab->capacity * sizeof *vocab->slot);
  memset(vocab->slot, 0xFF, vocab->capacity * sizeof *vocab->slot); /* every id BPE_NONE */
  for (size_t i = 0; i < old.capacity; i++)
    if (old.slot[i].id != BPE_NONE)
      *vocab_slot(vocab, old.slot[i].hash, vocab->pool + old.slot[i].at, old.slot[i].bytes) = old.slot[i];
  free(old.slot);
}

bool bpe_vocab_add(BpeVocab *vocab, const char *key, size_t bytes, uint32_t id) {
  if (2 * (vocab->n + 1) > vocab->capacity) vocab_grow(vocab);
  const uint64_t hash = XXH3_64bits(key, bytes);
  struct BpeVocabSlot *slot = vocab_slot(vocab, hash, key, bytes);
  if (slot->id != BPE_NONE) return false;
  while (vocab->pool_bytes + bytes > vocab->pool_capacity) {
    vocab->pool_capacity = vocab->pool_capacity ? 2 * vocab->pool_capacity : 4096;
    vocab->pool = base_realloc(vocab->pool, vocab->pool_capacity);
  }
  if (bytes) memcpy(vocab->pool + vocab->pool_bytes, key, bytes);
  *slot = (struct BpeVocabSlot){hash, (uint32_t)vocab->pool_bytes, (uint32_t)bytes, id};
  vocab->pool_bytes += bytes;
  vocab->n++;
  return true;
}

uint32_t bpe_vocab_find(const BpeVocab *vocab, const char *key, size_t bytes) {
  return vocab->n ? vocab_slot(vocab, XXH3_64bits(key, bytes), key, bytes)->id : BPE_NONE;
}

/* ---- pairs */

BpeMerges bpe_merges_new(size_t n) {
  BpeMerges merges = {.capacity = 16};
  while (merges.capacity < 2 * n) merges.capacity *= 2;
  merges.slot = base_alloc(merges.capacity * sizeof *merges.slot);
  memset(merges.slot, 0xFF, merges.capacity * sizeof *merges.slot);
  return merges;
}

void bpe_merges_free(BpeMerges *merges) {
  free(merges->slot);
  *merges = (BpeMerges){0};
}

static BpeMerge *merges_slot(const BpeMerges *merges, uint32_t left, uint32_t right) {
  const uint64_t key = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
  for (size_t i = (key ^ key >> 32) & (merges->capacity - 1);; i = (i + 1) & (merges->capacity - 1)) {
    BpeMerge *slot = &merges->slot[i];
    if (slot->rank == BPE_NONE || (slot->left == left && slot->right == right)) return slot;
  }
}

void bpe_merges_put(BpeMerges *merges, BpeMerge merge) { *merges_slot(merges, merge.left, merge.right) = merge; }

const BpeMerge *bpe_merges_find(const BpeMerges *merges, uint32_t left, uint32_t right) {
  const BpeMerge *slot = merges_slot(merges, left, right);
  return slot->rank == BPE_NONE ? NULL : slot;
}

/* ---- a word */

void bpe_word_free(BpeWord *word) {
  free(word->symbol), free(word->heap);
  *word = (BpeWord){0};
}

void bpe_word_add(BpeWord *word, uint32_t id) {
  if (word->n == word->capacity) {
    word->capacity = word->capacity ? 2 * word->capacity : 64;
    word->symbol = base_realloc(word->symbol, word->capacity * sizeof *word->symbol);
  }
  const int32_t at = (int32_t)word->n++;
  word->symbol[at] = (BpeSymbol){id, at - 1, -1};
  if (at) word->symbol[at - 1].next = at;
}

static bool sooner(BpeCandidate a, BpeCandidate b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static void heap_push(BpeWord *word, BpeCandidate candidate) {
  if (word->n_heap == word->heap_capacity) {
    word->heap_capacity = word->heap_capacity ? 2 * word->heap_capacity : 64;
    word->heap = base_realloc(word->heap, word->heap_capacity * sizeof *word->heap);
  }
  size_t at = word->n_heap++;
  for (size_t up; at > 0 && sooner(candidate, word->heap[up = (at - 1) / 2]); at = up) word->heap[at] = word->heap[up];
  word->heap[at] = candidate;
}

static BpeCandidate heap_pop(BpeWord *word) {
  const BpeCandidate top = word->heap[0], last = word->heap[--word->n_heap];
  size_t at = 0;
  for (size_t down; (down = 2 * at + 1) < word->n_heap; at = down) {
    if (down + 1 < word->n_heap && sooner(word->heap[down + 1], word->heap[down])) down++;
    if (!sooner(word->heap[down], last)) break;
    word->heap[at] = word->heap[down];
  }
  if (word->n_heap) word->heap[at] = last;
  return top;
}

static void push_pair(BpeWord *word, const BpeMerges *merges, int32_t at) {
  const BpeSymbol left = word->symbol[at];
  if (left.next < 0) return;
  const BpeMerge *merge = bpe_merges_find(merges, left.id, word->symbol[left.next].id);
  if (merge) heap_push(word, (BpeCandidate){merge->rank, (uint32_t)at, merge->made});
}

void bpe_word_merge(BpeWord *word, const BpeMerges *merges) {
  word->n_heap = 0;
  for (size_t i = 0; i + 1 < word->n; i++) push_pair(word, merges, (int32_t)i);
  while (word->n_heap) {
    const BpeCandidate top = heap_pop(word);
    BpeSymbol *left = &word->symbol[top.at];
    if (left->id == BPE_NONE || left->next < 0) continue; /* merged away, or at the end by now */
    BpeSymbol *right = &word->symbol[left->next];
    const BpeMerge *merge = bpe_merges_find(merges, left->id, right->id);
    if (!merge || merge->made != top.made) continue; /* the pair has become another one */
    left->id = top.made;
    left->next = right->next;
    right->id = BPE_NONE;
    if (left->next >= 0) word->symbol[left->next].before = (int32_t)top.at;
    if (left->before >= 0) push_pair(word, merges, left->before);
    push_pair(word, merges, (int32_t)top.at);
  }
}
