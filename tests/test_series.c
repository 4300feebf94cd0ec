/* series: windows, parts, scaler and stored form of series datasets, held to definitions written anew here; and the
 * protocol of the ETT tables on the real files, where they are there. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/h5.h"
#include "tests/support/dataset.h"

TestSuite(series, .init = workplace_enter, .fini = workplace_leave);

/* --- the protocol of the ETT tables ------------------------------------------------------------------------------- */

/* The file's path, or NULL with a line that says why the test is skipped. */
static char *ett_path(const char *name) {
  char *path = base_format("%s/../shared/data/%s", ASPIS_SOURCE_DIR, name);
  if (access(path, R_OK) == 0) return path;
  printf("skipped: %s is not there\n", path);
  free(path);
  return NULL;
}

/* Mean squared and absolute error of repeating the last row, over the first n windows of the test part. */
static void score_repeat(Dataset *dataset, int64_t n, double *mse, double *mae) {
  const SeriesInfo *info = dataset_series(dataset);
  const int64_t width = info->n_output;
  Batch batch = windows_new(dataset, n);
  dataset_fill(dataset, PART_TEST, 0, &batch);
  *mse = *mae = 0;
  for (int64_t s = 0; s < n; s++)
    for (int64_t h = 0; h < info->horizon; h++)
      for (int64_t j = 0; j < width; j++) {
        const double last = batch.input[((s + 1) * info->context - 1) * info->n_input + info->output_input[j]];
        const double e = last - batch.output[(s * info->horizon + h) * width + j];
        *mse += e * e, *mae += fabs(e);
      }
  const double count = (double)(n * info->horizon * width);
  *mse /= count, *mae /= count;
  windows_free(&batch);
}

Test(series, ett_windows_and_the_repeat_baseline_are_those_published) {
  /* MSE and MAE of all windows, and with the last incomplete batch of 32 dropped, as the LTSF-Linear table prints it. */
  static const struct {
    const char *file;
    int horizon;
    int64_t n_test;
    double mse, mae, mse_dropped, mae_dropped;
  } ROWS[] = {
      {"ETTh1.csv", 96, 2785, 1.2944, 0.7132, 1.2946, 0.7133},
      {"ETTh1.csv", 192, 2689, 1.3249, 0.7331, 1.3251, 0.7332},
      {"ETTh1.csv", 336, 2545, 1.3299, 0.7460, 1.3233, 0.7443},
      {"ETTh1.csv", 720, 2161, 1.3351, 0.7550, 1.3386, 0.7559},
      {"ETTh2.csv", 96, 2785, 0.4317, 0.4216, 0.4318, 0.4217},
      {"ETTh2.csv", 720, 2161, 0.5945, 0.5190, 0.5884, 0.5166},
  };
  for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
    char name[64], *path = ett_path(ROWS[i].file);
    if (!path) return;
    sprintf(name, "%s, horizon %d", ROWS[i].file, ROWS[i].horizon);
    DataConfig config = series_config(96, ROWS[i].horizon);
    config.paths = &path;
    config.series.borders = (char *[]){"ett"}, config.series.n_borders = 1;
    Dataset *dataset = open_or_fail(&config, 1, NULL, name);
    const int64_t n = dataset_n_samples(dataset, PART_TEST);
    cr_assert(n == ROWS[i].n_test, "%s: %lld test windows", name, (long long)n);
    cr_assert(dataset_n_samples(dataset, PART_VAL) == 2880 - ROWS[i].horizon + 1, "%s: validation windows", name);
    cr_assert(dataset_n_samples(dataset, PART_TRAIN) == 8640 - 96 - ROWS[i].horizon + 1, "%s: training windows", name);
    double mse, mae;
    score_repeat(dataset, n, &mse, &mae);
    cr_assert(fabs(mse - ROWS[i].mse) < 5e-5 && fabs(mae - ROWS[i].mae) < 5e-5, "%s: all windows: %.5f %.5f", name, mse,
              mae);
    score_repeat(dataset, n - n % 32, &mse, &mae);
    cr_assert(fabs(mse - ROWS[i].mse_dropped) < 5e-5 && fabs(mae - ROWS[i].mae_dropped) < 5e-5,
              "%s: drop_last: %.5f %.5f", name, mse, mae);
    dataset_close(dataset);
    free(path);
  }
}

Test(series, ett_scaler_is_that_of_the_first_twelve_months) {
  char *path = ett_path("ETTh1.csv");
  if (!path) return;
  DataConfig config = series_config(336, 96);
  config.paths = &path;
  config.series.borders = (char *[]){"ett"}, config.series.n_borders = 1;
  Dataset *dataset = open_or_fail(&config, 1, NULL, "ETTh1");
  const SeriesInfo *info = dataset_series(dataset);
  cr_assert(info->n_input == 7 && info->n_output == 7 && info->n_values == 7, "%d inputs", info->n_input);
  cr_assert(strcmp(info->input_names[6], "OT") == 0, "column 7 is %s", info->input_names[6]);
  cr_assert(fabs(info->mean[6] - 17.128262) < 5e-7, "mean of OT: %.9f", info->mean[6]);
  cr_assert(fabs(info->std[6] - 9.176491) < 5e-7, "deviation of OT: %.9f", info->std[6]);
  cr_assert(info->season == 24 && strcmp(info->step, "1 hour") == 0, "season %lld, step %s", (long long)info->season,
            info->step);
  cr_assert(dataset_n_samples(dataset, PART_TEST) == 2785, "the look-back changes the number of test windows");
  /* By dates: the same windows. */
  config.series.borders = (char *[]){"2017-06-26", "2017-10-24", "2018-02-21"}, config.series.n_borders = 3;
  Dataset *dated = open_or_fail(&config, 1, NULL, "ETTh1 by date");
  for (DataPart part = PART_TRAIN; part <= PART_TEST; part++)
    cr_assert(dataset_n_samples(dated, part) == dataset_n_samples(dataset, part), "part %d: %lld windows by date", part,
              (long long)dataset_n_samples(dated, part));
  cr_assert(strcmp(dataset_tokenizer_json(dated), dataset_tokenizer_json(dataset)) == 0, "another scaler by date: %s",
            dataset_tokenizer_json(dated));
  dataset_close(dataset), dataset_close(dated);
  free(path);
}

/* --- windows and parts -------------------------------------------------------------------------------------------- */

static const struct {
  int n_rows, context, horizon;
  double train, val, test;
} CUTS[] = {{100, 4, 2, 0.6, 0.2, 0.2}, {100, 1, 1, 0.5, 0.3, 0.2},  {97, 7, 3, 0.7, 0.1, 0.2},
            {64, 16, 8, 0.5, 0.2, 0.2}, {50, 20, 10, 0.6, 0.2, 0.2}, {101, 5, 5, 0.33, 0.33, 0.34},
            {90, 9, 6, 0.8, 0.2, 0.0},  {30, 15, 3, 0.6, 0.1, 0.3}};
enum { N_CUTS = sizeof CUTS / sizeof *CUTS };

static Dataset *open_cut(int k, uint64_t seed, char *name, int64_t end[3]) {
  sprintf(name, "%d rows, context %d, horizon %d, split %g %g %g", CUTS[k].n_rows, CUTS[k].context, CUTS[k].horizon,
          CUTS[k].train, CUTS[k].val, CUTS[k].test);
  write_counting("s.csv", CUTS[k].n_rows);
  DataConfig config = series_config(CUTS[k].context, CUTS[k].horizon);
  config.split_train = CUTS[k].train, config.split_val = CUTS[k].val, config.split_test = CUTS[k].test;
  config.series.scale = false;
  end[0] = (int64_t)(CUTS[k].n_rows * CUTS[k].train + 0.5);
  end[1] = (int64_t)(CUTS[k].n_rows * (CUTS[k].train + CUTS[k].val) + 0.5);
  end[2] = (int64_t)(CUTS[k].n_rows * (CUTS[k].train + CUTS[k].val + CUTS[k].test) + 0.5);
  return open_or_fail(&config, seed, NULL, name);
}

/* Window s of the batch begins at a row: all of its cells count on from there. */
static int64_t first_row(const Batch *batch, const SeriesInfo *info, int64_t s, const char *name) {
  const float *input = batch->input + s * info->context * 3, *output = batch->output + s * info->horizon * 3;
  const int64_t row = (int64_t)input[0] / 10;
  for (int64_t i = 0; i < 3 * info->context; i++)
    cr_assert(input[i] == (float)(10 * (row + i / 3) + i % 3), "%s: window %lld, input %lld: %g", name, (long long)s,
              (long long)i, input[i]);
  for (int64_t i = 0; i < 3 * info->horizon; i++)
    cr_assert(output[i] == (float)(10 * (row + info->context + i / 3) + i % 3), "%s: window %lld, output %lld: %g",
              name, (long long)s, (long long)i, output[i]);
  cr_assert(batch->row[s] == row, "%s: window %lld: row %lld on the clock, expected %lld", name, (long long)s,
            (long long)batch->row[s], (long long)row);
  return row;
}

Test(series, windows_of_a_part_forecast_each_of_its_rows_in_order) {
  for (int k = 0; k < N_CUTS; k++) {
    char name[128];
    int64_t end[3];
    Dataset *dataset = open_cut(k, 7, name, end);
    const SeriesInfo *info = dataset_series(dataset);
    for (DataPart part = PART_VAL; part <= PART_TEST; part++) {
      const int64_t n = dataset_n_samples(dataset, part), rows = end[part] - end[part - 1];
      cr_assert(n == (rows ? rows - info->horizon + 1 : 0), "%s: part %d has %lld windows of %lld rows", name, part,
                (long long)n, (long long)rows);
      cr_assert(dataset_max_length(dataset, part) == (n ? info->context : 0), "%s: length", name);
      Batch batch = windows_new(dataset, n);
      dataset_fill(dataset, part, 0, &batch);
      for (int64_t s = 0; s < n; s++)
        cr_assert(first_row(&batch, info, s, name) + info->context == end[part - 1] + s, "%s: part %d, window %lld",
                  name, part, (long long)s);
      windows_free(&batch);
    }
    dataset_close(dataset);
  }
}

Test(series, training_windows_of_an_epoch_are_a_permutation_of_all) {
  for (int k = 0; k < N_CUTS; k++) {
    char name[128];
    int64_t end[3];
    Dataset *dataset = open_cut(k, 7, name, end);
    const SeriesInfo *info = dataset_series(dataset);
    const int64_t n = dataset_n_samples(dataset, PART_TRAIN);
    cr_assert(n == end[0] - info->context - info->horizon + 1, "%s: %lld windows", name, (long long)n);
    cr_assert(dataset_train_length(dataset, 5) == info->context, "%s: length", name);
    Batch batch = windows_new(dataset, n);
    for (int epoch = 0; epoch < 3; epoch++) {
      bool *seen = base_zalloc((size_t)n);
      dataset_fill(dataset, PART_TRAIN, epoch * n, &batch);
      for (int64_t s = 0; s < n; s++) {
        const int64_t row = first_row(&batch, info, s, name);
        cr_assert(row >= 0 && row < n && !seen[row], "%s: epoch %d: window %lld begins at row %lld", name, epoch,
                  (long long)s, (long long)row);
        seen[row] = true;
      }
      free(seen);
    }
    windows_free(&batch);
    dataset_close(dataset);
  }
}

static bool same_windows(const Dataset *dataset, const Batch *a, const Batch *b) {
  const SeriesInfo *info = dataset_series(dataset);
  return memcmp(a->input, b->input, sizeof(float) * (size_t)(a->n_seq * info->context * info->n_input)) == 0 &&
         memcmp(a->output, b->output, sizeof(float) * (size_t)(a->n_seq * info->horizon * info->n_output)) == 0;
}

Test(series, order_depends_on_seed_and_epoch_and_nothing_else) {
  char name[128];
  int64_t end[3];
  Dataset *dataset = open_cut(0, 7, name, end), *again = open_cut(0, 7, name, end), *other = open_cut(0, 8, name, end);
  const SeriesInfo *info = dataset_series(dataset);
  const int64_t n = dataset_n_samples(dataset, PART_TRAIN);
  Batch a = windows_new(dataset, n), b = windows_new(dataset, n);
  dataset_fill(dataset, PART_TRAIN, 0, &a);
  dataset_fill(dataset, PART_TRAIN, n, &b);
  cr_assert(!same_windows(dataset, &a, &b), "two epochs are alike");
  dataset_fill(other, PART_TRAIN, 0, &b);
  cr_assert(!same_windows(dataset, &a, &b), "two seeds are alike");
  for (int64_t s = n - 1; s >= 0; s--) { /* backwards, one by one: nothing may depend on what was asked before */
    Batch one = {.n_seq = 1,
                 .length = a.length,
                 .input = b.input + s * info->context * 3,
                 .output = b.output + s * info->horizon * 3};
    dataset_fill(again, PART_TRAIN, s, &one);
  }
  cr_assert(same_windows(dataset, &a, &b), "a window depends on more than its index");
  windows_free(&a), windows_free(&b);
  dataset_close(dataset), dataset_close(again), dataset_close(other);
}

Test(series, borders_by_date_cut_where_the_dates_say) {
  write_counting("s.csv", 100);
  DataConfig config = series_config(4, 2);
  config.series.scale = false;
  config.series.borders = (char *[]){"2020-01-03", "2020-01-04 00:30", "2020-01-05 04:00"}, config.series.n_borders = 3;
  Dataset *dataset = open_or_fail(&config, 1, NULL, "by date");
  static const int64_t end[] = {48, 73, 100};
  for (DataPart part = PART_VAL; part <= PART_TEST; part++) {
    Batch batch = windows_new(dataset, 1);
    cr_assert(dataset_n_samples(dataset, part) == end[part] - end[part - 1] - 1, "part %d: %lld windows", part,
              (long long)dataset_n_samples(dataset, part));
    dataset_fill(dataset, part, 0, &batch);
    cr_assert(batch.row[0] + 4 == end[part - 1], "part %d begins at row %lld", part, (long long)batch.row[0] + 4);
    windows_free(&batch);
  }
  dataset_close(dataset);
}

/* --- columns and scaler ------------------------------------------------------------------------------------------- */

Test(series, the_scaler_is_fitted_on_training_rows_alone) {
  /* Training part: a = 1 2 3 4 5 6 (mean 3.5, population variance 35/12), b = 0 0 0 2 2 2; the rest is far away. */
  write_text("s.csv", "a,b\n1,0\n2,0\n3,0\n4,2\n5,2\n6,2\n100,90\n-100,80\n1000,70\n5000,60\n");
  DataConfig config = series_config(2, 1);
  Dataset *dataset = open_or_fail(&config, 1, NULL, "scaler");
  const SeriesInfo *info = dataset_series(dataset);
  cr_assert(info->mean[0] == 3.5 && fabs(info->std[0] - sqrt(35.0 / 12)) < 1e-15, "a: %g, %g", info->mean[0],
            info->std[0]);
  cr_assert(info->mean[1] == 1 && info->std[1] == 1, "b: %g, %g", info->mean[1], info->std[1]);
  cr_assert(info->step == NULL && info->season == 1, "a file without dates has step %s", info->step);
  Batch batch = windows_new(dataset, 1);
  dataset_fill(dataset, PART_VAL, 0, &batch);
  cr_assert(batch.input[0] == (float)((5 - info->mean[0]) / info->std[0]) && batch.input[1] == 1, "input %g %g",
            batch.input[0], batch.input[1]);
  cr_assert(batch.output[0] == (float)((100 - info->mean[0]) / info->std[0]) && batch.output[1] == 89, "output %g %g",
            batch.output[0], batch.output[1]);
  windows_free(&batch);
  dataset_close(dataset);
}

static void assert_names(char *const *names, int n, const char *expected, const char *what) {
  char text[256] = "";
  for (int i = 0; i < n; i++) sprintf(text + strlen(text), "%s%s", i ? " " : "", names[i]);
  cr_assert(strcmp(text, expected) == 0, "%s: found %s, expected %s", what, text, expected);
}

Test(series, features_columns_and_known_columns_choose_inputs_and_outputs) {
  static const struct {
    SeriesFeatures features;
    const char *target, *columns[3], *known[3], *calendar[3], *inputs, *outputs;
    int n_values, first_input; /* of the target in the file: value of row r and the first output is 10 r + this */
  } CASES[] = {
      {SERIES_M, NULL, {NULL}, {NULL}, {NULL}, "a b c", "a b c", 3, 0},
      {SERIES_M, NULL, {"c", "a"}, {NULL}, {NULL}, "c a", "c a", 2, 2},
      {SERIES_M, NULL, {"4"}, {NULL}, {NULL}, "c", "c", 1, 2},
      {SERIES_M, NULL, {NULL}, {"a"}, {NULL}, "b c a", "b c", 2, 1},
      {SERIES_M, NULL, {"b"}, {"c", "a"}, {"hour", "month"}, "b c a hour month", "b", 1, 1},
      {SERIES_S, "c", {NULL}, {NULL}, {NULL}, "c", "c", 1, 2},
      {SERIES_S, "b", {NULL}, {"c"}, {"week"}, "b c week", "b", 1, 1},
      {SERIES_S, NULL, {"a"}, {NULL}, {NULL}, "a", "a", 1, 0},
      {SERIES_MS, "b", {NULL}, {NULL}, {NULL}, "a b c", "b", 3, 1},
      {SERIES_MS, "3", {"c", "b"}, {"a"}, {NULL}, "c b a", "b", 2, 1},
  };
  write_counting("s.csv", 100);
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    char name[64];
    sprintf(name, "case %zu: %s -> %s", i, CASES[i].inputs, CASES[i].outputs);
    DataConfig config = series_config(4, 2);
    SeriesConfig *s = &config.series;
    s->features = CASES[i].features, s->target = (char *)CASES[i].target, s->scale = false;
    s->columns = (char **)CASES[i].columns, s->known_columns = (char **)CASES[i].known;
    s->calendar = (char **)CASES[i].calendar;
    for (int j = 0; j < 3; j++) {
      s->n_columns += CASES[i].columns[j] != NULL, s->n_known_columns += CASES[i].known[j] != NULL;
      s->n_calendar += CASES[i].calendar[j] != NULL;
    }
    Dataset *dataset = open_or_fail(&config, 1, NULL, name);
    const SeriesInfo *info = dataset_series(dataset);
    assert_names(info->input_names, info->n_input, CASES[i].inputs, name);
    assert_names(info->output_names, info->n_output, CASES[i].outputs, name);
    cr_assert(info->n_values == CASES[i].n_values, "%s: %d value columns", name, info->n_values);
    Batch batch = windows_new(dataset, 1);
    dataset_fill(dataset, PART_TEST, 3, &batch);
    for (int h = 0; h < info->horizon; h++) {
      const float value = batch.output[h * info->n_output],
                  before = batch.input[(info->context - 1) * info->n_input + info->output_input[0]];
      cr_assert(value == (float)(10 * (83 + h) + CASES[i].first_input) && value == before + 10.0f * (float)(h + 1),
                "%s: step %d: %g after %g", name, h, value, before);
    }
    windows_free(&batch);
    dataset_close(dataset);
  }
}

Test(series, calendar_inputs_are_the_dates_fields_between_minus_and_plus_a_half) {
  write_text("s.csv",
             "d,a\n2024-12-30 00:00,1\n2024-12-30 06:00,2\n2024-12-30 12:00,1\n2024-12-30 18:00,2\n2024-12-31 00:00,3\n"
             "2024-12-31 06:00,1\n2024-12-31 12:00,2\n2024-12-31 18:00,3\n2025-01-01 00:00,1\n2025-01-01 06:00,2\n");
  DataConfig config = series_config(2, 1);
  config.series.calendar = (char *[]){"minute", "hour", "day_of_week", "day_of_month", "day_of_year", "week", "month"};
  config.series.n_calendar = 7;
  Dataset *dataset = open_or_fail(&config, 1, NULL, "calendar");
  Batch batch = windows_new(dataset, 1);
  dataset_fill(dataset, PART_TEST, 0, &batch); /* forecasts row 8; the window is rows 6 and 7, on Tuesday 31 December */
  const double expected[] = {-0.5, 12.0 / 23 - 0.5, 1.0 / 6 - 0.5, 0.5, 0.5, -0.5, 0.5};
  for (int i = 0; i < 7; i++)
    cr_assert(fabs(batch.input[1 + i] - expected[i]) < 1e-7, "%s: %g, expected %g", config.series.calendar[i],
              batch.input[1 + i], expected[i]);
  cr_assert(fabs(batch.input[8 + 2] - (18.0 / 23 - 0.5)) < 1e-7, "the next row's hour: %g", batch.input[10]);
  windows_free(&batch);
  dataset_close(dataset);
}

/* --- missing values ----------------------------------------------------------------------------------------------- */

static const char *const HOLES =
    "d,a,b\n2020-01-01,1,10\n2020-01-02,2,20\n2020-01-03,,30\n2020-01-04,4,NaN\n2020-01-05,5,50\n"
    "2020-01-06,6,60\n2020-01-07,,70\n2020-01-08,8,NA\n2020-01-09,9,90\n2020-01-10,10,100\n";

Test(series, missing_values_are_counted_and_refused_filled_or_masked) {
  write_text("s.csv", HOLES);
  DataConfig config = series_config(2, 1);
  assert_refused(&config, NULL, CODE_DATA, "s.csv: line 4, column a: found no value, the first of 4 missing", "refuse");

  config.series.missing = MISSING_FFILL, config.series.scale = false;
  Dataset *dataset = open_or_fail(&config, 1, NULL, "ffill");
  Batch batch = windows_new(dataset, 2);
  dataset_fill(dataset, PART_VAL, 0, &batch); /* forecasts rows 6 and 7 */
  static const float filled[] = {5, 50, 6, 60, 6, 60, 6, 70}, filled_out[] = {6, 70, 8, 70};
  cr_assert(memcmp(batch.input, filled, sizeof filled) == 0 && memcmp(batch.output, filled_out, sizeof filled_out) == 0,
            "ffill: %g %g, then %g %g", batch.output[0], batch.output[1], batch.output[2], batch.output[3]);
  dataset_close(dataset);

  config.series.missing = MISSING_MASK, config.series.scale = true;
  dataset = open_or_fail(&config, 1, NULL, "mask");
  const SeriesInfo *info = dataset_series(dataset);
  cr_assert(fabs(info->mean[0] - 3.6) < 1e-15 && info->mean[1] == 34, "means of what is there: %g %g", info->mean[0],
            info->mean[1]);
  dataset_fill(dataset, PART_VAL, 0, &batch);
  cr_assert(isnan(batch.output[0]) && batch.output[1] == (float)((70 - info->mean[1]) / info->std[1]) &&
                isnan(batch.output[3]),
            "mask: output %g %g %g", batch.output[0], batch.output[1], batch.output[3]);
  cr_assert(batch.input[6] == 0 && batch.input[7] == batch.output[1], "mask: input %g %g", batch.input[6],
            batch.input[7]);
  windows_free(&batch);
  dataset_close(dataset);
}

/* --- other sources ------------------------------------------------------------------------------------------------ */

static void write_h5(const char *path, int64_t n_rows, int64_t n_columns, const double *values) {
  H5File *file;
  Status status = h5_create(path, 1 << 16, false, CODE_DATA, &file);
  if (status.code == CODE_OK)
    status = h5_write(file, "some/series", H5_F64, n_columns ? 2 : 1, (const int64_t[]){n_rows, n_columns}, values);
  if (status.code == CODE_OK) status = h5_commit(file);
  cr_assert(status.code == CODE_OK, "%s", status.line);
}

Test(series, an_hdf5_dataset_is_a_table_without_dates) {
  double values[40];
  for (int i = 0; i < 40; i++) values[i] = 0.1 * i * i;
  write_h5("s.h5", 20, 2, values);
  write_h5("one.h5", 40, 0, values);
  FILE *file = fopen("s.csv", "w");
  for (int i = 0; i < 40; i += 2) fprintf(file, "%.17g,%.17g\n", values[i], values[i + 1]);
  fclose(file);
  DataConfig config = series_config(3, 2);
  Dataset *csv = open_or_fail(&config, 1, NULL, "CSV");
  config.paths = (char *[]){"s.h5:/some/series"};
  Dataset *h5 = open_or_fail(&config, 1, NULL, "HDF5");
  cr_assert(strcmp(dataset_tokenizer_json(csv), dataset_tokenizer_json(h5)) == 0, "%s", dataset_tokenizer_json(h5));
  const int64_t n = dataset_n_samples(csv, PART_TRAIN);
  cr_assert(n == dataset_n_samples(h5, PART_TRAIN) && n == 8, "%lld windows", (long long)n);
  Batch a = windows_new(csv, n), b = windows_new(h5, n);
  dataset_fill(csv, PART_TRAIN, 0, &a);
  dataset_fill(h5, PART_TRAIN, 0, &b);
  cr_assert(same_windows(csv, &a, &b), "other windows than of the same CSV");
  windows_free(&a), windows_free(&b);
  dataset_close(csv), dataset_close(h5);
  config.paths = (char *[]){"one.h5:/some/series"};
  Dataset *one = open_or_fail(&config, 1, NULL, "one column");
  cr_assert(dataset_series(one)->n_input == 1 && dataset_n_samples(one, PART_TRAIN) == 20, "one column");
  dataset_close(one);
  config.paths = (char *[]){"s.h5:/some/series"}, config.series.scale = false;
  config.series.columns = (char *[]){"2"}, config.series.n_columns = 1;
  Dataset *second = open_or_fail(&config, 1, NULL, "the second column");
  Batch batch = windows_new(second, 1);
  dataset_fill(second, PART_VAL, 0, &batch); /* forecasts row 12 */
  cr_assert(batch.output[0] == (float)values[25] && batch.input[0] == (float)values[19], "the second column: %g",
            batch.output[0]);
  windows_free(&batch);
  dataset_close(second);
  config.series.n_columns = 0, config.series.scale = true;

  values[7] = INFINITY, write_h5("inf.h5", 20, 2, values);
  values[7] = NAN, write_h5("nan.h5", 20, 2, values);
  static const struct {
    const char *path, *phrase;
    Code code;
  } CASES[] = {
      {"s.h5", "data.path: found s.h5, expected the dataset as well: s.h5:/NAME", CODE_USAGE},
      {"s.h5:/other", "s.h5: found no dataset other, expected one of numbers", CODE_DATA},
      {"gone.h5:/some/series", "gone.h5", CODE_DATA},
      {"inf.h5:/some/series", "inf.h5:/some/series: row 3, column 2: found inf, expected a finite number", CODE_DATA},
      {"nan.h5:/some/series", "nan.h5:/some/series: row 3, column 2: found no value, the first of 1", CODE_DATA}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    config.paths = (char *[]){(char *)CASES[i].path};
    assert_refused(&config, NULL, CASES[i].code, CASES[i].phrase, CASES[i].path);
  }
}

static DataConfig rule_config(char *task, int n_columns) {
  DataConfig config = series_config(24, 12);
  config.n_paths = 0;
  config.series.task = task;
  config.series.generate_rows = 1000, config.series.generate_columns = n_columns, config.series.generate_season = 24;
  return config;
}

Test(series, generated_series_follow_their_rule_whatever_the_seed) {
  static char *const tasks[] = {"sine", "trend_season", "regimes"};
  for (int k = 0; k < 3; k++) {
    DataConfig config = rule_config(tasks[k], 2);
    config.series.scale = false;
    Dataset *clean = open_or_fail(&config, 1, NULL, tasks[k]);
    config.series.generate_noise = 0.25;
    Dataset *noisy = open_or_fail(&config, 1, NULL, tasks[k]), *again = open_or_fail(&config, 2, NULL, tasks[k]);
    cr_assert(dataset_series(clean)->season == 24 && strcmp(dataset_series(clean)->step, "1 hour") == 0, "%s: season",
              tasks[k]);
    const int64_t n = dataset_n_samples(clean, PART_VAL), count = n * 24 * 2;
    Batch a = windows_new(clean, n), b = windows_new(clean, n);
    dataset_fill(clean, PART_VAL, 0, &a);
    if (k == 0)
      for (int64_t i = 0; i < count; i++) {
        const double expected = sin(6.283185307179586 * (double)(a.row[i / 48] + i / 2 % 24) / 24 + (double)(i % 2));
        cr_assert(fabs(a.input[i] - expected) < 1e-6, "sine: value %lld is %g, expected %g", (long long)i, a.input[i],
                  expected);
      }
    dataset_fill(noisy, PART_VAL, 0, &b);
    double squares = 0;
    for (int64_t i = 0; i < count; i++) squares += (a.input[i] - b.input[i]) * (a.input[i] - b.input[i]);
    const float first = b.input[0] - a.input[0], second = b.input[1] - a.input[1];
    cr_assert(fabsf(first - second) > 1e-3f, "%s: two columns share their noise: %g", tasks[k], first);
    cr_assert(fabs(sqrt(squares / (double)count) - 0.25) < 0.03, "%s: noise of %g", tasks[k],
              sqrt(squares / (double)count));
    dataset_fill(again, PART_VAL, 0, &a);
    cr_assert(same_windows(clean, &a, &b), "%s: the data changes with the seed", tasks[k]);
    windows_free(&a), windows_free(&b);
    dataset_close(clean), dataset_close(noisy), dataset_close(again);
  }
  /* A column is the same beside others and alone. */
  DataConfig config = rule_config("regimes", 3);
  config.series.scale = false, config.series.features = SERIES_S, config.series.target = "2";
  Dataset *alone = open_or_fail(&config, 1, NULL, "alone");
  config.series.features = SERIES_MS;
  Dataset *beside = open_or_fail(&config, 1, NULL, "beside");
  Batch a = windows_new(alone, 5), b = windows_new(beside, 5);
  dataset_fill(alone, PART_TEST, 0, &a), dataset_fill(beside, PART_TEST, 0, &b);
  cr_assert(memcmp(a.output, b.output, sizeof(float) * 5 * 12) == 0, "a column depends on its neighbours");
  windows_free(&a), windows_free(&b);
  dataset_close(alone), dataset_close(beside);
}

/* --- what is refused ---------------------------------------------------------------------------------------------- */

Test(series, unusable_data_is_refused_with_place_and_advice) {
  static const struct {
    const char *text, *phrase;
    int context, horizon;
  } CASES[] = {
      {"a,b\n1,2\n2,2\n3,2\n4,2\n5,2\n6,3\n7,3\n8,3\n9,4\n1,5\n",
       "s.csv: column b: found the value 2 in all 5 rows of the training part", 1, 1},
      {"a,b\n1,2\n2,2\n3\n", "s.csv: line 4: found 1 cell, expected 2", 1, 1},
      {"a,b\n1,2\n2,x\n", "s.csv: line 3, column b: found \"x\", expected a number", 1, 1},
      {"d,b\n2020-01-01,2\n2020-01-03,3\n2020-01-02,4\n",
       "s.csv: line 4, column d: found \"2020-01-02\", expected a date after 2020-01-03", 1, 1},
      {"d,b\n2020-01-01,2\n2020-01-02,3\n2020-01-04,4\n2020-01-05,4\n",
       "s.csv: line 4, column d: found 2020-01-04, expected 2020-01-03, 1 day after the row above as most rows are", 1,
       1},
      {"a\n1\n2\n3\n4\n5\n6\n7\n8\n9\n1\n",
       "s.csv: found 5 rows in the training part (of 10), expected at least model.context + model.horizon = 6", 4, 2},
      {"a\n1\n2\n3\n4\n5\n6\n7\n8\n9\n1\n",
       "s.csv: found 3 rows in the validation part (of 10), expected at least model.horizon = 4", 1, 4},
      {"a\n1\n2\n3\n4\n5\n6\n7\n8\n9\n1\n",
       "s.csv: found 2 rows in the test part (of 10), expected at least model.horizon = 3", 1, 3},
      {"d\n2020-01-01\n2020-01-02\n", "s.csv: found no column of values", 1, 1},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    write_text("s.csv", CASES[i].text);
    DataConfig config = series_config(CASES[i].context, CASES[i].horizon);
    config.split_train = 0.5, config.split_val = 0.3;
    assert_refused(&config, NULL, CODE_DATA, CASES[i].phrase, CASES[i].phrase);
  }
  write_text("s.csv", "a,b\n,2\n1,2\n2,2\n");
  DataConfig config = series_config(1, 1);
  config.series.missing = MISSING_FFILL;
  assert_refused(&config, NULL, CODE_DATA, "s.csv: line 2, column a: found no value and none above to repeat", "ffill");
  write_text("s.csv", "a,b\n1,\n2,\n3,\n4,\n5,\n6,1\n7,2\n8,3\n9,4\n1,5\n");
  config.series.missing = MISSING_MASK, config.split_train = 0.5, config.split_val = 0.3;
  assert_refused(&config, NULL, CODE_DATA, "s.csv: column b: found no value in all 5 rows of the training part",
                 "mask");
  config.series.missing = MISSING_REFUSE, config.n_paths = 2, config.paths = (char *[]){"s.csv", "s.csv"};
  assert_refused(&config, NULL, CODE_USAGE, "data.path: found 2 paths, expected one CSV", "two files");
  config.n_paths = 1, config.paths = (char *[]){"gone.csv"};
  assert_refused(&config, NULL, CODE_DATA, "gone.csv: cannot read", "no file");
}

Test(series, gaps_are_ignored_when_asked_for) {
  write_text("s.csv",
             "d,b\n2020-01-03,2\n2020-01-06,3\n2020-01-07,4\n2020-01-08,5\n2020-01-09,6\n2020-01-10,4\n2020-01-13,1\n"
             "2020-01-14,2\n2020-01-15,3\n2020-01-16,3\n");
  DataConfig config = series_config(2, 1);
  assert_refused(&config, NULL, CODE_DATA, "s.csv: line 3, column d: found 2020-01-06, expected 2020-01-04",
                 "working days");
  config.series.gaps = GAPS_IGNORE;
  Dataset *dataset = open_or_fail(&config, 1, NULL, "ignored");
  cr_assert(strcmp(dataset_series(dataset)->step, "1 day") == 0 && dataset_n_samples(dataset, PART_TRAIN) == 4,
            "step %s", dataset_series(dataset)->step);
  dataset_close(dataset);
  Series *series = train_series(&config);
  SeriesContext context;
  Status status = series_read_context(series, "s.csv", &context);
  cr_assert(status.code == CODE_OK && strcmp(context.dates[0], "2020-01-17") == 0, "%s", status.line);
  series_context_free(&context);
  series_free(series);
}

Test(series, keys_that_do_not_fit_the_data_are_refused_by_name) {
  typedef struct Case {
    const char *name, *phrase;
    SeriesConfig set; /* over the default */
    Code code;
  } Case;
#define LIST(field, ...) .field = (char *[]){__VA_ARGS__}, .n_##field = sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)
  const Case CASES[] = {
      {"column",
       "data.columns: found z, expected a column of s.csv: date, a, b, c",
       {LIST(columns, "a", "z")},
       CODE_DATA},
      {"twice", "data.columns: found 2 a second time", {LIST(columns, "a", "2")}, CODE_USAGE},
      {"dates as values",
       "data.columns: found date, which is the column of dates",
       {LIST(columns, "date")},
       CODE_USAGE},
      {"known", "data.known_columns: found z, expected a column", {LIST(known_columns, "z")}, CODE_DATA},
      {"known and value",
       "data.known_columns: found a a second time",
       {LIST(columns, "a"), LIST(known_columns, "a")},
       CODE_USAGE},
      {"all known", "s.csv: found no column of values", {LIST(known_columns, "a", "b", "c")}, CODE_DATA},
      {"no target",
       "data.target: found none, expected one of the value columns (data.features: S): a, b, c",
       {.features = SERIES_S},
       CODE_USAGE},
      {"target", "data.target: found z, expected a column", {.features = SERIES_MS, .target = "z"}, CODE_DATA},
      {"known target",
       "data.target: found a, expected one of the value columns (data.features: MS): b, c",
       {.features = SERIES_MS, .target = "a", LIST(known_columns, "a")},
       CODE_USAGE},
      {"calendar", "data.calendar: found moon, expected minute, hour", {LIST(calendar, "moon")}, CODE_USAGE},
      {"calendar twice",
       "data.calendar: found hour, which is an input already",
       {LIST(calendar, "hour", "hour")},
       CODE_USAGE},
      {"date column",
       "s.csv: found no column when among its 4, expected that of the dates",
       {.date_column = "when"},
       CODE_DATA},
      {"wrong date column",
       "s.csv: line 2, column a: found \"0\", expected a date",
       {.date_column = "a", LIST(columns, "b")},
       CODE_DATA},
      {"no date column",
       "s.csv: line 2, column date: found \"2020-01-01 00:00:00\", expected a number",
       {.date_column = "null"},
       CODE_DATA},
      {"borders",
       "data.borders: found 2, expected ett, or three dates",
       {LIST(borders, "2020-01-02", "2020-01-03")},
       CODE_USAGE},
      {"border",
       "data.borders: found soon, expected ett or three dates",
       {LIST(borders, "2020-01-02", "soon", "2020-01-04")},
       CODE_USAGE},
      {"falling borders",
       "expected three dates that rise",
       {LIST(borders, "2020-01-03", "2020-01-02", "2020-01-04")},
       CODE_USAGE},
      {"late border",
       "data.borders: found 2020-02-01, expected a date inside of s.csv: after 2020-01-01 00:00:00, up to 2020-01-05 "
       "03:00:00",
       {LIST(borders, "2020-01-02", "2020-01-03", "2020-02-01")},
       CODE_DATA},
      {"early border",
       "data.borders: found 2019-01-02, expected a date inside",
       {LIST(borders, "2019-01-02", "2020-01-03", "2020-01-04")},
       CODE_DATA},
      {"ett",
       "s.csv: found 100 rows, expected at least 14400: 20 months of 30 days",
       {LIST(borders, "ett")},
       CODE_DATA},
      {"delimiter",
       "data.columns: found a, expected a column of s.csv: date,a,b,c",
       {.delimiter = ";", LIST(columns, "a")},
       CODE_DATA},
  };
  write_counting("s.csv", 100);
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    DataConfig config = series_config(4, 2);
    const SeriesConfig usual = config.series;
    config.series = CASES[i].set;
    config.series.context = usual.context, config.series.horizon = usual.horizon, config.series.scale = true;
    if (!CASES[i].set.date_column) config.series.date_column = usual.date_column;
    else if (strcmp(CASES[i].set.date_column, "null") == 0) config.series.date_column = NULL;
    if (!CASES[i].set.delimiter) config.series.delimiter = usual.delimiter;
    assert_refused(&config, NULL, CASES[i].code, CASES[i].phrase, CASES[i].name);
  }
  DataConfig config = series_config(4, 2);
  config.split_train = 0.9, config.split_val = 0.2;
  assert_refused(&config, NULL, CODE_USAGE, "data.split: found train 0.9, val 0.2 and test 0.2", "split");
  write_text("s.csv", "1,2\n2,3\n3,4\n4,5\n5,6\n6,7\n7,8\n8,9\n9,1\n1,2\n");
  config = series_config(2, 1);
  config.series.calendar = (char *[]){"hour"}, config.series.n_calendar = 1;
  assert_refused(&config, NULL, CODE_USAGE, "data.calendar: found features of dates, but s.csv has none", "no dates");
  config = series_config(2, 1);
  config.series.borders = (char *[]){"2020-01-02", "2020-01-03", "2020-01-04"}, config.series.n_borders = 3;
  assert_refused(&config, NULL, CODE_USAGE, "data.borders: found dates, but s.csv has none", "borders without dates");
  config.series.borders = (char *[]){"ett"}, config.series.n_borders = 1;
  assert_refused(&config, NULL, CODE_DATA, "s.csv: found no dates, expected dates with a step that divides 30 days",
                 "ett without dates");
  config = rule_config("tides", 1);
  assert_refused(&config, NULL, CODE_USAGE, "data.generate.task: found tides, expected sine, trend_season or regimes",
                 "rule");
  config = rule_config("sine", 0);
  assert_refused(&config, NULL, CODE_USAGE, "data.generate: found rows 1000, columns 0", "no columns");
  config = rule_config("sine", 1);
  config.n_paths = 1;
  assert_refused(&config, NULL, CODE_USAGE, "data.generate.task: found sine beside data.path", "a path too");
}

Test(series, window_shows_the_files_own_numbers_and_dates) {
  /* 100 rows: 60, 20, 20. Windows of 6 + 4 rows; those of a part begin 6 rows before it. */
  write_counting("s.csv", 100);
  DataConfig config = series_config(6, 4);
  Dataset *dataset = open_or_fail(&config, 1, NULL, "counting");
  static const struct {
    DataPart part;
    int64_t index, first_row;
  } cases[] = {{PART_VAL, 0, 54}, {PART_VAL, 16, 70}, {PART_TEST, 3, 77}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    SeriesWindow window = dataset_window(dataset, cases[i].part, cases[i].index);
    cr_assert(window.row == cases[i].first_row, "case %zu begins with row %lld", i, (long long)window.row);
    for (int64_t r = 0; r < 10; r++)
      for (int64_t c = 0; c < 3; c++)
        cr_assert_float_eq(window.values[3 * r + c], 10.0 * (double)(cases[i].first_row + r) + (double)c, 1e-3,
                           "case %zu, row %lld, column %lld: %g", i, (long long)r, (long long)c,
                           window.values[3 * r + c]);
    for (int64_t r = 1; r < 10; r++)
      cr_assert(window.dates[r] - window.dates[r - 1] == 3600, "case %zu: row %lld is an hour later", i, (long long)r);
    cr_assert(window.dates[0] % 86400 == cases[i].first_row % 24 * 3600, "case %zu: the first row's hour", i);
    series_window_free(&window);
  }
  dataset_close(dataset);
}
