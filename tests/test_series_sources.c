/* series_sources: series that are no CSV: HDF5 datasets, and those made by a rule. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tensor/h5.h"
#include "tests/support/dataset.h"

TestSuite(series_sources, .init = workplace_enter, .fini = workplace_leave);

static void write_h5(const char *path, int64_t n_rows, int64_t n_columns, const double *values) {
  H5File *file;
  Status status = h5_create(path, 1 << 16, false, CODE_DATA, &file);
  if (status.code == CODE_OK)
    status = h5_write(file, "some/series", H5_F64, n_columns ? 2 : 1, (const int64_t[]){n_rows, n_columns}, values);
  if (status.code == CODE_OK) status = h5_commit(file);
  cr_assert(status.code == CODE_OK, "%s", status.line);
}

Test(series_sources, an_hdf5_dataset_is_a_table_without_dates) {
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
  cr_assert(windows_equal(csv, &a, &b), "other windows than of the same CSV");
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

Test(series_sources, generated_series_follow_their_rule_whatever_the_seed) {
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
    cr_assert(windows_equal(clean, &a, &b), "%s: the data changes with the seed", tasks[k]);
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
