/* cut: see cut.h. */
#include "data/cut.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"

/* Where a sample begins in its part or, packed, in the stream of its epoch. */
typedef struct Place {
  int64_t epoch; /* -1: validation */
  int64_t at;
  bool goes_on; /* from the sample before it in its lane */
} Place;

static int64_t epoch_offset(const Cut *cut, uint64_t seed, uint32_t epoch) {
  Rng rng = rng_make(seed, RNG_SHUFFLE, epoch, 0);
  return rng_below(&rng, (uint32_t)cut->n_offsets);
}

static Place place_of(const Cut *cut, uint64_t seed, DataPart part, int64_t index) {
  const int64_t n = cut->part[part].n_samples, n_rows = cut->part[part].n_rows;
  const bool packed = cut->part[part].pack;
  if (part == PART_VAL) return (Place){-1, index * cut->seq_len, n_rows && index > 0};
  const uint32_t epoch = (uint32_t)(index / n);
  int64_t window = index % n;
  const bool goes_on = n_rows && window >= n_rows;
  if (n_rows) window = index % n_rows * (n / n_rows) + window / n_rows; /* lane by lane */
  else if (!packed) window = (int64_t)rng_permute(seed, RNG_SHUFFLE, epoch, (uint64_t)n, (uint64_t)window);
  return (Place){epoch, window * cut->seq_len + (packed ? 0 : epoch_offset(cut, seed, epoch)), goes_on};
}

static void packed_sample(const Cut *cut, uint64_t seed, DataPart number, int64_t index, const Batch *sample) {
  const CutPart *part = &cut->part[number];
  const Place place = place_of(cut, seed, number, index);
  const int64_t length = sample->length, epoch = place.epoch, at = place.at;
  if (sample->goes_on && place.goes_on && at < part->n)
    *sample->goes_on = pack_piece(part->pack, seed, epoch, at, length).follows;
  if (sample->begins) memset(sample->begins, 0, (size_t)length);
  for (int64_t t = 0; t < length;) {
    if (sample->begins) sample->begins[t] = 1;
    if (at + t >= part->n) { /* the last validation row */
      for (; t < length; t++) sample->token[t] = 0, sample->target[t] = -1;
      return;
    }
    const PackPiece piece = pack_piece(part->pack, seed, epoch, at + t, length - t);
    const int64_t first = part->first + piece.at, n_targets = piece.goes_on ? piece.n : piece.n - 1;
    cut->copy(cut->row, first, piece.n, sample->token + t);
    cut->copy(cut->row, first + 1, n_targets, sample->target + t);
    if (!piece.goes_on) sample->target[t + piece.n - 1] = -1;
    t += piece.n;
  }
}

void cut_sample(const Cut *cut, uint64_t seed, DataPart number, int64_t index, const Batch *sample) {
  const CutPart *part = &cut->part[number];
  const int64_t length = sample->length;
  CHECK(length == cut->seq_len, "windows of %lld tokens, batch of %lld", (long long)cut->seq_len, (long long)length);
  if (part->pack) {
    packed_sample(cut, seed, number, index, sample);
    return;
  }
  const Place place = place_of(cut, seed, number, index);
  if (sample->goes_on) *sample->goes_on = place.goes_on;
  const int64_t n = min_i64(length, part->n - 1 - place.at), first = part->first + place.at;
  cut->copy(cut->row, first, n, sample->token);
  cut->copy(cut->row, first + 1, n, sample->target);
  for (int64_t t = n; t < length; t++) sample->token[t] = 0, sample->target[t] = -1;
}

/* The part's documents; one that crosses its border is two. */
static void pack_part(Cut *cut, DataPart number) {
  CutPart *part = &cut->part[number];
  const int64_t first = part->first, end = first + part->n, length = cut->seq_len;
  int64_t *start = base_alloc((size_t)(cut->n_docs + 2) * sizeof *start), n = 0;
  start[n++] = 0;
  for (int64_t d = 0; d < cut->n_docs && cut->doc_end[d] < end; d++)
    if (cut->doc_end[d] > first) start[n++] = cut->doc_end[d] - first;
  start[n] = end - first;
  part->pack = pack_new(start, n);
  part->max_pieces = min_i64(length, pack_most_pieces(part->pack, length) + (number == PART_VAL));
  free(start);
}

static Status split(Cut *cut, const DataConfig *config, const char *what) {
  const double train = config->split_train, val = config->split_val;
  const int64_t n = cut->n_tokens, least = cut->seq_len + 1;
  if (!(train >= 0 && val >= 0 && train + val <= 1 + 1e-9))
    return status_fail(CODE_USAGE, "data.split: found train %g and val %g, expected shares that sum to at most 1",
                       train, val);
  /* Both ends are rounded, not both sizes: no token falls between the parts. */
  const int64_t train_end = llround(train * (double)n), val_end = min_i64(llround((train + val) * (double)n), n);
  cut->part[PART_TRAIN].n = train_end;
  cut->part[PART_VAL].first = train_end, cut->part[PART_VAL].n = val_end - train_end;
  for (DataPart part = PART_TRAIN; part <= PART_VAL; part++)
    if (cut->part[part].n < least)
      return status_fail(CODE_DATA,
                         "%s has %lld tokens, its %s part %lld, expected at least seq_len + 1 = %lld; give more text, "
                         "a smaller data.seq_len or another data.split",
                         what, (long long)n, part == PART_TRAIN ? "training" : "validation",
                         (long long)cut->part[part].n, (long long)least);
  return STATUS_OK;
}

/* Samples in whole lanes; without packing, the last token is only a target. */
static Status lay_lanes(Cut *cut, const DataConfig *config, const char *what, int64_t n_rows) {
  CutPart *part = &cut->part[PART_TRAIN];
  const int64_t row_tokens = n_rows * cut->seq_len, n_tokens = part->n - (config->pack ? 0 : 1);
  part->n_rows = n_rows, cut->part[PART_VAL].n_rows = 1;
  part->n_samples = n_tokens / row_tokens * n_rows;
  if (part->n_samples > 0) return STATUS_OK;
  char share[64] = "";
  if (n_rows != config->tbptt_rows) snprintf(share, sizeof share, "its %lld of ", (long long)n_rows);
  return status_fail(
      CODE_DATA,
      "%s has a training part of %lld tokens, expected at least %strain.batch_size * data.seq_len = %lld, because "
      "with data.tbptt every row of a batch has a stretch of its own; give more text or lower either",
      what, (long long)part->n, share, (long long)row_tokens);
}

Status cut_lay(Cut *cut, const DataConfig *config, const char *what, int64_t n_rows) {
  const int64_t seq_len = cut->seq_len = config->seq_len;
  CutPart *train = &cut->part[PART_TRAIN], *val = &cut->part[PART_VAL];
  TRY(split(cut, config, what));
  train->n_samples = config->pack ? train->n / seq_len : max_i64(1, train->n / seq_len - 1);
  if (config->tbptt_segment) TRY(lay_lanes(cut, config, what, n_rows));
  cut->n_offsets = min_i64(seq_len, train->n - train->n_samples * seq_len);
  val->n_samples = ceil_div(val->n - (config->pack ? 0 : 1), seq_len);
  for (DataPart number = PART_TRAIN; number <= PART_VAL; number++) {
    CutPart *part = &cut->part[number];
    if (config->pack) pack_part(cut, number);
    if (part->n_rows == 0) continue;
    part->max_run = part->n_samples / part->n_rows * seq_len;
    if (part->pack) part->max_run = max_i64(seq_len, min_i64(part->max_run, pack_longest(part->pack)));
  }
  return STATUS_OK;
}

void cut_free(Cut *cut) { pack_free(cut->part[PART_TRAIN].pack), pack_free(cut->part[PART_VAL].pack); }

static bool holds(const int32_t *ids, int n, int32_t id) {
  for (int i = 0; i < n; i++)
    if (ids[i] == id) return true;
  return false;
}

void cut_count_bytes(const Cut *cut, DataPart number, const Tokenizer *tokenizer, bool special_tokens, double *bytes,
                     int64_t *n) {
  const TokenTemplate around = special_tokens ? tokenizer_template(tokenizer) : (TokenTemplate){0};
  const CutPart *part = &cut->part[number];
  int32_t token[1024];
  int64_t sum = 0;
  for (int64_t i = 0, next; i < part->n; i = next) {
    next = part->pack ? i + pack_piece(part->pack, 0, -1, i, part->n).n : part->n;
    for (int64_t at = i + 1, got; at < next; at += got, *n += got) {
      got = min_i64(1024, next - at);
      cut->copy(cut->row, part->first + at, got, token);
      for (int64_t t = 0; t < got; t++) {
        int piece = 0;
        if (holds(around.before, around.n_before, token[t]) || holds(around.behind, around.n_behind, token[t]))
          continue;
        if (tokenizer_piece(tokenizer, token[t], &piece)) sum += piece;
      }
    }
  }
  *bytes += (double)sum;
}
