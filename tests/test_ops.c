/* What the operations promise beside right gradients (test_gradcheck): the same bits on any number of threads, BF16 close
 * to float, views, formulas held to plain loops, and steps of the optimisers to hand computation. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "autograd/ops.h"
#include "tensor/rng.h"

static Device open_device(Dtype real_dtype) {
  Device device;
  Status status = device_open(&device, "cpu", real_dtype, (DeviceSizes){64u << 20, 256u << 20, 256u << 20});
  cr_assert(status.code == CODE_OK, "device: %s", status.line);
  return device;
}

static Tensor *randn(Device *device, Dtype dtype, int64_t n_rows, int64_t n_cols, uint64_t seed) {
  Tensor *t = tensor_new2(&device->weights, dtype, n_rows, n_cols);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < tensor_count(t); i++) tensor_set(t, i, rng_normal(&rng));
  t->needs_grad = true;
  return t;
}

static Tensor *randn1(Device *device, Dtype dtype, int64_t n, uint64_t seed) {
  Tensor *t = randn(device, dtype, 1, n, seed);
  t->n_dim = 1, t->dim[0] = n;
  return t;
}

static Tensor *randn3(Device *device, Dtype dtype, int64_t a, int64_t b, int64_t c, uint64_t seed) {
  Tensor *t = randn(device, dtype, a * b, c, seed);
  t->n_dim = 3, t->dim[0] = a, t->dim[1] = b, t->dim[2] = c;
  return t;
}

static Tensor *ints(Device *device, int64_t n, const int32_t *values) {
  Tensor *t = tensor_new1(&device->weights, I32, n);
  for (int64_t i = 0; i < n; i++) tensor_set(t, i, values[i]);
  return t;
}

/* A permanent gradient of type real, as a parameter has; zero. */
static void give_grad(Device *device, Tensor *t) {
  t->grad = tensor_new(&device->weights, device->backend->real, t->n_dim, t->dim);
  tensor_zero(t->grad);
}

static void seed_grad(Tape *tape, Tensor *out, uint64_t seed) {
  Tensor *grad = tape_grad(tape, out);
  Rng rng = rng_make(seed, RNG_TEST, 1, 0);
  for (int64_t i = 0; i < tensor_count(grad); i++) tensor_set(grad, i, tensor_get(grad, i) + rng_normal(&rng));
}

/* ---- a little model through every operation of this file ------------------------------------------------------------ */

enum { N_T = 150, WIDTH = 96, N_V = 300, N_V_PADDED = 320, N_WEIGHTS = 12, MAX_VALUES = 400000 };

/* Runs it forward and backward; all outputs and gradients, as doubles, into values; returns their number. */
static int64_t run_model(Device *device, Dtype act, double *values) {
  int32_t token[N_T], target[N_T];
  for (int t = 0; t < N_T; t++) token[t] = t * 37 % N_V, target[t] = t % 9 == 4 ? -1 : t * 11 % N_V;
  const size_t weights_mark = arena_mark(&device->weights), step_mark = arena_mark(&device->step);
  Tensor *cu_seqlens = ints(device, 4, (int32_t[]){0, 70, 71, N_T});
  Tensor *w[N_WEIGHTS] = {randn(device, act, N_V_PADDED, WIDTH, 1),  /* embedding */
                          randn1(device, act, WIDTH, 2),             /* norm */
                          randn(device, act, 4 * WIDTH, WIDTH, 3),   /* qkv and gate: 32 x (6 + 3 + 3), rest */
                          randn1(device, act, 4 * WIDTH, 4),         /* its bias */
                          randn3(device, F32, 4, 2, WIDTH / 4, 5),   /* mimo_z */
                          randn3(device, F32, 4, 2, WIDTH / 4, 6),   /* mimo_o */
                          randn1(device, act, WIDTH, 7),             /* gated norm */
                          randn(device, act, 2 * WIDTH, WIDTH, 8),   /* fc1 */
                          randn(device, act, WIDTH, WIDTH, 9),       /* fc2 */
                          randn1(device, act, WIDTH, 10),            /* norm */
                          randn(device, act, N_V_PADDED, WIDTH, 11), /* classifier */
                          randn(device, act, WIDTH, WIDTH, 12)};
  for (int i = 0; i < N_WEIGHTS; i++) {
    if (w[i]->n_dim == 2)
      for (int64_t e = 0; e < tensor_count(w[i]); e++) tensor_set(w[i], e, tensor_get(w[i], e) / sqrt(WIDTH));
    give_grad(device, w[i]);
  }
  Tape tape = tape_make(device, act, true);
  Arena *arena = &device->step;
  Tensor *h = op_embedding(&tape, w[0], ints(device, N_T, token)), *outputs[8];
  int n = 0;
  outputs[n++] = op_rms_norm(&tape, h, w[1], 1e-5);
  Tensor *both = outputs[n++] = op_linear(&tape, outputs[0], w[2], w[3], act);
  Tensor *heads = outputs[n++] = op_attention(&tape, (Attention){.n_heads = 6,
                                                                 .n_heads_kv = 3,
                                                                 .head_dim = 16,
                                                                 .rotary_dim = 8,
                                                                 .rotary_base = 10000,
                                                                 .scale = 0.25,
                                                                 .cu_seqlens = cu_seqlens,
                                                                 .q = tensor_cols(arena, both, 0, 96),
                                                                 .k = tensor_cols(arena, both, 96, 48),
                                                                 .v = tensor_cols(arena, both, 144, 48)})
                                     .y;
  Tensor *gated = op_gated_norm(&tape, (GatedNorm){.norm = GATE_NORM_BEFORE,
                                                   .n_r = 2,
                                                   .n_h = 4,
                                                   .n_p = WIDTH / 4,
                                                   .group = WIDTH / 4,
                                                   .eps = 1e-5,
                                                   .x = tensor_cols(arena, both, 2 * WIDTH, 2 * WIDTH),
                                                   .z = heads,
                                                   .weight = w[6],
                                                   .mimo_z = w[4],
                                                   .mimo_o = w[5]})
                      .out;
  outputs[n++] = gated;
  h = op_residual(&tape, h, gated, NULL);
  Tensor *x = op_rms_norm(&tape, h, w[9], 1e-5);
  Tensor *fc1 = op_linear(&tape, x, w[7], NULL, act);
  Tensor *mlp = op_swiglu(&tape, tensor_cols(arena, fc1, 0, WIDTH), tensor_cols(arena, fc1, WIDTH, WIDTH), NULL);
  outputs[n++] = op_linear(&tape, mlp, w[8], NULL, act);
  x = op_rms_norm(&tape, op_residual(&tape, h, outputs[n - 1], NULL), w[9], 1e-5);
  outputs[n++] = op_cross_entropy(&tape, x, w[10], ints(device, N_T, target), N_V);
  Tensor *series = randn(device, F32, N_T, WIDTH, 13);
  series->needs_grad = false;
  outputs[n++] = op_point_loss(&tape, LOSS_HUBER, 0.7, op_linear(&tape, x, w[11], NULL, F32), series);
  seed_grad(&tape, outputs[n - 2], 20);
  seed_grad(&tape, outputs[n - 1], 21);
  tape_backward(&tape);

  int64_t n_values = 0;
  for (int i = 0; i < n; i++)
    for (int64_t e = 0; e < tensor_count(outputs[i]); e++) values[n_values++] = tensor_get(outputs[i], e);
  for (int i = 0; i < N_WEIGHTS; i++) {
    for (int64_t e = 0; e < tensor_count(w[i]->grad); e++) values[n_values++] = tensor_get(w[i]->grad, e);
    double *squares = &values[n_values++];
    SumSquares sum = {.x = w[i]->grad, .result = squares};
    sum_squares_fwd(device, &sum);
  }
  cr_assert(n_values <= MAX_VALUES, "%lld values", (long long)n_values);
  tape_reset(&tape, step_mark);
  arena_rewind(&device->weights, weights_mark);
  return n_values;
}

static void check_threads(Dtype act) {
  Device device = open_device(F32);
  double *one = base_alloc(MAX_VALUES * sizeof *one), *many = base_alloc(MAX_VALUES * sizeof *many);
  omp_set_num_threads(1);
  const int64_t n = run_model(&device, act, one);
  static const int THREADS[] = {1, 2, 3, 7};
  for (size_t i = 0; i < sizeof THREADS / sizeof *THREADS; i++) {
    omp_set_num_threads(THREADS[i]);
    cr_assert(run_model(&device, act, many) == n, "%s, %d threads: another number of values", dtype_name(act),
              THREADS[i]);
    for (int64_t e = 0; e < n; e++)
      cr_assert(memcmp(&one[e], &many[e], sizeof *one) == 0, "%s, %d threads: value %lld of %lld is %.17g, not %.17g",
                dtype_name(act), THREADS[i], (long long)e, (long long)n, many[e], one[e]);
  }
  free(one);
  free(many);
  device_close(&device);
}

Test(ops, f32_bits_do_not_depend_on_the_number_of_threads) { check_threads(F32); }
Test(ops, bf16_bits_do_not_depend_on_the_number_of_threads) { check_threads(BF16); }

Test(ops, bf16_stays_close_to_f32) {
  Device device = open_device(F32);
  double *f32 = base_alloc(MAX_VALUES * sizeof *f32), *bf16 = base_alloc(MAX_VALUES * sizeof *bf16);
  const int64_t n = run_model(&device, F32, f32);
  cr_assert(run_model(&device, BF16, bf16) == n, "another number of values");
  double difference = 0, size = 0;
  for (int64_t e = 0; e < n; e++) difference += fabs(bf16[e] - f32[e]), size += fabs(f32[e]);
  /* A bfloat16 is right to 2^-9; some ten roundings in a row that do not all point the same way. */
  cr_assert(difference / size < 0.02, "mean relative difference %g", difference / size);
  cr_assert(difference > 0, "the BF16 model computed in float");
  free(f32);
  free(bf16);
  device_close(&device);
}

/* ---- tape and views --------------------------------------------------------------------------------------------------- */

Test(ops, tape_sums_the_gradients_of_a_tensor_used_twice) {
  Device device = open_device(F64);
  Tensor *x = randn(&device, F64, 5, 4, 1), *a = randn(&device, F64, 3, 4, 2), *b = randn(&device, F64, 3, 4, 3);
  Tape tape = tape_make(&device, F64, true);
  Tensor *y = op_linear(&tape, x, a, NULL, F64), *z = op_linear(&tape, x, b, NULL, F64);
  seed_grad(&tape, y, 4);
  seed_grad(&tape, z, 5);
  tape_backward(&tape);
  for (int64_t t = 0; t < 5; t++)
    for (int64_t i = 0; i < 4; i++) {
      double expected = 0;
      for (int64_t o = 0; o < 3; o++)
        expected += tensor_get(y->grad, t * 3 + o) * tensor_get(a, o * 4 + i) +
                    tensor_get(z->grad, t * 3 + o) * tensor_get(b, o * 4 + i);
      cr_assert_float_eq(tensor_get(x->grad, t * 4 + i), expected, 1e-12, "dx (%lld, %lld) is %g, expected %g",
                         (long long)t, (long long)i, tensor_get(x->grad, t * 4 + i), expected);
    }
  device_close(&device);
}

Test(ops, view_of_a_projection_gets_its_gradient_where_it_lies) {
  Device device = open_device(F32);
  Tensor *x = randn(&device, F32, 4, 6, 1), *w = randn(&device, F32, 2, 3, 2);
  Tape tape = tape_make(&device, F32, true);
  Tensor *y = op_linear(&tape, tensor_cols(&device.step, x, 2, 3), w, NULL, F32);
  seed_grad(&tape, y, 3);
  tape_backward(&tape);
  for (int64_t i = 0; i < 24; i++) {
    const bool inside = i % 6 >= 2 && i % 6 < 5;
    cr_assert((tensor_get(x->grad, i) != 0) == inside, "dx at row %lld, column %lld is %g", (long long)i / 6,
              (long long)i % 6, tensor_get(x->grad, i));
  }
  device_close(&device);
}

Test(ops, nothing_is_recorded_for_inputs_without_gradient) {
  Device device = open_device(F32);
  Tensor *x = randn(&device, F32, 4, 6, 1), *w = randn(&device, F32, 2, 6, 2);
  Tape off = tape_make(&device, F32, false);
  Tensor *y = op_linear(&off, x, w, NULL, F32);
  cr_assert(!y->needs_grad && !off.last, "an evaluating tape recorded");
  x->needs_grad = w->needs_grad = false;
  Tape on = tape_make(&device, F32, true);
  y = op_linear(&on, x, w, NULL, F32);
  cr_assert(!y->needs_grad && !on.last, "a product of constants was recorded");
  device_close(&device);
}

/* ---- products ----------------------------------------------------------------------------------------------------------- */

Test(ops, linear_multiplies_every_mix_of_types) {
  Device device = open_device(F32);
  static const Dtype DTYPES[] = {F32, BF16};
  enum { T = 130, IN = 70, OUT = 140 };
  for (int mix = 0; mix < 8; mix++) {
    const Dtype x_dtype = DTYPES[mix & 1], w_dtype = DTYPES[mix >> 1 & 1], y_dtype = DTYPES[mix >> 2];
    Tensor *x = randn(&device, x_dtype, T, IN, 1), *w = randn(&device, w_dtype, OUT, IN, 2);
    Tensor *bias = randn1(&device, w_dtype, OUT, 3);
    give_grad(&device, w);
    give_grad(&device, bias);
    Tape tape = tape_make(&device, BF16, true);
    Tensor *y = op_linear(&tape, x, w, bias, y_dtype);
    seed_grad(&tape, y, 4);
    tape_backward(&tape);
    /* one rounding of the result: 2^-8 of a BF16 number of size 64, or the float sums' */
    const double y_bound = y_dtype == BF16 ? 0.3 : 1e-3, dx_bound = x_dtype == BF16 ? 0.4 : 1e-3;
    for (int64_t t = 0; t < T; t += 13)
      for (int64_t o = 0; o < OUT; o += 7) {
        double sum = tensor_get(bias, o), dx = 0, dw = 0;
        const int64_t i = (t + o) % IN;
        for (int64_t j = 0; j < IN; j++) sum += tensor_get(x, t * IN + j) * tensor_get(w, o * IN + j);
        for (int64_t j = 0; j < OUT; j++) dx += tensor_get(y->grad, t * OUT + j) * tensor_get(w, j * IN + i);
        for (int64_t j = 0; j < T; j++) dw += tensor_get(y->grad, j * OUT + o) * tensor_get(x, j * IN + i);
        cr_assert_float_eq(tensor_get(y, t * OUT + o), sum, y_bound, "%s x %s -> %s: y is %g, expected %g",
                           dtype_name(x_dtype), dtype_name(w_dtype), dtype_name(y_dtype), tensor_get(y, t * OUT + o),
                           sum);
        cr_assert_float_eq(tensor_get(x->grad, t * IN + i), dx, dx_bound, "%s x %s -> %s: dx is %g, expected %g",
                           dtype_name(x_dtype), dtype_name(w_dtype), dtype_name(y_dtype),
                           tensor_get(x->grad, t * IN + i), dx);
        cr_assert_float_eq(tensor_get(w->grad, o * IN + i), dw, 1e-3, "%s x %s -> %s: dw is %g, expected %g",
                           dtype_name(x_dtype), dtype_name(w_dtype), dtype_name(y_dtype),
                           tensor_get(w->grad, o * IN + i), dw);
      }
    double dbias = 0;
    for (int64_t t = 0; t < T; t++) dbias += tensor_get(y->grad, t * OUT + 5);
    cr_assert_float_eq(tensor_get(bias->grad, 5), dbias, 1e-4, "%s x %s -> %s: dbias is %g, expected %g",
                       dtype_name(x_dtype), dtype_name(w_dtype), dtype_name(y_dtype), tensor_get(bias->grad, 5), dbias);
  }
  device_close(&device);
}

/* ---- cross-entropy -------------------------------------------------------------------------------------------------------- */

Test(ops, cross_entropy_is_the_negative_log_likelihood) {
  Device device = open_device(F64);
  enum { T = 6, D = 4, V = 7 };
  Tensor *x = randn(&device, F64, T, D, 1), *w = randn(&device, F64, V + 2, D, 2);
  const int32_t target[T] = {0, 6, -1, 3, 3, 2};
  Tape tape = tape_make(&device, F64, false);
  Tensor *nll = op_cross_entropy(&tape, x, w, ints(&device, T, target), V);
  for (int64_t t = 0; t < T; t++) {
    double logit[V], sum = 0;
    for (int v = 0; v < V; v++) {
      logit[v] = 0;
      for (int i = 0; i < D; i++) logit[v] += tensor_get(x, t * D + i) * tensor_get(w, v * D + i);
      sum += exp(logit[v]);
    }
    const double expected = target[t] < 0 ? 0 : log(sum) - logit[target[t]];
    cr_assert_float_eq(tensor_get(nll, t), expected, 1e-12, "nll of token %lld is %.15g, expected %.15g", (long long)t,
                       tensor_get(nll, t), expected);
  }
  device_close(&device);
}

Test(ops, ignored_targets_and_padded_words_take_no_part) {
  Device device = open_device(F32);
  enum { T = 40, D = 24, V = 50, PADDED = 64 };
  int32_t target[T];
  for (int t = 0; t < T; t++) target[t] = t % 4 == 1 ? CROSS_ENTROPY_IGNORE : t % V;
  Tensor *x = randn(&device, F32, T, D, 1), *w = randn(&device, F32, PADDED, D, 2);
  float first[T];
  for (int run = 0; run < 2; run++) {
    give_grad(&device, w);
    Tape tape = tape_make(&device, F32, true);
    Tensor *nll = op_cross_entropy(&tape, x, w, ints(&device, T, target), V);
    seed_grad(&tape, nll, 3);
    tape_backward(&tape);
    for (int t = 0; t < T; t++) {
      const float value = (float)tensor_get(nll, t);
      if (run == 0) first[t] = value;
      cr_assert(value == first[t], "nll of token %d changes with a padded word: %g, was %g", t, value, first[t]);
      cr_assert((value == 0) == (target[t] < 0), "nll of token %d, target %d, is %g", t, target[t], value);
      for (int i = 0; i < D; i++)
        cr_assert((tensor_get(x->grad, t * D + i) == 0) == (target[t] < 0), "dx of token %d, target %d, is %g", t,
                  target[t], tensor_get(x->grad, t * D + i));
    }
    for (int64_t i = 0; i < PADDED * D; i++)
      cr_assert((tensor_get(w->grad, i) == 0) == (i / D >= V), "dw of word %lld is %g", (long long)i / D,
                tensor_get(w->grad, i));
    for (int64_t i = V * D; i < PADDED * D; i++) tensor_set(w, i, 1e30);
    x->grad = NULL;
  }
  device_close(&device);
}

/* One training step of the classifier: nll, dx and dw as doubles into values; returns their number. */
static int64_t classify(Dtype act, bool known, double *values) {
  Device device = open_device(F32);
  enum { T = 700, D = 40, V = 90 };
  int32_t target[T];
  for (int t = 0; t < T; t++) target[t] = t % 5 == 1 ? CROSS_ENTROPY_IGNORE : t * 7 % V;
  Tensor *x = randn(&device, act, T, D, 1), *w = randn(&device, act, V + 6, D, 2);
  give_grad(&device, w);
  const double dloss = 0.37;
  Tape tape = tape_make(&device, act, true);
  if (known) tape.dloss = &dloss;
  Tensor *nll = op_cross_entropy(&tape, x, w, ints(&device, T, target), V);
  cr_assert(nll->needs_grad == !known && !tape.last == known, "%s: recorded, or not, against what the tape knows",
            dtype_name(act));
  if (!known)
    for (int t = 0; t < T; t++) tensor_set(tape_grad(&tape, nll), t, dloss);
  tape_backward(&tape);
  int64_t n = 0;
  const Tensor *const results[] = {nll, x->grad, w->grad};
  for (int i = 0; i < 3; i++)
    for (int64_t e = 0; e < tensor_count(results[i]); e++) values[n++] = tensor_get(results[i], e);
  cr_assert(device.flops == 3 * 2.0 * T * D * V, "%s, known %d: %g FLOPs", dtype_name(act), known, device.flops);
  device_close(&device);
  return n;
}

Test(ops, cross_entropy_gives_the_same_gradients_at_once_and_afterwards) {
  static const Dtype DTYPES[] = {F32, BF16};
  static double after[MAX_VALUES], at_once[MAX_VALUES];
  for (int k = 0; k < 2; k++) {
    const int64_t n = classify(DTYPES[k], false, after);
    cr_assert(classify(DTYPES[k], true, at_once) == n, "%s: another number of values", dtype_name(DTYPES[k]));
    for (int64_t i = 0; i < n; i++)
      cr_assert(at_once[i] == after[i], "%s: value %lld of %lld is %.9g, not %.9g", dtype_name(DTYPES[k]), (long long)i,
                (long long)n, at_once[i], after[i]);
  }
}

/* ---- norms, gate, attention against plain loops ------------------------------------------------------------------------------ */

static double silu(double x) { return x / (1 + exp(-x)); }

Test(ops, gated_norm_follows_its_formula) {
  Device device = open_device(F64);
  enum { T = 3, H = 2, P = 4, E = H * P, RANKS = 2 };
  Tensor *x = randn(&device, F64, T, RANKS * E, 1), *z = randn(&device, F64, T, E, 2), *w = randn1(&device, F64, E, 3);
  Tensor *mimo_z = randn3(&device, F64, H, RANKS, P, 4), *mimo_o = randn3(&device, F64, H, RANKS, P, 5);
  Tape tape = tape_make(&device, F64, false);
  for (GateNorm norm = GATE_NORM_NONE; norm <= GATE_NORM_BEFORE; norm++)
    for (int group = P; group <= E; group += P) {
      Tensor *out = op_gated_norm(&tape, (GatedNorm){.norm = norm,
                                                     .n_r = RANKS,
                                                     .n_h = H,
                                                     .n_p = P,
                                                     .group = group,
                                                     .eps = 1e-5,
                                                     .x = x,
                                                     .z = z,
                                                     .weight = norm == GATE_NORM_NONE ? NULL : w,
                                                     .mimo_z = mimo_z,
                                                     .mimo_o = mimo_o})
                        .out;
      for (int64_t t = 0; t < T; t++)
        for (int e = 0; e < E; e++) {
          double expected = 0;
          for (int r = 0; r < RANKS; r++) {
            double square = 0, at_e = 0, gate_e = 0;
            for (int i = e / group * group; i < e / group * group + group; i++) {
              const int64_t mimo = (i / P * RANKS + r) * P + i % P;
              const double gate = silu(tensor_get(z, t * E + i) * tensor_get(mimo_z, mimo));
              double u = tensor_get(x, (t * RANKS + r) * E + i);
              if (norm != GATE_NORM_BEFORE) u *= gate;
              square += u * u;
              if (i == e) at_e = u, gate_e = gate;
            }
            double o = at_e;
            if (norm != GATE_NORM_NONE) o *= tensor_get(w, e) / sqrt(square / group + 1e-5);
            if (norm == GATE_NORM_BEFORE) o *= gate_e;
            expected += o * tensor_get(mimo_o, (e / P * RANKS + r) * P + e % P);
          }
          cr_assert_float_eq(tensor_get(out, t * E + e), expected, 1e-12, "norm %d, group %d: (%lld, %d) is %g, not %g",
                             norm, group, (long long)t, e, tensor_get(out, t * E + e), expected);
        }
    }
  device_close(&device);
}

Test(ops, rms_norm_follows_its_formula) {
  Device device = open_device(F64);
  enum { T = 4, D = 6 };
  Tensor *x = randn(&device, F64, T, D, 1), *w = randn1(&device, F64, D, 3);
  Tape tape = tape_make(&device, F64, false);
  Tensor *y = op_rms_norm(&tape, x, w, 1e-5);
  for (int64_t t = 0; t < T; t++) {
    double square = 0;
    for (int i = 0; i < D; i++) square += tensor_get(x, t * D + i) * tensor_get(x, t * D + i);
    for (int i = 0; i < D; i++) {
      const double expected = tensor_get(x, t * D + i) / sqrt(square / D + 1e-5) * tensor_get(w, i);
      cr_assert_float_eq(tensor_get(y, t * D + i), expected, 1e-12, "y (%lld, %d) is %g, expected %g", (long long)t, i,
                         tensor_get(y, t * D + i), expected);
    }
  }
  device_close(&device);
}

/* Entry i of a head's vector at position pos, rotated; x points at the head. */
static double rotated(const Tensor *x, int64_t at, int i, int64_t pos, int rotary_dim, bool interleaved) {
  if (i >= rotary_dim) return tensor_get(x, at + i);
  const int half = rotary_dim / 2, pair = interleaved ? i / 2 : i % half;
  const bool second = interleaved ? i % 2 : i >= half;
  const int other = interleaved ? i ^ 1 : (i + half) % rotary_dim;
  const double angle = (double)pos * pow(100, -2.0 * pair / rotary_dim);
  const double a = tensor_get(x, at + i), b = tensor_get(x, at + other);
  return second ? b * sin(angle) + a * cos(angle) : a * cos(angle) - b * sin(angle);
}

Test(ops, attention_follows_its_formula) {
  Device device = open_device(F64);
  enum { T = 9, HEADS = 4, KV = 2, WIDTH_HEAD = 6, ROTARY = 4 };
  const int32_t start[] = {0, 4, 5, T};
  Tensor *q = randn(&device, F64, T, HEADS * WIDTH_HEAD, 1), *k = randn(&device, F64, T, KV * WIDTH_HEAD, 2);
  Tensor *v = randn(&device, F64, T, KV * WIDTH_HEAD, 3);
  Tape tape = tape_make(&device, F64, false);
  for (int interleaved = 0; interleaved < 2; interleaved++) {
    Tensor *y = op_attention(&tape, (Attention){.n_heads = HEADS,
                                                .n_heads_kv = KV,
                                                .head_dim = WIDTH_HEAD,
                                                .rotary_dim = ROTARY,
                                                .rotary_interleaved = interleaved,
                                                .rotary_base = 100,
                                                .scale = 0.3,
                                                .cu_seqlens = ints(&device, 4, start),
                                                .q = q,
                                                .k = k,
                                                .v = v})
                    .y;
    for (int s = 0; s < 3; s++)
      for (int64_t t = start[s]; t < start[s + 1]; t++)
        for (int h = 0; h < HEADS; h++) {
          const int g = h / (HEADS / KV);
          double sum = 0, expected[WIDTH_HEAD] = {0};
          for (int64_t j = start[s]; j <= t; j++) {
            double score = 0;
            for (int i = 0; i < WIDTH_HEAD; i++)
              score += rotated(q, (t * HEADS + h) * WIDTH_HEAD, i, t - start[s], ROTARY, interleaved) *
                       rotated(k, (j * KV + g) * WIDTH_HEAD, i, j - start[s], ROTARY, interleaved);
            sum += exp(0.3 * score);
            for (int i = 0; i < WIDTH_HEAD; i++)
              expected[i] += exp(0.3 * score) * tensor_get(v, (j * KV + g) * WIDTH_HEAD + i);
          }
          for (int i = 0; i < WIDTH_HEAD; i++)
            cr_assert_float_eq(tensor_get(y, (t * HEADS + h) * WIDTH_HEAD + i), expected[i] / sum, 1e-12,
                               "interleaved %d, token %lld, head %d, entry %d is %g, expected %g", interleaved,
                               (long long)t, h, i, tensor_get(y, (t * HEADS + h) * WIDTH_HEAD + i), expected[i] / sum);
        }
  }
  device_close(&device);
}

Test(ops, point_losses_follow_their_formulas) {
  Device device = open_device(F64);
  Tensor *prediction = randn(&device, F64, 1, 3, 1), *target = randn(&device, F64, 1, 3, 2);
  target->needs_grad = false;
  static const double ERRORS[] = {0.5, -0.25, 3};
  for (int i = 0; i < 3; i++) tensor_set(prediction, i, tensor_get(target, i) + ERRORS[i]);
  static const double EXPECTED[] = {
      [LOSS_MSE] = (0.25 + 0.0625 + 9) / 3,
      [LOSS_MAE] = 3.75 / 3,
      [LOSS_HUBER] = (0.125 + 0.03125 + 2.5) / 3,
  };
  Tape tape = tape_make(&device, F64, false);
  for (PointLossKind kind = LOSS_MSE; kind <= LOSS_HUBER; kind++)
    cr_assert_float_eq(tensor_get(op_point_loss(&tape, kind, 1, prediction, target), 0), EXPECTED[kind], 1e-14,
                       "kind %d, expected %g", kind, EXPECTED[kind]);
  device_close(&device);
}

/* ---- optimisers ------------------------------------------------------------------------------------------------------------- */

/* Two steps on one number, worked out by hand: lr 0.1, betas 0.9 and 0.99, eps 0, weight decay 0.5, gradients 4 and -2
 * halved by the clip.
 *   step 1: m = 0.2, v = 0.04, corrected 2 and 4:        1 * 0.95 - 0.1 * 2 / 2 = 0.85
 *   step 2: m = 0.08, v = 0.0496, corrected 8/19 and 496/199: 0.85 * 0.95 - 0.1 * (8/19) / sqrt(496/199) */
Test(ops, adamw_takes_the_steps_worked_out_by_hand) {
  Device device = open_device(F32);
  static const double GRADS[] = {4, -2}, EXPECTED[] = {0.85, 0.8075 - 0.1 * (8.0 / 19) / 1.57874617};
  static const double M[] = {0.2, 0.08}, V[] = {0.04, 0.0496};
  enum { N = 5000 }; /* more than a block */
  static int16_t lows[N];
  for (int split = 0; split < 2; split++) {
    Tensor *value = randn1(&device, split ? BF16 : F32, N, 1), *grad = randn1(&device, F32, N, 2);
    Tensor *m = randn1(&device, F32, N, 3), *v = randn1(&device, F32, N, 4);
    tensor_zero(m);
    tensor_zero(v);
    for (int i = 0; i < N; i++) tensor_set(value, i, 1);
    for (int step = 0; step < 2; step++) {
      for (int i = 0; i < N; i++) tensor_set(grad, i, GRADS[step]);
      Adamw p = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.5, .grad_scale = 0.5, .step = step + 1};
      p.value = value, p.low = split ? lows : NULL, p.grad = grad, p.m = m, p.v = v;
      adamw_fwd(&device, &p);
      for (int i = 0; i < N; i++) {
        const double weight = split ? bf16_join(((uint16_t *)value->data)[i], lows[i]) : tensor_get(value, i);
        cr_assert_float_eq(weight, EXPECTED[step], 1e-6, "step %d: weight %d is %.9g, expected %.9g", step + 1, i,
                           weight, EXPECTED[step]);
        cr_assert_float_eq(tensor_get(m, i), M[step], 1e-7, "step %d: m is %g", step + 1, tensor_get(m, i));
        cr_assert_float_eq(tensor_get(v, i), V[step], 1e-7, "step %d: v is %g", step + 1, tensor_get(v, i));
      }
    }
  }
  device_close(&device);
}

Test(ops, adamw_eps_keeps_a_zero_gradient_still) {
  Device device = open_device(F32);
  Tensor *value = randn1(&device, F32, 8, 1), *grad = randn1(&device, F32, 8, 2);
  Tensor *m = randn1(&device, F32, 8, 3), *v = randn1(&device, F32, 8, 4);
  tensor_zero(grad), tensor_zero(m), tensor_zero(v);
  const double before = tensor_get(value, 3);
  Adamw p = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .grad_scale = 1, .step = 1};
  p.value = value, p.grad = grad, p.m = m, p.v = v;
  adamw_fwd(&device, &p);
  cr_assert(tensor_get(value, 3) == before, "moved from %g to %g", before, tensor_get(value, 3));
  device_close(&device);
}

Test(ops, sgd_takes_the_step_worked_out_by_hand) {
  Device device = open_device(F32);
  Tensor *value = randn1(&device, BF16, 3, 1), *grad = randn1(&device, F32, 3, 3);
  int16_t lows[3] = {0};
  for (int i = 0; i < 3; i++) tensor_set(value, i, 2), tensor_set(grad, i, 4);
  Sgd p = {.lr = 0.25, .weight_decay = 0.5, .grad_scale = 0.5, .value = value, .low = lows, .grad = grad};
  sgd_fwd(&device, &p);
  for (int i = 0; i < 3; i++) /* 2 - 0.25 (4 * 0.5 + 0.5 * 2) */
    cr_assert(tensor_get(value, i) == 1.25 && lows[i] == 0, "weight %d: %g and %d", i, tensor_get(value, i), lows[i]);
  device_close(&device);
}

Test(ops, add_and_sum_squares_follow_their_formulas) {
  Device device = open_device(F32);
  enum { N = 100001 };
  Tensor *x = randn1(&device, F32, N, 1), *y = randn1(&device, F32, N, 2);
  double expected = 0, result;
  const float at_17 = (float)(tensor_get(x, 17) + tensor_get(y, 17));
  for (int i = 0; i < N; i++) expected += tensor_get(x, i) * tensor_get(x, i);
  SumSquares sum = {.x = x, .result = &result};
  sum_squares_fwd(&device, &sum);
  cr_assert_float_eq(result, expected, expected * 1e-13, "%.17g, expected %.17g", result, expected);
  Add add = {.x = x, .y = y};
  add_fwd(&device, &add);
  cr_assert((float)tensor_get(y, 17) == at_17, "sum %g, expected %g", tensor_get(y, 17), at_17);
  tensor_set(x, N - 1, NAN);
  sum_squares_fwd(&device, &sum);
  cr_assert(!isfinite(result), "NaN is lost: %g", result);
  device_close(&device);
}
