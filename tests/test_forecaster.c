/* Forecasters: gradients of every option, options that must leave or bring a property, dropout, and the text of a config.
 * Configs are read as users write them. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "train/check/check_config.h"
#include "train/gradient.h"

#define SIZES ((DeviceSizes){(size_t)64 << 20, (size_t)256 << 20, (size_t)64 << 20})
#define N_OF(array) ((int)(sizeof(array) / sizeof *(array)))

enum { CONTEXT = 11, HORIZON = 5, N_IN = 3, N_SEQ = 4 };

/* A small forecaster of three columns with `options` laid over it; those from value_dim (if not 0) on are known. */
static Config config_with(const char *layer, const char *options, int value_dim) {
  static const char *const KNOWN[N_IN] = {"[]", "[b, c]", "[c]"};
  char *text =
      base_format("name: t\nseed: 4\nmodel: {task: forecast, input_dim: 3, context: %d, horizon: %d, d_model: 16, "
                  "n_layer: 2, %s%sssm_cfg: {%s, d_state: 8, headdim: 8, chunk_size: 4}}\n"
                  "data: {kind: series, known_columns: %s}\n",
                  CONTEXT, HORIZON, options, *options ? ", " : "", layer, KNOWN[value_dim]);
  Config config = {0};
  Status status = config_parse(text, options, NULL, 0, &config);
  cr_assert(status.code == CODE_OK, "%s: %s", options, status.line);
  config_fit_any(&config);
  free(text);
  return config;
}

typedef struct Subject {
  Config config;
  Device device;
  Model *model;
} Subject;

static Subject subject_open(const char *layer, const char *options, int value_dim, Dtype real) {
  Subject s = {.config = config_with(layer, options, value_dim)};
  Status status = device_open(&s.device, "cpu", real, SIZES);
  cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
  s.model = model_new(&s.config.model);
  params_alloc(&s.model->params, &s.device, real, true, 2);
  params_init(&s.model->params, 7);
  s.model->dropout_seed = 3;
  if (s.model->cycle) /* zero at the start: made to matter */
    for (int64_t i = 0; i < tensor_count(s.model->cycle); i++) tensor_set(s.model->cycle, i, sin((double)i));
  return s;
}

static void subject_close(Subject *s) {
  model_free(s->model);
  device_close(&s->device);
  config_free(&s->config);
}

/* The forecasts of a batch, malloc'ed doubles. */
static double *predict(Subject *s, const Batch *batch) {
  const size_t mark = arena_mark(&s->device.step);
  Tape tape = tape_make(&s->device, s->device.backend->real, false);
  const Windows windows = batch_windows(batch, &s->config.model, &tape);
  Tensor *prediction = forecaster_predict(s->model, &tape, &windows);
  double *values = malloc((size_t)tensor_count(prediction) * sizeof *values);
  for (int64_t i = 0; i < tensor_count(prediction); i++) values[i] = tensor_get(prediction, i);
  tape_reset(&tape, mark);
  return values;
}

static const char *const LAYERS[] = {"layer: Mamba2", "layer: Mamba3", "layer: Mamba3, is_mimo: true, mimo_rank: 2"};

static const struct {
  const char *options;
  int value_dim;
} OPTIONS[] = {
    {"output_dim: 2", 0},
    {"revin: true", 0},
    {"revin: last, output_dim: 1", 2},
    {"cycle: 4, revin: true", 0},
    {"cycle: 30", 2},
    {"channel_independent: true", 0},
    {"channel_independent: true, output_dim: 2", 2},
    {"patch_len: 4, stride: 3", 0},
    {"patch_len: 11, stride: 1, head: flatten", 0},
    {"bidirectional: true", 0},
    {"bidirectional: true, head: flatten, patch_len: 3, stride: 2, channel_independent: true, cycle: 5, revin: true",
     0},
    {"head: flatten", 0},
    {"linear: true, revin: mean, output_dim: 2", 0},
    {"linear: true, channel_independent: true, cycle: 3", 0},
    {"linear: true, loss: quantile, quantiles: [0.3, 0.6]", 0},
    {"loss: huber, huber_delta: 0.3", 0},
    {"loss: mae", 0},
    {"loss: quantile, quantiles: [0.2, 0.5, 0.8]", 0},
    {"loss: quantile, quantiles: [0.25, 0.75], channel_independent: true, revin: true", 0},
    {"ablate: mixer, d_intermediate: 16, head: flatten", 0},
    {"known_future: true", 1},
    {"known_future: true, head: rows", 2},
    {"known_future: true, head: rows, bidirectional: true, revin: true, cycle: 3", 2},
    {"known_future: true, head: rows, patch_len: 5, stride: 5, channel_independent: true, linear: true", 2},
    {"known_future: true, head: flatten, patch_len: 3, stride: 2, linear: true, revin: last, output_dim: 1", 2},
    {"known_future: true, head: rows, loss: quantile, quantiles: [0.2, 0.5]", 1},
    {"revin: mean, revert: true, channel_independent: true, cycle: 3", 0},
    {"revin: true, revert: true, loss: quantile, quantiles: [0.3, 0.6], output_dim: 1", 2},
};

Test(forecaster, has_the_gradients_of_every_option) {
  omp_set_num_threads(1);
  for (int l = 0; l < N_OF(LAYERS); l++)
    for (int o = 0; o < N_OF(OPTIONS); o++) {
      if (l > 0 && o % 3 != l) continue; /* what is around the mixer does not depend on it */
      Config config = config_with(LAYERS[l], OPTIONS[o].options, OPTIONS[o].value_dim);
      if (OPTIONS[o].value_dim && config.model.output_dim > OPTIONS[o].value_dim)
        config.model.output_dim = OPTIONS[o].value_dim;
      GradientReport report;
      Status status = check_config(&config, "cpu", F64, 0, &report);
      cr_assert(status.code == CODE_OK, "%s, %s: %s", LAYERS[l], OPTIONS[o].options, status.line);
      for (int g = 0; g < report.n_groups; g++)
        cr_assert(gradient_group_ok(&report, &report.groups[g]), "%s, %s: gradient of %s off by %g", LAYERS[l],
                  OPTIONS[o].options, report.groups[g].name, report.groups[g].difference_error);
      gradient_report_free(&report);
      config_free(&config);
    }
}

/* ---- what options promise */

/* A batch whose column c is shift + scale * that of another. */
static Batch moved_batch(const Batch *batch, const double *scale, const double *shift) {
  Batch moved = *batch;
  moved.input = malloc(sizeof(float) * N_SEQ * CONTEXT * N_IN);
  for (int i = 0; i < N_SEQ * CONTEXT * N_IN; i++)
    moved.input[i] = (float)(scale[i % N_IN] * batch->input[i] + shift[i % N_IN]);
  return moved;
}

/* kept: how much of the shift each row of the forecast moves along by; NULL: all of it */
static void assert_moves_along(const char *options, const double *scale, const double *shift, const double *kept,
                               double tolerance) {
  Subject s = subject_open(LAYERS[1], options, 0, F64);
  for (int h = 0; kept && h < HORIZON; h++) tensor_set(s.model->revert, h, kept[h]);
  Batch batch = batch_random(&s.config.model, N_SEQ, CONTEXT, 5), moved = moved_batch(&batch, scale, shift);
  double *plain = predict(&s, &batch), *along = predict(&s, &moved);
  for (int i = 0; i < N_SEQ * HORIZON * N_IN; i++) {
    const double keep = kept ? kept[i / N_IN % HORIZON] : 1;
    const double expected = scale[i % N_IN] * plain[i] + keep * shift[i % N_IN];
    cr_assert(fabs(along[i] - expected) < tolerance, "%s: forecast %d is %.10g, expected %.10g", options, i, along[i],
              expected);
  }
  free(plain), free(along), free(moved.input);
  batch_release(&batch);
  subject_close(&s);
}

Test(forecaster, with_revin_moves_with_its_window) {
  static const double ONE[N_IN] = {1, 1, 1}, SCALE[N_IN] = {2, 0.5, 3}, SHIFT[N_IN] = {5, -1, 100};
  assert_moves_along("revin: last", ONE, SHIFT, NULL, 1e-4);   /* the windows are floats */
  assert_moves_along("revin: true", SCALE, SHIFT, NULL, 2e-3); /* and the variance has an epsilon */
  assert_moves_along("revin: true, cycle: 4, channel_independent: true", SCALE, SHIFT, NULL, 2e-3);
}

Test(forecaster, with_revert_moves_by_the_learned_part_of_the_shift) {
  static const double ONE[N_IN] = {1, 1, 1}, SHIFT[N_IN] = {5, -1, 100};
  static const double ALL[HORIZON] = {1, 1, 1, 1, 1}, LESS[HORIZON] = {1, 0.75, 0.5, 0, -0.25};
  static const char *const SHIFTED[] = {"revin: last, revert: true", "revin: mean, revert: true",
                                        "revin: true, revert: true, cycle: 4, channel_independent: true"};
  for (int i = 0; i < N_OF(SHIFTED); i++) {
    assert_moves_along(SHIFTED[i], ONE, SHIFT, LESS, 2e-3);
    assert_moves_along(SHIFTED[i], ONE, SHIFT, ALL, 2e-3);
  }
  Subject s = subject_open(LAYERS[1], SHIFTED[1], 0, F64);
  for (int h = 0; h < HORIZON; h++)
    cr_assert_eq(tensor_get(s.model->revert, h), 1, "row %d does not begin with all of the shift", h);
  subject_close(&s);
}

Test(forecaster, with_independent_channels_treats_them_alike) {
  Subject s = subject_open(LAYERS[0], "channel_independent: true, patch_len: 3, stride: 2, head: flatten", 0, F64);
  Batch batch = batch_random(&s.config.model, N_SEQ, CONTEXT, 5);
  double *plain = predict(&s, &batch);
  for (int i = 0; i < N_SEQ * CONTEXT; i++) { /* the columns in a circle */
    float *row = batch.input + i * N_IN, first = row[0];
    row[0] = row[1], row[1] = row[2], row[2] = first;
  }
  double *turned = predict(&s, &batch);
  for (int i = 0; i < N_SEQ * HORIZON; i++)
    for (int c = 0; c < N_IN; c++)
      cr_assert_eq(turned[i * N_IN + c], plain[i * N_IN + (c + 1) % N_IN], "step %d, column %d", i, c);
  free(plain), free(turned);
  batch_release(&batch);
  subject_close(&s);
}

/* Which rows of the window the forecast depends on, as a text of 0s and 1s. */
static void rows_read(const char *options, char *read) {
  Subject s = subject_open(LAYERS[0], options, 0, F64);
  Batch batch = batch_random(&s.config.model, 1, CONTEXT, 5);
  double *plain = predict(&s, &batch);
  for (int t = 0; t < CONTEXT; t++) {
    batch.input[t * N_IN] += 1;
    double *moved = predict(&s, &batch);
    batch.input[t * N_IN] -= 1;
    read[t] = memcmp(moved, plain, sizeof *plain * HORIZON) ? '1' : '0';
    free(moved);
  }
  read[CONTEXT] = 0;
  free(plain);
  batch_release(&batch);
  subject_close(&s);
}

Test(forecaster, reads_every_row_of_the_window) {
  static const char *const READERS[] = {"patch_len: 4, stride: 3", "patch_len: 4, stride: 4, bidirectional: true",
                                        "patch_len: 11, stride: 11", "head: flatten, ablate: mixer",
                                        "patch_len: 2, stride: 2, head: flatten, ablate: mixer"};
  char read[CONTEXT + 1];
  for (int i = 0; i < N_OF(READERS); i++) {
    rows_read(READERS[i], read);
    cr_assert_str_eq(read, "11111111111", "%s: %s", READERS[i], read);
  }
  rows_read("ablate: mixer", read);
  cr_assert_str_eq(read, "00000000001", "without a mixer the last position has seen %s", read);
  rows_read("ablate: mixer, patch_len: 4, stride: 4", read);
  cr_assert_str_eq(read, "00000001111", "the last patch ends at the window's end: %s", read);
}

/* Which of the horizon's rows the forecast of each depends on, by column `column` of them: HORIZON texts of 0s and 1s. */
static void rows_ahead_read(const char *options, int column, char read[HORIZON][HORIZON + 1]) {
  Subject s = subject_open(LAYERS[0], options, 2, F64);
  Batch batch = batch_random(&s.config.model, 1, CONTEXT + HORIZON, 5);
  double *plain = predict(&s, &batch);
  for (int t = 0; t < HORIZON; t++) {
    float *at = &batch.input[(CONTEXT + t) * N_IN + column], was = *at;
    *at += 1;
    double *moved = predict(&s, &batch);
    *at = was;
    for (int h = 0; h < HORIZON; h++) read[h][t] = memcmp(moved + 2 * h, plain + 2 * h, sizeof *plain * 2) ? '1' : '0';
    free(moved);
  }
  for (int h = 0; h < HORIZON; h++) read[h][HORIZON] = 0;
  free(plain);
  batch_release(&batch);
  subject_close(&s);
}

Test(forecaster, with_known_future_reads_the_known_columns_of_the_rows_it_forecasts_and_not_their_values) {
  static const struct {
    const char *options, *read[HORIZON]; /* of a known column */
  } CASES[] = {
      {"revin: last, known_future: true", {"11111", "11111", "11111", "11111", "11111"}},
      {"revin: last, known_future: true, head: rows", {"10000", "11000", "11100", "11110", "11111"}},
      {"revin: last, known_future: true, head: rows, ablate: mixer", {"10000", "01000", "00100", "00010", "00001"}},
      {"revin: last, known_future: true, head: rows, bidirectional: true, ablate: mixer",
       {"10000", "01000", "00100", "00010", "00001"}},
      {"revin: last, known_future: true, head: rows, bidirectional: true",
       {"11111", "11111", "11111", "11111", "11111"}},
      {"revin: last, known_future: true, head: rows, patch_len: 5, stride: 5, channel_independent: true, ablate: mixer",
       {"11111", "11111", "11111", "11111", "11111"}},
      {"revin: last, known_future: true, head: rows, ablate: mixer, linear: true",
       {"11111", "11111", "11111", "11111", "11111"}},
  };
  char read[HORIZON][HORIZON + 1];
  for (int i = 0; i < N_OF(CASES); i++) {
    rows_ahead_read(CASES[i].options, 2, read);
    for (int h = 0; h < HORIZON; h++)
      cr_assert_str_eq(read[h], CASES[i].read[h], "%s: row %d reads %s", CASES[i].options, h, read[h]);
    rows_ahead_read(CASES[i].options, 0, read);
    for (int h = 0; h < HORIZON; h++)
      cr_assert_str_eq(read[h], "00000", "%s: row %d reads the values %s", CASES[i].options, h, read[h]);
  }
}

Test(forecaster, with_bidirectional_sees_the_first_row_from_both_sides) {
  Subject s = subject_open(LAYERS[0], "bidirectional: true, ablate: mixer", 0, F64);
  Batch batch = batch_random(&s.config.model, 1, CONTEXT, 5);
  double *plain = predict(&s, &batch);
  batch.input[0] += 1; /* the last row of the way back */
  double *moved = predict(&s, &batch);
  cr_assert(memcmp(plain, moved, sizeof *plain * HORIZON), "the first row is not where the way back ends");
  free(plain), free(moved);
  batch_release(&batch);
  subject_close(&s);
}

Test(forecaster, with_a_cycle_knows_the_time) {
  Subject s = subject_open(LAYERS[1], "cycle: 6", 0, F64);
  Batch batch = batch_random(&s.config.model, 1, CONTEXT, 5);
  batch.row[0] = 14;
  double *plain = predict(&s, &batch);
  batch.row[0] = 14 - 24; /* four cycles before, before the data began */
  double *before = predict(&s, &batch);
  cr_assert_arr_eq(plain, before, sizeof *plain * HORIZON * N_IN, "whole cycles away the forecast differs");
  batch.row[0] = 15;
  double *later = predict(&s, &batch);
  cr_assert(memcmp(plain, later, sizeof *plain * HORIZON * N_IN), "a row later in the cycle nothing changes");
  /* What the cycle explains of a window is not seen by the backbone, and stands on the forecast. */
  const int64_t n_w = s.config.model.cycle;
  for (int t = 0; t < CONTEXT; t++)
    for (int c = 0; c < N_IN; c++)
      batch.input[t * N_IN + c] += (float)tensor_get(s.model->cycle, (15 + t) % n_w * N_IN + c);
  double *raised = predict(&s, &batch);
  for (int64_t i = 0; i < n_w * N_IN; i++) tensor_set(s.model->cycle, i, 2 * tensor_get(s.model->cycle, i));
  double *doubled = predict(&s, &batch);
  for (int i = 0; i < HORIZON * N_IN; i++) {
    const double part = tensor_get(s.model->cycle, (15 + CONTEXT + i / N_IN) % n_w * N_IN + i % N_IN) / 2;
    cr_assert(fabs(doubled[i] - later[i] - part) < 1e-5, "forecast %d is %g, expected %g + %g (with the old cycle %g)",
              i, doubled[i], later[i], part, raised[i]);
  }
  free(plain), free(before), free(later), free(raised), free(doubled);
  batch_release(&batch);
  subject_close(&s);
}

Test(forecaster, ignores_missing_targets) {
  for (int q = 0; q < 2; q++) {
    Subject s = subject_open(LAYERS[0], q ? "loss: quantile" : "loss: huber", 0, F64);
    Batch batch = batch_random(&s.config.model, N_SEQ, CONTEXT, 5);
    const GradientShape shape = {.batch_size = N_SEQ, .virtual_ranks = 1, .micro_batch_size = N_SEQ};
    for (int i = 0; i < HORIZON * N_IN; i++) batch.output[i] = NAN;
    const double loss = gradient_step(s.model, &s.device, F64, &shape, &batch, NULL);
    Tensor *flat = &s.model->params.grads_flat;
    double *grads = memcpy(malloc(tensor_bytes(flat)), flat->data, tensor_bytes(flat));
    const Batch rest = batch_rows(&batch, &s.config.model, 1, N_SEQ - 1);
    const GradientShape fewer = {.batch_size = N_SEQ - 1, .virtual_ranks = 1, .micro_batch_size = N_SEQ - 1};
    const double others = gradient_step(s.model, &s.device, F64, &fewer, &rest, NULL);
    cr_assert_float_eq(loss * N_SEQ, others * (N_SEQ - 1), 1e-12, "loss %g, of the others %g", loss, others);
    for (int64_t i = 0; i < tensor_count(flat); i++)
      cr_assert_float_eq(grads[i] * N_SEQ, tensor_get(flat, i) * (N_SEQ - 1), 1e-12, "gradient %lld", (long long)i);
    free(grads);
    batch_release(&batch);
    subject_close(&s);
  }
}

/* ---- dropout */

static double dropout_step(Subject *s, Batch *batch, int64_t first, int micro_batch_size, int threads) {
  const GradientShape shape = {.batch_size = N_SEQ, .virtual_ranks = 2, .micro_batch_size = micro_batch_size};
  omp_set_num_threads(threads);
  batch->first = first;
  return gradient_step(s->model, &s->device, s->device.backend->real, &shape, batch, NULL);
}

Test(forecaster, drops_by_the_number_of_the_sample_alone) {
  Subject s = subject_open(LAYERS[1],
                           "dropout: 0.3, d_intermediate: 16, channel_independent: true, bidirectional: true", 0, F32);
  Batch batch = batch_random(&s.config.model, N_SEQ, CONTEXT, 5);
  const double loss = dropout_step(&s, &batch, 40, 1, 1);
  Tensor *flat = &s.model->params.grads_flat;
  void *grads = memcpy(malloc(tensor_bytes(flat)), flat->data, tensor_bytes(flat));
  for (int threads = 1; threads <= 3; threads++) {
    cr_assert_eq(dropout_step(&s, &batch, 40, 1, threads), loss, "%d threads: another loss", threads);
    cr_assert_arr_eq(flat->data, grads, tensor_bytes(flat), "%d threads: other gradients", threads);
  }
  cr_assert_float_eq(dropout_step(&s, &batch, 40, 2, 1), loss, 1e-6, "another micro-batch drops others");
  cr_assert(fabs(dropout_step(&s, &batch, 44, 1, 1) - loss) > 1e-4, "the next step drops the same");
  s.model->dropout_seed++;
  cr_assert(fabs(dropout_step(&s, &batch, 40, 1, 1) - loss) > 1e-4, "another seed drops the same");
  free(grads);

  double *twice[] = {predict(&s, &batch), NULL};
  batch.first = 99;
  twice[1] = predict(&s, &batch);
  cr_assert_arr_eq(twice[0], twice[1], sizeof(double) * N_SEQ * HORIZON * N_IN, "evaluation is random");
  free(twice[0]), free(twice[1]);
  batch_release(&batch);
  subject_close(&s);
}

Test(forecaster, drops_the_told_part_and_keeps_the_mean) {
  enum { ROWS = 64, WIDTH = 700 };
  Device device;
  Status status = device_open(&device, "cpu", F32, SIZES);
  cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
  Tape tape = tape_make(&device, F32, false);
  tape.draws = (TapeDraws){.seed = 1, .n_samples = 8};
  Tensor *x = tape_tensor(&tape, F32, ROWS, WIDTH);
  for (int64_t i = 0; i < ROWS * WIDTH; i++) tensor_set(x, i, 1);
  for (double p = 0.1; p < 0.95; p += 0.4) {
    Tensor *y = op_dropout(&tape, x, p, 3), *other = op_dropout(&tape, x, p, 4);
    int dropped = 0, same = 0;
    for (int64_t i = 0; i < ROWS * WIDTH; i++) {
      const double value = tensor_get(y, i);
      cr_assert(value == 0 || fabs(value * (1 - p) - 1) < 1e-6, "p %g: %g", p, value);
      dropped += value == 0, same += value == tensor_get(other, i);
    }
    const double part = (double)dropped / (ROWS * WIDTH), agree = (double)same / (ROWS * WIDTH);
    cr_assert(fabs(part - p) < 0.01, "p %g: dropped %g", p, part);
    cr_assert(fabs(agree - (p * p + (1 - p) * (1 - p))) < 0.01, "p %g: two sites agree in %g", p, agree);
  }
  device_close(&device);
}

/* ---- the text of a config */

Test(forecaster, keeps_every_option_as_json) {
  for (int o = 0; o < N_OF(OPTIONS); o++) {
    Config config = config_with(LAYERS[o % 3], OPTIONS[o].options, OPTIONS[o].value_dim);
    config.model.output_dim = 1, config.model.target_first = o % 2, config.model.dropout = 0.25;
    char *text = model_config_to_json(&config.model), *again;
    ModelConfig read;
    Status status = model_config_from_json(text, "there", &read);
    cr_assert(status.code == CODE_OK, "%s: %s", OPTIONS[o].options, status.line);
    again = model_config_to_json(&read);
    cr_assert_str_eq(text, again, "%s: another text", OPTIONS[o].options);
    cr_assert(read.revin == config.model.revin && read.revert == config.model.revert &&
                  read.cycle == config.model.cycle && read.channel_independent == config.model.channel_independent &&
                  read.loss == config.model.loss && read.patch_len == config.model.patch_len &&
                  read.stride == config.model.stride && read.linear == config.model.linear &&
                  read.bidirectional == config.model.bidirectional && read.head == config.model.head &&
                  read.n_quantiles == config.model.n_quantiles && read.ablate == config.model.ablate &&
                  read.value_dim == config.model.value_dim && read.target_first == o % 2 && read.dropout == 0.25 &&
                  read.huber_delta == config.model.huber_delta && read.quantiles[0] == config.model.quantiles[0],
              "%s: another model", OPTIONS[o].options);
    free(text), free(again);
    config_free(&config);
  }
}

Test(forecaster, refuses_options_that_do_not_go_together) {
  static const struct {
    const char *options, *message;
  } CASES[] = {
      {"patch_len: 12", "model.patch_len: found 12, expected at most context = 11"},
      {"patch_len: 2, stride: 3", "model.stride: found 3, expected at most patch_len = 2"},
      {"revin: true, output_dim: 4", "model.output_dim: found 4 from column 0 on, expected some of the 3 columns"},
      {"revert: true", "model.revert: found true, expected false: without revin a window is not shifted"},
      {"loss: quantile, quantiles: [0.5, 0.5]", "model.quantiles: found 0.5 in place 2, expected rising numbers"},
      {"loss: quantile, quantiles: []", "model.quantiles: found 0, expected 1 to 16"},
      {"dropout: 1", "model.dropout: found 1, expected a number, 0 to below 1"},
  };
  for (int i = 0; i < N_OF(CASES); i++) {
    char *text =
        base_format("name: t\nmodel: {task: forecast, input_dim: 3, context: 11, horizon: 5, %s}\n", CASES[i].options);
    Config config = {0};
    Status status = config_parse(text, "c.yaml", NULL, 0, &config);
    cr_assert(status.code == CODE_USAGE, "%s: code %d", CASES[i].options, status.code);
    cr_assert(strstr(status.line, CASES[i].message), "%s: \"%s\" does not say \"%s\"", CASES[i].options, status.line,
              CASES[i].message);
    status_clear(&status);
    config_free(&config);
    free(text);
  }
}
