/* series_ett: the protocol of the ETT tables, on the real files where they are there. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/dataset.h"

TestSuite(series_ett, .init = workplace_enter, .fini = workplace_leave);

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

Test(series_ett, windows_and_the_repeat_baseline_are_those_published) {
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

Test(series_ett, scaler_is_that_of_the_first_twelve_months) {
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
