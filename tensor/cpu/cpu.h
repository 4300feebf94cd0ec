/* cpu: what the CPU kernels share. Each kernel file is the definition of its operation, generic in `real`, and is
 * compiled several times: as float for the baseline processor, AVX2 and AVX-512, and as double (ASPIS_REAL_F64) for the
 * gradient checks. ASPIS_CPU_VARIANT names the build in every symbol: linear_fwd_cpu_avx2.
 *
 * Results never depend on the number of threads: work is cut into blocks by the shapes alone, a block is one thread's,
 * and partial sums are added in block order. */
#pragma once

#include <math.h>
#include <string.h>

#include "tensor/kernels.h"

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

/* Row r of a tensor as reals: in place where the dtype is real, else converted into `buffer` (n reals). */
static inline const real *row_load(const Tensor *t, int64_t r, int64_t n, real *buffer) {
  if (t->dtype == REAL_DTYPE) return (const real *)t->data + r * t->ld;
  const uint16_t *h = (const uint16_t *)t->data + r * t->ld; /* BF16 is the only other float storage of a build */
  for (int64_t i = 0; i < n; i++) buffer[i] = (real)bf16_to_float(h[i]);
  return buffer;
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
  for (int64_t i = 0; i < n; i++) h[i] = bf16_from_float((float)values[i]);
}

/* row += values: how every gradient is stored. */
static inline void row_add(Tensor *t, int64_t r, int64_t n, const real *values) {
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
 * sums into its own scratch, and the blocks are added in order. */
enum { SUM_BLOCKS = 32 };
static inline int64_t sum_blocks(int64_t n_rows) { return n_rows < SUM_BLOCKS ? n_rows : SUM_BLOCKS; }
static inline int64_t sum_block_start(int64_t n_rows, int64_t block) { return n_rows * block / sum_blocks(n_rows); }

/* e^x, saturating outside [-87, 88] in float: 2^n e^r with n = round(x / ln 2) and Cephes' polynomial for e^r; within
 * 2 ulp of exp (tests/test_ops.c). Unlike expf a loop over it vectorises. NaN stays NaN. */
static inline real real_exp(real x) {
#ifdef ASPIS_REAL_F64
  return exp(x);
#else
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float to_integer = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, in the lowest bits */
  union {
    float f;
    uint32_t u;
  } n = {.f = x * 1.44269504f + to_integer};
  const float whole = n.f - to_integer;
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float e = 1.9875691500e-4f;
  e = e * r + 1.3981999507e-3f;
  e = e * r + 8.3334519073e-3f;
  e = e * r + 4.1665795894e-2f;
  e = e * r + 1.6666665459e-1f;
  e = e * r + 5.0000001201e-1f;
  union {
    uint32_t u;
    float f;
  } power = {.u = (n.u + 127u) << 23};
  return (e * r * r + r + 1.0f) * power.f;
#endif
}

static inline real real_sigmoid(real x) {
  const real e = real_exp(-R(fabs)(x)), s = 1 / (1 + e);
  return x >= 0 ? s : e * s;
}
static inline real real_silu(real x) { return x * real_sigmoid(x); }
/* d silu(x) / dx */
static inline real real_dsilu(real x) {
  real s = real_sigmoid(x);
  return s * (1 + x * (1 - s));
}
/* log(1 + e^x), linear above 20 (spec 2.1). */
static inline real real_softplus(real x) { return x > 20 ? x : R(log1p)(R(exp)(x)); }
/* d softplus(x) / dx, of that definition. */
static inline real real_dsoftplus(real x) { return x > 20 ? 1 : real_sigmoid(x); }
