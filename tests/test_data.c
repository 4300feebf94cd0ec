/* data: files and windows of text datasets, held to definitions written anew here. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/dataset.h"

TestSuite(data, .init = workplace_enter, .fini = workplace_leave);

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

/* --- windows ------------------------------------------------------------------------------------------------------ */

/* first_code and n reach each width in which tokens are kept: 1, 2 and 4 bytes. */
static const struct {
  uint32_t first_code;
  int64_t n;
  double train, val;
  int seq_len;
} WINDOWS[] = {
    {0x21, 94, 0.9, 0.1, 1},        {0x100, 300, 0.5, 0.5, 7},     {0x100, 256, 0.8, 0.1, 8},
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
    cr_assert(dataset_max_length(dataset, PART_VAL) == length, "%s: lengths", name);
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

Test(data, samples_are_pure_functions_of_their_index) {
  write_counting_text("text.txt", 0x4E00, 1500);
  DataConfig config = text_config("char", 0.5, 0.5, 15);
  assert_pure(&config, PART_TRAIN, 15, "training");
  assert_pure(&config, PART_VAL, 15, "validation");
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
      {"pipe", "pipe: found a pipe or a device, expected a regular file"},
      {"knot", "knot/again: a symbolic link back"},
      {"/dev/null", "/dev/null: found a pipe or a device, expected a regular file"},
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

/* --- packed documents --------------------------------------------------------------------------------------------- */

enum { PACK_LENGTH = 11 };

/* Sentences of 1 to 17 letters and a full stop, as documents; character i of sentence d tells d and i apart. */
static Dataset *open_packed(uint64_t seed, const char *name) {
  FILE *file = fopen("docs.txt", "w");
  for (int d = 0; d < 60; d++) {
    for (int i = 0; i < d * 7 % 17; i++) fputc('a' + (d + i) % 26, file);
    fputc('.', file);
  }
  fclose(file);
  DataConfig config = text_config("byte", 0.7, 0.3, PACK_LENGTH);
  static char *paths[] = {"docs.txt"};
  config.paths = paths, config.n_paths = 1;
  config.pack = true, config.document_end = ".";
  return open_or_fail(&config, seed, NULL, name);
}

Test(data, packed_rows_hold_every_document_of_an_epoch_once_and_no_target_beyond_it) {
  Dataset *dataset = open_packed(4, "packed");
  const int64_t n = dataset_n_samples(dataset, PART_TRAIN), most = dataset_max_pieces(dataset, PART_TRAIN);
  char *text[3];
  for (int epoch = 0; epoch < 3; epoch++) {
    text[epoch] = calloc((size_t)(n * PACK_LENGTH + 1), 1);
    int n_cut = 0;
    for (int64_t r = 0; r < n; r++) {
      int32_t token[PACK_LENGTH], target[PACK_LENGTH];
      uint8_t begins[PACK_LENGTH];
      Batch row = {.n_seq = 1, .length = PACK_LENGTH, .token = token, .target = target, .begins = begins};
      dataset_fill(dataset, PART_TRAIN, epoch * n + r, &row);
      int64_t pieces = 0;
      for (int t = 0; t < PACK_LENGTH; t++) {
        pieces += begins[t];
        text[epoch][r * PACK_LENGTH + t] = (char)token[t];
        const bool ends = token[t] == '.';
        const bool cut = !ends && target[t] == -1; /* the document that the part's border cuts */
        n_cut += cut;
        cr_assert_eq(begins[t], t == 0 || target[t - 1] == -1, "epoch %d, row %d, token %d: begins %d", epoch, (int)r,
                     t, begins[t]);
        cr_assert(!ends || target[t] == -1, "epoch %d, row %d, token %d: target %d behind %c", epoch, (int)r, t,
                  target[t], token[t]);
        if (!ends && !cut && t + 1 < PACK_LENGTH)
          cr_assert_eq(target[t], token[t + 1], "epoch %d, row %d: target %d", epoch, (int)r, t);
      }
      cr_assert_leq(pieces, most, "row %d: %d pieces, at most %d told", (int)r, (int)pieces, (int)most);
    }
    cr_assert_leq(n_cut, 1, "epoch %d: %d documents end without their end", epoch, n_cut);
    int stops = 0;
    for (const char *at = text[epoch]; *at; at++) stops += *at == '.';
    cr_assert(stops >= 30 && strlen(text[epoch]) == (size_t)(n * PACK_LENGTH), "epoch %d: %d documents", epoch, stops);
  }
  cr_assert_neq(strcmp(text[0], text[1]), 0, "two epochs have one order");
  for (int epoch = 0; epoch < 3; epoch++) free(text[epoch]);
  dataset_close(dataset);
}

Test(data, packed_validation_rows_are_the_text_in_order) {
  Dataset *dataset = open_packed(4, "packed");
  const int64_t n = dataset_n_samples(dataset, PART_VAL);
  int64_t n_targets = 0, n_stops = 0, at = 0;
  char text[1024] = {0};
  for (int64_t r = 0; r < n; r++) {
    int32_t token[PACK_LENGTH], target[PACK_LENGTH];
    Batch row = {.n_seq = 1, .length = PACK_LENGTH, .token = token, .target = target};
    dataset_fill(dataset, PART_VAL, r, &row);
    for (int t = 0; t < PACK_LENGTH; t++) {
      if (token[t]) text[at++] = (char)token[t];
      n_stops += token[t] == '.', n_targets += target[t] != -1;
    }
  }
  FILE *file = fopen("docs.txt", "r");
  char whole[1024] = {0};
  const size_t bytes = fread(whole, 1, sizeof whole - 1, file);
  fclose(file);
  cr_assert_str_eq(text, whole + bytes - (size_t)at, "validation part");
  cr_assert_eq(n_targets, at - n_stops, "%d targets of %d tokens in %d documents", (int)n_targets, (int)at,
               (int)n_stops);
  dataset_close(dataset);
}

Test(data, a_packed_sample_does_not_depend_on_those_before_it) {
  Dataset *a = open_packed(4, "a"), *b = open_packed(4, "b");
  const int64_t n = dataset_n_samples(a, PART_TRAIN);
  for (int64_t i = 3 * n - 1; i >= 0; i -= 5) {
    int32_t token[2][PACK_LENGTH], target[2][PACK_LENGTH];
    for (int k = 0; k < 2; k++) {
      Batch row = {.n_seq = 1, .length = PACK_LENGTH, .token = token[k], .target = target[k]};
      if (k == 1) dataset_fill(b, PART_TRAIN, (i * 7) % (3 * n), &row);
      dataset_fill(k ? b : a, PART_TRAIN, i, &row);
    }
    cr_assert_arr_eq(token[0], token[1], sizeof token[0], "sample %d", (int)i);
    cr_assert_arr_eq(target[0], target[1], sizeof target[0], "targets of sample %d", (int)i);
  }
  dataset_close(a), dataset_close(b);
}
