/* report_figures: see report_figures.h. */
#include "train/report/report_figures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 860
#define SMOOTH_FROM 40 /* points; below, every one can be seen */

/* One figure: a metric of training steps, one of evaluations, and its baseline; any may be absent. */
typedef struct FigureRow {
  const char *id, *title;
  int height;
  const char *train, *eval, *baseline; /* columns of metrics.jsonl */
  bool axis;                           /* the tokens are written below */
  bool linear;                         /* its shape would be lost on a logarithmic axis */
  double high;                         /* > 0: always shown from 0 to here */
  const char *forecast_title;          /* of forecasters, where that is another */
} FigureRow;

static const FigureRow rows[] = {
    {"loss", "Loss (nats per token)", 400, "loss", "val_loss", "baseline_nll", true, false, 0,
     "Loss (in the units trained on)"},
    {"mse", "Validation error (MSE)", 320, NULL, "val_mse", "naive_mse", true, false, 0, NULL},
    {"accuracy", "Accuracy at the last token (%)", 300, NULL, "accuracy", "baseline_accuracy", true, false, 100, NULL},
    {"grad-norm", "Gradient norm", 170, "grad_norm", NULL, NULL, false, false, 0, NULL},
    {"lr", "Learning rate", 150, "lr", NULL, NULL, false, true, 0, NULL},
    {"throughput", "Throughput (tokens per second)", 190, "tok_per_s", NULL, NULL, true, false, 0,
     "Throughput (rows of windows per second)"},
};

int report_figure_count(void) { return (int)(sizeof rows / sizeof *rows); }

typedef struct Builder {
  ReportFigure *out;
  Series *series;
  const RunData *runs;
  int n_runs;
} Builder;

static const char *keep_text(ReportFigure *out, char *text) {
  out->texts = base_realloc(out->texts, (size_t)(out->n_texts + 1) * sizeof *out->texts);
  return out->texts[out->n_texts++] = text;
}

/* Mean over n / 40 points, as many before as behind, so that it neither lags nor leans; fewer towards the ends.
 * Non-finite values are passed over. */
static void running_mean(const Column *column, double *mean) {
  int64_t n = column->n, reach = max_i64(1, n / 80);
  for (int64_t i = 0; i < n; i++) {
    int64_t k = min_i64(reach, min_i64(i, n - 1 - i)), n_finite = 0;
    double sum = 0;
    for (int64_t j = i - k; j <= i + k; j++) {
      if (!isfinite(column->value[j])) continue;
      sum += column->value[j];
      n_finite++;
    }
    mean[i] = isfinite(column->value[i]) ? sum / (double)n_finite : NAN;
  }
}

static void add_series(Builder *b, Series series) { b->series[b->out->figure.n_series++] = series; }

static void add_data(Builder *b, const Column *column, const char *label, int run) {
  ReportFigure *out = b->out;
  out->steps[out->n_data] = column->step;
  out->data[out->n_data++] =
      (Series){.label = label, .x = column->tokens, .y = column->value, .n = column->n, .colour = run};
}

/* The metric of training steps: where there are many, pale with its running mean on top. */
static void add_train(Builder *b, const FigureRow *row, int run, double **smooth) {
  const Column *column = row->train ? rundata_column(&b->runs[run], row->train) : NULL;
  if (!column) return;
  const Column *eval = row->eval ? rundata_column(&b->runs[run], row->eval) : NULL;
  const char *name = b->n_runs > 1 ? b->runs[run].name : row->eval ? "training" : NULL;
  const char *label = b->n_runs > 1 && eval ? NULL : name; /* one label a run, at the evaluations */
  bool noisy = column->n >= SMOOTH_FROM && !row->linear;
  Series line = {.label = noisy ? NULL : label,
                 .x = column->tokens,
                 .y = column->value,
                 .n = column->n,
                 .colour = run,
                 .look = noisy ? LOOK_FAINT : LOOK_LINE};
  add_series(b, line);
  if (noisy) {
    running_mean(column, *smooth);
    line.label = label, line.y = *smooth, line.look = LOOK_LINE;
    add_series(b, line);
    *smooth += column->n;
  }
  char *data_label = base_format("%s, %s", b->runs[run].name, row->train);
  add_data(b, column, keep_text(b->out, data_label), run);
}

static void add_eval(Builder *b, const FigureRow *row, int run) {
  const Column *column = row->eval ? rundata_column(&b->runs[run], row->eval) : NULL;
  if (!column) return;
  /* A single run's evaluations stand apart from its training by colour, several runs from each other. */
  int colour = b->n_runs > 1 || !row->train ? run : 1;
  add_series(b, (Series){.label = b->n_runs > 1 ? b->runs[run].name : "validation",
                         .x = column->tokens,
                         .y = column->value,
                         .n = column->n,
                         .colour = colour,
                         .look = LOOK_POINTS});
  char *data_label = base_format("%s, %s", b->runs[run].name, row->eval);
  add_data(b, column, keep_text(b->out, data_label), run);
}

/* A baseline each run, but equal ones only once. */
static void add_baseline(Builder *b, const FigureRow *row, int run) {
  const Column *column = row->baseline ? rundata_column(&b->runs[run], row->baseline) : NULL;
  if (!column || !isfinite(column->value[column->n - 1])) return;
  const double *value = &column->value[column->n - 1];
  for (int i = 0; i < b->out->figure.n_series; i++)
    if (b->series[i].look == LOOK_RULE && b->series[i].y[0] == *value) return;
  char *label = base_format("baseline %.4g", *value);
  add_series(b, (Series){.label = keep_text(b->out, label), .y = value, .n = 1, .colour = -1, .look = LOOK_RULE});
}

static Mark *make_marks(const RunData *runs, int n_runs, int *n_marks) {
  *n_marks = 0;
  for (int r = 0; r < n_runs; r++) *n_marks += runs[r].n_resumes;
  Mark *marks = base_alloc((size_t)*n_marks * sizeof *marks), *mark = marks;
  for (int r = 0; r < n_runs; r++)
    for (int i = 0; i < runs[r].n_resumes; i++)
      *mark++ = (Mark){rundata_tokens_at(&runs[r], runs[r].resumes[i]), n_runs > 1 ? r : -1};
  return marks;
}

/* "shakespeare, loss: from 5.55 to 1.43, lowest 1.41." for every series. */
static char *describe(const ReportFigure *f) {
  StrBuf text = {0};
  strbuf_puts(&text, "Against what was seen in training.");
  for (int i = 0; i < f->n_data; i++) {
    const Series *s = &f->data[i];
    double first = NAN, last = NAN, low = INFINITY, high = -INFINITY;
    for (int64_t j = 0; j < s->n; j++) {
      if (!isfinite(s->y[j])) continue;
      if (isnan(first)) first = s->y[j];
      last = s->y[j], low = fmin(low, last), high = fmax(high, last);
    }
    if (isnan(first)) strbuf_printf(&text, " %s: no finite value.", s->label);
    else strbuf_printf(&text, " %s: from %.4g to %.4g; lowest %.4g, highest %.4g.", s->label, first, last, low, high);
  }
  return text.data;
}

/* Room for labels: the same in all figures, so that their axes lie below each other. */
static int label_chars(const RunData *runs, int n_runs) {
  size_t longest = strlen("baseline 0.1234");
  for (int r = 0; r < n_runs && n_runs > 1; r++)
    longest = strlen(runs[r].name) > longest ? strlen(runs[r].name) : longest;
  return longest < 100 ? (int)longest : 100;
}

static bool all_forecasters(const RunData *runs, int n_runs) {
  for (int r = 0; r < n_runs; r++)
    if (!rundata_is_forecast(&runs[r])) return false;
  return true;
}

bool report_figure_make(int index, const RunData *runs, int n_runs, const char *corner, ReportFigure *out) {
  CHECK(index >= 0 && index < report_figure_count(), "figure %d of %d", index, report_figure_count());
  const FigureRow *row = &rows[index];
  *out = (ReportFigure){0};
  int64_t n_smooth = 0;
  for (int r = 0; r < n_runs; r++) {
    const Column *train = row->train ? rundata_column(&runs[r], row->train) : NULL;
    n_smooth += train ? train->n : 0;
  }
  Builder b = {out, base_alloc((size_t)n_runs * 4 * sizeof(Series)), runs, n_runs};
  out->data = base_alloc((size_t)n_runs * 2 * sizeof *out->data);
  out->steps = base_alloc((size_t)n_runs * 2 * sizeof *out->steps);
  double *smooth = out->smooth = base_alloc((size_t)n_smooth * sizeof *smooth);
  int n_marks;
  Mark *marks = make_marks(runs, n_runs, &n_marks);
  const bool forecasters = all_forecasters(runs, n_runs);
  out->figure = (Figure){.id = row->id,
                         .title = forecasters && row->forecast_title ? row->forecast_title : row->title,
                         .x_label = !row->axis    ? NULL
                                    : forecasters ? "rows of training windows"
                                                  : "tokens",
                         .mark_label = row->axis ? "resumed" : NULL,
                         .corner = corner,
                         .linear = row->linear,
                         .y_high = row->high,
                         .label_chars = label_chars(runs, n_runs),
                         .width = WIDTH,
                         .height = row->height,
                         .series = b.series,
                         .marks = marks,
                         .n_marks = n_marks};
  for (int r = 0; r < n_runs; r++) {
    add_train(&b, row, r, &smooth);
    add_eval(&b, row, r);
    add_baseline(&b, row, r);
  }
  if (n_runs > 1 && row->train && row->eval) {
    char *title = base_format("%s · thin: training, with dots: validation", out->figure.title);
    out->figure.title = keep_text(out, title);
  }
  if (!out->n_data) {
    report_figure_free(out);
    return false;
  }
  out->figure.description = keep_text(out, describe(out));
  return true;
}

void report_figure_free(ReportFigure *f) {
  for (int i = 0; i < f->n_texts; i++) free(f->texts[i]);
  free(f->texts);
  free(f->data);
  free(f->steps);
  free(f->smooth);
  free((Series *)f->figure.series);
  free((Mark *)f->figure.marks);
  *f = (ReportFigure){0};
}
