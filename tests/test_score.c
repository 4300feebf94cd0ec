/* Scoring: logits and likelihoods against the library's own forward, states that carry a sequence over a cut, and state
 * files that are refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/h5.h"
#include "tensor/rng.h"
#include "tests/support/dataset.h"
#include "tests/support/store.h"
#include "train/score.h"
#include "train/state_file.h"

enum { N_SEQ = 3, LENGTH = 23, VOCAB = 29, N_LAYER = 2 };

TestSuite(score, .init = workplace_enter, .fini = workplace_leave, .timeout = 300);

static const struct {
  const char *name;
  LayerKind layer;
  bool is_mimo;
  double rope_fraction;
  const char *dtype;
  bool attention;   /* the second layer is */
  double tolerance; /* of logits below 1: f32 sums in another order; bf16 activations that round the other way */
} KINDS[] = {{"mamba2", LAYER_MAMBA2, false, 0.5, "dtype=f32", false, 2e-6},
             {"mamba3", LAYER_MAMBA3, false, 0.5, "dtype=f32", false, 2e-6},
             {"mamba3 mimo", LAYER_MAMBA3, true, 1.0, "dtype=f32", false, 2e-6},
             {"mamba3 without rotation", LAYER_MAMBA3, false, 0.0, "dtype=f32", false, 2e-6},
             {"mamba2 bf16", LAYER_MAMBA2, false, 0.5, "dtype=bf16", false, 2e-2},
             {"mamba3 bf16", LAYER_MAMBA3, false, 0.5, "dtype=bf16", false, 2e-2},
             {"mamba3 hybrid", LAYER_MAMBA3, false, 0.5, "dtype=f32", true, 2e-6}};
enum { N_KINDS = sizeof KINDS / sizeof *KINDS, HYBRID = N_KINDS - 1 };

/* Weights of a random model in the folder `weights`. */
static void write_weights(int kind) {
  ModelConfig c = model_config_default();
  c.d_model = 24, c.n_layer = N_LAYER, c.vocab_size = VOCAB;
  c.ssm_cfg = mixer_config_default(KINDS[kind].layer);
  c.ssm_cfg.d_model = 24, c.ssm_cfg.d_state = 12, c.ssm_cfg.headdim = 8, c.ssm_cfg.ngroups = 2;
  c.ssm_cfg.chunk_size = 4, c.ssm_cfg.is_mimo = KINDS[kind].is_mimo, c.ssm_cfg.mimo_rank = 2;
  c.ssm_cfg.rope_fraction = KINDS[kind].rope_fraction;
  if (KINDS[kind].attention) {
    c.attn_layer_idx[0] = 1, c.n_attn_layers = 1;
    c.attn_cfg.num_heads = 4, c.attn_cfg.num_heads_kv = 2, c.attn_cfg.rotary_emb_dim = 4, c.attn_cfg.d_conv = 3;
  }
  Device device;
  store_ok(device_open(&device, "cpu", F32, (DeviceSizes){(size_t)16 << 20, 0, 0}), KINDS[kind].name);
  Model *model = model_new(&c);
  params_alloc(&model->params, &device, F32, false, 0);
  params_init(&model->params, 5);
  store_ok(weights_save(model, "weights", LAYOUT_CANONICAL), KINDS[kind].name);
  model_free(model);
  device_close(&device);
}

/* Columns [first, first + n) of the same random tokens. */
static void write_tokens(const char *path, int64_t first, int64_t n) {
  int32_t token[N_SEQ * LENGTH];
  for (int64_t s = 0; s < N_SEQ; s++)
    for (int64_t t = 0; t < n; t++) {
      Rng rng = rng_make(4, RNG_TEST, (uint32_t)s, (uint64_t)(first + t));
      token[s * n + t] = (int32_t)rng_below(&rng, VOCAB);
    }
  H5File *file;
  store_ok(h5_create(path, 1 << 16, false, CODE_DATA, &file), path);
  store_ok(h5_write(file, "tokens", H5_I32, 2, (const int64_t[]){N_SEQ, n}, token), path);
  store_ok(h5_commit(file), path);
}

/* Also: the step arena's peak is the plan's. */
static Status run_score(int kind, const ScoreFiles *files, ScoreSummary *summary) {
  OpenModel open;
  store_ok(open_find(&open, "weights", NULL, (const char *const[]){KINDS[kind].dtype}, 1), KINDS[kind].name);
  Status status = score_files(&open, files, summary);
  if (status.code == CODE_OK) {
    ScorePass pass = {summary->length, 0, files->state_in != NULL, files->state_out != NULL};
    if (KINDS[kind].attention && files->state_in) {
      open_close(&open); /* what the state has room for is the plan's as well, and only the state's to know */
      return status;
    }
    PlanShape shape = {.pass = score_pass, .pass_shape = &pass};
    Plan plan;
    store_ok(plan_measure(&open.config, &shape,
                          &(GradientShape){.batch_size = 1, .virtual_ranks = 1, .micro_batch_size = 1}, &plan),
             KINDS[kind].name);
    cr_assert_eq(open.device.step.peak_bytes, plan.sizes.step_bytes, "%s: %zu bytes of activations, %zu planned",
                 KINDS[kind].name, open.device.step.peak_bytes, plan.sizes.step_bytes);
  }
  open_close(&open);
  return status;
}

/* A float dataset, malloc'ed. */
static float *read_floats(const char *path, const char *name, H5Shape *shape) {
  H5File *file;
  store_ok(h5_open_read(path, CODE_DATA, &file), path);
  store_ok(h5_shape(file, name, shape), path);
  float *values = base_alloc((size_t)shape->count * sizeof *values);
  store_ok(h5_read_f32(file, name, values, shape->count), path);
  h5_close(file);
  return values;
}

static void score_or_fail(int kind, const ScoreFiles *files) {
  ScoreSummary summary;
  store_ok(run_score(kind, files, &summary), KINDS[kind].name);
}

/* Rows of logits of `part` beside those of the whole from token `first` on. */
static void assert_logits(int kind, const char *part, int64_t first) {
  H5Shape all, few;
  float *whole = read_floats("whole.h5", "logits", &all), *found = read_floats(part, "logits", &few);
  const int64_t n_v = all.dim[2];
  cr_assert(few.n_dim == 3 && few.dim[0] == N_SEQ && few.dim[2] == n_v, "%s: shape of %s", KINDS[kind].name, part);
  double worst = 0;
  for (int64_t s = 0; s < N_SEQ; s++)
    for (int64_t i = 0; i < few.dim[1] * n_v; i++)
      worst = fmax(worst, fabs(whole[(s * LENGTH + first) * n_v + i] - found[s * few.dim[1] * n_v + i]));
  cr_assert_lt(worst, KINDS[kind].tolerance, "%s: logits of %s differ by %g from those of one pass", KINDS[kind].name,
               part, worst);
  free(whole), free(found);
}

Test(score, of_two_halves_with_the_state_between_is_that_of_one_pass) {
  for (int k = 0; k < N_KINDS; k++) {
    write_weights(k);
    write_tokens("tokens.h5", 0, LENGTH);
    score_or_fail(k, &(ScoreFiles){.tokens = "tokens.h5", .out = "whole.h5", .state_out = "end.h5"});
    static const int64_t CUTS[] = {1, 2, 8, 13, LENGTH - 1}; /* shorter than the window, within and at chunks */
    for (size_t i = 0; i < sizeof CUTS / sizeof *CUTS; i++) {
      write_tokens("a.h5", 0, CUTS[i]);
      write_tokens("b.h5", CUTS[i], LENGTH - CUTS[i]);
      score_or_fail(k, &(ScoreFiles){.tokens = "a.h5", .out = "head.h5", .state_out = "state.h5"});
      score_or_fail(k,
                    &(ScoreFiles){.tokens = "b.h5", .out = "tail.h5", .state_in = "state.h5", .state_out = "state.h5"});
      assert_logits(k, "head.h5", 0);
      assert_logits(k, "tail.h5", CUTS[i]);
    }
    H5Shape shape;
    const char *field = KINDS[k].attention ? "layers/1/key" : "layers/1/ssm";
    const int64_t dim[] = {N_SEQ, KINDS[k].attention ? LENGTH : 6, KINDS[k].attention ? 2 : 8,
                           KINDS[k].attention ? 6 : 12};
    float *end = read_floats("end.h5", field, &shape), *twice = read_floats("state.h5", field, &shape);
    cr_assert(shape.n_dim == 4 && memcmp(shape.dim, dim, sizeof dim) == 0, "%s: shape of %s", KINDS[k].name, field);
    for (int64_t i = 0; i < shape.count; i++)
      cr_assert_float_eq(end[i], twice[i], 10 * KINDS[k].tolerance,
                         "%s: state element %lld: %g after two halves, %g after one pass", KINDS[k].name, (long long)i,
                         twice[i], end[i]);
    free(end), free(twice);
  }
}

/* The last layer's stream, normed and multiplied by the head, is the logits; and the first layer's is another. */
Test(score, writes_the_residual_stream_of_every_layer) {
  write_weights(1);
  write_tokens("tokens.h5", 0, LENGTH);
  score_or_fail(1, &(ScoreFiles){.tokens = "tokens.h5", .out = "whole.h5", .hidden = true});
  H5Shape shape, wide;
  float *hidden = read_floats("whole.h5", "hidden/1", &shape), *first = read_floats("whole.h5", "hidden/0", &shape);
  float *logits = read_floats("whole.h5", "logits", &wide);
  cr_assert(shape.n_dim == 3 && shape.dim[0] == N_SEQ && shape.dim[1] == LENGTH && shape.dim[2] == 24, "shape");
  OpenModel open;
  store_ok(open_find(&open, "weights", NULL, NULL, 0), "open");
  store_ok(open_load(&open, &(PlanShape){0}), "load");
  const float *head = open.model->embedding->data;
  for (int64_t row = 0; row < N_SEQ * LENGTH; row++) {
    double square = 0, logit = 0, other = 0;
    for (int i = 0; i < 24; i++) square += pow(hidden[row * 24 + i], 2) / 24;
    for (int i = 0; i < 24; i++) {
      logit += hidden[row * 24 + i] / sqrt(square + 1e-5) * head[7 * 24 + i];
      other += fabs(hidden[row * 24 + i] - first[row * 24 + i]);
    }
    cr_assert_float_eq(logit, logits[row * wide.dim[2] + 7], 2e-6, "row %lld: %g, expected %g", (long long)row, logit,
                       logits[row * wide.dim[2] + 7]);
    cr_assert_gt(other, 1e-4, "row %lld: both layers' streams are the same", (long long)row);
  }
  open_close(&open);
  free(hidden), free(first), free(logits);
}

Test(score, writes_the_likelihood_of_the_next_token) {
  write_weights(1);
  write_tokens("tokens.h5", 0, LENGTH);
  ScoreSummary summary;
  store_ok(run_score(1, &(ScoreFiles){.tokens = "tokens.h5", .out = "whole.h5"}, &summary), "score");
  H5Shape wide, narrow, shape;
  float *logits = read_floats("whole.h5", "logits", &wide), *nll = read_floats("whole.h5", "nll", &narrow);
  float *token = read_floats("tokens.h5", "tokens", &shape);
  cr_assert(wide.dim[1] == LENGTH && wide.dim[2] == 32 && narrow.dim[1] == LENGTH - 1, "shapes of logits and nll");
  double sum = 0;
  for (int64_t s = 0; s < N_SEQ; s++)
    for (int64_t t = 0; t + 1 < LENGTH; t++) {
      const float *row = logits + (s * LENGTH + t) * 32;
      double total = 0;
      for (int v = 0; v < VOCAB; v++) total += exp(row[v]); /* of the padded 32, the real ones */
      double expected = log(total) - row[(int)token[s * LENGTH + t + 1]];
      cr_assert_float_eq(nll[s * (LENGTH - 1) + t], expected, 1e-6, "sequence %lld, token %lld: nll %g, expected %g",
                         (long long)s, (long long)t, nll[s * (LENGTH - 1) + t], expected);
      sum += expected;
    }
  cr_assert_float_eq(summary.nll, sum / (N_SEQ * (LENGTH - 1)), 1e-6, "mean nll %g", summary.nll);
  free(logits), free(nll), free(token);
}

/* ---- refused */

static void expect_refused(const ScoreFiles *files, Code code, const char *phrase, const char *name) {
  ScoreSummary summary;
  Status status = run_score(1, files, &summary);
  cr_assert(status.code == CODE_OK || !strchr(status.line, '\n'), "%s: more than one line: %s", name, status.line);
  store_expect(status, code, phrase, name);
  cr_assert_neq(access(files->out, F_OK), 0, "%s: refused, but %s was written", name, files->out);
}

/* A copy of state.h5, with one dataset left out, or given another shape, or a NaN, and one put in. */
typedef struct Damage {
  const char *name, *without, *misshapen, *nan, *extra, *phrase;
} Damage;

static const char *const PATHS[] = {"layers/0/angle", "layers/0/ssm", "layers/0/k", "layers/0/v",
                                    "layers/1/angle", "layers/1/ssm", "layers/1/k", "layers/1/v"};

static bool is(const char *a, const char *b) { return a && !strcmp(a, b); }

static void write_damaged(const Damage *damage) {
  H5File *out;
  store_ok(h5_create("damaged.h5", 1 << 20, false, CODE_DATA, &out), damage->name);
  for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++) {
    if (is(damage->without, PATHS[i])) continue;
    H5Shape shape;
    float *values = read_floats("state.h5", PATHS[i], &shape);
    if (is(damage->misshapen, PATHS[i])) shape.dim[shape.n_dim - 1]--;
    if (is(damage->nan, PATHS[i])) values[shape.count - 1] = NAN;
    store_ok(h5_write(out, PATHS[i], H5_F32, shape.n_dim, shape.dim, values), damage->name);
    free(values);
  }
  const int64_t one = 1;
  if (damage->extra) store_ok(h5_write(out, damage->extra, H5_F32, 1, &one, &(float){0}), damage->name);
  store_ok(h5_commit(out), damage->name);
}

Test(score, refuses_a_state_file_that_is_not_this_models) {
  write_weights(1);
  write_tokens("tokens.h5", 0, LENGTH);
  score_or_fail(1, &(ScoreFiles){.tokens = "tokens.h5", .out = "whole.h5", .state_out = "state.h5"});
  static const Damage DAMAGES[] = {
      {"missing", .without = "layers/1/k", .phrase = "damaged.h5: layers/1/k"},
      {"misshapen", .misshapen = "layers/0/v", .phrase = "layers/0/v: found (3, 6, 7), expected (3, 6, 8)"},
      {"not finite", .nan = "layers/1/ssm", .phrase = "layers/1/ssm: element 1727 is not finite"},
      {"of another kind", .extra = "layers/0/conv", .phrase = "layers/0/conv: this model's layers have none"},
      {"of a deeper model", .extra = "layers/2/ssm", .phrase = "layers: found 3, expected the model's 2"}};
  for (size_t i = 0; i < sizeof DAMAGES / sizeof *DAMAGES; i++) {
    write_damaged(&DAMAGES[i]);
    expect_refused(&(ScoreFiles){.tokens = "tokens.h5", .out = "none.h5", .state_in = "damaged.h5"}, CODE_DATA,
                   DAMAGES[i].phrase, DAMAGES[i].name);
  }
  write_damaged(&(Damage){.name = "undamaged"});
  score_or_fail(1, &(ScoreFiles){.tokens = "tokens.h5", .out = "fine.h5", .state_in = "damaged.h5"});

  H5File *file;
  int32_t one = 1;
  store_ok(h5_create("single.h5", 1 << 16, false, CODE_DATA, &file), "single.h5");
  store_ok(h5_write(file, "tokens", H5_I32, 2, (const int64_t[]){1, 1}, &one), "single.h5");
  store_ok(h5_commit(file), "single.h5");
  expect_refused(&(ScoreFiles){.tokens = "single.h5", .out = "none.h5", .state_in = "state.h5"}, CODE_DATA,
                 "found the states of 3 sequences, expected 1", "another batch");
  expect_refused(&(ScoreFiles){.tokens = "tokens.h5", .out = "none.h5", .state_in = "nowhere.h5"}, CODE_DATA,
                 "nowhere.h5", "no file");
}

/* Three sequences that have read a different number of tokens: their lengths are counted. */
Test(score, goes_on_from_states_of_attention_that_are_of_different_lengths) {
  write_weights(HYBRID);
  write_tokens("tokens.h5", 0, LENGTH);
  score_or_fail(HYBRID, &(ScoreFiles){.tokens = "tokens.h5", .out = "whole.h5"});
  write_tokens("a.h5", 0, 9);
  score_or_fail(HYBRID, &(ScoreFiles){.tokens = "a.h5", .out = "head.h5", .state_out = "state.h5"});
  H5Shape shape;
  float *length = read_floats("state.h5", "length", &shape);
  cr_assert(shape.n_dim == 1 && shape.count == N_SEQ && length[0] == 9 && length[2] == 9, "lengths behind 9 tokens");
  free(length);
  OpenModel open;
  store_ok(open_find(&open, "weights", NULL, NULL, 0), "open");
  Model *model = model_new(&open.config.model);
  StateBatch batch;
  store_ok(state_file_read("state.h5", model, N_SEQ, &batch), "read");
  model_state_put(model, NULL, &batch.state, 1, NULL, 0); /* the second one starts anew */
  store_ok(state_file_save("state.h5", model, NULL, &batch.state), "save");
  state_batch_free(&batch);
  model_free(model);
  open_close(&open);
  write_tokens("b.h5", 9, 4);
  score_or_fail(HYBRID, &(ScoreFiles){.tokens = "b.h5", .out = "tail.h5", .state_in = "state.h5"});
  score_or_fail(HYBRID, &(ScoreFiles){.tokens = "b.h5", .out = "anew.h5"});
  H5Shape all;
  float *whole = read_floats("whole.h5", "logits", &all), *tail = read_floats("tail.h5", "logits", &shape);
  float *anew = read_floats("anew.h5", "logits", &shape);
  for (int64_t s = 0; s < N_SEQ; s++)
    for (int64_t i = 0; i < 4 * all.dim[2]; i++) {
      const float want = s == 1 ? anew[4 * all.dim[2] + i] : whole[(s * LENGTH + 9) * all.dim[2] + i];
      cr_assert_float_eq(tail[s * 4 * all.dim[2] + i], want, 2e-6, "sequence %lld, logit %lld: %g, expected %g",
                         (long long)s, (long long)i, tail[s * 4 * all.dim[2] + i], want);
    }
  free(whole), free(tail), free(anew);
}

Test(score, refuses_lengths_that_the_keys_do_not_have) {
  write_weights(HYBRID);
  write_tokens("tokens.h5", 0, LENGTH);
  static const struct {
    int n;
    int32_t length[4];
    const char *phrase;
  } CASES[] = {{3, {0, 24, 1}, "length[1]: found 24, expected 0 to 23"},
               {3, {0, 1, -1}, "length[2]: found -1"},
               {2, {1, 1}, "length: found 1 dimensions and 2 elements, expected (3)"}};
  for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
    score_or_fail(HYBRID, &(ScoreFiles){.tokens = "tokens.h5", .out = "whole.h5", .state_out = "state.h5"});
    static const char *const FIELDS[] = {"layers/0/angle", "layers/0/ssm", "layers/0/k",    "layers/0/v",
                                         "layers/1/conv",  "layers/1/key", "layers/1/value"};
    H5File *file;
    store_ok(h5_create("other.h5", 1 << 20, false, CODE_DATA, &file), "other.h5");
    for (size_t f = 0; f < sizeof FIELDS / sizeof *FIELDS; f++) {
      H5Shape shape;
      float *values = read_floats("state.h5", FIELDS[f], &shape);
      store_ok(h5_write(file, FIELDS[f], H5_F32, shape.n_dim, shape.dim, values), FIELDS[f]);
      free(values);
    }
    const int64_t n = CASES[c].n;
    store_ok(h5_write(file, "length", H5_I32, 1, &n, CASES[c].length), "length");
    store_ok(h5_commit(file), "other.h5");
    ScoreSummary summary;
    Status status =
        run_score(HYBRID, &(ScoreFiles){.tokens = "tokens.h5", .out = "none.h5", .state_in = "other.h5"}, &summary);
    store_expect(status, CODE_DATA, CASES[c].phrase, CASES[c].phrase);
  }
}

Test(score, stops_at_a_likelihood_that_is_not_finite) {
  write_weights(1);
  write_tokens("tokens.h5", 0, LENGTH);
  FILE *file = fopen("weights/model.safetensors", "r+b");
  const float nan_value = NAN; /* the last tensor is norm_f.weight */
  cr_assert(file && !fseek(file, -4, SEEK_END) && fwrite(&nan_value, 4, 1, file) == 1 && !fclose(file), "plant a NaN");
  expect_refused(&(ScoreFiles){.tokens = "tokens.h5", .out = "none.h5", .state_out = "state.h5"}, CODE_NONFINITE,
                 "tokens[0, 1] is not finite", "NaN in norm_f");
  cr_assert_neq(access("state.h5", F_OK), 0, "the states of a failed scoring were written");
}
