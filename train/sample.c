/* sample: see sample.h. */
#include "train/sample.h"

#include <stdlib.h>

#include "train/format.h"

enum { SAMPLE_TOKENS = 200 };

int64_t sample_max_length(const Config *config) {
  if (config->model.task != TASK_LM || (config->data.kind != DATA_TEXT && config->data.kind != DATA_SHARDS)) return 0;
  return min_i64(SAMPLE_TOKENS, config->data.seq_len);
}

typedef struct SampleText {
  const Tokenizer *tokenizer;
  StrBuf text;
} SampleText;

static bool keep_token(void *user, int64_t s, int32_t token) {
  (void)s;
  SampleText *sample = user;
  int n;
  const char *piece = tokenizer_piece(sample->tokenizer, token, &n);
  if (piece) strbuf_add(&sample->text, piece, (size_t)n); /* a padded or foreign id has no text */
  return true;
}

void sample_write(Run *run) {
  int64_t n = sample_max_length(run->config);
  const char *json = dataset_tokenizer_json(run->dataset);
  if (n < 2 || !json) return;
  Tokenizer *tokenizer;
  Status status = tokenizer_from_json(json, &tokenizer);
  CHECK(status.code == CODE_OK, "our own tokenizer: %s", status.line);
  /* The prompt is the first token of the validation part: the same at every occasion. */
  Batch first = {.n_seq = 1, .length = dataset_max_length(run->dataset, PART_VAL)};
  first.token = base_alloc((size_t)first.length * sizeof(int32_t));
  first.target = base_alloc((size_t)first.length * sizeof(int32_t));
  dataset_fill(run->dataset, PART_VAL, 0, &first);
  SampleText sample = {.tokenizer = tokenizer};
  keep_token(&sample, 0, first.token[0]);
  const int32_t *prompt = first.token;
  const size_t mark = arena_mark(&run->device.weights);
  Decoder decoder = decoder_open(run->model, &run->device, run->config->dtype, 1, n);
  if (run->config->train.graph == GRAPH_AUTO) decoder_use_graphs(&decoder);
  generate_tokens(
      &decoder, &(Generate){.prompt = &prompt,
                            .n_prompt = &(int64_t){1},
                            .n_new = n - 1,
                            .sample = {.temperature = 0.8, .top_p = 1, .seed = run->config->seed + (uint64_t)run->step},
                            .on_token = keep_token,
                            .user = &sample});
  decoder_close(&decoder);
  arena_rewind(&run->device.weights, mark);
  runlog_sample(run->log, run->step, sample.text.data ? sample.text.data : "");
  free(sample.text.data), free(first.token), free(first.target);
  tokenizer_free(tokenizer);
}
