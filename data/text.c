/* text: the tokens of files, one long row, cut into samples (data/cut.h). Packed, its documents are its files, or what
 * data.document_end ends.
 *
 * Tokens are kept in the narrowest integers that hold the vocabulary: a byte of text costs a byte of memory. */
#include <stdlib.h>
#include <string.h>

#include "data/cut.h"
#include "data/files.h"
#include "data/kind.h"
#include "data/tokenizer.h"

typedef struct Text {
  Dataset base;
  Tokenizer *tokenizer;
  char *json;
  bool special_tokens;
  TokenRow tokens;
  int64_t doc_capacity;
  Cut cut;
} Text;

static void copy_tokens(const void *row, int64_t first, int64_t n, int32_t *to) {
  const TokenRow *tokens = row;
  switch (tokens->width) {
  case 1:
    for (int64_t i = 0; i < n; i++) to[i] = ((const uint8_t *)tokens->token)[first + i];
    break;
  case 2:
    for (int64_t i = 0; i < n; i++) to[i] = ((const uint16_t *)tokens->token)[first + i];
    break;
  default: memcpy(to, (const int32_t *)tokens->token + first, sizeof *to * (size_t)n); break;
  }
}

static void text_sample(const Dataset *dataset, DataPart part, int64_t index, const Batch *sample) {
  cut_sample(&((const Text *)dataset)->cut, dataset->seed, part, index, sample);
}

static int64_t text_train_length(const Dataset *dataset, int64_t step) {
  (void)step;
  return ((const Text *)dataset)->cut.seq_len;
}

static void text_close(Dataset *dataset) {
  Text *text = (Text *)dataset;
  tokenizer_free(text->tokenizer);
  free(text->json);
  free(text->tokens.token);
  free(text->cut.doc_end);
  cut_free(&text->cut);
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
  Cut *cut = &text->cut;
  if (cut->n_docs == text->doc_capacity) {
    text->doc_capacity = text->doc_capacity ? 2 * text->doc_capacity : 64;
    cut->doc_end = base_realloc(cut->doc_end, (size_t)text->doc_capacity * sizeof *cut->doc_end);
  }
  cut->doc_end[cut->n_docs++] = text->tokens.n;
}

static Status encode_document(Text *text, const SourceFile *file, const char *from, size_t bytes) {
  const TokenTemplate around = text->special_tokens ? tokenizer_template(text->tokenizer) : (TokenTemplate){0};
  TokenRow *tokens = &text->tokens;
  const int64_t before = tokens->n;
  token_row_add_all(tokens, around.before, around.n_before);
  TRY(tokenizer_encode_to(text->tokenizer, file->path, from, bytes, tokens));
  token_row_add_all(tokens, around.behind, around.n_behind);
  if (tokens->n > before) add_document(text);
  return STATUS_OK;
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
      end = document_end(config, source, file, at);
      TRY(encode_document(text, file, source->text + at, end - at));
    }
  }
  tokens->token = base_realloc(tokens->token, (size_t)tokens->width * (size_t)max_i64(1, tokens->n));
  return STATUS_OK;
}

static double bytes_per_target(const Text *text, DataPart part) {
  double bytes = 0;
  int64_t n = 0;
  if (strcmp(tokenizer_kind(text->tokenizer), "byte") == 0) return 1.0;
  cut_count_bytes(&text->cut, part, text->tokenizer, text->special_tokens, &bytes, &n);
  return n ? bytes / (double)n : 0;
}

static Status prepare(const DataConfig *config, const char *vocabulary, const SourceText *source, Text *text) {
  Dataset *base = &text->base;
  TRY(build_tokenizer(config, vocabulary, source, &text->tokenizer));
  base->vocab_size = tokenizer_vocab_size(text->tokenizer);
  base->tokenizer_json = text->json = tokenizer_to_json(text->tokenizer);
  text->special_tokens = config->special_tokens;
  TRY(encode(config, text, source));
  text->cut.copy = copy_tokens, text->cut.row = &text->tokens, text->cut.n_tokens = text->tokens.n;
  char *what = base_format("%s: the text", config->paths[0]);
  Status status = cut_lay(&text->cut, config, what, config->tbptt_rows);
  free(what);
  TRY(status);
  for (DataPart part = PART_TRAIN; part <= PART_VAL; part++) {
    const CutPart *cut = &text->cut.part[part];
    base->max_length[part] = config->seq_len;
    base->n_samples[part] = cut->n_samples, base->n_rows[part] = cut->n_rows, base->max_pieces[part] = cut->max_pieces;
    base->max_run[part] = cut->max_run;
    base->bytes_per_token[part] = bytes_per_target(text, part);
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
