/* States and decoding: a sequence cut anywhere, its tokens one by one, several sequences at once, and what generation makes of
 * them. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "tests/support/subject.h"

enum { N_TOKENS = 19 };

static Tensor *slice(Arena *arena, const Tensor *token, int first, int n) {
  Tensor *part = tensor_new1(arena, I32, n);
  memcpy(part->data, (const int32_t *)token->data + first, (size_t)n * sizeof(int32_t));
  return part;
}

/* Logits of tokens [first, first + n), from a state and to one where wanted. */
static Tensor *logits_of(Subject *s, const Tensor *token, int first, int n, const ModelState *in, ModelState *out) {
  Tape tape = tape_make(&s->device, s->act, false);
  if (out) *out = model_state_out(s->model, &tape, 1, first + n);
  return lm_logits(s->model, &tape, slice(&s->device.step, token, first, n), model_equal_seqlens(&tape, 1, n), in, out,
                   NULL);
}

/* ---- a sequence cut in two */

Test(state, carries_a_sequence_over_any_cut) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F64);
    Tensor *token = subject_tokens(&s.device.step, N_TOKENS, 2);
    Tensor *whole = logits_of(&s, token, 0, N_TOKENS, NULL, NULL);
    const int64_t width = tensor_last(whole);
    for (int cut = 1; cut < N_TOKENS; cut++) {
      const size_t mark = arena_mark(&s.device.step);
      ModelState state, end;
      Tensor *head = logits_of(&s, token, 0, cut, NULL, &state);
      Tensor *tail = logits_of(&s, token, cut, N_TOKENS - cut, &state, &end);
      double error = fmax(largest_difference(whole, 0, head, 0, cut * width),
                          largest_difference(whole, cut * width, tail, 0, (N_TOKENS - cut) * width));
      cr_assert_lt(error, 1e-12, "%s, cut at %d: logits differ by %g", SUBJECT_KINDS[k].name, cut, error);
      arena_rewind(&s.device.step, mark);
    }
    subject_close(&s);
  }
}

/* The gradients of the summed nll of tokens cut in two at `cut`, 0: in one pass. One tape: they run through the state. */
static double *gradients_cut_at(Subject *s, const Tensor *token, int n, int cut) {
  const size_t mark = arena_mark(&s->device.step);
  params_zero_grads(&s->model->params);
  Tape tape = tape_make(&s->device, s->act, true);
  Arena *arena = &s->device.step;
  ModelState state = {0};
  for (int first = 0, end = cut ? cut : n; first < n; first = end, end = n) {
    ModelState out, *to = end < n ? &out : NULL;
    if (to) out = model_state_out(s->model, &tape, 1, end);
    Tensor *piece = slice(arena, token, first, end - first);
    Tensor *nll =
        lm_nll(s->model, &tape, piece, piece, model_equal_seqlens(&tape, 1, end - first), first ? &state : NULL, to);
    Tensor *dnll = tape_grad(&tape, nll);
    for (int i = 0; i < end - first; i++) tensor_set(dnll, i, 1);
    state = out;
  }
  tape_backward(&tape);
  const Tensor *flat = &s->model->params.grads_flat;
  double *values = malloc((size_t)tensor_count(flat) * sizeof *values);
  for (int64_t i = 0; i < tensor_count(flat); i++) values[i] = tensor_get(flat, i);
  tape_reset(&tape, mark);
  return values;
}

static double worst_relative(const double *a, const double *b, int64_t n) {
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(b[i]));
  for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs(a[i] - b[i]));
  return worst / largest;
}

Test(state, carries_gradients_back_over_any_cut) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F64);
    const Tensor *token = subject_tokens(&s.device.weights, N_TOKENS, 2);
    const int64_t n = tensor_count(&s.model->params.grads_flat);
    double *whole = gradients_cut_at(&s, token, N_TOKENS, 0);
    for (int cut = 1; cut < N_TOKENS; cut++) {
      double *parts = gradients_cut_at(&s, token, N_TOKENS, cut);
      const double error = worst_relative(parts, whole, n);
      cr_assert_lt(error, 1e-11, "%s, cut at %d: gradients differ by %g", SUBJECT_KINDS[k].name, cut, error);
      free(parts);
    }
    free(whole);
    subject_close(&s);
  }
}

/* In float, over chunks, tiles and blocks of attention: a difference is rounding. */
Test(state, carries_two_hundred_tokens_over_any_cut_in_float) {
  enum { N = 200 };
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    config.ssm_cfg.chunk_size = 64;
    Subject s = subject_open(&config, F32);
    const Tensor *token = subject_tokens(&s.device.weights, N, 3);
    Tensor *whole = logits_of(&s, token, 0, N, NULL, NULL);
    const int64_t width = tensor_last(whole), n_grad = tensor_count(&s.model->params.grads_flat);
    double *gradient = gradients_cut_at(&s, token, N, 0);
    for (int cut = 1; cut < N; cut++) {
      const size_t mark = arena_mark(&s.device.step);
      ModelState state;
      logits_of(&s, token, 0, cut, NULL, &state);
      Tensor *tail = logits_of(&s, token, cut, N - cut, &state, NULL);
      double error = largest_difference(whole, cut * width, tail, 0, (N - cut) * width);
      cr_assert_lt(error, 2e-6, "%s, cut at %d: logits differ by %g", SUBJECT_KINDS[k].name, cut, error);
      arena_rewind(&s.device.step, mark);
      double *parts = gradients_cut_at(&s, token, N, cut);
      error = worst_relative(parts, gradient, n_grad);
      cr_assert_lt(error, 1e-5, "%s, cut at %d: gradients differ by %g", SUBJECT_KINDS[k].name, cut, error);
      free(parts);
    }
    free(gradient);
    subject_close(&s);
  }
}

/* ---- token by token */

static const struct {
  Dtype act;
  double tolerance; /* of logits below 1; bf16: activations that round the other way */
} TYPES[] = {{F64, 1e-12}, {F32, 2e-6}, {BF16, 2e-2}};

static void put_options(ModelConfig *c, int option) {
  c->ssm_cfg.d_conv = option == 1 ? 1 : 4;
  c->ssm_cfg.D_has_hdim = c->ssm_cfg.bias = option == 1;
  c->ssm_cfg.norm_before_gate = c->ssm_cfg.is_outproj_norm = option == 1;
  c->ssm_cfg.rope_fraction = option == 2 ? 0 : option == 1 ? 1 : 0.5;
  c->ssm_cfg.rmsnorm = option != 2;
  c->ssm_cfg.A_softplus = option == 2;
  c->ssm_cfg.dt_limit[0] = 0.01, c->ssm_cfg.dt_limit[1] = option == 1 ? 0.02 : INFINITY;
  if (option == 1 && c->ssm_cfg.layer == LAYER_MAMBA2) c->ssm_cfg.d_ssm = 32;
  if (option == 2) c->ssm_cfg.d_state = 48, c->ssm_cfg.mimo_rank = 5;
}

Test(decoding, by_single_steps_gives_the_logits_of_one_pass) {
  for (int i = 0; i < SUBJECT_N_KINDS * 9; i++) {
    const int k = i / 9, option = i % 3, type = i / 3 % 3;
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    put_options(&config, option);
    Subject s = subject_open(&config, TYPES[type].act);
    const Tensor *token = subject_tokens(&s.device.weights, N_TOKENS, 4);
    Tensor *whole = logits_of(&s, token, 0, N_TOKENS, NULL, NULL);
    const int64_t width = tensor_last(whole);
    Tape tape = tape_make(&s.device, s.act, false);
    for (int prompt = 0; prompt < N_TOKENS; prompt += 6) {
      ModelState state = model_start_state(s.model, &s.device, &s.device.step, tape_real(&tape), 1, N_TOKENS);
      if (prompt > 0) {
        ModelState out;
        logits_of(&s, token, 0, prompt, NULL, &out);
        model_state_put(s.model, &s.device, &state, 0, &out, 0);
      }
      for (int t = prompt; t < N_TOKENS; t++) {
        Tensor *row = lm_step(s.model, &tape, slice(&s.device.step, token, t, 1), &state);
        const double error = largest_difference(whole, t * width, row, 0, width);
        cr_assert_lt(error, TYPES[type].tolerance, "%s, options %d, %s, token %d after %d at once: logits differ by %g",
                     SUBJECT_KINDS[k].name, option, dtype_name(s.act), t, prompt, error);
      }
    }
    subject_close(&s);
  }
}

/* Two thousand tokens: a stationary state, and a perplexity. */
Test(decoding, by_single_steps_gives_the_perplexity_of_one_pass) {
  enum { N = 2000 };
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F32);
    const Tensor *token = subject_tokens(&s.device.weights, N + 1, 5);
    const int32_t *id = token->data;
    Tensor *whole = logits_of(&s, token, 0, N, NULL, NULL);
    const int64_t width = tensor_last(whole);
    Decoder decoder = decoder_open(s.model, &s.device, s.act, 1, N);
    float *row = malloc((size_t)width * sizeof *row);
    double nll[2] = {0};
    for (int t = 0; t < N; t++) {
      decoder_step(&decoder, id + t, row);
      double total[2] = {0};
      for (int v = 0; v < 29; v++) total[0] += exp(tensor_get(whole, t * width + v)), total[1] += exp((double)row[v]);
      nll[0] += log(total[0]) - tensor_get(whole, t * width + id[t + 1]);
      nll[1] += log(total[1]) - (double)row[id[t + 1]];
    }
    const double relative = fabs(exp((nll[1] - nll[0]) / N) - 1);
    cr_assert_lt(relative, 1e-5, "%s: perplexity by steps differs by %g of that by one pass", SUBJECT_KINDS[k].name,
                 relative);
    free(row);
    subject_close(&s);
  }
}

/* A prompt longer than what is scanned at once, and tokens read in runs of any length. */
Test(decoding, reads_a_prompt_in_pieces_as_a_whole) {
  enum { N = 2100 };
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F32);
    const Tensor *token = subject_tokens(&s.device.weights, N, 6);
    Tensor *whole = logits_of(&s, token, 0, N, NULL, NULL);
    const int64_t width = tensor_last(whole);
    float *row = malloc((size_t)width * sizeof *row);
    const Tensor found = tensor_over(row, F32, 1, &width);
    Decoder decoder = decoder_open(s.model, &s.device, s.act, 2, N);
    decoder_read(&decoder, 1, token->data, N, row);
    double error = largest_difference(whole, (N - 1) * width, &found, 0, width);
    cr_assert_lt(error, 2e-6, "%s, at once: logits differ by %g", SUBJECT_KINDS[k].name, error);
    for (int first = 0, n = 1; first < N; first += n, n = n < 900 ? 3 * n : N - first)
      decoder_read(&decoder, 0, (const int32_t *)token->data + first, n < N - first ? n : N - first, row);
    error = largest_difference(whole, (N - 1) * width, &found, 0, width);
    cr_assert_lt(error, 2e-6, "%s, in runs: logits differ by %g", SUBJECT_KINDS[k].name, error);
    free(row);
    subject_close(&s);
  }
}

Test(decoding, of_sequences_of_other_lengths_together_is_that_of_each_alone) {
  enum { N_SEQ = 3, N_STEPS = 5 };
  static const int LENGTHS[N_SEQ] = {1, 9, 4};
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F32);
    const int64_t width = model_padded_vocab(&config);
    float *together = malloc((size_t)(N_SEQ * width) * sizeof *together),
          *alone = malloc((size_t)width * sizeof *alone);
    Decoder all = decoder_open(s.model, &s.device, s.act, N_SEQ, N_TOKENS), one[N_SEQ];
    const int32_t *id[N_SEQ];
    for (int i = 0; i < N_SEQ; i++) {
      id[i] = subject_tokens(&s.device.weights, N_TOKENS, (uint64_t)(10 + i))->data;
      one[i] = decoder_open(s.model, &s.device, s.act, 1, N_TOKENS);
      decoder_read(&all, i, id[i], LENGTHS[i], NULL);
      decoder_read(&one[i], 0, id[i], LENGTHS[i], NULL);
    }
    for (int step = 0; step < N_STEPS; step++) {
      int32_t next[N_SEQ];
      for (int i = 0; i < N_SEQ; i++) next[i] = id[i][LENGTHS[i] + step];
      decoder_step(&all, next, together);
      for (int i = 0; i < N_SEQ; i++) {
        decoder_step(&one[i], &next[i], alone);
        cr_assert_arr_eq(together + i * width, alone, (size_t)width * sizeof *alone,
                         "%s, sequence %d, step %d: other bits", SUBJECT_KINDS[k].name, i, step);
      }
    }
    free(together), free(alone);
    subject_close(&s);
  }
}

Test(decoding, goes_on_the_same_from_rows_that_were_exchanged_and_starts_anew_from_a_reset_one) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F32);
    const int64_t width = model_padded_vocab(&config);
    float *logits = malloc((size_t)(2 * width) * sizeof *logits), *moved = malloc((size_t)(3 * width) * sizeof *moved);
    const int32_t *id = subject_tokens(&s.device.weights, N_TOKENS, 20)->data;
    Decoder from = decoder_open(s.model, &s.device, s.act, 2, N_TOKENS);
    Decoder to = decoder_open(s.model, &s.device, s.act, 3, 2 * N_TOKENS);
    decoder_read(&from, 0, id, 7, NULL);
    decoder_read(&from, 1, id + 7, 3, NULL);
    decoder_read(&to, 2, id, 5, NULL);
    model_state_put(s.model, &s.device, &to.state, 0, &from.state, 1);
    model_state_put(s.model, &s.device, &to.state, 1, &from.state, 0);
    model_state_put(s.model, &s.device, &to.state, 2, NULL, 0);
    decoder_step(&from, (const int32_t[]){id[12], id[13]}, logits);
    decoder_step(&to, (const int32_t[]){id[13], id[12], id[14]}, moved);
    cr_assert_arr_eq(moved, logits + width, (size_t)width * sizeof *logits, "%s: row 1 as row 0",
                     SUBJECT_KINDS[k].name);
    cr_assert_arr_eq(moved + width, logits, (size_t)width * sizeof *logits, "%s: row 0 as row 1",
                     SUBJECT_KINDS[k].name);
    Decoder fresh = decoder_open(s.model, &s.device, s.act, 1, N_TOKENS);
    decoder_step(&fresh, &id[14], logits);
    cr_assert_arr_eq(moved + 2 * width, logits, (size_t)width * sizeof *logits, "%s: the reset row",
                     SUBJECT_KINDS[k].name);
    free(logits), free(moved);
    subject_close(&s);
  }
}

Test(decoding, does_not_depend_on_the_threads) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    config.d_model = config.ssm_cfg.d_model = 256, config.n_layer = 2; /* large enough to be shared out */
    Subject s = subject_open(&config, F32);
    const int64_t width = model_padded_vocab(&config);
    float *logits[2];
    for (int i = 0; i < 2; i++) {
      omp_set_num_threads(i ? 5 : 1);
      logits[i] = malloc((size_t)width * sizeof **logits);
      Decoder decoder = decoder_open(s.model, &s.device, s.act, 1, 4);
      for (int32_t t = 0; t < 4; t++) decoder_step(&decoder, &t, logits[i]);
    }
    cr_assert_arr_eq(logits[0], logits[1], (size_t)width * sizeof **logits, "%s: five threads give other bits than one",
                     SUBJECT_KINDS[k].name);
    free(logits[0]), free(logits[1]);
    subject_close(&s);
  }
}

Test(decoding, takes_on_a_dry_device_what_it_takes) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Device devices[2];
    for (int dry = 0; dry < 2; dry++) {
      Device *device = &devices[dry];
      Status status = dry ? device_open_dry(device, "cpu", F32) : device_open(device, "cpu", F32, SUBJECT_SIZES);
      cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
      Model *model = model_new(&config);
      params_alloc(&model->params, device, F32, false, 0);
      params_init(&model->params, 1);
      if (dry) {
        decoder_plan(model, device, F32, 2, 1500, 1600);
      } else {
        Decoder decoder = decoder_open(model, device, F32, 2, 1600);
        int32_t prompt[1500] = {0}, last[2] = {1, 2};
        float *logits = malloc((size_t)(2 * model_padded_vocab(&config)) * sizeof *logits);
        decoder_read(&decoder, 0, prompt, 1500, logits);
        decoder_read(&decoder, 1, prompt, 3, logits);
        decoder_step(&decoder, last, logits);
        free(logits);
      }
      model_free(model);
    }
    const Arena *real[] = {&devices[0].weights, &devices[0].step, &devices[0].scratch};
    const Arena *plan[] = {&devices[1].weights, &devices[1].step, &devices[1].scratch};
    for (int a = 0; a < 3; a++)
      cr_assert_eq(real[a]->peak_bytes, plan[a]->peak_bytes, "%s, arena %d: %zu bytes, planned %zu",
                   SUBJECT_KINDS[k].name, a, real[a]->peak_bytes, plan[a]->peak_bytes);
    device_close(&devices[0]);
    device_close(&devices[1]);
  }
}

/* ---- generation */

typedef struct Told {
  int32_t tokens[64];
  int n, stop_after;
} Told;

static bool tell(void *user, int64_t s, int32_t token) {
  Told *told = (Told *)user + s;
  told->tokens[told->n++] = token;
  return told->n < told->stop_after;
}

static Generate generate_one(const int32_t *const *prompt, const int64_t *n_prompt, int64_t n_new, Told *told) {
  *told = (Told){.stop_after = 100};
  return (Generate){.prompt = prompt, .n_prompt = n_prompt, .n_new = n_new, .on_token = tell, .user = told};
}

/* Where the two ways differ, the two likeliest logits must be as good as equal. ASPIS_PROMPTS=1000: as many of each kind. */
Test(generation, with_the_state_kept_makes_the_tokens_of_prefixes_computed_anew) {
  enum { N_NEW = 64 };
  const char *asked = getenv("ASPIS_PROMPTS");
  const int n_prompts = asked ? atoi(asked) : 40;
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F32);
    for (int p = 0; p < n_prompts; p++) {
      const size_t mark = arena_mark(&s.device.weights);
      const int64_t n_prompt = 1 + p % 40 * 3;
      const int32_t *prompt = subject_tokens(&s.device.weights, (int)n_prompt, (uint64_t)(100 + p))->data;
      Told kept, anew;
      Decoder decoder = decoder_open(s.model, &s.device, F32, 1, n_prompt + N_NEW);
      Generate g = generate_one(&prompt, &n_prompt, N_NEW, &kept);
      cr_assert_eq(generate_tokens(&decoder, &g), N_NEW, "%s: tokens made", SUBJECT_KINDS[k].name);
      g = generate_one(&prompt, &n_prompt, N_NEW, &anew);
      cr_assert_eq(generate_uncached(s.model, &s.device, F32, &g), N_NEW, "%s: tokens made", SUBJECT_KINDS[k].name);
      for (int i = 0; i < N_NEW && kept.tokens[i] != anew.tokens[i]; i++) {
        int32_t all[256];
        memcpy(all, prompt, (size_t)n_prompt * sizeof *all);
        memcpy(all + n_prompt, anew.tokens, (size_t)i * sizeof *all);
        Tensor token = tensor_over(all, I32, 1, (const int64_t[]){n_prompt + i});
        Tensor *logits = logits_of(&s, &token, 0, (int)n_prompt + i, NULL, NULL);
        const int64_t last = (n_prompt + i - 1) * tensor_last(logits);
        const double gap = tensor_get(logits, last + anew.tokens[i]) - tensor_get(logits, last + kept.tokens[i]);
        cr_assert_lt(gap, 1e-5, "%s, prompt %d, token %d: %d with the state kept, %d anew, logits %g apart",
                     SUBJECT_KINDS[k].name, p, i, kept.tokens[i], anew.tokens[i], gap);
        break;
      }
      arena_rewind(&s.device.weights, mark);
    }
    subject_close(&s);
  }
}

Test(generation, stops_a_sequence_where_it_is_told_to_and_leaves_the_arena_as_it_was) {
  ModelConfig config = subject_config(LAYER_MAMBA3, true, false);
  Subject s = subject_open(&config, F32);
  const int32_t tokens[] = {3, 1, 4}, *const prompt[] = {tokens, tokens};
  const int64_t n_prompt[] = {3, 2};
  Decoder decoder = decoder_open(s.model, &s.device, F32, 2, 16);
  const size_t mark = arena_mark(&s.device.step);
  Told told[2] = {{.stop_after = 2}, {.stop_after = 5}};
  Generate g = {.prompt = prompt, .n_prompt = n_prompt, .n_new = 10, .on_token = tell, .user = told};
  const int64_t made = generate_tokens(&decoder, &g);
  cr_assert_eq(made, 7, "stopped after 2 and 5, %d made", (int)made);
  cr_assert(told[0].n == 2 && told[1].n == 5, "told %d and %d tokens", told[0].n, told[1].n);
  cr_assert_eq(arena_mark(&s.device.step), mark, "step arena not rewound");
  subject_close(&s);
}

Test(generation, repeats_itself_with_a_seed_and_not_with_another) {
  ModelConfig config = subject_config(LAYER_MAMBA2, false, false);
  Subject s = subject_open(&config, F32);
  const int32_t tokens[] = {5}, *const prompt[] = {tokens, tokens};
  const int64_t n_prompt[] = {1, 1};
  Told told[3][2];
  for (int i = 0; i < 3; i++) {
    Decoder decoder = decoder_open(s.model, &s.device, F32, 2, 17);
    told[i][0] = told[i][1] = (Told){.stop_after = 100};
    Generate g = {.prompt = prompt, .n_prompt = n_prompt, .n_new = 16, .on_token = tell, .user = told[i]};
    g.sample = (SampleOptions){.temperature = 1, .top_p = 1, .seed = i < 2 ? 11 : 12};
    generate_tokens(&decoder, &g);
  }
  cr_assert_arr_eq(told[0][0].tokens, told[1][0].tokens, sizeof(int32_t) * 16, "seed 11 twice");
  cr_assert_arr_eq(told[0][1].tokens, told[1][1].tokens, sizeof(int32_t) * 16, "seed 11 twice, second sample");
  cr_assert_neq(memcmp(told[0][0].tokens, told[2][0].tokens, sizeof(int32_t) * 16), 0, "seeds 11 and 12");
  cr_assert_neq(memcmp(told[0][0].tokens, told[0][1].tokens, sizeof(int32_t) * 16), 0, "two samples of a seed");
  subject_close(&s);
}

Test(sampling, penalizes_each_token_that_came_before_once) {
  float logits[] = {2, -1, 4, 0.5f};
  Tensor row = tensor_over(logits, F32, 2, (const int64_t[]){1, 4});
  sample_penalize(&row, 0, 2, (const int32_t[]){2, 1, 2}, 3);
  static const float EXPECTED[] = {2, -2, 2, 0.5f};
  for (int i = 0; i < 4; i++)
    cr_assert_eq(logits[i], EXPECTED[i], "logit %d: %g, expected %g", i, logits[i], EXPECTED[i]);
}
