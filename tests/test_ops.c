/* What the operations promise beside right gradients (test_gradcheck) and their formulas (test_formulas): the same bits on any
 * number of threads, and BF16 close to float. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "autograd/ops.h"
#include "tests/support/tensors.h"

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
