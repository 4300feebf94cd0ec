/* aspis generate MODEL: continues prompts, with the state kept from token to token. One sequence is told as it is made,
 * several one after the other. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/cmd/command.h"
#include "train/open.h"
#include "train/resolve.h"
#include "train/state_file.h"
#include "train/text_stream.h"

enum { MOST_SEQUENCES = 4096 };

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
      *tokens = NULL;
      return status_fail(CODE_USAGE, "--prompt-tokens: found \"%s\", expected token ids like 1,2,3", text);
    }
    (*tokens)[(*n)++] = (int32_t)value;
    if (!*end) return STATUS_OK;
    at = end + 1;
  }
}

/* The prompts, and what each is to be continued by: sequence s continues prompt s / n_samples. */
typedef struct Job {
  OpenModel *open;
  const Tokenizer *tokenizer; /* NULL: none */
  const Command *command;
  int32_t **prompt;
  int64_t *n_prompt;
  int *n_special; /* of each prompt's first tokens: those that are no text */
  int n_prompts;
  int64_t n_samples, n_new, longest;
  SampleOptions sample;
  const char **stops;
  int n_stops;
  bool json, cached, echo, special;
} Job;

static int64_t n_sequences(const Job *job) { return job->n_prompts * job->n_samples; }

static void job_free(Job *job) {
  for (int i = 0; i < job->n_prompts; i++) free(job->prompt[i]);
  free(job->prompt), free(job->n_prompt), free(job->n_special), free(job->stops);
}

static Status encode_prompt(const Job *job, const char *where, const char *text, size_t bytes, int32_t **tokens,
                            int64_t *n, int *n_special) {
  return job->special ? tokenizer_encode_prompt(job->tokenizer, where, text, bytes, tokens, n, n_special)
                      : tokenizer_encode(job->tokenizer, where, text, bytes, tokens, n);
}

/* A prompt as tokens: kind says whether the text is ids, a text or a file's name. */
static Status read_prompt(const Job *job, const char *kind, const char *text, int32_t **tokens, int64_t *n,
                          int *n_special) {
  if (strcmp(kind, "prompt-tokens") == 0) return parse_tokens(text, tokens, n);
  if (!job->tokenizer)
    return status_fail(CODE_USAGE, "%s: has no tokenizer: give the prompt as --prompt-tokens 1,2,3", job->open->path);
  if (strcmp(kind, "prompt") == 0) return encode_prompt(job, "--prompt", text, strlen(text), tokens, n, n_special);
  StrBuf contents = {0};
  TRY(strbuf_load(&contents, text));
  Status status = encode_prompt(job, text, contents.data ? contents.data : "", contents.n, tokens, n, n_special);
  free(contents.data);
  return status;
}

static Status check_prompt(const char *kind, const int32_t *prompt, int64_t n, int vocab_size) {
  if (n == 0) return status_fail(CODE_USAGE, "--%s: found an empty prompt, expected a token at least", kind);
  for (int64_t i = 0; i < n; i++)
    if (prompt[i] >= vocab_size)
      return status_fail(CODE_DATA, "prompt token %d: outside the vocabulary of %d", prompt[i], vocab_size);
  return STATUS_OK;
}

/* All prompts, by whichever option gave them; without one, a newline (or token 0). */
static Status read_prompts(Job *job) {
  static const char *const KINDS[] = {"prompt", "prompt-file", "prompt-tokens"};
  const char *kind = NULL, **texts = NULL, *otherwise = job->tokenizer ? "\n" : "0";
  int n = 0, n_kinds = 0;
  for (int k = 0; k < 3; k++)
    if (command_has(job->command, KINDS[k])) kind = KINDS[k], n_kinds++;
  if (n_kinds > 1) return status_fail(CODE_USAGE, "give one of --prompt, --prompt-file and --prompt-tokens");
  if (kind) n = command_all(job->command, kind, &texts);
  else kind = job->tokenizer ? "prompt" : "prompt-tokens", n = 1;
  job->prompt = base_zalloc((size_t)n * sizeof *job->prompt);
  job->n_prompt = base_zalloc((size_t)n * sizeof *job->n_prompt);
  job->n_special = base_zalloc((size_t)n * sizeof *job->n_special);
  Status status = STATUS_OK;
  for (int i = 0; i < n && status.code == CODE_OK; i++) {
    job->n_prompts = i + 1;
    status =
        read_prompt(job, kind, texts ? texts[i] : otherwise, &job->prompt[i], &job->n_prompt[i], &job->n_special[i]);
    if (status.code == CODE_OK)
      status = check_prompt(kind, job->prompt[i], job->n_prompt[i], job->open->config.model.vocab_size);
    job->longest = max_i64(job->longest, job->n_prompt[i]);
  }
  free(texts);
  return status;
}

static Status read_options(Job *job) {
  const Command *command = job->command;
  int64_t top_k = 0, seed = 1;
  job->sample = (SampleOptions){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
  job->n_new = 200, job->n_samples = 1;
  TRY(command_int(command, "max-tokens", 0, 1 << 24, &job->n_new));
  TRY(command_int(command, "samples", 1, MOST_SEQUENCES, &job->n_samples));
  TRY(command_real(command, "temperature", 0, 100, &job->sample.temperature));
  TRY(command_real(command, "repetition-penalty", 0.01, 100, &job->sample.repetition_penalty));
  TRY(command_int(command, "top-k", 0, 1 << 30, &top_k));
  TRY(command_real(command, "top-p", 0, 1, &job->sample.top_p));
  TRY(command_int(command, "seed", 0, INT64_MAX, &seed));
  job->sample.top_k = (int)top_k, job->sample.seed = (uint64_t)seed;
  /* A state is of a text that has begun. */
  int special = job->open->config.data.special_tokens && !command_has(command, "state-in");
  TRY(command_choice(command, "special-tokens", (const char *const[]){"no", "yes", NULL}, &special));
  job->special = special;
  job->n_stops = command_all(command, "stop", &job->stops);
  for (int i = 0; i < job->n_stops; i++)
    if (!*job->stops[i]) return status_fail(CODE_USAGE, "--stop: found an empty text");
  if (job->n_stops > 0 && !job->tokenizer)
    return status_fail(CODE_USAGE, "--stop: %s has no tokenizer, so its tokens are no text", job->open->path);
  job->json = command_has(command, "json");
  job->cached = !command_has(command, "no-cache");
  job->echo = job->tokenizer && !job->json && !command_has(command, "prompt-tokens");
  return STATUS_OK;
}

/* What options ask of each other, once the prompts are known. */
static Status check_options(const Job *job) {
  const bool states = command_has(job->command, "state-in") || command_has(job->command, "state-out");
  if (n_sequences(job) > MOST_SEQUENCES)
    return status_fail(CODE_USAGE, "%d prompts times %lld samples, expected at most %d sequences", job->n_prompts,
                       (long long)job->n_samples, MOST_SEQUENCES);
  if (!job->cached && (n_sequences(job) > 1 || states))
    return status_fail(CODE_USAGE, "--no-cache: expected one prompt, one sample and no states");
  if (command_has(job->command, "state-out") && n_sequences(job) > 1)
    return status_fail(CODE_USAGE, "--state-out: found %lld sequences, expected one", (long long)n_sequences(job));
  return command_check_output(job->command, "state-out");
}

/* ---- output */

/* What one sequence is told as: at once when it is the only one, else gathered. */
typedef struct Output {
  const Job *job;
  TextStream stream;
  StrBuf *gathered; /* NULL: to stdout */
  StrBuf text;
  int64_t n;
  int32_t last;
} Output;

static void write_text(void *user, const char *text, size_t n) {
  Output *out = user;
  if (out->gathered) strbuf_add(out->gathered, text, n);
  else fwrite(text, 1, n, stdout);
}

/* False: the sequence ends. */
static bool put_token(Output *out, int32_t token) {
  const Job *job = out->job;
  int bytes = 0;
  const char *piece = job->tokenizer ? tokenizer_piece(job->tokenizer, token, &bytes) : NULL;
  bool goes_on = true;
  if (job->json || !job->tokenizer) {
    char *id = base_format("%s%d", out->n ? job->json ? ", " : "," : "", token);
    write_text(out, id, strlen(id));
    free(id);
    if (piece && job->n_stops > 0) goes_on = text_stream_put(&out->stream, piece, (size_t)bytes); /* told to nobody */
  } else if (piece) {
    goes_on = text_stream_put(&out->stream, piece, (size_t)bytes);
  }
  out->n++, out->last = token;
  if (!out->gathered) fflush(stdout);
  return goes_on && !ferror(stdout);
}

static bool tell_token(void *user, int64_t s, int32_t token) { return put_token((Output *)user + s, token); }

static void write_nowhere(void *user, const char *text, size_t n) { (void)user, (void)text, (void)n; }

static Output *outputs_new(const Job *job) {
  const int64_t n = n_sequences(job);
  Output *outputs = base_zalloc((size_t)n * sizeof *outputs);
  for (int64_t s = 0; s < n; s++) {
    Output *out = &outputs[s];
    *out = (Output){.job = job, .gathered = n > 1 ? &out->text : NULL};
    out->stream = (TextStream){.n_stops = 0, .write = write_text, .user = out};
    if (job->json && n == 1) printf("{\"tokens\": [");
    const int64_t at = s / job->n_samples;
    for (int64_t i = job->n_special[at]; i < job->n_prompt[at] && job->echo; i++) put_token(out, job->prompt[at][i]);
    /* Stop strings are looked for behind the prompt. */
    out->stream.stops = job->stops, out->stream.n_stops = job->n_stops;
    if (job->json) out->stream.write = write_nowhere;
    out->n = 0;
  }
  return outputs;
}

/* What was begun on stdout is ended, whatever happened. */
static void outputs_end(const Job *job, Output *outputs) {
  const int64_t n = n_sequences(job);
  if (job->json && n > 1) printf("{\"samples\": [");
  for (int64_t s = 0; s < n; s++) {
    Output *out = &outputs[s];
    text_stream_end(&out->stream);
    const char *text = out->text.data ? out->text.data : "";
    if (n == 1) printf(job->json ? "]}\n" : "\n");
    else if (job->json)
      printf("%s{\"prompt\": %lld, \"tokens\": [%s]}", s ? ", " : "", (long long)(s / job->n_samples), text);
    else printf("=== %lld\n%s\n", (long long)s + 1, text);
    free(out->text.data);
  }
  if (job->json && n > 1) printf("]}\n");
  free(outputs);
}

/* ---- generation */

typedef struct DecodeShape {
  int64_t n_seq, n_prompt, room;
} DecodeShape;

static void decode_pass(Model *model, Device *device, Dtype act, const void *shape) {
  const DecodeShape *s = shape;
  decoder_plan(model, device, act, s->n_seq, s->n_prompt, s->room);
}

static Status nonfinite(const Job *job, int64_t n) {
  return status_fail(CODE_NONFINITE, "%s: the logits of token %lld are not finite: its weights are damaged or diverged",
                     job->open->path, (long long)n + 1);
}

static Generate generate_of(const Job *job, const int32_t **prompt, int64_t *n_prompt, Output *outputs) {
  for (int64_t s = 0; s < n_sequences(job); s++)
    prompt[s] = job->prompt[s / job->n_samples], n_prompt[s] = job->n_prompt[s / job->n_samples];
  return (Generate){.prompt = prompt,
                    .n_prompt = n_prompt,
                    .n_new = job->n_new,
                    .sample = job->sample,
                    .on_token = tell_token,
                    .user = outputs};
}

/* The state behind the last token made, which generation itself need not read. */
static Status save_state(const Job *job, Decoder *decoder, const Output *out) {
  const char *path = command_text(job->command, "state-out", NULL);
  if (!path) return STATUS_OK;
  if (out->n > 0) decoder_read(decoder, 0, &out->last, 1, NULL);
  return state_file_save(path, job->open->model, &job->open->device, &decoder->state);
}

static Status run_job(const Job *job, const StateBatch *from, int64_t room) {
  OpenModel *open = job->open;
  const int64_t n_seq = n_sequences(job);
  const int32_t **prompt = base_alloc((size_t)n_seq * sizeof *prompt);
  int64_t *n_prompt = base_alloc((size_t)n_seq * sizeof *n_prompt), made;
  Output *outputs = outputs_new(job);
  const Generate g = generate_of(job, prompt, n_prompt, outputs);
  Status status = STATUS_OK;
  if (job->cached) {
    Decoder decoder = decoder_open(open->model, &open->device, open->config.dtype, n_seq, room);
    if (open->config.train.graph == GRAPH_AUTO) decoder_use_graphs(&decoder);
    for (int64_t s = 0; s < n_seq && from->state.n_seq > 0; s++)
      model_state_put(open->model, &open->device, &decoder.state, s, &from->state, 0);
    made = generate_tokens(&decoder, &g);
    if (made >= 0) status = save_state(job, &decoder, &outputs[0]);
    decoder_close(&decoder);
  } else {
    made = generate_uncached(open->model, &open->device, open->config.dtype, &g);
  }
  if (made < 0) status = nonfinite(job, outputs[0].n);
  outputs_end(job, outputs);
  free(prompt), free(n_prompt);
  return status;
}

static Status load_and_run(const Job *job) {
  const char *path = command_text(job->command, "state-in", NULL);
  StateBatch from = {0};
  if (path) {
    Model *shape = model_new(&job->open->config.model);
    Status status = state_file_read(path, shape, 1, &from);
    model_free(shape);
    TRY(status);
  }
  const DecodeShape shape = {n_sequences(job), job->longest, state_batch_longest(&from) + job->longest + job->n_new};
  const PlanShape cached = {.pass = decode_pass, .pass_shape = &shape};
  const PlanShape uncached = {.prefix_length = job->longest + job->n_new};
  Status status = open_load(job->open, job->cached ? &cached : &uncached);
  if (status.code == CODE_OK) status = run_job(job, &from, shape.room);
  state_batch_free(&from);
  return status;
}

static Status generate_open(OpenModel *open, const Command *command, const Tokenizer *tokenizer) {
  Job job = {.open = open, .command = command, .tokenizer = tokenizer};
  Status status = read_options(&job);
  if (status.code == CODE_OK) status = read_prompts(&job);
  if (status.code == CODE_OK) status = check_options(&job);
  if (status.code == CODE_OK) status = load_and_run(&job);
  job_free(&job);
  return status;
}

static Status cmd_generate(const Command *command) {
  OpenModel open;
  static const char *const DTYPES[] = {"f32", "bf16", NULL};
  int chosen = -1;
  TRY(command_choice(command, "dtype", DTYPES, &chosen));
  const char *dtype = chosen < 0 ? NULL : DTYPES[chosen];
  char *set = dtype ? base_format("dtype=%s", dtype) : NULL;
  const char *sets[] = {set};
  Status status = open_find(&open, command->args[0], NULL, sets, dtype ? 1 : 0);
  free(set);
  TRY(status);
  resolve_warn(open.passed_over);
  Tokenizer *tokenizer = NULL;
  if (open.config.model.task != TASK_LM)
    status =
        status_fail(CODE_CHECKPOINT, "%s: found a forecaster, expected a language model (aspis forecast)", open.path);
  if (status.code == CODE_OK) status = open_tokenizer(&open, &tokenizer);
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
                 "aspis generate runs/shakespeare --prompt 'ROMEO:' --samples 4 --top-p 0.9 --stop 'JULIET:'",
                 "aspis generate runs/parity --prompt-tokens 1,0,1 --temperature 0 --json"},
    .options =
        (const OptionSpec[]){
            {"prompt", "TEXT", "text to continue (default: a newline); several are continued together", true},
            {"prompt-file", "FILE", "the same, from a file", true},
            {"prompt-tokens", "1,2,3", "the same, as token ids; needs no tokenizer", true},
            {"special-tokens", "yes|no",
             "begin a text with what its tokenizer.json puts before one, such as <s> (default: as the run's texts had "
             "them, data.special_tokens; of a weights directory yes; behind --state-in no)",
             false},
            {"max-tokens", "N", "tokens to make (default 200)", false},
            {"samples", "N", "continue each prompt N times (default 1)", false},
            {"temperature", "T", "0 is greedy (default 1)", false},
            {"top-k", "K", "only the K likeliest tokens (default 0: all)", false},
            {"top-p", "P", "only the likeliest tokens that hold this much probability (default 1)", false},
            {"repetition-penalty", "R", "make tokens that came before less likely (default 1: off)", false},
            {"stop", "TEXT", "end before this text; may be repeated", true},
            {"seed", "S", "of the random draws (default 1)", false},
            {"state-in", "S.h5", "the state to start from (default: zero)", false},
            {"state-out", "S.h5", "gets the state after the last token", false},
            {"dtype", "f32|bf16", "type of weights and activations (default: the run's)", false},
            {"no-cache", NULL, "keep no state: compute the prefix anew for every token", false},
            OPTION_JSON,
            {0}},
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_generate,
};
