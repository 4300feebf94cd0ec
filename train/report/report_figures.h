/* report_figures: which figures a report has, and what each shows of the runs. */
#pragma once

#include "train/report/report_run.h"
#include "train/report/svg.h"

/* A figure with what it points into; free with report_figure_free. */
typedef struct ReportFigure {
  Figure figure;
  Series *data; /* the plain series behind the figure, for the data table: label, x (tokens), y; arrays of the runs */
  const double **steps;
  const char *x_name; /* what x is where it is not tokens; then there are no steps */
  int n_data;
  char **texts; /* labels and descriptions made for it */
  int n_texts;
  double *smooth; /* running means, one block */
} ReportFigure;

/* The figure of row `index`; false when no run has its metrics. Indices run from 0 to report_figure_count() - 1. */
bool report_figure_make(int index, const RunData *runs, int n_runs, const char *corner, ReportFigure *out);
void report_figure_free(ReportFigure *figure);
int report_figure_count(void);
