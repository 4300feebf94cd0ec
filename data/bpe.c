/* bpe: encoding. See bpe.h for the order of things; words met before are looked up in a cache. */
#include "data/bpe_model.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

enum { CACHE_SLOTS = 1 << 16, CACHE_POOL = 1 << 20, CACHE_WORD_BYTES = 64 };

/* A word met before: in the pool its tokens, then its bytes. */
typedef struct CacheSlot {
  uint64_t hash;
  uint32_t at;
  uint16_t n_bytes, n_tokens; /* n_bytes 0: empty */
} CacheSlot;

struct BpeEncoder {
  const Bpe *bpe;
  pcre2_match_data *scratch;
  SplitPieces pieces[BPE_MAX_STAGES];
  BpeText prefixed[BPE_MAX_STAGES], normal;
  BpeWord word;
  CacheSlot *cache; /* [CACHE_SLOTS] */
  uint32_t *pool;   /* [CACHE_POOL] */
  size_t n_cached, n_pool;
  const char *where;
  TokenRow *row;
  bool at_start; /* of the text: nothing came before */
};

BpeEncoder *bpe_encoder_new(const Bpe *bpe) {
  BpeEncoder *e = base_zalloc(sizeof *e);
  *e = (BpeEncoder){.bpe = bpe, .scratch = pcre2_match_data_create(1, NULL)};
  CHECK(e->scratch, "pcre2_match_data_create: out of memory");
  e->cache = base_zalloc(CACHE_SLOTS * sizeof *e->cache);
  e->pool = base_alloc(CACHE_POOL * sizeof *e->pool);
  return e;
}

void bpe_encoder_free(BpeEncoder *e) {
  if (!e) return;
  pcre2_match_data_free(e->scratch);
  for (int i = 0; i < BPE_MAX_STAGES; i++) free(e->pieces[i].piece), free(e->prefixed[i].data);
  free(e->normal.data);
  bpe_word_free(&e->word);
  free(e->cache), free(e->pool);
  free(e);
}

void bpe_text_add(BpeText *text, const char *bytes, size_t n) {
  if (text->n + n > text->capacity) {
    text->capacity = 2 * (text->n + n);
    text->data = base_realloc(text->data, text->capacity);
  }
  if (n) memcpy(text->data + text->n, bytes, n);
  text->n += n;
}

/* ---- words */

static CacheSlot *cache_slot(const BpeEncoder *e, uint64_t hash, const char *text, size_t bytes) {
  for (size_t i = hash & (CACHE_SLOTS - 1);; i = (i + 1) & (CACHE_SLOTS - 1)) {
    CacheSlot *slot = &e->cache[i];
    if (slot->n_bytes == 0) return slot;
    if (slot->hash == hash && slot->n_bytes == bytes && memcmp(e->pool + slot->at + slot->n_tokens, text, bytes) == 0)
      return slot;
  }
}

static void cache_put(BpeEncoder *e, uint64_t hash, const char *text, size_t bytes, int64_t first_token) {
  const int64_t n_tokens = e->row->n - first_token;
  const size_t room = (size_t)n_tokens + (bytes + 3) / 4;
  if (e->n_pool + room > CACHE_POOL || 4 * e->n_cached >= 3 * CACHE_SLOTS) {
    memset(e->cache, 0, CACHE_SLOTS * sizeof *e->cache);
    e->n_cached = e->n_pool = 0;
  }
  CacheSlot *slot = cache_slot(e, hash, text, bytes);
  *slot = (CacheSlot){hash, (uint32_t)e->n_pool, (uint16_t)bytes, (uint16_t)n_tokens};
  for (int64_t i = 0; i < n_tokens; i++) e->pool[e->n_pool + (size_t)i] = token_row_get(e->row, first_token + i);
  memcpy(e->pool + e->n_pool + n_tokens, text, bytes);
  e->n_pool += room;
  e->n_cached++;
}

static Status add_bytes(BpeEncoder *e, const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    uint32_t id = e->bpe->byte_id[(uint8_t)text[i]];
    if (id == BPE_NONE) id = e->bpe->unk;
    if (id == BPE_NONE)
      return status_fail(CODE_DATA, "%s: byte 0x%02X is not in the tokenizer's vocabulary, which has no unk_token",
                         e->where, (uint8_t)text[i]);
    bpe_word_add(&e->word, id);
  }
  return STATUS_OK;
}

static Status add_characters(BpeEncoder *e, const char *text, size_t bytes) {
  const Bpe *bpe = e->bpe;
  bool unknown_before = false;
  for (size_t at = 0, n; at < bytes; at += n) {
    uint32_t code;
    n = utf8_decode(text + at, bytes - at, &code);
    const uint32_t id = bpe_vocab_find(&bpe->vocab, text + at, n);
    const bool unknown = id == BPE_NONE && !bpe->byte_fallback;
    if (id != BPE_NONE) bpe_word_add(&e->word, id);
    else if (bpe->byte_fallback) TRY(add_bytes(e, text + at, n));
    else if (bpe->unk == BPE_NONE)
      return status_fail(CODE_DATA, "%s: character U+%04X is not in the tokenizer's vocabulary, which has no unk_token",
                         e->where, code);
    else if (!unknown_before || !bpe->fuse_unk) bpe_word_add(&e->word, bpe->unk);
    unknown_before = unknown;
  }
  return STATUS_OK;
}

static Status merge_word(BpeEncoder *e, const char *text, size_t bytes) {
  const uint32_t whole = e->bpe->ignore_merges ? bpe_vocab_find(&e->bpe->vocab, text, bytes) : BPE_NONE;
  if (whole != BPE_NONE) {
    token_row_add(e->row, whole);
    return STATUS_OK;
  }
  e->word.n = 0;
  TRY((e->bpe->byte_level ? add_bytes : add_characters)(e, text, bytes));
  bpe_word_merge(&e->word, &e->bpe->merges);
  for (int32_t i = 0; i >= 0; i = e->word.symbol[i].next) token_row_add(e->row, e->word.symbol[i].id);
  return STATUS_OK;
}

static Status encode_word(BpeEncoder *e, const char *text, size_t bytes) {
  if (bytes == 0) return STATUS_OK;
  e->at_start = false;
  if (bytes > CACHE_WORD_BYTES) return merge_word(e, text, bytes);
  const uint64_t hash = XXH3_64bits(text, bytes);
  const CacheSlot *slot = cache_slot(e, hash, text, bytes);
  if (slot->n_bytes) {
    for (uint32_t i = 0; i < slot->n_tokens; i++) token_row_add(e->row, e->pool[slot->at + i]);
    return STATUS_OK;
  }
  const int64_t first = e->row->n;
  TRY(merge_word(e, text, bytes));
  cache_put(e, hash, text, bytes, first);
  return STATUS_OK;
}

/* ---- from a text to words */

/* Metaspace: the sign for each space, and one in front. */
static void put_spaces(const BpeEncoder *e, const BpeStage *stage, const char *text, size_t bytes, BpeText *to) {
  const size_t n = strlen(stage->space);
  const bool begins = *text == ' ' || (bytes >= n && memcmp(text, stage->space, n) == 0);
  to->n = 0;
  if (!begins && (stage->prefix == PREFIX_ALWAYS || (stage->prefix == PREFIX_FIRST && e->at_start)))
    bpe_text_add(to, stage->space, n);
  for (size_t at = 0, end; at < bytes; at = end) {
    if (text[at] == ' ') {
      bpe_text_add(to, stage->space, n);
      end = at + 1;
      continue;
    }
    const char *next = memchr(text + at, ' ', bytes - at);
    end = next ? (size_t)(next - text) : bytes;
    bpe_text_add(to, text + at, end - at);
  }
}

static Status encode_stage(BpeEncoder *e, int i, const char *text, size_t bytes) {
  if (bytes == 0) return STATUS_OK;
  if (i == e->bpe->n_stages) return encode_word(e, text, bytes);
  const BpeStage *stage = &e->bpe->stage[i];
  if (stage->prefix_space && *text != ' ') {
    BpeText *to = &e->prefixed[i];
    to->n = 0;
    bpe_text_add(to, " ", 1);
    bpe_text_add(to, text, bytes);
    text = to->data, bytes = to->n;
  }
  if (stage->space) {
    BpeText *to = &e->prefixed[i];
    put_spaces(e, stage, text, bytes, to);
    text = to->data, bytes = to->n;
  }
  if (!stage->splitter.code) return encode_stage(e, i + 1, text, bytes);
  if (stage->splitter.behavior == SPLIT_ISOLATED) { /* needs no list */
    size_t at = 0;
    for (SplitPiece match; splitter_next(&stage->splitter, e->scratch, text, bytes, at, &match); at = match.end) {
      TRY(encode_stage(e, i + 1, text + at, match.begin - at));
      TRY(encode_stage(e, i + 1, text + match.begin, match.end - match.begin));
    }
    return encode_stage(e, i + 1, text + at, bytes - at);
  }
  splitter_pieces(&stage->splitter, e->scratch, text, bytes, &e->pieces[i]);
  for (size_t p = 0; p < e->pieces[i].n; p++) {
    const SplitPiece piece = e->pieces[i].piece[p];
    if (piece.begin > 0) e->at_start = false;
    TRY(encode_stage(e, i + 1, text + piece.begin, piece.end - piece.begin));
  }
  return STATUS_OK;
}

void bpe_normalize(const Bpe *bpe, const char *text, size_t bytes, BpeText *to) {
  static const utf8proc_option_t OPTIONS[] = {
      [NORMAL_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
      [NORMAL_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
      [NORMAL_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
      [NORMAL_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
  };
  bpe_text_add(to, text, bytes);
  for (int i = 0; i < bpe->n_normals && to->n > 0; i++) {
    const BpeNormal *normal = &bpe->normal[i];
    BpeText from = *to;
    *to = (BpeText){0};
    if (normal->kind == NORMAL_PREPEND) {
      bpe_text_add(to, normal->content, strlen(normal->content));
      bpe_text_add(to, from.data, from.n);
    } else if (normal->kind == NORMAL_REPLACE) {
      const size_t n = strlen(normal->pattern);
      size_t at = 0;
      for (const char *found; (found = memmem(from.data + at, from.n - at, normal->pattern, n));) {
        bpe_text_add(to, from.data + at, (size_t)(found - from.data) - at);
        bpe_text_add(to, normal->content, strlen(normal->content));
        at = (size_t)(found - from.data) + n;
      }
      bpe_text_add(to, from.data + at, from.n - at);
    } else {
      utf8proc_uint8_t *made = NULL;
      const utf8proc_ssize_t n =
          utf8proc_map((const utf8proc_uint8_t *)from.data, (utf8proc_ssize_t)from.n, &made, OPTIONS[normal->kind]);
      CHECK(n >= 0, "utf8proc_map: %s", utf8proc_errmsg(n));
      bpe_text_add(to, (const char *)made, (size_t)n);
      free(made);
    }
    free(from.data);
  }
}

static bool is_ascii(const char *text, size_t bytes) {
  unsigned char all = 0;
  for (size_t i = 0; i < bytes; i++) all |= (unsigned char)text[i];
  return all < 0x80;
}

/* Whether normalizing leaves a text as it is, seen at a glance. */
static bool is_normal(const Bpe *bpe, const char *text, size_t bytes) {
  for (int i = 0; i < bpe->n_normals; i++)
    if (bpe->normal[i].kind >= NORMAL_PREPEND) return false;
  return bpe->n_normals == 0 || is_ascii(text, bytes);
}

/* ---- added tokens */

static bool is_space(const char *text, size_t bytes) {
  uint32_t c;
  utf8_decode(text, bytes, &c);
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static size_t character_before(const char *text, size_t at) {
  size_t n = 1;
  while (n < at && ((unsigned char)text[at - n] & 0xC0) == 0x80) n++;
  return n;
}

static size_t character_at(const char *text, size_t bytes) {
  uint32_t code;
  return utf8_decode(text, bytes, &code);
}

static bool is_word_character(const BpeEncoder *e, const char *text, size_t n) {
  SplitPiece match;
  return splitter_next(&e->bpe->word_character, e->scratch, text, n, 0, &match);
}

static bool stands_alone(const BpeEncoder *e, const char *text, size_t bytes, size_t begin, size_t end) {
  if (begin > 0) {
    const size_t n = character_before(text, begin);
    if (is_word_character(e, text + begin - n, n)) return false;
  }
  return end == bytes || !is_word_character(e, text + end, character_at(text + end, bytes - end));
}

/* The first token of the set from `from` on, the longest where several begin at a place. */
static const BpeAdded *find_added(const BpeAddedSet *set, const char *text, size_t bytes, size_t from, size_t *begin) {
  for (size_t at = from; at < bytes; at++) {
    if (!set->begins[(uint8_t)text[at]]) continue;
    for (int i = 0; i < set->n; i++) {
      const BpeAdded *token = set->token[i];
      if (token->bytes > bytes - at || memcmp(text + at, token->sought, token->bytes) != 0) continue;
      *begin = at;
      return token;
    }
  }
  return NULL;
}

typedef Status EncodeRest(BpeEncoder *e, const char *text, size_t bytes);

static Status encode_added(BpeEncoder *e, const BpeAddedSet *set, EncodeRest *rest, const char *text, size_t bytes) {
  size_t done = 0, at = 0, begin;
  for (const BpeAdded *token; set->n && (token = find_added(set, text, bytes, at, &begin));) {
    size_t end = at = begin + token->bytes;
    if (token->single_word && !stands_alone(e, text, bytes, begin, end)) continue;
    while (token->lstrip && begin > done) {
      const size_t n = character_before(text, begin);
      if (!is_space(text + begin - n, n)) break;
      begin -= n;
    }
    if (token->rstrip)
      while (end < bytes && is_space(text + end, bytes - end)) end += character_at(text + end, bytes - end);
    if (begin > done) TRY(rest(e, text + done, begin - done));
    token_row_add(e->row, token->id);
    e->at_start = false;
    done = end;
    at = max_i64((int64_t)at, (int64_t)end);
  }
  return done < bytes ? rest(e, text + done, bytes - done) : STATUS_OK;
}

static Status encode_normal(BpeEncoder *e, const char *text, size_t bytes) { return encode_stage(e, 0, text, bytes); }

static Status encode_raw(BpeEncoder *e, const char *text, size_t bytes) {
  if (!is_normal(e->bpe, text, bytes)) {
    e->normal.n = 0;
    bpe_normalize(e->bpe, text, bytes, &e->normal);
    text = e->normal.data, bytes = e->normal.n;
  }
  return encode_added(e, &e->bpe->normalized, encode_normal, text, bytes);
}

/* ---- the whole */

static size_t valid_prefix(const char *text, size_t bytes) {
  size_t at = 0;
  uint32_t code;
  while (at < bytes) {
    uint64_t eight;
    if (bytes - at >= sizeof eight && (memcpy(&eight, text + at, sizeof eight), (eight & 0x8080808080808080u) == 0)) {
      at += sizeof eight;
      continue;
    }
    const size_t n = utf8_decode(text + at, bytes - at, &code);
    if (n == 0) break;
    at += n;
  }
  return at;
}

Status bpe_encode(BpeEncoder *e, const char *where, const char *text, size_t bytes, TokenRow *row) {
  const Bpe *bpe = e->bpe;
  e->where = where, e->row = row, e->at_start = true;
  for (size_t at = 0; at < bytes;) {
    size_t n = valid_prefix(text + at, bytes - at);
    TRY(encode_added(e, &bpe->raw, encode_raw, text + at, n));
    at += n;
    if (at == bytes) break;
    if (!bpe->byte_level && !bpe->byte_fallback)
      return status_fail(CODE_DATA, "%s: byte offset %zu: not UTF-8 (found byte 0x%02X); convert the text to UTF-8",
                         where, at, (uint8_t)text[at]);
    e->at_start = false;
    for (n = 1; at + n < bytes && character_at(text + at + n, bytes - at - n) == 0;) n++;
    e->word.n = 0;
    TRY(add_bytes(e, text + at, n));
    bpe_word_merge(&e->word, &bpe->merges);
    for (int32_t i = 0; i >= 0; i = e->word.symbol[i].next) token_row_add(row, e->word.symbol[i].id);
    at += n;
  }
  return STATUS_OK;
}

/* ---- cuts */

static bool encodes_apart(BpeEncoder *e, const char *text, size_t bytes, size_t cut) {
  TokenRow whole = {.width = 4}, parts = {.width = 4};
  Status status = bpe_encode(e, "", text, bytes, &whole);
  if (status.code == CODE_OK) status = bpe_encode(e, "", text, cut, &parts);
  if (status.code == CODE_OK) status = bpe_encode(e, "", text + cut, bytes - cut, &parts);
  const bool same =
      status.code == CODE_OK && whole.n == parts.n && memcmp(whole.token, parts.token, 4 * (size_t)whole.n) == 0;
  status_clear(&status);
  free(whole.token), free(parts.token);
  return same;
}

static bool is_mark(uint32_t code) {
  const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
}

/* Candidates: behind a line's end, and before a space, with no further white space near; tried on what stands around. */
size_t bpe_safe_cut(BpeEncoder *e, const char *text, size_t bytes) {
  enum { AROUND = 128 };
  if (!e->bpe->local) return 0;
  for (size_t cut = bytes > AROUND ? bytes - AROUND : 0; cut > AROUND; cut--) {
    const bool line = text[cut - 1] == '\n', word = text[cut] == ' ';
    if (!line && !word) continue;
    const size_t last = cut - 1 - (size_t)line, next = cut + (size_t)word;
    uint32_t code;
    const size_t n = character_before(text, last + 1);
    if (utf8_decode(text + last + 1 - n, n, &code) != n || is_space(text + last + 1 - n, n)) continue;
    if (utf8_decode(text + next, bytes - next, &code) == 0 || is_space(text + next, bytes - next) || is_mark(code))
      continue;
    size_t from = cut - AROUND, to = cut + AROUND;
    while (from < cut && ((unsigned char)text[from] & 0xC0) == 0x80) from++;
    while (to > cut && ((unsigned char)text[to - 1] & 0xC0) == 0x80) to--;
    to -= (unsigned char)text[to - 1] >= 0xC0; /* the beginning of a character that was cut off */
    if (encodes_apart(e, text + from, to - from, cut - from)) return cut;
  }
  return 0;
}
