/* Every float build of ssd_scan that this machine runs, held to the double definition over the shared list of shapes. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/scan_shapes.h"

/* A float32 rounds by 2^-24 of its value. An entry is a sum of up to some thousand products of factors that carry a few
 * roundings each; errors of random sign add up like the root of their number: 2^-24 * sqrt(4000) * 4 = 1.5e-5 of the
 * largest entry. */
static const double F32_TOLERANCE = 1.5e-5;
/* Stored as bfloat16 (8 significant bits), an entry is off by up to half a unit of its last place: 2^-8 of it. */
static const double BF16_TOLERANCE = 1.0 / 256 + 1.5e-5;
/* Builds with BF16 products round each factor too, a product by 2^-8; along a chain of two or three products (U, T, dq)
 * errors of random sign come to some 5 * 2^-8 of the largest entry. Gradients of angles are what is left of sums that
 * nearly cancel, because turning all k and q of a tile together changes little: five times that. */
static const double PRODUCT_TOLERANCE = 5.0 / 256, ANGLE_TOLERANCE = 25.0 / 256;
static bool has_bf16_products(const char *build) {
  return strcmp(build, "avx512_bf16") == 0 || strcmp(build, "amx") == 0;
}

static double tolerance_of(const ScanResult *result, const char *build, Dtype act) {
  if (act == F32) return F32_TOLERANCE;
  if (has_bf16_products(build)) return strncmp(result->name, "dangle", 6) == 0 ? ANGLE_TOLERANCE : PRODUCT_TOLERANCE;
  return result->act ? BF16_TOLERANCE : F32_TOLERANCE;
}

static double largest(const Tensor *t) {
  double max = 0;
  for (int64_t i = 0; i < tensor_count(t); i++) max = fmax(max, fabs(tensor_get(t, i)));
  return max;
}

/* |got - want| <= tolerance * the largest |want|; tolerance 0: the same bits */
static void assert_close(const ScanResult *got, const ScanResult *want, double tolerance, const char *what) {
  double scale = got->angle ? 6.3 : largest(want->tensor);
  for (int64_t i = 0; i < tensor_count(want->tensor); i++) {
    double a = tensor_get(got->tensor, i), b = tensor_get(want->tensor, i), off = fabs(a - b);
    if (got->angle) off = fabs(remainder(a - b, 6.283185307179586));
    cr_assert(off <= tolerance * scale, "%s: %s[%lld] is %.9g, expected %.9g (off by %.2g of the largest)", what,
              got->name, (long long)i, a, b, off / scale);
  }
}

static bool open_build(ScanCase *c, const char *build, const ScanShape *shape, Dtype act) {
  setenv("ASPIS_CPU", build, 1);
  Status status = scan_case_run(c, "cpu", shape, F32, act);
  bool runs_here = status.code == CODE_OK;
  cr_assert(runs_here || status.code == CODE_USAGE, "%s, %s: %s", build, shape->name, status.line);
  status_clear(&status);
  return runs_here;
}

/* -> how many builds this machine runs */
static int check_shape(const ScanShape *shape, Dtype act) {
  int n_builds = 0;
  ScanCase want;
  unsetenv("ASPIS_CPU");
  Status status = scan_case_run(&want, "cpu", shape, F64, F64);
  cr_assert_eq(status.code, CODE_OK, "%s: %s", shape->name, status.line);
  for (int b = 0; device_cpu_build(b); b++) {
    ScanCase got;
    if (!open_build(&got, device_cpu_build(b), shape, act)) continue;
    n_builds++;
    cr_assert_eq(got.n_results, want.n_results, "%s: other results", shape->name);
    for (int r = 0; r < want.n_results; r++) {
      char what[160];
      snprintf(what, sizeof what, "%s, %s, %s", shape->name, device_cpu_build(b), dtype_name(act));
      assert_close(&got.results[r], &want.results[r], tolerance_of(&want.results[r], device_cpu_build(b), act), what);
    }
    scan_case_close(&got);
  }
  scan_case_close(&want);
  return n_builds;
}

static void check_builds(Dtype act) {
  for (int i = 0; i < N_SCAN_SHAPES; i++)
    cr_assert_geq(check_shape(&SCAN_SHAPES[i], act), 1, "%s: the generic build did not run it", SCAN_SHAPES[i].name);
}

Test(scan_builds, float32_agrees_with_the_definition) { check_builds(F32); }
Test(scan_builds, bfloat16_agrees_with_the_definition) { check_builds(BF16); }

/* 8.1 MiB of them, which the shared list has nowhere: they go past the caches. */
Test(scan_builds, many_states_agree_with_the_definition) {
  static const ScanShape MANY = {"65 chunks of four heads of 64, d_state 128",
                                 .n_h = 4,
                                 .n_p = 64,
                                 .n_n = 128,
                                 .n_g = 1,
                                 .n_r = 1,
                                 .chunk = 4,
                                 .lengths = {258}};
  cr_assert_geq(check_shape(&MANY, F32), 1, "the generic build did not run it");
}

static void check_threads(Dtype act) {
  static const int THREADS[] = {2, 3, 7};
  for (int i = 0; i < N_SCAN_SHAPES; i++)
    for (int b = 0; device_cpu_build(b); b++) {
      ScanCase want, got;
      omp_set_num_threads(1);
      if (!open_build(&want, device_cpu_build(b), &SCAN_SHAPES[i], act)) continue;
      omp_set_num_threads(THREADS[i % 3]);
      open_build(&got, device_cpu_build(b), &SCAN_SHAPES[i], act);
      char what[160];
      snprintf(what, sizeof what, "%s, %s, %s, %d threads", SCAN_SHAPES[i].name, device_cpu_build(b), dtype_name(act),
               THREADS[i % 3]);
      for (int r = 0; r < want.n_results; r++) assert_close(&got.results[r], &want.results[r], 0, what);
      scan_case_close(&got);
      scan_case_close(&want);
    }
}

Test(scan_builds, thread_count_changes_no_bit_of_float32) { check_threads(F32); }
Test(scan_builds, thread_count_changes_no_bit_of_bfloat16) { check_threads(BF16); }
