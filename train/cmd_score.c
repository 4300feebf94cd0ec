/* aspis score MODEL --tokens FILE.h5 --out OUT.h5: logits and negative log-likelihoods of given tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/h5.h"
#include "train/command.h"
#include "train/format.h"
#include "train/gradient.h"
#include "train/open.h"

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

/* nll[t] of token t+1, from row t of the logits; padded rows take no part. */
static void row_nll(const float *logits, int64_t width, int vocab_size, const Tokens *tokens, int64_t s, float *nll) {
  for (int64_t t = 0; t + 1 < tokens->length; t++) {
    const float *row = logits + t * width;
    double largest = row[0], total = 0;
    for (int v = 1; v < vocab_size; v++) largest = fmax(largest, row[v]);
    for (int v = 0; v < vocab_size; v++) total += exp(row[v] - largest);
    nll[t] = (float)(largest + log(total) - row[tokens->token[s * tokens->length + t + 1]]);
  }
}

/* One sequence at a time: memory does not grow with the batch. */
static Status score_all(OpenModel *open, const Tokens *tokens, const char *path, double *mean) {
  const ModelConfig *config = &open->config.model;
  int64_t width = model_padded_vocab(config), n_nll = tokens->length - 1;
  H5File *file;
  TRY(h5_create(path, tokens->n_seq * tokens->length * (width + 1) * 4, false, CODE_DATA, &file));
  Status status = h5_make(file, "logits", H5_F32, 3, (const int64_t[]){tokens->n_seq, tokens->length, width});
  if (status.code == CODE_OK && n_nll > 0)
    status = h5_make(file, "nll", H5_F32, 2, (const int64_t[]){tokens->n_seq, n_nll});
  float *nll = base_alloc((size_t)max_i64(1, n_nll) * sizeof(float));
  double sum = 0;
  for (int64_t s = 0; s < tokens->n_seq && status.code == CODE_OK; s++) {
    size_t mark = arena_mark(&open->device.step);
    Tape tape = tape_make(&open->device, open->config.dtype, false);
    Batch batch = {.n_seq = 1, .length = tokens->length, .token = tokens->token + s * tokens->length};
    Tensor token = batch_tensor(&batch, batch.token);
    Tensor *logits =
        lm_logits(open->model, &tape, &token, model_equal_seqlens(&tape, 1, tokens->length), NULL, NULL, NULL);
    row_nll(logits->data, width, config->vocab_size, tokens, s, nll);
    status = h5_write_rows(file, "logits", s, 1, logits->data);
    if (status.code == CODE_OK && n_nll > 0) status = h5_write_rows(file, "nll", s, 1, nll);
    for (int64_t t = 0; t < n_nll; t++) sum += nll[t];
    tape_reset(&tape, mark);
  }
  free(nll);
  *mean = n_nll > 0 ? sum / (double)(tokens->n_seq * n_nll) : NAN;
  if (status.code == CODE_OK) return h5_commit(file);
  h5_close(file);
  return status;
}

static Status score_open(OpenModel *open, const Command *command) {
  const char *in = command_text(command, "tokens", NULL), *out = command_text(command, "out", NULL);
  if (!in || !out) return status_fail(CODE_USAGE, "score: expected --tokens FILE.h5 and --out OUT.h5");
  Tokens tokens = {0};
  Status status = read_tokens(in, open->config.model.vocab_size, &tokens);
  if (status.code == CODE_OK)
    status = open_load(open, &(PlanShape){.eval_sequences = 1, .eval_length = tokens.length, .eval_logits = true});
  double mean;
  if (status.code == CODE_OK) status = score_all(open, &tokens, out, &mean);
  if (status.code == CODE_OK) {
    if (command_has(command, "json"))
      printf("{\"sequences\": %lld, \"length\": %lld, \"nll\": %s}\n", (long long)tokens.n_seq,
             (long long)tokens.length, isnan(mean) ? "null" : format_double(mean).text);
    else
      printf("%lld sequences of %lld tokens | mean nll %.6f | %s\n", (long long)tokens.n_seq, (long long)tokens.length,
             mean, out);
  }
  free(tokens.token);
  return status;
}

static Status cmd_score(const Command *command) {
  OpenModel open;
  TRY(open_find(&open, command->args[0], NULL, NULL, 0));
  Status status = score_open(&open, command);
  open_close(&open);
  return status;
}

const CommandSpec command_score = {
    .name = "score",
    .summary = "logits and log-likelihoods of given tokens",
    .usage = "score MODEL --tokens FILE.h5 --out OUT.h5",
    .examples = {"aspis score runs/shakespeare --tokens tokens.h5 --out scores.h5",
                 "aspis score weights/ --tokens tokens.h5 --out scores.h5 --json"},
    .options = (const OptionSpec[]){{"tokens", "FILE.h5", "dataset tokens (B, T) of integers", false},
                                    {"out", "OUT.h5", "gets logits (B, T, V) and nll (B, T-1), float32", false},
                                    OPTION_JSON,
                                    {0}},
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_score,
};
