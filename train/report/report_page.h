/* report_page: the HTML of a report, piece by piece. */
#pragma once

#include "train/report/report_figures.h"
#include "train/report/report_forecast.h"

void page_head(StrBuf *out, const RunData *runs, int n_runs);
/* Figure and, folded, its data. */
void page_figure(StrBuf *out, const ReportFigure *figure);
void page_grid(StrBuf *out, const FigureGrid *grid);
/* Which runs' forecasts are not shown, and why. */
void page_forecast_notes(StrBuf *out, const RunData *runs, const RunForecasts *forecasts, int n_runs);
/* The scores of the runs' forecasts beside those that need no training, of the first run that has them. */
void page_forecast_table(StrBuf *out, const RunData *runs, const RunForecasts *forecasts, int n_runs);
/* Final figures of all runs, beside the baseline where one is known. */
void page_table(StrBuf *out, const RunData *runs, int n_runs);
/* The last samples of a run. CODE_DATA when one cannot be read. */
Status page_samples(StrBuf *out, const RunData *run, bool named);
void page_config(StrBuf *out, const RunData *run, bool named);
void page_foot(StrBuf *out, const char *corner);
