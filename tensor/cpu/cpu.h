/* cpu: what the CPU kernels share. Each kernel file is the definition of its operation, generic in `real`, and is
 * compiled several times: as float for the baseline processor, AVX2 and AVX-512, and as double (ASPIS_REAL_F64) for the
 * gradient checks. ASPIS_CPU_VARIANT names the build in every symbol: linear_fwd_cpu_avx2.
 *
 * Results never depend on the number of threads: work is cut into blocks by the shapes alone, a block is one thread's,
 * and partial sums are added in block order. */
#pragma once

#include <string.h>

#include "tensor/cpu/vmath.h"
#include "tensor/kernels.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#define CPU_JOIN2(a, b) a##b
#define CPU_JOIN(a, b) CPU_JOIN2(a, b)
#define CPU_SYMBOL(name) CPU_JOIN(name, ASPIS_CPU_VARIANT)

/* The head of a kernel: KERNEL_FWD(linear, Linear) { ... p->x ... } */
#define KERNEL_FWD(op, Params) void CPU_SYMBOL(op##_fwd_cpu)(const Params *p)
#define KERNEL_BWD(op, Params) void CPU_SYMBOL(op##_bwd_cpu)(const Params *p)
#define KERNEL_SCRATCH(op, Params) size_t CPU_SYMBOL(op##_scratch_cpu)(const Params *p, bool backward)

#define KERNEL_GRAD(op, Params) KERNEL_BWD(op, Params);
#define KERNEL_PLAIN(op, Params)
#define SCRATCH_SCRATCH(op, Params) KERNEL_SCRATCH(op, Params);
#define SCRATCH_NONE(op, Params)
#define KERNEL(op, Params, grad, scratch_kind)                                                                         \
  KERNEL_FWD(op, Params);                                                                                              \
  KERNEL_##grad(op, Params) SCRATCH_##scratch_kind(op, Params)
#include "tensor/kernels.def"
#undef KERNEL
#undef KERNEL_GRAD
#undef KERNEL_PLAIN
#undef SCRATCH_SCRATCH
#undef SCRATCH_NONE

/* Whether a loop over n elements lasts long enough to wake other threads for it: that takes some tens of microseconds
 * where they sleep between loops. For the `if` of a parallel loop; it changes no bit. What a decoding step does in every
 * layer asks before it enters a parallel region, which even for one thread makes a team and drops it (0.7 us). */
static inline bool parallel_pays(int64_t n) { return n >= 1 << 14; }

/* n reals as the nearest bfloat16, halfway to even. The instruction takes subnormal numbers for zero. */
static inline void reals_to_bf16(int64_t n, const real *restrict from, uint16_t *restrict to) {
  int64_t i = 0;
#if defined(__AVX512BF16__) && !defined(ASPIS_REAL_F64)
  for (; i + 32 <= n; i += 32) {
    const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i));
    _mm512_storeu_si512(to + i, (__m512i)both);
  }
#endif
  for (; i < n; i++) to[i] = bf16_from_float((float)from[i]);
}

/* Row r of a tensor as reals: in place where the dtype is real, else converted into `buffer` (n reals). */
static inline const real *row_load(const Tensor *t, int64_t r, int64_t n, real *buffer) {
  if (t->dtype == REAL_DTYPE) return (const real *)t->data + r * t->ld;
  const uint16_t *h = (const uint16_t *)t->data + r * t->ld; /* BF16 is the only other float storage of a build */
  for (int64_t i = 0; i < n; i++) buffer[i] = (real)bf16_to_float(h[i]);
  return buffer;
}

/* Asks for columns [col, col + n) of row r, which a later step of the caller's loop will read: rows that lie apart, a page
 * each, are beyond what a processor fetches ahead by itself (docs/decisions.md). Nothing where there is no such row. */
static inline void row_prefetch(const Tensor *t, int64_t r, int64_t col, int64_t n) {
  enum { LINE = 64 };
  if (!t || r >= tensor_rows(t)) return;
  const int64_t size = t->dtype == REAL_DTYPE ? (int64_t)sizeof(real) : (int64_t)sizeof(uint16_t);
  const char *at = (const char *)t->data + (r * t->ld + col) * size;
  for (int64_t i = 0; i < n * size; i += LINE) __builtin_prefetch(at + i);
}

/* Where to compute row r that will be stored: the tensor itself where the dtype is real, else `buffer`. */
static inline real *row_out(Tensor *t, int64_t r, real *buffer) {
  return t->dtype == REAL_DTYPE ? (real *)t->data + r * t->ld : buffer;
}

/* Stores what row_out's buffer holds; nothing to do where the row was computed in place. */
static inline void row_store(Tensor *t, int64_t r, int64_t n, const real *values) {
  if (t->dtype == REAL_DTYPE) {
    real *out = (real *)t->data + r * t->ld;
    if (out != values) memcpy(out, values, (size_t)n * sizeof(real));
    return;
  }
  uint16_t *h = (uint16_t *)t->data + r * t->ld;
  reals_to_bf16(n, values, h);
}

/* Where to compute what row_add will add to row r of a gradient: in place where it is the first and real. */
static inline real *row_grad_out(Tensor *t, int64_t r, real *buffer) {
  return t && t->unset ? row_out(t, r, buffer) : buffer;
}

/* row += values: how every gradient is stored; the first into one that is unset. */
static inline void row_add(Tensor *t, int64_t r, int64_t n, const real *values) {
  if (t->unset) {
    row_store(t, r, n, values);
    return;
  }
  if (t->dtype == REAL_DTYPE) {
    real *out = (real *)t->data + r * t->ld;
    for (int64_t i = 0; i < n; i++) out[i] += values[i];
    return;
  }
  uint16_t *h = (uint16_t *)t->data + r * t->ld;
  for (int64_t i = 0; i < n; i++) h[i] = bf16_from_float(bf16_to_float(h[i]) + (float)values[i]);
}

/* The columns from `col` on, as a tensor for the row_ functions: kernels without scratch go through a row in runs of
 * ROW_RUN columns, which fit on the stack. */
enum { ROW_RUN = 256 };
static inline Tensor cols_from(const Tensor *t, int64_t col) {
  Tensor part = *t;
  part.data = (char *)t->data + col * (int64_t)dtype_bytes(t->dtype);
  return part;
}

/* Parameter gradients that sum over rows: rows are cut into at most SUM_BLOCKS blocks by their number alone, each block
 * sums into its own scratch, and the blocks are added in order. Of few rows a block has up to SUM_ROWS: to begin one takes
 * as long as a few rows. */
enum { SUM_BLOCKS = 32, SUM_ROWS = 8 };
static inline int64_t sum_blocks(int64_t n_rows) { return min_i64(ceil_div(n_rows, SUM_ROWS), SUM_BLOCKS); }
static inline int64_t sum_block_start(int64_t n_rows, int64_t block) { return n_rows * block / sum_blocks(n_rows); }
