/* forecast_print: a ForecastScore as JSON and as a table (forecast_score.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/forecast/forecast_score.h"

const char *const forecaster_prefix[N_FORECASTERS] = {"", "naive_", "seasonal_", "mean_", "linear_"};

/* Means over some steps and columns: those of step h (or all: -1) and of column j (or all). */
typedef struct Means {
  double mse, mae;                    /* scaled */
  double mse_units, mae_units, smape; /* in the data's units */
  double mase;                        /* NaN where no column has a scale */
} Means;

static Means means_over(const ForecastScore *score, const Errors *of, const SeriesInfo *info, int step, int column) {
  Means m = {0};
  int64_t n = 0;
  double mase = 0;
  int n_mase = 0;
  for (int j = 0; j < score->n_out; j++) {
    if (column >= 0 && j != column) continue;
    const double std = info->std[info->output_input[j]];
    double absolutes = 0;
    int64_t n_column = 0;
    for (int h = 0; h < score->horizon; h++) {
      if (step >= 0 && h != step) continue;
      const int at = h * score->n_out + j;
      m.mse += of->at[at].squares, m.mse_units += std * std * of->at[at].squares;
      m.mae_units += std * of->at[at].absolutes, m.smape += of->smape[at];
      absolutes += of->at[at].absolutes, n_column += score->n[at];
    }
    m.mae += absolutes, n += n_column;
    if (score->scale[j] > 0 && n_column > 0) mase += absolutes / (double)n_column / score->scale[j], n_mase++;
  }
  const double d = (double)n;
  m.mse /= d, m.mae /= d, m.mse_units /= d, m.mae_units /= d, m.smape /= d;
  m.mase = n_mase ? mase / n_mase : NAN;
  return m;
}

static void put(StrBuf *out, const char *prefix, const char *name, double value) {
  strbuf_printf(out, ", \"%s%s\": %s", prefix, name, isfinite(value) ? format_double(value).text : "null");
}

static void put_array(StrBuf *out, const char *prefix, const char *name, const double *values, int n) {
  strbuf_printf(out, ", \"%s%s\": [", prefix, name);
  for (int i = 0; i < n; i++)
    strbuf_printf(out, "%s%s", i ? ", " : "", isfinite(values[i]) ? format_double(values[i]).text : "null");
  strbuf_puts(out, "]");
}

/* A name as a JSON string. */
static void put_name(StrBuf *out, const char *name) {
  strbuf_puts(out, "\"");
  for (; *name; name++) {
    if (*name == '"' || *name == '\\') strbuf_printf(out, "\\%c", *name);
    else if ((unsigned char)*name < ' ') strbuf_printf(out, "\\u%04x", (unsigned)*name);
    else strbuf_add(out, name, 1);
  }
  strbuf_puts(out, "\"");
}

/* The arrays of every forecaster over n steps or n columns. */
static void put_arrays(StrBuf *out, const ForecastScore *score, const SeriesInfo *info, int n, bool by_step) {
  double *values = base_alloc((size_t)(4 * n) * sizeof *values);
  for (int f = 0; f < N_FORECASTERS; f++) {
    if (!score->of[f].used) continue;
    for (int i = 0; i < n; i++) {
      const Means m = means_over(score, &score->of[f], info, by_step ? i : -1, by_step ? -1 : i);
      values[i] = m.mse, values[n + i] = m.mae, values[2 * n + i] = sqrt(m.mse_units), values[3 * n + i] = m.mae_units;
    }
    put_array(out, forecaster_prefix[f], "mse", values, n);
    put_array(out, forecaster_prefix[f], "mae", values + n, n);
    if (by_step) continue; /* columns may have different units */
    put_array(out, forecaster_prefix[f], "rmse_units", values + 2 * n, n);
    put_array(out, forecaster_prefix[f], "mae_units", values + 3 * n, n);
  }
  free(values);
}

void forecast_score_json(const ForecastScore *score, const ModelConfig *config, const SeriesInfo *info, StrBuf *out) {
  strbuf_printf(out, "{\"windows\": %lld, \"season\": %lld", (long long)score->n_windows, (long long)score->season);
  for (int f = 0; f < N_FORECASTERS; f++) {
    const Errors *of = &score->of[f];
    if (!of->used) continue;
    const Means m = means_over(score, of, info, -1, -1);
    put(out, forecaster_prefix[f], "mse", of->all.squares / (double)score->n_values);
    put(out, forecaster_prefix[f], "mae", of->all.absolutes / (double)score->n_values);
    put(out, forecaster_prefix[f], "mse_units", m.mse_units);
    put(out, forecaster_prefix[f], "rmse_units", sqrt(m.mse_units));
    put(out, forecaster_prefix[f], "mae_units", m.mae_units);
    put(out, forecaster_prefix[f], "smape", m.smape);
    if (!isnan(m.mase)) put(out, forecaster_prefix[f], "mase", m.mase);
  }
  put(out, "", "loss", score->loss);
  if (config->loss == FORECAST_QUANTILE) {
    double covered[MAX_QUANTILES];
    for (int q = 0; q < score->n_quantiles; q++) covered[q] = (double)score->below[q] / (double)score->n_values;
    put_array(out, "", "quantiles", config->quantiles, score->n_quantiles);
    put_array(out, "", "covered", covered, score->n_quantiles);
  }
  if (score->of[BY_LINEAR].used) put(out, "linear_", "ridge", score->linear.ridge);
  strbuf_printf(out, ", \"drop_last\": {\"batch\": %d, \"windows\": %lld", DROP_LAST_BATCH,
                (long long)score->n_kept_windows);
  for (int f = 0; f < N_FORECASTERS && score->n_kept_windows > 0; f++) {
    if (!score->of[f].used) continue;
    put(out, forecaster_prefix[f], "mse", score->of[f].kept.squares / (double)score->n_kept_values);
    put(out, forecaster_prefix[f], "mae", score->of[f].kept.absolutes / (double)score->n_kept_values);
  }
  strbuf_printf(out, "}, \"per_step\": {\"steps\": %d", score->horizon);
  put_arrays(out, score, info, score->horizon, true);
  strbuf_puts(out, "}, \"per_column\": {\"names\": [");
  for (int j = 0; j < score->n_out; j++) {
    if (j) strbuf_puts(out, ", ");
    put_name(out, info->output_names[j]);
  }
  strbuf_puts(out, "]");
  put_arrays(out, score, info, score->n_out, false);
  strbuf_puts(out, "}}\n");
}

/* A number of the table, or a dash. */
static void cell(StrBuf *out, double value) {
  if (isfinite(value)) strbuf_printf(out, " %10.4f", value);
  else strbuf_printf(out, " %10s", "-");
}

/* A row for the model alone: step or column, its figures, the MSE of the last row. */
static void model_row(const ForecastScore *score, const SeriesInfo *info, int step, int column, StrBuf *out) {
  const Means m = means_over(score, &score->of[BY_MODEL], info, step, column);
  const Means naive = means_over(score, &score->of[BY_NAIVE], info, step, column);
  const double values[] = {m.mse, m.mae, sqrt(m.mse_units), m.mae_units, m.smape, m.mase};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) cell(out, values[i]);
  strbuf_puts(out, "  ");
  cell(out, naive.mse);
  strbuf_puts(out, "\n");
}

static void model_head(StrBuf *out, const char *title) {
  strbuf_printf(out, "\n%-22s %10s %10s %10s %10s %10s %10s   %s\n", title, "MSE", "MAE", "RMSE units", "MAE units",
                "sMAPE %", "MASE", "last row: MSE");
}

/* Of many steps, some from the first to the last; --json has all. */
static void table_by_step(const ForecastScore *score, const SeriesInfo *info, StrBuf *out) {
  enum { STEPS_SHOWN = 8 };
  const int last = score->horizon - 1, n = last < STEPS_SHOWN ? last + 1 : STEPS_SHOWN;
  if (n == 1) return;
  model_head(out, "model, by step ahead");
  for (int i = 0; i < n; i++) {
    const int step = i * last / (n - 1);
    strbuf_printf(out, "%-22d", step + 1);
    model_row(score, info, step, -1, out);
  }
}

static void table_by_column(const ForecastScore *score, const SeriesInfo *info, StrBuf *out) {
  model_head(out, "model, by column");
  for (int j = 0; j < info->n_output; j++) {
    strbuf_printf(out, "%-22.22s", info->output_names[j]);
    model_row(score, info, -1, j, out);
  }
}

void forecast_score_table(const ForecastScore *score, const SeriesInfo *info, StrBuf *out) {
  char linear[48] = "linear", seasonal[48];
  if (score->linear.w)
    snprintf(linear, sizeof linear, "linear, ridge %g%s", score->linear.ridge, score->linear.from_last ? "*" : "");
  snprintf(seasonal, sizeof seasonal, "season of %lld", (long long)score->season);
  const char *const names[N_FORECASTERS] = {"model", "last row", seasonal, "window mean", linear};
  strbuf_printf(out, "%lld windows of %d rows, forecasting %d rows of %d column%s\n\n", (long long)score->n_windows,
                info->context, info->horizon, info->n_output, info->n_output > 1 ? "s" : "");
  strbuf_printf(out, "%-22s %10s %10s %10s %10s %10s %10s   %s\n", "", "MSE", "MAE", "RMSE units", "MAE units",
                "sMAPE %", "MASE", "drop_last 32: MSE, MAE");
  for (int f = 0; f < N_FORECASTERS; f++) {
    const Errors *of = &score->of[f];
    if (!of->used) continue;
    const Means m = means_over(score, of, info, -1, -1);
    strbuf_printf(out, "%-22s", names[f]);
    const double values[] = {m.mse, m.mae, sqrt(m.mse_units), m.mae_units, m.smape, m.mase};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) cell(out, values[i]);
    strbuf_puts(out, "  ");
    cell(out, of->kept.squares / (double)score->n_kept_values);
    cell(out, of->kept.absolutes / (double)score->n_kept_values);
    strbuf_puts(out, "\n");
  }
  if (score->linear.from_last) strbuf_puts(out, "* on differences from the last row\n");
  if (score->without_linear) strbuf_printf(out, "no linear model and no MASE: %s\n", score->without_linear);
  table_by_step(score, info, out);
  if (info->n_output > 1) table_by_column(score, info, out);
}
