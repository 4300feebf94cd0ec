/* cut: one long row of tokens, cut into the samples of its training and its validation part. What data/text.c and each folder of
 * data/shards_mix.c are.
 *
 * The tokens are cut by position: the first split_train of them are the training part, the next split_val the
 * validation part. With P the part, n_t its tokens and L = seq_len:
 *   validation  window w: token[t] = P[w L + t], target[t] = P[w L + t + 1]; ceil((n_t - 1) / L) windows cover every
 *               target once, the last one padded with token 0 and target -1.
 *   training    sample i: epoch e = i / n, window j = permute_e(i mod n), token[t] = P[offset_e + j L + t] and the same
 *               target; n windows fit behind every offset_e in [0, L), so each epoch cuts the text elsewhere. (In a
 *               part shorter than 2 L, n = 1 and the offsets are those that fit.)
 *
 * Packed, a part is a row of documents (data/pack.h). With S the stream of an epoch, validation's in the files' order:
 *   row r: token[t] = S[r L + t], target[t] the token behind it in its document, -1 at a document's end; begins[t] where a
 *   document, or what is left of one, begins. Training takes the floor(n_t / L) whole rows of an epoch, validation all.
 *
 * With data.tbptt the R rows that a batch has of it are lanes of S steps each over the text (packed: over the stream), S the most
 * that fit:
 *   sample i: epoch e = i / (S R), step s = i / R mod S, row r = i mod R, at offset_e + (r S + s) L (packed: no offset); it goes
 *   on from sample i - R unless s = 0 or a document begins there. Validation is one lane. */
#pragma once

#include "data/data.h"
#include "data/pack.h"

typedef struct CutPart {
  int64_t first, n;  /* tokens */
  int64_t n_samples; /* of an epoch */
  int64_t n_rows;    /* lanes; 0: samples stand alone */
  int64_t max_pieces;
  int64_t max_run; /* most tokens that a row goes on for, padding included; 0 without rows */
  Pack *pack;      /* NULL: not packed */
} CutPart;

typedef struct Cut {
  /* Tokens [first, first + n) of the row. */
  void (*copy)(const void *row, int64_t first, int64_t n, int32_t *to);
  const void *row;
  int64_t n_tokens;
  int64_t *doc_end; /* packed: where each document ends, in tokens, increasing; owned by the caller, of cut_lay alone */
  int64_t n_docs;
  int64_t seq_len, n_offsets;
  CutPart part[2]; /* by DataPart */
} Cut;

/* Lays out the samples of a row whose copy, row, n_tokens and, packed, documents are set. n_rows: lanes of a training batch, with
 * data.tbptt. A part too short is CODE_DATA, in a line that begins with `what` ("FILE: the text"). */
Status cut_lay(Cut *cut, const DataConfig *config, const char *what, int64_t n_rows);
void cut_free(Cut *cut);
/* Sample `index` of a part; training samples number through all epochs. */
void cut_sample(const Cut *cut, uint64_t seed, DataPart part, int64_t index, const Batch *sample);
/* Adds the bytes of text behind the targets of a part, and their number: every token but the first, or that of each document.
 * special_tokens: those of the tokenizer's template stand for no text. */
void cut_count_bytes(const Cut *cut, DataPart part, const Tokenizer *tokenizer, bool special_tokens, double *bytes,
                     int64_t *n);
