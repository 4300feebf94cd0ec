/* report: see report.h. */
#include "train/report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/report/report_page.h"
#include "train/report/report_windows.h"

/* Where the figures come from: the training command of a single run, else the runs; its config; the version. */
static char *make_corner(const RunData *runs, int n_runs, const char *version) {
  StrBuf text = {0};
  if (n_runs == 1 && runs[0].command) strbuf_puts(&text, runs[0].command);
  else {
    strbuf_puts(&text, "aspis report");
    for (int r = 0; r < n_runs; r++) strbuf_printf(&text, " %s", runs[r].path);
  }
  for (int r = 0; r < n_runs; r++)
    if (*runs[r].config_hash) strbuf_printf(&text, "%s%s", r ? " " : "  ·  config ", runs[r].config_hash);
  strbuf_printf(&text, "  ·  aspis %s", version);
  return text.data;
}

/* <page without .html>-<figure>.svg; in a run directory "loss.svg", because "report-" would say nothing. */
static char *figure_path(const char *page, bool own_name, const char *id) {
  const char *slash = strrchr(page, '/'), *dot = strrchr(page, '.');
  size_t folder = slash ? (size_t)(slash + 1 - page) : 0, stem = strlen(page);
  if (dot && (!slash || dot > slash)) stem = (size_t)(dot - page);
  if (!own_name) return base_format("%.*s%s.svg", (int)folder, page, id);
  return base_format("%.*s-%s.svg", (int)stem, page, id);
}

typedef struct Report {
  const ReportOptions *options;
  RunData *runs;
  RunForecasts *forecasts; /* of each run */
  int n_runs;
  char *corner, *path;
  StrBuf page;
} Report;

/* The file of a figure; `alone` is freed. */
static Status save_figure(const Report *r, const char *id, StrBuf *alone) {
  char *path = figure_path(r->path, r->options->out != NULL, id);
  Status status = strbuf_save(alone, path);
  free(path);
  free(alone->data);
  return status;
}

/* Beside the page with its origin in the corner; on the page, which tells that at its foot, without. */
static Status add_figure(Report *r, ReportFigure *figure) {
  StrBuf alone = {0};
  svg_document(&alone, &figure->figure);
  Status status = save_figure(r, figure->figure.id, &alone);
  figure->figure.corner = NULL;
  page_figure(&r->page, figure);
  report_figure_free(figure);
  return status;
}

static Status add_windows(Report *r, int column) {
  WindowFigure figure;
  StrBuf alone = {0};
  window_figure_make(column, r->runs, r->forecasts, r->n_runs, r->corner, &figure);
  svg_grid_document(&alone, &figure.grid);
  Status status = save_figure(r, figure.grid.id, &alone);
  figure.grid.corner = NULL;
  page_grid(&r->page, &figure.grid);
  window_figure_free(&figure);
  return status;
}

static Status add_forecasts(Report *r) {
  const int n_columns = window_figure_count(r->forecasts, r->n_runs);
  ReportFigure steps;
  page_forecast_notes(&r->page, r->runs, r->forecasts, r->n_runs);
  if (!n_columns) return STATUS_OK;
  strbuf_puts(&r->page, "<h2>Forecasts of the validation part</h2>\n");
  for (int i = 0; i < n_columns; i++) TRY(add_windows(r, i));
  if (step_figure_make(r->runs, r->forecasts, r->n_runs, r->corner, &steps)) TRY(add_figure(r, &steps));
  page_forecast_table(&r->page, r->runs, r->forecasts, r->n_runs);
  strbuf_puts(&r->page, "<h2>Training</h2>\n");
  return STATUS_OK;
}

static Status add_metrics(Report *r) {
  for (int i = 0; i < report_figure_count(); i++) {
    ReportFigure figure;
    if (report_figure_make(i, r->runs, r->n_runs, r->corner, &figure)) TRY(add_figure(r, &figure));
  }
  return STATUS_OK;
}

static Status write_page(Report *r) {
  const bool several = r->n_runs > 1;
  page_head(&r->page, r->runs, r->n_runs);
  TRY(add_forecasts(r));
  TRY(add_metrics(r));
  page_table(&r->page, r->runs, r->n_runs);
  for (int i = 0; i < r->n_runs; i++) TRY(page_samples(&r->page, &r->runs[i], several));
  strbuf_puts(&r->page, "<h2>Config</h2>\n");
  for (int i = 0; i < r->n_runs; i++) page_config(&r->page, &r->runs[i], several);
  page_foot(&r->page, r->corner);
  return strbuf_save(&r->page, r->path);
}

Status report_write(const ReportOptions *options, char **path) {
  CHECK(options->n_runs > 0, "a report of no runs");
  const size_t n = (size_t)options->n_runs;
  Report r = {.options = options, .n_runs = options->n_runs};
  r.runs = base_zalloc(n * sizeof *r.runs), r.forecasts = base_zalloc(n * sizeof *r.forecasts);
  Status status = STATUS_OK;
  for (int i = 0; i < r.n_runs && status.code == CODE_OK; i++) status = rundata_load(options->runs[i], &r.runs[i]);
  if (status.code == CODE_OK) {
    for (int i = 0; i < r.n_runs; i++) run_forecasts_load(&r.runs[i], &r.forecasts[i]);
    r.path = options->out ? base_strdup(options->out) : base_format("%s/report.html", r.runs[0].path);
    r.corner = make_corner(r.runs, r.n_runs, options->version);
    status = write_page(&r);
  }
  if (status.code == CODE_OK) *path = r.path;
  else free(r.path);
  for (int i = 0; i < r.n_runs; i++) run_forecasts_free(&r.forecasts[i]), rundata_free(&r.runs[i]);
  free(r.runs), free(r.forecasts);
  free(r.corner), free(r.page.data);
  return status;
}
