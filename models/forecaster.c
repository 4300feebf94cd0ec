/* forecaster: from a window of a series to the rows after it (specification, section 1, and today's options).
 *
 *   window -> minus mean, over std, minus cycle -> tokens -> input_proj -> backbone -> head -> output_proj
 *          -> plus cycle, times std, plus mean
 * With all options off this is the canonical form: a token is a row, the head reads the last position. The options:
 *   revin, cycle         what is taken off the window and put back on the forecast (WindowNorm in tensor/kernels.h)
 *   revert               of the mean (or last row) taken off, each row of the forecast gets a learned part back, all at first
 *   linear               output = output_proj(head) + linear(window), the window as it is after that
 *   channel_independent  each output column is a series of its own, beside the known columns, under shared weights
 *   patch_len, stride    a token is patch_len rows, one every stride rows; the last ends at the window's end, and the first
 *                        reaches before its start, where the first row is repeated (Nie et al. 2023)
 *   bidirectional        the same backbone also reads the tokens backwards; the head has both outputs side by side
 *   head: flatten        output_proj reads all positions, not the last
 *   known_future         the window goes on over the rows to forecast: known columns as they are, the others 0
 *   head: rows           output_proj reads each of the tokens that are the rows to forecast, and makes those rows of it
 *   quantiles            output_proj makes several forecasts of a value, the quantiles fastest
 *   dropout              on the embedded tokens, on each layer's update and before output_proj */
#include <math.h>

#include "models/aspis.h"

#define VARIANCE_EPS 1e-5

static int n_values(const ModelConfig *c) { return c->value_dim ? c->value_dim : c->input_dim; }
static int n_directions(const ModelConfig *c) { return c->bidirectional ? 2 : 1; }
/* Sequences that the backbone sees of one window, in one direction. */
static int n_series(const ModelConfig *c) { return c->channel_independent ? c->output_dim : 1; }
/* Columns that one of them has. */
static int n_columns(const ModelConfig *c) {
  return c->channel_independent ? 1 + c->input_dim - n_values(c) : c->input_dim;
}
static int64_t n_tokens(const ModelConfig *c, int64_t length) { return ceil_div(length - c->patch_len, c->stride) + 1; }
static int64_t n_future(const ModelConfig *c) { return c->known_future ? c->horizon : 0; }
static bool tokens_are_rows(const ModelConfig *c) { return c->patch_len == 1 && c->stride == 1; }

int forecaster_n_quantiles(const ModelConfig *c) { return c->loss == FORECAST_QUANTILE ? c->n_quantiles : 1; }

int forecaster_point(const ModelConfig *c) {
  int point = 0;
  for (int q = 1; q < forecaster_n_quantiles(c); q++)
    if (fabs(c->quantiles[q] - 0.5) < fabs(c->quantiles[point] - 0.5)) point = q;
  return point;
}

int64_t forecaster_window_rows(const ModelConfig *c) { return c->context + n_future(c); }

int64_t forecaster_token_width(const ModelConfig *c) { return (int64_t)c->patch_len * n_columns(c); }

int64_t forecaster_head_width(const ModelConfig *c) {
  const int64_t positions = c->head == HEAD_FLATTEN ? n_tokens(c, forecaster_window_rows(c)) : 1;
  return positions * n_directions(c) * c->d_model;
}

/* Forecasts that a row of a series has. */
static int64_t row_width(const ModelConfig *c) { return (c->output_dim / n_series(c)) * forecaster_n_quantiles(c); }

int64_t forecaster_head_out_width(const ModelConfig *c) {
  return (c->head == HEAD_ROWS ? c->patch_len : c->horizon) * row_width(c);
}

int64_t forecaster_linear_width(const ModelConfig *c) {
  return (int64_t)c->context * n_columns(c) + n_future(c) * (c->input_dim - n_values(c));
}

int64_t forecaster_linear_out_width(const ModelConfig *c) { return c->horizon * row_width(c); }

/* An index for op_gather, to be filled and then pushed (device.h); NULL on a dry device, where it is not to be filled. */
static int32_t *index_new(Tape *tape, int64_t n, Tensor **index) {
  CHECK(n <= INT32_MAX, "%lld rows to gather", (long long)n);
  *index = tensor_new1(&tape->device->step, I32, n);
  return tape->device->dry ? NULL : device_mirror(tape->device, *index).data;
}

/* op_gather by an index that is filled. */
static Tensor *gather(Tape *tape, Tensor *x, Tensor *index, int64_t width, int64_t n_rows, int64_t n_cols) {
  device_push(tape->device, index);
  return op_gather(tape, x, index, width, n_rows, n_cols);
}

/* Of a row, where column f of series j lies. */
static int64_t place_of(const ModelConfig *c, int64_t row, int j, int f) {
  const int known = f - 1 + n_values(c);
  return row * c->input_dim + (!c->channel_independent ? f : f == 0 ? c->target_first + j : known);
}

/* (n_seq * L, input_dim) -> (n_seq * n_series * n_tok, patch_len * n_columns): the tokens of each series. */
static Tensor *patches_of(const ModelConfig *c, Tape *tape, Tensor *series, int64_t n_seq, int64_t length) {
  const int64_t n_tok = n_tokens(c, length), width = forecaster_token_width(c), n_rows = n_seq * n_series(c) * n_tok;
  const int64_t before = (n_tok - 1) * c->stride + c->patch_len - length;
  Tensor *index;
  int32_t *at = index_new(tape, n_rows * width, &index);
  for (int64_t s = 0; at && s < n_seq; s++)
    for (int j = 0; j < n_series(c); j++)
      for (int64_t i = 0; i < n_tok; i++)
        for (int64_t k = 0; k < c->patch_len; k++) {
          const int64_t row = s * length + max_i64(0, i * c->stride + k - before);
          for (int f = 0; f < n_columns(c); f++) *at++ = (int32_t)place_of(c, row, j, f);
        }
  return gather(tape, series, index, 1, n_rows, width);
}

/* (n_seq * L, input_dim) -> (n_seq * n_series, linear_width): a row for each series, what is not known left out. */
static Tensor *whole_windows(const ModelConfig *c, Tape *tape, Tensor *series, int64_t n_seq) {
  const int64_t length = forecaster_window_rows(c), width = forecaster_linear_width(c);
  const int n_own = n_columns(c) - (c->input_dim - n_values(c));
  Tensor *index;
  int32_t *at = index_new(tape, n_seq * n_series(c) * width, &index);
  for (int64_t s = 0; at && s < n_seq; s++)
    for (int j = 0; j < n_series(c); j++)
      for (int64_t t = 0; t < length; t++)
        for (int f = t < c->context ? 0 : n_own; f < n_columns(c); f++)
          *at++ = (int32_t)place_of(c, s * length + t, j, f);
  return gather(tape, series, index, 1, n_seq * n_series(c), width);
}

/* Each sequence, and after it the same one backwards. */
static Tensor *both_ways(Tape *tape, Tensor *h, int64_t n_sequences, int64_t n_tok) {
  Tensor *index;
  int32_t *at = index_new(tape, 2 * n_sequences * n_tok, &index);
  for (int64_t s = 0; at && s < n_sequences; s++) {
    for (int64_t i = 0; i < n_tok; i++) *at++ = (int32_t)(s * n_tok + i);
    for (int64_t i = n_tok - 1; i >= 0; i--) *at++ = (int32_t)(s * n_tok + i);
  }
  return gather(tape, h, index, h->dim[1], 2 * n_sequences * n_tok, h->dim[1]);
}

/* Of head `rows`: a row of head_width for each of the last n_ahead tokens, the way back's of the same token beside it. */
static Tensor *rows_ahead(const ModelConfig *c, Tape *tape, Tensor *y, int64_t n_sequences, int64_t n_tok,
                          int64_t n_ahead) {
  const int64_t n_dir = n_directions(c), d = c->d_model, n_rows = n_sequences * n_ahead;
  Tensor *index;
  int32_t *at = index_new(tape, n_rows * n_dir, &index);
  for (int64_t s = 0; at && s < n_sequences; s++)
    for (int64_t i = n_tok - n_ahead; i < n_tok; i++) {
      *at++ = (int32_t)(s * n_dir * n_tok + i);
      if (n_dir == 2) *at++ = (int32_t)((s * n_dir + 1) * n_tok + n_tok - 1 - i);
    }
  return gather(tape, y, index, d, n_rows, n_dir * d);
}

/* What output_proj reads of the backbone's output: rows of head_width, of each of n_sequences one or, of head `rows`, one for
 * each token ahead. */
static Tensor *head_input(const ModelConfig *c, Tape *tape, Tensor *y, int64_t n_sequences, int64_t n_tok) {
  if (c->head == HEAD_ROWS) return rows_ahead(c, tape, y, n_sequences, n_tok, c->horizon / c->patch_len);
  const int64_t n_dir = n_directions(c), n_read = c->head == HEAD_FLATTEN ? n_tok : 1, d = c->d_model;
  if (n_dir * n_read == 1) return tensor_every(&tape->device->step, y, n_tok - 1, n_tok, n_sequences);
  Tensor *index;
  int32_t *at = index_new(tape, n_sequences * n_dir * n_read, &index);
  for (int64_t s = 0; at && s < n_sequences * n_dir; s++)
    for (int64_t i = n_tok - n_read; i < n_tok; i++) *at++ = (int32_t)(s * n_tok + i);
  return gather(tape, y, index, d, n_sequences, n_dir * n_read * d);
}

/* The forecasts of one sequence, which head `rows` makes token by token, as one row. */
static Tensor *rows_joined(const ModelConfig *c, Tape *tape, Tensor *out, int64_t n_sequences) {
  if (c->head != HEAD_ROWS) return out;
  const int64_t n = out->dim[0];
  Tensor *index;
  int32_t *at = index_new(tape, n, &index);
  for (int64_t i = 0; at && i < n; i++) at[i] = (int32_t)i;
  return gather(tape, out, index, out->dim[1], n_sequences, n / n_sequences * out->dim[1]);
}

Tensor *forecaster_predict(Model *model, Tape *tape, const Windows *w) {
  const ModelConfig *c = &model->config;
  CHECK(c->task == TASK_FORECAST, "a language model has no series");
  CHECK(w->series->dim[0] == w->n_seq * w->length && w->series->dim[1] == c->input_dim,
        "series %s, expected %lld windows of %lld rows of %d", tensor_shape_text(w->series), (long long)w->n_seq,
        (long long)w->length, c->input_dim);
  CHECK(w->length == forecaster_window_rows(c) ||
            (c->head == HEAD_LAST && tokens_are_rows(c) && !c->linear && !c->known_future),
        "windows of %lld rows, expected %lld", (long long)w->length, (long long)forecaster_window_rows(c));
  const int64_t n_past = w->length - n_future(c);
  CHECK(!w->state_in || w->n_seq == 1, "a state is that of one window");
  const bool restored = c->revin != WINDOW_NONE || model->cycle || model->linear || c->channel_independent;
  WindowNorm norm = {.y = w->series};
  if (restored)
    norm = op_window_norm(tape, (WindowNorm){.statistic = c->revin,
                                             .eps = VARIANCE_EPS,
                                             .length = w->length,
                                             .n_past = n_past,
                                             .n_c = n_values(c),
                                             .x = w->series,
                                             .phase = w->phase,
                                             .cycle = model->cycle});
  if (tape->recording) tape_grad(tape, norm.y); /* made here, below the backbone's scopes: `linear` adds to it, too */

  const int64_t n_tok = n_tokens(c, w->length), n_sequences = w->n_seq * n_series(c);
  Tensor *tokens =
      tokens_are_rows(c) && !c->channel_independent ? norm.y : patches_of(c, tape, norm.y, w->n_seq, w->length);
  Tensor *h = op_linear(tape, tokens, model->input_proj, model->input_proj_bias, tape_real(tape));
  h = op_dropout(tape, h, c->dropout, DROPOUT_SITE_INPUT);
  if (c->bidirectional) h = both_ways(tape, h, n_sequences, n_tok);
  Tensor *cu_seqlens = model_equal_seqlens(tape, n_sequences * n_directions(c), n_tok);
  Tensor *y = backbone_forward(model, tape, h, cu_seqlens, w->state_in, w->state_out, NULL);
  Tensor *read = op_dropout(tape, head_input(c, tape, y, n_sequences, n_tok), c->dropout, DROPOUT_SITE_HEAD);
  Tensor *out = op_linear(tape, read, model->output_proj, model->output_proj_bias, tape_real(tape));
  out = rows_joined(c, tape, out, n_sequences);
  if (!restored) return out;
  Tensor *linear = NULL;
  if (model->linear)
    linear = op_linear(tape, whole_windows(c, tape, norm.y, w->n_seq), model->linear, NULL, tape_real(tape));
  return op_window_denorm(tape, (WindowDenorm){.length = n_past,
                                               .horizon = c->horizon,
                                               .n_out = c->output_dim,
                                               .n_q = forecaster_n_quantiles(c),
                                               .first = c->target_first,
                                               .row_per_series = c->channel_independent,
                                               .x = out,
                                               .linear = linear,
                                               .phase = w->phase,
                                               .cycle = model->cycle,
                                               .keep = model->revert,
                                               .mean = norm.mean,
                                               .std = norm.std});
}

char *forecaster_stream_problem(const ModelConfig *c) {
  const struct {
    bool in_the_way;
    const char *key, *why;
  } reasons[] = {
      {c->revin != WINDOW_NONE, "model.revin", "the statistics are of a whole window"},
      {!tokens_are_rows(c), "model.patch_len", "a token is more than one row"},
      {c->linear, "model.linear", "it maps a whole window"},
      {c->known_future, "model.known_future", "the rows to forecast have to be known"},
      {c->bidirectional, "model.bidirectional", "the window is read from its end, too"},
      {c->head == HEAD_FLATTEN, "model.head: flatten", "all positions of a window are read"},
      {c->n_attn_layers > 0, "model.attn_layer_idx", "attention looks back at every row"},
  };
  for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
    if (reasons[i].in_the_way) return base_format("%s: %s", reasons[i].key, reasons[i].why);
  return NULL;
}

ModelState forecaster_start_state(const Model *model, Device *device, Arena *arena, Dtype real) {
  return model_start_state(model, device, arena, real, n_series(&model->config), 0);
}

Tensor *forecaster_loss(Model *model, Tape *tape, Tensor *prediction, Tensor *target) {
  static const PointLossKind KINDS[] = {
      [FORECAST_MSE] = LOSS_MSE, [FORECAST_MAE] = LOSS_MAE, [FORECAST_HUBER] = LOSS_HUBER};
  const ModelConfig *c = &model->config;
  if (c->loss == FORECAST_QUANTILE) return op_quantile_loss(tape, c->n_quantiles, c->quantiles, prediction, target);
  return op_point_loss(tape, KINDS[c->loss], c->huber_delta, prediction, target);
}
