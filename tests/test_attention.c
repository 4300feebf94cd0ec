/* Attention in blocks, held to the formula in plain double loops: sequences that end before, at and after a block's border,
 * shared key heads, rotation, scores so large that only the running maximum keeps e^s finite; every build of the kernels
 * that this machine runs; the same bits on any number of threads. (Gradients: test_gradcheck.) */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "tensor/device.h"
#include "tensor/rng.h"

typedef struct Case {
  int n_heads, n_heads_kv, head_dim, rotary_dim;
  bool interleaved;
  double scale;
  int n_seq;
  int32_t cu_seqlens[5];
} Case;

static const Case CASES[] = {
    {1, 1, 1, 0, false, 1, 1, {0, 1}},
    {2, 1, 5, 4, true, 0.5, 3, {0, 63, 64, 129}},
    {2, 2, 16, 16, false, 0.25, 4, {0, 64, 65, 130, 322}},
    {3, 3, 40, 8, false, 40, 1, {0, 200}}, /* scores of some hundreds */
    {4, 2, 64, 64, false, 0.125, 2, {0, 128, 200}},
};
enum { N_CASES = sizeof CASES / sizeof *CASES, MAX_VALUES = 1 << 18 };

static Device open_device(const char *build, Dtype real) {
  Device device;
  if (build) setenv("ASPIS_CPU", build, 1);
  Status status = device_open(&device, "cpu", real, (DeviceSizes){64u << 20, 64u << 20, 256u << 20});
  unsetenv("ASPIS_CPU");
  if (status.code != CODE_OK) {
    cr_assert(strstr(status.line, "lacks"), "%s", status.line);
    status_clear(&status);
    device.backend = NULL;
  }
  return device;
}

static Tensor *randn(Device *device, Dtype dtype, int64_t n_rows, int64_t n_cols, uint64_t seed) {
  Tensor *t = tensor_new2(&device->weights, dtype, n_rows, n_cols);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < tensor_count(t); i++)
    tensor_set(t, i, bf16_to_float(bf16_from_float((float)rng_normal(&rng))));
  return t;
}

/* Forward and backward of a case; y, dq, dk, dv one after the other into values; returns their number. */
static int run(Device *device, const Case *c, Dtype act, double *values) {
  const int64_t n_t = c->cu_seqlens[c->n_seq], n_q = (int64_t)c->n_heads * c->head_dim;
  const int64_t n_kv = (int64_t)c->n_heads_kv * c->head_dim;
  const size_t mark = arena_mark(&device->weights);
  Attention p = {.n_heads = c->n_heads, .n_heads_kv = c->n_heads_kv, .head_dim = c->head_dim, .scale = c->scale};
  p.rotary_dim = c->rotary_dim, p.rotary_interleaved = c->interleaved, p.rotary_base = 100;
  p.cu_seqlens = tensor_new1(&device->weights, I32, c->n_seq + 1);
  for (int i = 0; i <= c->n_seq; i++) tensor_set(p.cu_seqlens, i, c->cu_seqlens[i]);
  p.q = randn(device, act, n_t, n_q, 1), p.k = randn(device, act, n_t, n_kv, 2), p.v = randn(device, act, n_t, n_kv, 3);
  p.dy = randn(device, act, n_t, n_q, 4);
  p.y = tensor_new2(&device->weights, act, n_t, n_q);
  p.lse = tensor_new2(&device->weights, device->backend->real, n_t, c->n_heads);
  p.dq = tensor_new2(&device->weights, act, n_t, n_q);
  p.dk = tensor_new2(&device->weights, act, n_t, n_kv), p.dv = tensor_new2(&device->weights, act, n_t, n_kv);
  tensor_zero(p.dq), tensor_zero(p.dk), tensor_zero(p.dv);
  attention_fwd(device, &p);
  attention_bwd(device, &p);
  int n = 0;
  const Tensor *const outputs[] = {p.y, p.dq, p.dk, p.dv};
  for (int o = 0; o < 4; o++)
    for (int64_t i = 0; i < tensor_count(outputs[o]); i++) values[n++] = tensor_get(outputs[o], i);
  cr_assert(n <= MAX_VALUES, "%d values", n);
  arena_rewind(&device->weights, mark);
  return n;
}

/* x (T, heads * head_dim) with each head turned by its position's angle times `direction`. */
static double *rotated(const Case *c, const double *x, int n_heads, int direction) {
  const int n_t = c->cu_seqlens[c->n_seq], half = c->rotary_dim / 2, width = n_heads * c->head_dim;
  double *out = malloc((size_t)(n_t * width) * sizeof *out);
  memcpy(out, x, (size_t)(n_t * width) * sizeof *out);
  for (int s = 0; s < c->n_seq; s++)
    for (int t = c->cu_seqlens[s]; t < c->cu_seqlens[s + 1]; t++)
      for (int h = 0; h < n_heads; h++)
        for (int i = 0; i < half; i++) {
          const int at = t * width + h * c->head_dim, a = at + (c->interleaved ? 2 * i : i);
          const int b = at + (c->interleaved ? 2 * i + 1 : i + half);
          const double angle = direction * (t - c->cu_seqlens[s]) * pow(100, -2.0 * i / c->rotary_dim);
          out[a] = x[a] * cos(angle) - x[b] * sin(angle);
          out[b] = x[a] * sin(angle) + x[b] * cos(angle);
        }
  return out;
}

/* The formula, one query at a time. */
static int formula(Device *device, const Case *c, double *values) {
  const int n_t = c->cu_seqlens[c->n_seq], d = c->head_dim, n_q = c->n_heads * d, n_kv = c->n_heads_kv * d;
  const int width[4] = {n_q, n_kv, n_kv, n_q};
  double *in[4], *turned[2], *y = values, *dv = values + n_t * (2 * n_q + n_kv);
  double *dq = calloc((size_t)(n_t * n_q), sizeof *dq), *dk = calloc((size_t)(n_t * n_kv), sizeof *dk);
  for (int i = 0; i < 4; i++) {
    const size_t mark = arena_mark(&device->weights);
    const Tensor *t = randn(device, F64, n_t, width[i], (uint64_t)i + 1);
    in[i] = malloc((size_t)(n_t * width[i]) * sizeof(double));
    memcpy(in[i], t->data, (size_t)(n_t * width[i]) * sizeof(double));
    arena_rewind(&device->weights, mark);
  }
  turned[0] = rotated(c, in[0], c->n_heads, 1), turned[1] = rotated(c, in[1], c->n_heads_kv, 1);
  memset(values, 0, (size_t)(2 * n_t * (n_q + n_kv)) * sizeof *values);
  double *prob = malloc((size_t)n_t * sizeof *prob), *dprob = malloc((size_t)n_t * sizeof *dprob);
  for (int s = 0; s < c->n_seq; s++)
    for (int t = c->cu_seqlens[s]; t < c->cu_seqlens[s + 1]; t++)
      for (int h = 0; h < c->n_heads; h++) {
        const int first = c->cu_seqlens[s], q = t * n_q + h * d, of_kv = h / (c->n_heads / c->n_heads_kv) * d;
        double largest = -INFINITY, sum = 0, mean = 0;
        for (int j = first; j <= t; j++) {
          prob[j] = 0, dprob[j] = 0;
          for (int i = 0; i < d; i++) prob[j] += c->scale * turned[0][q + i] * turned[1][j * n_kv + of_kv + i];
          for (int i = 0; i < d; i++) dprob[j] += in[3][q + i] * in[2][j * n_kv + of_kv + i];
          largest = fmax(largest, prob[j]);
        }
        for (int j = first; j <= t; j++) sum += prob[j] = exp(prob[j] - largest);
        for (int j = first; j <= t; j++) mean += (prob[j] /= sum) * dprob[j];
        for (int j = first; j <= t; j++)
          for (int i = 0; i < d; i++) {
            const int kv = j * n_kv + of_kv + i;
            const double dscore = c->scale * prob[j] * (dprob[j] - mean);
            y[q + i] += prob[j] * in[2][kv];
            dv[kv] += prob[j] * in[3][q + i];
            dq[q + i] += dscore * turned[1][kv];
            dk[kv] += dscore * turned[0][q + i];
          }
      }
  double *back_q = rotated(c, dq, c->n_heads, -1), *back_k = rotated(c, dk, c->n_heads_kv, -1);
  memcpy(values + n_t * n_q, back_q, (size_t)(n_t * n_q) * sizeof *values);
  memcpy(values + 2 * n_t * n_q, back_k, (size_t)(n_t * n_kv) * sizeof *values);
  double *const all[] = {in[0], in[1], in[2], in[3], turned[0], turned[1], dq, dk, prob, dprob, back_q, back_k};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return 2 * n_t * (n_q + n_kv);
}

/* The largest difference relative to the root mean square of the part (y, dq, dk or dv) it is in. */
static double distance(const Case *c, const double *a, const double *b) {
  const int n_t = c->cu_seqlens[c->n_seq], n_q = n_t * c->n_heads * c->head_dim,
            n_kv = n_t * c->n_heads_kv * c->head_dim;
  const int size[4] = {n_q, n_q, n_kv, n_kv};
  double worst = 0;
  for (int part = 0, at = 0; part < 4; at += size[part++]) {
    double square = 0, largest = 0;
    for (int i = at; i < at + size[part]; i++) {
      const double e = fabs(a[i] - b[i]);
      square += b[i] * b[i];
      if (!(e <= largest)) largest = e; /* NaN too */
    }
    if (largest > 0) largest /= sqrt(square / size[part]);
    if (!(largest <= worst)) worst = largest;
  }
  return worst;
}

static double got[MAX_VALUES], expected[MAX_VALUES];

Test(attention, blocks_in_double_are_the_formula) {
  Device device = open_device(NULL, F64);
  for (int i = 0; i < N_CASES; i++) {
    const int n = formula(&device, &CASES[i], expected);
    cr_assert(run(&device, &CASES[i], F64, got) == n, "case %d", i);
    cr_assert(distance(&CASES[i], got, expected) < 1e-11, "case %d: off by %g", i, distance(&CASES[i], got, expected));
  }
  device_close(&device);
}

/* Float: scores up to about 10 (case 3: 1000) carry a rounding of 2^-24 of that times a few, which is the relative error
 * of p, and the largest entry is some ten times the root mean square: 2e-5 (2e-3). BF16: y, dq, dk and dv are stored with 8 bits, and
 * backward's dy . y is that of the stored y. */
Test(attention, every_build_is_close_to_the_formula) {
  Device twin = open_device(NULL, F64);
  for (int b = 0; device_cpu_build(b); b++) {
    Device device = open_device(device_cpu_build(b), F32);
    if (!device.backend) continue;
    for (int i = 0; i < N_CASES; i++) {
      formula(&twin, &CASES[i], expected);
      const double large = CASES[i].scale > 1 ? 100 : 1;
      run(&device, &CASES[i], F32, got);
      double off = distance(&CASES[i], got, expected);
      cr_assert(off < 2e-5 * large, "%s, case %d, f32: off by %g", device_cpu_build(b), i, off);
      run(&device, &CASES[i], BF16, got);
      off = distance(&CASES[i], got, expected);
      if (large == 1) cr_assert(off < 0.05, "%s, case %d, bf16: off by %g", device_cpu_build(b), i, off);
    }
    device_close(&device);
  }
  device_close(&twin);
}

Test(attention, bits_do_not_depend_on_the_threads) {
  Device device = open_device(NULL, F32);
  for (int i = 0; i < N_CASES; i++) {
    omp_set_num_threads(1);
    const int n = run(&device, &CASES[i], F32, expected);
    omp_set_num_threads(5);
    run(&device, &CASES[i], F32, got);
    cr_assert(memcmp(got, expected, (size_t)n * sizeof *got) == 0, "case %d", i);
  }
  device_close(&device);
}
