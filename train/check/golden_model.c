/* golden_model: lm_* and forecaster_*.h5: whole models: forward, every gradient, greedy tokens, and a short AdamW run
 * that repeats the reference's step by step. */
#include "train/check/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "optim/optim.h"

/* ---- what both kinds share */

/* The optimiser of train/, or an error where it is not the one the reference has. */
static Status read_optimizer(GoldenCase *c, OptimConfig *optim) {
  *optim = (OptimConfig){.kind = OPTIM_ADAMW, .schedule = SCHEDULE_CONSTANT};
  const struct {
    const char *name;
    double *value;
  } numbers[] = {{"lr", &optim->lr},   {"beta1", &optim->beta1},    {"beta2", &optim->beta2},
                 {"eps", &optim->eps}, {"clip_norm", &optim->clip}, {"weight_decay", &optim->weight_decay}};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    TRY(h5_attr_double(c->file, "train", numbers[i].name, numbers[i].value));
  const struct { const char *name, *expected; } words[] = {{"optimizer", "AdamW"}, {"schedule", "constant"}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    char *found;
    TRY(h5_attr_string(c->file, "train", words[i].name, &found));
    Status status = STATUS_OK;
    if (strcmp(found, words[i].expected) != 0)
      status = status_fail(CODE_CHECKPOINT, "%s: train: %s is %s, expected %s", c->path, words[i].name, found,
                           words[i].expected);
    free(found);
    if (status.code != CODE_OK) return status;
  }
  return STATUS_OK;
}

/* Forward and backward of one batch: gradients are added, the mean loss returned. */
typedef double BatchGradient(GoldenCase *c, Model *model, const void *batches, int64_t step);

/* The training run: losses, gradient norms before clipping, and at the end the parameters. */
static Status check_training(GoldenCase *c, Model *model, BatchGradient *gradient, const void *batches,
                             int64_t n_steps) {
  OptimConfig optim;
  Tensor *losses, *norms;
  TRY(read_optimizer(c, &optim));
  TRY(golden_read(c, "train/loss", &losses));
  TRY(golden_read(c, "train/grad_norm", &norms));
  if (tensor_count(losses) != n_steps || tensor_count(norms) != n_steps)
    return status_fail(CODE_CHECKPOINT, "%s: train: %lld losses and %lld norms for %lld batches", c->path,
                       (long long)tensor_count(losses), (long long)tensor_count(norms), (long long)n_steps);
  for (int64_t step = 1; step <= n_steps; step++) {
    params_zero_grads(&model->params);
    const double loss = gradient(c, model, batches, step - 1);
    const Param *bad;
    const double norm = optim_grad_norm(&model->params, c->device, &bad);
    optim_update(&model->params, c->device, &optim, optim.lr, optim_clip_scale(norm, optim.clip), step);
    golden_record(c, GOLDEN_LOSS, golden_scalar_error(GOLDEN_LOSS, loss, tensor_get(losses, step - 1)), "train/loss",
                  step);
    golden_record(c, GOLDEN_NORM, golden_scalar_error(GOLDEN_NORM, norm, tensor_get(norms, step - 1)),
                  "train/grad_norm", step);
  }
  return golden_compare_params(c, &model->params, "train/param", GOLDEN_TRAINED);
}

/* Seeds the gradient of the mean of `loss` (T, 1) and plays the tape back; returns the mean, summed in order. */
static double backward_of_mean(Tape *tape, Tensor *loss) {
  const int64_t n = tensor_count(loss);
  Tensor *dloss = tape_grad(tape, loss), seeds = device_mirror(tape->device, dloss);
  const Tensor losses = device_pull(tape->device, loss);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    sum += tensor_get(&losses, i);
    tensor_set(&seeds, i, 1.0 / (double)n);
  }
  device_push(tape->device, dloss);
  tape_backward(tape);
  return sum / (double)n;
}

static Status compare_attr(GoldenCase *c, const char *attr, double got) {
  double want;
  TRY(h5_attr_double(c->file, "/", attr, &want));
  golden_record(c, GOLDEN_LOSS, golden_scalar_error(GOLDEN_LOSS, got, want), attr, 0);
  return STATUS_OK;
}

/* ---- language models */

typedef struct LmBatches {
  const Tensor *tokens; /* (steps, B, L + 1), or (B, L + 1) */
  Tensor *cu_seqlens;   /* on the device; NULL: the rows are the sequences */
} LmBatches;

/* Tokens and targets of batch `step`, in the step arena. */
typedef struct LmInput {
  Tensor *token, *target, *cu_seqlens;
} LmInput;

static LmInput lm_input(Tape *tape, const LmBatches *batches, int64_t step) {
  const Tensor *tokens = batches->tokens;
  const int64_t n_b = tokens->dim[tokens->n_dim - 2], n_l = tensor_last(tokens) - 1;
  Arena *arena = &tape->device->step;
  LmInput in = {.token = tensor_new1(arena, I32, n_b * n_l), .target = tensor_new1(arena, I32, n_b * n_l)};
  const int32_t *from = (const int32_t *)tokens->data + step * n_b * (n_l + 1);
  const Tensor token = device_mirror(tape->device, in.token), target = device_mirror(tape->device, in.target);
  for (int64_t b = 0; b < n_b; b++) {
    memcpy((int32_t *)token.data + b * n_l, from + b * (n_l + 1), (size_t)n_l * sizeof *from);
    memcpy((int32_t *)target.data + b * n_l, from + b * (n_l + 1) + 1, (size_t)n_l * sizeof *from);
  }
  device_push(tape->device, in.token);
  device_push(tape->device, in.target);
  in.cu_seqlens = batches->cu_seqlens ? batches->cu_seqlens : model_equal_seqlens(tape, n_b, n_l);
  return in;
}

static double lm_gradient(GoldenCase *c, Model *model, const void *batches, int64_t step) {
  const size_t mark = arena_mark(&c->device->step);
  Tape tape = tape_make(c->device, c->act, true);
  LmInput in = lm_input(&tape, batches, step);
  double loss = backward_of_mean(&tape, lm_nll(model, &tape, in.token, in.target, in.cu_seqlens, NULL, NULL));
  tape_reset(&tape, mark);
  return loss;
}

/* (..., L + 1) tokens with at least one pair, all of the vocabulary. */
static Status read_tokens(GoldenCase *c, const Model *model, const char *name, int n_dim, Tensor **tokens) {
  TRY(golden_read_ints(c, name, tokens));
  if ((*tokens)->n_dim != n_dim || tensor_count(*tokens) == 0)
    return status_fail(CODE_CHECKPOINT, "%s: %s is %s, expected %d dimensions and a token", c->path, name,
                       tensor_shape_text(*tokens), n_dim);
  const int32_t *token = (*tokens)->data;
  for (int64_t i = 0; i < tensor_count(*tokens); i++)
    if (token[i] < 0 || token[i] >= model->config.vocab_size)
      return status_fail(CODE_CHECKPOINT, "%s: %s: token %d is outside of the vocabulary of %d", c->path, name,
                         token[i], model->config.vocab_size);
  return STATUS_OK;
}

static Status lm_compare_forward(GoldenCase *c, Model *model, const LmBatches *batches) {
  const int n_layer = model->config.n_layer;
  const size_t mark = arena_mark(&c->device->step);
  Tape tape = tape_make(c->device, c->act, false);
  LmInput in = lm_input(&tape, batches, 0);
  Tensor *hidden[MODEL_MAX_LAYERS];
  TRY(golden_compare(c, GOLDEN_FORWARD, "logits",
                     lm_logits(model, &tape, in.token, in.cu_seqlens, NULL, NULL, hidden)));
  for (int i = 0; i < n_layer; i++) {
    char name[32];
    snprintf(name, sizeof name, "hidden/%d", i);
    TRY(golden_compare(c, GOLDEN_FORWARD, name, hidden[i]));
  }
  TRY(golden_compare(c, GOLDEN_FORWARD, "nll", lm_nll(model, &tape, in.token, in.target, in.cu_seqlens, NULL, NULL)));
  tape_reset(&tape, mark);
  return STATUS_OK;
}

/* The tokens of one row that generation made, against the file's. */
typedef struct GreedyRow {
  const int32_t *want;
  int made, wrong;
} GreedyRow;

static bool greedy_count(void *user, int64_t s, int32_t token) {
  GreedyRow *row = (GreedyRow *)user + s;
  row->wrong += token != row->want[row->made++];
  return true;
}

/* Tokens that are not the file's: all rows at once with their states kept, and each with its prefix computed anew. */
static int greedy_wrong(GoldenCase *c, Model *model, const Tensor *tokens, int64_t n_prompt) {
  const int64_t n_seq = tokens->dim[0], width = tokens->dim[1];
  const int32_t **prompt = base_alloc((size_t)n_seq * sizeof *prompt);
  int64_t *n = base_alloc((size_t)n_seq * sizeof *n);
  GreedyRow *row = base_zalloc((size_t)(2 * n_seq) * sizeof *row);
  for (int64_t b = 0; b < n_seq; b++) {
    prompt[b] = (const int32_t *)tokens->data + b * width, n[b] = n_prompt;
    row[b].want = row[n_seq + b].want = prompt[b] + n_prompt;
  }
  Generate g = {.prompt = prompt, .n_prompt = n, .n_new = width - n_prompt, .on_token = greedy_count, .user = row};
  const size_t mark = arena_mark(&c->device->weights);
  Decoder decoder = decoder_open(model, c->device, c->act, n_seq, width);
  generate_tokens(&decoder, &g);
  arena_rewind(&c->device->weights, mark);
  for (int64_t b = 0; b < n_seq; b++) {
    g.prompt = prompt + b, g.user = row + n_seq + b;
    generate_uncached(model, c->device, c->act, &g);
  }
  int wrong = 0;
  for (int64_t b = 0; b < 2 * n_seq; b++) wrong += row[b].wrong + (int)(width - n_prompt) - row[b].made;
  free(prompt), free(n), free(row);
  return wrong;
}

static Status lm_compare_greedy(GoldenCase *c, Model *model) {
  if (golden_skips(c, GOLDEN_TOKENS) || !h5_has(c->file, "greedy")) return STATUS_OK;
  Tensor *tokens;
  int64_t n_prompt;
  TRY(read_tokens(c, model, "greedy", 2, &tokens));
  TRY(h5_attr_int(c->file, "/", "greedy_prompt", &n_prompt));
  const int64_t width = tokens->dim[1];
  if (n_prompt < 1 || n_prompt > width)
    return status_fail(CODE_CHECKPOINT, "%s: greedy_prompt is %lld, expected 1 to %lld", c->path, (long long)n_prompt,
                       (long long)width);
  golden_record(c, GOLDEN_TOKENS, greedy_wrong(c, model, tokens, n_prompt), "greedy", 0);
  return STATUS_OK;
}

static Status check_lm_model(GoldenCase *c, Model *model) {
  LmBatches batches;
  Tensor *tokens, *cu_seqlens;
  params_alloc(&model->params, c->device, c->act, true, 0);
  TRY(weights_load(model, c->path));
  TRY(read_tokens(c, model, "tokens", 2, &tokens));
  if (tokens->dim[1] < 2)
    return status_fail(CODE_CHECKPOINT, "%s: tokens is %s, expected (B, L + 1)", c->path, tensor_shape_text(tokens));
  TRY(golden_read_seqlens(c, tokens->dim[0] * (tokens->dim[1] - 1), &cu_seqlens));
  batches = (LmBatches){tokens, cu_seqlens};

  TRY(lm_compare_forward(c, model, &batches));
  params_zero_grads(&model->params);
  TRY(compare_attr(c, "loss", lm_gradient(c, model, &batches, 0)));
  TRY(golden_compare_params(c, &model->params, "dparam", GOLDEN_GRADIENT));
  TRY(lm_compare_greedy(c, model));
  if (!h5_has(c->file, "train")) return STATUS_OK;
  TRY(read_tokens(c, model, "train/tokens", 3, &tokens));
  if (cu_seqlens) TRY(golden_read_seqlens(c, tokens->dim[1] * (tokens->dim[2] - 1), &cu_seqlens));
  batches = (LmBatches){tokens, cu_seqlens};
  return check_training(c, model, lm_gradient, &batches, tokens->dim[0]);
}

Status golden_check_lm(GoldenCase *c) {
  ModelConfig config;
  TRY(weights_read_config(c->path, &config));
  Model *model = model_new(&config);
  Status status = check_lm_model(c, model);
  model_free(model);
  return status;
}

/* ---- forecasters */

typedef struct SeriesBatches {
  const Tensor *series, *target; /* F64 (steps * B, L, C) and (steps * B, horizon, C_out), the steps folded in */
  int64_t n_steps, n_b, n_l;
} SeriesBatches;

/* Series and targets under `at`, folded; n_dim 3 without steps, 4 with. */
static Status read_series(GoldenCase *c, const Model *model, const char *at, int n_dim, SeriesBatches *batches) {
  char series_name[64], target_name[64];
  snprintf(series_name, sizeof series_name, "%sseries", at);
  snprintf(target_name, sizeof target_name, "%starget", at);
  Tensor *series, *target;
  TRY(golden_read(c, series_name, &series));
  TRY(golden_read(c, target_name, &target));
  const ModelConfig *m = &model->config;
  const int64_t n_series =
      series->n_dim == n_dim && tensor_count(series) > 0 ? tensor_rows(series) / series->dim[n_dim - 2] : 0;
  if (n_series == 0 || tensor_last(series) != m->input_dim ||
      tensor_count(target) != n_series * m->horizon * m->output_dim)
    return status_fail(CODE_CHECKPOINT, "%s: %s is %s and %s is %s, expected (.., B, L, %d) and (.., B, %d, %d)",
                       c->path, series_name, tensor_shape_text(series), target_name, tensor_shape_text(target),
                       m->input_dim, m->horizon, m->output_dim);
  *batches = (SeriesBatches){.series = series,
                             .target = target,
                             .n_steps = n_dim == 4 ? series->dim[0] : 1,
                             .n_b = series->dim[n_dim - 3],
                             .n_l = series->dim[n_dim - 2]};
  return STATUS_OK;
}

/* Batch `step` of a folded F64 tensor as (n_rows, n_cols) real. */
static Tensor *series_batch(Tape *tape, const Tensor *all, int64_t step, int64_t n_rows, int64_t n_cols) {
  Tensor *batch = tape_tensor(tape, tape_real(tape), n_rows, n_cols);
  Tensor part = tensor_over((double *)all->data + step * n_rows * n_cols, F64, 2, batch->dim);
  device_fill(tape->device, batch, &part);
  return batch;
}

static Tensor *forecaster_batch(const SeriesBatches *in, Model *model, Tape *tape, int64_t step, Tensor **target) {
  const ModelConfig *m = &model->config;
  Tensor *series = series_batch(tape, in->series, step, in->n_b * in->n_l, m->input_dim);
  *target = series_batch(tape, in->target, step, in->n_b, (int64_t)m->horizon * m->output_dim);
  return forecaster_predict(model, tape, &(Windows){.n_seq = in->n_b, .length = in->n_l, .series = series});
}

static double forecaster_gradient(GoldenCase *c, Model *model, const void *batches, int64_t step) {
  const size_t mark = arena_mark(&c->device->step);
  Tape tape = tape_make(c->device, c->act, true);
  Tensor *target, *prediction = forecaster_batch(batches, model, &tape, step, &target);
  double loss = backward_of_mean(&tape, op_point_loss(&tape, LOSS_MSE, 0, prediction, target));
  tape_reset(&tape, mark);
  return loss;
}

static Status check_forecaster_model(GoldenCase *c, Model *model) {
  SeriesBatches batches;
  params_alloc(&model->params, c->device, c->act, true, 0);
  TRY(golden_load_params(c, &model->params, "param"));
  TRY(read_series(c, model, "", 3, &batches));

  const size_t mark = arena_mark(&c->device->step);
  Tape tape = tape_make(c->device, c->act, false);
  Tensor *target;
  TRY(golden_compare(c, GOLDEN_FORWARD, "prediction", forecaster_batch(&batches, model, &tape, 0, &target)));
  tape_reset(&tape, mark);
  params_zero_grads(&model->params);
  TRY(compare_attr(c, "mse", forecaster_gradient(c, model, &batches, 0)));
  TRY(golden_compare_params(c, &model->params, "dparam", GOLDEN_GRADIENT));
  if (!h5_has(c->file, "train")) return STATUS_OK;
  TRY(read_series(c, model, "train/", 4, &batches));
  return check_training(c, model, forecaster_gradient, &batches, batches.n_steps);
}

Status golden_check_forecaster(GoldenCase *c) {
  char *text;
  TRY(h5_attr_string(c->file, "/", "config", &text));
  ModelConfig config;
  Status status = forecaster_config_from_json(text, c->path, &config);
  free(text);
  if (status.code != CODE_OK) return status;
  if (config.cycle > 0 || config.loss != FORECAST_MSE)
    return status_fail(CODE_CHECKPOINT, "%s: config: found %s, expected one without a cycle, trained by mse", c->path,
                       config.cycle > 0 ? "a cycle" : "another loss");
  Model *model = model_new(&config);
  status = check_forecaster_model(c, model);
  model_free(model);
  return status;
}
