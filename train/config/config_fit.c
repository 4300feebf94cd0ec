/* config_fit: what the data decides of a model (config.h, config_fit_data). */
#include <stdlib.h>

#include "train/config/config.h"

static Status fit_vocabulary(Config *config, const Dataset *dataset) {
  const int vocab_size = dataset_vocab_size(dataset);
  if (config->vocab_size_auto) config->model.vocab_size = vocab_size;
  if (config->model.vocab_size >= vocab_size) return STATUS_OK;
  return status_fail(CODE_USAGE, "model.vocab_size: found %d, expected at least the tokenizer's %d (or auto)",
                     config->model.vocab_size, vocab_size);
}

static Status fit_columns(const char *key, int *columns, int found) {
  if (*columns == 0) *columns = found;
  if (*columns == found) return STATUS_OK;
  return status_fail(CODE_USAGE, "%s: found %d, expected the data's %d columns (or auto)", key, *columns, found);
}

static Status fit_series(Config *config, const SeriesInfo *series) {
  ModelConfig *m = &config->model;
  TRY(fit_columns("model.input_dim", &m->input_dim, series->n_input));
  TRY(fit_columns("model.output_dim", &m->output_dim, series->n_output));
  m->value_dim = series->n_values == series->n_input ? 0 : series->n_values;
  m->target_first = series->output_input[0];
  for (int j = 1; j < series->n_output; j++)
    CHECK(series->output_input[j] == m->target_first + j, "output %d continues input %d", j, series->output_input[j]);
  char *problem = model_config_problem(m);
  if (!problem) return STATUS_OK;
  Status status = status_fail(CODE_USAGE, "model.%s", problem);
  free(problem);
  return status;
}

Status config_fit_data(Config *config, const Dataset *dataset) {
  const SeriesInfo *series = dataset_series(dataset);
  if ((config->model.task == TASK_FORECAST) != (series != NULL))
    return status_fail(CODE_USAGE, "model.task: found %s beside data.kind: %s, expected %s", series ? "lm" : "forecast",
                       series ? "series" : "text or synthetic", series ? "forecast" : "lm, or data.kind: series");
  return series ? fit_series(config, series) : fit_vocabulary(config, dataset);
}

void config_fit_samples(Config *config) {
  const ModelConfig *m = &config->model;
  SeriesConfig *series = &config->data.series;
  series->context = m->context, series->horizon = m->horizon, series->known_future = m->known_future;
  config->data.tbptt_rows = config->train.batch_size;
}

enum { ANY_VOCABULARY = 256, ANY_COLUMNS = 3 };

void config_fit_any(Config *config) {
  ModelConfig *m = &config->model;
  if (config->vocab_size_auto) m->vocab_size = ANY_VOCABULARY;
  const int n_known = config->data.series.n_known_columns + config->data.series.n_calendar;
  if (m->input_dim == 0) m->input_dim = n_known + (m->output_dim > ANY_COLUMNS ? m->output_dim : ANY_COLUMNS);
  if (n_known > 0 && m->input_dim > n_known) m->value_dim = m->input_dim - n_known;
  if (m->output_dim == 0) m->output_dim = m->value_dim ? m->value_dim : m->input_dim;
}
