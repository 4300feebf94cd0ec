/* series: which rows, columns and numbers the windows of a series have, held to definitions written anew here. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/dataset.h"

TestSuite(series, .init = workplace_enter, .fini = workplace_leave);

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

Test(series, order_depends_on_seed_and_epoch_and_nothing_else) {
  char name[128];
  int64_t end[3];
  Dataset *dataset = open_cut(0, 7, name, end), *again = open_cut(0, 7, name, end), *other = open_cut(0, 8, name, end);
  const SeriesInfo *info = dataset_series(dataset);
  const int64_t n = dataset_n_samples(dataset, PART_TRAIN);
  Batch a = windows_new(dataset, n), b = windows_new(dataset, n);
  dataset_fill(dataset, PART_TRAIN, 0, &a);
  dataset_fill(dataset, PART_TRAIN, n, &b);
  cr_assert(!windows_equal(dataset, &a, &b), "two epochs are alike");
  dataset_fill(other, PART_TRAIN, 0, &b);
  cr_assert(!windows_equal(dataset, &a, &b), "two seeds are alike");
  for (int64_t s = n - 1; s >= 0; s--) { /* backwards, one by one: nothing may depend on what was asked before */
    Batch one = {.n_seq = 1,
                 .length = a.length,
                 .input = b.input + s * info->context * 3,
                 .output = b.output + s * info->horizon * 3};
    dataset_fill(again, PART_TRAIN, s, &one);
  }
  cr_assert(windows_equal(dataset, &a, &b), "a window depends on more than its index");
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

Test(series, a_column_without_any_value_is_named_as_one_to_leave_out) {
  write_text("s.csv", "d,a,\n2020-01-01,1,\n2020-01-02,2,\n2020-01-03,3,\n2020-01-04,4,\n2020-01-05,5,\n");
  DataConfig config = series_config(2, 1);
  assert_refused(&config, NULL, CODE_DATA,
                 "s.csv: column 3: found no value in any of its 5 rows; name the columns to use in data.columns",
                 "lines that end with a separator");
}

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
