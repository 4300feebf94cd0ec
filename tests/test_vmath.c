/* The elementary functions of the float kernels (tensor/cpu/vmath.h): their stated errors over the whole range, their
 * ends, NaN. Built twice: for the baseline processor, and with fused multiply-add. */
#include <criterion/criterion.h>
#include <math.h>

#include "tensor/cpu/vmath.h"

/* Tests of a build for a newer processor than this one have nothing to run on. */
static bool runs_here(void) {
#if defined(__x86_64__) && defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

static float sine(float x) {
  float s, c;
  return real_sincos(x, &s, &c), s;
}
static float cosine(float x) {
  float s, c;
  return real_sincos(x, &s, &c), c;
}
static double exact_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double exact_softplus(double x) { return x > 20 ? x : log1p(exp(x)); }
static double exact_dsoftplus(double x) { return x > 20 ? 1 : exact_sigmoid(x); }
static double exact_silu(double x) { return x * exact_sigmoid(x); }

typedef struct Function {
  const char *name;
  float (*function)(float x);
  double (*exact)(double x);
  double lowest, highest; /* of the arguments */
  double fused, unfused;  /* the stated error, in ulp */
} Function;

static const Function FUNCTIONS[] = {
    {"exp", real_exp, exp, -86.9, 88.72, 1, 2},
    {"log1p on [0, 1]", real_log1p_unit, log1p, 0, 1, 2, 2},
    {"sigmoid", real_sigmoid, exact_sigmoid, -86.9, 1e6, 3, 3},
    {"silu", real_silu, exact_silu, -86, 1e6, 4, 4},
    {"softplus", real_softplus, exact_softplus, -86.9, 1e6, 3, 3},
    {"dsoftplus", real_dsoftplus, exact_dsoftplus, -86.9, 1e6, 3, 3},
    {"tanh", real_tanh, tanh, -1e6, 1e6, 2, 2},
    {"sin on [0, 2 pi]", sine, sin, 0, 6.28318530717958648, 2, 2},
    {"cos on [0, 2 pi]", cosine, cos, 0, 6.28318530717958648, 2, 2},
    {"sin", sine, sin, -100, 100, 3, 3},
    {"cos", cosine, cos, -100, 100, 3, 3},
};

static double ulp(double exact) {
  int exponent;
  frexp(fmax(fabs(exact), 0x1p-126), &exponent);
  return ldexp(1, exponent - 24);
}

/* Steps through the floats of a sign by their bits, so that every magnitude is met. */
enum { BIT_STRIDE = 1009 };

static void sweep(const Function *f, double limit) {
  double worst = 0;
  float worst_at = 0;
  for (uint32_t bits = 0; bits < 0x7f800000u; bits += BIT_STRIDE)
    for (uint32_t sign = 0; sign < 2; sign++) {
      const RealBits x = {.u = bits | sign << 31};
      if (x.f < f->lowest || x.f > f->highest) continue;
      const double exact = f->exact(x.f), error = fabs(f->function(x.f) - exact) / ulp(exact);
      if (!(error <= worst)) worst = error, worst_at = x.f;
    }
  cr_assert(worst <= limit, "%s: off by %.3f ulp at %.9g, stated: %g", f->name, worst, worst_at, limit);
}

Test(vmath, errors_are_within_what_is_stated) {
  if (!runs_here()) cr_skip_test("this processor lacks AVX2 or FMA");
  for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++)
    sweep(&FUNCTIONS[i], REAL_FUSED ? FUNCTIONS[i].fused : FUNCTIONS[i].unfused);
}

Test(vmath, nan_stays_nan) {
  if (!runs_here()) cr_skip_test("this processor lacks AVX2 or FMA");
  for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++)
    cr_assert(isnan(FUNCTIONS[i].function(NAN)), "%s of NaN is %g", FUNCTIONS[i].name, FUNCTIONS[i].function(NAN));
}

Test(vmath, ends_are_exact) {
  if (!runs_here()) cr_skip_test("this processor lacks AVX2 or FMA");
  static const struct {
    const char *name;
    float (*function)(float x);
    float x, expected;
  } ENDS[] = {
      {"exp", real_exp, 0, 1},
      {"exp", real_exp, -INFINITY, 0},
      {"exp", real_exp, INFINITY, INFINITY},
      {"exp", real_exp, -88, 0},
      {"exp", real_exp, 88.8f, INFINITY},
      {"log1p", real_log1p_unit, 0, 0},
      {"sigmoid", real_sigmoid, 0, 0.5f},
      {"sigmoid", real_sigmoid, -INFINITY, 0},
      {"sigmoid", real_sigmoid, INFINITY, 1},
      {"silu", real_silu, 0, 0},
      {"softplus", real_softplus, -INFINITY, 0},
      {"softplus", real_softplus, INFINITY, INFINITY},
      {"softplus", real_softplus, 21, 21},
      {"tanh", real_tanh, 0, 0},
      {"tanh", real_tanh, -INFINITY, -1},
      {"tanh", real_tanh, INFINITY, 1},
      {"sin", sine, 0, 0},
      {"cos", cosine, 0, 1},
  };
  for (size_t i = 0; i < sizeof ENDS / sizeof *ENDS; i++) {
    const float y = ENDS[i].function(ENDS[i].x);
    cr_assert(y == ENDS[i].expected, "%s of %g is %.9g, expected %g", ENDS[i].name, ENDS[i].x, y, ENDS[i].expected);
  }
}

Test(vmath, sine_and_cosine_keep_their_absolute_error_far_out) {
  if (!runs_here()) cr_skip_test("this processor lacks AVX2 or FMA");
  for (double x = -1000; x <= 1000; x += 0.00037) {
    const float argument = (float)x;
    const double error = fmax(fabs(sine(argument) - sin(argument)), fabs(cosine(argument) - cos(argument)));
    cr_assert(error <= 0x1p-23, "off by %.3g at %.9g", error, argument);
  }
}
