/* tile_bf16: products of BF16 matrices that lie in cache, summed in float:  C (m, n) = A (m, k) B (k, n) + (add ? C : 0).
 *
 * A is row-major as it lies in memory. B is packed in the order the instructions eat it (tile_bf16_pack): panels of
 * TILE_BF16_COLS columns, the last one 16 or 32 wide; a panel is row pair after row pair, the two elements of a column
 * side by side, filled up with zeros:
 *
 *   packed[panel start + (k/2 * width + column) * 2 + k%2],   panel p starts at p * TILE_BF16_COLS * round_up(k, 32)
 *
 * Three ways, chosen by the build, over that one layout:
 *   AMX              2 x 2 tiles of 16 x 16 floats; a tile of A or B is 32 deep
 *   AVX-512 BF16     8 rows x 32 columns of sums in registers, pairs of A broadcast
 *   plain C          for every other build
 * With ASPIS_AMX_TWIN the AMX way runs on plain C stand-ins for the tile instructions, so that its logic is tested on
 * machines without them (tests/CMakeLists.txt). The ways add in different orders, and the instructions take denormals
 * for zero: equal within rounding, not to the bit. The sum over k is in an order that depends on k alone. */
#pragma once

#include "tensor/cpu/lanes.h"

#if defined(__AMX_BF16__) || defined(ASPIS_AMX_TWIN)
#define TILE_BF16_AMX
#endif
#if defined(__AVX512BF16__)
#define TILE_BF16_AVX512
#endif

/* Whether BF16 products are faster than float ones in this build. */
#if defined(TILE_BF16_AMX) || defined(TILE_BF16_AVX512)
enum { TILE_BF16_NATIVE = 1 };
#else
enum { TILE_BF16_NATIVE = 0 };
#endif

enum { TILE_BF16_COLS = 32, TILE_BF16_DEPTH = 32 };

/* Elements of a packed B (k, n). */
static inline int64_t tile_bf16_packed(int64_t k, int64_t n) { return round_up(k, TILE_BF16_DEPTH) * round_up(n, 16); }

/* The element of a row-major matrix of F32 or BF16. */
static inline uint16_t tile_bf16_element(const void *x, Dtype dtype, int64_t at) {
  return dtype == F32 ? bf16_from_float(((const float *)x)[at]) : ((const uint16_t *)x)[at];
}

#ifdef TILE_BF16_AVX512
static inline __mmask16 tile_bf16_mask16(int64_t count) {
  return (__mmask16)(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

/* `count` elements from `at` on, up to 32, then zeros. */
static inline __m512i tile_bf16_load(const void *x, Dtype dtype, int64_t at, int64_t count) {
  if (dtype == F32) {
    const float *from = (const float *)x + at;
    const __m512 low = _mm512_maskz_loadu_ps(tile_bf16_mask16(count), from);
    const __m512 high = _mm512_maskz_loadu_ps(tile_bf16_mask16(count - 16), from + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
  }
  const __mmask32 mask = count >= 32 ? 0xffffffffu : count <= 0 ? 0 : (1u << count) - 1;
  return _mm512_maskz_loadu_epi16(mask, (const uint16_t *)x + at);
}

/* Two rows of up to 32 elements, interleaved: columns 0 to 15 in pairs[0], 16 to 31 in pairs[1]. */
static inline void tile_bf16_interleave(__m512i first, __m512i second, __m512i pairs[2]) {
  const __m512i step = _mm512_set1_epi32(0x00010001);
  __m512i index = _mm512_setr_epi32(0x200000, 0x210001, 0x220002, 0x230003, 0x240004, 0x250005, 0x260006, 0x270007,
                                    0x280008, 0x290009, 0x2a000a, 0x2b000b, 0x2c000c, 0x2d000d, 0x2e000e, 0x2f000f);
  pairs[0] = _mm512_permutex2var_epi16(first, index, second);
  index = _mm512_add_epi32(index, _mm512_slli_epi32(step, 4));
  pairs[1] = _mm512_permutex2var_epi16(first, index, second);
}
#endif

/* Packs B (k, n) of F32 (rounded to nearest even) or BF16; rows of b are `ld` elements apart, and it is b's transpose
 * that is B when `transposed`. `packed` has tile_bf16_packed(k, n) elements. */
static inline void tile_bf16_pack(int64_t k, int64_t n, const void *b, Dtype dtype, int64_t ld, bool transposed,
                                  uint16_t *packed) {
  const int64_t depth = round_up(k, TILE_BF16_DEPTH), n_padded = round_up(n, 16);
  for (int64_t j = 0; j < n_padded; j += TILE_BF16_COLS) {
    const int64_t width = min_i64(TILE_BF16_COLS, n_padded - j);
    uint16_t *panel = packed + j * depth;
#ifdef TILE_BF16_AVX512
    if (transposed) {
      for (int64_t half = 0; half < width; half += 16)
        for (int64_t q = 0; q < depth; q += 32) {
          __m512i r[16];
          for (int i = 0; i < 16; i++)
            r[i] = j + half + i < n ? tile_bf16_load(b, dtype, (j + half + i) * ld + q, k - q) : _mm512_setzero_si512();
          lanes_transpose(r);
          for (int i = 0; i < 16; i++) _mm512_storeu_si512(panel + ((q / 2 + i) * width + half) * 2, r[i]);
        }
    } else {
      for (int64_t q = 0; q < depth; q += 2) {
        __m512i first = _mm512_setzero_si512(), second = first, pairs[2];
        if (q < k) first = tile_bf16_load(b, dtype, q * ld + j, n - j);
        if (q + 1 < k) second = tile_bf16_load(b, dtype, (q + 1) * ld + j, n - j);
        tile_bf16_interleave(first, second, pairs);
        for (int64_t half = 0; half < width; half += 16)
          _mm512_storeu_si512(panel + q * width + half * 2, pairs[half / 16]);
      }
    }
#else
    for (int64_t q = 0; q < depth; q++)
      for (int64_t i = 0; i < width; i++)
        panel[(q / 2 * width + i) * 2 + q % 2] =
            q < k && j + i < n ? tile_bf16_element(b, dtype, transposed ? (j + i) * ld + q : q * ld + j + i) : 0;
#endif
  }
}

/* Lays A (m, k) of F32 (rounded to nearest even) or BF16 out as the product reads it: row-major BF16, rows
 * round_up(k, 32) elements apart. `a` is read as by tile_bf16_pack. */
static inline void tile_bf16_rows(int64_t m, int64_t k, const void *a, Dtype dtype, int64_t ld, bool transposed,
                                  uint16_t *rows) {
  const int64_t depth = round_up(k, TILE_BF16_DEPTH);
#ifdef TILE_BF16_AVX512
  if (transposed) {
    for (int64_t i = 0; i < m; i += 32)
      for (int64_t q = 0; q < depth; q += 32) {
        __m512i r[2][16], pairs[2];
        for (int p = 0; p < 16; p++) {
          __m512i first = _mm512_setzero_si512(), second = first;
          if (q + 2 * p < k) first = tile_bf16_load(a, dtype, (q + 2 * p) * ld + i, m - i);
          if (q + 2 * p + 1 < k) second = tile_bf16_load(a, dtype, (q + 2 * p + 1) * ld + i, m - i);
          tile_bf16_interleave(first, second, pairs);
          r[0][p] = pairs[0], r[1][p] = pairs[1];
        }
        for (int half = 0; half < 2; half++) {
          lanes_transpose(r[half]);
          for (int64_t row = 0; row < min_i64(16, m - i - 16 * half); row++)
            _mm512_storeu_si512(rows + (i + 16 * half + row) * depth + q, r[half][row]);
        }
      }
  } else {
    for (int64_t i = 0; i < m; i++)
      for (int64_t q = 0; q < depth; q += 32)
        _mm512_storeu_si512(rows + i * depth + q, tile_bf16_load(a, dtype, i * ld + q, k - q));
  }
#else
  for (int64_t i = 0; i < m; i++)
    for (int64_t q = 0; q < depth; q++)
      rows[i * depth + q] = q < k ? tile_bf16_element(a, dtype, transposed ? q * ld + i : i * ld + q) : 0;
#endif
}

#if defined(TILE_BF16_AMX)
#include "tensor/cpu/tile_amx.h"
#elif defined(TILE_BF16_AVX512)

/* Adds one pair of k, of which an odd k's last has n_k = 1. */
static inline __attribute__((always_inline)) void tile_bf16_step(const int n_rows, const int n_vectors, const int n_k,
                                                                 const uint16_t *a, int64_t lda, const uint16_t *pairs,
                                                                 __m512 sum[16]) {
  __m512bh b[2];
#pragma GCC unroll 2
  for (int v = 0; v < n_vectors; v++) b[v] = (__m512bh)_mm512_loadu_si512(pairs + 32 * v);
#pragma GCC unroll 8
  for (int r = 0; r < n_rows; r++) {
    uint32_t pair = 0;
    memcpy(&pair, a + r * lda, (size_t)n_k * sizeof *a);
#pragma GCC unroll 2
    for (int v = 0; v < n_vectors; v++)
      sum[r * n_vectors + v] = _mm512_dpbf16_ps(sum[r * n_vectors + v], (__m512bh)_mm512_set1_epi32((int)pair), b[v]);
  }
}

/* n_rows rows of A times one panel; n_vectors is its width in sixteens. With constant n_rows and n_vectors all sums stay in
 * registers. */
static inline __attribute__((always_inline)) void tile_bf16_panel(const int n_rows, const int n_vectors, int64_t k,
                                                                  const uint16_t *a, int64_t lda, const uint16_t *panel,
                                                                  int64_t n_cols, bool add, float *c, int64_t ldc) {
  __m512 sum[16];
#pragma GCC unroll 16
  for (int i = 0; i < n_rows * n_vectors; i++) sum[i] = _mm512_setzero_ps();
  int64_t q = 0;
  for (; q + 2 <= k; q += 2) tile_bf16_step(n_rows, n_vectors, 2, a + q, lda, panel + q * n_vectors * 16, sum);
  if (q < k) tile_bf16_step(n_rows, n_vectors, 1, a + q, lda, panel + q * n_vectors * 16, sum);
#pragma GCC unroll 8
  for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < n_vectors; v++) {
      const __mmask16 mask = tile_bf16_mask16(n_cols - 16 * v);
      float *to = c + r * ldc + 16 * v;
      __m512 total = sum[r * n_vectors + v];
      if (add) total = _mm512_add_ps(total, _mm512_maskz_loadu_ps(mask, to));
      _mm512_mask_storeu_ps(to, mask, total);
    }
}

static inline void tile_bf16_product(int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda,
                                     const uint16_t *packed, bool add, float *c, int64_t ldc) {
  const int64_t depth = round_up(k, TILE_BF16_DEPTH);
  for (int64_t i = 0, n_rows; i < m; i += n_rows) {
    n_rows = m - i >= 8 ? 8 : m - i >= 4 ? 4 : 1;
    for (int64_t j = 0; j < n; j += TILE_BF16_COLS) {
      const uint16_t *rows = a + i * lda, *panel = packed + j * depth;
      float *to = c + i * ldc + j;
#define TILE_BF16_PANEL(n_rows_, n_vectors)                                                                            \
  tile_bf16_panel(n_rows_, n_vectors, k, rows, lda, panel, n - j, add, to, ldc)
      if (n - j > 16) {
        if (n_rows == 8) TILE_BF16_PANEL(8, 2);
        else if (n_rows == 4) TILE_BF16_PANEL(4, 2);
        else TILE_BF16_PANEL(1, 2);
      } else {
        if (n_rows == 8) TILE_BF16_PANEL(8, 1);
        else if (n_rows == 4) TILE_BF16_PANEL(4, 1);
        else TILE_BF16_PANEL(1, 1);
      }
#undef TILE_BF16_PANEL
    }
  }
}

#else

static inline void tile_bf16_product(int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda,
                                     const uint16_t *packed, bool add, float *c, int64_t ldc) {
  const int64_t depth = round_up(k, TILE_BF16_DEPTH), n_padded = round_up(n, 16);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j += TILE_BF16_COLS) {
      const int64_t width = min_i64(TILE_BF16_COLS, n_padded - j);
      float sum[TILE_BF16_COLS] = {0};
      for (int64_t q = 0; q < k; q++) {
        const float a_iq = bf16_to_float(a[i * lda + q]);
        const uint16_t *b = packed + j * depth + q / 2 * width * 2 + q % 2;
        for (int64_t v = 0; v < width; v++) sum[v] += a_iq * bf16_to_float(b[2 * v]);
      }
      for (int64_t v = 0; v < min_i64(width, n - j); v++)
        c[i * ldc + j + v] = add ? c[i * ldc + j + v] + sum[v] : sum[v];
    }
}

#endif
