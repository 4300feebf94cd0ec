/* vmath: the arithmetic of the kernels' `real`: the type, a fused multiply-add, and elementary functions that read like
 * scalar code and that gcc and clang turn into vectors in a plain loop (no calls, no branches, no tables).
 *
 * In double every function is libm's. In float the errors stated at each function, in units of the last place of the
 * exact result, are held by tests/test_vmath.c over the whole range, on a processor with fused multiply-add and without.
 * NaN stays NaN; results that would be subnormal may be zero. The polynomials are Chebyshev fits of the series named
 * beside them. */
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef ASPIS_REAL_F64
typedef double real;
#define REAL_DTYPE F64
#define R(function) function
#else
typedef float real;
#define REAL_DTYPE F32
#define R(function) function##f
#endif
/* R(exp)(x) is expf in the float builds and exp in the double one. */

/* a b + c: one rounding where the build's processor multiplies and adds in one instruction, else two. (ISO C keeps the
 * compiler from fusing by itself, and fma() without the instruction is a slow call.) */
#if defined(__FMA__) || defined(__aarch64__)
#define REAL_FUSED 1
static inline real real_fma(real a, real b, real c) { return R(__builtin_fma)(a, b, c); }
#else
#define REAL_FUSED 0
static inline real real_fma(real a, real b, real c) { return a * b + c; }
#endif

#ifdef ASPIS_REAL_F64

static inline real real_exp(real x) { return exp(x); }
static inline real real_softplus(real x) { return x > 20 ? x : log1p(exp(x)); }
static inline real real_tanh(real x) { return tanh(x); }
static inline void real_sincos(real x, real *sine, real *cosine) {
  *sine = sin(x);
  *cosine = cos(x);
}

#else

typedef union RealBits {
  float f;
  uint32_t u;
  int32_t i;
} RealBits;

/* Adding 1.5 * 2^23 rounds a float below 2^22 to an integer, which then stands in the lowest bits. */
#define VMATH_TO_INTEGER 12582912.0f

/* e^x = 2^(n-1) * 2 e^r with n = round(x / ln 2): infinite above 88.73, zero below -87. Within 1 ulp (2 unfused). */
static inline float real_exp(float x) {
  /* Both ends ask for what was given: a second question after the first becomes one about masks, 20 % slower. */
  const float given = x;
  x = given < -100.0f ? -100.0f : given;
  x = given > 89.0f ? 89.0f : x;
  const RealBits n = {.f = real_fma(x, 1.44269504f, VMATH_TO_INTEGER)};
  const float whole = n.f - VMATH_TO_INTEGER;
  const float r = real_fma(whole, 2.12194440e-4f, real_fma(whole, -0.693359375f, x));
  float e = 2 * 1.39261976694e-3f; /* 2 (e^r - 1 - r) / r^2 */
  e = real_fma(e, r, 2 * 8.36319032562e-3f);
  e = real_fma(e, r, 2 * 4.16665545326e-2f);
  e = real_fma(e, r, 2 * 1.6666576922e-1f);
  e = real_fma(e, r, 1.0f);
  e = real_fma(e, r, 2.0f);
  e = real_fma(e, r, 2.0f);
  const int32_t exponent = (int32_t)(n.u - 0x4b400000u) + 126; /* 0x4b400000: the bits of 1.5 * 2^23 */
  const RealBits power = {.u = (uint32_t)(exponent < 0 ? 0 : exponent) << 23};
  return e * power.f;
}

/* log(1 + u), 0 <= u <= 1: 2 atanh(s) with s = u / (2 + u) <= 1/3. Within 2 ulp. */
static inline float real_log1p_unit(float u) {
  const float s = u / (2 + u), z = s * s;
  float p = 1.1612164612e-1f; /* (atanh(s) / s - 1) / s^2 */
  p = real_fma(p, z, 1.08532879004e-1f);
  p = real_fma(p, z, 1.42961789972e-1f);
  p = real_fma(p, z, 1.9999853166e-1f);
  p = real_fma(p, z, 3.33333336603e-1f);
  const float twice = s + s;
  return real_fma(p * z, twice, twice);
}

/* log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): above 20 the second term is lost in rounding, which is the definition's
 * linear part (spec 2.1). Within 3 ulp. */
static inline float real_softplus(float x) { return (x > 0 ? x : 0) + real_log1p_unit(real_exp(-fabsf(x))); }
/* Odd polynomial up to 0.625, 1 - 2 / (e^2|x| + 1) beyond. Within 2 ulp. */
static inline float real_tanh(float x) {
  const float a = fabsf(x), z = x * x;
  float p = -6.09671416591e-3f; /* (tanh(x) / x - 1) / x^2 */
  p = real_fma(p, z, 2.09971789991e-2f);
  p = real_fma(p, z, -5.38509095785e-2f);
  p = real_fma(p, z, 1.3332769737e-1f);
  p = real_fma(p, z, -3.33333289441e-1f);
  const float small = real_fma(p * z, x, x), large = 1 - 2 / (real_exp(a + a) + 1);
  return a < 0.625f ? small : copysignf(large, x);
}

/* sin(x) and cos(x) for |x| <= 1000: x = n pi/2 + r, polynomials of r on [-pi/4, pi/4]. Within 2 ulp on [0, 2 pi], 3 ulp
 * up to 100 and 2^-23 up to 1000. */
static inline void real_sincos(float x, float *sine, float *cosine) {
  const RealBits n = {.f = real_fma(x, 0.636619772f, VMATH_TO_INTEGER)};
  const float whole = n.f - VMATH_TO_INTEGER; /* pi/2 in three parts; products with the first two are exact */
  const float r =
      real_fma(whole, -9.92093629471e-10f, real_fma(whole, -0x1.ed5p-14f, real_fma(whole, -0x1.9218p+0f, x)));
  const float z = r * r;
  float s = 2.72496200801e-6f; /* (sin(r) / r - 1) / r^2 */
  s = real_fma(s, z, -1.98400843764e-4f);
  s = real_fma(s, z, 8.33333187034e-3f);
  s = real_fma(s, z, -1.66666666638e-1f);
  s = real_fma(s * z, r, r);
  float c = 2.45476897725e-5f; /* (cos(r) - 1 + r^2/2) / r^4 */
  c = real_fma(c, z, -1.38883018676e-3f);
  c = real_fma(c, z, 4.16666646535e-2f);
  c = real_fma(c * z, z, real_fma(z, -0.5f, 1.0f));
  const uint32_t quadrant = n.u & 3;
  RealBits first = {.f = quadrant & 1 ? c : s}, second = {.f = quadrant & 1 ? s : c};
  first.u ^= (quadrant & 2) << 30;
  second.u ^= ((quadrant + 1) & 2) << 30;
  *sine = first.f;
  *cosine = second.f;
}

#endif

/* 1 / (1 + e^-x): an infinite e^-x gives the zero it should. Within 3 ulp. */
static inline real real_sigmoid(real x) { return 1 / (1 + real_exp(-x)); }
/* d softplus(x) / dx, of the definition that is linear above 20. Within 3 ulp. */
static inline real real_dsoftplus(real x) { return x > 20 ? 1 : real_sigmoid(x); }
/* x sigmoid(x), within 4 ulp, and its derivative. */
static inline real real_silu(real x) { return x * real_sigmoid(x); }
static inline real real_dsilu(real x) {
  const real s = real_sigmoid(x);
  return s * real_fma(x, 1 - s, 1);
}
