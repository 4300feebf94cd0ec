/* Scores of forecasters (the published rows of baselines, the order of sums, every metric by hand), the linear yardstick
 * against plain least squares, and forecasts row by row against one pass over all rows. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "tests/support/dataset.h"
#include "train/evaluate.h"
#include "train/forecast/forecast.h"
#include "train/forecast/forecast_score.h"

#define SIZES ((DeviceSizes){(size_t)256 << 20, (size_t)512 << 20, (size_t)128 << 20})
#define N_OF(array) ((int)(sizeof(array) / sizeof *(array)))

TestSuite(forecast, .init = workplace_enter, .fini = workplace_leave);

/* A dataset and an untrained forecaster for it. */
typedef struct Subject {
  Config config;
  Dataset *dataset;
  Device device;
  Model *model;
} Subject;

static Subject subject_open(const char *model, const char *data) {
  char *text =
      base_format("name: t\nmodel: {task: forecast, d_model: 8, n_layer: 1, ssm_cfg: {layer: Mamba2, d_state: 4, "
                  "headdim: 8, chunk_size: 32}, %s}\ndata: {kind: series, %s}\n",
                  model, data);
  Subject s = {0};
  Status status = config_parse(text, "c.yaml", NULL, 0, &s.config);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  s.dataset = open_or_fail(&s.config.data, 1, NULL, data);
  status = config_fit_data(&s.config, s.dataset);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  status = device_open(&s.device, "cpu", F32, SIZES);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  s.model = model_new(&s.config.model);
  params_alloc(&s.model->params, &s.device, F32, false, 0);
  params_init(&s.model->params, 7);
  free(text);
  return s;
}

static void subject_close(Subject *s) {
  model_free(s->model);
  device_close(&s->device);
  dataset_close(s->dataset);
  config_free(&s->config);
}

static ForecastScore score_of(Subject *s, DataPart part) {
  ForecastScore score;
  forecast_score(s->model, &s->device, F32, s->dataset, part, 64, &score);
  return score;
}

/* ---- the published rows */

typedef struct Row {
  const char *file;
  int horizon, windows;
  double naive[2], naive_kept[2], seasonal[2], mean[2]; /* MSE, MAE */
} Row;

static void assert_row(const char *what, const Row *row, double squares, double absolutes, int64_t n,
                       const double *expected) {
  const double mse = squares / (double)n, mae = absolutes / (double)n;
  cr_assert(fabs(mse - expected[0]) < 5.1e-5 && fabs(mae - expected[1]) < 5.1e-5,
            "%s, horizon %d, %s: found %.5f/%.5f, published %.4f/%.4f", row->file, row->horizon, what, mse, mae,
            expected[0], expected[1]);
}

static void check_rows(const char *file, const Row *rows, int n) {
  char *path = ett_path(file);
  if (!path) return;
  for (int i = 0; i < n; i++) {
    const Row *row = &rows[i];
    char *model = base_format("context: 96, horizon: %d", row->horizon);
    char *data = base_format("path: [%s], borders: [ett]", path);
    Subject s = subject_open(model, data);
    ForecastScore score = score_of(&s, PART_TEST);
    cr_assert_eq(score.n_windows, row->windows, "%s, horizon %d: %lld windows", file, row->horizon,
                 (long long)score.n_windows);
    const Errors *naive = &score.of[BY_NAIVE], *seasonal = &score.of[BY_SEASONAL], *mean = &score.of[BY_MEAN];
    assert_row("last row", row, naive->all.squares, naive->all.absolutes, score.n_values, row->naive);
    assert_row("last row, drop_last", row, naive->kept.squares, naive->kept.absolutes, score.n_kept_values,
               row->naive_kept);
    assert_row("season of 24", row, seasonal->all.squares, seasonal->all.absolutes, score.n_values, row->seasonal);
    assert_row("window mean", row, mean->all.squares, mean->all.absolutes, score.n_values, row->mean);
    forecast_score_free(&score);
    subject_close(&s);
    free(model), free(data);
  }
  free(path);
}

Test(forecast, baselines_on_etth1_are_the_published_ones) {
  static const Row ROWS[] = {
      {"ETTh1", 96, 2785, {1.2944, 0.7132}, {1.2946, 0.7133}, {0.5122, 0.4333}, {0.7008, 0.5581}},
      {"ETTh1", 192, 2689, {1.3249, 0.7331}, {1.3251, 0.7332}, {0.5808, 0.4692}, {0.7183, 0.5705}},
      {"ETTh1", 336, 2545, {1.3299, 0.7460}, {1.3233, 0.7443}, {0.6499, 0.5008}, {0.7229, 0.5809}},
      {"ETTh1", 720, 2161, {1.3351, 0.7550}, {1.3386, 0.7559}, {0.6554, 0.5141}, {0.7116, 0.5953}}};
  check_rows("ETTh1.csv", ROWS, N_OF(ROWS));
}

Test(forecast, baselines_on_etth2_are_the_published_ones) {
  static const Row ROWS[] = {
      {"ETTh2", 96, 2785, {0.4317, 0.4216}, {0.4318, 0.4217}, {0.3905, 0.3802}, {0.3530, 0.3872}},
      {"ETTh2", 192, 2689, {0.5337, 0.4725}, {0.5336, 0.4725}, {0.4819, 0.4285}, {0.4275, 0.4291}},
      {"ETTh2", 336, 2545, {0.5973, 0.5109}, {0.5912, 0.5085}, {0.5324, 0.4656}, {0.4545, 0.4546}},
      {"ETTh2", 720, 2161, {0.5945, 0.5190}, {0.5884, 0.5166}, {0.5255, 0.4739}, {0.4510, 0.4604}}};
  check_rows("ETTh2.csv", ROWS, N_OF(ROWS));
}

/* ---- the metrics */

/* 200 rows: hours, two columns of different size, the second with a season of 6. */
static void write_series(const char *path, int n_rows) {
  FILE *file = fopen(path, "w");
  fprintf(file, "date,a,b\n");
  for (int t = 0; t < n_rows; t++)
    fprintf(file, "2024-01-%02d %02d:00:00,%.6f,%.6f\n", 1 + t / 24, t % 24, sin(0.31 * t) + 0.02 * (t % 7),
            1000 + 40 * sin(6.283185307179586 * t / 6) + (t * 13 % 11));
  fclose(file);
}

static const char DATA[] = "path: [s.csv], split: {train: 0.6, val: 0.2, test: 0.2}, season: 6";

Test(forecast, scores_are_those_of_their_definitions) {
  write_series("s.csv", 400);
  Subject s = subject_open("context: 12, horizon: 5", DATA);
  const SeriesInfo *info = dataset_series(s.dataset);
  ForecastScore score = score_of(&s, PART_TEST);
  const ModelConfig *c = &s.config.model;
  Batch batch = batch_make(c, score.n_windows, 12, 0);
  dataset_fill(s.dataset, PART_TEST, 0, &batch);
  double squares = 0, smape = 0, absolutes_b = 0, seasonal = 0;
  const int64_t n = score.n_windows * 10;
  for (int64_t w = 0; w < score.n_windows; w++)
    for (int h = 0; h < 5; h++)
      for (int j = 0; j < 2; j++) {
        const double y = batch.output[(w * 5 + h) * 2 + j], f = batch.input[(w * 12 + 11) * 2 + j];
        const double y_units = y * info->std[j] + info->mean[j], f_units = f * info->std[j] + info->mean[j];
        squares += (f - y) * (f - y);
        smape += 200 * fabs(f_units - y_units) / (fabs(f_units) + fabs(y_units));
        if (j == 1) absolutes_b += fabs(f_units - y_units);
        seasonal += fabs(batch.input[(w * 12 + 6 + h) * 2 + j] - y);
      }
  StrBuf text = {0};
  forecast_score_json(&score, c, info, &text);
  json_t *json = json_loads(text.data, 0, NULL);
  cr_assert(json, "not JSON: %s", text.data);
  const struct {
    const char *name;
    double expected;
  } VALUES[] = {{"naive_mse", squares / (double)n},
                {"naive_smape", smape / (double)n},
                {"seasonal_mae", seasonal / (double)n},
                {"windows", (double)score.n_windows}};
  for (int i = 0; i < N_OF(VALUES); i++) {
    const double found = json_number_value(json_object_get(json, VALUES[i].name));
    cr_assert(fabs(found / VALUES[i].expected - 1) < 1e-9, "%s: %.12g, by hand %.12g", VALUES[i].name, found,
              VALUES[i].expected);
  }
  const json_t *columns = json_object_get(json, "per_column"), *steps = json_object_get(json, "per_step");
  const double b = json_number_value(json_array_get(json_object_get(columns, "naive_mae_units"), 1));
  cr_assert(fabs(b * 5 * (double)score.n_windows / absolutes_b - 1) < 1e-9, "column b: MAE %g", b);
  double mean = 0;
  for (size_t h = 0; h < 5; h++) mean += json_number_value(json_array_get(json_object_get(steps, "mse"), h)) / 5;
  cr_assert(fabs(mean / json_number_value(json_object_get(json, "mse")) - 1) < 1e-9, "steps do not add up");
  cr_assert_str_eq(json_string_value(json_array_get(json_object_get(columns, "names"), 0)), "a", "names");
  json_decref(json);
  free(text.data);
  batch_release(&batch);
  forecast_score_free(&score);
  subject_close(&s);
}

Test(forecast, mase_is_over_the_training_parts_season) {
  write_series("s.csv", 400);
  Subject s = subject_open("context: 12, horizon: 5", DATA);
  PartRows rows;
  cr_assert(part_rows_read(s.dataset, PART_TRAIN, &rows), "values are missing");
  cr_assert(rows.n == 240 && rows.n_cols == 2, "%lld rows of %d columns", (long long)rows.n, rows.n_cols);
  ForecastScore score = score_of(&s, PART_TEST);
  for (int j = 0; j < 2; j++) {
    double sum = 0;
    for (int64_t t = 6; t < 240; t++) sum += fabs(rows.values[t * 2 + j] - rows.values[(t - 6) * 2 + j]);
    cr_assert_float_eq(score.scale[j], sum / 234, 1e-12, "column %d: %g", j, score.scale[j]);
  }
  part_rows_free(&rows);
  forecast_score_free(&score);
  subject_close(&s);
}

Test(forecast, eval_repeats_the_evaluation_of_training_to_the_bit) {
  write_series("s.csv", 400);
  Subject s = subject_open("context: 12, horizon: 5, loss: quantile", DATA);
  ForecastScore score = score_of(&s, PART_VAL);
  const Evaluation e = evaluate_part(s.model, &s.device, F32, s.dataset, PART_VAL, 0, 64, false);
  cr_assert_eq(e.mse, score.of[BY_MODEL].all.squares / (double)score.n_values, "MSE %.17g", e.mse);
  cr_assert_eq(e.mae, score.of[BY_MODEL].all.absolutes / (double)score.n_values, "MAE %.17g", e.mae);
  cr_assert_eq(e.naive_mse, score.of[BY_NAIVE].all.squares / (double)score.n_values, "naive MSE %.17g", e.naive_mse);
  cr_assert_eq(e.score, score.loss, "loss %.17g", e.score);
  forecast_score_free(&score);
  subject_close(&s);
}

Test(forecast, missing_targets_are_no_errors) {
  write_series("s.csv", 400);
  FILE *file = fopen("s.csv", "a"); /* in the test part: an empty cell of b, then more rows */
  fprintf(file, "2024-01-17 16:00:00,0.5,\n");
  for (int i = 17; i < 24; i++) fprintf(file, "2024-01-17 %02d:00:00,0.5,1000\n", i);
  fclose(file);
  Subject s = subject_open("context: 12, horizon: 5",
                           "path: [s.csv], split: {train: 0.6, val: 0.2, test: 0.2}, season: 6, missing: mask");
  ForecastScore score = score_of(&s, PART_TEST);
  cr_assert_eq(score.n_values, score.n_windows * 10 - 5, "%lld targets in %lld windows", (long long)score.n_values,
               (long long)score.n_windows);
  for (int f = 0; f < N_FORECASTERS; f++)
    cr_assert(isfinite(score.of[f].all.squares), "forecaster %d: %g", f, score.of[f].all.squares);
  const Evaluation e = evaluate_part(s.model, &s.device, F32, s.dataset, PART_TEST, 0, 7, false);
  cr_assert(isfinite(e.score) && isfinite(e.mse), "loss %g, MSE %g", e.score, e.mse);
  forecast_score_free(&score);
  subject_close(&s);
}

/* ---- the linear yardstick */

Test(forecast, cholesky_solves_what_it_should_and_refuses_the_rest) {
  enum { N = 7, COLS = 3 };
  double M[N * N], A[N * N], X[N * COLS], B[N * COLS];
  Rng rng = rng_make(1, RNG_TEST, 0, 0);
  for (int i = 0; i < N * N; i++) M[i] = rng_normal(&rng);
  for (int i = 0; i < N * COLS; i++) X[i] = rng_normal(&rng);
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      A[i * N + j] = i == j;
      for (int k = 0; k < N; k++) A[i * N + j] += M[i * N + k] * M[j * N + k];
    }
  for (int i = 0; i < N; i++)
    for (int c = 0; c < COLS; c++) {
      B[i * COLS + c] = 0;
      for (int k = 0; k < N; k++) B[i * COLS + c] += A[i * N + k] * X[k * COLS + c];
    }
  cr_assert(cholesky_solve(N, A, COLS, B), "a positive definite matrix was refused");
  for (int i = 0; i < N * COLS; i++) cr_assert_float_eq(B[i], X[i], 1e-10, "entry %d: %g, expected %g", i, B[i], X[i]);
  double indefinite[] = {1, 2, 2, 1}, b[] = {1, 1};
  cr_assert_not(cholesky_solve(2, indefinite, 1, b), "an indefinite matrix was taken");
}

/* A stretch of n windows of two columns: y(t) = 0.6 y(t-1) - 0.3 y(t-3) + 0.5 + noise. */
static PartRows stretch(int64_t n, int64_t k, double noise, uint64_t seed) {
  PartRows rows = {.n = n + k - 1, .n_windows = n, .n_cols = 2};
  rows.values = malloc(sizeof(double) * 2 * (size_t)rows.n);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int64_t t = 0; t < rows.n; t++)
    for (int c = 0; c < 2; c++) {
      const double *v = rows.values + t * 2 + c;
      rows.values[t * 2 + c] = t < 3 ? rng_normal(&rng) : 0.6 * v[-2] - 0.3 * v[-6] + 0.5 + noise * rng_normal(&rng);
    }
  return rows;
}

/* Mean squared error of the forecasts of all windows. */
static double linear_error(const LinearForecaster *linear, const PartRows *rows) {
  double sum = 0, forecast[8];
  float window[16];
  for (int64_t t = 0; t < rows->n_windows; t++)
    for (int c = 0; c < rows->n_cols; c++) {
      for (int a = 0; a < linear->context; a++) window[a] = (float)rows->values[(t + a) * rows->n_cols + c];
      linear_predict(linear, window, 1, forecast);
      for (int h = 0; h < linear->horizon; h++)
        sum += pow(forecast[h] - rows->values[(t + linear->context + h) * rows->n_cols + c], 2);
    }
  return sum / (double)(rows->n_windows * rows->n_cols * linear->horizon);
}

Test(forecast, linear_model_finds_a_linear_rule) {
  enum { CONTEXT = 5, HORIZON = 3 };
  PartRows train = stretch(3000, CONTEXT + HORIZON, 0.1, 1), val = stretch(1000, CONTEXT + HORIZON, 0.1, 2);
  LinearForecaster linear;
  linear_fit(&train, &val, CONTEXT, HORIZON, &linear);
  static const double RULE[CONTEXT + 1] = {0, 0, -0.3, 0, 0.6, 0.5}; /* of the first step */
  for (int a = 0; a <= CONTEXT; a++)
    cr_assert_float_eq(linear.w[a * HORIZON], RULE[a], 0.05, "weight %d: %g, expected %g", a, linear.w[a * HORIZON],
                       RULE[a]);
  cr_assert_not(linear.from_last, "weights of a rule with a level of its own add up to 1");
  const double error = linear_error(&linear, &val);
  cr_assert(error > 0.009 && error < 0.016, "MSE %g on noise of variance 0.01", error);
  linear_free(&linear);
  part_rows_free(&train), part_rows_free(&val);
}

Test(forecast, linear_model_is_the_least_squares_of_the_windows_one_by_one) {
  enum { CONTEXT = 4, HORIZON = 2 };
  PartRows rows = stretch(60, CONTEXT + HORIZON, 1, 3);
  LinearForecaster linear;
  linear_fit(&rows, &rows, CONTEXT, HORIZON, &linear); /* seen again: the weakest ridge is best */
  cr_assert(linear.ridge == 1e-6 && !linear.from_last, "ridge %g", linear.ridge);
  const double least = linear_error(&linear, &rows);
  for (int i = 0; i < (CONTEXT + 1) * HORIZON; i++)
    for (int sign = -1; sign < 2; sign += 2) {
      linear.w[i] += sign * 0.01;
      cr_assert(linear_error(&linear, &rows) > least, "moving weight %d makes the error smaller", i);
      linear.w[i] -= sign * 0.01;
    }
  linear_free(&linear);
  part_rows_free(&rows);
}

Test(forecast, linear_model_from_the_last_row_knows_no_level) {
  enum { CONTEXT = 4, HORIZON = 2 };
  PartRows train = stretch(80, CONTEXT + HORIZON, 1, 3), val = stretch(80, CONTEXT + HORIZON, 1, 4);
  for (int64_t i = 0; i < train.n * 2; i++) train.values[i] = 0.05 * (double)(i / 2) + 0.01 * sin((double)i);
  for (int64_t i = 0; i < val.n * 2; i++) val.values[i] = 50 - 0.05 * (double)(i / 2) + 0.01 * sin((double)i);
  LinearForecaster linear;
  linear_fit(&train, &val, CONTEXT, HORIZON, &linear);
  cr_assert(linear.from_last, "levels never seen are forecast by free weights");
  for (int h = 0; h < HORIZON; h++) {
    double sum = 0;
    for (int a = 0; a < CONTEXT; a++) sum += linear.w[a * HORIZON + h];
    cr_assert_float_eq(sum, 1, 1e-9, "weights of step %d add up to %g", h, sum);
  }
  linear_free(&linear);
  part_rows_free(&train), part_rows_free(&val);
}

/* ---- row by row */

static const char *const STREAMED[] = {
    "context: 16, horizon: 4, ssm_cfg: {layer: Mamba2}",
    "context: 16, horizon: 4, ssm_cfg: {layer: Mamba3}, cycle: 5",
    "context: 16, horizon: 4, ssm_cfg: {layer: Mamba3, is_mimo: true, mimo_rank: 2}, channel_independent: true",
    "context: 16, horizon: 4, ssm_cfg: {layer: Mamba2, d_conv: 1}, loss: quantile, d_intermediate: 16",
    "context: 16, horizon: 4, ablate: mixer",
};

/* A subject whose ssm_cfg names its layer in `model`. */
static Subject streamed_open(const char *model) {
  char *text = base_format("name: t\nmodel: {task: forecast, d_model: 8, n_layer: 2, %s}\ndata: {kind: series, %s}\n",
                           model, DATA);
  Subject s = {0};
  const char *sets[] = {"model.ssm_cfg.d_state=4", "model.ssm_cfg.headdim=8", "model.ssm_cfg.chunk_size=8"};
  Status status = config_parse(text, model, sets, 3, &s.config);
  cr_assert(status.code == CODE_OK, "%s: %s", model, status.line);
  s.dataset = open_or_fail(&s.config.data, 1, NULL, model);
  status = config_fit_data(&s.config, s.dataset);
  cr_assert(status.code == CODE_OK, "%s: %s", model, status.line);
  status = device_open(&s.device, "cpu", F32, SIZES);
  cr_assert(status.code == CODE_OK, "%s: %s", model, status.line);
  s.model = model_new(&s.config.model);
  params_alloc(&s.model->params, &s.device, F32, false, 0);
  params_init(&s.model->params, 7);
  if (s.model->cycle)
    for (int64_t i = 0; i < tensor_count(s.model->cycle); i++) tensor_set(s.model->cycle, i, sin((double)i));
  free(text);
  return s;
}

/* The scaled forecast after the first n rows, by one pass over them. */
static void prefix_forecast(Subject *s, float *rows, int64_t n, int64_t clock, double *values) {
  const SeriesInfo *info = dataset_series(s->dataset);
  const size_t mark = arena_mark(&s->device.step);
  Tape tape = tape_make(&s->device, F32, false);
  const Batch batch = {.n_seq = 1, .length = n, .input = rows, .row = &clock};
  const Windows windows = batch_windows(&batch, &s->config.model, &tape);
  const Tensor *prediction = forecaster_predict(s->model, &tape, &windows);
  const int n_q = forecaster_n_quantiles(&s->config.model);
  for (int64_t i = 0; i < tensor_count(prediction); i++) {
    const int input = info->output_input[i / n_q % info->n_output];
    values[i] = tensor_get(prediction, i) * info->std[input] + info->mean[input];
  }
  tape_reset(&tape, mark);
}

Test(forecast, row_by_row_is_one_pass_over_the_rows_so_far) {
  enum { ROWS = 70, FIRST = -3 };
  omp_set_num_threads(1);
  write_series("s.csv", 400);
  for (int m = 0; m < N_OF(STREAMED); m++) {
    Subject s = streamed_open(STREAMED[m]);
    char *problem = forecaster_stream_problem(&s.config.model);
    cr_assert_null(problem, "%s: %s", STREAMED[m], problem);
    const int n = 4 * forecast_n_columns(&s.config.model);
    float *rows = malloc(sizeof *rows * ROWS * 2);
    double *streamed = malloc(sizeof *streamed * (size_t)n), *whole = malloc(sizeof *whole * (size_t)n);
    Rng rng = rng_make(6, RNG_TEST, 0, 0);
    for (int i = 0; i < ROWS * 2; i++) rows[i] = (float)rng_normal(&rng);
    ForecastStream stream = forecast_stream_open(s.model, &s.device, F32, dataset_series(s.dataset));
    for (int64_t t = 0; t < ROWS; t++) {
      forecast_stream_take(&stream, rows + 2 * t, FIRST + t, streamed);
      prefix_forecast(&s, rows, t + 1, FIRST, whole);
      for (int i = 0; i < n; i++)
        cr_assert(fabs(streamed[i] - whole[i]) < 1e-5 * fmax(1, fabs(whole[i])),
                  "%s, row %lld, value %d: streamed %.9g, in one pass %.9g", STREAMED[m], (long long)t, i, streamed[i],
                  whole[i]);
    }
    free(rows), free(streamed), free(whole);
    subject_close(&s);
  }
}

Test(forecast, row_by_row_needs_no_more_memory_for_ten_thousand_rows) {
  omp_set_num_threads(1);
  write_series("s.csv", 400);
  Subject s = streamed_open(STREAMED[1]);
  ForecastStream stream = forecast_stream_open(s.model, &s.device, F32, dataset_series(s.dataset));
  double values[8];
  size_t peaks[3] = {0};
  for (int64_t t = 0; t < 10000; t++) {
    const float row[] = {(float)sin((double)t), (float)cos((double)t)};
    forecast_stream_take(&stream, row, t, values);
    if (t == 0)
      peaks[0] = s.device.step.peak_bytes, peaks[1] = s.device.scratch.peak_bytes,
      peaks[2] = s.device.weights.peak_bytes;
  }
  cr_assert(isfinite(values[0]), "the state has grown to %g", values[0]);
  cr_assert(s.device.step.peak_bytes == peaks[0] && s.device.scratch.peak_bytes == peaks[1] &&
                s.device.weights.peak_bytes == peaks[2],
            "memory grew: %zu to %zu bytes of step, %zu to %zu of scratch, %zu to %zu of weights", peaks[0],
            s.device.step.peak_bytes, peaks[1], s.device.scratch.peak_bytes, peaks[2], s.device.weights.peak_bytes);
  subject_close(&s);
}

Test(forecast, models_that_need_their_whole_window_are_not_streamed) {
  static const struct {
    const char *option, *reason;
  } CASES[] = {{"revin: last", "model.revin"},
               {"patch_len: 2, stride: 2", "model.patch_len"},
               {"bidirectional: true", "model.bidirectional"},
               {"linear: true", "model.linear"},
               {"head: flatten", "model.head"},
               {"attn_layer_idx: [0], attn_cfg: {num_heads: 2}", "model.attn_layer_idx"}};
  write_series("s.csv", 400);
  for (int i = 0; i < N_OF(CASES); i++) {
    char *model = base_format("context: 16, horizon: 4, %s", CASES[i].option);
    Subject s = streamed_open(model);
    char *problem = forecaster_stream_problem(&s.config.model);
    cr_assert(problem && strstr(problem, CASES[i].reason), "%s: %s", CASES[i].option, problem ? problem : "allowed");
    free(problem), free(model);
    subject_close(&s);
  }
}
