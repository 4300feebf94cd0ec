/* report_windows: pictures of forecasts: forecast against truth with the last row repeated, a figure a column; the error of
 * each step ahead beside forecasts that need no training. Of several runs, each is drawn where it forecast the same rows. */
#pragma once

#include "train/report/report_figures.h"
#include "train/report/report_forecast.h"

/* A figure with what it points into; free with window_figure_free. */
typedef struct WindowFigure {
  FigureGrid grid;
  void **kept;
  int n_kept;
} WindowFigure;

/* How many columns can be shown: those of the first run that has forecasts; 0 without one. */
int window_figure_count(const RunForecasts *forecasts, int n_runs);
void window_figure_make(int index, const RunData *runs, const RunForecasts *forecasts, int n_runs, const char *corner,
                        WindowFigure *out);
void window_figure_free(WindowFigure *figure);

/* False when no run has forecasts. */
bool step_figure_make(const RunData *runs, const RunForecasts *forecasts, int n_runs, const char *corner,
                      ReportFigure *out);
