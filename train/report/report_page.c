/* report_page: see report_page.h. */
#include "train/report/report_page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/forecast/forecast_record.h"

#define DATA_ROWS 40 /* of a series in the table under a figure */
#define SAMPLES_SHOWN 6
#define SAMPLE_BYTES 4000

/* No scripts and no network, also where a file tries to smuggle them in. */
#define CONTENT_POLICY "default-src 'none'; style-src 'unsafe-inline'"

static const char page_style[] =
    ":root{color-scheme:light dark;--page:#f7f7f4;--paper:#fff;--ink:#20242a;--muted:#6a717c;--line:#e3e3dd;"
    "--good:#2f855a;--warn:#a8591c}\n"
    "@media (prefers-color-scheme:dark){:root{--page:#12151a;--paper:#1a1e24;--ink:#e3e6ea;--muted:#98a0ac;"
    "--line:#2d333c;--good:#64c795;--warn:#f0a56a}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);"
    "font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\n"
    "main{max-width:940px;margin:0 auto;padding:40px 20px 56px}\n"
    "h1{font-size:28px;line-height:1.2;margin:0 0 8px;letter-spacing:-.01em;overflow-wrap:anywhere}"
    ".head{margin-bottom:24px}h2{font-size:17px;margin:36px 0 12px}h3{font-size:14px;margin:16px 0 4px}p{margin:4px "
    "0}\n"
    ".muted{color:var(--muted)}.small{font-size:13px}.note{color:var(--warn);font-size:13px}.pill{border:1px solid "
    "currentColor;"
    "border-radius:99px;padding:1px 10px;font-size:13px;margin-right:8px;white-space:nowrap}.done{color:var(--good)}"
    ".stopped,.failed{color:var(--warn)}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:12px;margin-bottom:12px}"
    ".tile,figure,.box{background:var(--paper);border:1px solid var(--line);border-radius:10px}"
    ".tile{padding:12px 16px;font-size:13px;color:var(--muted)}.tile b{display:block;font-size:25px;font-weight:600;"
    "line-height:1.35;color:var(--ink);font-variant-numeric:tabular-nums}\n"
    "figure{margin:0 0 12px;padding:8px 8px 4px}figure svg{display:block;width:100%;height:auto}"
    "figure details{margin:4px 8px 6px}summary{cursor:pointer;color:var(--muted);font-size:13px;padding:2px 0}\n"
    ".box{padding:4px 16px;margin-bottom:12px;overflow-x:auto}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{text-align:right;padding:6px 0 6px 18px;border-bottom:1px solid var(--line)}"
    "th:first-child,td:first-child{text-align:left;padding-left:0}tr:last-child td{border-bottom:0}"
    "th{font-weight:500;color:var(--muted);font-size:13px;overflow-wrap:anywhere}details table{font-size:13px}"
    "details td,details th{padding-top:2px;padding-bottom:2px}\n"
    "pre{font:13px/1.5 ui-monospace,'SF Mono','DejaVu Sans Mono',Menlo,monospace;white-space:pre-wrap;"
    "overflow-wrap:anywhere;margin:8px 0}footer{margin-top:36px;color:var(--muted);font-size:13px;"
    "overflow-wrap:anywhere}\n"
    "@media print{body{background:#fff}figure,.tile{break-inside:avoid}}\n";

static void escaped(StrBuf *out, const char *before, const char *text, const char *after) {
  strbuf_puts(out, before);
  svg_escape(out, text, strlen(text));
  strbuf_puts(out, after);
}

/* Numbers of a run ---------------------------------------------------------------------------------------------- */

/* 1.4312, 21, 3.2e-05: integers whole, else four decimals or four digits; a dash for what is not known. */
static Short readable(double value) {
  if (!isfinite(value)) return (Short){"–"};
  Short out;
  double size = fabs(value);
  bool whole = value == trunc(value) && size < 1e9, plain = size >= 1e-3 && size < 1e4;
  snprintf(out.text, sizeof out.text, whole ? "%.0f" : plain ? "%.4f" : "%.4g", value);
  return out;
}

/* 3,145,728 */
static Short grouped(double value) {
  char digits[20];
  int n = snprintf(digits, sizeof digits, "%.0f", fmin(fmax(value, 0), 1e18));
  Short out;
  size_t at = 0;
  for (int i = 0; i < n; i++) {
    if (i && (n - i) % 3 == 0) out.text[at++] = ',';
    out.text[at++] = digits[i];
  }
  out.text[at] = '\0';
  return out;
}

static int by_value(const void *a, const void *b) {
  double p = *(const double *)a, q = *(const double *)b;
  return (p > q) - (p < q);
}

static double column_median(const RunData *run, const char *name) {
  const Column *column = rundata_column(run, name);
  if (!column) return NAN;
  double *sorted = base_alloc((size_t)column->n * sizeof *sorted);
  int64_t n = 0;
  for (int64_t i = 0; i < column->n; i++)
    if (isfinite(column->value[i])) sorted[n++] = column->value[i];
  qsort(sorted, (size_t)n, sizeof *sorted, by_value);
  double median = n ? (sorted[(n - 1) / 2] + sorted[n / 2]) / 2 : NAN;
  free(sorted);
  return median;
}

static double column_max(const RunData *run, const char *name) {
  const Column *column = rundata_column(run, name);
  double high = NAN;
  for (int64_t i = 0; column && i < column->n; i++) high = fmax(high, column->value[i]);
  return high;
}

/* Over all sessions: each counts its seconds from zero. */
static double total_seconds(const RunData *run) {
  const Column *column = rundata_column(run, "seconds");
  double total = 0, before = 0;
  for (int64_t i = 0; column && i < column->n; i++) {
    double now = column->value[i];
    if (!isfinite(now)) continue;
    total += now >= before ? now - before : now;
    before = now;
  }
  return column ? total : NAN;
}

static Short text_steps(const RunData *run) { return grouped(run->last_step); }
static Short text_tokens(const RunData *run) { return grouped(run->last_tokens); }
static Short text_seconds(const RunData *run) { return format_duration(total_seconds(run)); }
static Short text_rate(const RunData *run) { return format_count(column_median(run, "tok_per_s")); }
static Short text_memory(const RunData *run) { return format_bytes(column_max(run, "mem_mib") * 1048576); }
static Short text_hash(const RunData *run) {
  Short out;
  snprintf(out.text, sizeof out.text, "%s", *run->config_hash ? run->config_hash : "–");
  return out;
}

/* The final figures: scores, whose baseline may be known, then facts. */
static const struct {
  const char *column, *title, *tile, *baseline;
  bool higher_is_better;
  const char *forecast_title; /* of forecasters, where that is another */
} scores[] = {
    {"val_loss", "Validation loss (nats per token)", "validation loss", "baseline_nll", false,
     "Validation loss (in the units trained on)"},
    {"perplexity", "Perplexity", "perplexity", "baseline_perplexity", false, NULL},
    {"bits_per_byte", "Bits per byte", "bits per byte", "baseline_bits_per_byte", false, NULL},
    {"accuracy", "Accuracy at the last token (%)", "% right at the last token", "baseline_accuracy", true, NULL},
    {"scaled_accuracy", "Scaled accuracy (0: chance, 100: all right)", NULL, "baseline_scaled_accuracy", true, NULL},
    {"val_mse", "Validation MSE", "validation MSE", "naive_mse", false, NULL},
    {"val_mae", "Validation MAE", "validation MAE", "naive_mae", false, NULL},
    {"loss", "Training loss, last logged step", NULL, NULL, false, NULL},
};
static const struct {
  const char *title, *tile;
  Short (*text)(const RunData *run);
  const char *forecast_title, *forecast_tile;
} facts[] = {
    {"Steps", NULL, text_steps, NULL, NULL},
    {"Tokens", "tokens", text_tokens, "Rows of training windows", "rows of windows"},
    {"Time training", "time training", text_seconds, NULL, NULL},
    {"Tokens per second, median", "tokens / s", text_rate, "Rows per second, median", "rows / s"},
    {"Memory, highest", NULL, text_memory, NULL, NULL},
    {"Config, XXH3", NULL, text_hash, NULL, NULL},
};
enum { N_SCORES = sizeof scores / sizeof *scores, N_FACTS = sizeof facts / sizeof *facts };

/* The page ------------------------------------------------------------------------------------------------------ */

static void run_line(StrBuf *out, const RunData *run, bool named) {
  strbuf_puts(out, "<p>");
  if (run->state) {
    /* Only words we know become class names. */
    const char *kind = strcmp(run->state, "done") == 0      ? "done"
                       : strcmp(run->state, "stopped") == 0 ? "stopped"
                       : strcmp(run->state, "failed") == 0  ? "failed"
                                                            : "muted";
    strbuf_printf(out, "<span class=\"pill %s\">", kind);
    escaped(out, "", run->state, "</span>");
  }
  if (named) escaped(out, "<b>", run->name, "</b> ");
  strbuf_printf(out, "<span class=\"muted\">%s steps · %s %s · %s", grouped(run->last_step).text,
                format_count(run->last_tokens).text, rundata_is_forecast(run) ? "rows" : "tokens",
                format_duration(total_seconds(run)).text);
  if (run->n_resumes) strbuf_printf(out, " · resumed %d time%s", run->n_resumes, run->n_resumes == 1 ? "" : "s");
  if (run->reason) escaped(out, " · ", run->reason, "");
  strbuf_puts(out, "</span></p>\n");
  if (run->n_damaged)
    strbuf_printf(out, "<p class=\"note\">Left out: %lld damaged line%s of metrics.jsonl.</p>\n",
                  (long long)run->n_damaged, run->n_damaged == 1 ? "" : "s");
  if (run->n_nonfinite)
    strbuf_printf(out, "<p class=\"note\">Gaps in the figures: %lld line%s with a number that is not finite.</p>\n",
                  (long long)run->n_nonfinite, run->n_nonfinite == 1 ? "" : "s");
}

static void tile(StrBuf *out, const char *value, const char *label) {
  strbuf_printf(out, "<div class=\"tile\"><b>%s</b>%s</div>\n", value, label);
}

static void tiles(StrBuf *out, const RunData *run) {
  strbuf_puts(out, "<div class=\"tiles\">\n");
  for (int i = 0; i < N_SCORES; i++) {
    double value = rundata_last(run, scores[i].column);
    if (!scores[i].tile || isnan(value)) continue;
    double baseline = scores[i].baseline ? rundata_last(run, scores[i].baseline) : NAN;
    char *beside = isnan(baseline) ? base_strdup(scores[i].tile)
                                   : base_format("%s<br>baseline %s", scores[i].tile, readable(baseline).text);
    tile(out, readable(value).text, beside);
    free(beside);
  }
  for (int i = 0; i < N_FACTS; i++) {
    const char *name = rundata_is_forecast(run) && facts[i].forecast_tile ? facts[i].forecast_tile : facts[i].tile;
    if (name) tile(out, i == 1 ? format_count(run->last_tokens).text : facts[i].text(run).text, name);
  }
  strbuf_puts(out, "</div>\n");
}

void page_head(StrBuf *out, const RunData *runs, int n_runs) {
  strbuf_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta http-equiv=\"Content-Security-Policy\" content=\"" CONTENT_POLICY "\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
  escaped(out, "<title>", runs[0].name, n_runs > 1 ? " and others" : "");
  strbuf_puts(out, " – aspis report</title>\n<style>\n");
  strbuf_puts(out, page_style);
  svg_style(out);
  strbuf_puts(out, "</style>\n</head>\n<body>\n<main>\n");
  escaped(out, "<h1>", runs[0].name, "");
  for (int r = 1; r < n_runs; r++) escaped(out, r < n_runs - 1 ? ", " : " and ", runs[r].name, "");
  strbuf_puts(out, "</h1>\n<div class=\"head\">\n");
  for (int r = 0; r < n_runs; r++) run_line(out, &runs[r], n_runs > 1);
  strbuf_puts(out, "</div>\n");
  if (n_runs == 1) tiles(out, &runs[0]);
}

void page_figure(StrBuf *out, const ReportFigure *f) {
  strbuf_puts(out, "<figure>\n");
  svg_figure(out, &f->figure);
  strbuf_puts(out, "<details><summary>Data</summary><table><tr><th>Series</th>");
  if (f->x_name) escaped(out, "<th>", f->x_name, "</th>");
  else strbuf_puts(out, "<th>Step</th><th>Tokens</th>");
  strbuf_puts(out, "<th>Value</th></tr>\n");
  bool thinned = false;
  for (int i = 0; i < f->n_data; i++) {
    const Series *s = &f->data[i];
    int64_t n = min_i64(s->n, DATA_ROWS);
    thinned |= n < s->n;
    for (int64_t row = 0; row < n; row++) {
      int64_t j = n > 1 ? row * (s->n - 1) / (n - 1) : 0;
      escaped(out, "<tr><td>", s->label, "</td>");
      if (!f->x_name) strbuf_printf(out, "<td>%s</td>", grouped(f->steps[i][j]).text);
      strbuf_printf(out, "<td>%s</td><td>%s</td></tr>\n", grouped(s->x[j]).text, readable(s->y[j]).text);
    }
  }
  strbuf_puts(out, "</table>");
  if (thinned)
    strbuf_printf(out, "<p class=\"muted\">At most %d points of a series; all are in %s.</p>", DATA_ROWS,
                  f->x_name ? FORECAST_RECORD : "metrics.jsonl");
  strbuf_puts(out, "</details>\n</figure>\n");
}

void page_grid(StrBuf *out, const FigureGrid *grid) {
  strbuf_puts(out, "<figure>\n");
  svg_grid(out, grid);
  strbuf_puts(out, "</figure>\n");
}

void page_forecast_notes(StrBuf *out, const RunData *runs, const RunForecasts *forecasts, int n_runs) {
  for (int r = 0; r < n_runs; r++) {
    if (!forecasts[r].damaged) continue;
    escaped(out, "<p class=\"note\">Left out: the forecasts of ", runs[r].name, "");
    strbuf_puts(out, ", whose " FORECAST_RECORD " cannot be read. The end of a training run writes it.</p>\n");
  }
}

static void forecast_row(StrBuf *out, const char *name, const struct ForecastFigures *f, bool ours) {
  if (isnan(f->mse)) return;
  escaped(out, ours ? "<tr><td><b>" : "<tr><td>", name, ours ? "</b></td>" : "</td>");
  const double values[] = {f->mse, f->mae, f->rmse_units, f->mae_units, f->smape, f->mase};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++)
    strbuf_printf(out, ours ? "<td><b>%s</b></td>" : "<td>%s</td>", readable(values[i]).text);
  strbuf_puts(out, "</tr>\n");
}

void page_forecast_table(StrBuf *out, const RunData *runs, const RunForecasts *forecasts, int n_runs) {
  strbuf_puts(out, "<div class=\"box\"><table>\n<tr><th></th><th>MSE</th><th>MAE</th><th>RMSE, units</th>"
                   "<th>MAE, units</th><th>sMAPE %</th><th>MASE</th></tr>\n");
  const RunForecasts *lead = NULL;
  for (int r = 0; r < n_runs; r++) {
    if (!forecasts[r].n_windows) continue;
    if (!lead) lead = &forecasts[r];
    StrBuf name = {0};
    strbuf_puts(&name, n_runs > 1 ? runs[r].name : "model");
    if (forecasts[r].n_output != lead->n_output) strbuf_printf(&name, ", columns: %d", forecasts[r].n_output);
    if (forecasts[r].horizon != lead->horizon) strbuf_printf(&name, ", steps: %d", forecasts[r].horizon);
    forecast_row(out, name.data, &forecasts[r].score[BY_MODEL], true);
    free(name.data);
  }
  char *season = base_format("season of %lld before", (long long)lead->season);
  const char *const names[N_FORECASTERS] = {NULL, "last row", season, "window mean", "ridge regression"};
  for (int k = BY_NAIVE; k < N_FORECASTERS; k++) forecast_row(out, names[k], &lead->score[k], false);
  strbuf_printf(
      out,
      "</table></div>\n<p class=\"muted small\">All %lld windows of the validation part, %d step%s each"
      "%s. MSE and "
      "MAE are in the units trained on, scaled by the training part unless data.scale is false; \"units\" are the "
      "data's.</p>\n",
      (long long)lead->n_scored, lead->horizon, lead->horizon == 1 ? "" : "s",
      n_runs > 1 ? ", where a run does not say otherwise" : "");
  free(season);
}

static void score_row(StrBuf *out, int i, const RunData *runs, int n_runs) {
  double best = NAN, baseline = NAN;
  for (int r = 0; r < n_runs; r++) {
    double value = rundata_last(&runs[r], scores[i].column);
    best = scores[i].higher_is_better ? fmax(best, value) : fmin(best, value);
    if (scores[i].baseline && isnan(baseline)) baseline = rundata_last(&runs[r], scores[i].baseline);
  }
  if (isnan(best)) return;
  const bool forecasts = rundata_is_forecast(&runs[0]) && scores[i].forecast_title;
  strbuf_printf(out, "<tr><td>%s</td>", forecasts ? scores[i].forecast_title : scores[i].title);
  for (int r = 0; r < n_runs; r++) {
    double value = rundata_last(&runs[r], scores[i].column);
    strbuf_printf(out, n_runs > 1 && value == best ? "<td><b>%s</b></td>" : "<td>%s</td>", readable(value).text);
  }
  strbuf_printf(out, "<td class=\"muted\">%s</td></tr>\n", isnan(baseline) ? "" : readable(baseline).text);
}

void page_table(StrBuf *out, const RunData *runs, int n_runs) {
  strbuf_puts(out, "<p class=\"muted small\">Pale lines: every logged step; strong lines: their running mean.</p>\n");
  strbuf_puts(out, "<h2>Final figures</h2>\n<div class=\"box\"><table>\n<tr><th></th>");
  for (int r = 0; r < n_runs; r++) escaped(out, "<th>", runs[r].name, "</th>");
  strbuf_puts(out, "<th>Baseline</th></tr>\n");
  for (int i = 0; i < N_SCORES; i++) score_row(out, i, runs, n_runs);
  for (int i = 0; i < N_FACTS; i++) {
    const bool forecasts = rundata_is_forecast(&runs[0]) && facts[i].forecast_title;
    strbuf_printf(out, "<tr><td>%s</td>", forecasts ? facts[i].forecast_title : facts[i].title);
    for (int r = 0; r < n_runs; r++) strbuf_printf(out, "<td>%s</td>", facts[i].text(&runs[r]).text);
    strbuf_puts(out, "<td></td></tr>\n");
  }
  strbuf_puts(out, "</table></div>\n");
}

Status page_samples(StrBuf *out, const RunData *run, bool named) {
  if (!run->n_samples) return STATUS_OK;
  strbuf_puts(out, "<h2>Samples");
  if (named) escaped(out, " of ", run->name, "");
  strbuf_puts(out, "</h2>\n");
  int first = (int)max_i64(0, run->n_samples - SAMPLES_SHOWN);
  for (int i = run->n_samples; i-- > first;) {
    char *path = base_format("%s/samples/%s", run->path, run->samples[i]);
    StrBuf text = {0};
    Status status = strbuf_load(&text, path);
    free(path);
    TRY_OR(status, free(text.data));
    escaped(out, "<div class=\"box\"><h3>", run->samples[i], "</h3><pre>");
    size_t n = text.n < SAMPLE_BYTES ? text.n : SAMPLE_BYTES;
    while (n < text.n && n && ((unsigned char)text.data[n] & 0xc0) == 0x80) n--; /* not inside a character */
    svg_escape(out, text.data, n);
    strbuf_puts(out, n < text.n ? "…</pre></div>\n" : "</pre></div>\n");
    free(text.data);
  }
  if (first) strbuf_printf(out, "<p class=\"muted\">The last %d of %d.</p>\n", SAMPLES_SHOWN, run->n_samples);
  return STATUS_OK;
}

void page_config(StrBuf *out, const RunData *run, bool named) {
  if (!run->config) return;
  strbuf_puts(out, "<details><summary>Config");
  if (named) escaped(out, " of ", run->name, "");
  escaped(out, "</summary><div class=\"box\"><pre>", run->config, "</pre></div></details>\n");
}

void page_foot(StrBuf *out, const char *corner) {
  escaped(out, "<footer>", corner, "</footer>\n</main>\n</body>\n</html>\n");
}
