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
 * Packed, a part is a row of documents (data/pack.h): those of its files, or what data.document_end ends. With S the stream of an
 * epoch, validation's in the files' order:
 *   row r: token[t] = S[r L + t], target[t] the token behind it in its document, -1 at a document's end; begins[t] where a
 *   document, or what is left of one, begins. Training takes the floor(n_t / L) whole rows of an epoch, validation all.
 *
 * With data.tbptt the R rows of a batch are lanes of S steps each over the text (packed: over the stream), S the most that fit:
 *   sample i: epoch e = i / (S R), step s = i / R mod S, row r = i mod R, at offset_e + (r S + s) L (packed: no offset); it goes
 *   on from sample i - R unless s = 0 or a document begins there. Validation is one lane.
 *
 * Tokens are kept in the narrowest integers that hold the vocabulary: a byte of text costs a byte of memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/files.h"
#include "data/kind.h"
#include "data/pack.h"
#include "data/tokenizer.h"
#include "tensor/rng.h"

typedef struct Text {
  Dataset base;
  Tokenizer *tokenizer;
  char *json;
  TokenRow tokens;
  struct {
    int64_t first, n;
  } part[2]; /* by DataPart, in tokens */
  int64_t seq_len, n_offsets;
  int64_t *doc_end; /* packed: where each document ends, in tokens */
  int64_t n_docs, doc_capacity;
  Pack *pack[2]; /* by DataPart; NULL: not packed */
} Text;

static void copy_tokens(const Text *text, int64_t first, int64_t n, int32_t *to) {
  switch (text->tokens.width) {
  case 1:
    for (int64_t i = 0; i < n; i++) to[i] = ((const uint8_t *)text->tokens.token)[first + i];
    break;
  case 2:
    for (int64_t i = 0; i < n; i++) to[i] = ((const uint16_t *)text->tokens.token)[first + i];
    break;
  default: memcpy(to, (const int32_t *)text->tokens.token + first, sizeof *to * (size_t)n); break;
  }
}

/* Where a sample begins in its part or, packed, in the stream of its epoch. */
typedef struct Place {
  int64_t epoch; /* -1: validation */
  int64_t at;
  bool goes_on; /* from the sample before it in its lane */
} Place;

static int64_t epoch_offset(const Text *text, uint32_t epoch) {
  Rng rng = rng_make(text->base.seed, RNG_SHUFFLE, epoch, 0);
  return rng_below(&rng, (uint32_t)text->n_offsets);
}

static Place place_of(const Text *text, DataPart part, int64_t index) {
  const int64_t n = text->base.n_samples[part], n_rows = text->base.n_rows[part];
  const bool packed = text->pack[part];
  if (part == PART_VAL) return (Place){-1, index * text->seq_len, n_rows && index > 0};
  const uint32_t epoch = (uint32_t)(index / n);
  int64_t window = index % n;
  const bool goes_on = n_rows && window >= n_rows;
  if (n_rows) window = index % n_rows * (n / n_rows) + window / n_rows; /* lane by lane */
  else if (!packed) window = (int64_t)rng_permute(text->base.seed, RNG_SHUFFLE, epoch, (uint64_t)n, (uint64_t)window);
  return (Place){epoch, window * text->seq_len + (packed ? 0 : epoch_offset(text, epoch)), goes_on};
}

static void packed_sample(const Text *text, DataPart part, int64_t index, const Batch *sample) {
  const Place place = place_of(text, part, index);
  const int64_t n_part = text->part[part].n, length = sample->length, epoch = place.epoch, at = place.at;
  if (sample->goes_on && place.goes_on && at < n_part)
    *sample->goes_on = pack_piece(text->pack[part], text->base.seed, epoch, at, length).follows;
  if (sample->begins) memset(sample->begins, 0, (size_t)length);
  for (int64_t t = 0; t < length;) {
    if (sample->begins) sample->begins[t] = 1;
    if (at + t >= n_part) { /* the last validation row */
      for (; t < length; t++) sample->token[t] = 0, sample->target[t] = -1;
      return;
    }
    const PackPiece piece = pack_piece(text->pack[part], text->base.seed, epoch, at + t, length - t);
    const int64_t first = text->part[part].first + piece.at, n_targets = piece.goes_on ? piece.n : piece.n - 1;
    copy_tokens(text, first, piece.n, sample->token + t);
    copy_tokens(text, first + 1, n_targets, sample->target + t);
    if (!piece.goes_on) sample->target[t + piece.n - 1] = -1;
    t += piece.n;
  }
}

static void text_sample(const Dataset *dataset, DataPart part, int64_t index, const Batch *sample) {
  const Text *text = (const Text *)dataset;
  const int64_t length = sample->length;
  CHECK(length == text->seq_len, "windows of %lld tokens, batch of %lld", (long long)text->seq_len, (long long)length);
  if (text->pack[part]) {
    packed_sample(text, part, index, sample);
    return;
  }
  const Place place = place_of(text, part, index);
  const int64_t at = place.at;
  if (sample->goes_on) *sample->goes_on = place.goes_on;
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
  free(text->tokens.token);
  free(text->doc_end);
  pack_free(text->pack[PART_TRAIN]), pack_free(text->pack[PART_VAL]);
  free(text);
}

static Status build_tokenizer(const DataConfig *config, const char *vocabulary, const SourceText *source,
                              Tokenizer **tokenizer) {
  const bool is_char = strcmp(config->tokenizer, "char") == 0, is_file = tokenizer_is_file(config->tokenizer);
  if (!is_char && !is_file && strcmp(config->tokenizer, "byte") != 0)
    return status_fail(CODE_USAGE, "data.tokenizer: found %s, expected byte, char or a tokenizer.json",
                       config->tokenizer);
  if (vocabulary) {
    Tokenizer *t;
    TRY(tokenizer_from_json(vocabulary, &t));
    if (strcmp(tokenizer_kind(t), is_file ? "bpe" : config->tokenizer) != 0) {
      Status status = status_fail(CODE_DATA, "data.tokenizer: found %s, expected %s, with which the model was trained",
                                  config->tokenizer, tokenizer_kind(t));
      tokenizer_free(t);
      return status;
    }
    *tokenizer = t;
  } else if (is_file) {
    return tokenizer_read(config->tokenizer, tokenizer);
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

/* The end of the document that begins at `at`: behind the next document_end, or that of the file. */
static size_t document_end(const DataConfig *config, const SourceText *source, const SourceFile *file, size_t at) {
  if (!config->pack || !config->document_end) return file->end;
  const size_t n = strlen(config->document_end);
  const char *found = memmem(source->text + at, file->end - at, config->document_end, n);
  return found ? (size_t)(found - source->text) + n : file->end;
}

static void add_document(Text *text) {
  if (text->n_docs == text->doc_capacity) {
    text->doc_capacity = text->doc_capacity ? 2 * text->doc_capacity : 64;
    text->doc_end = base_realloc(text->doc_end, (size_t)text->doc_capacity * sizeof *text->doc_end);
  }
  text->doc_end[text->n_docs++] = text->tokens.n;
}

/* File by file and document by document, so that a message can name the file and no token spans two. */
static Status encode(const DataConfig *config, Text *text, const SourceText *source) {
  TokenRow *tokens = &text->tokens;
  tokens->width = token_width(text->base.vocab_size);
  if (!tokenizer_bpe(text->tokenizer)) { /* a token takes a byte of text at least */
    tokens->capacity = (int64_t)source->bytes;
    tokens->token = base_alloc((size_t)tokens->width * source->bytes);
  }
  for (int i = 0; i < source->n_files; i++) {
    const SourceFile *file = &source->file[i];
    for (size_t at = file->begin, end; at < file->end; at = end) {
      const int64_t before = tokens->n;
      end = document_end(config, source, file, at);
      TRY(tokenizer_encode_to(text->tokenizer, file->path, source->text + at, end - at, tokens));
      if (tokens->n > before) add_document(text);
    }
  }
  tokens->token = base_realloc(tokens->token, (size_t)tokens->width * (size_t)max_i64(1, tokens->n));
  return STATUS_OK;
}

/* The part's documents; one that crosses its border is two. */
static void pack_part(Text *text, DataPart part) {
  const int64_t first = text->part[part].first, end = first + text->part[part].n;
  int64_t *start = base_alloc((size_t)(text->n_docs + 2) * sizeof *start), n = 0;
  start[n++] = 0;
  for (int64_t d = 0; d < text->n_docs && text->doc_end[d] < end; d++)
    if (text->doc_end[d] > first) start[n++] = text->doc_end[d] - first;
  start[n] = end - first;
  text->pack[part] = pack_new(start, n);
  free(start);
}

/* Every token of the part but its first, or that of each document, is a target. */
static double bytes_per_target(const Text *text, DataPart part) {
  if (strcmp(tokenizer_kind(text->tokenizer), "byte") == 0) return 1.0;
  int64_t sum = 0, n = 0;
  for (int64_t i = 0, next; i < text->part[part].n; i = next) {
    next = text->part[part].n;
    if (text->pack[part]) next = i + pack_piece(text->pack[part], 0, -1, i, next).n;
    for (int64_t j = i + 1; j < next; j++, n++) {
      int32_t token;
      int bytes;
      copy_tokens(text, text->part[part].first + j, 1, &token);
      tokenizer_piece(text->tokenizer, token, &bytes);
      sum += bytes;
    }
  }
  return n ? (double)sum / (double)n : 0;
}

static Status split(const DataConfig *config, Text *text) {
  const double train = config->split_train, val = config->split_val;
  if (!(train >= 0 && val >= 0 && train + val <= 1 + 1e-9))
    return status_fail(CODE_USAGE, "data.split: found train %g and val %g, expected shares that sum to at most 1",
                       train, val);
  /* Both ends are rounded, not both sizes: no token falls between the parts. */
  int64_t train_end = llround(train * (double)text->tokens.n);
  int64_t val_end = min_i64(llround((train + val) * (double)text->tokens.n), text->tokens.n);
  text->part[PART_TRAIN].n = train_end;
  text->part[PART_VAL].first = train_end;
  text->part[PART_VAL].n = val_end - train_end;
  for (DataPart part = PART_TRAIN; part <= PART_VAL; part++)
    if (text->part[part].n < text->seq_len + 1)
      return status_fail(CODE_DATA,
                         "%s: the text has %lld tokens, its %s part %lld, expected at least seq_len + 1 = %lld; give "
                         "more text, a smaller data.seq_len or another data.split",
                         config->paths[0], (long long)text->tokens.n, part == PART_TRAIN ? "training" : "validation",
                         (long long)text->part[part].n, (long long)text->seq_len + 1);
  return STATUS_OK;
}

/* Samples in whole lanes; without packing, the last token is only a target. */
static Status lay_lanes(const DataConfig *config, Text *text) {
  const int64_t n_rows = config->tbptt_rows, row_tokens = n_rows * text->seq_len;
  const int64_t n_tokens = text->part[PART_TRAIN].n - (config->pack ? 0 : 1);
  text->base.n_rows[PART_TRAIN] = n_rows, text->base.n_rows[PART_VAL] = 1;
  text->base.n_samples[PART_TRAIN] = n_tokens / row_tokens * n_rows;
  if (n_tokens >= row_tokens) return STATUS_OK;
  return status_fail(
      CODE_DATA,
      "%s: the training part has %lld tokens, expected at least train.batch_size * data.seq_len = %lld, because "
      "with data.tbptt every row of a batch has a stretch of its own; give more text or lower either",
      config->paths[0], (long long)text->part[PART_TRAIN].n, (long long)row_tokens);
}

static Status prepare(const DataConfig *config, const char *vocabulary, const SourceText *source, Text *text) {
  TRY(build_tokenizer(config, vocabulary, source, &text->tokenizer));
  text->base.vocab_size = tokenizer_vocab_size(text->tokenizer);
  text->base.tokenizer_json = text->json = tokenizer_to_json(text->tokenizer);
  TRY(encode(config, text, source));
  const int64_t seq_len = text->seq_len = config->seq_len;
  TRY(split(config, text));
  const int64_t n_train = text->part[PART_TRAIN].n;
  text->base.n_samples[PART_TRAIN] = max_i64(1, n_train / seq_len - 1);
  if (config->tbptt_segment) TRY(lay_lanes(config, text));
  text->n_offsets = min_i64(seq_len, n_train - text->base.n_samples[PART_TRAIN] * seq_len);
  text->base.n_samples[PART_VAL] = ceil_div(text->part[PART_VAL].n - 1, seq_len);
  for (DataPart part = PART_TRAIN; part <= PART_VAL; part++) {
    text->base.max_length[part] = seq_len;
    if (config->pack) {
      pack_part(text, part);
      const int64_t n = text->part[part].n;
      if (part == PART_VAL) text->base.n_samples[part] = ceil_div(n, seq_len);
      else if (!config->tbptt_segment) text->base.n_samples[part] = n / seq_len;
      text->base.max_pieces[part] = min_i64(seq_len, pack_most_pieces(text->pack[part], seq_len) + (part == PART_VAL));
    }
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
