/* Matrix products of every layout, as linear and its gradients make them, held to double loops: every pair of types, sizes
 * around the blocks' borders, operands that are columns of wider tensors, every build of the kernels that this machine
 * runs; and the same bits on any number of threads. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "tensor/device.h"
#include "tensor/rng.h"

/* x and w and y; the gradients have the types of what they are gradients of, dw is float. */
typedef struct Types {
  Dtype x, w, y;
} Types;
static const Types TYPES[] = {
    {F32, F32, F32}, {BF16, BF16, BF16}, {BF16, BF16, F32}, {F32, BF16, F32}, {F32, BF16, BF16}};

typedef struct Sizes {
  int n_t, n_in, n_out;
} Sizes;
static const Sizes SIZES[] = {{1, 1, 1},      {1, 70, 3},     {5, 1, 7},      {3, 33, 1},     {9, 5, 1},
                              {17, 31, 65},   {40, 96, 70},   {64, 130, 200}, {129, 385, 63}, {300, 193, 257},
                              {513, 47, 385}, {9, 4200, 1100} /* more than is widened at a time, in k and in n */};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES, N_SIZES = sizeof SIZES / sizeof *SIZES, MARGIN = 3 };

/* false where this machine lacks the build. */
static bool open_device(Device *device, const char *build) {
  if (build) setenv("ASPIS_CPU", build, 1);
  Status status = device_open(device, "cpu", F32, (DeviceSizes){256u << 20, 16u << 20, 64u << 20});
  unsetenv("ASPIS_CPU");
  const bool here = status.code == CODE_OK;
  cr_assert(here || strstr(status.line, "lacks"), "%s", status.line);
  status_clear(&status);
  return here;
}

/* Columns MARGIN to MARGIN + n_cols of a wider tensor; values that BF16 holds. */
static Tensor *randn(Device *device, Dtype dtype, int64_t n_rows, int64_t n_cols, uint64_t seed) {
  Tensor *t = tensor_new2(&device->weights, dtype, n_rows, n_cols + 2 * MARGIN);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < tensor_count(t); i++)
    tensor_set(t, i, bf16_to_float(bf16_from_float((float)rng_normal(&rng))));
  return tensor_cols(&device->weights, t, MARGIN, n_cols);
}

static Tensor *whole(Device *device, Dtype dtype, int64_t n_rows, int64_t n_cols, uint64_t seed) {
  Tensor *t = tensor_new2(&device->weights, dtype, n_rows, n_cols);
  tensor_copy(t, randn(device, dtype, n_rows, n_cols, seed));
  return t;
}

static Linear make(Device *device, Types types, Sizes n, bool biased) {
  Linear p = {.x = randn(device, types.x, n.n_t, n.n_in, 1), .w = whole(device, types.w, n.n_out, n.n_in, 2)};
  if (biased) p.bias = randn(device, F32, 1, n.n_out, 3), p.bias->n_dim = 1, p.bias->dim[0] = n.n_out;
  p.y = randn(device, types.y, n.n_t, n.n_out, 4), p.dy = randn(device, types.y, n.n_t, n.n_out, 5);
  p.dx = randn(device, types.x, n.n_t, n.n_in, 6), p.dw = whole(device, F32, n.n_out, n.n_in, 7);
  return p;
}

/* start (m, n) + A (m, k) B (k, n); the steps are from one k to the next and from a row of A, a column of B to the next. */
static double *double_loop(int m, int n, int k, const Tensor *a, int a_row, int a_k, const Tensor *b, int b_col,
                           int b_k, const Tensor *start, bool start_is_row) {
  double *out = malloc((size_t)(m * n) * sizeof *out), *x = malloc((size_t)tensor_count(a) * sizeof *x);
  double *y = malloc((size_t)tensor_count(b) * sizeof *y);
  for (int64_t i = 0; i < tensor_count(a); i++) x[i] = tensor_get(a, i);
  for (int64_t i = 0; i < tensor_count(b); i++) y[i] = tensor_get(b, i);
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      double sum = start ? tensor_get(start, start_is_row ? j : i * n + j) : 0;
      for (int q = 0; q < k; q++) sum += x[i * a_row + q * a_k] * y[j * b_col + q * b_k];
      out[i * n + j] = sum;
    }
  free(x);
  free(y);
  return out;
}

/* y, dx, dw. All types hold the same values, so this serves them all. */
typedef struct Expected {
  double *y, *dx, *dw;
} Expected;

static Expected expected_of(Device *device, Sizes n, bool biased) {
  const size_t mark = arena_mark(&device->weights);
  const Linear p = make(device, TYPES[0], n, biased);
  const Expected e = {double_loop(n.n_t, n.n_out, n.n_in, p.x, n.n_in, 1, p.w, n.n_in, 1, p.bias, true),
                      double_loop(n.n_t, n.n_in, n.n_out, p.dy, n.n_out, 1, p.w, 1, n.n_in, p.dx, false),
                      double_loop(n.n_out, n.n_in, n.n_t, p.dy, 1, n.n_out, p.x, 1, n.n_in, p.dw, false)};
  arena_rewind(&device->weights, mark);
  return e;
}

/* A sum of k products of some units each, and what it is added to, in float: 2^-24 of their magnitudes an addition. BF16
 * rounds the result by up to 2^-8 of itself, and where there is a bias it stands in y before. */
static void check(const char *build, Sizes n, const char *what, const Tensor *found, const double *expected, int k,
                  const Tensor *bias) {
  for (int64_t i = 0; i < tensor_count(found); i++) {
    const double addend = bias ? tensor_get(bias, i % tensor_last(found)) : 0;
    const double bound = (k + 1) * 1e-6 + (found->dtype == BF16 ? (fabs(expected[i]) + fabs(addend)) / 256 : 0);
    cr_assert(fabs(tensor_get(found, i) - expected[i]) <= bound,
              "%s, %d tokens, %d to %d, %s %s, entry %lld: %g, expected %g within %g", build, n.n_t, n.n_in, n.n_out,
              dtype_name(found->dtype), what, (long long)i, tensor_get(found, i), expected[i], bound);
  }
}

static void check_products(Device *device, const char *build, Types types, Sizes n, bool biased, Expected e) {
  const size_t mark = arena_mark(&device->weights);
  Linear p = make(device, types, n, biased);
  const Linear before = make(device, types, n, biased);
  linear_fwd(device, &p);
  linear_bwd(device, &p);
  check(build, n, "y", p.y, e.y, n.n_in, p.bias);
  check(build, n, "dx", p.dx, e.dx, n.n_out, NULL);
  check(build, n, "dw", p.dw, e.dw, n.n_t, NULL);
  const Tensor *const wide[][2] = {{p.y->base, before.y->base}, {p.dx->base, before.dx->base}};
  for (int v = 0; v < 2; v++) /* the neighbours of a view stay what they were */
    for (int64_t i = 0; i < tensor_count(wide[v][0]); i++) {
      const int64_t width = tensor_last(wide[v][0]), col = i % width;
      if (col >= MARGIN && col < width - MARGIN) continue;
      cr_assert(tensor_get(wide[v][0], i) == tensor_get(wide[v][1], i), "%s: wrote beside %s", build, v ? "dx" : "y");
    }
  arena_rewind(&device->weights, mark);
}

Test(product, every_build_type_layout_and_size_is_the_double_loop) {
  for (int s = 0; s < N_SIZES; s++) {
    Expected e = {NULL, NULL, NULL};
    for (int b = 0; device_cpu_build(b); b++) {
      Device device;
      if (!open_device(&device, device_cpu_build(b))) continue;
      if (!e.y) e = expected_of(&device, SIZES[s], s % 2);
      for (int i = 0; i < N_TYPES; i++) check_products(&device, device_cpu_build(b), TYPES[i], SIZES[s], s % 2, e);
      device_close(&device);
    }
    free(e.y);
    free(e.dx);
    free(e.dw);
  }
}

static void copy_results(const Linear *p, double *values) {
  const Tensor *const results[] = {p->y, p->dx, p->dw};
  for (int r = 0; r < 3; r++)
    for (int64_t i = 0; i < tensor_count(results[r]); i++) *values++ = tensor_get(results[r], i);
}

static void check_threads(Device *device, Types types, Sizes n, int threads) {
  const size_t count = (size_t)(n.n_t * n.n_out + n.n_t * n.n_in + n.n_out * n.n_in),
               mark = arena_mark(&device->weights);
  double *one = malloc(count * sizeof *one), *more = malloc(count * sizeof *more);
  Linear alone = make(device, types, n, true), crowd = make(device, types, n, true);
  omp_set_num_threads(1);
  linear_fwd(device, &alone), linear_bwd(device, &alone);
  omp_set_num_threads(threads);
  linear_fwd(device, &crowd), linear_bwd(device, &crowd);
  copy_results(&alone, one), copy_results(&crowd, more);
  cr_assert(memcmp(one, more, count * sizeof *one) == 0, "x %s, w %s, y %s, %d tokens, %d threads", dtype_name(types.x),
            dtype_name(types.w), dtype_name(types.y), n.n_t, threads);
  free(one);
  free(more);
  arena_rewind(&device->weights, mark);
}

Test(product, bits_do_not_depend_on_the_threads) {
  static const Sizes OFTEN[] = {{700, 390, 130}, {50, 390, 130}};
  Device device;
  cr_assert(open_device(&device, NULL), "no device");
  for (int s = 0; s < 2; s++)
    for (int i = 0; i < N_TYPES; i++)
      for (int threads = 2; threads <= 5; threads++) check_threads(&device, TYPES[i], OFTEN[s], threads);
  device_close(&device);
}
