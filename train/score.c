/* score: see score.h. */
#include "train/score.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/batch.h"
#include "train/state_file.h"

typedef struct Tokens {
  int64_t n_seq, length;
  int32_t *token;
} Tokens;

static Status read_tokens(const char *path, int vocab_size, Tokens *tokens) {
  H5File *file;
  TRY(h5_open_read(path, CODE_DATA, &file));
  H5Shape shape;
  Status status = h5_shape(file, "tokens", &shape);
  if (status.code == CODE_OK && (shape.n_dim != 2 || shape.count == 0))
    status = status_fail(CODE_DATA, "%s: tokens: found %d dimensions and %lld elements, expected (B, T) integers", path,
                         shape.n_dim, (long long)shape.count);
  if (status.code == CODE_OK) {
    *tokens = (Tokens){shape.dim[0], shape.dim[1], base_alloc((size_t)shape.count * sizeof(int32_t))};
    status = h5_read_i32(file, "tokens", tokens->token, shape.count);
  }
  for (int64_t i = 0; status.code == CODE_OK && i < shape.count; i++)
    if (tokens->token[i] < 0 || tokens->token[i] >= vocab_size)
      status =
          status_fail(CODE_DATA, "%s: tokens[%lld, %lld]: found %d, expected 0 to %d", path,
                      (long long)(i / shape.dim[1]), (long long)(i % shape.dim[1]), tokens->token[i], vocab_size - 1);
  h5_close(file);
  return status;
}

/* Everything of one sequence lies in the step arena; *start is asked for by not being NULL, and so is *end, for `room`
 * tokens. */
static Tensor *forward(Model *model, Tape *tape, const Batch *batch, const ModelState *start, ModelState *end,
                       int64_t room, Tensor **hidden) {
  if (end) *end = model_state_out(model, tape, 1, room);
  Tensor *token = batch_tensor(batch, batch->token, tape);
  Tensor *cu_seqlens = model_equal_seqlens(tape, batch->n_seq, batch->length);
  return lm_logits(model, tape, token, cu_seqlens, start, end, hidden);
}

void score_pass(Model *model, Device *device, Dtype act, const void *shape) {
  const ScorePass *pass = shape;
  size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, act, false);
  ModelState start = {0}, end;
  if (pass->state_in) start = model_start_state(model, device, &device->step, tape_real(&tape), 1, pass->past);
  Batch batch = {.n_seq = 1, .length = pass->length};
  forward(model, &tape, &batch, pass->state_in ? &start : NULL, pass->state_out ? &end : NULL,
          pass->past + pass->length, NULL);
  tape_reset(&tape, mark);
}

/* nll[t] of token t+1, from row t of the logits; padded rows take no part. */
static void row_nll(const float *logits, int64_t width, int vocab_size, const Batch *batch, float *nll) {
  for (int64_t t = 0; t + 1 < batch->length; t++) {
    const float *row = logits + t * width;
    double largest = row[0], total = 0;
    for (int v = 1; v < vocab_size; v++) largest = fmax(largest, row[v]);
    for (int v = 0; v < vocab_size; v++) total += exp(row[v] - largest);
    nll[t] = (float)(largest + log(total) - row[batch->token[t + 1]]);
  }
}

enum { HIDDEN_NAME = 24 };
static const char *hidden_name(char name[HIDDEN_NAME], int layer) {
  snprintf(name, HIDDEN_NAME, "hidden/%d", layer);
  return name;
}

typedef struct Scoring {
  OpenModel *open;
  const StateBatch *from; /* NULL: from zero */
  H5File *out, *states;   /* states NULL: not wanted */
  int64_t past;           /* tokens of the longest state in `from`, where they are counted */
  float *nll;             /* of one sequence */
  Tensor **hidden;        /* (n_layer) of one sequence, or NULL */
  double sum;
} Scoring;

static Status score_sequence(Scoring *scoring, const Batch *batch, int64_t s) {
  Device *device = &scoring->open->device;
  Model *model = scoring->open->model;
  const int64_t width = model_padded_vocab(&model->config);
  size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, scoring->open->config.dtype, false);
  ModelState start = {0}, end;
  if (scoring->from) {
    start = model_start_state(model, device, &device->step, tape_real(&tape), 1, scoring->past);
    model_state_put(model, device, &start, 0, &scoring->from->state, s);
  }
  const int64_t room = scoring->past + batch->length;
  const Tensor logits = device_pull(device, forward(model, &tape, batch, scoring->from ? &start : NULL,
                                                    scoring->states ? &end : NULL, room, scoring->hidden));
  row_nll(logits.data, width, model->config.vocab_size, batch, scoring->nll);
  Status status = h5_write_rows(scoring->out, "logits", s, 1, logits.data);
  if (status.code == CODE_OK && batch->length > 1) status = h5_write_rows(scoring->out, "nll", s, 1, scoring->nll);
  for (int i = 0; i < model->config.n_layer && scoring->hidden && status.code == CODE_OK; i++) {
    char name[HIDDEN_NAME];
    status = h5_write_rows(scoring->out, hidden_name(name, i), s, 1, device_pull(device, scoring->hidden[i]).data);
  }
  if (status.code == CODE_OK && scoring->states)
    status = state_file_write(scoring->states, model, device, s, &end, room);
  tape_reset(&tape, mark);
  for (int64_t t = 0; t + 1 < batch->length && status.code == CODE_OK; t++) {
    if (!isfinite(scoring->nll[t]))
      status =
          status_fail(CODE_NONFINITE, "%s: the likelihood of tokens[%lld, %lld] is not finite; nothing was written",
                      scoring->open->path, (long long)s, (long long)t + 1);
    scoring->sum += scoring->nll[t];
  }
  return status;
}

static Status make_out(const ScoreFiles *files, const Tokens *tokens, const ModelConfig *config, H5File **file) {
  const int64_t width = model_padded_vocab(config),
                stream = files->hidden ? (int64_t)config->n_layer * config->d_model : 0;
  TRY(h5_create(files->out, tokens->n_seq * tokens->length * (width + 1 + stream) * 4, false, CODE_DATA, file));
  Status status = h5_make(*file, "logits", H5_F32, 3, (const int64_t[]){tokens->n_seq, tokens->length, width});
  if (status.code == CODE_OK && tokens->length > 1)
    status = h5_make(*file, "nll", H5_F32, 2, (const int64_t[]){tokens->n_seq, tokens->length - 1});
  for (int i = 0; i < config->n_layer && files->hidden && status.code == CODE_OK; i++) {
    char name[HIDDEN_NAME];
    status = h5_make(*file, hidden_name(name, i), H5_F32, 3,
                     (const int64_t[]){tokens->n_seq, tokens->length, config->d_model});
  }
  if (status.code != CODE_OK) h5_close(*file), *file = NULL;
  return status;
}

static Status score_all(Scoring *scoring, const ScoreFiles *files, const Tokens *tokens) {
  Model *model = scoring->open->model;
  Status status = make_out(files, tokens, &model->config, &scoring->out);
  if (status.code == CODE_OK && files->state_out)
    status =
        state_file_create(files->state_out, model, tokens->n_seq, scoring->past + tokens->length, &scoring->states);
  for (int64_t s = 0; s < tokens->n_seq && status.code == CODE_OK; s++) {
    Batch batch = {.n_seq = 1, .length = tokens->length, .token = tokens->token + s * tokens->length};
    status = score_sequence(scoring, &batch, s);
  }
  if (status.code != CODE_OK) {
    h5_close(scoring->out), h5_close(scoring->states);
    return status;
  }
  /* The states last: they may replace the ones started from. */
  TRY_OR(h5_commit(scoring->out), h5_close(scoring->states));
  return scoring->states ? h5_commit(scoring->states) : STATUS_OK;
}

/* The states to start from, read before the device is opened: how long they are decides what is to be planned for. */
static Status read_states(const OpenModel *open, const char *path, int64_t n_seq, StateBatch *from) {
  if (!path) return STATUS_OK;
  Model *shape = model_new(&open->config.model);
  Status status = state_file_read(path, shape, n_seq, from);
  model_free(shape);
  return status;
}

static Status score_tokens(OpenModel *open, const ScoreFiles *files, const Tokens *tokens, const StateBatch *from,
                           double *nll) {
  ScorePass pass = {tokens->length, state_batch_longest(from), files->state_in != NULL, files->state_out != NULL};
  TRY(open_load(open, &(PlanShape){.pass = score_pass, .pass_shape = &pass}));
  Scoring scoring = {.open = open,
                     .from = files->state_in ? from : NULL,
                     .past = pass.past,
                     .nll = base_alloc((size_t)tokens->length * sizeof(float))};
  if (files->hidden) scoring.hidden = base_alloc((size_t)open->config.model.n_layer * sizeof *scoring.hidden);
  Status status = score_all(&scoring, files, tokens);
  free(scoring.nll), free(scoring.hidden);
  const int64_t n_nll = tokens->n_seq * (tokens->length - 1);
  *nll = n_nll > 0 ? scoring.sum / (double)n_nll : NAN;
  return status;
}

Status score_files(OpenModel *open, const ScoreFiles *files, ScoreSummary *summary) {
  const ModelConfig *config = &open->config.model;
  Tokens tokens = {0};
  StateBatch from = {0};
  *summary = (ScoreSummary){.nll = NAN};
  Status status = read_tokens(files->tokens, config->vocab_size, &tokens);
  if (status.code == CODE_OK) status = read_states(open, files->state_in, tokens.n_seq, &from);
  if (status.code == CODE_OK) status = score_tokens(open, files, &tokens, &from, &summary->nll);
  state_batch_free(&from);
  summary->n_seq = tokens.n_seq, summary->length = tokens.length;
  free(tokens.token);
  return status;
}
