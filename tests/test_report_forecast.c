/* Pictures of forecasts: which windows a run keeps, and what a page shows of them; held to numbers worked out here. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/dates.h"
#include "tests/support/markup.h"
#include "tests/support/rundir.h"
#include "train/forecast/forecast_record.h"
#include "train/report/report.h"
#include "train/report/svg_axis.h"

/* A record of one column and two windows, eight rows of look-back each: the truth of row r is r, the forecast is off by
 * `error`, the last row is 7 or 107. */
typedef struct Sample {
  const char *column;
  int horizon;
  double error;
  bool dates, quantiles;
  int first; /* row of the first forecast of the first window */
} Sample;

static void put_values(StrBuf *out, const char *name, int first, int n, double error) {
  strbuf_printf(out, "\"%s\":[", name);
  for (int i = 0; i < n; i++) strbuf_printf(out, "%s%.6g", i ? "," : "", first + i + error);
  strbuf_puts(out, "]");
}

static void put_window(StrBuf *out, const Sample *s, int row) {
  strbuf_printf(out, "{\"window\":%d,\"row\":%d,", row, row);
  if (s->dates) {
    strbuf_puts(out, "\"dates\":[");
    for (int i = 0; i < 8 + s->horizon; i++) {
      const DateStyle style = {.order = 'Y', .separator = '-', .joint = ' ', .padded = true, .seconds = true};
      char *text = date_format((int64_t)(row - 8 + i) * 3600, &style);
      strbuf_printf(out, "%s\"%s\"", i ? "," : "", text);
      free(text);
    }
    strbuf_puts(out, "],");
  }
  strbuf_printf(out, "\"values\":[{\"column\":\"%s\",\"last\":%d,", s->column, row - 1);
  put_values(out, "truth", row - 8, 8 + s->horizon, 0);
  strbuf_puts(out, ",");
  put_values(out, "forecast", row, s->horizon, s->error);
  if (s->quantiles) {
    strbuf_puts(out, ",\"quantiles\":[");
    for (int q = 0; q < 3; q++) {
      StrBuf one = {0};
      put_values(&one, "x", row, s->horizon, s->error + q - 1);
      strbuf_printf(out, "%s%s", q ? "," : "", strchr(one.data, '['));
      free(one.data);
    }
    strbuf_puts(out, "]");
  }
  strbuf_puts(out, "}]}");
}

/* A run directory that holds the record; MSE of step h is h, of the last row 10 h. */
static char *run_of(const Sample *s) {
  char *directory = rundir_make();
  StrBuf out = {0};
  strbuf_printf(&out, "{\"step\":12,\"part\":\"val\",\"context\":8,\"horizon\":%d,%s\"score\":{\"windows\":345,",
                s->horizon, s->dates ? "\"interval\":\"1 hour\"," : "");
  strbuf_puts(&out, "\"season\":24,\"mse\":1.25,\"mae\":0.75,\"rmse_units\":3.5,\"mae_units\":2.5,\"smape\":17,"
                    "\"mase\":0.9,\"naive_mse\":12.5,\"naive_mae\":4.5,\"per_step\":{");
  put_values(&out, "mse", 1, s->horizon, 0);
  strbuf_puts(&out, ",");
  put_values(&out, "naive_mse", 10, s->horizon, 0);
  strbuf_printf(&out, "},\"per_column\":{\"names\":[\"%s\"]}},\"columns\":[\"%s\"],%s\"windows\":[", s->column,
                s->column, s->quantiles ? "\"quantiles\":[0.1,0.5,0.9]," : "");
  put_window(&out, s, s->first);
  strbuf_puts(&out, ",");
  put_window(&out, s, s->first + 100);
  strbuf_puts(&out, "]}");
  rundir_append(directory, FORECAST_RECORD, out.data);
  free(out.data);
  rundir_append(directory, "metrics.jsonl",
                "{\"step\":12,\"tokens\":64,\"loss\":0.5,\"tok_per_s\":10}\n"
                "{\"step\":12,\"tokens\":64,\"val_mse\":1.25,\"val_mae\":0.75,\"naive_mse\":12.5,\"naive_mae\":4.5}\n");
  return directory;
}

static char *page_of(const char *const *runs, int n_runs, const char *out) {
  char *path = NULL;
  Status status = report_write(&(ReportOptions){.runs = runs, .n_runs = n_runs, .out = out, .version = "9"}, &path);
  cr_assert_eq(status.code, CODE_OK, "the report is written: %s", status.line ? status.line : "");
  StrBuf text = {0};
  status = strbuf_load(&text, path);
  cr_assert_eq(status.code, CODE_OK, "%s is there", path);
  assert_well_formed(path, text.data);
  free(path);
  return text.data;
}

static void assert_shows(const char *name, const char *text, const char *const *pieces, size_t n) {
  for (size_t i = 0; i < n; i++) cr_assert_not_null(strstr(text, pieces[i]), "%s shows \"%s\"", name, pieces[i]);
}
#define N_OF(list) (sizeof(list) / sizeof *(list))

Test(record, windows_lie_at_the_quarters_whatever_the_horizon) {
  static const struct {
    int64_t n_windows;
    int horizon, n;
    int64_t window[RECORD_WINDOWS];
  } cases[] = {
      {2785, 96, 4, {0, 720, 1440, 2160}}, /* 2,880 rows */
      {2689, 192, 4, {0, 720, 1440, 2160}},
      {2161, 720, 4, {0, 720, 1440, 2160}},
      {10, 91, 2, {0, 9}}, /* quarters beyond the last window are that one, once */
      {1, 5, 1, {0}},
      {3, 1, 3, {0, 1, 2}},
  };
  for (size_t i = 0; i < N_OF(cases); i++) {
    int64_t window[RECORD_WINDOWS];
    const int n = forecast_record_windows(cases[i].n_windows, cases[i].horizon, window);
    cr_assert_eq(n, cases[i].n, "case %zu: %d windows", i, n);
    for (int k = 0; k < n; k++)
      cr_assert_eq(window[k], cases[i].window[k], "case %zu: window %d is %lld", i, k, (long long)window[k]);
  }
}

Test(record, columns_are_the_first_the_last_and_the_one_between) {
  static const struct {
    int n_output, n, column[RECORD_COLUMNS];
  } cases[] = {{1, 1, {0}}, {2, 2, {0, 1}}, {3, 3, {0, 1, 2}}, {7, 3, {0, 3, 6}}, {862, 3, {0, 430, 861}}};
  for (size_t i = 0; i < N_OF(cases); i++) {
    int column[RECORD_COLUMNS];
    cr_assert_eq(forecast_record_columns(cases[i].n_output, column), cases[i].n, "case %zu", i);
    for (int k = 0; k < cases[i].n; k++) cr_assert_eq(column[k], cases[i].column[k], "case %zu, column %d", i, k);
  }
}

Test(report_forecast, page_shows_windows_steps_and_scores_with_their_units) {
  char *run = run_of(&(Sample){.column = "OT", .horizon = 4, .error = 0.5, .dates = true, .first = 31});
  char *page = page_of((const char *[]){run}, 1, NULL);
  static const char *const shown[] = {
      "Column OT: forecast against truth",
      "value of OT, in the data&#39;s units",
      "2 windows spread over the validation part, not chosen by their results; step 12",
      "from 1970-01-02 07:00  ·  MAE 0.500 (last row 2.50)", /* |h + 1 - 0| for h < 4: mean 2.5 */
      "from 1970-01-06 11:00  ·  MAE 0.500 (last row 2.50)",
      "date (1 hour from row to row)",
      "Error by step ahead, mean over 345 windows and 1 column",
      "MSE (in the units trained on)",
      "steps ahead (1 hour each)",
      "model: 1 at the first step, 4 at the last.",
      "last row: 10 at the first step, 13 at the last.",
      "<td><b>1.2500</b></td><td><b>0.7500</b></td><td><b>3.5000</b></td><td><b>2.5000</b></td><td><b>17</b></td>",
      "<td>last row</td><td>12.5000</td><td>4.5000</td>",
      "baseline 12.5000",               /* beside the tile */
      "Loss (in the units trained on)", /* no nats */
      "rows of training windows",       /* no tokens */
  };
  assert_shows("report.html", page, shown, N_OF(shown));
  cr_assert_null(strstr(page, "nats"), "a forecaster's losses are no nats");
  free(page);
  static const char *const files[] = {"forecast-1.svg", "error-by-step.svg"};
  for (size_t i = 0; i < N_OF(files); i++) {
    char *figure = rundir_read(run, files[i]);
    assert_well_formed(files[i], figure);
    cr_assert_not_null(strstr(figure, "prefers-color-scheme"), "%s has both themes", files[i]);
    free(figure);
  }
  rundir_remove(run);
}

/* The numbers of the n-th path of a colour's class. */
static int path_points(const char *svg, const char *class, int nth, double point[][2], int most) {
  const char *at = svg;
  char open[32];
  snprintf(open, sizeof open, "<g class=\"%s\"><path", class);
  for (int i = 0; i <= nth && at; i++) at = strstr(at + (i > 0), open);
  cr_assert_not_null(at, "path %d of %s", nth, class);
  int n = 0;
  for (at = strstr(at, " d=\"") + 4; *at && *at != '"'; at++)
    if ((*at == 'M' || *at == 'L') && n < most && sscanf(at + 1, "%lf %lf", &point[n][0], &point[n][1]) == 2) n++;
  return n;
}

Test(report_forecast, lines_lie_where_the_numbers_say) {
  char *run = run_of(&(Sample){.column = "OT", .horizon = 4, .error = 0.5, .first = 31});
  free(page_of((const char *[]){run}, 1, NULL));
  char *svg = rundir_read(run, "forecast-1.svg");
  double truth[32][2], forecast[32][2], last[32][2];
  /* The first path of each is in the legend. */
  cr_assert_eq(path_points(svg, "black", 1, truth, 32), 12, "8 rows of look-back and 4 of the horizon");
  cr_assert_eq(path_points(svg, "c0", 1, forecast, 32), 4, "4 rows of the horizon");
  cr_assert_eq(path_points(svg, "grey", 1, last, 32), 5, "the last row, and 4 times again");
  const double unit = (truth[0][1] - truth[11][1]) / 11; /* pixels of 1: the truth rises by 1 a row */
  for (int h = 0; h < 4; h++) {
    cr_assert_float_eq(forecast[h][0], truth[8 + h][0], 0.11, "step %d is drawn at its row", h);
    cr_assert_float_eq((truth[8 + h][1] - forecast[h][1]) / unit, 0.5, 0.1, "step %d is 0.5 higher", h);
    cr_assert_float_eq(last[h + 1][1], truth[7][1], 0.11, "the last row is repeated at step %d", h);
  }
  cr_assert_float_eq(last[0][0], truth[7][0], 0.11, "the naive line starts at the last row");
  free(svg);
  rundir_remove(run);
}

Test(report_forecast, quantiles_are_bands_and_values_that_are_missing_gaps) {
  char *run = run_of(&(Sample){.column = "OT", .horizon = 4, .error = 0.5, .quantiles = true, .first = 31});
  char *page = page_of((const char *[]){run}, 1, NULL), *svg = rundir_read(run, "forecast-1.svg");
  cr_assert_eq(n_times(svg, "class=\"band\""), 3, "a band in each of two panels, and in the legend");
  cr_assert_not_null(strstr(page, "forecast, 10–90 %"), "the legend tells what the band covers");
  free(page), free(svg);
  /* The truth of row 33, of the first window's third step, is taken away. */
  char *record = rundir_read(run, FORECAST_RECORD), *hole = strstr(record, ",33,"), *path;
  path = base_format("%s/%s", run, FORECAST_RECORD);
  StrBuf changed = {0};
  strbuf_add(&changed, record, (size_t)(hole - record));
  strbuf_printf(&changed, ",null,%s", hole + 4);
  cr_assert_eq(strbuf_save(&changed, path).code, CODE_OK, "the record is changed");
  page = page_of((const char *[]){run}, 1, NULL), svg = rundir_read(run, "forecast-1.svg");
  cr_assert_null(strstr(svg, "nan"), "nothing is drawn at nan");
  cr_assert_not_null(strstr(page, "from row 31  ·  MAE 0.500 (last row 2.33)"),
                     "(1 + 2 + 4) / 3 of the rows that are there");
  free(page), free(svg), free(record), free(changed.data), free(path);
  rundir_remove(run);
}

Test(report_forecast, several_runs_are_drawn_where_they_forecast_the_same_rows) {
  char *one = run_of(&(Sample){.column = "OT", .horizon = 4, .error = 0.5, .dates = true, .first = 31});
  char *longer = run_of(&(Sample){.column = "OT", .horizon = 9, .error = 1, .dates = true, .first = 31});
  char *elsewhere = run_of(&(Sample){.column = "OT", .horizon = 4, .error = 2, .dates = true, .first = 40});
  char *out = base_format("%s/all.html", one);
  char *page = page_of((const char *[]){one, longer, elsewhere}, 3, out), *svg = rundir_read(one, "all-forecast-1.svg");
  double points[32][2];
  cr_assert_eq(path_points(svg, "c1", 1, points, 32), 9, "the second run's forecast is drawn to its end");
  cr_assert_eq(path_points(svg, "black", 1, points, 32), 17, "and so is the truth");
  cr_assert_eq(n_times(svg, "<g class=\"c2\"><path"), 1, "the third forecast other rows: only the legend has it");
  cr_assert_eq(n_times(page, ", steps: 9</b></td>"), 1, "the table tells the run of another horizon");
  cr_assert_null(strstr(page, "MAE 0.5"), "errors of different horizons are not set side by side");
  free(page), free(svg);
  page = page_of((const char *[]){one, elsewhere}, 2, out);
  cr_assert_not_null(strstr(page, "MAE 0.500, – (last row 2.50)"), "equal horizons: an error a run, a dash for none");
  free(page), free(out);
  rundir_remove(one), rundir_remove(longer), rundir_remove(elsewhere);
}

Test(report_forecast, damaged_records_are_left_out_and_named) {
  static const char *const damages[] = {"",
                                        "nonsense",
                                        "{}",
                                        "[1,2]",
                                        "{\"horizon\":4,\"windows\":[{}]}",
                                        "{\"horizon\":-4,\"windows\":[]}",
                                        "{\"horizon\":1e9,\"windows\":[{\"values\":[{\"truth\":[1]}]}]}"};
  for (size_t i = 0; i < N_OF(damages); i++) {
    char *run = run_of(&(Sample){.column = "OT", .horizon = 4, .first = 31});
    char *path = base_format("%s/%s", run, FORECAST_RECORD);
    cr_assert_eq(unlink(path), 0, "the record goes");
    rundir_append(run, FORECAST_RECORD, damages[i]);
    char *page = page_of((const char *[]){run}, 1, NULL);
    cr_assert_not_null(strstr(page, "forecasts.json cannot be read"), "damage %zu is told", i);
    cr_assert_not_null(strstr(page, "Final figures"), "damage %zu: the rest is shown", i);
    free(page), free(path);
    rundir_remove(run);
  }
  /* Nor may a window lack a column of the others. */
  char *other = run_of(&(Sample){.column = "OT", .horizon = 4, .first = 31}),
       *whole = rundir_read(other, FORECAST_RECORD);
  char *name = strstr(strstr(whole, "\"row\":131"), "OT");
  name[0] = 'X';
  char *place = base_format("%s/%s", other, FORECAST_RECORD);
  cr_assert_eq(strbuf_save(&(StrBuf){.data = whole, .n = strlen(whole)}, place).code, CODE_OK, "a column is renamed");
  char *told = page_of((const char *[]){other}, 1, NULL);
  cr_assert_not_null(strstr(told, "cannot be read"), "a window without the column of the first is told");
  free(told), free(whole), free(place);
  rundir_remove(other);
  /* Cut at any place, a record is damaged, and never read beyond its end. */
  char *run = run_of(&(Sample){.column = "OT", .horizon = 4, .dates = true, .quantiles = true, .first = 31});
  char *record = rundir_read(run, FORECAST_RECORD), *path = base_format("%s/%s", run, FORECAST_RECORD);
  for (size_t n = 0; n < strlen(record); n += 37) {
    StrBuf cut = {.data = record, .n = n};
    cr_assert_eq(strbuf_save(&cut, path).code, CODE_OK, "cut at %zu", n);
    char *page = page_of((const char *[]){run}, 1, NULL);
    cr_assert_not_null(strstr(page, "cannot be read"), "cut at %zu", n);
    free(page);
  }
  free(record), free(path);
  rundir_remove(run);
}

Test(report_forecast, column_names_cannot_become_markup) {
  char *run = run_of(&(Sample){.column = "<b>&'x", .horizon = 2, .first = 31});
  char *page = page_of((const char *[]){run}, 1, NULL), *svg = rundir_read(run, "forecast-1.svg");
  cr_assert_null(strstr(page, "<b>&"), "the name is escaped on the page");
  cr_assert_not_null(strstr(svg, "Column &lt;b&gt;&amp;&#39;x"), "and shown as it is");
  assert_well_formed("forecast-1.svg", svg);
  free(page), free(svg);
  rundir_remove(run);
}

Test(svg, date_ticks_are_few_round_and_do_not_touch) {
  for (double span = 20; span < 60.0 * 365 * 86400; span *= 1.3) {
    const Axis x = {.low = 1.4987e9, .high = 1.4987e9 + span, .start = 50, .extent = 350};
    StrBuf out = {0};
    strbuf_puts(&out, "");
    axis_x_ticks(&out, &x, 100, true, true);
    double at, before = -INFINITY;
    int n = 0;
    for (const char *p = out.data; (p = strstr(p, "<text")); p++, n++) {
      const char *label = strchr(p, '>') + 1, *end = strchr(label, '<');
      cr_assert_eq(sscanf(strstr(p, "x=\""), "x=\"%lf", &at), 1, "a tick has a place");
      cr_assert_gt(at - before, 6.2 * (double)(end - label), "over %g s, \"%.*s\" touches the label before", span,
                   (int)(end - label), label);
      before = at;
    }
    cr_assert(n >= 1 && n <= 8, "%d labels over %g seconds", n, span);
    free(out.data);
  }
}

Test(svg, date_ticks_say_what_changes) {
  static const struct {
    double days;
    const char *labels[2];
  } cases[] = {{0.5, {">06:00<", ">02:00<"}},       {2, {">2 Mar<", ">12:00<"}},
               {5, {">2 Mar<", ">3 Mar<"}},         {60, {">8 Mar<", ">22 Mar<"}}, /* Mondays */
               {400, {">Jan 2022<", ">Jul 2021<"}}, {4000, {">2024<", ">2026<"}}};
  for (size_t i = 0; i < N_OF(cases); i++) {
    const double from = 1614556800; /* 2021-03-01 */
    const Axis x = {.low = from, .high = from + 86400 * cases[i].days, .start = 50, .extent = 350};
    StrBuf out = {0};
    axis_x_ticks(&out, &x, 100, true, true);
    for (int k = 0; k < 2; k++)
      cr_assert_not_null(strstr(out.data, cases[i].labels[k]), "%g days have %s: %s", cases[i].days, cases[i].labels[k],
                         out.data);
    free(out.data);
  }
}
