/* pack: see pack.h. The positions of an epoch's documents in its stream are kept for the epoch asked for last. */
#include "data/pack.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"

struct Pack {
  int64_t n_docs;
  int64_t *start;  /* (n_docs + 1) */
  int64_t epoch;   /* of order and stream; -2: none yet */
  int64_t *order;  /* (n_docs): the documents of the stream */
  int64_t *stream; /* (n_docs + 1): where each begins in it, and its end */
};

Pack *pack_new(const int64_t *start, int64_t n_docs) {
  CHECK(n_docs >= 1, "%lld documents", (long long)n_docs);
  const size_t bytes = (size_t)(n_docs + 1) * sizeof(int64_t);
  Pack *pack = base_zalloc(sizeof *pack);
  *pack = (Pack){n_docs, base_alloc(bytes), -2, base_alloc(bytes), base_alloc(bytes)};
  memcpy(pack->start, start, bytes);
  for (int64_t d = 0; d < n_docs; d++) CHECK(start[d] < start[d + 1], "document %lld has no tokens", (long long)d);
  return pack;
}

void pack_free(Pack *pack) {
  if (!pack) return;
  free(pack->start), free(pack->order), free(pack->stream);
  free(pack);
}

static int compare(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* The shortest documents that fit, whole, between two that are cut. */
int64_t pack_most_pieces(const Pack *pack, int64_t length) {
  int64_t *lengths = base_alloc((size_t)pack->n_docs * sizeof *lengths), left = length - 2, n = 2;
  for (int64_t d = 0; d < pack->n_docs; d++) lengths[d] = pack->start[d + 1] - pack->start[d];
  qsort(lengths, (size_t)pack->n_docs, sizeof *lengths, compare);
  for (int64_t d = 0; d < pack->n_docs && (left -= lengths[d]) >= 0; d++) n++;
  free(lengths);
  return min_i64(n, length);
}

int64_t pack_longest(const Pack *pack) {
  int64_t longest = 0;
  for (int64_t d = 0; d < pack->n_docs; d++) longest = max_i64(longest, pack->start[d + 1] - pack->start[d]);
  return longest;
}

static void arrange(Pack *pack, uint64_t seed, int64_t epoch) {
  if (pack->epoch == epoch) return;
  pack->epoch = epoch;
  int64_t at = 0;
  for (int64_t i = 0; i < pack->n_docs; i++) {
    const uint64_t n = (uint64_t)pack->n_docs;
    const int64_t d = epoch < 0 ? i : (int64_t)rng_permute(seed, RNG_SHUFFLE, (uint32_t)epoch, n, (uint64_t)i);
    pack->order[i] = d, pack->stream[i] = at;
    at += pack->start[d + 1] - pack->start[d];
  }
  pack->stream[pack->n_docs] = at;
}

PackPiece pack_piece(Pack *pack, uint64_t seed, int64_t epoch, int64_t at, int64_t length) {
  arrange(pack, seed, epoch);
  CHECK(at >= 0 && at < pack->stream[pack->n_docs] && length >= 1, "position %lld of %lld", (long long)at,
        (long long)pack->stream[pack->n_docs]);
  int64_t low = 0, high = pack->n_docs; /* stream[low] <= at < stream[high] */
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (pack->stream[middle] <= at) low = middle;
    else high = middle;
  }
  const int64_t in = at - pack->stream[low], left = pack->stream[low + 1] - at;
  return (PackPiece){pack->start[pack->order[low]] + in, min_i64(left, length), in > 0, left > length};
}
