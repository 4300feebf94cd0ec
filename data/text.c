/* text: windows over one long row of tokens.
 *
 * The tokens are cut by position: the first split_train of them are the training part, the next split_val the
 * validation part. With P the part, n_t its tokens and L = seq_len:
 *   validation  window w: token[t] = P[w L + t], target[t] = P[w L + t + 1]; ceil((n_t - 1) / L) windows cover every
 *               target once, the last one padded with token 0 and target -1.
 *   training    sample i: epoch e = i / n, window j = permute_e(i mod n), token[t] = P[offset_e + j L + t] and the same
 *               target; n windows fit behind every offset_e in [0, L), so each epoch cuts the text elsewhere. (In a
 *               part shorter than 2 L, n = 1 and the offsets are those that fit.)
 *
 * Tokens are kept in the narrowest integers that hold the vocabulary: a byte of text costs a byte of memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/files.h"
#include "data/kind.h"
#include "data/tokenizer.h"
#include "tensor/rng.h"

typedef struct Text {
  Dataset base;
  Tokenizer *tokenizer;
  char *json;
  void *tokens; /* unsigned integers of `width` bytes */
  int width;
  int64_t n_tokens;
  struct {
    int64_t first, n;
  } part[2]; /* by DataPart, in tokens */
  int64_t seq_len, n_offsets;
} Text;

static void copy_tokens(const Text *text, int64_t first, int64_t n, int32_t *to) {
  switch (text->width) {
  case 1:
    for (int64_t i = 0; i < n; i++) to[i] = ((const uint8_t *)text->tokens)[first + i];
    break;
  case 2:
    for (int64_t i = 0; i < n; i++) to[i] = ((const uint16_t *)text->tokens)[first + i];
    break;
  default: memcpy(to, (const int32_t *)text->tokens + first, sizeof *to * (size_t)n); break;
  }
}

static int64_t train_window(const Text *text, int64_t index) {
  const int64_t n = text->base.n_samples[PART_TRAIN];
  const uint32_t epoch = (uint32_t)(index / n);
  Rng rng = rng_make(text->base.seed, RNG_SHUFFLE, epoch, 0);
  int64_t offset = rng_below(&rng, (uint32_t)text->n_offsets);
  return offset +
         text->seq_len * (int64_t)rng_permute(text->base.seed, RNG_SHUFFLE, epoch, (uint64_t)n, (uint64_t)(index % n));
}

static void text_sample(const Dataset *dataset, DataPart part, int64_t index, const Batch *sample) {
  const Text *text = (const Text *)dataset;
  const int64_t length = sample->length;
  CHECK(length == text->seq_len, "windows of %lld tokens, batch of %lld", (long long)text->seq_len, (long long)length);
  int64_t at = part == PART_TRAIN ? train_window(text, index) : index * length;
  int64_t n = min_i64(length, text->part[part].n - 1 - at);
  copy_tokens(text, text->part[part].first + at, n, sample->token);
  copy_tokens(text, text->part[part].first + at + 1, n, sample->target);
  for (int64_t t = n; t < length; t++) sample->token[t] = 0, sample->target[t] = -1;
}

static int64_t text_train_length(const Dataset *dataset, int64_t step) {
  (void)step;
  return ((const Text *)dataset)->seq_len;
}

static void text_close(Dataset *dataset) {
  Text *text = (Text *)dataset;
  tokenizer_free(text->tokenizer);
  free(text->json);
  free(text->tokens);
  free(text);
}

static Status build_tokenizer(const DataConfig *config, const char *vocabulary, const SourceText *source,
                              Tokenizer **tokenizer) {
  bool is_char = strcmp(config->tokenizer, "char") == 0;
  if (!is_char && strcmp(config->tokenizer, "byte") != 0)
    return status_fail(CODE_USAGE, "data.tokenizer: found %s, expected byte or char", config->tokenizer);
  if (vocabulary) {
    Tokenizer *t;
    TRY(tokenizer_from_json(vocabulary, &t));
    if (strcmp(tokenizer_kind(t), config->tokenizer) != 0) {
      Status status = status_fail(CODE_DATA, "data.tokenizer: found %s, expected %s, with which the model was trained",
                                  config->tokenizer, tokenizer_kind(t));
      tokenizer_free(t);
      return status;
    }
    *tokenizer = t;
  } else if (is_char) {
    uint8_t *seen = base_zalloc(N_CODE_POINTS);
    for (int i = 0; i < source->n_files; i++) {
      const SourceFile *file = &source->file[i];
      TRY_OR(tokenizer_survey(file->path, source->text + file->begin, file->end - file->begin, seen), free(seen));
    }
    *tokenizer = tokenizer_new_char(seen);
    free(seen);
  } else {
    *tokenizer = tokenizer_new_byte();
  }
  return STATUS_OK;
}

/* File by file, so that a message can name the file and no character spans two. */
static Status encode(Text *text, const SourceText *source) {
  text->width = text->base.vocab_size <= 1 << 8 ? 1 : text->base.vocab_size <= 1 << 16 ? 2 : 4;
  text->tokens = base_alloc((size_t)text->width * source->bytes);
  for (int i = 0; i < source->n_files; i++) {
    const SourceFile *file = &source->file[i];
    int64_t n;
    TRY(tokenizer_encode_to(text->tokenizer, file->path, source->text + file->begin, file->end - file->begin,
                            text->width, (char *)text->tokens + (size_t)text->width * (size_t)text->n_tokens, &n));
    text->n_tokens += n;
  }
  text->tokens = base_realloc(text->tokens, (size_t)text->width * (size_t)text->n_tokens);
  return STATUS_OK;
}

/* Every token of the part but its first is a target. */
static double bytes_per_target(const Text *text, DataPart part) {
  if (text->width == 1 && strcmp(tokenizer_kind(text->tokenizer), "byte") == 0) return 1.0;
  int64_t sum = 0, n = text->part[part].n - 1;
  for (int64_t i = 1; i <= n; i++) {
    int32_t token;
    int bytes;
    copy_tokens(text, text->part[part].first + i, 1, &token);
    tokenizer_piece(text->tokenizer, token, &bytes);
    sum += bytes;
  }
  return (double)sum / (double)n;
}

static Status split(const DataConfig *config, Text *text) {
  const double train = config->split_train, val = config->split_val;
  if (!(train >= 0 && val >= 0 && train + val <= 1 + 1e-9))
    return status_fail(CODE_USAGE, "data.split: found train %g and val %g, expected shares that sum to at most 1",
                       train, val);
  /* Both ends are rounded, not both sizes: no token falls between the parts. */
  int64_t train_end = llround(train * (double)text->n_tokens);
  int64_t val_end = min_i64(llround((train + val) * (double)text->n_tokens), text->n_tokens);
  text->part[PART_TRAIN].n = train_end;
  text->part[PART_VAL].first = train_end;
  text->part[PART_VAL].n = val_end - train_end;
  for (DataPart part = PART_TRAIN; part <= PART_VAL; part++)
    if (text->part[part].n < text->seq_len + 1)
      return status_fail(CODE_DATA,
                         "%s: the text has %lld tokens, its %s part %lld, expected at least seq_len + 1 = %lld; give "
                         "more text, a smaller data.seq_len or another data.split",
                         config->paths[0], (long long)text->n_tokens, part == PART_TRAIN ? "training" : "validation",
                         (long long)text->part[part].n, (long long)text->seq_len + 1);
  return STATUS_OK;
}

static Status prepare(const DataConfig *config, const char *vocabulary, const SourceText *source, Text *text) {
  TRY(build_tokenizer(config, vocabulary, source, &text->tokenizer));
  text->base.vocab_size = tokenizer_vocab_size(text->tokenizer);
  text->base.tokenizer_json = text->json = tokenizer_to_json(text->tokenizer);
  TRY(encode(text, source));
  const int64_t seq_len = text->seq_len = config->seq_len;
  TRY(split(config, text));
  const int64_t n_train = text->part[PART_TRAIN].n;
  text->base.n_samples[PART_TRAIN] = max_i64(1, n_train / seq_len - 1);
  text->n_offsets = min_i64(seq_len, n_train - text->base.n_samples[PART_TRAIN] * seq_len);
  text->base.n_samples[PART_VAL] = ceil_div(text->part[PART_VAL].n - 1, seq_len);
  for (DataPart part = PART_TRAIN; part <= PART_VAL; part++) {
    text->base.max_length[part] = seq_len;
    text->base.bytes_per_token[part] = bytes_per_target(text, part);
  }
  return STATUS_OK;
}

static Status text_open(const DataConfig *config, const char *vocabulary, Dataset **dataset) {
  SourceText source;
  TRY(files_read(config->paths, config->n_paths, &source));
  Text *text = base_zalloc(sizeof *text);
  Status status = prepare(config, vocabulary, &source, text);
  files_free(&source);
  if (status.code != CODE_OK) {
    text_close(&text->base);
    return status;
  }
  *dataset = &text->base;
  return STATUS_OK;
}

const DatasetKind dataset_text = {text_open, text_close, text_train_length, text_sample};
