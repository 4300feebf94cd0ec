/* shards: prepared in blocks by any number of threads or in two goes they are the tokens of the whole text; a mixture takes every
 * sample once an epoch and each folder by its weight; what does not fit together is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/shards.h"
#include "data/tokenizer.h"
#include "tensor/rng.h"
#include "tests/support/dataset.h"
#include "tests/support/store.h"

TestSuite(shards, .init = workplace_enter, .fini = workplace_leave, .timeout = 120);

static char *paths[1];

static Tokenizer *open_gpt2(void) {
  Tokenizer *tokenizer = NULL;
  store_ok(tokenizer_read(ASPIS_SOURCE_DIR "/tests/tokenizers/gpt2.json", &tokenizer), "gpt2");
  return tokenizer;
}

static PrepareOptions options_of(char *text, const Tokenizer *tokenizer, const char *out) {
  paths[0] = text;
  return (PrepareOptions){.paths = paths,
                          .n_paths = 1,
                          .tokenizer = tokenizer,
                          .out = out,
                          .end_token = -1,
                          .shard_bytes = 20000,
                          .block_bytes = 3000};
}

static void prepare(const PrepareOptions *options, const char *name) {
  Shards shards;
  store_ok(shards_prepare(options, &shards), name);
  shards_close(&shards);
}

/* The sources of data/ as one text. */
static char *make_text(size_t *bytes) {
  char *text = base_alloc(1 << 20);
  *bytes = 0;
  static const char *const FILES[] = {"bpe.c", "text.c", "csv.c", "bpe_json.c"};
  for (int i = 0; i < 4; i++) {
    char *path = base_format("%s/data/%s", ASPIS_SOURCE_DIR, FILES[i]);
    FILE *file = fopen(path, "rb");
    cr_assert(file, "%s", path);
    *bytes += fread(text + *bytes, 1, (1 << 20) - *bytes, file);
    fclose(file);
    free(path);
  }
  cr_assert(*bytes > 40000 && *bytes < 1 << 20, "%zu bytes", *bytes);
  return text;
}

Test(shards, blocks_give_the_tokens_of_the_whole) {
  size_t bytes;
  char *text = make_text(&bytes);
  write_file("text.txt", text, bytes);
  Tokenizer *tokenizer = open_gpt2();
  int32_t *tokens;
  int64_t n;
  store_ok(tokenizer_encode(tokenizer, "text", text, bytes, &tokens, &n), "whole");
  for (int threads = 1; threads <= 3; threads += 2) {
    omp_set_num_threads(threads);
    PrepareOptions options = options_of("text.txt", tokenizer, threads == 1 ? "one" : "three");
    prepare(&options, "prepare");
    Shards shards;
    store_ok(shards_open(options.out, true, &shards), "open");
    cr_assert(shards.n_tokens == n && shards.n_files > 2 && shards.width == 2 && shards.n_documents == 1,
              "%lld tokens, %d files", (long long)shards.n_tokens, shards.n_files);
    cr_assert(shards.n_text_bytes == (int64_t)bytes, "%lld bytes", (long long)shards.n_text_bytes);
    int32_t *read = base_alloc((size_t)n * sizeof *read);
    for (int64_t at = 0; at < n; at += 997) shards_copy(&shards, at, min_i64(997, n - at), read + at);
    cr_assert(memcmp(read, tokens, (size_t)n * sizeof *read) == 0, "%d threads: other tokens", threads);
    free(read);
    shards_close(&shards);
  }
  cr_assert(system("diff -r one three") == 0, "threads change the files");
  free(tokens), free(text);
  tokenizer_free(tokenizer);
}

Test(shards, what_was_stopped_goes_on_to_the_same_files) {
  size_t bytes;
  char *text = make_text(&bytes);
  write_file("text.txt", text, bytes);
  free(text);
  Tokenizer *tokenizer = open_gpt2();
  PrepareOptions options = options_of("text.txt", tokenizer, "whole");
  prepare(&options, "whole");
  options.out = "parts", options.stop_after = 1;
  prepare(&options, "the first");
  Shards shards;
  store_expect(shards_open("parts", true, &shards), CODE_DATA, "parts: not finished: run the same aspis prepare again",
               "half");
  write_text("parts/shard-00001.bin.tmp", "what a killed one leaves");
  options.end_token = 0;
  store_expect(shards_prepare(&options, &shards), CODE_USAGE, "was begun with other texts, options", "other options");
  options.end_token = -1, options.stop_after = 0;
  prepare(&options, "the rest");
  cr_assert(system("diff -r whole parts") == 0, "not the same files");
  store_expect(shards_prepare(&options, &shards), CODE_USAGE, "parts: is finished: give another folder, or --force",
               "again");
  options.force = true;
  prepare(&options, "anew");
  cr_assert(system("diff -r whole parts") == 0, "not the same files");
  tokenizer_free(tokenizer);
}

Test(shards, documents_end_where_they_are_said_to) {
  write_text("text.txt", "one<end>two words<end><end>the last");
  Tokenizer *tokenizer = open_gpt2();
  PrepareOptions options = options_of("text.txt", tokenizer, "out");
  options.document_end = "<end>", options.end_token = 0;
  Shards shards;
  store_ok(shards_prepare(&options, &shards), "prepare");
  cr_assert(shards.n_documents == 4, "%lld documents", (long long)shards.n_documents);
  shards_close(&shards);
  store_ok(shards_open("out", true, &shards), "open");
  int n_ends = 0;
  for (int64_t t = 0; t < shards.n_tokens; t++) {
    int32_t token;
    shards_copy(&shards, t, 1, &token);
    n_ends += token == 0;
  }
  cr_assert(n_ends == 4, "%d end tokens", n_ends);
  shards_close(&shards);
  tokenizer_free(tokenizer);
}

/* Folders of bytes that say where they are: records of 4 bytes, 128 + folder and then the record's number in three times 7 bits. */
static void make_telling(const char *out, int s, int n) {
  char *text = base_alloc((size_t)n);
  for (int t = 0; t < n; t++) text[t] = (char)(t % 4 == 0 ? 128 + s : t / 4 >> 7 * (3 - t % 4) & 127);
  write_file("telling.bin", text, (size_t)n);
  free(text);
  Tokenizer *tokenizer = tokenizer_new_byte();
  PrepareOptions options = options_of("telling.bin", tokenizer, out);
  prepare(&options, out);
  tokenizer_free(tokenizer);
}

static int64_t place_of(const int32_t *token, int *s) {
  int t = 0;
  while (token[t] < 128) t++;
  *s = token[t] - 128;
  return (int64_t)(token[t + 1] << 14 | token[t + 2] << 7 | token[t + 3]) * 4 - t;
}

static char *folders[] = {"a", "b"};

enum { L = 16, TRAIN_A = 24000, TRAIN_B = 7200 };

static DataConfig folders_config(void) {
  return (DataConfig){.kind = DATA_SHARDS,
                      .shards = folders,
                      .n_shards = 2,
                      .weights = {3, 1},
                      .n_weights = 2,
                      .split_train = 0.8,
                      .split_val = 0.2,
                      .seq_len = L};
}

static DataConfig mix_config(void) {
  make_telling("a", 0, 30000), make_telling("b", 1, 9000);
  return folders_config();
}

Test(shards, a_mixture_takes_every_window_once_in_every_epoch_of_its_folder) {
  DataConfig config = mix_config();
  Dataset *dataset = open_or_fail(&config, 7, NULL, "mix");
  const int64_t n_windows[2] = {TRAIN_A / L - 1, TRAIN_B / L - 1};
  cr_assert(dataset_n_samples(dataset, PART_TRAIN) == n_windows[0] + n_windows[1], "an epoch");
  Batch batch = batch_new(1, L);
  uint8_t *seen[2] = {base_zalloc(TRAIN_A), base_zalloc(TRAIN_B)};
  int64_t taken[2] = {0}, residue[2] = {-1, -1}, n_epochs = 0;
  for (int64_t i = 0; i < 5 * 4096; i++) {
    int s, next;
    dataset_fill(dataset, PART_TRAIN, i, &batch);
    const int64_t place = place_of(batch.token, &s);
    cr_assert(place >= 0 && place + L < (s ? TRAIN_B : TRAIN_A), "sample %lld is of the validation part", (long long)i);
    cr_assert(place_of(batch.target, &next) == place + 1 && next == s, "sample %lld: targets", (long long)i);
    if (taken[s] % n_windows[s] == 0) {
      memset(seen[s], 0, s ? TRAIN_B : TRAIN_A);
      residue[s] = place % L;
      n_epochs++;
    }
    cr_assert(place % L == residue[s] && !seen[s][place], "sample %lld: place %lld of folder %d comes again",
              (long long)i, (long long)place, s);
    seen[s][place] = 1;
    taken[s]++;
    if (i % 4096 == 4095)
      cr_assert(taken[0] == 3 * taken[1], "%lld and %lld", (long long)taken[0], (long long)taken[1]);
  }
  cr_assert(n_epochs > 20, "%lld epochs", (long long)n_epochs);
  free(seen[0]), free(seen[1]);
  batch_free(&batch);
  dataset_close(dataset);
}

Test(shards, a_sample_is_a_function_of_its_number) {
  DataConfig config = mix_config();
  assert_pure(&config, PART_TRAIN, L, "train");
  assert_pure(&config, PART_VAL, L, "val");
}

Test(shards, validation_covers_every_target_once) {
  DataConfig config = mix_config();
  Dataset *dataset = open_or_fail(&config, 7, NULL, "mix");
  const int64_t n = dataset_n_samples(dataset, PART_VAL);
  Batch batch = batch_new(n, L);
  dataset_fill(dataset, PART_VAL, 0, &batch);
  int64_t n_targets = 0;
  for (int64_t i = 0; i < n * L; i++) n_targets += batch.target[i] >= 0;
  cr_assert(n_targets == 6000 - 1 + 1800 - 1, "%lld targets", (long long)n_targets);
  cr_assert(dataset_bytes_per_token(dataset, PART_VAL) == 1, "%g", dataset_bytes_per_token(dataset, PART_VAL));
  batch_free(&batch);
  dataset_close(dataset);
}

/* ---- documents and rows */

enum { N_SENTENCES = 6000, ROWS = 4 };

/* Letters and, at every eighth place or so, full stops: the same as one text and as a folder of many small shards. */
static void make_sentences(char *out, uint64_t seed) {
  char *text = base_alloc(N_SENTENCES);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int i = 0; i < N_SENTENCES; i++) text[i] = rng_below(&rng, 8) ? (char)('a' + rng_below(&rng, 26)) : '.';
  char *path = base_format("%s.txt", out);
  write_file(path, text, N_SENTENCES);
  Tokenizer *tokenizer = tokenizer_new_byte();
  PrepareOptions options = options_of(path, tokenizer, out);
  options.force = true, options.document_end = ".", options.shard_bytes = 700, options.block_bytes = 100;
  prepare(&options, out);
  tokenizer_free(tokenizer);
  free(path), free(text);
}

static DataConfig sentences_config(bool pack, bool rows) {
  make_sentences("a", 1), make_sentences("b", 2);
  folders[1] = "b";
  DataConfig config = folders_config();
  config.pack = pack, config.tbptt_segment = rows ? L : 0, config.tbptt_rows = ROWS;
  return config;
}

Test(shards, one_folder_is_its_text_packed_or_not_in_rows_or_not) {
  for (int pack = 0; pack < 2; pack++)
    for (int rows = 0; rows < 2; rows++) {
      DataConfig config = sentences_config(pack, rows), of_text = text_config("byte", 0.8, 0.2, L);
      config.n_shards = 1, config.n_weights = 0;
      of_text.pack = pack, of_text.document_end = pack ? "." : NULL;
      of_text.tbptt_segment = config.tbptt_segment, of_text.tbptt_rows = ROWS;
      char *path = base_strdup("a.txt");
      of_text.paths = &path;
      Dataset *shards = open_or_fail(&config, 7, NULL, "shards"),
              *text = open_or_fail(&of_text, 7 + 0x9E3779B97F4A7C15u, NULL, "text"); /* the first folder's draws */
      for (DataPart part = PART_TRAIN; part <= PART_VAL; part++) {
        const int64_t n = dataset_n_samples(text, part);
        cr_assert(dataset_n_samples(shards, part) == n && dataset_n_rows(shards, part) == dataset_n_rows(text, part) &&
                      dataset_max_pieces(shards, part) == dataset_max_pieces(text, part) &&
                      dataset_bytes_per_token(shards, part) == dataset_bytes_per_token(text, part),
                  "pack %d, rows %d, part %d: facts", pack, rows, (int)part);
        for (int64_t i = 0; i < (part == PART_TRAIN ? 3 * n : n); i++) {
          const Sample found = sample_of(shards, part, i, L), expected = sample_of(text, part, i, L);
          cr_assert(memcmp(&found, &expected, sizeof found) == 0, "pack %d, rows %d, part %d: sample %lld", pack, rows,
                    (int)part, (long long)i);
        }
      }
      dataset_close(shards), dataset_close(text);
      free(path);
    }
}

Test(shards, rows_of_a_batch_stay_with_their_folder_and_go_on_in_it) {
  for (int pack = 0; pack < 2; pack++) {
    DataConfig config = sentences_config(pack, true);
    Dataset *dataset = open_or_fail(&config, 7, NULL, "rows");
    const int64_t n_steps = (int64_t)(0.8 * N_SENTENCES - 1) / (3 * L); /* of the folder with most rows */
    cr_assert(dataset_n_rows(dataset, PART_TRAIN) == ROWS && dataset_n_rows(dataset, PART_VAL) == 1, "rows");
    int64_t n_on = 0;
    for (int64_t i = ROWS; i < n_steps * ROWS; i++) {
      const Sample row = sample_of(dataset, PART_TRAIN, i, L), before = sample_of(dataset, PART_TRAIN, i - ROWS, L);
      const int32_t next = before.target[L - 1];
      n_on += row.goes_on;
      cr_assert(pack ? row.goes_on == (next != -1) : row.goes_on, "pack %d, sample %lld: goes_on %d behind target %d",
                pack, (long long)i, row.goes_on, next);
      cr_assert(!row.goes_on || next == row.token[0], "pack %d, sample %lld begins with %d, expected %d", pack,
                (long long)i, row.token[0], next);
    }
    cr_assert(n_on > n_steps * ROWS / 2, "%lld samples go on", (long long)n_on);
    const int64_t n_val = dataset_n_samples(dataset, PART_VAL);
    int n_starts = 0;
    for (int64_t i = 0; i < n_val; i++) n_starts += !sample_of(dataset, PART_VAL, i, L).goes_on;
    cr_assert(pack ? n_starts > 2 : n_starts == 2, "pack %d: %d of %lld validation rows start anew", pack, n_starts,
              (long long)n_val);
    dataset_close(dataset);
  }
}

/* What data.special_tokens and prepare --special-tokens promise: each document as add_special_tokens has it. */
static void append_document(const Tokenizer *tokenizer, const char *text, size_t bytes, TokenRow *row) {
  const TokenTemplate around = tokenizer_template(tokenizer);
  for (int i = 0; i < around.n_before; i++) token_row_add(row, (uint32_t)around.before[i]);
  store_ok(tokenizer_encode_to(tokenizer, "document", text, bytes, row), "document");
  for (int i = 0; i < around.n_behind; i++) token_row_add(row, (uint32_t)around.behind[i]);
}

/* The documents of the sources of data/, most of them longer than a block, and of two files. */
static void documents_of(const Tokenizer *tokenizer, const char *end, TokenRow *row) {
  size_t bytes;
  char *text = make_text(&bytes);
  write_file("1.txt", text, bytes), write_text("2.txt", "a file that no mark ends");
  for (size_t at = 0, next; at < bytes; at = next) {
    const char *found = memmem(text + at, bytes - at, end, strlen(end));
    next = found ? (size_t)(found - text) + strlen(end) : bytes;
    append_document(tokenizer, text + at, next - at, row);
  }
  append_document(tokenizer, "a file that no mark ends", 24, row);
  free(text);
}

static Tokenizer *open_tokenizer(const char *kind) {
  Tokenizer *tokenizer = NULL;
  char *path = base_format("%s/tests/tokenizers/%s.json", ASPIS_SOURCE_DIR, kind);
  store_ok(tokenizer_read(path, &tokenizer), kind);
  free(path);
  return tokenizer;
}

Test(shards, documents_stand_within_what_the_tokenizer_puts_around_a_text) {
  static const char *const KINDS[] = {"gpt2", "llama3",
                                      "mistral"}; /* with nothing, something before, and on both sides */
  char *both[] = {"1.txt", "2.txt"};
  for (int k = 0; k < 3; k++) {
    const char *kind = KINDS[k];
    Tokenizer *tokenizer = open_tokenizer(kind);
    TokenRow want = {.width = 4};
    documents_of(tokenizer, "\n\n", &want);
    PrepareOptions options = options_of("1.txt", tokenizer, kind);
    options.paths = both, options.n_paths = 2;
    options.document_end = "\n\n", options.special_tokens = true, options.block_bytes = 100, options.shard_bytes = 2000;
    for (options.stop_after = 1; access("stop", F_OK) != 0;
         options.stop_after++) { /* begun anew where a document is cut */
      Shards some;
      store_ok(shards_prepare(&options, &some), kind);
      if (some.complete) write_text("stop", "");
      shards_close(&some);
    }
    unlink("stop");
    Shards shards;
    store_ok(shards_open(kind, true, &shards), kind);
    cr_assert(shards.special_tokens && shards.n_files > 3, "%s: %d files", kind, shards.n_files);
    cr_assert(shards.n_tokens == want.n, "%s: %lld tokens, expected %lld", kind, (long long)shards.n_tokens,
              (long long)want.n);
    for (int64_t t = 0; t < want.n; t++) {
      int32_t token;
      shards_copy(&shards, t, 1, &token);
      cr_assert(token == (int32_t)token_row_get(&want, t), "%s: token %lld is %d, expected %u", kind, (long long)t,
                token, token_row_get(&want, t));
    }
    shards_close(&shards);

    /* The same as texts; and of neither's bytes do tokens that are no text count. */
    char *name = base_format("%s/tests/tokenizers/%s.json", ASPIS_SOURCE_DIR, kind);
    DataConfig of_text = text_config(name, 0.8, 0.2, L), of_shards = of_text;
    of_text.paths = both, of_text.n_paths = 2, of_text.pack = true, of_text.document_end = "\n\n";
    of_text.special_tokens = true;
    folders[0] = (char *)(uintptr_t)kind;
    of_shards.kind = DATA_SHARDS, of_shards.shards = folders, of_shards.n_shards = 1, of_shards.pack = true;
    assert_refused(&of_shards, NULL, CODE_DATA,
                   "was prepared with --special-tokens, expected data.special_tokens: true", kind);
    of_shards.special_tokens = true;
    Dataset *text = open_or_fail(&of_text, 7, NULL, "text"), *folder = open_or_fail(&of_shards, 7, NULL, "shards");
    const int64_t n = dataset_n_samples(text, PART_VAL);
    cr_assert(n > 10 && dataset_n_samples(folder, PART_VAL) == n, "%s: %lld samples", kind, (long long)n);
    for (int64_t i = 0; i < n; i++) {
      const Sample found = sample_of(folder, PART_VAL, i, L), expected = sample_of(text, PART_VAL, i, L);
      cr_assert(memcmp(&found, &expected, sizeof found) == 0, "%s: sample %lld", kind, (long long)i);
    }
    const double bytes = dataset_bytes_per_token(text, PART_TRAIN), all = dataset_bytes_per_token(folder, PART_TRAIN);
    cr_assert(dataset_bytes_per_token(folder, PART_VAL) == dataset_bytes_per_token(text, PART_VAL), "%s: bytes", kind);
    cr_assert(fabs(bytes - all) < 0.1 * all, "%s: %g bytes a token, expected about %g", kind, bytes, all);
    dataset_close(text), dataset_close(folder);
    free(name), free(want.token);
    tokenizer_free(tokenizer);
  }
  folders[0] = "a";
}

Test(shards, documents_that_cannot_be_told_are_refused) {
  DataConfig config = sentences_config(true, true);
  config.tbptt_rows = 1;
  assert_refused(&config, NULL, CODE_USAGE, "b has less than a row of a batch (train.batch_size) in 1", "one row");
  config.tbptt_rows = 1000;
  assert_refused(&config, NULL, CODE_DATA, "a: has a training part of 4800 tokens, expected at least its 750 of train.",
                 "short");
  config.tbptt_rows = ROWS;
  size_t bytes;
  char *data = store_read("b/shard-00001.ends", &bytes);
  data[0] ^= 1;
  store_write("b/shard-00001.ends", data, bytes);
  assert_refused(&config, NULL, CODE_DATA, "b/shard-00001.ends: damaged", "bit");
  store_write("b/shard-00001.ends", data, bytes - 8);
  assert_refused(&config, NULL, CODE_DATA, "b/shard-00001.ends: found ", "cut");
  free(data);
  cr_assert(system("sed -i 's/\"documents\": [0-9]*,//' b/manifest.json && sed -i "
                   "'0,/\"format\"/s/\"format\"/\"documents\": 9, \"format\"/' b/manifest.json") == 0,
            "sed");
  assert_refused(&config, NULL, CODE_DATA, "b: does not say where its documents end", "earlier version");
}

Test(shards, what_does_not_fit_together_is_refused) {
  DataConfig config = mix_config();
  config.weights[1] = 1e-9;
  assert_refused(&config, NULL, CODE_USAGE, "data.weights: b has less than a sample in 4096", "tiny weight");
  config.n_weights = 1;
  assert_refused(&config, NULL, CODE_USAGE, "data.weights: found 1, expected one for each of the 2", "weights");
  config.n_weights = 0;
  assert_refused(&config, "{\"kind\":\"char\",\"vocab\":[\"a\"]}", CODE_DATA,
                 "was made with another tokenizer than the model", "model's");
  config.seq_len = 1800;
  assert_refused(&config, NULL, CODE_DATA,
                 "b: has 9000 tokens, its validation part 1800, expected at least seq_len + 1", "short");
  config.seq_len = L;
  write_text("b/shard-00000.bin", "damaged");
  assert_refused(&config, NULL, CODE_DATA, "b/shard-00000.bin: found 7 bytes, expected", "cut");
  make_telling("c", 2, 9000);
  size_t bytes;
  char *data = store_read("c/shard-00000.bin", &bytes);
  data[100] ^= 1;
  store_write("c/shard-00000.bin", data, bytes);
  free(data);
  folders[1] = "c";
  assert_refused(&config, NULL, CODE_DATA, "c/shard-00000.bin: damaged", "bit");
  folders[1] = "d";
  assert_refused(&config, NULL, CODE_DATA, "d/manifest.json: not a folder of shards", "absent");
  static const struct {
    const char *manifest, *phrase;
  } CASES[] = {{"{", "not a folder of shards"},
               {"{}", "format: expected a number"},
               {"{\"format\": 9}", "format: found 9, this version reads up to 1"},
               {"{\"format\": 1, \"width\": 3}", "width: expected 2 or 4"}};
  folders[1] = "c";
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    write_text("c/manifest.json", CASES[i].manifest);
    assert_refused(&config, NULL, CODE_DATA, CASES[i].phrase, CASES[i].manifest);
  }
}
