/* bpe_json: reads a Hugging Face tokenizer.json into a Bpe. What cannot be done as the `tokenizers` package does it is refused
 * by its key; `truncation` and `padding`, which make batches and not tokens, are left to the data pipeline. */
#include "data/bpe_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Status refuse(const char *key, const char *found, const char *expected) {
  return status_fail(CODE_DATA, "tokenizer: %s: found %.60s, expected %s", key, found ? found : "nothing", expected);
}

static const char *text_of(const json_t *object, const char *key) {
  return json_string_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key) { return json_is_true(json_object_get(object, key)); }

/* ---- GPT-2's alphabet: every byte as a character that shows */

uint32_t bpe_code_of_byte(int byte) {
  if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174) return (uint32_t)byte;
  uint32_t code = 256;
  for (int b = 0; b < byte; b++) code += b < 33 || (b > 126 && b < 161) || b == 173;
  return code;
}

typedef struct Alphabet {
  int16_t byte[512]; /* by code point; -1: none */
} Alphabet;

static Alphabet alphabet_make(void) {
  Alphabet alphabet;
  memset(&alphabet, 0xFF, sizeof alphabet);
  for (int byte = 0; byte < 256; byte++) alphabet.byte[bpe_code_of_byte(byte)] = (int16_t)byte;
  return alphabet;
}

/* The bytes that a key stands for; false where it is not written in the alphabet. out: room for the key's length. */
static bool to_bytes(const Alphabet *alphabet, const char *key, char *out, int *bytes) {
  *bytes = 0;
  uint32_t code;
  for (size_t at = 0, left = strlen(key), n; left > 0; at += n, left -= n) {
    n = utf8_decode(key + at, left, &code); /* jansson lets only UTF-8 through */
    if (code >= 512 || alphabet->byte[code] < 0) return false;
    out[(*bytes)++] = (char)alphabet->byte[code];
  }
  return true;
}

/* ---- model */

static void set_piece(Bpe *bpe, uint32_t id, const char *text, int bytes) {
  if ((int)id >= bpe->n_vocab) {
    bpe->piece = base_realloc(bpe->piece, (id + 1) * sizeof *bpe->piece);
    memset(bpe->piece + bpe->n_vocab, 0, (id + 1 - (size_t)bpe->n_vocab) * sizeof *bpe->piece);
    bpe->n_vocab = (int)id + 1;
  }
  free(bpe->piece[id].text);
  bpe->piece[id] = (BpePiece){base_alloc((size_t)bytes + 1), bytes};
  if (bytes) memcpy(bpe->piece[id].text, text, (size_t)bytes);
  bpe->piece[id].text[bytes] = '\0';
}

static bool id_of(const json_t *value, uint32_t *id) {
  const json_int_t n = json_integer_value(value);
  *id = (uint32_t)n;
  return json_is_integer(value) && n >= 0 && n < BPE_MAX_VOCAB;
}

static Status read_vocab(Bpe *bpe, const json_t *vocab) {
  const Alphabet alphabet = alphabet_make();
  const char *key;
  json_t *value;
  uint32_t most = 0;
  if (json_object_size(vocab) == 0) return refuse("model.vocab", "nothing", "an object of tokens and their ids");
  json_object_foreach((json_t *)(uintptr_t)vocab, key, value) {
    uint32_t id;
    if (!id_of(value, &id)) return refuse("model.vocab", key, "an id of 0 to 16777215 beside each token");
    if (id > most) most = id;
  }
  set_piece(bpe, most, "", 0); /* all room at once */
  free(bpe->piece[most].text), bpe->piece[most].text = NULL;
  json_object_foreach((json_t *)(uintptr_t)vocab, key, value) {
    const uint32_t id = (uint32_t)json_integer_value(value);
    if (bpe->piece[id].text)
      return status_fail(CODE_DATA, "tokenizer: model.vocab: found id %u twice, expected an id for each token", id);
    int bytes = (int)strlen(key);
    char *own = base_alloc((size_t)bytes + 1);
    const bool mapped = bpe->byte_level && to_bytes(&alphabet, key, own, &bytes);
    if (!mapped) bytes = (int)strlen(key), memcpy(own, key, (size_t)bytes);
    /* A byte-level token that is not written in the alphabet is never made of a text. */
    if (mapped || !bpe->byte_level) bpe_vocab_add(&bpe->vocab, own, (size_t)bytes, id);
    set_piece(bpe, id, own, bytes);
    free(own);
  }
  return STATUS_OK;
}

static Status read_byte_ids(Bpe *bpe) {
  for (int b = 0; b < 256; b++) {
    char name[8] = {(char)b, 0};
    if (!bpe->byte_level) snprintf(name, sizeof name, "<0x%02X>", b);
    bpe->byte_id[b] = bpe_vocab_find(&bpe->vocab, name, bpe->byte_level ? 1 : strlen(name));
    if (bpe->byte_fallback && bpe->byte_id[b] == BPE_NONE)
      return status_fail(CODE_DATA,
                         "tokenizer: model.vocab: found no <0x%02X>, expected all 256 beside byte_fallback: true", b);
  }
  return STATUS_OK;
}

/* "a b" or ["a", "b"]. */
static bool split_merge(const json_t *merge, char **left, char **right) {
  *left = *right = NULL;
  if (json_is_array(merge) && json_array_size(merge) == 2) {
    const char *a = json_string_value(json_array_get(merge, 0)), *b = json_string_value(json_array_get(merge, 1));
    if (a && b) *left = base_strdup(a), *right = base_strdup(b);
  } else if (json_is_string(merge)) {
    const char *text = json_string_value(merge), *space = strchr(text, ' ');
    if (space && !strchr(space + 1, ' '))
      *left = base_format("%.*s", (int)(space - text), text), *right = base_strdup(space + 1);
  }
  return *left != NULL;
}

static Status read_merges(Bpe *bpe, const json_t *vocab, const json_t *merges) {
  if (!json_is_array(merges)) return refuse("model.merges", "no array", "an array of pairs");
  bpe->merges = bpe_merges_new(json_array_size(merges));
  for (size_t rank = 0; rank < json_array_size(merges); rank++) {
    char *left, *right;
    if (!split_merge(json_array_get(merges, rank), &left, &right))
      return status_fail(CODE_DATA, "tokenizer: model.merges, entry %zu: expected \"a b\" or [\"a\", \"b\"]", rank);
    char *whole = base_format("%s%s", left, right);
    const json_t *a = json_object_get(vocab, left), *b = json_object_get(vocab, right),
                 *made = json_object_get(vocab, whole);
    Status status = STATUS_OK;
    if (!a || !b || !made)
      status = status_fail(CODE_DATA, "tokenizer: model.merges, entry %zu: %.60s is not in model.vocab", rank,
                           !a   ? left
                           : !b ? right
                                : whole);
    else
      bpe_merges_put(&bpe->merges, (BpeMerge){(uint32_t)json_integer_value(a), (uint32_t)json_integer_value(b),
                                              (uint32_t)rank, (uint32_t)json_integer_value(made)});
    free(left), free(right), free(whole);
    TRY(status);
  }
  return STATUS_OK;
}

static Status read_model(Bpe *bpe, const json_t *model) {
  const json_t *type = json_object_get(model, "type"), *dropout = json_object_get(model, "dropout");
  if (!json_is_object(model)) return refuse("model", "nothing", "an object");
  if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
    return refuse("model.type", json_string_value(type), "BPE");
  if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
    return refuse("model.dropout", "a number", "null: the same text is to give the same tokens");
  static const char *const AFFIXES[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  for (int i = 0; i < 2; i++) {
    const char *affix = text_of(model, AFFIXES[i]);
    char *key = base_format("model.%s", AFFIXES[i]);
    Status status = affix && *affix ? refuse(key, affix, "null") : STATUS_OK;
    free(key);
    TRY(status);
  }
  bpe->byte_fallback = !bpe->byte_level && is_true(model, "byte_fallback");
  bpe->fuse_unk = is_true(model, "fuse_unk");
  bpe->ignore_merges = is_true(model, "ignore_merges");
  const json_t *vocab = json_object_get(model, "vocab");
  TRY(read_vocab(bpe, vocab));
  TRY(read_byte_ids(bpe));
  const char *unk = text_of(model, "unk_token");
  bpe->unk = BPE_NONE;
  if (unk && !json_object_get(vocab, unk)) return refuse("model.unk_token", unk, "a token of model.vocab");
  if (unk) bpe->unk = (uint32_t)json_integer_value(json_object_get(vocab, unk));
  return read_merges(bpe, vocab, json_object_get(model, "merges"));
}

/* ---- normalizer */

static Status read_normalizer(Bpe *bpe, const json_t *value);

static Status add_normal(Bpe *bpe, NormalKind kind, const char *pattern, const char *content) {
  if (bpe->n_normals == BPE_MAX_STAGES) return refuse("normalizer", "more than 16 steps", "16 at most");
  bpe->normal[bpe->n_normals++] =
      (BpeNormal){kind, pattern ? base_strdup(pattern) : NULL, content ? base_strdup(content) : NULL};
  return STATUS_OK;
}

static Status read_each(Bpe *bpe, const json_t *list, const char *key, Status (*read)(Bpe *bpe, const json_t *value)) {
  if (!json_is_array(list)) return refuse(key, "no array", "an array of steps");
  for (size_t i = 0; i < json_array_size(list); i++) TRY(read(bpe, json_array_get(list, i)));
  return STATUS_OK;
}

static Status read_normalizer(Bpe *bpe, const json_t *value) {
  if (!value || json_is_null(value)) return STATUS_OK;
  static const char *const FORMS[] = {
      [NORMAL_NFC] = "NFC", [NORMAL_NFD] = "NFD", [NORMAL_NFKC] = "NFKC", [NORMAL_NFKD] = "NFKD"};
  const char *type = text_of(value, "type");
  for (int i = 0; type && i <= NORMAL_NFKD; i++)
    if (strcmp(type, FORMS[i]) == 0) return add_normal(bpe, (NormalKind)i, NULL, NULL);
  if (type && strcmp(type, "Sequence") == 0)
    return read_each(bpe, json_object_get(value, "normalizers"), "normalizer.normalizers", read_normalizer);
  if (type && strcmp(type, "Prepend") == 0 && text_of(value, "prepend"))
    return add_normal(bpe, NORMAL_PREPEND, NULL, text_of(value, "prepend"));
  const char *pattern = text_of(json_object_get(value, "pattern"), "String");
  if (type && strcmp(type, "Replace") == 0 && pattern && *pattern && text_of(value, "content"))
    return add_normal(bpe, NORMAL_REPLACE, pattern, text_of(value, "content"));
  return refuse("normalizer", type, "NFC, NFD, NFKC, NFKD, Prepend, Replace of a String, Sequence or null");
}

/* ---- pre_tokenizer */

static Status add_stage(Bpe *bpe, bool prefix_space, const char *pattern, bool literal, SplitBehavior behavior,
                        bool invert) {
  if (bpe->n_stages == BPE_MAX_STAGES) return refuse("pre_tokenizer", "more than 16 steps", "16 at most");
  BpeStage *stage = &bpe->stage[bpe->n_stages++];
  *stage = (BpeStage){.prefix_space = prefix_space, .splitter = {.behavior = behavior, .invert = invert}};
  if (!pattern) return STATUS_OK;
  bpe->local &= literal || splitter_is_local(pattern);
  return splitter_new("tokenizer: pre_tokenizer", pattern, literal, &stage->splitter);
}

static Status read_split(Bpe *bpe, const json_t *value) {
  static const char *const BEHAVIORS[] = {[SPLIT_ISOLATED] = "Isolated",
                                          [SPLIT_REMOVED] = "Removed",
                                          [SPLIT_CONTIGUOUS] = "Contiguous",
                                          [SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                          [SPLIT_MERGED_WITH_NEXT] = "MergedWithNext"};
  const json_t *pattern = json_object_get(value, "pattern");
  const char *behavior = text_of(value, "behavior"), *regex = text_of(pattern, "Regex"),
             *string = text_of(pattern, "String");
  if (!regex == !string) return refuse("pre_tokenizer.pattern", "neither", "a Regex or a String");
  for (int i = 0; behavior && i <= SPLIT_MERGED_WITH_NEXT; i++)
    if (strcmp(behavior, BEHAVIORS[i]) == 0)
      return add_stage(bpe, false, regex ? regex : string, !regex, (SplitBehavior)i, is_true(value, "invert"));
  return refuse("pre_tokenizer.behavior", behavior,
                "Isolated, Removed, Contiguous, MergedWithPrevious or MergedWithNext");
}

static Status read_metaspace(Bpe *bpe, const json_t *value) {
  const char *space = text_of(value, "replacement"), *scheme = text_of(value, "prepend_scheme");
  const json_t *older = json_object_get(value, "add_prefix_space"), *split = json_object_get(value, "split");
  static const char *const SCHEMES[] = {[PREFIX_NEVER] = "never", [PREFIX_FIRST] = "first", [PREFIX_ALWAYS] = "always"};
  SpacePrefix prefix = json_is_false(older) ? PREFIX_NEVER : PREFIX_ALWAYS;
  if (scheme)
    for (prefix = PREFIX_NEVER; prefix <= PREFIX_ALWAYS && strcmp(scheme, SCHEMES[prefix]) != 0;) prefix++;
  if (prefix > PREFIX_ALWAYS) return refuse("pre_tokenizer.prepend_scheme", scheme, "always, first or never");
  uint32_t code;
  if (!space || !*space || utf8_decode(space, strlen(space), &code) != strlen(space))
    return refuse("pre_tokenizer.replacement", space, "one character");
  TRY(add_stage(bpe, false, json_is_false(split) ? NULL : space, true, SPLIT_MERGED_WITH_NEXT, false));
  BpeStage *stage = &bpe->stage[bpe->n_stages - 1];
  stage->space = base_strdup(space), stage->prefix = prefix;
  return STATUS_OK;
}

static Status read_pre_tokenizer(Bpe *bpe, const json_t *value) {
  if (!value || json_is_null(value)) return STATUS_OK;
  const char *type = text_of(value, "type");
  if (bpe->byte_level) return refuse("pre_tokenizer", type, "nothing behind ByteLevel");
  if (type && strcmp(type, "Sequence") == 0)
    return read_each(bpe, json_object_get(value, "pretokenizers"), "pre_tokenizer.pretokenizers", read_pre_tokenizer);
  if (type && strcmp(type, "Split") == 0) return read_split(bpe, value);
  if (type && strcmp(type, "Digits") == 0)
    return add_stage(bpe, false, is_true(value, "individual_digits") ? "\\p{N}" : "\\p{N}+", false, SPLIT_ISOLATED,
                     false);
  if (type && strcmp(type, "Metaspace") == 0) return read_metaspace(bpe, value);
  if (!type || strcmp(type, "ByteLevel") != 0)
    return refuse("pre_tokenizer", type, "ByteLevel, Metaspace, Split, Digits, Sequence or null");
  bpe->byte_level = true;
  const json_t *use_regex = json_object_get(value, "use_regex"); /* older files have none, and mean true */
  const bool words = !use_regex || json_is_true(use_regex);
  return add_stage(bpe, is_true(value, "add_prefix_space"), words ? BPE_GPT2_WORDS : NULL, false, SPLIT_ISOLATED,
                   false);
}

/* ---- decoder: each token's bytes */

static void decode_replace(Bpe *bpe, const char *pattern, const char *content) {
  for (int id = 0; id < bpe->n_vocab; id++) {
    const BpePiece *piece = &bpe->piece[id];
    if (!piece->text || !memmem(piece->text, (size_t)piece->bytes, pattern, strlen(pattern))) continue;
    BpeText text = {0};
    const size_t n = strlen(pattern), bytes = (size_t)piece->bytes;
    for (size_t at = 0; at < bytes;) {
      const bool here = bytes - at >= n && memcmp(piece->text + at, pattern, n) == 0;
      bpe_text_add(&text, here ? content : piece->text + at, here ? strlen(content) : 1);
      at += here ? n : 1;
    }
    set_piece(bpe, (uint32_t)id, text.data ? text.data : "", (int)text.n);
    free(text.data);
  }
}

static void decode_bytes(Bpe *bpe) {
  for (int b = 0; b < 256; b++)
    if (bpe->byte_id[b] != BPE_NONE) set_piece(bpe, bpe->byte_id[b], (char[]){(char)b}, 1);
}

/* The package drops every sign for a space of the first token: one at most, where words are split before each. */
static Status decode_metaspace(Bpe *bpe, const json_t *value) {
  for (int i = 0; i < bpe->n_stages; i++) {
    const BpeStage *stage = &bpe->stage[i];
    const char *space = text_of(value, "replacement");
    if (!stage->space || !stage->splitter.code || !space || strcmp(space, stage->space) != 0) continue;
    const char *scheme = text_of(value, "prepend_scheme");
    decode_replace(bpe, space, " ");
    bpe->drops_first_space =
        scheme ? strcmp(scheme, "never") != 0 : !json_is_false(json_object_get(value, "add_prefix_space"));
    return STATUS_OK;
  }
  return refuse("decoder", "Metaspace", "it beside a pre_tokenizer Metaspace of the same replacement that splits");
}

static Status read_decoder(Bpe *bpe, const json_t *value) {
  static const char EXPECTED[] =
      "ByteLevel beside pre_tokenizer ByteLevel, else Metaspace, Replace of a String, ByteFallback, Fuse, "
      "Strip of one space in front, or a Sequence of them";
  const char *type = text_of(value, "type");
  if (!type) return refuse("decoder", type, EXPECTED);
  if (strcmp(type, "Sequence") == 0)
    return read_each(bpe, json_object_get(value, "decoders"), "decoder.decoders", read_decoder);
  if (bpe->byte_level == (strcmp(type, "ByteLevel") == 0) && bpe->byte_level) return STATUS_OK;
  if (bpe->byte_level) return refuse("decoder", type, EXPECTED);
  const char *pattern = text_of(json_object_get(value, "pattern"), "String"), *content = text_of(value, "content");
  if (strcmp(type, "Replace") == 0 && pattern && *pattern && content) decode_replace(bpe, pattern, content);
  else if (strcmp(type, "Metaspace") == 0) return decode_metaspace(bpe, value);
  else if (strcmp(type, "ByteFallback") == 0 && bpe->byte_fallback) decode_bytes(bpe);
  else if (strcmp(type, "Strip") == 0 && content && strcmp(content, " ") == 0 &&
           json_integer_value(json_object_get(value, "start")) == 1 &&
           json_integer_value(json_object_get(value, "stop")) == 0)
    bpe->drops_first_space = true;
  else if (strcmp(type, "Fuse") != 0) return refuse("decoder", type, EXPECTED);
  return STATUS_OK;
}

/* ---- added_tokens */

static int longest_first(const void *a, const void *b) {
  const BpeAdded *x = *(const BpeAdded *const *)a, *y = *(const BpeAdded *const *)b;
  return x->bytes != y->bytes ? (x->bytes > y->bytes ? -1 : 1) : (x > y) - (x < y);
}

static void added_set(const Bpe *bpe, bool normalized, BpeAddedSet *set) {
  set->token = base_alloc((size_t)(bpe->n_added + 1) * sizeof(BpeAdded *));
  for (int i = 0; i < bpe->n_added; i++) {
    if (bpe->added[i].normalized != normalized || bpe->added[i].bytes == 0) continue;
    set->token[set->n++] = &bpe->added[i];
    set->begins[(uint8_t)bpe->added[i].sought[0]] = 1;
  }
  if (set->n) qsort(set->token, (size_t)set->n, sizeof *set->token, longest_first);
}

static Status read_added(Bpe *bpe, const json_t *list) {
  const size_t n = json_array_size(list);
  bpe->added = base_zalloc((n + 1) * sizeof *bpe->added);
  for (size_t i = 0; i < n; i++) {
    const json_t *entry = json_array_get(list, i);
    const char *content = text_of(entry, "content");
    uint32_t id;
    if (!content || !*content || !id_of(json_object_get(entry, "id"), &id))
      return status_fail(CODE_DATA, "tokenizer: added_tokens, entry %zu: expected an id of 0 to 16777215 and a content",
                         i);
    BpeAdded *token = &bpe->added[bpe->n_added++];
    *token = (BpeAdded){.content = base_strdup(content),
                        .id = id,
                        .special = is_true(entry, "special"),
                        .single_word = is_true(entry, "single_word"),
                        .lstrip = is_true(entry, "lstrip"),
                        .rstrip = is_true(entry, "rstrip"),
                        .normalized = is_true(entry, "normalized")};
    BpeText sought = {0};
    if (token->normalized) bpe_normalize(bpe, content, strlen(content), &sought);
    else bpe_text_add(&sought, content, strlen(content));
    token->sought = sought.data, token->bytes = sought.n;
    set_piece(bpe, id, content, (int)strlen(content));
  }
  added_set(bpe, false, &bpe->raw);
  added_set(bpe, true, &bpe->normalized);
  return splitter_new("tokenizer: added_tokens", "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}]", false, &bpe->word_character);
}

/* ---- post_processor */

static Status read_template(Bpe *bpe, const json_t *value) {
  const json_t *single = json_object_get(value, "single"), *known = json_object_get(value, "special_tokens");
  bool behind = false;
  for (size_t i = 0; i < json_array_size(single); i++) {
    const json_t *part = json_array_get(single, i);
    const char *name = text_of(json_object_get(part, "SpecialToken"), "id");
    if (json_object_get(part, "Sequence")) {
      behind = true;
      continue;
    }
    const json_t *ids = name ? json_object_get(json_object_get(known, name), "ids") : NULL;
    if (!json_is_array(ids)) return refuse("post_processor.single", name, "a Sequence, or a SpecialToken with ids");
    for (size_t j = 0; j < json_array_size(ids); j++) {
      uint32_t id;
      int *n = behind ? &bpe->n_behind : &bpe->n_before;
      int32_t **row = behind ? &bpe->behind : &bpe->before;
      if (!id_of(json_array_get(ids, j), &id) || (int)id >= bpe->n_vocab)
        return refuse("post_processor.special_tokens", name, "ids of the vocabulary");
      *row = base_realloc(*row, (size_t)(*n + 1) * sizeof **row);
      (*row)[(*n)++] = (int32_t)id;
    }
  }
  return STATUS_OK;
}

/* One token before a text and one behind it: [content, id] each. */
static Status read_pair(Bpe *bpe, const json_t *value) {
  static const char *const KEYS[] = {"cls", "sep"};
  int32_t **const rows[] = {&bpe->before, &bpe->behind};
  int *const counts[] = {&bpe->n_before, &bpe->n_behind};
  for (int i = 0; i < 2; i++) {
    uint32_t id;
    if (!id_of(json_array_get(json_object_get(value, KEYS[i]), 1), &id) || (int)id >= bpe->n_vocab)
      return refuse("post_processor", KEYS[i], "a token and its id in the vocabulary");
    *rows[i] = base_realloc(*rows[i], (size_t)(*counts[i] + 1) * sizeof **rows[i]);
    (*rows[i])[(*counts[i])++] = (int32_t)id;
  }
  return STATUS_OK;
}

static Status read_post_processor(Bpe *bpe, const json_t *value) {
  if (!value || json_is_null(value)) return STATUS_OK;
  const char *type = text_of(value, "type");
  if (type && strcmp(type, "ByteLevel") == 0) return STATUS_OK; /* offsets only */
  if (type && strcmp(type, "Sequence") == 0)
    return read_each(bpe, json_object_get(value, "processors"), "post_processor.processors", read_post_processor);
  if (type && strcmp(type, "TemplateProcessing") == 0) return read_template(bpe, value);
  if (type && (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0))
    return read_pair(bpe, value);
  return refuse("post_processor", type,
                "ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing, Sequence or null");
}

static Status read_root(Bpe *bpe, const json_t *root) {
  bpe->local = true;
  TRY(read_normalizer(bpe, json_object_get(root, "normalizer")));
  TRY(read_pre_tokenizer(bpe, json_object_get(root, "pre_tokenizer")));
  TRY(read_model(bpe, json_object_get(root, "model")));
  TRY(read_decoder(bpe, json_object_get(root, "decoder")));
  TRY(read_added(bpe, json_object_get(root, "added_tokens")));
  TRY(read_post_processor(bpe, json_object_get(root, "post_processor")));
  for (int i = 0; i < bpe->n_stages; i++) bpe->local &= !bpe->stage[i].prefix_space && !bpe->stage[i].prefix;
  for (int i = 0; i < bpe->n_normals; i++) bpe->local &= bpe->normal[i].kind < NORMAL_PREPEND;
  bpe->local &= bpe->n_stages > 0;
  return STATUS_OK;
}

Status bpe_read(const json_t *root, Bpe **bpe) {
  Bpe *own = base_zalloc(sizeof *own);
  TRY_OR(read_root(own, root), bpe_free(own));
  *bpe = own;
  return STATUS_OK;
}

void bpe_free(Bpe *bpe) {
  if (!bpe) return;
  bpe_vocab_free(&bpe->vocab);
  bpe_merges_free(&bpe->merges);
  for (int i = 0; i < bpe->n_vocab; i++) free(bpe->piece[i].text);
  for (int i = 0; i < bpe->n_stages; i++) splitter_free(&bpe->stage[i].splitter), free(bpe->stage[i].space);
  for (int i = 0; i < bpe->n_normals; i++) free(bpe->normal[i].pattern), free(bpe->normal[i].content);
  for (int i = 0; i < bpe->n_added; i++) free(bpe->added[i].content), free(bpe->added[i].sought);
  splitter_free(&bpe->word_character);
  free((void *)bpe->raw.token), free((void *)bpe->normalized.token);
  free(bpe->piece), free(bpe->added), free(bpe->before), free(bpe->behind);
  free(bpe);
}

int bpe_vocab_size(const Bpe *bpe) { return bpe->n_vocab; }

const char *bpe_piece(const Bpe *bpe, int32_t token, int *bytes) {
  if (token < 0 || token >= bpe->n_vocab || !bpe->piece[token].text) return NULL;
  *bytes = bpe->piece[token].bytes;
  return bpe->piece[token].text;
}

bool bpe_drops_first_space(const Bpe *bpe) { return bpe->drops_first_space; }

void bpe_template(const Bpe *bpe, const int32_t **before, int *n_before, const int32_t **behind, int *n_behind) {
  *before = bpe->before, *n_before = bpe->n_before;
  *behind = bpe->behind, *n_behind = bpe->n_behind;
}

int32_t bpe_added_token(const Bpe *bpe, const char *content) {
  for (int i = 0; i < bpe->n_added; i++)
    if (strcmp(bpe->added[i].content, content) == 0) return (int32_t)bpe->added[i].id;
  return -1;
}
