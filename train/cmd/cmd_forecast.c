/* aspis forecast MODEL: the rows after the last ones of a CSV, or after each row of stdin as it comes. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/cmd/command.h"
#include "train/forecast/forecast.h"
#include "train/format.h"
#include "train/resolve.h"

/* How a forecast is written. */
typedef struct Layout {
  const ModelConfig *config;
  const SeriesInfo *info;
  int n_columns;
  char **names;
  double *values; /* (horizon, n_columns) */
} Layout;

static Layout layout_open(const ModelConfig *config, const SeriesInfo *info) {
  Layout layout = {.config = config, .info = info, .n_columns = forecast_n_columns(config)};
  layout.names = base_alloc((size_t)layout.n_columns * sizeof *layout.names);
  layout.values = base_alloc((size_t)(config->horizon * layout.n_columns) * sizeof *layout.values);
  for (int i = 0; i < layout.n_columns; i++) layout.names[i] = forecast_column_name(config, info, i);
  return layout;
}

static void layout_close(Layout *layout) {
  for (int i = 0; i < layout->n_columns; i++) free(layout->names[i]);
  free(layout->names);
  free(layout->values);
}

/* Seven digits are what a float has to say. */
static void put_value(StrBuf *out, double value) { strbuf_printf(out, "%.7g", value); }

/* A cell of CSV, in quotes where it needs them. */
static void put_cell(StrBuf *out, const char *text) {
  if (!strpbrk(text, ",\"\n\r")) {
    strbuf_puts(out, text);
    return;
  }
  strbuf_puts(out, "\"");
  for (; *text; text++) strbuf_add(out, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
  strbuf_puts(out, "\"");
}

/* "a,b,c" and the end of the line. */
static void put_names(StrBuf *out, const Layout *layout) {
  for (int i = 0; i < layout->n_columns; i++) {
    if (i) strbuf_puts(out, ",");
    put_cell(out, layout->names[i]);
  }
  strbuf_puts(out, "\n");
}

static void put_row(StrBuf *out, const Layout *layout, int h) {
  for (int i = 0; i < layout->n_columns; i++) {
    if (i) strbuf_puts(out, ",");
    put_value(out, layout->values[h * layout->n_columns + i]);
  }
  strbuf_puts(out, "\n");
}

static void put_text(StrBuf *out, const char *text) {
  strbuf_puts(out, "\"");
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') strbuf_printf(out, "\\%c", *text);
    else if ((unsigned char)*text < ' ') strbuf_printf(out, "\\u%04x", (unsigned)*text);
    else strbuf_add(out, text, 1);
  }
  strbuf_puts(out, "\"");
}

/* "dates": [...], "columns": {name: [...], ...} } */
static void put_json(StrBuf *out, const Layout *layout, char *const *dates) {
  if (dates) {
    strbuf_puts(out, "\"dates\": [");
    for (int h = 0; h < layout->config->horizon; h++) {
      if (h) strbuf_puts(out, ", ");
      put_text(out, dates[h]);
    }
    strbuf_puts(out, "], ");
  }
  strbuf_puts(out, "\"columns\": {");
  for (int i = 0; i < layout->n_columns; i++) {
    if (i) strbuf_puts(out, ", ");
    put_text(out, layout->names[i]);
    strbuf_puts(out, ": [");
    for (int h = 0; h < layout->config->horizon; h++) {
      if (h) strbuf_puts(out, ", ");
      put_value(out, layout->values[h * layout->n_columns + i]);
    }
    strbuf_puts(out, "]");
  }
  strbuf_puts(out, "}}\n");
}

/* ---- the rows after a file */

static void plan_window(Model *model, Device *device, Dtype act, const void *info) {
  forecast_window(model, device, act, info, NULL, 0, NULL);
}

static void print_window(StrBuf *out, const Layout *layout, const SeriesContext *context, bool json) {
  if (json) {
    strbuf_puts(out, "{");
    put_json(out, layout, context->dates);
    return;
  }
  if (context->dates) {
    put_cell(out, context->date_name);
    strbuf_puts(out, ",");
  }
  put_names(out, layout);
  for (int h = 0; h < layout->config->horizon; h++) {
    if (context->dates) {
      put_cell(out, context->dates[h]);
      strbuf_puts(out, ",");
    }
    put_row(out, layout, h);
  }
}

static Status forecast_file(OpenModel *open, const Series *series, const Command *command) {
  const SeriesInfo *info = series_info(series);
  const char *input = command_text(command, "input", NULL), *path = command_text(command, "out", NULL);
  if (!input) return status_fail(CODE_USAGE, "forecast: expected --input FILE.csv, or --stream");
  SeriesContext context;
  TRY(series_read_context(series, input, command_text(command, "future", NULL), &context));
  TRY_OR(open_load(open, &(PlanShape){.pass = plan_window, .pass_shape = info}), series_context_free(&context));
  Layout layout = layout_open(&open->config.model, info);
  forecast_window(open->model, &open->device, open->config.dtype, info, context.input, context.row, layout.values);
  StrBuf out = {0};
  print_window(&out, &layout, &context, command_has(command, "json"));
  Status status = STATUS_OK;
  if (path) status = strbuf_save(&out, path);
  else fputs(out.data, stdout);
  free(out.data);
  layout_close(&layout);
  series_context_free(&context);
  return status;
}

/* ---- the rows after each row of stdin */

static void plan_stream(Model *model, Device *device, Dtype act, const void *info) {
  ForecastStream stream = forecast_stream_open(model, device, act, info);
  forecast_stream_take(&stream, NULL, 0, NULL);
}

/* The forecast made after the n-th row: a JSON object, or a line for each step. */
static void print_step(StrBuf *out, const Layout *layout, const SeriesStream *rows, int64_t n, bool json) {
  const int horizon = layout->config->horizon;
  char **dates = base_zalloc((size_t)horizon * sizeof *dates);
  for (int h = 0; h < horizon; h++) dates[h] = series_stream_date(rows, h + 1);
  if (json) {
    strbuf_printf(out, "{\"row\": %lld, ", (long long)n);
    put_json(out, layout, dates[0] ? dates : NULL);
  }
  for (int h = 0; h < horizon && !json; h++) {
    strbuf_printf(out, "%lld,%d,", (long long)n, h + 1);
    if (dates[h]) {
      put_cell(out, dates[h]);
      strbuf_puts(out, ",");
    }
    put_row(out, layout, h);
  }
  for (int h = 0; h < horizon; h++) free(dates[h]);
  free(dates);
}

static Status stream_rows(OpenModel *open, const SeriesInfo *info, SeriesStream *rows, Layout *layout, bool json) {
  ForecastStream stream = forecast_stream_open(open->model, &open->device, open->config.dtype, info);
  float *input = base_alloc((size_t)info->n_input * sizeof *input);
  char *line = NULL;
  size_t capacity = 0;
  int64_t n = 0, clock;
  Status status = STATUS_OK;
  for (ssize_t bytes; status.code == CODE_OK && (bytes = getline(&line, &capacity, stdin)) >= 0;) {
    while (bytes > 0 && (line[bytes - 1] == '\n' || line[bytes - 1] == '\r')) bytes--;
    status = series_stream_take(rows, line, (size_t)bytes, input, &clock);
    if (status.code != CODE_OK || clock == SERIES_NO_ROW) continue;
    forecast_stream_take(&stream, input, clock, layout->values);
    StrBuf out = {0};
    if (++n == 1 && !json) {
      strbuf_puts(&out, info->step ? "row,step,date," : "row,step,");
      put_names(&out, layout);
    }
    print_step(&out, layout, rows, n, json);
    fputs(out.data, stdout);
    fflush(stdout); /* whoever waits for a row's forecast gets it before the next row */
    free(out.data);
  }
  free(line);
  free(input);
  return status;
}

static Status forecast_stdin(OpenModel *open, const Series *series, const Command *command) {
  const SeriesInfo *info = series_info(series);
  char *problem = forecaster_stream_problem(&open->config.model);
  if (problem) {
    Status status = status_fail(CODE_USAGE, "--stream: this model cannot forecast row by row: %s", problem);
    free(problem);
    return status;
  }
  if (command_has(command, "input") || command_has(command, "future") || command_has(command, "out"))
    return status_fail(CODE_USAGE,
                       "--stream: reads stdin and writes stdout, expected neither --input, --future nor --out");
  TRY(open_load(open, &(PlanShape){.pass = plan_stream, .pass_shape = info}));
  omp_set_num_threads(1); /* one row is too little work to share: waking threads takes longer */
  SeriesStream *rows = series_stream_new(series, "stdin");
  Layout layout = layout_open(&open->config.model, info);
  Status status = stream_rows(open, info, rows, &layout, command_has(command, "json"));
  layout_close(&layout);
  series_stream_free(rows);
  return status;
}

static Status cmd_forecast(const Command *command) {
  OpenModel open;
  Series *series = NULL;
  TRY(command_check_output(command, "out"));
  TRY(open_find(&open, command->args[0], NULL, NULL, 0));
  resolve_warn(open.passed_over);
  Status status = forecast_series(&open, &series);
  if (status.code == CODE_OK)
    status = (command_has(command, "stream") ? forecast_stdin : forecast_file)(&open, series, command);
  series_free(series);
  open_close(&open);
  return status;
}

const CommandSpec command_forecast = {
    .name = "forecast",
    .summary = "the next rows of a series",
    .usage = "forecast MODEL [options]",
    .examples = {"aspis forecast runs/etth1_96 --input ETTh1.csv --out next.csv",
                 "aspis forecast runs/etth1_96 --input ETTh1.csv --json",
                 "aspis forecast runs/sales --input sales.csv --future prices.csv",
                 "tail -f sensor.csv | aspis forecast runs/sensor --stream"},
    .options =
        (const OptionSpec[]){
            {"input", "FILE", "CSV with the columns of the training data; its last rows are read", false},
            {"future", "FILE", "CSV with the known columns of the rows to forecast (model.known_future)", false},
            {"out", "FILE", "write the forecast here (default: stdout)", false},
            {"stream", NULL, "read rows from stdin and forecast after each one, the state kept", false},
            OPTION_JSON,
            {0}},
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_forecast,
};
