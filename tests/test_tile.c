/* Products of float tiles (tensor/cpu/tile.h), whole and causal, in float and in BF16, held to double loops over odd
 * sizes. Compiled once for each way that BF16 tiles have, like test_tile_bf16. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "tensor/rng.h"
#include "tests/support/cpu_build.h"

#define ASPIS_CPU_VARIANT _test
#include "tensor/cpu/tile.c"

#ifndef BUILD
#define BUILD "generic"
#endif

enum { LARGEST = 80, LD = 112 };
static const int SIZES[] = {1, 3, 8, 17, 32, 33, 64, 70, LARGEST};
static const int BLOCKS[] = {1, 3, 4, 5};
enum { N_SIZES = sizeof SIZES / sizeof *SIZES, N_BLOCKS = sizeof BLOCKS / sizeof *BLOCKS };

/* a and b as they lie in memory, c before the product, keep. */
typedef struct Operands {
  float a[LD * LD], b[LD * LD], c[LD * LD], keep[LD];
} Operands;

static void operands_fill(Operands *o) {
  Rng rng = rng_make(5, RNG_TEST, 0, 0);
  for (int i = 0; i < LD * LD; i++) {
    o->a[i] = bf16_to_float(bf16_from_float((float)rng_normal(&rng)));
    o->b[i] = bf16_to_float(bf16_from_float((float)rng_normal(&rng)));
    o->c[i] = (float)rng_normal(&rng);
  }
  for (int i = 0; i < LD; i++) o->keep[i] = (float)rng_normal(&rng);
}

/* A causal matrix as its owner leaves it: zeros beside the causal entries, and what nobody may look at beyond. */
static void make_causal(const Operands *o, int m, int block, bool bf16, float *a) {
  for (int i = 0; i < m; i++)
    for (int j = 0; j < LD; j++) {
      const int64_t causal = round_up(i + 1, block),
                    width = min_i64(tile_causal_width(i, block, bf16), round_up(m, LANES));
      a[i * LD + j] = j < causal ? o->a[i * LD + j] : j < width ? 0 : NAN;
    }
}

typedef struct Case {
  int m, n, k, block; /* block 0: no causal operand */
  bool a_transposed, b_transposed, keep, causal_c, bf16;
} Case;

/* A product of bfloat16 values is exact in float; up to 80 of them are added: 1e-4 is far above the rounding of sums of
 * some tens, and far below an entry. */
static void check(const Operands *o, Case p) {
  static float a[LD * LD], c[LD * LD];
  memcpy(c, o->c, sizeof c);
  memcpy(a, o->a, sizeof a);
  if (p.block && !p.causal_c) make_causal(o, p.m, p.block, p.bf16, a);
  const TileA A = {a, LD, p.a_transposed, p.causal_c ? 0 : p.block};
  const int64_t width = p.bf16 ? p.n : round_up(p.n, LANES);
  static uint16_t scratch[4 * LD * LD];
  if (p.bf16 && p.causal_c)
    tile_product_causal_bf16(p.m, p.n, p.k, A, o->b, LD, p.b_transposed, p.block, c, LD, scratch);
  else if (p.bf16)
    tile_product_bf16(p.m, p.n, p.k, A, o->b, LD, p.b_transposed, p.keep ? o->keep : NULL, c, LD, scratch);
  else if (p.causal_c) tile_product_causal(p.m, width, p.k, A, o->b, LD, p.block, c, LD);
  else tile_product(p.m, width, p.k, A, o->b, LD, p.keep ? o->keep : NULL, c, LD);
  for (int i = 0; i < p.m; i++)
    for (int j = 0; j < p.n; j++) {
      if (p.causal_c && j >= round_up(i + 1, p.block)) continue;
      double want = p.keep ? (double)o->keep[i] * (double)o->c[i * LD + j] : 0;
      for (int q = 0; q < p.k; q++) {
        const int row = p.a_transposed ? q : i, col = p.a_transposed ? i : q;
        if (p.block && !p.causal_c && col >= round_up(row + 1, p.block)) continue;
        want += (double)a[row * LD + col] * (double)(p.b_transposed ? o->b[j * LD + q] : o->b[q * LD + j]);
      }
      const double got = (double)c[i * LD + j];
      cr_assert(fabs(got - want) <= 1e-4, "m%d n%d k%d block%d%s%s%s%s%s: C[%d][%d] is %.9g, expected %.9g", p.m, p.n,
                p.k, p.block, p.a_transposed ? " A^T" : "", p.b_transposed ? " B^T" : "", p.keep ? " keep" : "",
                p.causal_c ? " causal C" : "", p.bf16 ? " bf16" : "", i, j, got, want);
    }
  for (int i = 0; i < p.m; i++)
    for (int64_t j = round_up(p.n, LANES); j < LD; j++)
      cr_assert_eq(c[i * LD + j], o->c[i * LD + j], "m%d n%d: wrote beyond the padded columns", p.m, p.n);
}

Test(tile, products_of_all_shapes_and_orientations) {
  if (!cpu_build_runs_here(BUILD)) return;
  Operands *o = malloc(sizeof *o);
  operands_fill(o);
  for (int i = 0; i < N_SIZES * N_SIZES * N_SIZES; i++)
    for (int flags = 0; flags < 16; flags++) {
      Case p = {.m = SIZES[i % N_SIZES], .n = SIZES[i / N_SIZES % N_SIZES], .k = SIZES[i / N_SIZES / N_SIZES]};
      p.a_transposed = flags & 1, p.keep = flags & 2, p.bf16 = flags & 4, p.b_transposed = flags & 8;
      if (p.bf16 || !p.b_transposed) check(o, p);
    }
  free(o);
}

Test(tile, causal_products_skip_only_zeros) {
  if (!cpu_build_runs_here(BUILD)) return;
  Operands *o = malloc(sizeof *o);
  operands_fill(o);
  for (int i = 0; i < N_SIZES * N_SIZES * N_BLOCKS; i++)
    for (int flags = 0; flags < 8; flags++) {
      const int block = BLOCKS[i % N_BLOCKS], m = SIZES[i / N_BLOCKS % N_SIZES] / block * block;
      Case p = {.m = m, .n = SIZES[i / N_BLOCKS / N_SIZES], .k = m, .block = block};
      p.a_transposed = flags & 1, p.keep = flags & 2, p.bf16 = flags & 4;
      check(o, p);
      p.causal_c = true, p.a_transposed = p.keep = false, p.n = m, p.k = SIZES[i / N_BLOCKS / N_SIZES];
      p.b_transposed = p.bf16;
      check(o, p);
    }
  free(o);
}

Test(tile, transposes) {
  static float from[LD * LD], to[LD * LD];
  for (int i = 0; i < LD * LD; i++) from[i] = (float)i;
  for (int a = 0; a < N_SIZES; a++)
    for (int b = 0; b < N_SIZES; b++) {
      tile_transpose(SIZES[a], SIZES[b], from, LD, to, LD);
      for (int i = 0; i < SIZES[a]; i++)
        for (int j = 0; j < SIZES[b]; j++)
          cr_assert_eq(to[j * LD + i], from[i * LD + j], "%d x %d: [%d][%d]", SIZES[a], SIZES[b], i, j);
    }
}
