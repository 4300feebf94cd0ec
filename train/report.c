/* report: see report.h. */
#include "train/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/report_page.h"

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

static Status add_figures(StrBuf *page, const RunData *runs, int n_runs, const ReportOptions *options, const char *path,
                          const char *corner) {
  for (int i = 0; i < report_figure_count(); i++) {
    ReportFigure figure;
    if (!report_figure_make(i, runs, n_runs, corner, &figure)) continue;
    StrBuf alone = {0};
    svg_document(&alone, &figure.figure);
    char *figure_file = figure_path(path, options->out != NULL, figure.figure.id);
    Status status = strbuf_save(&alone, figure_file);
    free(figure_file);
    free(alone.data);
    figure.figure.corner = NULL; /* the page says it once, at its foot */
    page_figure(page, &figure);
    report_figure_free(&figure);
    TRY(status);
  }
  return STATUS_OK;
}

static Status write_page(const RunData *runs, int n_runs, const ReportOptions *options, const char *path) {
  StrBuf page = {0};
  char *corner = make_corner(runs, n_runs, options->version);
  page_head(&page, runs, n_runs);
  Status status = add_figures(&page, runs, n_runs, options, path, corner);
  page_table(&page, runs, n_runs);
  for (int r = 0; r < n_runs && status.code == CODE_OK; r++) status = page_samples(&page, &runs[r], n_runs > 1);
  strbuf_puts(&page, "<h2>Config</h2>\n");
  for (int r = 0; r < n_runs; r++) page_config(&page, &runs[r], n_runs > 1);
  page_foot(&page, corner);
  if (status.code == CODE_OK) status = strbuf_save(&page, path);
  free(corner);
  free(page.data);
  return status;
}

Status report_write(const ReportOptions *options, char **path) {
  CHECK(options->n_runs > 0, "a report of no runs");
  RunData *runs = base_zalloc((size_t)options->n_runs * sizeof *runs);
  Status status = STATUS_OK;
  for (int r = 0; r < options->n_runs && status.code == CODE_OK; r++) status = rundata_load(options->runs[r], &runs[r]);
  if (status.code == CODE_OK) {
    *path = options->out ? base_strdup(options->out) : base_format("%s/report.html", runs[0].path);
    status = write_page(runs, options->n_runs, options, *path);
    if (status.code != CODE_OK) free(*path);
  }
  for (int r = 0; r < options->n_runs; r++) rundata_free(&runs[r]);
  free(runs);
  return status;
}
