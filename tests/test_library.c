/* The library for other programs (train/libaspis.h): logits are the model's, states of one model are independent of each other,
 * also in threads, and mistakes are told, not died of. */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/dataset.h"
#include "tests/support/rundir.h"
#include "tests/support/store.h"
#include "tests/support/subject.h"
#include "train/libaspis.h"
#include "train/open.h"

TestSuite(library, .init = workplace_enter, .fini = workplace_leave, .timeout = 300);

enum { N_TOKENS = 19, N_LOGITS = 32 };

/* The weights of a small model in the folder `weights`, and the logits of its tokens in one pass. */
static void write_model(int kind, int32_t *tokens, float *logits) {
  const SubjectKind *k = &SUBJECT_KINDS[kind];
  ModelConfig config = subject_config(k->layer, k->is_mimo, k->hybrid);
  Subject s = subject_open(&config, F32);
  store_ok(weights_save(s.model, "weights", LAYOUT_CANONICAL), k->name);
  const Tensor *token = subject_tokens(&s.device.step, N_TOKENS, 3);
  memcpy(tokens, token->data, N_TOKENS * sizeof *tokens);
  Tape tape = tape_make(&s.device, F32, false);
  Tensor *whole = lm_logits(s.model, &tape, (Tensor *)token, model_equal_seqlens(&tape, 1, N_TOKENS), NULL, NULL, NULL);
  memcpy(logits, whole->data, N_TOKENS * N_LOGITS * sizeof *logits);
  subject_close(&s);
}

static void ok(int code, const char *what) { cr_assert_eq(code, 0, "%s: code %d: %s", what, code, aspis_error()); }

static void expect_close(const float *got, const float *want, const char *name, int t) {
  for (int v = 0; v < N_LOGITS; v++)
    cr_assert_float_eq(got[v], want[v], 2e-6, "%s, token %d, logit %d: %g, expected %g", name, t, v, got[v], want[v]);
}

Test(library, gives_the_models_logits_by_prompt_and_step) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    int32_t tokens[N_TOKENS];
    float want[N_TOKENS * N_LOGITS], got[N_LOGITS];
    write_model(k, tokens, want);
    AspisModel *model;
    AspisState *state;
    ok(aspis_open("weights", NULL, &model), "open");
    cr_assert(aspis_n_logits(model) == N_LOGITS && aspis_vocab_size(model) == 29 && aspis_d_model(model) == 24,
              "sizes");
    ok(aspis_state_new(model, 1, N_TOKENS, &state), "state");
    ok(aspis_read(state, 0, tokens, 7, got), "read");
    expect_close(got, want + 6 * N_LOGITS, SUBJECT_KINDS[k].name, 6);
    for (int t = 7; t < N_TOKENS; t++) {
      if (t == 12) { /* by way of a file, into another state */
        ok(aspis_state_save(state, "state.h5"), "save");
        aspis_state_free(state);
        ok(aspis_state_new(model, 1, N_TOKENS, &state), "state");
        ok(aspis_state_load(state, "state.h5"), "load");
      }
      ok(aspis_step(state, &tokens[t], got), "step");
      expect_close(got, want + t * N_LOGITS, SUBJECT_KINDS[k].name, t);
    }
    aspis_state_free(state);
    aspis_close(model);
  }
}

Test(library, reads_vectors_as_it_reads_the_tokens_they_stand_for) {
  int32_t tokens[N_TOKENS];
  float want[N_TOKENS * N_LOGITS], got[N_LOGITS];
  write_model(1, tokens, want);
  ModelConfig config = subject_config(SUBJECT_KINDS[1].layer, SUBJECT_KINDS[1].is_mimo, SUBJECT_KINDS[1].hybrid);
  Subject s = subject_open(&config, F32);
  float *vectors = malloc((size_t)(N_TOKENS * 24) * sizeof *vectors);
  for (int t = 0; t < N_TOKENS; t++)
    memcpy(vectors + t * 24, (const float *)s.model->embedding->data + tokens[t] * 24, 24 * sizeof *vectors);
  AspisModel *model;
  AspisState *state;
  ok(aspis_open("weights", "f32", &model), "open");
  ok(aspis_state_new(model, 2, 0, &state), "state");
  ok(aspis_read_embedded(state, 1, vectors, N_TOKENS, got), "read");
  expect_close(got, want + (N_TOKENS - 1) * N_LOGITS, "vectors", N_TOKENS - 1);
  float *hidden = malloc((size_t)(3 * N_TOKENS * 24) * sizeof *hidden);
  ok(aspis_hidden(model, tokens, N_TOKENS, hidden), "hidden");
  /* norm_f and the head on the last layer's stream are the logits */
  const float *last = hidden + (2 * N_TOKENS + N_TOKENS - 1) * 24;
  double square = 0, logit = 0;
  for (int i = 0; i < 24; i++) square += last[i] * last[i] / 24;
  for (int i = 0; i < 24; i++)
    logit += last[i] / sqrt(square + 1e-5) * ((const float *)s.model->embedding->data)[5 * 24 + i];
  cr_assert_float_eq(logit, want[(N_TOKENS - 1) * N_LOGITS + 5], 2e-6, "the hidden state's logit: %g, expected %g",
                     logit, want[(N_TOKENS - 1) * N_LOGITS + 5]);
  free(vectors), free(hidden);
  aspis_state_free(state);
  aspis_close(model);
  subject_close(&s);
}

typedef struct Worker {
  AspisModel *model;
  const int32_t *tokens;
  float logits[N_LOGITS];
  int code;
} Worker;

static void *work(void *user) {
  Worker *w = user;
  for (int repeat = 0; repeat < 20 && !w->code; repeat++) {
    AspisState *state;
    w->code = aspis_state_new(w->model, 1, N_TOKENS, &state);
    if (w->code) break;
    w->code = aspis_read(state, 0, w->tokens, 3, NULL);
    for (int t = 3; t < N_TOKENS && !w->code; t++) w->code = aspis_step(state, &w->tokens[t], w->logits);
    aspis_state_free(state);
  }
  return NULL;
}

Test(library, runs_states_of_one_model_in_threads) {
  int32_t tokens[N_TOKENS];
  float want[N_TOKENS * N_LOGITS];
  write_model(3, tokens, want);
  AspisModel *model;
  ok(aspis_open("weights", NULL, &model), "open");
  Worker worker[3];
  pthread_t thread[3];
  for (int i = 0; i < 3; i++) {
    worker[i] = (Worker){.model = model, .tokens = tokens};
    cr_assert_eq(pthread_create(&thread[i], NULL, work, &worker[i]), 0, "thread");
  }
  for (int i = 0; i < 3; i++) {
    pthread_join(thread[i], NULL);
    cr_assert_eq(worker[i].code, 0, "thread %d: code %d", i, worker[i].code);
    expect_close(worker[i].logits, want + (N_TOKENS - 1) * N_LOGITS, "thread", i);
  }
  aspis_close(model);
}

static void expect(int code, int wanted, const char *phrase) {
  cr_assert(code == wanted && strstr(aspis_error(), phrase), "code %d: \"%s\", expected %d: \"%s\"", code,
            aspis_error(), wanted, phrase);
}

Test(library, tells_mistakes_in_a_line_with_a_code) {
  int32_t tokens[N_TOKENS];
  float logits[N_TOKENS * N_LOGITS];
  write_model(3, tokens, logits);
  AspisModel *model;
  AspisState *state, *other;
  expect(aspis_open("nowhere", NULL, &model), 4, "nowhere");
  cr_assert_null(model, "a model that was not opened");
  expect(aspis_open("weights", "f16", &model), 2, "dtype");
  ok(aspis_open("weights", NULL, &model), "open");
  expect(aspis_state_new(model, 0, 5, &state), 2, "n_seq: found 0");
  expect(aspis_state_new(model, 1, 0, &state), 2, "room: found 0");
  ok(aspis_state_new(model, 2, 5, &state), "state");
  ok(aspis_state_new(model, 1, 3, &other), "state");
  expect(aspis_read(state, 2, tokens, 1, NULL), 2, "sequence 2: expected 0 to 1");
  expect(aspis_read(state, 0, tokens, 0, NULL), 2, "found 0 tokens");
  expect(aspis_read(state, 0, tokens, 6, NULL), 2, "sequence 0: 6 tokens after 0, its room is 5");
  expect(aspis_read(state, 0, (const int32_t[]){1, 29}, 2, NULL), 3, "token 1: found 29, expected 0 to 28");
  ok(aspis_read(state, 0, tokens, 5, NULL), "read");
  expect(aspis_step(state, tokens, logits), 2, "sequence 0: 1 tokens after 5, its room is 5");
  expect(aspis_state_copy(other, 0, state, 0), 2, "5 tokens, the other state's room is 3");
  ok(aspis_state_copy(state, 0, NULL, 0), "reset");
  ok(aspis_step(state, tokens, logits), "step after a reset");
  expect(aspis_state_load(other, "weights/config.json"), 3, "config.json");
  int32_t *ids;
  int64_t n;
  expect(aspis_encode(model, "a", 1, &ids, &n), 2, "has no tokenizer");
  aspis_state_free(state), aspis_state_free(other);
  aspis_close(model);
}

Test(library, refuses_what_was_left_out_and_what_does_not_fit_into_memory) {
  int32_t tokens[N_TOKENS], *ids;
  float logits[N_TOKENS * N_LOGITS];
  char *text;
  size_t bytes;
  int64_t n;
  write_model(3, tokens, logits);
  AspisModel *model;
  AspisState *state;
  expect(aspis_open(NULL, NULL, &model), 2, "path: found NULL");
  expect(aspis_open("weights", NULL, NULL), 2, "model: found NULL");
  expect(aspis_open("weights", "f64", &model), 2, "dtype: found \"f64\", expected f32 or bf16");
  ok(aspis_open("weights", NULL, &model), "open");
  expect(aspis_state_new(NULL, 1, 5, &state), 2, "model: found NULL");
  expect(aspis_state_new(model, 1, 5, NULL), 2, "state: found NULL");
  expect(aspis_state_new(model, 1, INT32_MAX, &state), 7, "weights: needs ");
  cr_assert_null(state, "a state that was not made");
  ok(aspis_state_new(model, 1, 5, &state), "state");
  expect(aspis_read(NULL, 0, tokens, 1, logits), 2, "state: found NULL");
  expect(aspis_read(state, 0, NULL, 1, logits), 2, "tokens: found NULL");
  expect(aspis_read_embedded(state, 0, NULL, 1, logits), 2, "vectors: found NULL");
  expect(aspis_step(NULL, tokens, logits), 2, "state: found NULL");
  expect(aspis_step(state, NULL, logits), 2, "tokens: found NULL");
  expect(aspis_state_copy(NULL, 0, state, 0), 2, "state: found NULL");
  expect(aspis_state_save(NULL, "s.h5"), 2, "state: found NULL");
  expect(aspis_state_save(state, NULL), 2, "path: found NULL");
  expect(aspis_state_load(state, NULL), 2, "path: found NULL");
  expect(aspis_hidden(NULL, tokens, 1, logits), 2, "model: found NULL");
  expect(aspis_hidden(model, NULL, 1, logits), 2, "tokens: found NULL");
  expect(aspis_hidden(model, tokens, 1, NULL), 2, "hidden: found NULL");
  expect(aspis_encode(NULL, "a", 1, &ids, &n), 2, "model: found NULL");
  expect(aspis_decode(NULL, tokens, 1, &text, &bytes), 2, "model: found NULL");
  aspis_state_free(state), aspis_close(model);
}

Test(library, begins_a_prompt_with_what_the_tokenizer_puts_before_a_text) {
  int32_t tokens[N_TOKENS], *ids;
  float logits[N_TOKENS * N_LOGITS];
  int64_t n;
  write_model(0, tokens, logits);
  write_text("weights/tokenizer.json",
             "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"<s>\":2,\"</s>\":3},\"merges\":[]},"
             "\"decoder\":{\"type\":\"Fuse\"},\"added_tokens\":[{\"id\":2,\"content\":\"<s>\",\"special\":true}],"
             "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"<s>\",2],\"sep\":[\"</s>\",3]}}");
  AspisModel *model;
  ok(aspis_open("weights", NULL, &model), "open");
  ok(aspis_encode(model, "ba", 2, &ids, &n), "encode");
  cr_assert(n == 2 && ids[0] == 1 && ids[1] == 0, "a text: %lld tokens", (long long)n);
  aspis_free(ids);
  ok(aspis_encode_prompt(model, "ba", 2, &ids, &n), "prompt");
  cr_assert(n == 3 && ids[0] == 2 && ids[1] == 1 && ids[2] == 0, "a prompt: %lld tokens", (long long)n);
  char *text;
  size_t bytes;
  expect(aspis_decode(model, ids, -1, &text, &bytes), 2, "found -1 tokens");
  expect(aspis_decode(model, ids, 1, NULL, &bytes), 2, "text: found NULL");
  expect(aspis_encode_prompt(model, NULL, 2, &ids, &n), 2, "text: found NULL");
  expect(aspis_encode(model, "ba", 2, &ids, NULL), 2, "n: found NULL");
  aspis_free(ids);
  aspis_close(model);
}

Test(library, prints_nothing_where_a_damaged_checkpoint_is_passed_over) {
  int32_t tokens[N_TOKENS];
  float logits[N_TOKENS * N_LOGITS];
  write_model(0, tokens, logits);
  cr_assert(system("mkdir -p run/checkpoints") == 0, "run/checkpoints");
  OpenModel open;
  store_ok(open_find(&open, "weights", NULL, NULL, 0), "weights");
  store_ok(open_load(&open, &(PlanShape){0}), "weights");
  char *yaml = config_to_yaml(&open.config), *json = model_config_to_json(&open.config.model);
  const CheckpointInfo info = {.config_yaml = yaml, .model_json = json, .version = "0", .commit = "0"};
  store_ok(checkpoint_save("run/checkpoints/step-00000001.h5", &info, &open.model->params), "save");
  free(yaml), free(json);
  open_close(&open);
  write_text("run/checkpoints/step-00000002.h5", "damaged");
  AspisModel *model;
  const StderrCapture capture = stderr_capture_begin();
  const int code = aspis_open("run", NULL, &model);
  char *said = stderr_capture_end(capture);
  cr_assert(code == 0 && !*said, "code %d, said \"%s\"", code, said);
  free(said);
  aspis_close(model);
}
