/* bpe_train: a byte-level byte-pair encoding from texts (Sennrich et al. 2016, on the bytes of GPT-2's words), written as a
 * tokenizer.json. Order and ties are those of the `tokenizers` package's BpeTrainer: the pair that is most frequent, of equal ones
 * that of the lower ids; ids: <|endoftext|>, the 256 bytes in the order of their signs, then a token a merge. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/bpe_model.h"
#include "data/files.h"

enum { READ_BYTES = 4 << 20 };

/* A word as it stands by now, and how often it came. */
typedef struct Word {
  uint32_t *id;
  int n;
  int64_t count;
} Word;

typedef struct Pair {
  uint32_t left, right;
  int64_t count;
  int *word; /* that hold it, or did */
  int n_words, capacity;
} Pair;

typedef struct Best {
  int64_t count; /* when it was put here; that of the pair may be less by now */
  int pair;
} Best;

typedef struct Trainer {
  BpeVocab words; /* text -> word */
  int64_t *count; /* by word */
  size_t capacity;
  Word *word;
  int n_words;
  Pair *pair;
  BpeMerges pairs; /* (left, right) -> pair, as `made` */
  int n_pairs, pair_capacity;
  Best *heap;
  int n_heap, heap_capacity;
} Trainer;

/* ---- counting words */

static void count_word(Trainer *t, const char *text, size_t bytes) {
  if (bytes == 0) return;
  uint32_t w = bpe_vocab_find(&t->words, text, bytes);
  if (w == BPE_NONE) {
    w = (uint32_t)t->words.n;
    if (w == t->capacity)
      t->count = base_realloc(t->count, (t->capacity = t->capacity ? 2 * t->capacity : 4096) * sizeof *t->count);
    bpe_vocab_add(&t->words, text, bytes, w);
    t->count[w] = 0;
  }
  t->count[w]++;
}

/* Bytes that are no UTF-8 end what is before them and are passed over. */
static void count_words(Trainer *t, const Splitter *splitter, pcre2_match_data *scratch, const char *text,
                        size_t bytes) {
  for (size_t begin = 0, end = 0; begin < bytes; begin = end = end + 1) {
    uint32_t code;
    for (size_t n; end < bytes && (n = utf8_decode(text + end, bytes - end, &code)) > 0;) end += n;
    size_t at = 0;
    for (SplitPiece match; splitter_next(splitter, scratch, text + begin, end - begin, at, &match); at = match.end) {
      count_word(t, text + begin + at, match.begin - at);
      count_word(t, text + begin + match.begin, match.end - match.begin);
    }
    count_word(t, text + begin + at, end - begin - at);
  }
}

/* In pieces that end with a line, where there is one. */
static Status count_file(Trainer *t, const Splitter *splitter, pcre2_match_data *scratch, char *buffer,
                         const char *path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return status_fail(CODE_DATA, "%s: cannot read: %s", path, strerror(errno));
  size_t n = 0;
  for (ssize_t got = 1; got > 0;) {
    got = read(fd, buffer + n, READ_BYTES - n);
    if (got < 0 && errno == EINTR) {
      got = 1;
      continue;
    }
    if (got < 0) {
      close(fd);
      return status_fail(CODE_DATA, "%s: cannot read: %s", path, strerror(errno));
    }
    n += (size_t)got;
    if (got > 0 && n < READ_BYTES) continue;
    const char *line = got > 0 ? memrchr(buffer, '\n', n) : NULL;
    const size_t end = line ? (size_t)(line + 1 - buffer) : n;
    count_words(t, splitter, scratch, buffer, end);
    memmove(buffer, buffer + end, n -= end);
  }
  close(fd);
  return STATUS_OK;
}

static Status count_all(Trainer *t, char *const *paths, int n_paths) {
  SourceText list;
  Splitter splitter = {0};
  TRY(files_list(paths, n_paths, &list));
  Status status = splitter_new("words", BPE_GPT2_WORDS, false, &splitter);
  pcre2_match_data *scratch = pcre2_match_data_create(1, NULL);
  char *buffer = base_alloc(READ_BYTES);
  CHECK(scratch, "pcre2_match_data_create: out of memory");
  for (int i = 0; i < list.n_files && status.code == CODE_OK; i++)
    status = count_file(t, &splitter, scratch, buffer, list.file[i].path);
  free(buffer);
  pcre2_match_data_free(scratch);
  splitter_free(&splitter);
  files_free(&list);
  return status;
}

/* ---- pairs */

static int find_pair(Trainer *t, uint32_t left, uint32_t right) {
  const BpeMerge *found = t->n_pairs ? bpe_merges_find(&t->pairs, left, right) : NULL;
  if (found) return (int)found->made;
  if (t->n_pairs == t->pair_capacity) {
    t->pair_capacity = t->pair_capacity ? 2 * t->pair_capacity : 4096;
    t->pair = base_realloc(t->pair, (size_t)t->pair_capacity * sizeof *t->pair);
    bpe_merges_free(&t->pairs);
    t->pairs = bpe_merges_new((size_t)t->pair_capacity);
    for (int i = 0; i < t->n_pairs; i++)
      bpe_merges_put(&t->pairs, (BpeMerge){t->pair[i].left, t->pair[i].right, 0, (uint32_t)i});
  }
  t->pair[t->n_pairs] = (Pair){.left = left, .right = right};
  bpe_merges_put(&t->pairs, (BpeMerge){left, right, 0, (uint32_t)t->n_pairs});
  return t->n_pairs++;
}

/* One more, or one less, of a pair in a word. */
static void change_pair(Trainer *t, uint32_t left, uint32_t right, int w, int sign) {
  const int p = find_pair(t, left, right); /* may move them all */
  Pair *pair = &t->pair[p];
  pair->count += sign * t->word[w].count;
  if (sign < 0 || (pair->n_words > 0 && pair->word[pair->n_words - 1] == w)) return;
  if (pair->n_words == pair->capacity)
    pair->word = base_realloc(pair->word,
                              (size_t)(pair->capacity = pair->capacity ? 2 * pair->capacity : 4) * sizeof *pair->word);
  pair->word[pair->n_words++] = w;
}

static bool better(const Trainer *t, Best a, Best b) {
  if (a.count != b.count) return a.count > b.count;
  const Pair *x = &t->pair[a.pair], *y = &t->pair[b.pair];
  return x->left != y->left ? x->left < y->left : x->right < y->right;
}

static void push(Trainer *t, Best best) {
  if (t->n_heap == t->heap_capacity)
    t->heap = base_realloc(t->heap, (size_t)(t->heap_capacity = t->heap_capacity ? 2 * t->heap_capacity : 4096) *
                                        sizeof *t->heap);
  int at = t->n_heap++;
  for (int up; at > 0 && better(t, best, t->heap[up = (at - 1) / 2]); at = up) t->heap[at] = t->heap[up];
  t->heap[at] = best;
}

static Best pop(Trainer *t) {
  const Best top = t->heap[0], last = t->heap[--t->n_heap];
  int at = 0;
  for (int down; (down = 2 * at + 1) < t->n_heap; at = down) {
    if (down + 1 < t->n_heap && better(t, t->heap[down + 1], t->heap[down])) down++;
    if (!better(t, t->heap[down], last)) break;
    t->heap[at] = t->heap[down];
  }
  if (t->n_heap) t->heap[at] = last;
  return top;
}

static void spell_words(Trainer *t, const uint32_t byte_id[256]) {
  t->n_words = (int)t->words.n;
  t->word = base_zalloc(t->words.n * sizeof *t->word + 1);
  for (size_t i = 0; i < t->words.capacity; i++) {
    const struct BpeVocabSlot *slot = &t->words.slot[i];
    if (slot->id == BPE_NONE) continue;
    Word *word = &t->word[slot->id];
    *word = (Word){base_alloc(slot->bytes * sizeof *word->id), (int)slot->bytes, t->count[slot->id]};
    for (uint32_t b = 0; b < slot->bytes; b++) word->id[b] = byte_id[(uint8_t)t->words.pool[slot->at + b]];
  }
  for (int w = 0; w < t->n_words; w++)
    for (int i = 0; i + 1 < t->word[w].n; i++) change_pair(t, t->word[w].id[i], t->word[w].id[i + 1], w, 1);
  for (int p = 0; p < t->n_pairs; p++) push(t, (Best){t->pair[p].count, p});
}

static void merge_in_word(Trainer *t, int w, uint32_t left, uint32_t right, uint32_t made) {
  Word *word = &t->word[w];
  int n = 0;
  for (int i = 0; i < word->n; i++) {
    if (i + 1 == word->n || word->id[i] != left || word->id[i + 1] != right) {
      word->id[n++] = word->id[i];
      continue;
    }
    if (n > 0) change_pair(t, word->id[n - 1], left, w, -1), change_pair(t, word->id[n - 1], made, w, 1);
    if (i + 2 < word->n) change_pair(t, right, word->id[i + 2], w, -1), change_pair(t, made, word->id[i + 2], w, 1);
    word->id[n++] = made;
    i++;
  }
  word->n = n;
}

/* Merges the best pair; false: there is none left. */
static bool merge_best(Trainer *t, uint32_t made, uint32_t *left, uint32_t *right) {
  while (t->n_heap) {
    const Best top = pop(t);
    const int64_t count = t->pair[top.pair].count;
    if (count != top.count) {
      push(t, (Best){count, top.pair});
      continue;
    }
    if (count < 1) return false;
    *left = t->pair[top.pair].left, *right = t->pair[top.pair].right;
    const int first = t->n_pairs;
    for (int i = 0; i < t->pair[top.pair].n_words; i++)
      merge_in_word(t, t->pair[top.pair].word[i], *left, *right, made);
    for (int p = first; p < t->n_pairs; p++)
      if (t->pair[p].count > 0) push(t, (Best){t->pair[p].count, p});
    return true;
  }
  return false;
}

static void trainer_free(Trainer *t) {
  for (int w = 0; w < t->n_words; w++) free(t->word[w].id);
  for (int p = 0; p < t->n_pairs; p++) free(t->pair[p].word);
  bpe_vocab_free(&t->words);
  bpe_merges_free(&t->pairs);
  free(t->count), free(t->word), free(t->pair), free(t->heap);
}

/* ---- the file */

static json_t *byte_level(void) {
  return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                   1);
}

static json_t *tokenizer_of(json_t *vocab, json_t *merges, const char *special) {
  json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
                            "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                            "ignore_merges", 0, "vocab", vocab, "merges", merges);
  json_t *added = json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", 0, "content", special, "single_word", 0,
                            "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
  return json_pack("{s:s, s:n, s:n, s:[o], s:n, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                   "added_tokens", added, "normalizer", "pre_tokenizer", byte_level(), "post_processor", byte_level(),
                   "decoder", byte_level(), "model", model);
}

static char *train(Trainer *t, int vocab_size) {
  static const char SPECIAL[] = "<|endoftext|>";
  char **sign = base_zalloc((size_t)vocab_size * sizeof *sign);
  uint32_t byte_id[256], n = 0;
  json_t *vocab = json_object(), *merges = json_array();
  sign[n++] = base_strdup(SPECIAL);
  for (uint32_t code = 0; code < 512; code++)
    for (int b = 0; b < 256; b++) {
      if (bpe_code_of_byte(b) != code) continue;
      byte_id[b] = n;
      sign[n++] = code < 0x80 ? base_format("%c", (char)code)
                              : base_format("%c%c", (char)(0xC0 | code >> 6), (char)(0x80 | (code & 0x3F)));
    }
  spell_words(t, byte_id);
  for (uint32_t left, right; n < (uint32_t)vocab_size && merge_best(t, n, &left, &right); n++) {
    json_array_append_new(merges, json_pack("[s, s]", sign[left], sign[right]));
    sign[n] = base_format("%s%s", sign[left], sign[right]);
  }
  for (uint32_t i = 0; i < n; i++) {
    json_object_set_new(vocab, sign[i], json_integer(i));
    free(sign[i]);
  }
  free(sign);
  json_t *root = tokenizer_of(vocab, merges, SPECIAL);
  char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
  CHECK(text, "json: out of memory");
  json_decref(root);
  return text;
}

Status bpe_train(char *const *paths, int n_paths, int vocab_size, char **json) {
  if (vocab_size < 257 || vocab_size > BPE_MAX_VOCAB)
    return status_fail(CODE_USAGE,
                       "a byte-pair encoding of %d tokens: expected 257 at least, the bytes and <|endoftext|>",
                       vocab_size);
  Trainer trainer = {0};
  Status status = count_all(&trainer, paths, n_paths);
  if (status.code == CODE_OK) *json = train(&trainer, vocab_size);
  trainer_free(&trainer);
  return status;
}
