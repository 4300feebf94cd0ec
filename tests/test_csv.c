/* csv and dates: cells, tables and points in time, held to the C library's own strtod and calendar, and every way in
 * which a file can be wrong. */
#include "data/csv.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tensor/rng.h"
#include "tests/support/dataset.h"

TestSuite(csv, .init = workplace_enter, .fini = workplace_leave);

/* --- numbers ------------------------------------------------------------------------------------------------------ */

static void assert_nearest(const char *text) {
  double value = 0, expected = strtod(text, NULL);
  CsvCell kind = csv_number(text, strlen(text), &value);
  cr_assert(kind == (isinf(expected) ? CSV_INFINITE : CSV_NUMBER), "%s: kind %d", text, (int)kind);
  cr_assert(memcmp(&value, &expected, sizeof value) == 0, "%s: %a, expected %a", text, value, expected);
}

Test(csv, numbers_are_the_nearest_doubles) {
  static const char *const CHOSEN[] = {"0",
                                       "-0",
                                       "0.0",
                                       "-0.000",
                                       "1",
                                       "+1.5",
                                       ".5",
                                       "5.",
                                       "-.25e2",
                                       "1e0",
                                       "1E+2",
                                       "1e-2",
                                       "007",
                                       "0.1",
                                       "0.35499998927116394",
                                       "9007199254740991",
                                       "9007199254740993",
                                       "9007199254740993.0",
                                       "9007199254740992.5",
                                       "900719925474099.25",
                                       "123456789012345678",
                                       "9999999999999999999",
                                       "99999999999999999999",
                                       "1.7976931348623157e308",
                                       "1e308",
                                       "1e309",
                                       "-1e999",
                                       "4.9e-324",
                                       "1e-400",
                                       "2.2250738585072011e-308",
                                       "0.00000000000000000000000000012345",
                                       "12345678901234567890123456789.5",
                                       "1e22",
                                       "1e23",
                                       "8.5e22",
                                       "4503599627370496.5",
                                       "4503599627370497.5",
                                       "0.500000000000000166",
                                       "1.00000000000000011102230246251565",
                                       "3e-19",
                                       "18446744073709551615e-19"};
  for (size_t i = 0; i < sizeof CHOSEN / sizeof *CHOSEN; i++) assert_nearest(CHOSEN[i]);
  Rng rng = rng_make(5, RNG_TEST, 0, 0);
  for (int i = 0; i < 300000; i++) {
    char text[80];
    uint64_t bits = (uint64_t)rng_u32(&rng) << 32 | rng_u32(&rng);
    int digits = 1 + (int)rng_below(&rng, 21), places = (int)rng_below(&rng, 22);
    double any;
    memcpy(&any, &bits, sizeof any);
    switch (i % 5) {
    case 0: snprintf(text, sizeof text, "%.*g", digits, isfinite(any) ? any : 1.0); break;
    case 1: snprintf(text, sizeof text, "%.*f", places, (double)(int64_t)bits / 0x1p40); break;
    case 2:
      snprintf(text, sizeof text, "%llu.%0*llue%d", (unsigned long long)(bits >> rng_below(&rng, 60)), 1 + places % 9,
               (unsigned long long)rng_below(&rng, 10), (int)rng_below(&rng, 40) - 20);
      break;
    case 3: /* half-way between two doubles, or on one: where rounding shows */
      snprintf(text, sizeof text, "%.*f", 3 + (int)rng_below(&rng, 3),
               (double)(bits >> 14) + 0.5 * (double)rng_below(&rng, 2));
      break;
    default: /* 16 to 19 digits behind the point: some lie a hair beside half-way */
      snprintf(text, sizeof text, "%llue-%d", (unsigned long long)(bits >> rng_below(&rng, 10)) / 2,
               1 + (int)rng_below(&rng, 19));
    }
    assert_nearest(text);
  }
}

Test(csv, cells_are_told_apart) {
  static const struct {
    const char *text;
    CsvCell kind;
  } CELLS[] = {{"12", CSV_NUMBER},
               {"", CSV_MISSING},
               {"NaN", CSV_MISSING},
               {"nan", CSV_MISSING},
               {"NA", CSV_MISSING},
               {"N/A", CSV_MISSING},
               {"null", CSV_MISSING},
               {"None", CSV_MISSING},
               {"-", CSV_MISSING},
               {"?", CSV_MISSING},
               {"inf", CSV_INFINITE},
               {"-Infinity", CSV_INFINITE},
               {"1e999", CSV_INFINITE},
               {"1,5", CSV_DECIMAL_COMMA},
               {"-1.234,5", CSV_DECIMAL_COMMA},
               {"1,234", CSV_DECIMAL_COMMA},
               {"n/a?", CSV_OTHER},
               {"1.2.3", CSV_OTHER},
               {"1e", CSV_OTHER},
               {"0x10", CSV_OTHER},
               {"--1", CSV_OTHER},
               {"1 2", CSV_OTHER},
               {"12kW", CSV_OTHER},
               {".", CSV_OTHER},
               {"+", CSV_OTHER},
               {"nano", CSV_OTHER},
               {"e5", CSV_OTHER},
               {"a,5", CSV_OTHER}};
  for (size_t i = 0; i < sizeof CELLS / sizeof *CELLS; i++) {
    double value;
    CsvCell kind = csv_number(CELLS[i].text, strlen(CELLS[i].text), &value);
    cr_assert(kind == CELLS[i].kind, "\"%s\": kind %d, expected %d", CELLS[i].text, (int)kind, (int)CELLS[i].kind);
  }
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

/* Reads all columns but dates, which stand first if at all. */
static Status read_file(const char *path, char delimiter, SeriesHeader header, bool dates, SeriesTable *table) {
  Csv csv;
  TRY(csv_open(path, delimiter, header, &csv));
  int columns[16], n = 0;
  for (int i = dates; i < csv.n_columns; i++) columns[n++] = i;
  Status status = csv_read(&csv, columns, n, dates ? 0 : -1, table);
  csv_close(&csv);
  return status;
}

static void assert_table(const char *name, const char *text, size_t bytes, bool header, bool dates) {
  SeriesTable table;
  write_file("t.csv", text, bytes);
  Status status = read_file("t.csv", 0, HEADER_AUTO, dates, &table);
  cr_assert(status.code == CODE_OK, "%s: %s", name, status.line);
  cr_assert(table.n_rows == 3 && table.n_columns == 2, "%s: %lld rows of %d", name, (long long)table.n_rows,
            table.n_columns);
  static const double expected[] = {1, 2.5, -3, 4, 5e3, 0.0625};
  cr_assert(memcmp(table.value, expected, sizeof expected) == 0, "%s: %g %g %g %g %g %g", name, table.value[0],
            table.value[1], table.value[2], table.value[3], table.value[4], table.value[5]);
  const char *names[] = {header ? "a" : dates ? "2" : "1", header ? "b \"c\"" : dates ? "3" : "2"};
  cr_assert(strcmp(table.names[0], names[0]) == 0 && strcmp(table.names[1], names[1]) == 0, "%s: columns %s and %s",
            name, table.names[0], table.names[1]);
  cr_assert(table.first_line == 1 + header, "%s: first line %lld", name, (long long)table.first_line);
  if (dates)
    for (int i = 0; i < 3; i++)
      cr_assert(table.date[i] == 1467331200 + 3600 * i, "%s: date %d is %lld", name, i, (long long)table.date[i]);
  series_table_free(&table);
}

Test(csv, tables_are_read_as_people_write_them) {
  static const struct {
    const char *name, *text;
    bool header, dates;
  } TABLES[] = {
      {"plain", "a,\"b \"\"c\"\"\"\n1,2.5\n-3,4\n5e3,.0625\n", true, false},
      {"semicolons", "a;\"b \"\"c\"\"\"\n1;2.5\n-3;4\n5e3;.0625\n", true, false},
      {"tabs", "a\t\"b \"\"c\"\"\"\n1\t2.5\n-3\t4\n5e3\t.0625\n", true, false},
      {"CRLF", "a,\"b \"\"c\"\"\"\r\n1,2.5\r\n-3,4\r\n5e3,.0625\r\n", true, false},
      {"CR", "a,\"b \"\"c\"\"\"\r1,2.5\r-3,4\r5e3,.0625\r", true, false},
      {"byte order mark",
       "\xEF\xBB\xBF"
       "a,\"b \"\"c\"\"\"\n1,2.5\n-3,4\n5e3,.0625\n",
       true, false},
      {"no last newline", "a,\"b \"\"c\"\"\"\n1,2.5\n-3,4\n5e3,.0625", true, false},
      {"empty lines at the end", "a,\"b \"\"c\"\"\"\n1,2.5\n-3,4\n5e3,.0625\n\r\n\n", true, false},
      {"blank lines at the end", "a,\"b \"\"c\"\"\"\n1,2.5\n-3,4\n5e3,.0625\n  \n \n\n  ", true, false},
      {"quoted numbers", "a,\"b \"\"c\"\"\"\n\"1\",\"2.5\"\n\"-3\",\"4\"\n\"5e3\",\".0625\"\n", true, false},
      {"spaces", " a , \"b \"\"c\"\"\" \n 1, 2.5\n -3 ,4 \n5e3\t,\t.0625 \n", true, false},
      {"no header", "1,2.5\n-3,4\n5e3,.0625\n", false, false},
      {"dates",
       "t,a,\"b \"\"c\"\"\"\n2016-07-01 00:00:00,1,2.5\n2016-07-01 01:00:00,-3,4\n2016-07-01 02:00:00,5e3,.0625\n",
       true, true},
      {"dates with T and Z",
       "t,a,\"b \"\"c\"\"\"\n2016-07-01T00:00Z,1,2.5\n2016-07-01T01:00Z,-3,4\n2016-07-01T02:00Z,5e3,.0625\n", true,
       true},
      {"dates without a header", "2016/7/1 0:00,1,2.5\n2016/7/1 1:00,-3,4\n2016/7/1 2:00,5e3,.0625\n", false, true},
      {"dates in quotes",
       "t,a,\"b \"\"c\"\"\"\n\"01.07.2016 00:00\",1,2.5\n\"01.07.2016 01:00\",-3,4\n\"01.07.2016 02:00\",5e3,.0625\n",
       true, true},
  };
  for (size_t i = 0; i < sizeof TABLES / sizeof *TABLES; i++)
    assert_table(TABLES[i].name, TABLES[i].text, strlen(TABLES[i].text), TABLES[i].header, TABLES[i].dates);
}

Test(csv, rows_beyond_the_first_estimate_are_read) {
  FILE *file = fopen("long.csv", "w");
  fprintf(file, "a column with a name much longer than its cells,b\n0.00000000000000000000000000,0\n");
  for (int i = 1; i < 5000; i++) fprintf(file, "%d,\n", i % 10);
  fclose(file);
  SeriesTable table;
  Status status = read_file("long.csv", 0, HEADER_AUTO, false, &table);
  cr_assert(status.code == CODE_OK && table.n_rows == 5000, "%s: %lld rows", status.line, (long long)table.n_rows);
  for (int i = 1; i < 5000; i++)
    cr_assert(table.value[2 * i] == i % 10 && isnan(table.value[2 * i + 1]), "row %d: %g %g", i, table.value[2 * i],
              table.value[2 * i + 1]);
  series_table_free(&table);
}

Test(csv, a_blank_line_of_a_single_column_is_a_missing_cell) {
  SeriesTable table;
  write_text("t.csv", "a\n1\n\n3\n\n");
  Status status = read_file("t.csv", 0, HEADER_AUTO, false, &table);
  cr_assert(status.code == CODE_OK && table.n_rows == 3, "%s: %lld rows", status.line, (long long)table.n_rows);
  cr_assert(isnan(table.value[1]) && table.value[2] == 3, "%g %g", table.value[1], table.value[2]);
  series_table_free(&table);
  write_text("t.csv", "a\tb\n1\t2\n\t\n");
  status = read_file("t.csv", 0, HEADER_AUTO, false, &table);
  cr_assert(status.code == CODE_OK && table.n_rows == 2 && isnan(table.value[2]), "a row of missing cells, in tabs: %s",
            status.line);
  series_table_free(&table);
}

Test(csv, columns_are_found_by_name_then_position) {
  Csv csv;
  write_text("t.csv", "x,4,,y\n1,2,3,4\n");
  Status status = csv_open("t.csv", 0, HEADER_YES, &csv);
  cr_assert(status.code == CODE_OK, "%s", status.line);
  cr_assert(csv_column(&csv, "y") == 3 && csv_column(&csv, "1") == 0 && csv_column(&csv, "3") == 2, "by position");
  cr_assert(csv_column(&csv, "4") == 1, "a name goes before a position");
  cr_assert(csv_column(&csv, "5") < 0 && csv_column(&csv, "0") < 0 && csv_column(&csv, "X") < 0, "no such column");
  csv_close(&csv);
  status = csv_open("t.csv", 0, HEADER_NO, &csv);
  cr_assert(status.code == CODE_OK && strcmp(csv.names[0], "1") == 0 && csv.first_line == 1, "header: false");
  csv_close(&csv);
}

Test(csv, what_is_wrong_is_told_with_line_and_column) {
  static const struct {
    const char *text, *phrase;
    bool dates;
  } CASES[] = {
      {"a,b\n1,2\n3\n", "t.csv: line 3: found 1 cell, expected 2", false},
      {"a,b\n1,2\n3,4,5\n", "t.csv: line 3: found 3 cells, expected 2", false},
      {"a,b\n1,2\n\n3,4\n", "t.csv: line 3: found a blank line, expected 2 cells as in line 1; remove it", false},
      {"t,a\n2016-07-01,1\n\r\n2016-07-02,1\n", "t.csv: line 3: found a blank line, expected 2 cells", true},
      {"t,a\n2016-07-01,1\n \t\n2016-07-02,1\n", "t.csv: line 3: found a blank line, expected 2 cells", true},
      {"t,a\n\n2016-07-01,1\n", "t.csv: line 2: found a blank line, expected 2 cells", true},
      {"t;a\n1/2/2016;1\n\n25/2/2016;2\n", "t.csv: line 3: found a blank line, expected 2 cells", true},
      {"\na,b\n1,2\n", "t.csv: line 1: found a blank line, expected the names of the columns or a row; remove it",
       false},
      {"a,b\n1,2\n3,4kW\n", "t.csv: line 3, column b: found \"4kW\", expected a number", false},
      {"a,b\n1,2\n3,inf\n", "t.csv: line 3, column b: found \"inf\", expected a finite number", false},
      {"a,b\n1,2\n3,-1e999\n", "t.csv: line 3, column b: found \"-1e999\", expected a finite number", false},
      {"a;b\n1,5;2\n", "t.csv: line 2, column a: found \"1,5\", expected a decimal point", false},
      {"a,b\n1,\"2\n", "t.csv: line 2, column b: found \"2\", expected a closing quote", false},
      {"a,b\n1,\"2\"3\n", "t.csv: line 2, column b: found \"\"2\"3\", expected a number", false},
      {"a,\"b\n1,2\n", "t.csv: line 1, column b: found \"b\", expected a closing quote", false},
      {"a,b,a\n1,2,3\n", "t.csv: line 1: columns 1 and 3 are both called a", false},
      {"temp\xE9rature,b\n1,2\n", "t.csv: line 1: the name of column 1 is not UTF-8", false},
      {"a,b\tc\n1,2;3\n", "t.csv: line 1: found \",\" and tab, expected one delimiter", false},
      {"a,b;c\n1,2;3\n", "t.csv: line 1: found \",\" and \";\", expected one delimiter", false},
      {"a,b\n", "t.csv: found no rows", false},
      {"\n\n", "t.csv: found no rows", false},
      {"t,a\n2016-07-01,1\nyesterday,2\n", "t.csv: line 3, column t: found \"yesterday\", expected a date", true},
      {"t,a\n2016-07-01,1\n,2\n", "t.csv: line 3, column t: found \"\", expected a date", true},
      {"t,a\n2016-02-30,1\n", "t.csv: line 2, column t: found \"2016-02-30\", expected a date", true},
      {"t,a\n2016-07-02,1\n2016-07-01,2\n",
       "line 3, column t: found \"2016-07-01\", expected a date after 2016-07-02 of the row above; sort", true},
      {"t,a\n2016-07-02,1\n2016-07-02,2\n",
       "line 3, column t: found \"2016-07-02\", expected a date after 2016-07-02 of the row above; remove", true},
      {"t,a\n2016-07-01T00:00Z,1\n2016-07-01T01:00+02:00,2\n",
       "line 3, column t: found \"2016-07-01T01:00+02:00\", expected a date written like", true},
      {"t,a\n1/2/2016,1\n2/2/2016,2\n",
       "line 2, column t: found \"1/2/2016\", expected a date that tells day from month", true},
      {"t,a\n25/12/2016,1\n12/26/2016,2\n", "line 3, column t: found \"12/26/2016\", expected a date", true},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    SeriesTable table;
    write_text("t.csv", CASES[i].text);
    Status status = read_file("t.csv", 0, HEADER_AUTO, CASES[i].dates, &table);
    cr_assert(status.code == CODE_DATA, "%s: code %d", CASES[i].text, (int)status.code);
    cr_assert(strstr(status.line, CASES[i].phrase) && !strchr(status.line, '\n'), "\"%s\" does not say \"%s\"",
              status.line, CASES[i].phrase);
    status_clear(&status);
  }
}

Test(csv, what_is_no_csv_is_refused_by_name) {
  static const char utf16[] = "\xFF\xFE"
                              "a\0,\0b\0\n\0";
  write_text("empty.csv", ""), mkdir("folder", 0755), write_file("utf16.csv", utf16, sizeof utf16 - 1);
  cr_assert(mkfifo("pipe", 0644) == 0, "mkfifo");
  static const struct {
    const char *path, *phrase;
  } CASES[] = {{"missing.csv", "missing.csv: cannot read: No such file"},
               {"empty.csv", "empty.csv: the file is empty"},
               {"folder", "folder: found a folder, expected a regular file"},
               {"pipe", "pipe: found a pipe or a device, expected a regular file"},
               {"utf16.csv", "utf16.csv: found binary data, expected a CSV as UTF-8"}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    Csv csv;
    Status status = csv_open(CASES[i].path, 0, HEADER_AUTO, &csv);
    cr_assert(status.code == CODE_DATA && strstr(status.line, CASES[i].phrase), "%s: \"%s\"", CASES[i].path,
              status.line);
    status_clear(&status);
  }
}

Test(csv, any_bytes_are_read_or_refused_in_one_line) {
  static const char ALPHABET[] = "0123456789.,;\t\"\n\r -+eE:/TZaN\xEF\xBB\xBF";
  Rng rng = rng_make(8, RNG_TEST, 0, 0);
  int n_read = 0;
  for (int i = 0; i < 50000; i++) {
    const size_t n = 1 + rng_below(&rng, 60);
    char *text = malloc(n); /* of this size exactly: a sanitizer sees a step beyond it */
    for (size_t j = 0; j < n; j++) text[j] = ALPHABET[rng_below(&rng, sizeof ALPHABET - 1)];
    Csv csv;
    SeriesTable table;
    Status status = csv_over("any.csv", text, n, (SeriesHeader)(i % 3), &csv);
    if (status.code == CODE_OK) {
      const int last = csv.n_columns - 1;
      status = csv_read(&csv, &last, 1, csv_begins_with_dates(&csv) && last > 0 ? 0 : -1, &table);
      csv_close(&csv);
      if (status.code == CODE_OK) {
        n_read++;
        for (int64_t row = 0; row < table.n_rows; row++)
          cr_assert(!isinf(table.value[row]), "%.*s: row %lld is infinite", (int)n, text, (long long)row);
        series_table_free(&table);
      }
    }
    cr_assert(status.code == CODE_OK || (status.code == CODE_DATA && !strchr(status.line, '\n')), "%.*s: %s", (int)n,
              text, status.line);
    status_clear(&status);
    free(text);
  }
  cr_assert(n_read > 500, "only %d of 50000 texts were tables", n_read);
}

/* --- dates -------------------------------------------------------------------------------------------------------- */

static int64_t parsed(const char *text, DateStyle *style) {
  int64_t date = INT64_MIN;
  *style = (DateStyle){0};
  cr_assert(date_parse(text, strlen(text), style, &date) == DATE_OK, "%s is no date", text);
  return date;
}

Test(dates, fields_are_those_of_the_c_library) {
  Rng rng = rng_make(6, RNG_TEST, 0, 0);
  for (int i = 0; i < 100000; i++) {
    /* years 1600 to 2600; at first around the turns of years, where weeks and leap days lie */
    int64_t date = (int64_t)(rng_uniform(&rng) * 31556952000.0) - 11676096000;
    if (i % 2) date = (date - date % 31556952) + (int64_t)rng_below(&rng, 6 * 86400);
    time_t time = (time_t)date;
    struct tm tm;
    gmtime_r(&time, &tm);
    char week[8];
    strftime(week, sizeof week, "%V", &tm);
    const DateFields f = date_fields(date);
    cr_assert(f.year == tm.tm_year + 1900 && f.month == tm.tm_mon + 1 && f.day == tm.tm_mday && f.hour == tm.tm_hour &&
                  f.minute == tm.tm_min && f.second == tm.tm_sec && f.day_of_week == (tm.tm_wday + 6) % 7 &&
                  f.day_of_year == tm.tm_yday + 1 && f.week == atoi(week),
              "%lld: %d-%d-%d %d:%d:%d, weekday %d, day %d, week %d", (long long)date, f.year, f.month, f.day, f.hour,
              f.minute, f.second, f.day_of_week, f.day_of_year, f.week);
    char text[64];
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    DateStyle style;
    cr_assert(parsed(text, &style) == date, "%s: read as another date", text);
  }
}

Test(dates, are_written_as_they_were_read) {
  static const char *const DATES[] = {"2016-07-01",
                                      "2016-07-01 00:30:00",
                                      "2016-07-01T23:05",
                                      "2016/07/01 01:02",
                                      "2002/1/1 0:00",
                                      "31.12.2016",
                                      "1.2.2016 5:07",
                                      "2016-07-01T00:00:00Z",
                                      "2016-07-01T00:00+01:00",
                                      "2016-07-01 12:00-0330",
                                      "1969-12-31 23:59:59",
                                      "2000-02-29",
                                      "2016-07",
                                      "2016-7"};
  for (size_t i = 0; i < sizeof DATES / sizeof *DATES; i++) {
    DateStyle style;
    char *text = date_format(parsed(DATES[i], &style), &style);
    cr_assert(strcmp(text, DATES[i]) == 0, "%s is written %s", DATES[i], text);
    free(text);
  }
}

Test(dates, what_is_no_date_is_refused) {
  static const char *const WRONG[] = {"",
                                      "2016",
                                      "2016-13-01",
                                      "2016-00-01",
                                      "2016-02-30",
                                      "2015-02-29",
                                      "1900-02-29",
                                      "16-07-01",
                                      "2016-07-01 24:00",
                                      "2016-07-01 12:60",
                                      "2016-07-01 12",
                                      "2016-07-01 12:00:61",
                                      "2016-07-01x",
                                      "2016-07-01 12:00:00.5",
                                      "2016-07-01 12:00 PM",
                                      "2016-07-01T",
                                      "32.12.2016",
                                      "12.31.2016",
                                      "12-2016",
                                      "2016-07/01",
                                      "20160701",
                                      "July 1, 2016",
                                      "3.14",
                                      "12:00",
                                      "2016-07-01T00:00+",
                                      "2016-07-01T00:00+99:00"};
  for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
    DateStyle style = {0};
    int64_t date;
    cr_assert(date_parse(WRONG[i], strlen(WRONG[i]), &style, &date) != DATE_OK, "%s is taken for a date", WRONG[i]);
  }
  DateStyle style = {0};
  int64_t date, other;
  cr_assert(date_parse("2016-07-01 12:00:00.000", 23, &style, &date) == DATE_OK &&
                date == parsed("2016-07-01 12:00", &style),
            "whole seconds with places");
  style.order = 0;
  cr_assert(date_parse("3/4/2016", 8, &style, &date) == DATE_AMBIGUOUS, "3/4/2016 has two meanings");
  style.order = 'D';
  cr_assert(date_parse("3/4/2016", 8, &style, &date) == DATE_OK && date == parsed("2016-04-03", &style), "day first");
  style.order = 'M';
  cr_assert(date_parse("3/4/2016", 8, &style, &other) == DATE_OK && other == parsed("2016-03-04", &style),
            "month first");
  cr_assert(date_order("13/4/2016", 9) == 'D' && date_order("4/13/2016", 9) == 'M' && date_order("4/4/2016", 8) == 0,
            "orders");
}

Test(dates, steps_are_found_and_continued) {
  static const struct {
    const char *name, *date[5], *next[2];
    int64_t season;
  } CASES[] = {
      {"15 minutes",
       {"2016-07-01 23:30", "2016-07-01 23:45", "2016-07-02 00:00"},
       {"2016-07-02 00:15", "2016-07-02 00:30"},
       96},
      {"1 hour",
       {"2016-02-28 23:00", "2016-02-29 00:00", "2016-02-29 01:00"},
       {"2016-02-29 02:00", "2016-02-29 03:00"},
       24},
      {"1 day", {"2016-02-27", "2016-02-28", "2016-02-29"}, {"2016-03-01", "2016-03-02"}, 7},
      {"1 week", {"2016-12-18", "2016-12-25", "2017-01-01"}, {"2017-01-08", "2017-01-15"}, 52},
      {"1 month", {"2016-11-01", "2016-12-01", "2017-01-01"}, {"2017-02-01", "2017-03-01"}, 12},
      {"1 month", {"2016-11-30", "2016-12-31", "2017-01-31", "2017-02-28"}, {"2017-03-31", "2017-04-30"}, 12},
      {"1 month", {"2017-01-31", "2017-02-28", "2017-03-31"}, {"2017-04-30", "2017-05-31"}, 12},
      {"1 month",
       {"2017-01-15 06:00", "2017-02-15 06:00", "2017-03-15 06:00"},
       {"2017-04-15 06:00", "2017-05-15 06:00"},
       12},
      {"1 month", {"2016-09", "2016-10", "2016-11"}, {"2016-12", "2017-01"}, 12},
      {"3 months", {"2016-03-31", "2016-06-30", "2016-09-30"}, {"2016-12-31", "2017-03-31"}, 4},
      {"12 months", {"2015-01-01", "2016-01-01", "2017-01-01"}, {"2018-01-01", "2019-01-01"}, 1},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    int64_t date[5], n = 0, broken;
    DateStyle style;
    DateStep step;
    for (; n < 5 && CASES[i].date[n]; n++) date[n] = parsed(CASES[i].date[n], &style);
    cr_assert(date_step(date, n, &step, &broken), "%s: uneven", CASES[i].date[0]);
    char *text = date_step_text(step);
    cr_assert(strcmp(text, CASES[i].name) == 0, "%s: step %s, expected %s", CASES[i].date[0], text, CASES[i].name);
    free(text);
    cr_assert(date_season(step) == CASES[i].season, "%s: season %lld", CASES[i].name, (long long)date_season(step));
    for (int k = 0; k < 2; k++) {
      char *next = date_format(date_after(date[n - 1], step, k + 1), &style);
      cr_assert(strcmp(next, CASES[i].next[k]) == 0, "after %s: %s, expected %s", CASES[i].date[n - 1], next,
                CASES[i].next[k]);
      free(next);
    }
    for (int64_t k = 0; k < n; k++)
      cr_assert(date_steps(date[0], date[k], step) == k, "%s: %lld steps to row %lld", CASES[i].name,
                (long long)date_steps(date[0], date[k], step), (long long)k);
    cr_assert(date_steps(date[0], date[n - 1] - 1, step) == n - 2, "%s: steps are not rounded down", CASES[i].name);
  }
}

Test(dates, uneven_steps_are_told_with_the_first_row) {
  const int64_t missing_row[] = {0, 3600, 7200, 14400, 18000}, late[] = {0, 5000, 8600, 12200};
  DateStep step;
  int64_t broken;
  cr_assert(!date_step(missing_row, 5, &step, &broken) && broken == 3 && step.seconds == 3600, "row %lld, step %lld",
            (long long)broken, (long long)step.seconds);
  cr_assert(!date_step(late, 4, &step, &broken) && broken == 1 && step.seconds == 3600, "row %lld, step %lld",
            (long long)broken, (long long)step.seconds);
  cr_assert(date_step(missing_row, 1, &step, &broken) && step.seconds == 0 && step.months == 0, "one date has no step");
}
