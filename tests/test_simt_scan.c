/* The CUDA scan, run on the host thread by thread (tests/simt), held to the double definition over the list of shapes that
 * every kernel of ssd_scan is held to, float32 and BF16, and to its own bits under other orders of threads, warps and
 * blocks: twenty where a shape is small, fewer where it is large. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/simt/simt.h"
#include "tests/support/scan_shapes.h"

/* As tests/test_scan_builds.c derives them: of float32 sums of some thousand products; of BF16 products, whose factors are
 * rounded by 2^-8 along a chain of two or three; five times that for the gradients of angles, which are what is left of sums
 * that nearly cancel, and of dt, which turns, too. */
static const double F32_TOLERANCE = 1.5e-5, BF16_TOLERANCE = 5.0 / 256, TURN_FACTOR = 5, LONG_FACTOR = 10;
static double tolerance_of(const ScanResult *result, Dtype act) {
  const bool turns = strcmp(result->name, "dangle") == 0 || strcmp(result->name, "ddt") == 0;
  const bool sums_all = strcmp(result->name, "dangle_in") == 0; /* over some thousand tokens, each with its rounding */
  return (act == F32 ? F32_TOLERANCE : BF16_TOLERANCE) * (turns ? TURN_FACTOR : sums_all ? LONG_FACTOR : 1);
}

static double largest(const Tensor *t) {
  double max = 0;
  for (int64_t i = 0; i < tensor_count(t); i++) max = fmax(max, fabs(tensor_get(t, i)));
  return max;
}

static void assert_close(const char *shape, const ScanResult *got, const ScanResult *want, Dtype act) {
  const double scale = got->angle ? 6.3 : largest(want->tensor), tolerance = tolerance_of(got, act);
  for (int64_t i = 0; i < tensor_count(want->tensor); i++) {
    const double a = tensor_get(got->tensor, i), b = tensor_get(want->tensor, i);
    const double off = fabs(got->angle ? remainder(a - b, 6.283185307179586) : a - b);
    cr_assert(off <= tolerance * scale, "%s, %s: %s[%lld] is %.9g, expected %.9g (off by %.2g of the largest)", shape,
              dtype_name(act), got->name, (long long)i, a, b, off / scale);
  }
}

/* Rows of k and q that a block goes through. */
static int64_t work_of(const ScanShape *shape) {
  int64_t n_t = 0;
  for (int i = 0; shape->lengths[i]; i++) n_t += shape->lengths[i];
  return n_t * shape->n_h * shape->n_r;
}
static int orders_of(const ScanShape *shape, Dtype act) {
  const int64_t work = work_of(shape);
#ifdef __SANITIZE_ADDRESS__ /* which is after memory, and slow */
  return work <= 150 ? 2 : work <= 600 && act == BF16 ? 1 : 0;
#else
  return work <= 150 ? 20 : work <= 600 && act == F32 ? 2 : 1;
#endif
}

static void run(ScanCase *c, const char *device, const ScanShape *shape, Dtype real, Dtype act) {
  const Status status = scan_case_run(c, device, shape, real, act);
  cr_assert_eq(status.code, CODE_OK, "%s: %s", shape->name, status.line);
}

static void check(const ScanShape *shape, const ScanCase *want, Dtype act) {
  ScanCase first;
  for (int order = 0; order < orders_of(shape, act); order++) {
    simt_seed((uint64_t)order + 1);
    simt_watch(order == 0);
    ScanCase got;
    run(order == 0 ? &first : &got, simt_device(), shape, F32, act);
    for (int i = 0; i < want->n_results; i++) {
      if (order == 0) assert_close(shape->name, &first.results[i], &want->results[i], act);
      else
        cr_assert(
            !memcmp(first.results[i].tensor->data, got.results[i].tensor->data, tensor_bytes(first.results[i].tensor)),
            "%s, %s: %s depends on the order of threads", shape->name, dtype_name(act), got.results[i].name);
    }
    if (order > 0) scan_case_close(&got);
  }
  if (orders_of(shape, act) > 0) scan_case_close(&first);
}

/* Every shape is in one of the tests, which run side by side. */
static void check_part(int part, int n_parts) {
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 1);
  for (int i = part; i < N_SCAN_SHAPES; i += n_parts) {
    ScanCase want;
    run(&want, "cpu", &SCAN_SHAPES[i], F64, F64);
    check(&SCAN_SHAPES[i], &want, F32);
    check(&SCAN_SHAPES[i], &want, BF16);
    scan_case_close(&want);
  }
}

Test(simt_scan, is_the_definition_in_every_order_even_shapes) { check_part(0, 2); }
Test(simt_scan, is_the_definition_in_every_order_odd_shapes) { check_part(1, 2); }

/* With less shared memory a block takes smaller tiles: as on an RTX 4090. */
Test(simt_scan, is_the_definition_with_little_shared_memory) {
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 1);
  simt_shared(99 << 10);
  for (int i = 0; i < N_SCAN_SHAPES; i++) {
    const ScanShape *shape = &SCAN_SHAPES[i];
    if (shape->n_p * shape->n_n < 2000 || work_of(shape) > 300) continue;
    ScanCase want, got;
    run(&want, "cpu", shape, F64, F64);
    simt_seed((uint64_t)i);
    run(&got, simt_device(), shape, F32, F32);
    for (int r = 0; r < want.n_results; r++) assert_close(shape->name, &got.results[r], &want.results[r], F32);
    scan_case_close(&got);
    scan_case_close(&want);
  }
}

/* What docs/gpu.md says of bits on other cards. Results that sum over the heads of a block, of which a card with fewer
 * processors has more, are B's and C's gradients with their norms' and the angles'. */
static bool sums_over_heads(const char *name) {
  static const char *const NAMES[] = {"dangle", "dB_norm", "dC_norm"};
  for (int i = 0; i < 3; i++)
    if (strcmp(name, NAMES[i]) == 0) return true;
  return false;
}

/* Elements that differ: of what is summed over heads, or of the rest. dx stands in front of dB and dC. */
static int64_t differences(const ScanShape *shape, const ScanCase *a, const ScanCase *b, bool over_heads) {
  int64_t n = 0;
  for (int r = 0; r < a->n_results; r++) {
    const Tensor *x = a->results[r].tensor, *y = b->results[r].tensor;
    const bool is_projection = strcmp(a->results[r].name, "dx, dB, dC") == 0;
    for (int64_t i = 0; i < tensor_count(x); i++) {
      const bool is_shared =
          is_projection ? i % tensor_last(x) >= shape->n_h * shape->n_p : sums_over_heads(a->results[r].name);
      n += is_shared == over_heads && tensor_get(x, i) != tensor_get(y, i);
    }
  }
  return n;
}

Test(simt_scan, bits_depend_on_a_card_by_its_processors_and_its_small_shared_memory_only) {
  if (strcmp(simt_device(), "simt") != 0) return; /* one card */
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 1);
  static const ScanShape SHAPE = {"a layer of 1.3B with four heads",
                                  .n_h = 4,
                                  .n_p = 64,
                                  .n_n = 128,
                                  .n_g = 1,
                                  .n_r = 1,
                                  .n_s = 32,
                                  .chunk = 128,
                                  .mamba3 = true,
                                  .states = STATES_BOTH,
                                  .lengths = {150, 9}};
  static const struct {
    const char *name;
    int processors;
    size_t shared;
  } CARDS[] = {{"H100", 132, 227 << 10},
               {"A100", 108, 163 << 10},
               {"one of four processors", 4, 227 << 10},
               {"RTX 4090", 128, 99 << 10}};
  ScanCase on[4];
  for (int i = 0; i < 4; i++) {
    simt_processors(CARDS[i].processors), simt_shared(CARDS[i].shared);
    run(&on[i], "simt", &SHAPE, F32, F32);
  }
  const bool both[] = {false, true};
  for (int i = 0; i < 2; i++)
    cr_assert_eq(differences(&SHAPE, &on[0], &on[1], both[i]), 0, "%s and %s differ", CARDS[0].name, CARDS[1].name);
  cr_assert_eq(differences(&SHAPE, &on[0], &on[2], false), 0, "%s changes more than sums over heads", CARDS[2].name);
  cr_assert_gt(differences(&SHAPE, &on[0], &on[2], true), 0, "processors change nothing: docs/gpu.md says otherwise");
  cr_assert_gt(differences(&SHAPE, &on[0], &on[3], false), 0, "99 KiB change nothing: docs/gpu.md says otherwise");
  for (int i = 0; i < 4; i++) scan_case_close(&on[i]);
}
