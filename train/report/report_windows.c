/* report_windows: see report_windows.h. */
#include "train/report/report_windows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 860
#define PANEL_HEIGHT 212

/* Everything a figure points into is kept until it is freed. */
static void *keep(WindowFigure *f, void *memory) {
  f->kept = base_realloc(f->kept, (size_t)(f->n_kept + 1) * sizeof *f->kept);
  return f->kept[f->n_kept++] = memory;
}

void window_figure_free(WindowFigure *figure) {
  for (int i = 0; i < figure->n_kept; i++) free(figure->kept[i]);
  free(figure->kept);
  *figure = (WindowFigure){0};
}

/* The run whose windows and columns are shown; -1: none. */
static int lead_run(const RunForecasts *forecasts, int n_runs) {
  for (int r = 0; r < n_runs; r++)
    if (forecasts[r].n_windows) return r;
  return -1;
}

int window_figure_count(const RunForecasts *forecasts, int n_runs) {
  const int lead = lead_run(forecasts, n_runs);
  return lead < 0 ? 0 : forecasts[lead].windows[0].n_columns;
}

/* Mean |forecast - truth| over the rows that have a truth; NaN without one. forecast NULL: `last` throughout. */
static double mean_error(const ColumnForecast *c, int64_t n_rows, int horizon, const double *forecast) {
  double sum = 0;
  int n = 0;
  for (int h = 0; h < horizon; h++) {
    const double error = fabs((forecast ? forecast[h] : c->last) - c->truth[n_rows - horizon + h]);
    if (!isnan(error)) sum += error, n++;
  }
  return n ? sum / n : NAN;
}

/* " 5.50" with three digits, or a dash. */
static void put_error(StrBuf *out, double error) {
  if (!isfinite(error)) strbuf_puts(out, " –");
  else strbuf_printf(out, " %.*f", error > 0 ? (int)fmax(0, fmin(6, 2 - floor(log10(error)))) : 0, error);
}

/* Panels ------------------------------------------------------------------------------------------------------- */

typedef struct Extent {
  double low, high;
} Extent;

static void extend(Extent *extent, const double *values, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (isfinite(values[i])) extent->low = fmin(extent->low, values[i]), extent->high = fmax(extent->high, values[i]);
}

typedef struct PanelBuilder {
  WindowFigure *out;
  const RunForecasts *forecasts;
  int n_runs, lead;
  Figure *panel;
  Series *series;
  Band *bands;
  StrBuf title;
  Extent *extent; /* of all panels of the figure */
} PanelBuilder;

static void add_line(PanelBuilder *b, const double *x, const double *y, int64_t n, int colour, SeriesLook look) {
  b->series[b->panel->n_series++] = (Series){.x = x, .y = y, .n = n, .colour = colour, .look = look};
  extend(b->extent, y, n);
}

/* The outermost quantiles, then those within: pairs of one shade each. */
static void add_bands(PanelBuilder *b, const RunForecasts *f, const ColumnForecast *c, const double *x) {
  for (int q = 0; q < f->n_quantiles / 2; q++) {
    const double *low = c->quantiles + q * f->horizon, *high = c->quantiles + (f->n_quantiles - 1 - q) * f->horizon;
    b->bands[b->panel->n_bands++] = (Band){.x = x, .low = low, .high = high, .n = f->horizon, .colour = b->lead};
    extend(b->extent, low, f->horizon), extend(b->extent, high, f->horizon);
  }
}

/* What all forecasts of the panel are held against: truth and last row, of the run that looks furthest. */
static void add_truth(PanelBuilder *b, const char *name, const char *column) {
  const WindowForecast *furthest = NULL;
  int horizon = 0;
  for (int r = 0; r < b->n_runs; r++) {
    const WindowForecast *window = run_forecasts_window(&b->forecasts[r], name);
    if (!window || !window_column(window, column)) continue;
    if (furthest && window->x[window->n_rows - 1] <= furthest->x[furthest->n_rows - 1]) continue;
    furthest = window, horizon = b->forecasts[r].horizon;
  }
  const ColumnForecast *c = window_column(furthest, column);
  const int64_t from = max_i64(0, furthest->n_rows - horizon - 1), n = furthest->n_rows - from;
  double *last = keep(b->out, base_alloc((size_t)n * sizeof *last));
  for (int64_t i = 0; i < n; i++) last[i] = c->last;
  add_line(b, furthest->x + from, last, n, SVG_GREY, LOOK_DASHED); /* it starts at the last row itself */
  add_line(b, furthest->x, c->truth, furthest->n_rows, SVG_INK, LOOK_LINE);
}

static void add_forecast(PanelBuilder *b, int run, const WindowForecast *window, const ColumnForecast *c) {
  const RunForecasts *f = &b->forecasts[run];
  const double *x = window->x + window->n_rows - f->horizon;
  if (b->n_runs == 1 && c->quantiles) add_bands(b, f, c, x);
  add_line(b, x, c->forecast, f->horizon, run, LOOK_LINE);
}

/* Errors of different horizons are no comparison, and of many runs there is no room for them. */
static bool tells_errors(const PanelBuilder *b) {
  for (int r = 0; r < b->n_runs; r++)
    if (b->forecasts[r].n_windows && b->forecasts[r].horizon != b->forecasts[b->lead].horizon) return false;
  return b->n_runs <= 3;
}

static void make_title(PanelBuilder *b, const char *name, const char *column) {
  b->title = (StrBuf){0};
  strbuf_printf(&b->title, "from %s", name);
  if (!tells_errors(b)) return;
  double naive = NAN;
  for (int r = 0, n = 0; r < b->n_runs; r++) {
    const RunForecasts *f = &b->forecasts[r];
    if (!f->n_windows) continue;
    const WindowForecast *window = run_forecasts_window(f, name);
    const ColumnForecast *c = window ? window_column(window, column) : NULL;
    strbuf_puts(&b->title, n++ ? "," : "  ·  MAE");
    put_error(&b->title, c ? mean_error(c, window->n_rows, f->horizon, c->forecast) : NAN);
    if (r == b->lead) naive = mean_error(c, window->n_rows, f->horizon, NULL);
  }
  strbuf_puts(&b->title, " (last row");
  put_error(&b->title, naive);
  strbuf_puts(&b->title, ")");
}

static void make_panel(PanelBuilder *b, const char *name, const char *column) {
  const RunForecasts *lead = &b->forecasts[b->lead];
  b->series = keep(b->out, base_alloc((size_t)(b->n_runs + 2) * sizeof *b->series));
  b->bands = keep(b->out, base_alloc((size_t)(lead->n_quantiles + 1) * sizeof *b->bands));
  *b->panel = (Figure){.x_label = "",
                       .label_chars = -1,
                       .linear = true,
                       .x_tight = true,
                       .x_dates = lead->dates,
                       .series = b->series,
                       .bands = b->bands};
  add_truth(b, name, column);
  for (int r = 0; r < b->n_runs; r++) {
    const WindowForecast *window = run_forecasts_window(&b->forecasts[r], name);
    const ColumnForecast *c = window ? window_column(window, column) : NULL;
    if (c) add_forecast(b, r, window, c);
  }
  make_title(b, name, column);
  b->panel->title = keep(b->out, b->title.data);
  const WindowForecast *shown = run_forecasts_window(lead, name);
  Mark *mark = keep(b->out, base_alloc(sizeof *mark));
  *mark = (Mark){shown->x[max_i64(0, shown->n_rows - lead->horizon - 1)], SVG_GREY};
  b->panel->marks = mark, b->panel->n_marks = 1;
}

/* The figure --------------------------------------------------------------------------------------------------- */

/* "forecast", or with what its bands cover: "forecast, 5–95, 25–75 %". */
static char *forecast_label(const RunForecasts *f) {
  StrBuf text = {0};
  strbuf_puts(&text, "forecast");
  for (int q = 0; q < f->n_quantiles / 2; q++)
    strbuf_printf(&text, ", %g–%g", 100 * f->quantiles[q], 100 * f->quantiles[f->n_quantiles - 1 - q]);
  strbuf_puts(&text, f->n_quantiles > 1 ? " %" : "");
  return text.data;
}

static Series *make_legend(WindowFigure *out, const RunData *runs, const RunForecasts *forecasts, int n_runs, int lead,
                           int *n) {
  Series *legend = keep(out, base_alloc((size_t)(n_runs + 2) * sizeof *legend));
  *n = 0;
  legend[(*n)++] = (Series){.label = "truth", .colour = SVG_INK};
  for (int r = 0; r < n_runs; r++) {
    if (!forecasts[r].n_windows) continue;
    const char *label = n_runs > 1 ? runs[r].name : keep(out, forecast_label(&forecasts[lead]));
    legend[(*n)++] = (Series){.label = label, .colour = r, .n = n_runs == 1 && forecasts[r].n_quantiles > 1};
  }
  legend[(*n)++] = (Series){.label = "last row repeated", .colour = SVG_GREY, .look = LOOK_DASHED};
  return legend;
}

static char *make_note(const RunForecasts *f, int n_runs) {
  StrBuf note = {0};
  if (f->n_windows == 1) strbuf_puts(&note, "The one window of the validation part");
  else strbuf_printf(&note, "%d windows spread over the validation part, not chosen by their results", f->n_windows);
  if (n_runs == 1) strbuf_printf(&note, "; step %lld", (long long)f->step);
  return note.data;
}

static char *describe(const FigureGrid *grid, const char *note) {
  StrBuf text = {0};
  strbuf_printf(&text, "%s.", note);
  for (int i = 0; i < grid->n_panels; i++) strbuf_printf(&text, " Window %s.", grid->panels[i].title);
  return text.data;
}

void window_figure_make(int index, const RunData *runs, const RunForecasts *forecasts, int n_runs, const char *corner,
                        WindowFigure *out) {
  *out = (WindowFigure){0};
  const int lead = lead_run(forecasts, n_runs);
  const RunForecasts *f = &forecasts[lead];
  const char *column = f->windows[0].columns[index].column;
  Figure *panels = keep(out, base_zalloc((size_t)f->n_windows * sizeof *panels));
  Extent extent = {INFINITY, -INFINITY};
  for (int i = 0; i < f->n_windows; i++) {
    PanelBuilder b = {
        .out = out, .forecasts = forecasts, .n_runs = n_runs, .lead = lead, .panel = &panels[i], .extent = &extent};
    make_panel(&b, f->windows[i].name, column);
  }
  const double air = extent.high > extent.low ? 0.05 * (extent.high - extent.low) : 1;
  for (int i = 0; i < f->n_windows && isfinite(extent.low); i++)
    panels[i].y_low = extent.low - air, panels[i].y_high = extent.high + air;
  char *note = keep(out, make_note(f, n_runs));
  out->grid =
      (FigureGrid){.id = keep(out, base_format("forecast-%d", index + 1)),
                   .title = keep(out, base_format("Column %.60s: forecast against truth", column)),
                   .note = note,
                   .corner = corner,
                   .x_label = f->dates ? keep(out, f->interval ? base_format("date (%s from row to row)", f->interval)
                                                               : base_strdup("date"))
                                       : "row",
                   .width = WIDTH,
                   .y_label = keep(out, base_format("value of %.32s, in the data's units", column)),
                   .panel_height = PANEL_HEIGHT,
                   .n_columns = 2,
                   .panels = panels,
                   .n_panels = f->n_windows};
  out->grid.legend = make_legend(out, runs, forecasts, n_runs, lead, &out->grid.n_legend);
  out->grid.description = keep(out, describe(&out->grid, note));
}

/* Errors by step ------------------------------------------------------------------------------------------------ */

static char *keep_text(ReportFigure *out, char *text) {
  out->texts = base_realloc(out->texts, (size_t)(out->n_texts + 1) * sizeof *out->texts);
  return out->texts[out->n_texts++] = text;
}

/* A line of the figure and of the table below it. */
static void add_steps(ReportFigure *out, Series *series, const char *label, const double *y, int n, int colour,
                      SeriesLook look) {
  const Series line = {.label = label, .x = out->smooth, .y = y, .n = n, .colour = colour, .look = look};
  out->data[out->n_data++] = series[out->figure.n_series++] = line;
  out->figure.label_chars = (int)max_i64(out->figure.label_chars, min_i64(100, (int64_t)strlen(label)));
}

static void add_baselines(ReportFigure *out, Series *series, const RunForecasts *f, int first_colour) {
  static const struct {
    Forecaster by;
    const char *label;
  } baselines[] = {{BY_NAIVE, "last row"}, {BY_SEASONAL, "season before"}, {BY_LINEAR, "ridge regression"}};
  for (int b = 0; b < 3; b++)
    if (f->step_mse[baselines[b].by])
      add_steps(out, series, baselines[b].label, f->step_mse[baselines[b].by], f->horizon,
                b == 0 ? SVG_GREY : (first_colour + b - 1) % SVG_COLOURS, LOOK_DASHED);
}

static char *run_label(const RunData *run, const RunForecasts *f, const RunForecasts *lead, int n_runs) {
  if (n_runs == 1) return base_strdup("model");
  if (f->n_output == lead->n_output) return base_strdup(run->name);
  return base_format("%s, %d column%s", run->name, f->n_output, f->n_output == 1 ? "" : "s");
}

static char *step_title(const RunData *lead, const RunForecasts *f, int n_runs) {
  if (n_runs > 1) return base_format("Error by step ahead  ·  dashed: over the windows of %s", lead->name);
  return base_format("Error by step ahead, mean over %lld windows and %d column%s", (long long)f->n_scored, f->n_output,
                     f->n_output == 1 ? "" : "s");
}

static char *describe_steps(const ReportFigure *out) {
  StrBuf text = {0};
  strbuf_puts(&text, "Mean squared error of each step ahead.");
  for (int i = 0; i < out->n_data; i++)
    strbuf_printf(&text, " %s: %.4g at the first step, %.4g at the last.", out->data[i].label, out->data[i].y[0],
                  out->data[i].y[out->data[i].n - 1]);
  return text.data;
}

bool step_figure_make(const RunData *runs, const RunForecasts *forecasts, int n_runs, const char *corner,
                      ReportFigure *out) {
  *out = (ReportFigure){0};
  const int lead = lead_run(forecasts, n_runs);
  if (lead < 0) return false;
  const RunForecasts *f = &forecasts[lead];
  int longest = 1;
  for (int r = 0; r < n_runs; r++) longest = forecasts[r].horizon > longest ? forecasts[r].horizon : longest;
  double *x = out->smooth = base_alloc((size_t)longest * sizeof *x);
  for (int h = 0; h < longest; h++) x[h] = h + 1;
  Series *series = base_alloc((size_t)(n_runs + N_FORECASTERS) * sizeof *series);
  out->data = base_alloc((size_t)(n_runs + N_FORECASTERS) * sizeof *out->data);
  out->x_name = "Steps ahead";
  out->figure = (Figure){.id = "error-by-step",
                         .title = keep_text(out, step_title(&runs[lead], f, n_runs)),
                         .x_label = f->interval ? keep_text(out, base_format("steps ahead (%s each)", f->interval))
                                                : "steps ahead",
                         .y_label = "MSE (in the units trained on)",
                         .corner = corner,
                         .width = WIDTH,
                         .height = 300,
                         .series = series};
  add_baselines(out, series, f, n_runs);
  for (int r = 0; r < n_runs; r++)
    if (forecasts[r].n_windows)
      add_steps(out, series, keep_text(out, run_label(&runs[r], &forecasts[r], f, n_runs)),
                forecasts[r].step_mse[BY_MODEL], forecasts[r].horizon, r, LOOK_POINTS);
  out->figure.description = keep_text(out, describe_steps(out));
  return true;
}
