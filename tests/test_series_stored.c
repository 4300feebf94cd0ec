/* series_stored: what a checkpoint keeps of a series, and what is made of it: the input of a forecast from the end of a
 * file, and from rows that come one at a time. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/dataset.h"

TestSuite(series_stored, .init = workplace_enter, .fini = workplace_leave);

Test(series_stored, the_stored_scaler_serves_other_data_with_the_same_columns) {
  write_counting("s.csv", 100);
  DataConfig config = series_config(4, 2);
  Dataset *trained = open_or_fail(&config, 1, NULL, "trained");
  char *json = base_strdup(dataset_tokenizer_json(trained));
  FILE *file = fopen("s.csv", "w");
  fprintf(file, "date,a,b,c\n");
  for (int r = 0; r < 60; r++) fprintf(file, "2020-02-%02d %02d:00:00,%d,7,%d\n", 1 + r / 24, r % 24, -r, r % 3);
  fclose(file);
  Dataset *other = open_or_fail(&config, 1, json, "other data, a constant column and all");
  const SeriesInfo *a = dataset_series(trained), *b = dataset_series(other);
  cr_assert(memcmp(a->mean, b->mean, 3 * sizeof *a->mean) == 0 && memcmp(a->std, b->std, 3 * sizeof *a->std) == 0,
            "the scaler was fitted anew: %g", b->mean[0]);
  cr_assert(strcmp(dataset_tokenizer_json(other), json) == 0, "another stored form:\n%s\n%s",
            dataset_tokenizer_json(other), json);
  Batch batch = windows_new(other, 1);
  dataset_fill(other, PART_VAL, 0, &batch);
  cr_assert(batch.row[0] == 31 * 24 + 36 - 4, "row %lld on the clock of the training data", (long long)batch.row[0]);
  windows_free(&batch);

  config.series.columns = (char *[]){"c", "b", "a"}, config.series.n_columns = 3;
  assert_refused(&config, json, CODE_DATA, "s.csv: column c: found where the model was trained with a",
                 "another order");
  config.series.columns = (char *[]){"a", "b"}, config.series.n_columns = 2;
  assert_refused(&config, json, CODE_DATA, "s.csv: lacks c, expected the columns the model was trained with: a, b, c",
                 "a column less");
  config.series.n_columns = 0;
  file = fopen("s.csv", "w");
  fprintf(file, "date,a,b,c\n");
  for (int r = 0; r < 28; r++) fprintf(file, "2020-02-%02d,1,2,3\n", r + 1);
  fclose(file);
  assert_refused(&config, json, CODE_DATA, "s.csv: column date: found rows 1 day apart, expected 1 hour",
                 "another step");
  assert_refused(&config, "{\"kind\": \"char\"}", CODE_DATA, "series: \"kind\"", "a tokenizer");
  free(json);
  dataset_close(trained), dataset_close(other);
}

Test(series_stored, a_stored_form_that_is_not_one_is_refused) {
  write_counting("s.csv", 100);
  DataConfig config = series_config(4, 2);
  Dataset *dataset = open_or_fail(&config, 1, NULL, "whole");
  const char *json = dataset_tokenizer_json(dataset);
  Series *series;
  static const struct {
    const char *from, *to;
  } CHANGES[] = {{"{\"kind\"", "[\"kind\""},
                 {"\"series\"", "\"text\""},
                 {"\"context\":4", "\"context\":0"},
                 {"\"horizon\":2", "\"horizon\":\"2\""},
                 {"\"values\":[\"a\"", "\"values\":[\"b\""},
                 {"\"outputs\":[\"a\"", "\"outputs\":[\"z\""},
                 {"\"calendar\":[]", "\"calendar\":[\"moon\"]"},
                 {"\"mean\":[", "\"mean\":[0.5,"},
                 {"\"std\":[", "\"std\":[-"},
                 {"\"seconds\":3600", "\"seconds\":-1"},
                 {"\"missing\":0", "\"missing\":9"},
                 {"\"known\":[]", "\"knwon\":[]"}};
  for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
    const char *at = strstr(json, CHANGES[i].from);
    cr_assert(at, "%s is not in %s", CHANGES[i].from, json);
    char *changed = base_format("%.*s%s%s", (int)(at - json), json, CHANGES[i].to, at + strlen(CHANGES[i].from));
    Status status = series_from_json(changed, &series);
    cr_assert(status.code == CODE_DATA && strstr(status.line, "series: "), "%s: code %d", changed, (int)status.code);
    status_clear(&status);
    free(changed);
  }
  Status status = series_from_json(json, &series);
  cr_assert(status.code == CODE_OK && series_info(series)->context == 4, "%s", status.line);
  series_free(series);
  dataset_close(dataset);
}

Test(series_stored, the_end_of_a_file_is_the_input_of_a_forecast) {
  write_counting("s.csv", 100);
  DataConfig config = series_config(4, 3);
  config.series.calendar = (char *[]){"hour"}, config.series.n_calendar = 1;
  Dataset *dataset = open_or_fail(&config, 1, NULL, "training data");
  Series *series = train_series(&config);
  SeriesContext context;
  /* Other rows, columns in another order, another way to write dates and delimiters. */
  write_text("new.csv",
             "c;date;b;a\n2;2020-01-02T00:00Z;241;240\n252;2020-01-02T01:00Z;251;250\n262;2020-01-02T02:00Z;261;260\n"
             "272;2020-01-02T03:00Z;271;270\n282;2020-01-02T04:00Z;281;280\n");
  Status status = series_read_context(series, "new.csv", NULL, &context);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  Batch batch = windows_new(dataset, dataset_n_samples(dataset, PART_TRAIN));
  dataset_fill(dataset, PART_TRAIN, 0, &batch);
  for (int64_t s = 0; s < batch.n_seq; s++)
    cr_assert(batch.row[s] != 25 || memcmp(batch.input + s * 16, context.input, 16 * sizeof(float)) == 0,
              "the same rows are another input: %g", context.input[0]);
  cr_assert(context.row == 25, "row %lld on the clock", (long long)context.row);
  cr_assert(strcmp(context.date_name, "date") == 0 && context.n_dates == 3, "%d dates", context.n_dates);
  static const char *const dates[] = {"2020-01-02T05:00Z", "2020-01-02T06:00Z", "2020-01-02T07:00Z"};
  for (int i = 0; i < 3; i++) cr_assert(strcmp(context.dates[i], dates[i]) == 0, "date %d: %s", i, context.dates[i]);
  series_context_free(&context);
  windows_free(&batch);

  static const struct {
    const char *text, *phrase;
  } CASES[] = {
      {"date,a,b\n2020-01-02,1,2\n", "new.csv: lacks c, expected the columns the model was trained with: a, b, c"},
      {"date,a,b,c,d\n2020-01-02,1,2,3,4\n",
       "new.csv: found d, expected the columns the model was trained with: a, b, c"},
      {"date,a,b,C\n2020-01-02,1,2,3\n", "new.csv: lacks c; found C, expected"},
      {"a,b,c\n1,2,3\n", "new.csv: found no column date among its 3, expected that of the dates"},
      {"date,a,b,c\n2020-01-02 00:00,1,2,3\n2020-01-02 01:00,1,2,3\n",
       "new.csv: found 2 rows, expected at least model.context = 4"},
      {"date,a,b,c\n2020-01-02,1,2,3\n2020-01-03,1,2,3\n2020-01-04,1,2,3\n2020-01-05,1,2,3\n",
       "found rows 1 day apart, expected 1 hour"},
      {"date,a,b,c\n2020-01-02 00:00,1,2,3\n2020-01-02 01:00,1,,3\n2020-01-02 02:00,1,2,3\n2020-01-02 03:00,1,2,3\n",
       "new.csv: line 3, column b: found no value"},
      {"date,a,b,c\n2020-01-02 00:00,1,2,3\n2020-01-02 01:00,1,2,3\n2020-01-02 03:00,1,2,3\n2020-01-02 04:00,1,2,3\n",
       "new.csv: line 4, column date: found 2020-01-02 03:00, expected 2020-01-02 02:00"},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    write_text("new.csv", CASES[i].text);
    status = series_read_context(series, "new.csv", NULL, &context);
    cr_assert(status.code == CODE_DATA && strstr(status.line, CASES[i].phrase), "\"%s\" does not say \"%s\"",
              status.line, CASES[i].phrase);
    status_clear(&status);
  }
  series_free(series);
  dataset_close(dataset);
}

Test(series_stored, named_columns_are_found_among_others) {
  write_counting("s.csv", 100);
  DataConfig config = series_config(2, 1);
  config.series.features = SERIES_S, config.series.target = "b", config.series.scale = false;
  Series *series = train_series(&config);
  SeriesContext context;
  write_text("new.csv", "date,note,b\n2020-02-01 22:00,x,5\n2020-02-01 23:00,y,6\n");
  Status status = series_read_context(series, "new.csv", NULL, &context);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  cr_assert(context.input[0] == 5 && context.input[1] == 6, "%g %g", context.input[0], context.input[1]);
  cr_assert(context.row == 31 * 24 + 22, "row %lld on the clock", (long long)context.row);
  cr_assert(strcmp(context.dates[0], "2020-02-02 00:00") == 0, "%s", context.dates[0]);
  series_context_free(&context);
  series_free(series);
}

static const char *const HOLES =
    "d,a,b\n2020-01-01,1,10\n2020-01-02,2,20\n2020-01-03,,30\n2020-01-04,4,NaN\n2020-01-05,5,50\n"
    "2020-01-06,6,60\n2020-01-07,,70\n2020-01-08,8,NA\n2020-01-09,9,90\n2020-01-10,10,100\n";

/* --- rows that come one at a time --------------------------------------------------------------------------------- */

Test(series_stored, a_stream_of_lines_makes_the_rows_of_the_file) {
  static const SeriesMissing policies[] = {MISSING_FFILL, MISSING_MASK};
  for (int k = 0; k < 2; k++) {
    write_text("s.csv", HOLES);
    DataConfig config = series_config(10, 1);
    config.split_train = 0.6;
    config.series.context = 2;
    config.series.missing = policies[k];
    config.series.calendar = (char *[]){"day_of_week"}, config.series.n_calendar = 1;
    Series *series = train_series(&config);
    SeriesStream *stream = series_stream_new(series, "stdin");
    char *lines = base_strdup(HOLES), *rest = NULL, *text = base_strdup("d,a,b\r\n");
    int64_t n_rows = 0;
    for (char *line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
      float input[3];
      int64_t row;
      Status status = series_stream_take(stream, line, strlen(line), input, &row);
      cr_assert(status.code == CODE_OK, "%s: %s", line, status.line);
      cr_assert(row == (*line == 'd' ? SERIES_NO_ROW : n_rows), "%s: row %lld", line, (long long)row);
      if (row == SERIES_NO_ROW) {
        cr_assert(!series_stream_date(stream, 1), "a date before any row");
        continue;
      }
      n_rows++;
      char *longer = base_format("%s%s\n", n_rows == 1 ? "d,a,b\n" : text, line);
      free(text);
      text = longer;
      write_text("sofar.csv", text);
      SeriesContext context = {0};
      if (n_rows < 2) continue;
      status = series_read_context(series, "sofar.csv", NULL, &context);
      cr_assert(status.code == CODE_OK, "%s", status.line);
      cr_assert(memcmp(input, context.input + 3, sizeof input) == 0, "%s: %g %g %g, the file has %g %g %g", line,
                input[0], input[1], input[2], context.input[3], context.input[4], context.input[5]);
      cr_assert(context.row + 1 == row, "%s: row %lld, the file has %lld", line, (long long)row,
                (long long)context.row);
      char *date = series_stream_date(stream, 1);
      cr_assert(strcmp(date, context.dates[0]) == 0, "%s: next date %s, the file has %s", line, date, context.dates[0]);
      free(date);
      series_context_free(&context);
    }
    cr_assert(n_rows == 10, "%lld rows", (long long)n_rows);
    free(text), free(lines);
    series_stream_free(stream);
    series_free(series);
  }
}

Test(series_stored, a_stream_refuses_what_a_file_would_be_refused_for) {
  static const struct {
    const char *lines[3], *phrase;
  } CASES[] = {
      {{"date,a,b"}, "stdin: lacks c, expected the columns the model was trained with"},
      {{"a,b,c"}, "stdin: line 1: found no column date of dates"},
      {{"date,a,b,c", "\r", "2020-03-01 00:00,1,2\r"}, "stdin: line 3: found 3 cells, expected 4"},
      {{"date,a,b,c", "2020-03-01 00:00,1,2,x"}, "stdin: line 2, column c: found \"x\", expected a number"},
      {{"date,a,b,c", "2020-03-01 00:00,1,,3"}, "stdin: line 2, column b: found no value"},
      {{"date,a,b,c", "2020-03-01 00:00,1,2,3", "2020-03-01 02:00,1,2,3"},
       "stdin: line 3, column date: found 2020-03-01 02:00, expected 2020-03-01 01:00"},
      {{"date,a,b,c", "2020-03-01 00:00,1,2,3", "2020-03-01 00:00,1,2,3"},
       "stdin: line 3, column date: found 2020-03-01 00:00, expected 2020-03-01 01:00"},
  };
  write_counting("s.csv", 100);
  DataConfig config = series_config(4, 3);
  Series *series = train_series(&config);
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    SeriesStream *stream = series_stream_new(series, "stdin");
    Status status = STATUS_OK;
    float input[3];
    int64_t row;
    for (int j = 0; j < 3 && CASES[i].lines[j]; j++) {
      cr_assert(status.code == CODE_OK, "%s: %s", CASES[i].lines[j], status.line);
      status = series_stream_take(stream, CASES[i].lines[j], strlen(CASES[i].lines[j]), input, &row);
    }
    cr_assert(status.code == CODE_DATA && strstr(status.line, CASES[i].phrase), "\"%s\" does not say \"%s\"",
              status.line, CASES[i].phrase);
    status_clear(&status);
    series_stream_free(stream);
  }
  series_free(series);
}
