/* lanes: vectors as wide as the processor's, written with the compilers' vector type, so that one source serves every
 * build (and a processor without vectors: the compiler takes it apart).
 *
 * For sums: a reduction loop is not vectorised without permission to reorder, and with `omp simd reduction` gcc adds the
 * lanes up one by one through memory (measured: four times slower at 64 elements). Here the order is written down.
 * Vectors are never passed by value: that calling convention depends on the processor. */
#pragma once

#include "tensor/cpu/cpu.h"

#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define LANES_BYTES 64
#elif defined(__AVX__)
#define LANES_BYTES 32
#else
#define LANES_BYTES 16
#endif
enum { LANES = LANES_BYTES / sizeof(real) };

/* Any address of reals will do: no alignment beyond theirs is assumed. */
typedef real Lanes __attribute__((vector_size(LANES_BYTES), aligned(sizeof(real)), may_alias));

/* *lanes_at(x) are the LANES reals from x on. */
static inline Lanes *lanes_at(real *x) { return (Lanes *)x; }
static inline const Lanes *lanes_of(const real *x) { return (const Lanes *)x; }

/* The sum of all lanes, halves onto halves. */
static inline real lanes_sum(const Lanes *x) {
  typedef real Quarter __attribute__((vector_size(16)));
  enum { N_QUARTERS = LANES_BYTES / 16, N_LAST = 16 / sizeof(real) };
  union {
    Lanes all;
    Quarter quarter[N_QUARTERS];
  } parts = {.all = *x};
  for (int half = N_QUARTERS / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) parts.quarter[i] += parts.quarter[i + half];
  const Quarter last = parts.quarter[0];
  return N_LAST == 4 ? (last[0] + last[2 % N_LAST]) + (last[1] + last[3 % N_LAST]) : last[0] + last[1];
}

#ifndef ASPIS_REAL_F64
/* sum += a x and sum += x y, fused where the processor can: under C11 gcc never does it unasked. The one place with
 * instructions. */
static inline void lanes_add_scaled(Lanes *sum, float a, const Lanes *x) {
#if defined(__AVX512F__)
  *sum = (Lanes)_mm512_fmadd_ps(_mm512_set1_ps(a), (__m512)*x, (__m512)*sum);
#elif defined(__FMA__)
  *sum = (Lanes)_mm256_fmadd_ps(_mm256_set1_ps(a), (__m256)*x, (__m256)*sum);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  *sum = (Lanes)vfmaq_n_f32((float32x4_t)*sum, (float32x4_t)*x, a);
#else
  *sum += a * *x;
#endif
}
static inline void lanes_add_product(Lanes *sum, const Lanes *x, const Lanes *y) {
#if defined(__AVX512F__)
  *sum = (Lanes)_mm512_fmadd_ps((__m512)*x, (__m512)*y, (__m512)*sum);
#elif defined(__FMA__)
  *sum = (Lanes)_mm256_fmadd_ps((__m256)*x, (__m256)*y, (__m256)*sum);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  *sum = (Lanes)vfmaq_f32((float32x4_t)*sum, (float32x4_t)*x, (float32x4_t)*y);
#else
  *sum += *x * *y;
#endif
}

/* Neighbours change places: lanes 2 i and 2 i + 1. */
static inline void lanes_swap_pairs(Lanes *x) {
#if defined(__AVX512F__)
  *x = (Lanes)_mm512_permute_ps((__m512)*x, 0xb1);
#elif defined(__FMA__)
  *x = (Lanes)_mm256_permute_ps((__m256)*x, 0xb1);
#else
  const Lanes from = *x;
  for (int i = 0; i < LANES; i++) (*x)[i] = from[i ^ 1];
#endif
}

#if defined(__AVX512F__)
#define LANES_TRANSPOSE 1
/* 16 rows of 16 words of 32 bits become 16 columns: words, double words and quarters change places, four shuffles deep. */
static inline void lanes_transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  for (int c = 0; c < 4; c++) { /* r[4 i + c] has columns c, c+4, c+8, c+12 of rows 4 i to 4 i + 3 */
    const __m512i even_top = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
    const __m512i even_low = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
    const __m512i odd_top = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
    const __m512i odd_low = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_i32x4(even_top, even_low, 0x88);
    t[c + 4] = _mm512_shuffle_i32x4(odd_top, odd_low, 0x88);
    t[c + 8] = _mm512_shuffle_i32x4(even_top, even_low, 0xdd);
    t[c + 12] = _mm512_shuffle_i32x4(odd_top, odd_low, 0xdd);
  }
  memcpy(r, t, sizeof t);
}
#else
#define LANES_TRANSPOSE 0
#endif

/* LANES bfloat16 numbers as floats. (What gcc makes of a vector conversion goes through halves.) */
static inline void lanes_from_bf16(Lanes *to, const uint16_t *from) {
#if defined(__AVX512F__)
  *to = (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)from)), 16);
#elif defined(__AVX2__)
  *to = (Lanes)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)from)), 16);
#else
  typedef uint16_t Halves __attribute__((vector_size(LANES_BYTES / 2), aligned(2), may_alias));
  typedef uint32_t Words __attribute__((vector_size(LANES_BYTES)));
  *to = (Lanes)(__builtin_convertvector(*(const Halves *)from, Words) << 16);
#endif
}

/* Copies n floats past the caches where the processor can: for what is read so much later that it would only drive out what
 * is read now. (An ordinary store first reads the line that it fills.) */
static inline void copy_past_caches(float *to, const float *from, int64_t n) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i < n && (uintptr_t)(to + i) % LANES_BYTES != 0; i++) to[i] = from[i];
  for (; i + LANES <= n; i += LANES) _mm512_stream_ps(to + i, _mm512_loadu_ps(from + i));
  _mm_sfence();
#endif
  memcpy(to + i, from + i, (size_t)(n - i) * sizeof *to);
}

/* sum += x y of 2 LANES bfloat16 numbers, two products a lane. */
#if defined(__AVX512BF16__)
#define LANES_MULTIPLY_BF16 1
static inline void lanes_add_product_bf16(Lanes *sum, const uint16_t *x, const uint16_t *y) {
  *sum = (Lanes)_mm512_dpbf16_ps((__m512)*sum, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_loadu_si512(y));
}
#else
#define LANES_MULTIPLY_BF16 0
#endif
#else
static inline void lanes_add_scaled(Lanes *sum, double a, const Lanes *x) { *sum += a * *x; }
static inline void lanes_add_product(Lanes *sum, const Lanes *x, const Lanes *y) { *sum += *x * *y; }
#define LANES_MULTIPLY_BF16 0
static inline void lanes_from_bf16(Lanes *to, const uint16_t *from) {
  for (int i = 0; i < LANES; i++) (*to)[i] = bf16_to_float(from[i]);
}
#endif

/* a . b; any length */
static inline real dot(const real *a, const real *b, int64_t n) {
  Lanes lanes = {0};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) lanes += *lanes_of(a + i) * *lanes_of(b + i);
  real sum = lanes_sum(&lanes);
  for (; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* y += c x */
static inline void add_scaled(real *y, real c, const real *x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] += c * x[i];
}
