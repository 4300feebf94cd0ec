/* series_future: inputs that go on over the rows to forecast: what they hold in training, and where `forecast` takes them
 * from. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/dataset.h"

TestSuite(series_future, .init = workplace_enter, .fini = workplace_leave);

enum { CONTEXT = 4, HORIZON = 3, N_IN = 4 }; /* a, b; c known; the hour */

/* Of write_counting, unscaled: c and the hour are known. */
static DataConfig known_config(void) {
  static char *known[] = {"c"}, *calendar[] = {"hour"};
  DataConfig config = series_config(CONTEXT, HORIZON);
  config.series.known_columns = known, config.series.n_known_columns = 1;
  config.series.calendar = calendar, config.series.n_calendar = 1;
  config.series.known_future = true, config.series.scale = false;
  return config;
}

static void assert_row(const float *row, double a, double b, double c, int hour, const char *name) {
  const double expected[N_IN] = {a, b, c, hour / 23.0 - 0.5};
  for (int i = 0; i < N_IN; i++)
    cr_assert(fabs(row[i] - expected[i]) < 1e-6, "%s: input %d is %g, expected %g", name, i, row[i], expected[i]);
}

Test(series_future, windows_go_on_over_the_rows_to_forecast_without_their_values) {
  write_counting("s.csv", 100);
  DataConfig config = known_config();
  Dataset *dataset = open_or_fail(&config, 1, NULL, "known future");
  const SeriesInfo *info = dataset_series(dataset);
  cr_assert(info->context == CONTEXT && info->window == CONTEXT + HORIZON && info->n_values == 2 && info->n_known == 1,
            "windows of %d rows, %d values, %d known", info->window, info->n_values, info->n_known);
  cr_assert(dataset_max_length(dataset, PART_TEST) == CONTEXT + HORIZON, "%lld rows at most",
            (long long)dataset_max_length(dataset, PART_TEST));
  Batch batch = windows_new(dataset, 1);
  dataset_fill(dataset, PART_VAL, 0, &batch); /* forecasts rows 60 to 62 */
  for (int t = 0; t < CONTEXT + HORIZON; t++) {
    const int row = 60 - CONTEXT + t;
    const bool past = t < CONTEXT;
    assert_row(batch.input + t * N_IN, past ? 10 * row : 0, past ? 10 * row + 1 : 0, 10 * row + 2, row % 24,
               past ? "a row of the context" : "a row to forecast");
  }
  cr_assert(batch.output[0] == 600 && batch.output[3] == 611, "the output is %g, %g", batch.output[0], batch.output[3]);
  windows_free(&batch);
  dataset_close(dataset);
}

static const char INPUT[] = "date,a,b,c\n2020-01-02 00:00,1,2,3\n2020-01-02 01:00,4,5,6\n2020-01-02 02:00,7,8,9\n"
                            "2020-01-02 03:00,10,11,12\n2020-01-02 04:00,13,14,15\n";

Test(series_future, a_forecast_takes_the_known_columns_of_the_dates_that_follow) {
  write_counting("s.csv", 100);
  DataConfig config = known_config();
  Series *series = train_series(&config);
  write_text("x.csv", INPUT);
  static const char *const FUTURES[] = {
      "date,c\n2020-01-02 05:00,50\n2020-01-02 06:00,60\n2020-01-02 07:00,70\n",
      /* earlier and later rows, other columns and their gaps */
      "date;a;c;d\n2020-01-02 03:00;1;2;x\n2020-01-02 04:00;;4;\n2020-01-02 05:00;;50;\n2020-01-02 06:00;;60;\n"
      "2020-01-02 07:00;;70;\n2020-01-02 08:00;;80;\n"};
  for (int i = 0; i < 2; i++) {
    SeriesContext context;
    write_text("future.csv", FUTURES[i]);
    Status status = series_read_context(series, "x.csv", "future.csv", &context);
    cr_assert(status.code == CODE_OK, "%s", status.line);
    assert_row(context.input, 4, 5, 6, 1, "the first row");
    for (int h = 0; h < HORIZON; h++)
      assert_row(context.input + (CONTEXT + h) * N_IN, 0, 0, 50 + 10 * h, 5 + h, FUTURES[i]);
    cr_assert(context.n_dates == HORIZON && strcmp(context.dates[2], "2020-01-02 07:00") == 0, "the dates end with %s",
              context.dates[2]);
    series_context_free(&context);
  }
  series_free(series);
}

Test(series_future, a_calendar_alone_needs_no_file) {
  write_counting("s.csv", 100);
  DataConfig config = known_config();
  config.series.n_known_columns = 0;
  Series *series = train_series(&config);
  SeriesContext context;
  write_text("x.csv", INPUT);
  Status status = series_read_context(series, "x.csv", NULL, &context);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  for (int h = 0; h < HORIZON; h++)
    assert_row(context.input + (CONTEXT + h) * N_IN, 0, 0, 0, 5 + h, "a row to forecast");
  series_context_free(&context);
  status = series_read_context(series, "x.csv", "x.csv", &context);
  cr_assert(status.code == CODE_USAGE && strstr(status.line, "reads nothing of the rows to forecast"), "%s",
            status.line);
  status_clear(&status);
  series_free(series);
}

Test(series_future, without_dates_the_first_rows_are_those_that_follow) {
  write_text("s.csv",
             "a,c\n1,2\n2,5\n3,4\n4,7\n5,6\n6,9\n7,8\n8,11\n9,10\n10,13\n11,12\n12,14\n13,1\n14,2\n15,3\n16,4\n"
             "17,8\n18,2\n19,3\n20,4\n21,3\n22,2\n23,3\n24,4\n25,2\n");
  DataConfig config = series_config(2, 2);
  static char *known[] = {"c"};
  config.series.known_columns = known, config.series.n_known_columns = 1;
  config.series.known_future = true, config.series.scale = false;
  Series *series = train_series(&config);
  SeriesContext context;
  write_text("future.csv", "c\n30\n40\n50\n");
  Status status = series_read_context(series, "s.csv", "future.csv", &context);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  static const float EXPECTED[] = {24, 4, 25, 2, 0, 30, 0, 40};
  cr_assert_arr_eq(context.input, EXPECTED, sizeof EXPECTED, "the input ends with %g", context.input[7]);
  series_context_free(&context);
  series_free(series);
}

Test(series_future, a_file_that_does_not_tell_the_rows_that_follow_is_refused) {
  write_counting("s.csv", 100);
  DataConfig config = known_config();
  Series *series = train_series(&config);
  SeriesContext context;
  write_text("x.csv", INPUT);
  static const struct {
    const char *future, *phrase;
  } CASES[] = {
      {"date,a\n2020-01-02 05:00,1\n", "future.csv: lacks c, expected the columns the model was trained with: c"},
      {"c\n1\n2\n3\n", "future.csv: found no column date among its 1"},
      {"date,c\n2020-01-02 05:00,1\n2020-01-02 06:00,1\n",
       "future.csv: found 2 rows after the last of x.csv, expected 3 (model.horizon)"},
      {"date,c\n2020-01-01 05:00,1\n", "future.csv: found 0 rows after the last of x.csv, expected 3"},
      {"date,c\n2020-01-02 06:00,1\n2020-01-02 07:00,1\n2020-01-02 08:00,1\n",
       "future.csv: line 2, column date: found 2020-01-02 06:00, expected 2020-01-02 05:00: the rows to forecast"},
      {"date,c\n2020-01-02 05:00,1\n2020-01-02 06:00,\n2020-01-02 07:00,1\n",
       "future.csv: line 3, column c: found no value"},
      {"date,c\n2020-01-02 05:00,1\n2020-01-02 06:00,dear\n2020-01-02 07:00,1\n", "future.csv: line 3, column c"},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    write_text("future.csv", CASES[i].future);
    Status status = series_read_context(series, "x.csv", "future.csv", &context);
    cr_assert(status.code == CODE_DATA && strstr(status.line, CASES[i].phrase), "\"%s\" does not say \"%s\"",
              status.line ? status.line : "", CASES[i].phrase);
    status_clear(&status);
  }
  Status status = series_read_context(series, "x.csv", NULL, &context);
  cr_assert(status.code == CODE_USAGE && strstr(status.line, "expected --future FILE.csv with them: c, hour"), "%s",
            status.line);
  status_clear(&status);
  series_free(series);
}
