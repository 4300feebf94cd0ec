/* Products of packed BF16 tiles (tensor/cpu/tile_bf16.h), held to double loops over odd sizes, both types and both
 * orientations of the operands. Compiled once for each way the header has (tests/CMakeLists.txt): plain C, AMX on its
 * plain C twin, AVX-512 BF16 and AMX. BUILD is the build of the kernels whose instructions it takes. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tensor/rng.h"
#include "tests/support/cpu_build.h"

#define ASPIS_CPU_VARIANT _test
#include "tensor/cpu/tile_bf16.h"

#ifndef BUILD
#define BUILD "generic"
#endif

static const int SIZES[] = {1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 64, 70};
enum { N_SIZES = sizeof SIZES / sizeof *SIZES, LARGEST = 70, LD = LARGEST + 3, GUARD = 12345 };

typedef struct Operands {
  float a_f32[LD * LD], b_f32[LD * LD];
  uint16_t a[LD * LD], b[LD * LD];
} Operands;

static void operands_fill(Operands *o) {
  Rng rng = rng_make(1, RNG_TEST, 0, 0);
  for (int i = 0; i < LD * LD; i++) {
    o->a_f32[i] = (float)rng_normal(&rng), o->a[i] = bf16_from_float(o->a_f32[i]);
    o->b_f32[i] = (float)rng_normal(&rng), o->b[i] = bf16_from_float(o->b_f32[i]);
  }
}

/* The float operands are rounded while they are packed, so both types give the product of the rounded ones. Sums of up to
 * 70 products of some units: an error of 1e-4 is 2^-24 of the sum of magnitudes times the number of additions. */
static __attribute__((noinline)) void check_product(const Operands *o, int m, int n, int k, bool a_transposed,
                                                    bool b_transposed, Dtype dtype, bool add) {
  const void *a = dtype == F32 ? (const void *)o->a_f32 : o->a, *b = dtype == F32 ? (const void *)o->b_f32 : o->b;
  uint16_t *packed = malloc((size_t)tile_bf16_packed(k, n) * sizeof *packed);
  const int64_t depth = round_up(k, TILE_BF16_DEPTH);
  uint16_t *rows = malloc((size_t)(m * depth) * sizeof *rows);
  float *c = malloc((size_t)(m * LD) * sizeof *c);
  for (int i = 0; i < m * LD; i++) c[i] = i % LD < n ? (float)(i % 5) : GUARD;
  tile_bf16_pack(k, n, b, dtype, LD, b_transposed, packed);
  tile_bf16_rows(m, k, a, dtype, LD, a_transposed, rows);
  tile_bf16_product(m, n, k, rows, depth, packed, add, c, LD);
  for (int i = 0; i < m; i++)
    for (int j = 0; j < LD; j++) {
      double expected = add ? (i * LD + j) % 5 : 0;
      for (int q = 0; q < k && j < n; q++)
        expected += (double)bf16_to_float(o->a[a_transposed ? q * LD + i : i * LD + q]) *
                    bf16_to_float(o->b[b_transposed ? j * LD + q : q * LD + j]);
      if (j >= n) expected = GUARD;
      cr_assert_float_eq(c[i * LD + j], expected, 1e-4, "%s m %d n %d k %d%s%s %s%s: (%d, %d) is %g, expected %g",
                         BUILD, m, n, k, a_transposed ? " A^T" : "", b_transposed ? " B^T" : "", dtype_name(dtype),
                         add ? " added" : "", i, j, c[i * LD + j], expected);
    }
  free(packed);
  free(rows);
  free(c);
}

Test(tile_bf16, products_are_the_double_loop_and_stay_inside_c) {
  if (!cpu_build_runs_here(BUILD)) return;
  static Operands o;
  operands_fill(&o);
  for (int m = 0; m < N_SIZES; m++)
    for (int n = 0; n < N_SIZES; n++)
      for (int k = 0; k < N_SIZES; k++)
        for (int mode = 0; mode < 8; mode++)
          check_product(&o, SIZES[m], SIZES[n], SIZES[k], mode & 1, mode & 2, mode & 4 ? F32 : BF16, (m + n + k) % 2);
}

/* A, B and the packed B end where they must: the sanitizer build sees a read past them. A's rows here are as they lie in a
 * tensor, with neighbours that no sum may take in. */
static __attribute__((noinline)) void check_in_place(int m, int n, int k) {
  const int ld = k + 5;
  uint16_t *a = malloc((size_t)((m - 1) * ld + k) * sizeof *a), *b = malloc((size_t)(k * n) * sizeof *b);
  uint16_t *packed = malloc((size_t)tile_bf16_packed(k, n) * sizeof *packed);
  float *c = malloc((size_t)(m * n) * sizeof *c);
  const uint16_t one = bf16_from_float(1), nan = bf16_from_float(NAN);
  for (int i = 0; i < (m - 1) * ld + k; i++) a[i] = i % ld < k ? one : nan;
  for (int i = 0; i < k * n; i++) b[i] = one;
  tile_bf16_pack(k, n, b, BF16, n, false, packed);
  tile_bf16_product(m, n, k, a, ld, packed, false, c, n);
  for (int i = 0; i < m * n; i++) cr_assert(c[i] == (float)k, "m %d n %d k %d: %g", m, n, k, c[i]);
  free(a);
  free(b);
  free(packed);
  free(c);
}

Test(tile_bf16, rows_of_a_tensor_are_read_in_place) {
  if (!cpu_build_runs_here(BUILD)) return;
  for (int m = 0; m < N_SIZES; m++)
    for (int n = 0; n < N_SIZES; n++)
      for (int k = 0; k < N_SIZES; k++) check_in_place(SIZES[m], SIZES[n], SIZES[k]);
}
