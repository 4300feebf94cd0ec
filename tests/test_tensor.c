/* The ground everything stands on: arenas, tensors and views, bfloat16, random numbers. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "tensor/tensor.h"

static Arena arena_of(size_t bytes) {
  Arena arena;
  Status status = arena_open(&arena, "test", bytes);
  cr_assert(status.code == CODE_OK, "arena of %zu bytes: %s", bytes, status.line);
  return arena;
}

Test(status, shows_what_it_quotes_without_control_characters) {
  Status status = status_fail(CODE_DATA, "a.csv: found \"%s\",\n  \xc3\xa9", "\x1b[2J\a\t\x7f");
  cr_assert_str_eq(status.line, "a.csv: found \"?[2J???\",\n  \xc3\xa9");
  status_clear(&status);
}

Test(arena, hands_out_aligned_memory_and_takes_it_back) {
  Arena arena = arena_of(1 << 16);
  char *first = arena_alloc(&arena, 3);
  size_t mark = arena_mark(&arena);
  char *second = arena_alloc(&arena, 1000);
  memset(second, 1, 1000);
  cr_assert((uintptr_t)first % ARENA_ALIGN == 0 && (uintptr_t)second % ARENA_ALIGN == 0, "unaligned memory");
  cr_assert(second >= first + 3, "allocations overlap");
  size_t used = arena.used_bytes;
  arena_rewind(&arena, mark);
  cr_assert(arena.used_bytes == mark && arena.peak_bytes == used, "rewound to %zu, peak %zu", arena.used_bytes,
            arena.peak_bytes);
  cr_assert(arena_alloc(&arena, 10) == second, "rewound memory is not used again");
  arena_close(&arena);
}

Test(arena, dry_one_counts_as_a_real_one_and_has_real_headers) {
  Arena real = arena_of(1 << 20), dry;
  arena_open_dry(&dry, "test");
  Arena *arenas[] = {&real, &dry};
  for (int i = 0; i < 2; i++) {
    Tensor *t = tensor_new2(arenas[i], F32, 17, 33);
    cr_assert(t->dim[0] == 17 && tensor_count(t) == 17 * 33, "header of arena %d", i);
  }
  cr_assert(real.used_bytes == dry.used_bytes, "real %zu bytes, dry %zu", real.used_bytes, dry.used_bytes);
  arena_close(&real);
  arena_close(&dry);
}

Test(tensor, views_share_memory_at_the_right_places) {
  Arena arena = arena_of(1 << 20);
  Tensor *t = tensor_new2(&arena, F32, 6, 5);
  for (int64_t i = 0; i < 30; i++) tensor_set(t, i, (double)i);
  Tensor *columns = tensor_cols(&arena, t, 2, 3), *rows = tensor_every(&arena, t, 1, 2, 3);
  for (int64_t i = 0; i < 9; i++)
    cr_assert(tensor_get(columns, i) == (double)(i / 3 * 5 + 2 + i % 3), "columns: element %lld is %g", (long long)i,
              tensor_get(columns, i));
  for (int64_t i = 0; i < 15; i++)
    cr_assert(tensor_get(rows, i) == (double)((1 + i / 5 * 2) * 5 + i % 5), "rows: element %lld is %g", (long long)i,
              tensor_get(rows, i));
  tensor_zero(columns);
  for (int64_t i = 0; i < 30; i++)
    cr_assert(tensor_get(t, i) == (i % 5 >= 2 ? 0 : (double)i), "zeroed columns: element %lld of the base is %g",
              (long long)i, tensor_get(t, i));
  cr_assert(!tensor_contiguous(columns) && tensor_contiguous(t), "which of base and view is contiguous");
  arena_close(&arena);
}

Test(tensor, same_view_of_another_tensor_lies_where_the_view_does) {
  Arena arena = arena_of(1 << 20);
  Tensor *t = tensor_new2(&arena, BF16, 6, 5), *other = tensor_new2(&arena, F32, 6, 5);
  Tensor *views[] = {tensor_cols(&arena, t, 1, 2), tensor_every(&arena, t, 2, 3, 2)};
  for (int v = 0; v < 2; v++) {
    tensor_zero(t);
    tensor_zero(other);
    Tensor *same = tensor_same_view(&arena, views[v], other);
    cr_assert(tensor_same_shape(same, views[v]), "view %d: %s", v, tensor_shape_text(same));
    for (int64_t i = 0; i < tensor_count(same); i++) tensor_set(same, i, 1), tensor_set(views[v], i, 1);
    for (int64_t i = 0; i < 30; i++)
      cr_assert(tensor_get(t, i) == tensor_get(other, i), "view %d: element %lld of the base", v, (long long)i);
  }
  arena_close(&arena);
}

Test(tensor, copies_between_types_and_views) {
  Arena arena = arena_of(1 << 20);
  static const Dtype DTYPES[] = {F32, BF16, F64};
  for (int from = 0; from < 3; from++)
    for (int to = 0; to < 3; to++) {
      Tensor *a = tensor_new2(&arena, DTYPES[from], 3, 4), *b = tensor_new2(&arena, DTYPES[to], 3, 9);
      Tensor *view = tensor_cols(&arena, b, 5, 4);
      for (int64_t i = 0; i < 12; i++) tensor_set(a, i, (double)i / 4 - 1); /* exact in bfloat16 */
      tensor_copy(view, a);
      for (int64_t i = 0; i < 12; i++)
        cr_assert(tensor_get(view, i) == (double)i / 4 - 1, "%s to %s: element %lld is %g", dtype_name(DTYPES[from]),
                  dtype_name(DTYPES[to]), (long long)i, tensor_get(view, i));
    }
  arena_close(&arena);
}

static float float_of(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

Test(bf16, rounds_to_nearest_even_and_keeps_nan_and_infinity) {
  static const struct {
    uint32_t from;
    uint16_t to;
  } CASES[] = {
      {0x3f800000, 0x3f80}, /* 1 */
      {0x3f808000, 0x3f80}, /* half way, even below */
      {0x3f808001, 0x3f81}, /* above half */
      {0x3f818000, 0x3f82}, /* half way, even above */
      {0x3f807fff, 0x3f80}, /* below half */
      {0x7f7fffff, 0x7f80}, /* the largest float rounds to infinity */
      {0x7f800000, 0x7f80}, /* infinity */
      {0xff800000, 0xff80}, {0x80000000, 0x8000}, {0x00000001, 0x0000}, {0x7fc00000, 0x7fc0}, /* NaN */
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
    cr_assert(bf16_from_float(float_of(CASES[i].from)) == CASES[i].to, "%08x to %04x, expected %04x", CASES[i].from,
              bf16_from_float(float_of(CASES[i].from)), CASES[i].to);
  static const uint32_t NANS[] = {0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0x7f80ffff};
  for (size_t i = 0; i < sizeof NANS / sizeof *NANS; i++)
    cr_assert(isnan(bf16_to_float(bf16_from_float(float_of(NANS[i])))), "NaN %08x is lost", NANS[i]);
}

Test(bf16, every_value_survives_the_way_through_float) {
  for (uint32_t h = 0; h < 0x10000; h++) {
    const float f = bf16_to_float((uint16_t)h);
    if (!isnan(f)) cr_assert(bf16_from_float(f) == h, "%04x came back as %04x", h, bf16_from_float(f));
  }
}

/* The known answers of the authors' library (Random123, kat_vectors). */
Test(rng, philox_gives_the_known_answers) {
  static const struct {
    uint32_t counter[4], key[2], expected[4];
  } CASES[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    uint32_t out[4];
    philox4x32(CASES[i].counter, CASES[i].key, out);
    cr_assert(memcmp(out, CASES[i].expected, sizeof out) == 0, "case %zu: %08x %08x %08x %08x", i, out[0], out[1],
              out[2], out[3]);
  }
}

Test(rng, streams_and_objects_are_different_and_repeat) {
  static const struct {
    uint64_t seed, b;
    RngStream stream;
    uint32_t a;
  } KEYS[] = {{1, 0, RNG_INIT, 0}, {2, 0, RNG_INIT, 0}, {1, 1, RNG_INIT, 0},
              {1, 0, RNG_TASK, 0}, {1, 0, RNG_INIT, 1}, {1, (uint64_t)1 << 32, RNG_INIT, 0}};
  enum { N = sizeof KEYS / sizeof *KEYS };
  uint32_t first[N][8];
  for (int i = 0; i < N; i++) {
    Rng rng = rng_make(KEYS[i].seed, KEYS[i].stream, KEYS[i].a, KEYS[i].b), again = rng;
    for (int j = 0; j < 8; j++) {
      first[i][j] = rng_u32(&rng);
      cr_assert(rng_u32(&again) == first[i][j], "key %d does not repeat at %d", i, j);
    }
    for (int other = 0; other < i; other++)
      cr_assert(memcmp(first[i], first[other], sizeof first[i]) != 0, "keys %d and %d give the same numbers", i, other);
  }
}

Test(rng, draws_have_the_moments_they_should) {
  enum { N = 100000 };
  Rng rng = rng_make(7, RNG_TEST, 0, 0);
  double uniform = 0, mean = 0, square = 0, fourth = 0;
  int below[3] = {0};
  for (int i = 0; i < N; i++) {
    const double u = rng_uniform(&rng), z = rng_normal(&rng);
    cr_assert(u >= 0 && u < 1, "uniform draw %d is %g", i, u);
    uniform += u / N, mean += z / N, square += z * z / N, fourth += z * z * z * z / N;
    below[rng_below(&rng, 3)]++;
  }
  /* bounds of five standard deviations */
  cr_assert(fabs(uniform - 0.5) < 5 * 0.2887 / sqrt(N), "uniform mean %g", uniform);
  cr_assert(fabs(mean) < 5 / sqrt(N), "normal mean %g", mean);
  cr_assert(fabs(square - 1) < 5 * sqrt(2.0 / N), "normal variance %g", square);
  cr_assert(fabs(fourth - 3) < 5 * sqrt(96.0 / N), "normal fourth moment %g", fourth);
  for (int i = 0; i < 3; i++)
    cr_assert(fabs(below[i] - N / 3.0) < 5 * sqrt(N * 2.0 / 9), "%d of %d draws below 3 are %d", below[i], N, i);
}

Test(rng, permute_is_a_bijection_that_differs_between_epochs) {
  static const uint64_t SIZES[] = {1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097};
  for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++) {
    const uint64_t n = SIZES[s];
    bool *seen = base_zalloc(n);
    uint64_t moved = 0;
    for (uint64_t i = 0; i < n; i++) {
      const uint64_t to = rng_permute(5, RNG_SHUFFLE, 0, n, i);
      cr_assert(to < n && !seen[to], "n %llu: %llu goes to %llu, out of range or taken", (unsigned long long)n,
                (unsigned long long)i, (unsigned long long)to);
      seen[to] = true;
      moved += to != rng_permute(5, RNG_SHUFFLE, 1, n, i);
    }
    cr_assert(n < 100 || moved > n / 2, "n %llu: epochs 0 and 1 differ in %llu places only", (unsigned long long)n,
              (unsigned long long)moved);
    free(seen);
  }
}
