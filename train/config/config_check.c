/* config_check: see config_check.h. */
#include "train/config/config_check.h"

#include "train/config/mistakes.h"
#include "train/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Checker {
  const Config *config;
  ConfigReport *report;
  void *user;
} Checker;

#define WRONG(checker, key, ...)                                                                                       \
  do {                                                                                                                 \
    char *what_ = base_format(__VA_ARGS__);                                                                            \
    (checker)->report((checker)->user, key, what_);                                                                    \
    free(what_);                                                                                                       \
  } while (0)

static void check_names(const Checker *c) {
  const char *name = c->config->name;
  if (!*name || *name == '.' || strchr(name, '/') || strchr(name, '\n'))
    WRONG(c, "name", "found \"%s\", expected the name of a folder, without / and not beginning with a dot", name);
  if (!*c->config->out_dir) WRONG(c, "out_dir", "found \"\", expected a folder");
}

static void check_model(const Checker *c) {
  Config any = *c->config;
  config_fit_any(&any); /* what is known when the data is */
  const ModelConfig model = any.model;
  if (!model.residual_in_fp32)
    WRONG(c, "model.residual_in_fp32", "found false, which is not built in this version, expected true");
  for (int i = 0; i < model.n_attn_layers; i++)
    for (int j = 0; j < i; j++)
      if (model.attn_layer_idx[i] == model.attn_layer_idx[j])
        WRONG(c, "model.attn_layer_idx", "found layer %d twice, expected each once", model.attn_layer_idx[i]);
  char *problem = model_config_problem(&model);
  if (!problem) return;
  /* "ssm_cfg.headdim: found ..." */
  char *what = strstr(problem, ": "), *key = base_format("model.%.*s", what ? (int)(what - problem) : 0, problem);
  c->report(c->user, what ? key : "model", what ? what + 2 : problem);
  free(key);
  free(problem);
}

static void check_series(const Checker *c) {
  const DataConfig *data = &c->config->data;
  const SeriesConfig *series = &data->series;
  if (c->config->model.task != TASK_FORECAST)
    WRONG(c, "data.kind", "found series beside model.task: lm, expected text or synthetic (or model.task: forecast)");
  if (data->split_train + data->split_val + data->split_test > 1 + 1e-9)
    WRONG(c, "data.split.test", "found %.6g beside data.split.train = %.6g and val = %.6g, expected a sum of 1 at most",
          data->split_test, data->split_train, data->split_val);
  if (series->task ? data->n_paths > 0 : data->n_paths > 1)
    WRONG(c, "data.path", "found %d, expected one CSV or HDF5 dataset, or data.generate.task", data->n_paths);
  if (series->n_borders > 0 && series->n_borders != 3 &&
      (series->n_borders != 1 || strcmp(series->borders[0], "ett") != 0))
    WRONG(c, "data.borders", "found %d, expected ett, or three dates: validation starts, test starts, end",
          series->n_borders);
}

static bool has_documents(const DataConfig *data) { return data->kind == DATA_TEXT || data->kind == DATA_SHARDS; }

static void check_pack(const Checker *c) {
  const DataConfig *data = &c->config->data;
  if (data->pack && !has_documents(data))
    WRONG(c, "data.pack", "found true beside a data.kind without documents, expected data.kind: text or shards");
  if (!data->document_end) return;
  if (!*data->document_end)
    WRONG(c, "data.document_end", "found an empty text, expected what documents end with, or null");
  if (!data->pack)
    WRONG(c, "data.document_end", "found \"%s\" without data.pack, expected data.pack: true", data->document_end);
  if (data->kind == DATA_SHARDS)
    WRONG(c, "data.document_end",
          "found \"%s\" beside data.kind: shards, whose documents are those of aspis prepare --document-end",
          data->document_end);
}

static void check_special_tokens(const Checker *c) {
  const DataConfig *data = &c->config->data;
  if (data->special_tokens && data->kind == DATA_TEXT && !tokenizer_is_file(data->tokenizer))
    WRONG(c, "data.special_tokens", "found true beside data.tokenizer: %s, expected a tokenizer.json", data->tokenizer);
}

static void check_shards(const Checker *c) {
  const DataConfig *data = &c->config->data;
  if (data->n_shards > DATA_MAX_SHARDS)
    WRONG(c, "data.shards", "found %d, expected %d folders at most", data->n_shards, DATA_MAX_SHARDS);
  if (data->n_weights > 0 && data->n_weights != data->n_shards)
    WRONG(c, "data.weights", "found %d, expected one for each of the %d folders of data.shards", data->n_weights,
          data->n_shards);
}

static void check_tbptt(const Checker *c) {
  const DataConfig *data = &c->config->data;
  const int segment = data->tbptt_segment;
  if (segment == 0) return;
  if (!has_documents(data))
    WRONG(c, "data.tbptt.segment",
          "found %d beside a data.kind whose sequences stand alone, expected data.kind: text or shards", segment);
  if (data->seq_len % segment != 0)
    WRONG(c, "data.tbptt.segment", "found %d, expected a divisor of data.seq_len = %d", segment, data->seq_len);
}

static void check_data(const Checker *c) {
  const DataConfig *data = &c->config->data;
  check_pack(c);
  check_special_tokens(c);
  check_tbptt(c);
  check_shards(c);
  if (data->kind == DATA_TEXT || data->kind == DATA_SHARDS) {
    if (data->split_train + data->split_val > 1 + 1e-9)
      WRONG(c, "data.split.val", "found %.6g beside data.split.train = %.6g, expected a sum of 1 at most",
            data->split_val, data->split_train);
    return;
  }
  if (data->kind == DATA_SERIES) {
    check_series(c);
    return;
  }
  if (data->max_length > data->seq_len)
    WRONG(c, "data.max_length", "found %d, expected at most data.seq_len = %d", data->max_length, data->seq_len);
  if (data->min_length > data->max_length)
    WRONG(c, "data.min_length", "found %d, expected at most data.max_length = %d", data->min_length, data->max_length);
  bool between = data->start_max_length >= data->min_length && data->start_max_length <= data->max_length;
  if (data->curriculum_steps > 0 && !between)
    WRONG(c, "data.start_max_length", "found %d, expected data.min_length = %d to data.max_length = %d",
          data->start_max_length, data->min_length, data->max_length);
}

static void check_optim(const Checker *c) {
  const OptimConfig *optim = &c->config->optim;
  int64_t steps = c->config->train.steps;
  if (optim->schedule == SCHEDULE_WSD && optim->decay_steps == 0)
    WRONG(c, "optim.decay_steps", "found 0, expected the length of the final decay (optim.schedule is wsd)");
  if (!steps || c->config->train.epochs > 0) return;
  if (optim->warmup_steps > steps)
    WRONG(c, "optim.warmup_steps", "found %lld, expected at most train.steps = %lld", (long long)optim->warmup_steps,
          (long long)steps);
  else if (optim->schedule == SCHEDULE_WSD && optim->decay_steps > steps - optim->warmup_steps)
    WRONG(c, "optim.decay_steps", "found %lld, expected at most train.steps - optim.warmup_steps = %lld",
          (long long)optim->decay_steps, (long long)(steps - optim->warmup_steps));
}

static void check_batch(const Checker *c) {
  const TrainConfig *train = &c->config->train;
  int n_ranks = train->virtual_ranks, micro = train->micro_batch_size;
  if (n_ranks & (n_ranks - 1)) {
    WRONG(c, "train.virtual_ranks", "found %d, expected a power of two, or auto", n_ranks);
    return;
  }
  if (n_ranks && train->batch_size % n_ranks) {
    WRONG(c, "train.virtual_ranks", "found %d, expected a divisor of train.batch_size = %d", n_ranks,
          train->batch_size);
    return;
  }
  int part = n_ranks ? train->batch_size / n_ranks : train->batch_size;
  if (micro && part % micro)
    WRONG(c, "train.micro_batch_size", "found %d, expected a divisor of %s = %d", micro,
          n_ranks ? "train.batch_size / train.virtual_ranks" : "train.batch_size", part);
}

static void check_length(const Checker *c) {
  const TrainConfig *train = &c->config->train;
  if (train->steps > 0 && train->epochs > 0)
    WRONG(c, "train.epochs", "found %.15g beside train.steps = %lld, expected one of the two; set the other to 0",
          train->epochs, (long long)train->steps);
}

static void check_debug(const Checker *c) {
  const char *fault = c->config->debug.fault;
  if (!*fault) return;
  Fault known;
  if (!fault_parse(fault, &known)) WRONG(c, "debug.fault", "found \"%s\", expected %s", fault, fault_form);
  else if (!c->config->debug.allow)
    WRONG(c, "debug.fault", "found \"%s\", expected none unless debug.allow is true", fault);
}

void config_check(const Config *config, ConfigReport *report, void *user) {
  const Checker checker = {config, report, user};
  check_names(&checker);
  check_model(&checker);
  check_data(&checker);
  check_optim(&checker);
  check_batch(&checker);
  check_length(&checker);
  check_debug(&checker);
}

Status config_require_run(const Config *config, const char *where) {
  Mistakes mistakes = {0};
  if (config->data.kind == DATA_TEXT && !config->data.n_paths)
    mistakes_add(&mistakes, "%s: data.path: found nothing, expected files, folders or globs (or data.kind: synthetic)",
                 where);
  if (config->data.kind == DATA_SERIES && !config->data.n_paths && !config->data.series.task)
    mistakes_add(&mistakes, "%s: data.path: found nothing, expected one CSV or HDF5 dataset (or data.generate.task)",
                 where);
  if (config->data.kind == DATA_SHARDS && !config->data.n_shards)
    mistakes_add(&mistakes, "%s: data.shards: found nothing, expected folders made by aspis prepare", where);
  if (config->train.steps == 0 && !(config->train.epochs > 0))
    mistakes_add(&mistakes, "%s: train.steps: found 0, expected the number of steps (or train.epochs)", where);
  return mistakes_status(&mistakes, CODE_USAGE);
}
