/* model: defaults, validity and construction of a whole model (specification, sections 1, 2.3 and 6). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/aspis.h"

ModelConfig model_config_default(void) {
  ModelConfig c = {.task = TASK_LM,
                   .d_model = 384,
                   .n_layer = 6,
                   .vocab_size = 256,
                   .pad_vocab_size_multiple = 8,
                   .tie_embeddings = true,
                   .residual_in_fp32 = true,
                   .ssm_cfg = mixer_config_default(LAYER_MAMBA3),
                   .attn_cfg = attn_config_default(),
                   .input_dim = 1,
                   .output_dim = 1,
                   .horizon = 1,
                   .context = 96,
                   .patch_len = 1,
                   .stride = 1,
                   .huber_delta = 1,
                   .quantiles = {0.1, 0.5, 0.9},
                   .n_quantiles = 3};
  c.ssm_cfg.d_model = c.d_model;
  c.ssm_cfg.d_state = 64;
  return c;
}

static bool layer_is_attention(const ModelConfig *c, int layer) {
  for (int i = 0; i < c->n_attn_layers; i++)
    if (c->attn_layer_idx[i] == layer) return true;
  return false;
}

/* The first size that is too small for the task. */
static char *size_problem(const ModelConfig *c) {
  const struct {
    const char *key;
    int value, least;
    bool used;
  } sizes[] = {{"d_model", c->d_model, 1, true},
               {"n_layer", c->n_layer, 1, true},
               {"d_intermediate", c->d_intermediate, 0, true},
               {"vocab_size", c->vocab_size, 1, c->task == TASK_LM},
               {"pad_vocab_size_multiple", c->pad_vocab_size_multiple, 1, c->task == TASK_LM},
               {"input_dim", c->input_dim, 1, c->task == TASK_FORECAST},
               {"output_dim", c->output_dim, 1, c->task == TASK_FORECAST},
               {"horizon", c->horizon, 1, c->task == TASK_FORECAST},
               {"context", c->context, 1, c->task == TASK_FORECAST},
               {"patch_len", c->patch_len, 1, c->task == TASK_FORECAST},
               {"stride", c->stride, 1, c->task == TASK_FORECAST}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i].used && sizes[i].value < sizes[i].least)
      return base_format("%s: found %d, expected at least %d", sizes[i].key, sizes[i].value, sizes[i].least);
  return NULL;
}

/* What the options of a forecaster ask of each other. */
static char *forecaster_problem(const ModelConfig *c) {
  const int n_values = c->value_dim ? c->value_dim : c->input_dim;
  if (n_values > c->input_dim) return base_format("value_dim: found %d of %d inputs", n_values, c->input_dim);
  const bool continues = c->revin != WINDOW_NONE || c->cycle > 0 || c->linear || c->channel_independent;
  if (continues && c->target_first + c->output_dim > n_values)
    return base_format("output_dim: found %d from column %d on, expected some of the %d columns of the series (revin, "
                       "cycle, linear and channel_independent continue columns)",
                       c->output_dim, c->target_first, n_values);
  if (c->revert && c->revin == WINDOW_NONE)
    return base_strdup("revert: found true, expected false: without revin a window is not shifted");
  if (c->patch_len > c->context)
    return base_format("patch_len: found %d, expected at most context = %d", c->patch_len, c->context);
  if (c->stride > c->patch_len)
    return base_format("stride: found %d, expected at most patch_len = %d: rows between patches would go unread",
                       c->stride, c->patch_len);
  if (c->known_future && n_values == c->input_dim)
    return base_strdup("known_future: found no known column, expected some (data.known_columns, data.calendar)");
  if (c->head == HEAD_ROWS && (!c->known_future || c->stride != c->patch_len || c->horizon % c->patch_len != 0))
    return base_format(
        "head: found rows with known_future: %s, patch_len: %d and stride: %d, expected known_future, and a "
        "stride of patch_len that divides horizon = %d: the last tokens are the rows to forecast",
        c->known_future ? "true" : "false", c->patch_len, c->stride, c->horizon);
  if (!(c->dropout >= 0 && c->dropout < 1)) return base_format("dropout: found %g, expected 0 to below 1", c->dropout);
  if (c->loss == FORECAST_HUBER && !(c->huber_delta > 0 && isfinite(c->huber_delta)))
    return base_format("huber_delta: found %g, expected more than 0", c->huber_delta);
  if (c->loss != FORECAST_QUANTILE) return NULL;
  if (c->n_quantiles < 1 || c->n_quantiles > MAX_QUANTILES)
    return base_format("quantiles: found %d, expected 1 to %d of them", c->n_quantiles, MAX_QUANTILES);
  for (int q = 0; q < c->n_quantiles; q++)
    if (!(c->quantiles[q] > (q ? c->quantiles[q - 1] : 0) && c->quantiles[q] < 1))
      return base_format("quantiles: found %g in place %d, expected rising numbers between 0 and 1", c->quantiles[q],
                         q + 1);
  return NULL;
}

char *model_config_problem(const ModelConfig *c) {
  char *problem = size_problem(c);
  if (problem) return problem;
  if (c->n_layer > MODEL_MAX_LAYERS)
    return base_format("n_layer: found %d, expected at most %d", c->n_layer, MODEL_MAX_LAYERS);
  if (c->ssm_cfg.d_model != c->d_model)
    return base_format("ssm_cfg.d_model: found %d, expected d_model = %d", c->ssm_cfg.d_model, c->d_model);
  for (int i = 0; i < c->n_attn_layers; i++)
    if (c->attn_layer_idx[i] < 0 || c->attn_layer_idx[i] >= c->n_layer)
      return base_format("attn_layer_idx: found %d, expected layers 0 to n_layer - 1 = %d", c->attn_layer_idx[i],
                         c->n_layer - 1);
  if (c->n_attn_layers > 0 && (problem = attn_config_problem(&c->attn_cfg, c->d_model))) return problem;
  if (c->task == TASK_FORECAST && (problem = forecaster_problem(c))) return problem;
  return mixer_config_problem(&c->ssm_cfg);
}

static void block_init(Block *block, ParamTable *params, const ModelConfig *c, int layer) {
  char at[64], mixer_at[64];
  snprintf(at, sizeof at, "backbone.layers.%d.", layer);
  snprintf(mixer_at, sizeof mixer_at, "backbone.layers.%d.mixer.", layer);
  block->norm = params_add_vector(params, at, "norm.weight", c->d_model, INIT_VALUE(1));

  Mixer *m = &block->mixer;
  m->kind = c->ablate == ABLATE_MIXER      ? LAYER_IDENTITY
            : layer_is_attention(c, layer) ? LAYER_ATTENTION
                                           : c->ssm_cfg.layer;
  switch (m->kind) {
  case LAYER_MAMBA2: mamba2_init(&m->mamba2, params, mixer_at, &c->ssm_cfg, c->n_layer); break;
  case LAYER_MAMBA3: mamba3_init(&m->mamba3, params, mixer_at, &c->ssm_cfg, c->n_layer); break;
  case LAYER_ATTENTION: attention_init(&m->attention, params, mixer_at, &c->attn_cfg, c->d_model, c->n_layer); break;
  case LAYER_IDENTITY: break;
  }

  const int64_t n_f = model_d_mlp(c);
  if (n_f == 0) return;
  block->norm2 = params_add_vector(params, at, "norm2.weight", c->d_model, INIT_VALUE(1));
  block->fc1 = params_add_linear(params, at, "mlp.fc1.weight", 2 * n_f, c->d_model, 1);
  block->fc2 = params_add_linear(params, at, "mlp.fc2.weight", c->d_model, n_f, sqrt(c->n_layer));
}

Model *model_new(const ModelConfig *config) {
  char *problem = model_config_problem(config);
  CHECK(!problem, "the caller validates: %s", problem);
  Model *model = base_zalloc(sizeof *model);
  model->config = *config;
  const ModelConfig *c = &model->config;
  ParamTable *params = &model->params;
  const int64_t n_v = model_padded_vocab(c);

  if (c->task == TASK_LM) {
    model->embedding = params_add(params, "backbone.embedding.weight", false, 2, (const int64_t[]){n_v, c->d_model},
                                  (Init){.kind = INIT_NORMAL, .a = 0.02}, true);
  } else {
    if (c->cycle > 0) {
      const int64_t dim[] = {c->cycle, c->value_dim ? c->value_dim : c->input_dim};
      model->cycle = params_add_real(params, "", "cycle", 2, dim, INIT_VALUE(0));
    }
    model->input_proj = params_add_linear(params, "", "input_proj.weight", c->d_model, forecaster_token_width(c), 1);
    model->input_proj_bias = params_add_vector(params, "", "input_proj.bias", c->d_model, INIT_VALUE(0));
  }
  model->blocks = base_zalloc((size_t)c->n_layer * sizeof *model->blocks);
  for (int i = 0; i < c->n_layer; i++) block_init(&model->blocks[i], params, c, i);
  model->norm_f = params_add_vector(params, "", "backbone.norm_f.weight", c->d_model, INIT_VALUE(1));
  if (c->task == TASK_LM) {
    model->lm_head =
        c->tie_embeddings ? model->embedding : params_add_linear(params, "", "lm_head.weight", n_v, c->d_model, 1);
  } else {
    const int64_t n_out = forecaster_head_out_width(c);
    model->output_proj = params_add_linear(params, "", "output_proj.weight", n_out, forecaster_head_width(c), 1);
    model->output_proj_bias = params_add_vector(params, "", "output_proj.bias", n_out, INIT_VALUE(0));
    if (c->revert)
      model->revert = params_add_real(params, "", "revert", 1, (const int64_t[]){c->horizon}, INIT_VALUE(1));
    if (c->linear) { /* begins as the window's mean */
      const int64_t n_in = forecaster_linear_width(c), dim[] = {forecaster_linear_out_width(c), n_in};
      model->linear = params_add(params, "linear.weight", true, 2, dim, INIT_VALUE(1.0 / (double)n_in), true);
    }
  }
  return model;
}

void model_free(Model *model) {
  if (!model) return;
  params_free(&model->params);
  free(model->blocks);
  free(model);
}

Tensor *model_ints(Device *device, const int32_t *values, int64_t n) {
  Tensor *tensor = tensor_new1(&device->step, I32, n);
  const Tensor from = tensor_over((void *)(uintptr_t)values, I32, 1, &n);
  device_fill(device, tensor, &from);
  return tensor;
}

Tensor *model_equal_seqlens(Tape *tape, int64_t n_seq, int64_t length) {
  CHECK(n_seq * length <= INT32_MAX, "%lld sequences of %lld tokens", (long long)n_seq, (long long)length);
  Tensor *cu_seqlens = tensor_new1(&tape->device->step, I32, n_seq + 1);
  if (!tape->device->dry) {
    const Tensor host = device_mirror(tape->device, cu_seqlens);
    for (int64_t i = 0; i <= n_seq; i++) ((int32_t *)host.data)[i] = (int32_t)(i * length);
  }
  device_push(tape->device, cu_seqlens);
  return cu_seqlens;
}
