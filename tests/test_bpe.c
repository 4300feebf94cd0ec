/* bpe: tokenizer.json against what the `tokenizers` package makes of the same files (tests/tokenizers, made by
 * tests/scripts/compare_tokenizers.py), bytes that are no text, cuts, and files that are refused. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe.h"
#include "tensor/rng.h"
#include "tests/support/dataset.h"
#include "tests/support/store.h"

TestSuite(bpe, .init = workplace_enter, .fini = workplace_leave);

static const char *const KINDS[] = {"gpt2", "neox", "llama3", "digits", "llama2", "unknown", "metaspace", "mistral"};
enum { N_KINDS = sizeof KINDS / sizeof *KINDS };

static char *kind_path(const char *kind) { return base_format("%s/tests/tokenizers/%s.json", ASPIS_SOURCE_DIR, kind); }

static Tokenizer *open_kind(const char *kind) {
  char *path = kind_path(kind);
  Tokenizer *tokenizer = NULL;
  Status status = tokenizer_read(path, &tokenizer);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  free(path);
  return tokenizer;
}

static json_t *read_json(const char *kind) {
  char *path = kind_path(kind);
  json_t *root = json_load_file(path, JSON_ALLOW_NUL, NULL);
  cr_assert(root, "%s cannot be read", path);
  free(path);
  return root;
}

Test(bpe, a_post_processor_tells_what_goes_before_and_behind_a_text) {
  static const struct {
    const char *kind;
    int n_before, n_behind;
    int32_t before, behind;
  } CASES[] = {{"gpt2", 0, 0, 0, 0}, {"llama3", 1, 0, 390, 0}, {"metaspace", 1, 1, 1, 2}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    Tokenizer *tokenizer = open_kind(CASES[i].kind);
    const int32_t *before, *behind;
    int n_before, n_behind;
    bpe_template(tokenizer_bpe(tokenizer), &before, &n_before, &behind, &n_behind);
    cr_assert(n_before == CASES[i].n_before && n_behind == CASES[i].n_behind, "%s: %d and %d tokens", CASES[i].kind,
              n_before, n_behind);
    cr_assert(!n_before || before[0] == CASES[i].before, "%s: %d before", CASES[i].kind, n_before ? before[0] : -1);
    cr_assert(!n_behind || behind[0] == CASES[i].behind, "%s: %d behind", CASES[i].kind, n_behind ? behind[0] : -1);
    tokenizer_free(tokenizer);
  }
}

Test(bpe, encoding_equals_the_tokenizers_package) {
  json_t *cases = read_json("cases"), *texts = json_object_get(cases, "texts");
  for (int k = 0; k < N_KINDS; k++) {
    Tokenizer *tokenizer = open_kind(KINDS[k]);
    const json_t *all = json_object_get(json_object_get(cases, "ids"), KINDS[k]);
    cr_assert(json_array_size(all) == json_array_size(texts) && json_array_size(all) > 30, "%s: cases", KINDS[k]);
    for (size_t i = 0; i < json_array_size(all); i++) {
      const json_t *text = json_array_get(texts, i), *ids = json_array_get(all, i);
      int32_t *tokens;
      int64_t n;
      Status status =
          tokenizer_encode(tokenizer, "text", json_string_value(text), json_string_length(text), &tokens, &n);
      cr_assert(status.code == CODE_OK, "%s, text %zu: %s", KINDS[k], i, status.line);
      cr_assert(n == (int64_t)json_array_size(ids), "%s, text %zu: %lld tokens, expected %zu", KINDS[k], i,
                (long long)n, json_array_size(ids));
      for (int64_t t = 0; t < n; t++)
        cr_assert(tokens[t] == json_integer_value(json_array_get(ids, (size_t)t)),
                  "%s, text %zu, token %lld: %d, expected %lld", KINDS[k], i, (long long)t, tokens[t],
                  (long long)json_integer_value(json_array_get(ids, (size_t)t)));
      free(tokens);
    }
    tokenizer_free(tokenizer);
  }
  json_decref(cases);
}

/* add_special_tokens=True; a prompt goes on, so that what stands behind it is left away. */
Test(bpe, a_prompt_begins_as_the_tokenizers_package_begins_a_text) {
  json_t *cases = read_json("cases"), *texts = json_object_get(cases, "texts");
  int n_longer = 0;
  for (int k = 0; k < N_KINDS; k++) {
    Tokenizer *tokenizer = open_kind(KINDS[k]);
    const TokenTemplate around = tokenizer_template(tokenizer);
    const json_t *all = json_object_get(json_object_get(cases, "special"), KINDS[k]);
    cr_assert(json_array_size(all) >= 8, "%s: cases", KINDS[k]);
    for (size_t i = 0; i < json_array_size(all); i++) {
      const json_t *text = json_array_get(texts, i), *ids = json_array_get(all, i);
      int32_t *tokens;
      int64_t n;
      int n_before;
      store_ok(tokenizer_encode_prompt(tokenizer, "text", json_string_value(text), json_string_length(text), &tokens,
                                       &n, &n_before),
               KINDS[k]);
      cr_assert(n + around.n_behind == (int64_t)json_array_size(ids) && n_before == around.n_before,
                "%s, text %zu: %lld tokens, of them %d before it, and %d behind it, expected %zu", KINDS[k], i,
                (long long)n, n_before, around.n_behind, json_array_size(ids));
      for (int64_t t = 0; t < n + around.n_behind; t++) {
        const int32_t token = t < n ? tokens[t] : around.behind[t - n];
        cr_assert(token == json_integer_value(json_array_get(ids, (size_t)t)), "%s, text %zu, token %lld: %d", KINDS[k],
                  i, (long long)t, token);
      }
      n_longer += n_before > 0;
      free(tokens);
    }
    tokenizer_free(tokenizer);
  }
  cr_assert(n_longer >= 24, "%d texts with something before them", n_longer);
  json_decref(cases);
}

Test(bpe, decoding_equals_the_tokenizers_package) {
  json_t *cases = read_json("cases"), *texts = json_object_get(cases, "texts");
  for (int k = 0; k < N_KINDS; k++) {
    Tokenizer *tokenizer = open_kind(KINDS[k]);
    const json_t *all = json_object_get(json_object_get(cases, "ids"), KINDS[k]);
    for (size_t i = 0; i < json_array_size(all); i++) {
      const json_t *ids = json_array_get(all, i),
                   *text = json_array_get(json_object_get(json_object_get(cases, "decoded"), KINDS[k]), i);
      if (json_is_null(text)) text = json_array_get(texts, i); /* gives back what it was made of */
      const int64_t n = (int64_t)json_array_size(ids);
      int32_t *tokens = base_zalloc((size_t)n * sizeof *tokens);
      for (int64_t t = 0; t < n; t++) tokens[t] = (int32_t)json_integer_value(json_array_get(ids, (size_t)t));
      char *decoded;
      size_t bytes;
      Status status = tokenizer_decode(tokenizer, tokens, n, &decoded, &bytes);
      cr_assert(status.code == CODE_OK, "%s, text %zu: %s", KINDS[k], i, status.line);
      cr_assert(bytes == json_string_length(text) && memcmp(decoded, json_string_value(text), bytes) == 0,
                "%s, text %zu: %s, expected %s", KINDS[k], i, decoded, json_string_value(text));
      free(decoded), free(tokens);
    }
    tokenizer_free(tokenizer);
  }
  json_decref(cases);
}

Test(bpe, random_bytes_come_back) {
  static const char *const BYTE_LEVEL[] = {"gpt2", "llama3"};
  for (int k = 0; k < 2; k++) {
    Tokenizer *tokenizer = open_kind(BYTE_LEVEL[k]);
    Rng rng = rng_make(5, RNG_TEST, (uint32_t)k, 0);
    for (int i = 0; i < 200; i++) {
      char bytes[256];
      const size_t n = rng_below(&rng, 256) + 1;
      const uint32_t range = i % 2 ? 256 : 64; /* the second: much white space and ASCII */
      for (size_t b = 0; b < n; b++) bytes[b] = (char)rng_below(&rng, range);
      int32_t *tokens;
      int64_t n_tokens;
      char *back;
      size_t n_back;
      cr_assert(tokenizer_encode(tokenizer, "text", bytes, n, &tokens, &n_tokens).code == CODE_OK, "%s", BYTE_LEVEL[k]);
      cr_assert(tokenizer_decode(tokenizer, tokens, n_tokens, &back, &n_back).code == CODE_OK, "%s", BYTE_LEVEL[k]);
      cr_assert(n_back == n && memcmp(bytes, back, n) == 0, "%s: row %d of %zu bytes", BYTE_LEVEL[k], i, n);
      free(tokens), free(back);
    }
    tokenizer_free(tokenizer);
  }
}

Test(bpe, long_words_take_linear_time_and_memory) {
  Tokenizer *tokenizer = open_kind("gpt2");
  const size_t n = 1 << 20; /* a word: merging pair by pair over the whole word would take 10^12 steps */
  char *word = base_alloc(n);
  memset(word, 'e', n);
  int32_t *tokens;
  int64_t n_tokens;
  cr_assert(tokenizer_encode(tokenizer, "text", word, n, &tokens, &n_tokens).code == CODE_OK && n_tokens > 0,
            "a long word");
  free(tokens), free(word);
  tokenizer_free(tokenizer);
}

Test(bpe, a_text_cut_where_it_may_be_gives_the_same_tokens) {
  char *path = base_format("%s/data/bpe.c", ASPIS_SOURCE_DIR), *text = base_alloc(1 << 20);
  FILE *file = fopen(path, "rb");
  const size_t bytes = file ? fread(text, 1, 1 << 20, file) : 0;
  cr_assert(bytes > 4096 && fclose(file) == 0, "%s", path);
  for (int k = 0; k < 4; k++) { /* digits puts a space before a text: it has no such place */
    Tokenizer *tokenizer = open_kind(KINDS[k]);
    BpeEncoder *encoder = bpe_encoder_new(tokenizer_bpe(tokenizer));
    TokenRow whole = {.width = 4}, parts = {.width = 4};
    cr_assert(bpe_encode(encoder, "whole", text, bytes, &whole).code == CODE_OK, "whole");
    int n_cuts = 0;
    for (size_t at = 0, cut; at < bytes; at += cut) {
      cut = bytes - at;
      if (cut > 700) {
        const size_t found = bpe_safe_cut(encoder, text + at, 600);
        cr_assert((found > 0) == (k < 3), "%s: place %zu", KINDS[k], found);
        if (found) cut = found, n_cuts++;
      }
      cr_assert(bpe_encode(encoder, "part", text + at, cut, &parts).code == CODE_OK, "part");
    }
    cr_assert((k < 3) == (n_cuts > 20), "%s: %d cuts", KINDS[k], n_cuts);
    cr_assert(whole.n == parts.n && memcmp(whole.token, parts.token, 4 * (size_t)whole.n) == 0,
              "%s: %lld and %lld tokens", KINDS[k], (long long)whole.n, (long long)parts.n);
    free(whole.token), free(parts.token);
    bpe_encoder_free(encoder);
    tokenizer_free(tokenizer);
  }
  free(path), free(text);
}

Test(bpe, a_tokenizer_trains_and_stays_with_the_model) {
  char *path = kind_path("gpt2");
  write_text("text.txt", "To be, or not to be: that is the question. To be, or not to be: that is the question.\n");
  DataConfig config = text_config(path, 0.5, 0.5, 4);
  Dataset *dataset = open_or_fail(&config, 1, NULL, "bpe");
  cr_assert(dataset_vocab_size(dataset) == 388, "vocabulary of %d", dataset_vocab_size(dataset));
  cr_assert(dataset_bytes_per_token(dataset, PART_VAL) > 1.5, "%g bytes a token",
            dataset_bytes_per_token(dataset, PART_VAL));
  char *stored = base_strdup(dataset_tokenizer_json(dataset)), *elsewhere = base_strdup("elsewhere/tokenizer.json");
  dataset_close(dataset);
  config.tokenizer = elsewhere; /* not needed any more */
  dataset = open_or_fail(&config, 1, stored, "stored");
  cr_assert_str_eq(dataset_tokenizer_json(dataset), stored);
  dataset_close(dataset);
  config.tokenizer = "byte";
  assert_refused(&config, stored, CODE_DATA, "data.tokenizer: found byte, expected bpe", "other kind");
  free(stored), free(elsewhere), free(path);
}

/* tests/tokenizers/gpt2.json was trained by the package on four of the cases' texts, three times each. */
Test(bpe, training_makes_the_merges_of_the_tokenizers_package) {
  enum { FIRST = 22 };
  json_t *cases = read_json("cases"), *gpt2 = read_json("gpt2"), *want = json_object_get(gpt2, "model");
  char *paths[12];
  for (int i = 0; i < 12; i++) {
    const json_t *text = json_array_get(json_object_get(cases, "texts"), (size_t)(FIRST + i % 4));
    paths[i] = base_format("text-%d", i);
    write_file(paths[i], json_string_value(text), json_string_length(text));
  }
  char *json;
  Status status = bpe_train(paths, 12, 400, &json);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  json_t *root = json_loads(json, 0, NULL), *model = json_object_get(root, "model"),
         *merges = json_object_get(model, "merges");
  cr_assert(json_equal(json_object_get(model, "vocab"), json_object_get(want, "vocab")), "another vocabulary: %s",
            json);
  cr_assert(json_array_size(merges) > 100 &&
                json_array_size(merges) == json_array_size(json_object_get(want, "merges")),
            "%zu merges", json_array_size(merges));
  for (size_t i = 0; i < json_array_size(merges); i++) {
    const json_t *pair = json_array_get(merges, i);
    char *line =
        base_format("%s %s", json_string_value(json_array_get(pair, 0)), json_string_value(json_array_get(pair, 1)));
    cr_assert_str_eq(line, json_string_value(json_array_get(json_object_get(want, "merges"), i)));
    free(line);
  }
  Tokenizer *tokenizer;
  cr_assert(tokenizer_from_json(json, &tokenizer).code == CODE_OK, "read");
  cr_assert(bpe_added_token(tokenizer_bpe(tokenizer), "<|endoftext|>") == 0, "the special token");
  tokenizer_free(tokenizer);
  for (int i = 0; i < 12; i++) free(paths[i]);
  free(json);
  json_decref(root), json_decref(cases), json_decref(gpt2);
}

/* Replaces what lies at a path of keys; NULL: removes it. */
static void replace(json_t *root, const char *keys, const char *value) {
  char key[32];
  json_t *at = root;
  for (;;) {
    const size_t n = strcspn(keys, ".");
    snprintf(key, sizeof key, "%.*s", (int)n, keys);
    if (!keys[n]) break;
    at = json_object_get(at, key);
    keys += n + 1;
  }
  if (value) json_object_set_new(at, key, json_loads(value, JSON_DECODE_ANY, NULL));
  else json_object_del(at, key);
}

Test(bpe, what_cannot_be_done_alike_is_refused) {
  static const struct {
    const char *kind, *keys, *value, *phrase;
  } cases[] = {
      {"gpt2", "model.type", "\"WordPiece\"", "model.type: found WordPiece, expected BPE"},
      {"gpt2", "model.dropout", "0.1", "model.dropout: found a number, expected null"},
      {"gpt2", "model.continuing_subword_prefix", "\"##\"", "model.continuing_subword_prefix: found ##, expected null"},
      {"gpt2", "model.end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix: found </w>"},
      {"gpt2", "model.unk_token", "\"<nothing>\"", "model.unk_token: found <nothing>, expected a token of model.vocab"},
      {"gpt2", "model.vocab", NULL, "model.vocab: found nothing"},
      {"gpt2", "model.vocab", "{\"a\":0,\"b\":0}", "model.vocab: found id 0 twice"},
      {"gpt2", "model.vocab", "{\"a\":-1}", "expected an id of 0 to 16777215"},
      {"gpt2", "model.vocab", "{\"a\":99999999999}", "expected an id of 0 to 16777215"},
      {"gpt2", "model.merges", "[\"a zzzz\"]", "model.merges, entry 0: zzzz is not in model.vocab"},
      {"gpt2", "model.merges", "[\"a b c\"]", "model.merges, entry 0: expected"},
      {"gpt2", "model.merges", "[[\"a\"]]", "model.merges, entry 0: expected"},
      {"gpt2", "model.merges", NULL, "model.merges: found no array"},
      {"gpt2", "normalizer", "{\"type\":\"Lowercase\"}", "normalizer: found Lowercase, expected NFC"},
      {"gpt2", "normalizer", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"b\"}",
       "normalizer: found Replace"},
      {"gpt2", "pre_tokenizer", "{\"type\":\"Whitespace\"}", "pre_tokenizer: found Whitespace, expected ByteLevel"},
      {"gpt2", "pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w+\"},\"behavior\":\"Isolated\"}",
       "pattern \\w+: found \"\\w+\", which is not read here as the tokenizers package does"},
      {"gpt2", "pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a)\"},\"behavior\":\"Isolated\"}",
       "pattern a): at character 1: unmatched"},
      {"gpt2", "pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}",
       "behavior: found Odd"},
      {"gpt2", "pre_tokenizer",
       "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}",
       "pre_tokenizer: found Digits, expected nothing behind ByteLevel"},
      {"gpt2", "decoder", "null", "decoder: found nothing, expected ByteLevel"},
      {"gpt2", "decoder", "{\"type\":\"Metaspace\"}", "decoder: found Metaspace"},
      {"gpt2", "post_processor", "{\"type\":\"BertProcessing\"}", "post_processor: found cls"},
      {"gpt2", "post_processor", "{\"type\":\"Other\"}", "post_processor: found Other"},
      {"mistral", "decoder", "{\"type\":\"Metaspace\",\"replacement\":\"_\"}", "decoder: found Metaspace"},
      {"mistral", "pre_tokenizer.prepend_scheme", "\"often\"", "pre_tokenizer.prepend_scheme: found often"},
      {"mistral", "pre_tokenizer.replacement", "\"ab\"", "pre_tokenizer.replacement: found ab"},
      {"gpt2", "added_tokens", "[{\"id\":1}]", "added_tokens, entry 0"},
      {"llama2", "decoder", "{\"type\":\"ByteLevel\"}", "decoder: found ByteLevel"},
      {"unknown", "model.byte_fallback", "true", "model.vocab: found no <0x00>"},
      {"llama3", "post_processor",
       "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{}}",
       "post_processor.single: found x"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    json_t *root = read_json(cases[i].kind);
    replace(root, cases[i].keys, cases[i].value);
    json_dump_file(root, "tokenizer.json", 0);
    json_decref(root);
    Tokenizer *tokenizer = NULL;
    Status status = tokenizer_read("tokenizer.json", &tokenizer);
    cr_assert(status.code == CODE_DATA && !tokenizer, "%s %s: code %d", cases[i].keys, cases[i].value, status.code);
    cr_assert(strncmp(status.line, "tokenizer.json: tokenizer: ", 27) == 0 && strstr(status.line, cases[i].phrase) &&
                  !strchr(status.line, '\n'),
              "%s %s: %s", cases[i].keys, cases[i].value, status.line);
    status_clear(&status);
  }
}

Test(bpe, files_that_are_no_tokenizer_are_refused) {
  static const char *const texts[] = {"", "{", "[]", "{\"model\":3}", "\xff", "{\"model\":{\"vocab\":{}}}"};
  Tokenizer *tokenizer = NULL;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    write_text("t.json", texts[i]);
    Status status = tokenizer_read("t.json", &tokenizer);
    cr_assert(status.code == CODE_DATA && !tokenizer && strstr(status.line, "t.json: "), "%s: %s", texts[i],
              status.line);
    status_clear(&status);
  }
  Status status = tokenizer_read("absent.json", &tokenizer);
  cr_assert(status.code == CODE_DATA && strstr(status.line, "absent.json: cannot read"), "%s", status.line);
  status_clear(&status);
}

Test(bpe, text_outside_the_vocabulary_is_refused) {
  Tokenizer *tokenizer = open_kind("unknown");
  int32_t *tokens = NULL;
  int64_t n;
  Status status = tokenizer_encode(tokenizer, "text", "ab\xff", 3, &tokens, &n);
  cr_assert(status.code == CODE_DATA && strstr(status.line, "byte offset 2: not UTF-8"), "%s", status.line);
  status_clear(&status);
  tokenizer_free(tokenizer);
  json_t *root = read_json("unknown");
  replace(root, "model.unk_token", "null");
  json_dump_file(root, "tokenizer.json", 0);
  json_decref(root);
  cr_assert(tokenizer_read("tokenizer.json", &tokenizer).code == CODE_OK, "without unk_token");
  status = tokenizer_encode(tokenizer, "text", "\xe4\xb8\x80", 3, &tokens, &n);
  cr_assert(status.code == CODE_DATA && strstr(status.line, "character U+4E00 is not in"), "%s", status.line);
  status_clear(&status);
  tokenizer_free(tokenizer);
}
