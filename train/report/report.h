/* report: one self-contained HTML page about one run or several overlaid: figures as inline SVG (each also a file beside
 * the page), final figures beside their baselines, samples, the config. No scripts, no network; the same run directories
 * and version give the same bytes. */
#pragma once

#include "tensor/base.h"

typedef struct ReportOptions {
  const char *const *runs; /* run directories; the first is the page's home */
  int n_runs;
  const char *out;     /* NULL: <first run>/report.html */
  const char *version; /* of the program, for the corner of the figures */
} ReportOptions;

/* Writes the page, and each figure beside it: loss.svg, lr.svg, ... in a run directory, <page>-loss.svg beside another
 * `out`. *path (malloc'ed) names the page. CODE_DATA when a run directory or its metrics are missing, or hold no line that
 * can be read. */
Status report_write(const ReportOptions *options, char **path);
