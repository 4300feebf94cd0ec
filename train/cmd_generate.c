/* aspis generate MODEL: continues a prompt, streaming the text as it is made. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/command.h"
#include "train/format.h"
#include "train/open.h"

/* "1,2,3" */
static Status parse_tokens(const char *text, int32_t **tokens, int64_t *n) {
  *tokens = base_alloc((strlen(text) / 2 + 1) * sizeof(int32_t));
  *n = 0;
  for (const char *at = text;;) {
    char *end;
    errno = 0;
    long long value = strtoll(at, &end, 10);
    if (end == at || errno || value < 0 || value > INT32_MAX || (*end && *end != ',')) {
      free(*tokens);
      return status_fail(CODE_USAGE, "--prompt-tokens: found \"%s\", expected token ids like 1,2,3", text);
    }
    (*tokens)[(*n)++] = (int32_t)value;
    if (!*end) return STATUS_OK;
    at = end + 1;
  }
}

/* The prompt's tokens, malloc'ed, by whichever option gave it; without one, a newline (or token 0). */
static Status read_prompt(const Command *command, const Tokenizer *tokenizer, const char *where, int32_t **tokens,
                          int64_t *n) {
  const char *text = command_text(command, "prompt", NULL), *path = command_text(command, "prompt-file", NULL);
  const char *ids = command_text(command, "prompt-tokens", NULL);
  if ((text != NULL) + (path != NULL) + (ids != NULL) > 1)
    return status_fail(CODE_USAGE, "give one of --prompt, --prompt-file and --prompt-tokens");
  if (ids) return parse_tokens(ids, tokens, n);
  if ((text || path) && !tokenizer)
    return status_fail(CODE_USAGE, "%s: has no tokenizer: give the prompt as --prompt-tokens 1,2,3", where);
  if (!text && !path) {
    if (tokenizer) text = "\n";
    else return parse_tokens("0", tokens, n);
  }
  if (text) return tokenizer_encode(tokenizer, text, strlen(text), tokens, n);
  StrBuf contents = {0};
  TRY(strbuf_load(&contents, path));
  Status status = tokenizer_encode(tokenizer, contents.data ? contents.data : "", contents.n, tokens, n);
  free(contents.data);
  return status;
}

typedef struct Output {
  const Tokenizer *tokenizer;
  bool json;
  int64_t n;
} Output;

static bool put_token(void *user, int32_t token) {
  Output *out = user;
  int bytes = 0;
  const char *piece = out->tokenizer && !out->json ? tokenizer_piece(out->tokenizer, token, &bytes) : NULL;
  if (out->json) printf("%s%d", out->n ? ", " : "", token);
  else if (piece) fwrite(piece, 1, (size_t)bytes, stdout);
  else if (!out->tokenizer) printf("%s%d", out->n ? "," : "", token);
  out->n++;
  fflush(stdout);
  return !ferror(stdout);
}

static Status read_options(const Command *command, SampleOptions *options, int64_t *max_tokens) {
  int64_t top_k = 0, seed = 1;
  *options = (SampleOptions){.temperature = 1, .top_p = 1};
  *max_tokens = 200;
  TRY(command_int(command, "max-tokens", 0, 1 << 20, max_tokens));
  TRY(command_real(command, "temperature", 0, 100, &options->temperature));
  TRY(command_int(command, "top-k", 0, 1 << 30, &top_k));
  TRY(command_real(command, "top-p", 0, 1, &options->top_p));
  TRY(command_int(command, "seed", 0, INT64_MAX, &seed));
  options->top_k = (int)top_k, options->seed = (uint64_t)seed;
  return STATUS_OK;
}

static Status check_prompt(const int32_t *prompt, int64_t n, int vocab_size) {
  if (n == 0) return status_fail(CODE_USAGE, "the prompt is empty");
  for (int64_t i = 0; i < n; i++)
    if (prompt[i] >= vocab_size)
      return status_fail(CODE_DATA, "prompt token %d: outside the vocabulary of %d", prompt[i], vocab_size);
  return STATUS_OK;
}

/* The model is loaded; `echo`: the text begins with the prompt. Whatever happens, what was begun on stdout is ended. */
static Status write_continuation(OpenModel *open, const int32_t *prompt, int64_t n_prompt, int64_t max_tokens,
                                 const SampleOptions *options, bool echo, Output *out) {
  if (out->json) printf("{\"tokens\": [");
  for (int64_t i = 0; i < n_prompt && echo; i++) put_token(out, prompt[i]);
  out->n = 0;
  int made = generate_tokens(open->model, &open->device, open->config.dtype, prompt, (int)n_prompt, (int)max_tokens,
                             options, put_token, out);
  printf(out->json ? "]}\n" : "\n");
  if (made >= 0) return STATUS_OK;
  return status_fail(CODE_NONFINITE, "%s: the logits of token %lld are not finite: its weights are damaged or diverged",
                     open->path, (long long)out->n + 1);
}

static Status generate_open(OpenModel *open, const Command *command, const Tokenizer *tokenizer) {
  SampleOptions options;
  int64_t max_tokens, n_prompt;
  int32_t *prompt;
  TRY(read_options(command, &options, &max_tokens));
  TRY(read_prompt(command, tokenizer, open->path, &prompt, &n_prompt));
  Status status = check_prompt(prompt, n_prompt, open->config.model.vocab_size);
  if (status.code == CODE_OK) status = open_load(open, &(PlanShape){.sample_length = n_prompt + max_tokens});
  if (status.code == CODE_OK) {
    Output out = {.tokenizer = tokenizer, .json = command_has(command, "json")};
    bool echo = tokenizer && !out.json && !command_has(command, "prompt-tokens");
    status = write_continuation(open, prompt, n_prompt, max_tokens, &options, echo, &out);
  }
  free(prompt);
  return status;
}

static Status cmd_generate(const Command *command) {
  OpenModel open;
  TRY(open_find(&open, command->args[0], NULL, NULL, 0));
  Tokenizer *tokenizer = NULL;
  Status status = STATUS_OK;
  if (open.is_checkpoint && open.info.tokenizer_json)
    status = tokenizer_from_json(open.info.tokenizer_json, &tokenizer);
  if (status.code == CODE_OK) status = generate_open(&open, command, tokenizer);
  if (tokenizer) tokenizer_free(tokenizer);
  open_close(&open);
  return status;
}

const CommandSpec command_generate = {
    .name = "generate",
    .summary = "continue a prompt",
    .usage = "generate MODEL [options]",
    .examples = {"aspis generate runs/shakespeare --prompt 'ROMEO:' --temperature 0.8",
                 "aspis generate runs/parity --prompt-tokens 1,0,1 --temperature 0 --json"},
    .options =
        (const OptionSpec[]){
            {"prompt", "TEXT", "text to continue (default: a newline)", false},
            {"prompt-file", "FILE", "the same, from a file", false},
            {"prompt-tokens", "1,2,3", "the same, as token ids; needs no tokenizer", false},
            {"max-tokens", "N", "tokens to make (default 200)", false},
            {"temperature", "T", "0 is greedy (default 1)", false},
            {"top-k", "K", "only the K likeliest tokens (default 0: all)", false},
            {"top-p", "P", "only the likeliest tokens that hold this much probability (default 1)", false},
            {"seed", "S", "of the random draws (default 1)", false},
            {"no-cache", NULL, "recompute the prefix for every token (always so in this version)", false},
            OPTION_JSON,
            {0}},
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_generate,
};
