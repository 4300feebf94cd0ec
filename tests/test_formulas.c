/* Operations are held to their formulas in plain loops, optimisers to steps worked out by hand. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "autograd/ops.h"
#include "tests/support/tensors.h"

/* ---- products ----------------------------------------------------------------------------------------------------------- */

Test(formulas, linear_multiplies_every_mix_of_types) {
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

Test(formulas, cross_entropy_is_the_negative_log_likelihood) {
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

Test(formulas, ignored_targets_and_padded_words_take_no_part) {
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

enum { MAX_VALUES = 1 << 16 };

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

Test(formulas, cross_entropy_gives_the_same_gradients_at_once_and_afterwards) {
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

Test(formulas, gated_norm_follows_its_formula) {
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

Test(formulas, rms_norm_follows_its_formula) {
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

Test(formulas, attention_follows_its_formula) {
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

Test(formulas, point_losses_follow_their_formulas) {
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
Test(formulas, adamw_takes_the_steps_worked_out_by_hand) {
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

Test(formulas, adamw_eps_keeps_a_zero_gradient_still) {
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

Test(formulas, sgd_takes_the_step_worked_out_by_hand) {
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

Test(formulas, add_and_sum_squares_follow_their_formulas) {
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
