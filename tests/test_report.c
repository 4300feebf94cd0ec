/* The report: what it shows of a run directory, and what it refuses or leaves out. */
#include "train/report/report.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/markup.h"
#include "tests/support/rundir.h"
#include "train/report/report_run.h"
#include "train/report/svg.h"

/* A run of n steps, logged each, evaluated every tenth. */
static char *make_run(int n, double scale) {
  char *directory = rundir_make();
  StrBuf lines = {0};
  for (int step = 1; step <= n; step++) {
    strbuf_printf(&lines, "{\"step\":%d,\"tokens\":%d,\"loss\":%.4f,\"lr\":0.001,\"grad_norm\":0.5,\"tok_per_s\":1000,",
                  step, step * 64, scale * (1 + 4.0 / step));
    strbuf_printf(&lines, "\"mem_mib\":20,\"seconds\":%d}\n", step);
    if (step % 10 == 0)
      strbuf_printf(&lines, "{\"step\":%d,\"tokens\":%d,\"val_loss\":%.4f,\"perplexity\":%.4f,\"baseline_nll\":2.5}\n",
                    step, step * 64, scale * (1.1 + 4.0 / step), exp(scale * (1.1 + 4.0 / step)));
  }
  rundir_append(directory, "metrics.jsonl", lines.data);
  free(lines.data);
  rundir_append(directory, "config.yaml", "name: <b>&\"'\nseed: 1\n");
  rundir_append(directory, "status.json", "{\"state\":\"done\",\"resumes\":[20],\"command\":\"aspis train a.yaml\"}\n");
  return directory;
}

static Status report_of(const char *const *runs, int n_runs, const char *out, char **path) {
  return report_write(&(ReportOptions){.runs = runs, .n_runs = n_runs, .out = out, .version = "9.9.9"}, path);
}

static char *page_of(const char *directory) {
  char *path = NULL;
  Status status = report_of(&directory, 1, NULL, &path);
  cr_assert_eq(status.code, CODE_OK, "the report of %s is written: %s", directory, status.line ? status.line : "");
  free(path);
  return rundir_read(directory, "report.html");
}

Test(report, same_inputs_give_the_same_bytes) {
  char *directory = make_run(100, 1);
  char *first = page_of(directory), *figure = rundir_read(directory, "loss.svg");
  char *second = page_of(directory), *again = rundir_read(directory, "loss.svg");
  cr_assert_str_eq(second, first, "the page written twice");
  cr_assert_str_eq(again, figure, "loss.svg written twice");
  free(first), free(second), free(figure), free(again);
  rundir_remove(directory);
}

Test(report, page_shows_scores_baseline_resume_config_and_origin) {
  char *directory = make_run(100, 1);
  char *page = page_of(directory);
  static const char *const shown[] = {"1.1400",                  /* the last val_loss: 1.1 + 4 / 100 */
                                      "baseline 2.5000",         /* beside it */
                                      ">resumed</text>",         /* the mark at step 20 */
                                      "resumed 1 time",          /* in the head */
                                      "100 steps",               /* in the head */
                                      "6,400",                   /* tokens */
                                      "1m40s",                   /* 100 s of training */
                                      "aspis train a.yaml",      /* the command, ... */
                                      "aspis 9.9.9",             /* ... the version ... */
                                      "prefers-color-scheme",    /* and both themes */
                                      "from 5 to 1.04; lowest"}; /* the text alternative */
  for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
    cr_assert_not_null(strstr(page, shown[i]), "the page shows \"%s\"", shown[i]);
  cr_assert_null(strstr(page, "<script"), "the page has no scripts");
  cr_assert_null(strstr(page, "src="), "the page loads nothing");
  assert_well_formed("report.html", page);
  free(page);
  static const char *const figures[] = {"loss.svg", "grad-norm.svg", "lr.svg", "throughput.svg"};
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
    char *figure = rundir_read(directory, figures[i]);
    assert_well_formed(figures[i], figure);
    cr_assert_not_null(strstr(figure, "aria-labelledby"), "%s has a text alternative", figures[i]);
    cr_assert_not_null(strstr(figure, "aspis 9.9.9"), "%s says where it comes from", figures[i]);
    free(figure);
  }
  rundir_remove(directory);
}

Test(report, config_hash_is_xxh3_of_the_file) {
  char *directory = make_run(3, 1), *path = base_format("%s/config.yaml", directory);
  cr_assert_eq(unlink(path), 0, "the old config goes");
  rundir_append(directory, "config.yaml", "a");
  RunData run;
  Status status = rundata_load(directory, &run);
  cr_assert_eq(status.code, CODE_OK, "the run loads");
  cr_assert_str_eq(run.config_hash, "e6c632b61e964e1f", "XXH3-64 of \"a\" (xxhsum -H3)");
  rundata_free(&run);
  free(path);
  rundir_remove(directory);
}

Test(report, text_from_files_cannot_become_markup) {
  char *parent = rundir_make(), *directory = base_format("%s/<img src=x>&", parent);
  cr_assert_eq(mkdir(directory, 0777), 0, "%s is made", directory);
  char *samples = base_format("%s/samples", directory);
  cr_assert_eq(mkdir(samples, 0777), 0, "%s is made", samples);
  rundir_append(directory, "metrics.jsonl", "{\"step\":1,\"tokens\":5,\"loss\":1,\"<b>x\":2}\n");
  rundir_append(directory, "config.yaml", "name: </pre><script>alert(1)</script>\n");
  rundir_append(directory, "samples/step-00000001.txt", "a</pre><script>alert(2)</script>\x01\xff\xc3");
  rundir_append(directory, "status.json",
                "{\"state\":\"\\\"><script>\",\"reason\":\"<script>\",\"command\":\"<script>\"}");
  char *page = page_of(directory);
  cr_assert_null(strstr(page, "<script"), "no script gets in");
  cr_assert_null(strstr(page, "<img"), "no element gets in by a name");
  cr_assert_not_null(strstr(page, "&lt;img src=x&gt;&amp;"), "the name is shown as it is");
  cr_assert_not_null(strstr(page, "&lt;script&gt;alert(2)&lt;/script&gt;\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"),
                     "the sample is shown as it is, broken bytes replaced");
  assert_well_formed("report.html", page);
  char *figure = rundir_read(directory, "loss.svg");
  assert_well_formed("loss.svg", figure);
  free(figure), free(page), free(samples), free(directory);
  rundir_remove(parent);
}

Test(report, damaged_lines_are_left_out_and_counted) {
  char *directory = rundir_make();
  rundir_append(
      directory, "metrics.jsonl",
      "{\"step\":1,\"tokens\":5,\"loss\":3}\n\nnonsense\n[1]\n{\"tokens\":5,\"loss\":9}\n"
      "{\"step\":-4,\"tokens\":5,\"loss\":9}\n{\"step\":2,\"tokens\":10,\"loss\":null,\"nonfinite\":\"nan\"}\n"
      "{\"step\":3,\"tokens\":15,\"loss\":2}\n{\"step\":4,\"tok");
  char *page = page_of(directory);
  cr_assert_not_null(strstr(page, "Left out: 6 damaged lines of metrics.jsonl"), "the page counts them");
  cr_assert_not_null(strstr(page, "1 line with a number that is not finite"), "the page counts the nan");
  cr_assert_not_null(strstr(page, "from 3 to 2; lowest 2, highest 3"), "good lines around them are drawn");
  free(page);
  rundir_remove(directory);
}

Test(report, what_is_no_run_is_one_line_about_data) {
  char *empty = rundir_make(), *damaged = rundir_make(), *path = NULL;
  rundir_append(damaged, "metrics.jsonl", "nonsense\n");
  const struct {
    const char *run, *phrase;
  } cases[] = {{"/nonexistent/run", "/nonexistent/run: no such run directory"},
               {empty, "no metrics.jsonl here"},
               {damaged, "no line of metrics that can be read (1 damaged)"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    Status status = report_of(&cases[i].run, 1, NULL, &path);
    cr_assert_eq(status.code, CODE_DATA, "code of %s", cases[i].run);
    cr_assert_not_null(strstr(status.line, cases[i].phrase), "\"%s\" says \"%s\"", status.line, cases[i].phrase);
    cr_assert_null(strchr(status.line, '\n'), "one line: %s", status.line);
    status_clear(&status);
  }
  rundir_remove(empty);
  rundir_remove(damaged);
}

Test(report, several_runs_are_overlaid_and_the_best_stands_out) {
  char *good = make_run(50, 1), *bad = make_run(50, 2), *out = base_format("%s/both.html", good), *path = NULL;
  Status status = report_of((const char *[]){bad, good}, 2, out, &path);
  cr_assert_eq(status.code, CODE_OK, "two runs are overlaid: %s", status.line ? status.line : "");
  cr_assert_str_eq(path, out, "the page is where it was asked for");
  char *page = rundir_read(good, "both.html"), *figure = rundir_read(good, "both-loss.svg");
  cr_assert_not_null(strstr(page, "<td>2.3600</td><td><b>1.1800</b></td>"), "the lower validation loss is bold");
  cr_assert_not_null(strstr(figure, "class=\"c0\""), "the first run has its colour");
  cr_assert_not_null(strstr(figure, "class=\"c1\""), "the second run has its own");
  cr_assert_eq(n_times(figure, "stroke-dasharray=\"5 4\""), 1, "equal baselines are drawn once");
  assert_well_formed("both.html", page);
  free(page), free(figure), free(path), free(out);
  rundir_remove(good);
  rundir_remove(bad);
}

Test(report, long_runs_stay_small_and_keep_their_extremes) {
  enum { N = 50000 };
  static double x[N], y[N];
  for (int i = 0; i < N; i++) x[i] = i, y[i] = 1 + 0.001 * (i % 7);
  y[31234] = 1.5; /* one spike in the midst of one pixel column */
  Series series = {.label = "a", .x = x, .y = y, .n = N};
  Figure figure = {
      .id = "f", .title = "t", .description = "d", .width = 600, .height = 300, .series = &series, .n_series = 1};
  StrBuf out = {0};
  svg_figure(&out, &figure);
  cr_assert_lt(out.n, 30000, "50,000 points make a small figure, not %zu bytes", out.n);
  double top = INFINITY, at, height;
  for (const char *p = strstr(out.data, " d=\"M"); p && *p && *p != '/'; p++)
    if ((*p == 'M' || *p == 'L') && sscanf(p + 1, "%lf %lf", &at, &height) == 2) top = fmin(top, height);
  /* The spike is the highest value: 6 % of the range of 0.5 below the frame's top (34), the frame being 252 high. */
  cr_assert_float_eq(top, 34 + 252 * 0.03 / 0.56, 0.2, "the spike is drawn at its height, not %g", top);
  free(out.data);
}

Test(svg, gaps_single_points_and_no_points_are_drawn_without_fault) {
  double x[] = {1, 2, 3, 4}, gap[] = {1, NAN, INFINITY, 2}, none[] = {NAN, NAN, NAN, NAN};
  const struct {
    char name[16];
    Series series;
    int n_moves; /* separate pieces of the line */
  } cases[] = {{"gap", {.x = x, .y = gap, .n = 4}, 2},
               {"all nan", {.x = x, .y = none, .n = 4}, 0},
               {"one point", {.x = x, .y = gap, .n = 1}, 1},
               {"empty", {.n = 0}, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    StrBuf out = {0};
    svg_document(&out, &(Figure){.id = "f",
                                 .title = "t",
                                 .description = "d",
                                 .x_label = "x",
                                 .width = 400,
                                 .height = 200,
                                 .series = &cases[i].series,
                                 .n_series = 1});
    assert_well_formed(cases[i].name, out.data);
    cr_assert_null(strstr(out.data, "nan"), "case %s has no nan in it", cases[i].name);
    cr_assert_null(strstr(out.data, "inf"), "case %s has no inf in it", cases[i].name);
    const char *path = strstr(out.data, " d=\"");
    int n_moves = 0;
    for (const char *p = path ? path + 4 : ""; *p && *p != '"'; p++) n_moves += *p == 'M';
    cr_assert_eq(n_moves, cases[i].n_moves, "case %s: %d pieces of line", cases[i].name, n_moves);
    free(out.data);
  }
}

Test(svg, ticks_are_round_and_about_as_many_as_wanted) {
  for (double high = 1e-7; high < 1e9; high *= 1.37) {
    for (int n = 2; n <= 10; n += 4) {
      double step = svg_tick_step(0, high, n), power = pow(10, floor(log10(step) + 1e-9)), digit = step / power;
      cr_assert(fabs(digit - 1) < 1e-6 || fabs(digit - 2) < 1e-6 || fabs(digit - 5) < 1e-6, "step %g over %g", step,
                high);
      cr_assert(high / step > 0.69 * n && high / step < 1.76 * n, "%g ticks of %d wanted over %g", high / step, n,
                high);
    }
  }
}

Test(svg, escape_leaves_only_characters_that_xml_allows) {
  const struct {
    char in[16], out[40];
  } cases[] = {{"a<b>&\"'", "a&lt;b&gt;&amp;&quot;&#39;"},
               {"é€😀\n\t", "é€😀\n\t"},
               {"\x07", "\xef\xbf\xbd"},
               {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
               {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
               {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
               {"\xef\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    StrBuf out = {0};
    svg_escape(&out, cases[i].in, strlen(cases[i].in));
    cr_assert_str_eq(out.data, cases[i].out, "case %zu", i);
    free(out.data);
  }
}
