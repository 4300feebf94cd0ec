/* tokenizer: text to tokens and back, vocabularies as JSON, and what is refused. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/dataset.h"

TestSuite(tokenizer, .init = workplace_enter, .fini = workplace_leave);

static void assert_round_trip(const Tokenizer *tokenizer, const char *text, size_t bytes, int64_t n_expected,
                              const char *name) {
  int32_t *tokens;
  int64_t n;
  Status status = tokenizer_encode(tokenizer, "text", text, bytes, &tokens, &n);
  cr_assert(status.code == CODE_OK, "%s: %s", name, status.line);
  cr_assert(n == n_expected, "%s: %lld tokens, expected %lld", name, (long long)n, (long long)n_expected);
  size_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    int piece_bytes = 0;
    const char *piece = tokenizer_piece(tokenizer, tokens[i], &piece_bytes);
    cr_assert(piece && at + (size_t)piece_bytes <= bytes && memcmp(text + at, piece, (size_t)piece_bytes) == 0,
              "%s: token %lld does not give back byte %zu", name, (long long)i, at);
    at += (size_t)piece_bytes;
  }
  cr_assert(at == bytes, "%s: %zu of %zu bytes came back", name, at, bytes);
  free(tokens);
}

Test(tokenizer, bytes_round_trip) {
  Tokenizer *tokenizer = NULL;
  cr_assert(tokenizer_from_json("{\"kind\":\"byte\"}", &tokenizer).code == CODE_OK, "byte tokenizer");
  cr_assert(tokenizer_vocab_size(tokenizer) == 256, "vocabulary of %d", tokenizer_vocab_size(tokenizer));
  char all[256];
  for (int i = 0; i < 256; i++) all[i] = (char)(255 - i);
  assert_round_trip(tokenizer, all, sizeof all, 256, "all bytes");
  assert_round_trip(tokenizer, "", 0, 0, "nothing");
  int bytes;
  cr_assert(!tokenizer_piece(tokenizer, 256, &bytes) && !tokenizer_piece(tokenizer, -1, &bytes), "no such token");
  tokenizer_free(tokenizer);
}

Test(tokenizer, characters_round_trip_through_the_json) {
  /* The ends of every UTF-8 length, characters that JSON escapes, and NUL. */
  const char text[] = "b\"a\\/\n\t\0\x1f\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"
                      "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"
                      "a";
  const size_t bytes = sizeof text - 1;
  write_file("text.txt", text, bytes);
  DataConfig config = text_config("char", 0.5, 0.5, 1);
  Dataset *dataset = open_or_fail(&config, 1, NULL, "characters");
  cr_assert(dataset_vocab_size(dataset) == 18, "vocabulary of %d", dataset_vocab_size(dataset));
  Tokenizer *tokenizer = NULL;
  Status status = tokenizer_from_json(dataset_tokenizer_json(dataset), &tokenizer);
  cr_assert(status.code == CODE_OK, "%s: %s", dataset_tokenizer_json(dataset), status.line);
  cr_assert(tokenizer_vocab_size(tokenizer) == 18, "vocabulary of %d", tokenizer_vocab_size(tokenizer));
  assert_round_trip(tokenizer, text, bytes, 19, "characters");
  for (int32_t id = 1; id < 18; id++) { /* UTF-8 sorts as code points do */
    int n, n_before;
    const char *piece = tokenizer_piece(tokenizer, id, &n), *before = tokenizer_piece(tokenizer, id - 1, &n_before);
    int order = memcmp(before, piece, (size_t)(n < n_before ? n : n_before));
    cr_assert(order < 0, "token %d does not come after %d", id, id - 1);
  }
  tokenizer_free(tokenizer);
  dataset_close(dataset);
}

Test(tokenizer, tokenizer_json_is_as_documented) {
  write_text("text.txt", "b a\nb a\n");
  DataConfig config = text_config("char", 0.5, 0.5, 1);
  Dataset *dataset = open_or_fail(&config, 1, NULL, "char");
  cr_assert_str_eq(dataset_tokenizer_json(dataset), "{\"kind\":\"char\",\"vocab\":[\"\\n\",\" \",\"a\",\"b\"]}",
                   "char: %s", dataset_tokenizer_json(dataset));
  dataset_close(dataset);
  config = text_config("byte", 0.5, 0.5, 1);
  dataset = open_or_fail(&config, 1, NULL, "byte");
  cr_assert_str_eq(dataset_tokenizer_json(dataset), "{\"kind\":\"byte\"}", "byte: %s", dataset_tokenizer_json(dataset));
  dataset_close(dataset);
}

Test(tokenizer, bad_tokenizer_json_is_refused) {
  const struct {
    char json[64], phrase[64];
  } cases[] = {
      {"", "line 1"},
      {"{\"kind\":", "line 1"},
      {"[]", "\"kind\": found none"},
      {"{}", "\"kind\": found none"},
      {"{\"kind\":3}", "\"kind\": found none"},
      {"{\"kind\":\"bpe\"}", "\"kind\": found bpe"},
      {"{\"kind\":\"char\"}", "\"vocab\": expected a list"},
      {"{\"kind\":\"char\",\"vocab\":[]}", "\"vocab\": expected a list"},
      {"{\"kind\":\"char\",\"vocab\":[\"a\",\"bc\"]}", "entry 1: expected a string of one"},
      {"{\"kind\":\"char\",\"vocab\":[\"\"]}", "entry 0: expected a string of one"},
      {"{\"kind\":\"char\",\"vocab\":[7]}", "entry 0: expected a string of one"},
      {"{\"kind\":\"char\",\"vocab\":[\"a\",\"b\",\"a\"]}", "entry 2: U+0061 stands at entry 0"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    Tokenizer *tokenizer = NULL;
    Status status = tokenizer_from_json(cases[i].json, &tokenizer);
    cr_assert(status.code == CODE_DATA && !tokenizer, "%s: code %d", cases[i].json, status.code);
    cr_assert(strstr(status.line, cases[i].phrase), "%s: %s", cases[i].json, status.line);
    status_clear(&status);
  }
}

Test(tokenizer, invalid_utf8_is_refused_at_its_byte) {
  const struct {
    char name[24], text[16], phrase[32];
  } cases[] = {
      {"stray continuation", "abc\x80z", "byte offset 3: not UTF-8"},
      {"overlong slash",
       "a\xc0\xaf"
       "bc",
       "byte offset 1: not UTF-8"},
      {"overlong 3",
       "\xe0\x9f\xbf"
       "abc",
       "byte offset 0: not UTF-8"},
      {"overlong 4",
       "\xf0\x8f\xbf\xbf"
       "abc",
       "byte offset 0: not UTF-8"},
      {"surrogate", "ab\xed\xa0\x80", "byte offset 2: not UTF-8"},
      {"last surrogate", "ab\xed\xbf\xbf", "byte offset 2: not UTF-8"},
      {"above the last", "ab\xf4\x90\x80\x80", "byte offset 2: not UTF-8"},
      {"five bytes", "ab\xf8\x88\x80\x80\x80", "byte offset 2: not UTF-8"},
      {"0xff", "ab\xff", "byte offset 2: not UTF-8"},
      {"cut at the end", "abc\xe2\x82", "byte offset 3: not UTF-8"},
      {"cut by a letter", "ab\xe2\x82z", "byte offset 2: not UTF-8"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_text("text.txt", cases[i].text);
    DataConfig config = text_config("char", 0.5, 0.5, 1);
    assert_refused(&config, NULL, CODE_DATA, cases[i].phrase, cases[i].name);
    assert_refused(&config, NULL, CODE_DATA, "data.tokenizer: byte", cases[i].name);
    assert_refused(&config, "{\"kind\":\"char\",\"vocab\":[\"a\",\"b\",\"c\"]}", CODE_DATA, cases[i].phrase,
                   cases[i].name);
  }
  /* Two files, each cut in the middle of one character: not the character that both make. */
  write_text("one", "ab\xc3"), write_text("two", "\xa9 ab");
  DataConfig config = text_config("char", 0.5, 0.5, 1);
  config.paths = (char *[]){"one", "two"}, config.n_paths = 2;
  assert_refused(&config, NULL, CODE_DATA, "one: byte offset 2: not UTF-8", "character across files");
}

Test(tokenizer, a_given_vocabulary_is_kept_and_enforced) {
  write_text("text.txt", "abcabcabc");
  DataConfig config = text_config("char", 0.5, 0.5, 1);
  /* Neither the text's own characters nor in order: the ids are the vocabulary's. */
  const char *vocabulary = "{\"kind\":\"char\",\"vocab\":[\"z\",\"c\",\"\xc3\xa9\",\"b\",\"a\"]}";
  Dataset *dataset = open_or_fail(&config, 1, vocabulary, "given");
  cr_assert(dataset_vocab_size(dataset) == 5, "vocabulary of %d", dataset_vocab_size(dataset));
  cr_assert_str_eq(dataset_tokenizer_json(dataset), vocabulary, "%s", dataset_tokenizer_json(dataset));
  Batch batch = batch_new(3, 1);
  dataset_fill(dataset, PART_VAL, 0, &batch);
  cr_assert(batch.token[0] == 1 && batch.target[0] == 4 && batch.target[1] == 3, "ids %d -> %d, %d", batch.token[0],
            batch.target[0], batch.target[1]);
  batch_free(&batch);
  dataset_close(dataset);

  write_text("first", "abc"), write_text("second", "ab\xc3\xb6\nabc"), write_text("third", "a\nb");
  config.paths = (char *[]){"first", "second"}, config.n_paths = 2;
  assert_refused(&config, vocabulary, CODE_DATA,
                 "second: byte offset 2: character '\xc3\xb6' (U+00F6) is not among the 5", "letter");
  config.paths = (char *[]){"first", "third"};
  assert_refused(&config, vocabulary, CODE_DATA, "third: byte offset 1: character (U+000A) is not",
                 "control character");
  config = text_config("byte", 0.5, 0.5, 1);
  assert_refused(&config, vocabulary, CODE_DATA, "data.tokenizer: found byte, expected char", "other kind");

  Tokenizer *tokenizer = NULL;
  int32_t *tokens = NULL;
  int64_t n;
  cr_assert(tokenizer_from_json(vocabulary, &tokenizer).code == CODE_OK, "vocabulary");
  Status status = tokenizer_encode(tokenizer, "text", "abx", 3, &tokens, &n);
  cr_assert(status.code == CODE_DATA && !tokens && strstr(status.line, "byte offset 2: character 'x' (U+0078)"),
            "encode: %s", status.line);
  status_clear(&status);
  tokenizer_free(tokenizer);
}

Test(tokenizer, bytes_per_token_counts_the_targets_of_each_part) {
  /* Training part: 1-byte characters but the last, of 4; validation part: 3 bytes, then 2 and 1. */
  write_text("text.txt", "aaaa\xf0\x9f\x90\x8d"
                         "\xe2\x82\xac\xc3\xa9"
                         "a\xc3\xa9"
                         "b");
  DataConfig config = text_config("char", 0.5, 0.5, 1);
  Dataset *dataset = open_or_fail(&config, 1, NULL, "char");
  double train = dataset_bytes_per_token(dataset, PART_TRAIN), val = dataset_bytes_per_token(dataset, PART_VAL);
  cr_assert(train == 7.0 / 4, "training: %g", train);
  cr_assert(val == 6.0 / 4, "validation: %g", val);
  dataset_close(dataset);
  config = text_config("byte", 0.5, 0.5, 1);
  dataset = open_or_fail(&config, 1, NULL, "byte");
  cr_assert(dataset_bytes_per_token(dataset, PART_TRAIN) == 1 && dataset_bytes_per_token(dataset, PART_VAL) == 1,
            "byte");
  double chance;
  cr_assert(!dataset_scores_last(dataset, &chance), "text has no score at the last token");
  dataset_close(dataset);
}
