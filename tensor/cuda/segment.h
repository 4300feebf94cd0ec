/* segment: packed sequences cut into runs of equal length, counted without knowing the lengths on the host. */
#pragma once

#include "tensor/cuda/cuda.h"

/* Tokens [first, end) of the sequence of tokens [start, seq_end). */
struct Segment {
  int64_t seq, start, seq_end, first, end;

  __device__ bool is_there() const { return first < seq_end; }
  __device__ bool begins_sequence() const { return first == start; }
  __device__ bool ends_sequence() const { return end == seq_end; }
};
/* The row of a sequence's first run of `size` tokens: a few rows stay empty, and none needs the other sequences' lengths. */
__device__ static inline int64_t segment_row(int64_t start, int64_t seq, int64_t size) { return start / size + seq; }
/* Rows there can be, of n_t tokens in n_seq sequences. */
static inline int64_t segment_rows(int64_t n_t, int64_t n_seq, int64_t size) { return n_t / size + n_seq; }
/* The run of row `row`; starts (n_seq + 1) are the sequences' first tokens and the last one's end. */
__device__ static inline Segment segment_at(const int32_t *starts, int64_t n_seq, int64_t row, int64_t size) {
  int64_t low = 0, high = n_seq; /* row(low) <= row < row(high) */
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (segment_row(global_load(starts + middle), middle, size) <= row) low = middle;
    else high = middle;
  }
  const int64_t start = global_load(starts + low), seq_end = global_load(starts + low + 1);
  const int64_t first = start + (row - segment_row(start, low, size)) * size;
  return {low, start, seq_end, first, first + size < seq_end ? first + size : seq_end};
}
