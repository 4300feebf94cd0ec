/* data: windows, tokenizers, files and the synthetic tasks, held to definitions written anew here. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "data/data.h"

/* --- a folder to work in, removed at the end ---------------------------------------------------------------------- */

static char workplace[] = "/tmp/aspis_test_data_XXXXXX";

static void enter(void) { cr_assert(mkdtemp(workplace) && chdir(workplace) == 0, "cannot make %s", workplace); }

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *ftw) {
  (void)info, (void)type, (void)ftw;
  return remove(path);
}

static void leave(void) { nftw(workplace, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

TestSuite(data, .init = enter, .fini = leave);

static void write_file(const char *path, const void *bytes, size_t n) {
  FILE *file = fopen(path, "wb");
  cr_assert(file && fwrite(bytes, 1, n, file) == n && fclose(file) == 0, "cannot write %s", path);
}

static void write_text(const char *path, const char *text) { write_file(path, text, strlen(text)); }

static size_t put_utf8(char *to, uint32_t c) {
  if (c < 0x80) return to[0] = (char)c, 1;
  if (c < 0x800) return to[0] = (char)(192 + c / 64), to[1] = (char)(128 + c % 64), 2;
  if (c < 0x10000)
    return to[0] = (char)(224 + c / 4096), to[1] = (char)(128 + c / 64 % 64), to[2] = (char)(128 + c % 64), 3;
  return to[0] = (char)(240 + c / 262144), to[1] = (char)(128 + c / 4096 % 64), to[2] = (char)(128 + c / 64 % 64),
         to[3] = (char)(128 + c % 64), 4;
}

/* n different characters in order: under "char", the token at position i is i. */
static void write_counting_text(const char *path, uint32_t first_code, int64_t n) {
  char *text = malloc(4 * (size_t)n);
  size_t bytes = 0;
  for (int64_t i = 0; i < n; i++) bytes += put_utf8(text + bytes, first_code + (uint32_t)i);
  write_file(path, text, bytes);
  free(text);
}

/* --- opening and filling ------------------------------------------------------------------------------------------ */

static char *one_path[] = {"text.txt"};

static DataConfig text_config(char *tokenizer, double train, double val, int seq_len) {
  return (DataConfig){.kind = DATA_TEXT,
                      .paths = one_path,
                      .n_paths = 1,
                      .tokenizer = tokenizer,
                      .split_train = train,
                      .split_val = val,
                      .seq_len = seq_len};
}

static DataConfig task_config(char *task) {
  return (DataConfig){.kind = DATA_SYNTHETIC,
                      .seq_len = 256,
                      .task = task,
                      .min_length = 3,
                      .max_length = 160,
                      .start_max_length = 40,
                      .curriculum_steps = 100,
                      .eval_length = 256,
                      .eval_sequences = 50};
}

static Dataset *open_or_fail(const DataConfig *config, uint64_t seed, const char *vocabulary, const char *name) {
  Dataset *dataset = NULL;
  Status status = dataset_open(config, seed, vocabulary, &dataset);
  cr_assert(status.code == CODE_OK, "%s: %s", name, status.line);
  return dataset;
}

static void assert_refused(const DataConfig *config, const char *vocabulary, Code code, const char *phrase,
                           const char *name) {
  Dataset *dataset = NULL;
  Status status = dataset_open(config, 1, vocabulary, &dataset);
  cr_assert(status.code == code, "%s: code %d, expected %d (%s)", name, status.code, code,
            status.line ? status.line : "no message");
  cr_assert(strstr(status.line, phrase), "%s: \"%s\" does not say \"%s\"", name, status.line, phrase);
  cr_assert(dataset == NULL, "%s: a dataset came back with the failure", name);
  status_clear(&status);
}

static Batch batch_new(int64_t n_seq, int64_t length) {
  size_t bytes = sizeof(int32_t) * (size_t)(n_seq * length);
  Batch batch = {n_seq, length, malloc(bytes), malloc(bytes)};
  memset(batch.token, 0x55, bytes), memset(batch.target, 0x55, bytes); /* what fill must overwrite */
  return batch;
}

static void batch_free(Batch *batch) { free(batch->token), free(batch->target); }

static bool batch_equal(const Batch *a, const Batch *b) {
  size_t bytes = sizeof(int32_t) * (size_t)(a->n_seq * a->length);
  return a->n_seq == b->n_seq && a->length == b->length && memcmp(a->token, b->token, bytes) == 0 &&
         memcmp(a->target, b->target, bytes) == 0;
}

/* --- windows ------------------------------------------------------------------------------------------------------ */

/* first_code and n reach each width in which tokens are kept: 1, 2 and 4 bytes. */
static const struct {
  uint32_t first_code;
  int64_t n;
  double train, val;
  int seq_len;
} WINDOWS[] = {
    {0x21, 94, 0.9, 0.1, 1},        {0x100, 200, 0.5, 0.5, 7},     {0x100, 256, 0.8, 0.1, 8},
    {0x4E00, 1000, 0.9, 0.1, 16},   {0x4E00, 1000, 0.9, 0.1, 99},  {0x4E00, 997, 0.33, 0.33, 32},
    {0x4E00, 1001, 0.5, 0.5, 400},  {0x4E00, 1000, 0.5, 0.5, 499}, {0x4E00, 1000, 0.5, 0.5, 250},
    {0x10000, 70000, 0.9, 0.1, 64},
};
enum { N_WINDOWS = sizeof WINDOWS / sizeof *WINDOWS };

static Dataset *open_windows(int k, uint64_t seed, char *name, int64_t *train_end, int64_t *val_end) {
  sprintf(name, "%lld tokens, split %g + %g, seq_len %d", (long long)WINDOWS[k].n, WINDOWS[k].train, WINDOWS[k].val,
          WINDOWS[k].seq_len);
  write_counting_text("text.txt", WINDOWS[k].first_code, WINDOWS[k].n);
  DataConfig config = text_config("char", WINDOWS[k].train, WINDOWS[k].val, WINDOWS[k].seq_len);
  *train_end = (int64_t)((double)WINDOWS[k].n * WINDOWS[k].train + 0.5);
  *val_end = (int64_t)((double)WINDOWS[k].n * (WINDOWS[k].train + WINDOWS[k].val) + 0.5);
  return open_or_fail(&config, seed, NULL, name);
}

Test(data, validation_windows_cover_every_target_once) {
  for (int k = 0; k < N_WINDOWS; k++) {
    char name[128];
    int64_t train_end, val_end, n_targets = 0;
    Dataset *dataset = open_windows(k, 7, name, &train_end, &val_end);
    const int64_t length = WINDOWS[k].seq_len, n = dataset_n_samples(dataset, PART_VAL);
    cr_assert(dataset_max_length(dataset, PART_VAL) == length && dataset_val_length(dataset, n - 1) == length,
              "%s: lengths", name);
    Batch batch = batch_new(n, length);
    dataset_fill(dataset, PART_VAL, 0, &batch);
    for (int64_t i = 0; i < n * length; i++) {
      int64_t at = train_end + i; /* end to end: window and position add up to the place in the part */
      if (at + 1 < val_end) {
        cr_assert(batch.token[i] == at && batch.target[i] == at + 1, "%s: position %lld: %d -> %d", name, (long long)at,
                  batch.token[i], batch.target[i]);
        n_targets++;
      } else {
        cr_assert(batch.token[i] == 0 && batch.target[i] == -1, "%s: padding %lld: %d -> %d", name, (long long)i,
                  batch.token[i], batch.target[i]);
      }
    }
    cr_assert(n_targets == val_end - train_end - 1, "%s: %lld targets", name, (long long)n_targets);
    cr_assert((n - 1) * length < n_targets, "%s: a window without targets", name);
    batch_free(&batch);
    dataset_close(dataset);
  }
}

Test(data, training_windows_of_an_epoch_are_a_permutation_of_a_tiling) {
  for (int k = 0; k < N_WINDOWS; k++) {
    char name[128];
    int64_t train_end, val_end;
    Dataset *dataset = open_windows(k, 7, name, &train_end, &val_end);
    const int64_t length = WINDOWS[k].seq_len, n = dataset_n_samples(dataset, PART_TRAIN);
    /* No offset wastes more than one window at either end. */
    cr_assert(n >= 1 && n * length + 1 <= train_end && (n + 2) * length + 1 > train_end, "%s: %lld samples", name,
              (long long)n);
    cr_assert(dataset_train_length(dataset, 123) == length && dataset_max_length(dataset, PART_TRAIN) == length,
              "%s: lengths", name);
    Batch batch = batch_new(n, length);
    for (int epoch = 0; epoch < 3; epoch++) {
      dataset_fill(dataset, PART_TRAIN, epoch * n, &batch);
      int64_t first = batch.token[0], last = 0;
      for (int64_t s = 0; s < n; s++) first = min_i64(first, batch.token[s * length]);
      bool *seen = base_zalloc((size_t)n);
      for (int64_t s = 0; s < n; s++) {
        int64_t window = (batch.token[s * length] - first) / length;
        cr_assert((batch.token[s * length] - first) % length == 0 && window < n && !seen[window],
                  "%s: epoch %d: sample %lld starts at %d", name, epoch, (long long)s, batch.token[s * length]);
        seen[window] = true;
        for (int64_t t = 0; t < length; t++) {
          int32_t token = batch.token[s * length + t], target = batch.target[s * length + t];
          cr_assert(token == batch.token[s * length] + t && target == token + 1, "%s: sample %lld, t = %lld: %d -> %d",
                    name, (long long)s, (long long)t, token, target);
          last = max_i64(last, target);
        }
      }
      free(seen);
      cr_assert(first < length, "%s: epoch %d: offset %lld", name, epoch, (long long)first);
      cr_assert(last < train_end, "%s: epoch %d: token %lld is validation's", name, epoch, (long long)last);
    }
    batch_free(&batch);
    dataset_close(dataset);
  }
}

Test(data, epochs_differ_in_order_and_offset) {
  char name[128];
  int64_t train_end, val_end;
  Dataset *dataset = open_windows(3, 7, name, &train_end, &val_end),
          *other = open_windows(3, 8, name, &train_end, &val_end);
  const int64_t length = 16, n = dataset_n_samples(dataset, PART_TRAIN);
  Batch a = batch_new(n, length), b = batch_new(n, length);
  bool offset_seen[16] = {false};
  int n_offsets = 0;
  for (int epoch = 0; epoch < 100; epoch++) {
    dataset_fill(dataset, PART_TRAIN, epoch * n, &a);
    int offset = a.token[0] % 16;
    n_offsets += !offset_seen[offset];
    offset_seen[offset] = true;
    dataset_fill(dataset, PART_TRAIN, (epoch + 1) * n, &b);
    cr_assert(!batch_equal(&a, &b), "epochs %d and %d are alike", epoch, epoch + 1);
    dataset_fill(other, PART_TRAIN, epoch * n, &b);
    cr_assert(!batch_equal(&a, &b), "epoch %d is alike under two seeds", epoch);
  }
  cr_assert(n_offsets == 16, "100 epochs used %d of 16 offsets", n_offsets);
  batch_free(&a), batch_free(&b);
  dataset_close(dataset), dataset_close(other);
}

static void assert_resumes(const DataConfig *config, DataPart part, int64_t length, const char *name) {
  Dataset *whole = open_or_fail(config, 3, NULL, name), *parts = open_or_fail(config, 3, NULL, name);
  Batch a = batch_new(50, length), b = batch_new(50, length);
  dataset_fill(whole, part, 0, &a);
  for (int64_t at = 43; at >= -6; at -= 7) { /* backwards, in sevens: nothing may depend on what was asked before */
    int64_t first = max_i64(at, 0), n = at + 7 - first;
    Batch piece = {n, length, b.token + first * length, b.target + first * length};
    dataset_fill(parts, part, first, &piece);
  }
  cr_assert(batch_equal(&a, &b), "%s: a sample depends on more than its index", name);
  batch_free(&a), batch_free(&b);
  dataset_close(whole), dataset_close(parts);
}

Test(data, samples_are_pure_functions_of_their_index) {
  write_counting_text("text.txt", 0x4E00, 1500);
  DataConfig text = text_config("char", 0.5, 0.5, 15);
  assert_resumes(&text, PART_TRAIN, 15, "text, train");
  assert_resumes(&text, PART_VAL, 15, "text, validation");
  char *tasks[] = {"parity", "mod_arith", "mod_arith_brackets"};
  for (int i = 0; i < 3; i++) {
    DataConfig config = task_config(tasks[i]);
    assert_resumes(&config, PART_TRAIN, i == 1 ? 41 : 42, tasks[i]);
    assert_resumes(&config, PART_VAL, i == 1 ? 255 : 256, tasks[i]);
  }
}

/* --- files -------------------------------------------------------------------------------------------------------- */

/* Opens the paths as bytes, half training and half validation, and gives back the text as fill shows it. */
static void assert_text_is(char **paths, int n_paths, const char *expected) {
  DataConfig config = text_config("byte", 0.5, 0.5, 1);
  config.paths = paths, config.n_paths = n_paths;
  Dataset *dataset = open_or_fail(&config, 1, NULL, paths[0]);
  int64_t n = dataset_n_samples(dataset, PART_VAL), half = (int64_t)strlen(expected) / 2;
  Batch batch = batch_new(n, 1);
  dataset_fill(dataset, PART_VAL, 0, &batch);
  cr_assert(n == half - 1, "%s: %lld validation targets, expected %lld", paths[0], (long long)n, (long long)half - 1);
  for (int64_t i = 0; i < n; i++)
    cr_assert(batch.token[i] == expected[half + i] && batch.target[i] == expected[half + i + 1], "%s: byte %lld",
              paths[0], (long long)(half + i));
  batch_free(&batch);
  dataset_close(dataset);
}

Test(data, files_folders_and_globs_are_read_in_a_fixed_order) {
  mkdir("books", 0755), mkdir("books/m", 0755), mkdir("books/empty", 0755);
  write_text("books/z.txt", "zzzz"), write_text("books/A.txt", "AA"), write_text("books/m/2", "22");
  write_text("books/m/10", "1010"), write_text("books/nothing", ""), write_text("x[1].txt", "bracket!");
  cr_assert(mkfifo("books/pipe", 0644) == 0, "mkfifo");
  assert_text_is((char *[]){"books"}, 1, "AA101022zzzz");
  assert_text_is((char *[]){"books/"}, 1, "AA101022zzzz");
  assert_text_is((char *[]){"books/*.txt"}, 1, "AAzzzz");
  assert_text_is((char *[]){"books/[!A-Zenp]*"}, 1, "101022zzzz");
  assert_text_is((char *[]){"books/z.txt", "books/A.txt"}, 2, "zzzzAA");
  assert_text_is((char *[]){"x[1].txt"}, 1, "bracket!");
}

Test(data, unusable_files_are_refused_by_name) {
  write_text("empty", ""), mkdir("hollow", 0755), mkdir("knot", 0755), mkdir("dangling", 0755);
  cr_assert(symlink("../knot", "knot/again") == 0 && symlink("gone", "dangling/link") == 0, "symlink");
  cr_assert(mkfifo("pipe", 0644) == 0, "mkfifo");
  const struct {
    char path[32], phrase[64];
  } cases[] = {
      {"missing", "missing: cannot read: No such file"},
      {"no/way", "no/way: cannot read"},
      {"empty", "empty: the file is empty"},
      {"hollow", "hollow: no text in this folder"},
      {"pipe", "pipe: not a regular file"},
      {"knot", "knot/again: a symbolic link back"},
      {"/dev/null", "/dev/null: not a regular file"},
      {"dangling", "dangling/link: cannot read: No such file"},
      {"*.xyz", "*.xyz: no file matches"},
      {"emp*", "empty: the file is empty"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    DataConfig config = text_config("byte", 0.5, 0.5, 1);
    char path[32];
    strcpy(path, cases[i].path);
    config.paths = (char *[]){path};
    assert_refused(&config, NULL, CODE_DATA, cases[i].phrase, cases[i].path);
  }
  if (geteuid() != 0) {
    write_text("locked", "text"), chmod("locked", 0);
    DataConfig config = text_config("byte", 0.5, 0.5, 1);
    config.paths = (char *[]){"locked"};
    assert_refused(&config, NULL, CODE_DATA, "locked: cannot read: Permission denied", "locked");
  }
}

Test(data, parts_too_short_for_a_window_are_refused_with_sizes) {
  write_counting_text("text.txt", 0x100, 100);
  DataConfig config = text_config("char", 0.9, 0.1, 10);
  assert_refused(&config, NULL, CODE_DATA, "100 tokens, its validation part 10, expected at least seq_len + 1 = 11",
                 "validation one short");
  config = text_config("char", 0.1, 0.9, 10);
  assert_refused(&config, NULL, CODE_DATA, "its training part 10", "training one short");
  config = text_config("char", 0.89, 0.11, 10);
  dataset_close(open_or_fail(&config, 1, NULL, "validation just long enough"));
  config = text_config("char", 0.9, 0.2, 10);
  assert_refused(&config, NULL, CODE_USAGE, "data.split", "more than the whole");
  config = text_config("char", -0.1, 0.2, 10);
  assert_refused(&config, NULL, CODE_USAGE, "data.split", "less than nothing");
  config = text_config("char", 0.5, 0.5, 0);
  assert_refused(&config, NULL, CODE_USAGE, "data.seq_len", "no window");
  config = text_config("words", 0.5, 0.5, 10);
  assert_refused(&config, NULL, CODE_USAGE, "data.tokenizer: found words", "unknown tokenizer");
}

/* --- tokenizers --------------------------------------------------------------------------------------------------- */

static void assert_round_trip(const Tokenizer *tokenizer, const char *text, size_t bytes, int64_t n_expected,
                              const char *name) {
  int32_t *tokens;
  int64_t n;
  Status status = tokenizer_encode(tokenizer, text, bytes, &tokens, &n);
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

Test(data, bytes_round_trip) {
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

Test(data, characters_round_trip_through_the_json) {
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

Test(data, tokenizer_json_is_as_documented) {
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

Test(data, bad_tokenizer_json_is_refused) {
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

Test(data, invalid_utf8_is_refused_at_its_byte) {
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

Test(data, a_given_vocabulary_is_kept_and_enforced) {
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
  Status status = tokenizer_encode(tokenizer, "abx", 3, &tokens, &n);
  cr_assert(status.code == CODE_DATA && !tokens && strstr(status.line, "byte offset 2: character 'x' (U+0078)"),
            "encode: %s", status.line);
  status_clear(&status);
  tokenizer_free(tokenizer);
}

Test(data, bytes_per_token_counts_the_targets_of_each_part) {
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

static double cpu_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

Test(data, large_texts_open_and_fill_fast) {
  const int64_t n = 4 << 20;
  char *text = malloc((size_t)n);
  for (int64_t i = 0; i < n; i++) text[i] = (char)('a' + i * i % 23);
  write_file("text.txt", text, (size_t)n);
  free(text);
  char *tokenizers[] = {"byte", "char"};
  for (int k = 0; k < 2; k++) {
    double before = cpu_seconds();
    DataConfig config = text_config(tokenizers[k], 0.9, 0.1, 256);
    Dataset *dataset = open_or_fail(&config, 1, NULL, tokenizers[k]);
    double opened = cpu_seconds();
    Batch batch = batch_new(256, 256);
    for (int step = 0; step < 50; step++) dataset_fill(dataset, PART_TRAIN, step * 256, &batch);
    double filled = cpu_seconds();
    /* Ten times what a slow machine needs, sanitizers on: these catch a wrong order of growth. */
    cr_assert(opened - before < 3, "%s: opening 4 MiB took %g s", tokenizers[k], opened - before);
    cr_assert(filled - opened < 3, "%s: filling 3.3 M tokens took %g s", tokenizers[k], filled - opened);
    batch_free(&batch);
    dataset_close(dataset);
  }
}

/* --- synthetic tasks: a recursive-descent parser over the symbols as text, in plain integers ----------------------- */

typedef struct Parser {
  const char *at;
  int depth, deepest;
  bool failed;
} Parser;

static int64_t mod5(int64_t x) { return (x % 5 + 5) % 5; }

static int64_t parse_sum(Parser *p);

static int64_t parse_operand(Parser *p) {
  if (*p->at >= '0' && *p->at <= '4') return *p->at++ - '0';
  if (*p->at++ != '(') return p->failed = true, 0;
  if (++p->depth > p->deepest) p->deepest = p->depth;
  int64_t value = parse_sum(p);
  p->depth--;
  if (*p->at++ != ')') p->failed = true;
  return value;
}

static int64_t parse_product(Parser *p) {
  int64_t value = parse_operand(p);
  while (!p->failed && *p->at == '*') p->at++, value = mod5(value * parse_operand(p));
  return value;
}

static int64_t parse_sum(Parser *p) {
  int64_t value = parse_product(p);
  while (!p->failed && (*p->at == '+' || *p->at == '-')) {
    int sign = *p->at++ == '+' ? 1 : -1;
    value = mod5(value + sign * parse_product(p));
  }
  return value;
}

/* Value of text[0..n), which must be a whole expression. */
static int evaluate(const char *text, int64_t n, int *deepest, const char *name) {
  char copy[512];
  memcpy(copy, text, (size_t)n), copy[n] = '\0';
  Parser p = {.at = copy};
  int64_t value = parse_sum(&p);
  cr_assert(!p.failed && *p.at == '\0', "%s: not an expression: %s", name, copy);
  if (deepest) *deepest = p.deepest;
  return (int)value;
}

static void assert_targets(const char *task, const int32_t *token, const int32_t *target, int64_t length,
                           const char *name) {
  static const char SYMBOL[] = "01234+-*()=";
  char text[512];
  for (int64_t t = 0; t < length; t++) {
    cr_assert(token[t] >= 0 && token[t] < 11, "%s: token %d at %lld", name, token[t], (long long)t);
    text[t] = SYMBOL[token[t]];
  }
  text[length] = '\0';
  for (int64_t t = 0, ones = 0; t < length; t++) {
    int expected = -1;
    if (strcmp(task, "parity") == 0) {
      cr_assert(token[t] <= 1, "%s: token %d", name, token[t]);
      expected = (int)((ones += token[t]) % 2);
    } else if (strcmp(task, "mod_arith") == 0) {
      if (token[t] < 5) expected = evaluate(text, t + 1, NULL, name);
    } else if (t == length - 1) {
      cr_assert(text[t] == '=', "%s: ends in %c", name, text[t]);
      expected = evaluate(text, t, NULL, name);
    }
    cr_assert(target[t] == expected, "%s: %s: target %d at %lld, expected %d", name, text, target[t], (long long)t,
              expected);
  }
}

static const struct {
  char name[24];
  int vocab_size, shortest, stride, n_answers;
} TASKS[] = {{"parity", 2, 1, 1, 2}, {"mod_arith", 8, 1, 2, 5}, {"mod_arith_brackets", 11, 2, 2, 5}};

Test(data, targets_are_what_an_independent_evaluator_finds) {
  for (int k = 0; k < 3; k++) {
    char task[24], name[64];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    Dataset *dataset = open_or_fail(&config, 11, NULL, task);
    double chance = 0;
    cr_assert(dataset_vocab_size(dataset) == TASKS[k].vocab_size, "%s: vocabulary of %d", task,
              dataset_vocab_size(dataset));
    cr_assert(dataset_scores_last(dataset, &chance) && chance == 1.0 / TASKS[k].n_answers, "%s: chance %g", task,
              chance);
    cr_assert(!dataset_tokenizer_json(dataset), "%s: no tokenizer", task);
    cr_assert(dataset_n_samples(dataset, PART_VAL) == 50, "%s: validation samples", task);
    for (int length = TASKS[k].shortest; length <= 160; length += TASKS[k].stride) {
      sprintf(name, "%s of %d", task, length);
      Batch batch = batch_new(20, length);
      dataset_fill(dataset, PART_TRAIN, 1000 * length, &batch);
      for (int s = 0; s < 20; s++)
        assert_targets(task, batch.token + s * length, batch.target + s * length, length, name);
      batch_free(&batch);
    }
    int64_t length = dataset_val_length(dataset, 0);
    cr_assert(length == 256 - (k == 1) && length == dataset_max_length(dataset, PART_VAL), "%s: %lld", task,
              (long long)length);
    Batch batch = batch_new(50, length);
    dataset_fill(dataset, PART_VAL, 0, &batch);
    for (int s = 0; s < 50; s++)
      assert_targets(task, batch.token + s * length, batch.target + s * length, length, "validation");
    batch_free(&batch);
    dataset_close(dataset);
  }
}

Test(data, answers_are_balanced_and_brackets_nest_within_bounds) {
  enum { N = 10000 };
  for (int k = 0; k < 3; k++) {
    char task[24];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    Dataset *dataset = open_or_fail(&config, 5, NULL, task);
    int length = k == 1 ? 63 : 64, count[5] = {0}, deepest = 0, n_nested = 0, symbols[11] = {0};
    Batch batch = batch_new(N, length);
    dataset_fill(dataset, PART_TRAIN, 0, &batch);
    for (int s = 0; s < N; s++) {
      const int32_t *token = batch.token + s * length;
      count[batch.target[s * length + length - 1]]++;
      char text[64];
      for (int t = 0; t < length; t++) symbols[token[t]]++, text[t] = "01234+-*()="[token[t]];
      if (k < 2) continue;
      int depth = 0;
      evaluate(text, length - 1, &depth, task);
      if (depth > deepest) deepest = depth;
      n_nested += depth >= 2;
    }
    double share = 1.0 / TASKS[k].n_answers, sigma = sqrt(share * (1 - share) / N);
    for (int a = 0; a < TASKS[k].n_answers; a++)
      cr_assert(fabs((double)count[a] / N - share) < 4.5 * sigma, "%s: answer %d in %d of %d", task, a, count[a], N);
    for (int i = 0; i < TASKS[k].vocab_size; i++) cr_assert(symbols[i] > N / 2, "%s: symbol %d is rare", task, i);
    if (k == 2) cr_assert(deepest <= 8 && deepest >= 6 && n_nested > N / 2, "deepest %d, nested %d", deepest, n_nested);
    batch_free(&batch);
    dataset_close(dataset);
  }
}

Test(data, training_lengths_follow_the_curriculum) {
  for (int k = 0; k < 3; k++) {
    char task[24];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    Dataset *dataset = open_or_fail(&config, 5, NULL, task);
    int64_t longest_early = 0, longest = 0, shortest = INT64_MAX;
    for (int64_t step = 0; step < 20000; step++) {
      int64_t length = dataset_train_length(dataset, step);
      int64_t allowed = step < 100 ? 40 + 120 * step / 100 : 160;
      cr_assert((length - TASKS[k].shortest) % TASKS[k].stride == 0, "%s: step %lld: length %lld cannot be made", task,
                (long long)step, (long long)length);
      cr_assert(length >= 3 - (k == 2) && length <= allowed, "%s: step %lld: length %lld of %lld", task,
                (long long)step, (long long)length, (long long)allowed);
      if (step < 10) longest_early = max_i64(longest_early, length);
      longest = max_i64(longest, length), shortest = min_i64(shortest, length);
    }
    cr_assert(longest_early <= 50, "%s: %lld in the first steps", task, (long long)longest_early);
    cr_assert(longest == dataset_max_length(dataset, PART_TRAIN) && longest == 160 - (k == 1), "%s: longest %lld", task,
              (long long)longest);
    cr_assert(shortest == 3 - (k == 2), "%s: shortest %lld", task, (long long)shortest);
    dataset_close(dataset);
    config.curriculum_steps = 0, config.start_max_length = 0;
    dataset = open_or_fail(&config, 5, NULL, task);
    for (int64_t step = 0; step < 200; step++)
      longest_early = max_i64(longest_early, dataset_train_length(dataset, step));
    cr_assert(longest_early > 100, "%s: no curriculum, yet only %lld", task, (long long)longest_early);
    dataset_close(dataset);
  }
}

Test(data, synthetic_parts_seeds_and_indices_draw_apart) {
  for (int k = 0; k < 3; k++) {
    char task[24];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    config.eval_length = 100; /* as long as a training sequence, so that they could be alike */
    Dataset *dataset = open_or_fail(&config, 5, NULL, task), *other = open_or_fail(&config, 6, NULL, task);
    int64_t length = dataset_val_length(dataset, 0);
    Batch train = batch_new(50, length), val = batch_new(50, length), seed = batch_new(50, length);
    dataset_fill(dataset, PART_TRAIN, 0, &train);
    dataset_fill(dataset, PART_VAL, 0, &val);
    dataset_fill(other, PART_TRAIN, 0, &seed);
    const size_t row = sizeof(int32_t) * (size_t)length;
    for (int a = 0; a < 50; a++)
      for (int b = 0; b < 50; b++) {
        const int32_t *sample = train.token + a * length;
        cr_assert(memcmp(sample, val.token + b * length, row), "%s: training %d is validation %d", task, a, b);
        cr_assert(memcmp(sample, seed.token + b * length, row), "%s: %d is %d of another seed", task, a, b);
        cr_assert(a == b || memcmp(sample, train.token + b * length, row), "%s: %d is %d", task, a, b);
      }
    batch_free(&train), batch_free(&val), batch_free(&seed);
    dataset_close(dataset), dataset_close(other);
  }
}

Test(data, impossible_synthetic_configs_are_refused_by_key) {
  DataConfig good = task_config("mod_arith_brackets"), bad;
  dataset_close(open_or_fail(&good, 1, NULL, "good"));
#define REFUSED(key, field, value)                                                                                     \
  bad = good, bad.field = value, assert_refused(&bad, NULL, CODE_USAGE, "data." key ": found ", #field " = " #value)
  REFUSED("task", task, "sorting");
  REFUSED("max_length", max_length, 257);
  REFUSED("max_length", max_length, 1);
  REFUSED("min_length", min_length, 1);
  REFUSED("min_length", min_length, 161);
  REFUSED("start_max_length", start_max_length, 2);
  REFUSED("start_max_length", start_max_length, 161);
  REFUSED("curriculum_steps", curriculum_steps, -1);
  REFUSED("eval_length", eval_length, 1);
  REFUSED("eval_sequences", eval_sequences, 0);
#undef REFUSED
}
