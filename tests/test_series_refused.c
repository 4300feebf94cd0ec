/* series_refused: data and keys that cannot be used end in one line with place and advice. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/support/dataset.h"

TestSuite(series_refused, .init = workplace_enter, .fini = workplace_leave);

Test(series_refused, unusable_data_is_refused_with_place_and_advice) {
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

Test(series_refused, gaps_are_ignored_when_asked_for) {
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
  Status status = series_read_context(series, "s.csv", NULL, &context);
  cr_assert(status.code == CODE_OK && strcmp(context.dates[0], "2020-01-17") == 0, "%s", status.line);
  series_context_free(&context);
  series_free(series);
}

Test(series_refused, keys_that_do_not_fit_the_data_are_refused_by_name) {
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
