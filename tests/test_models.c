/* Models: presets, and what must hold of a whole model whatever its kernels do. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "tensor/rng.h"
#include "tests/support/subject.h"

enum { N_TOKENS = 19 };

static Model *preset_model(const char *name) {
  ModelConfig config;
  cr_assert(model_preset(name, &config), "%s: no such preset", name);
  return model_new(&config);
}

/* ---- presets and shapes */

Test(presets, have_the_published_parameter_counts) {
  static const struct {
    const char *name;
    long long n;
  } COUNTS[] = {{"mamba2-130m", 128989632},  {"mamba2-370m", 368346624},      {"mamba2-780m", 780161280},
                {"mamba2-1.3b", 1343757312}, {"mamba2-2.7b", 2702599680},     {"mamba3-180m", 186849600},
                {"mamba3-1.5b", 1494723584}, {"mamba3-1.5b-mimo", 1497082880}};
  for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++) {
    Model *model = preset_model(COUNTS[i].name);
    cr_assert_eq(params_count(&model->params), COUNTS[i].n, "%s: %lld parameters, published %lld", COUNTS[i].name,
                 (long long)params_count(&model->params), COUNTS[i].n);
    model_free(model);
  }
}

Test(presets, are_all_valid_and_near_the_size_in_their_name) {
  for (const char *const *name = model_preset_names(); *name; name++) {
    ModelConfig config;
    cr_assert(model_preset(*name, &config), "%s: listed but not found", *name);
    char *problem = model_config_problem(&config);
    cr_assert_null(problem, "%s: %s", *name, problem);
    const char *dash = strchr(*name, '-');
    if (!dash) continue;
    char *unit;
    double named = strtod(dash + 1, &unit) * (*unit == 'b' ? 1e9 : 1e6);
    Model *model = model_new(&config);
    double ratio = (double)params_count(&model->params) / named;
    cr_assert(ratio > 0.93 && ratio < 1.05, "%s: %lld parameters", *name, (long long)params_count(&model->params));
    model_free(model);
  }
  ModelConfig config;
  cr_assert_not(model_preset("mamba4-1b", &config), "an unknown preset was found");
}

Test(presets, mimo_takes_the_mlp_width_from_the_weights_when_told) {
  ModelConfig config;
  model_preset("mamba3-1.5b-mimo", &config);
  config.d_mlp = 3824;
  Model *model = model_new(&config);
  cr_assert_eq(params_count(&model->params), 1494723584, "mamba3-1.5b-mimo with fc1 of 3824: %lld parameters",
               (long long)params_count(&model->params));
  model_free(model);
}

Test(config, refuses_what_cannot_be_built_and_names_the_key) {
  const ModelConfig good = subject_config(LAYER_MAMBA2, false, true);
  char *none = model_config_problem(&good);
  cr_assert_null(none, "a valid config: %s", none);
  static const char *const KEYS[] = {"ssm_cfg.headdim", "ssm_cfg.ngroups",        "ssm_cfg.d_ssm", "n_layer",
                                     "attn_layer_idx",  "attn_cfg.num_heads_kv",  "vocab_size",    "ssm_cfg.dt_limit",
                                     "ssm_cfg.d_model", "attn_cfg.rotary_emb_dim"};
  ModelConfig bad[sizeof KEYS / sizeof *KEYS];
  for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) bad[i] = good;
  bad[0].ssm_cfg.headdim = 7;
  bad[1].ssm_cfg.ngroups = 4;
  bad[2].ssm_cfg.d_ssm = 49;
  bad[3].n_layer = 0;
  bad[4].attn_layer_idx[0] = 3;
  bad[5].attn_cfg.num_heads_kv = 3;
  bad[6].vocab_size = 0;
  bad[7].ssm_cfg.dt_limit[0] = NAN;
  bad[8].ssm_cfg.d_model = 25;
  bad[9].attn_cfg.rotary_emb_dim = 5;
  for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
    char *problem = model_config_problem(&bad[i]);
    cr_assert(problem && strncmp(problem, KEYS[i], strlen(KEYS[i])) == 0, "%s: refused with \"%s\"", KEYS[i],
              problem ? problem : "nothing");
    free(problem);
  }
}

/* ---- invariants of whole models, in double */

static Tensor *logits_of(Subject *s, Tensor *token, Tensor *cu_seqlens, const ModelState *in, ModelState *out) {
  Tape tape = tape_make(&s->device, s->act, false);
  if (!cu_seqlens) cu_seqlens = model_equal_seqlens(&tape, 1, token->dim[0]);
  return lm_logits(s->model, &tape, token, cu_seqlens, in, out, NULL);
}

static Tensor *slice(Arena *arena, const Tensor *token, int first, int n) {
  Tensor *part = tensor_new1(arena, I32, n);
  memcpy(part->data, (const int32_t *)token->data + first, (size_t)n * sizeof(int32_t));
  return part;
}

Test(models, give_the_same_logits_for_any_chunk_size) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    static const int CHUNKS[] = {1, 4, N_TOKENS, 64};
    Tensor *logits[4];
    Subject s[4];
    for (int i = 0; i < 4; i++) {
      config.ssm_cfg.chunk_size = CHUNKS[i];
      s[i] = subject_open(&config, F64);
      logits[i] = logits_of(&s[i], subject_tokens(&s[i].device.step, N_TOKENS, 1), NULL, NULL, NULL);
      double error = largest_difference(logits[i], 0, logits[0], 0, tensor_count(logits[0]));
      cr_assert_lt(error, 1e-12, "%s, chunk %d: logits differ by %g", SUBJECT_KINDS[k].name, CHUNKS[i], error);
    }
    for (int i = 0; i < 4; i++) subject_close(&s[i]);
  }
}

Test(models, run_packed_pieces_as_if_each_were_alone) {
  static const int32_t STARTS[] = {0, 1, 2, 9, N_TOKENS};
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F64);
    Arena *arena = &s.device.step;
    Tensor *token = subject_tokens(arena, N_TOKENS, 3), *cu_seqlens = tensor_new1(arena, I32, 5);
    memcpy(cu_seqlens->data, STARTS, sizeof STARTS);
    Tensor *packed = logits_of(&s, token, cu_seqlens, NULL, NULL);
    const int64_t width = tensor_last(packed);
    for (int i = 0; i < 4; i++) {
      int n = STARTS[i + 1] - STARTS[i];
      Tensor *alone = logits_of(&s, slice(arena, token, STARTS[i], n), NULL, NULL, NULL);
      double error = largest_difference(packed, STARTS[i] * width, alone, 0, n * width);
      cr_assert_lt(error, 1e-12, "%s, piece %d: logits differ by %g", SUBJECT_KINDS[k].name, i, error);
    }
    subject_close(&s);
  }
}

/* Lengths from 1 on: the losses in double to the last bit, the gradients but for the order of the sums over tokens. */
Test(models, have_the_loss_and_the_gradients_of_packed_pieces_alone) {
  static const int32_t STARTS[] = {0, 1, 2, 9, N_TOKENS};
  for (int k = 0; k < SUBJECT_N_KINDS * 2; k++) {
    const SubjectKind *kind = &SUBJECT_KINDS[k / 2];
    ModelConfig config = subject_config(kind->layer, kind->is_mimo, kind->hybrid);
    Subject s = subject_open(&config, k % 2 ? F32 : F64);
    const Tensor *flat = &s.model->params.grads_flat, *token = subject_tokens(&s.device.weights, N_TOKENS, 3);
    const int64_t n = tensor_count(flat);
    double nll[2][N_TOKENS], *gradient[2];
    for (int alone = 0; alone < 2; alone++) {
      params_zero_grads(&s.model->params);
      for (int piece = 0; piece < (alone ? 4 : 1); piece++) {
        const size_t mark = arena_mark(&s.device.step);
        const int first = alone ? STARTS[piece] : 0, end = alone ? STARTS[piece + 1] : N_TOKENS;
        Tape tape = tape_make(&s.device, s.act, true);
        Tensor *cu_seqlens = model_equal_seqlens(&tape, alone ? 1 : 4, end - first);
        if (!alone) memcpy(cu_seqlens->data, STARTS, sizeof STARTS);
        Tensor *id = slice(&s.device.step, token, first, end - first);
        Tensor *loss = lm_nll(s.model, &tape, id, id, cu_seqlens, NULL, NULL), *dloss = tape_grad(&tape, loss);
        for (int t = first; t < end; t++) {
          nll[alone][t] = tensor_get(loss, t - first);
          tensor_set(dloss, t - first, 1);
        }
        tape_backward(&tape);
        tape_reset(&tape, mark);
      }
      gradient[alone] = malloc((size_t)n * sizeof(double));
      for (int64_t i = 0; i < n; i++) gradient[alone][i] = tensor_get(flat, i);
    }
    const bool exact = s.act == F64;
    for (int t = 0; t < N_TOKENS; t++)
      cr_assert(exact ? nll[0][t] == nll[1][t] : fabs(nll[0][t] - nll[1][t]) < 2e-6,
                "%s %s, token %d: nll %.17g, alone %.17g", kind->name, dtype_name(s.act), t, nll[0][t], nll[1][t]);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
      worst = fmax(worst, fabs(gradient[0][i] - gradient[1][i]));
      largest = fmax(largest, fabs(gradient[1][i]));
    }
    cr_assert_lt(worst, (exact ? 1e-13 : 2e-6) * largest, "%s %s: gradients of %g differ by %g", kind->name,
                 dtype_name(s.act), largest, worst);
    free(gradient[0]), free(gradient[1]);
    subject_close(&s);
  }
}

Test(models, do_not_see_the_future) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, F64);
    Tensor *token = subject_tokens(&s.device.step, N_TOKENS, 4);
    Tensor *before = logits_of(&s, token, NULL, NULL, NULL);
    const int64_t width = tensor_last(before);
    int32_t *changed = (int32_t *)token->data + 11;
    *changed = (*changed + 1) % 29;
    Tensor *after = logits_of(&s, token, NULL, NULL, NULL);
    cr_assert_eq(largest_difference(before, 0, after, 0, 11 * width), 0, "%s: token 11 changed the past",
                 SUBJECT_KINDS[k].name);
    cr_assert_gt(largest_difference(before, 11 * width, after, 11 * width, width), 0, "%s: token 11 changed nothing",
                 SUBJECT_KINDS[k].name);
    cr_assert_gt(largest_difference(before, 18 * width, after, 18 * width, width), 0,
                 "%s: token 11 is forgotten by token 18", SUBJECT_KINDS[k].name);
    subject_close(&s);
  }
}

Test(models, last_logits_are_the_last_row_of_all_logits) {
  ModelConfig config = subject_config(LAYER_MAMBA3, false, true);
  Subject s = subject_open(&config, F64);
  Tensor *token = subject_tokens(&s.device.step, N_TOKENS, 5), *all = logits_of(&s, token, NULL, NULL, NULL);
  Tape tape = tape_make(&s.device, F64, false);
  Tensor *last = lm_last_logits(s.model, &tape, token, NULL, NULL);
  double error = largest_difference(all, (N_TOKENS - 1) * tensor_last(all), last, 0, tensor_last(all));
  cr_assert_lt(error, 1e-13, "last logits differ by %g", error);
  subject_close(&s);
}

static const struct {
  const char *name;
  Recompute what;
} RECOMPUTE[] = {{"none", RECOMPUTE_NONE}, {"mixer", RECOMPUTE_MIXER}, {"block", RECOMPUTE_BLOCK}};
enum { N_RECOMPUTE = sizeof RECOMPUTE / sizeof *RECOMPUTE };

Test(models, take_on_a_dry_device_exactly_the_memory_of_a_real_run) {
  for (int i = 0; i < SUBJECT_N_KINDS * N_RECOMPUTE; i++) {
    const int k = i / N_RECOMPUTE;
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Device devices[2];
    for (int dry = 0; dry < 2; dry++) {
      Device *device = &devices[dry];
      Status status = dry ? device_open_dry(device, "cpu", F32) : device_open(device, "cpu", F32, SUBJECT_SIZES);
      cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
      Model *model = model_new(&config);
      model->recompute = RECOMPUTE[i % N_RECOMPUTE].what;
      params_alloc(&model->params, device, BF16, true, 2);
      params_init(&model->params, 1);
      Tape tape = tape_make(device, BF16, true);
      int32_t values[N_TOKENS] = {0};
      Tensor token = tensor_over(values, I32, 1, (const int64_t[]){N_TOKENS});
      Tensor *nll = lm_nll(model, &tape, &token, &token, model_equal_seqlens(&tape, 1, N_TOKENS), NULL, NULL);
      tape_grad(&tape, nll);
      tape_backward(&tape);
      model_free(model);
    }
    cr_assert_eq(devices[0].weights.peak_bytes, devices[1].weights.peak_bytes, "%s: weights %zu, dry %zu",
                 SUBJECT_KINDS[k].name, devices[0].weights.peak_bytes, devices[1].weights.peak_bytes);
    cr_assert_eq(devices[0].step.peak_bytes, devices[1].step.peak_bytes, "%s: step %zu, dry %zu", SUBJECT_KINDS[k].name,
                 devices[0].step.peak_bytes, devices[1].step.peak_bytes);
    cr_assert_eq(devices[0].scratch.peak_bytes, devices[1].scratch.peak_bytes, "%s: scratch %zu, dry %zu",
                 SUBJECT_KINDS[k].name, devices[0].scratch.peak_bytes, devices[1].scratch.peak_bytes);
    device_close(&devices[0]);
    device_close(&devices[1]);
  }
}

/* Loss and gradients of the subject on a batch of two pieces; *peak gets the bytes of the step arena. */
static double gradients_of(Subject *s, Recompute recompute, size_t *peak) {
  Arena *arena = &s->device.step;
  const size_t mark = arena_mark(arena);
  s->model->recompute = recompute;
  params_zero_grads(&s->model->params);
  Tape tape = tape_make(&s->device, s->act, true);
  Tensor *token = subject_tokens(arena, N_TOKENS, 6), *cu_seqlens = tensor_new1(arena, I32, 3);
  memcpy(cu_seqlens->data, (int32_t[]){0, 7, N_TOKENS}, 3 * sizeof(int32_t));
  arena->peak_bytes = 0;
  Tensor *nll = lm_nll(s->model, &tape, token, token, cu_seqlens, NULL, NULL), *dnll = tape_grad(&tape, nll);
  double loss = 0;
  for (int i = 0; i < N_TOKENS; i++) {
    loss += tensor_get(nll, i);
    tensor_set(dnll, i, 1);
  }
  tape_backward(&tape);
  *peak = arena->peak_bytes;
  tape_reset(&tape, mark);
  return loss;
}

Test(models, have_the_same_gradient_bits_whatever_is_recomputed) {
  for (int i = 0; i < SUBJECT_N_KINDS * 2; i++) {
    const int k = i / 2;
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    if (config.ssm_cfg.layer == LAYER_MAMBA2) config.ssm_cfg.d_ssm = 32;
    Subject s = subject_open(&config, i % 2 ? BF16 : F32);
    const Tensor *flat = &s.model->params.grads_flat;
    size_t peak[N_RECOMPUTE];
    double loss = gradients_of(&s, RECOMPUTE_NONE, &peak[0]), squares = 0;
    void *grads = memcpy(malloc(tensor_bytes(flat)), flat->data, tensor_bytes(flat));
    for (int64_t j = 0; j < tensor_count(flat); j++) squares += pow(tensor_get(flat, j), 2);
    cr_assert(isfinite(squares) && squares > 0, "%s: gradients of norm %g", SUBJECT_KINDS[k].name, sqrt(squares));
    for (int r = 1; r < N_RECOMPUTE; r++) {
      double again = gradients_of(&s, RECOMPUTE[r].what, &peak[r]);
      cr_assert_eq(again, loss, "%s %s, recompute %s: loss %.17g, expected %.17g", SUBJECT_KINDS[k].name,
                   dtype_name(s.act), RECOMPUTE[r].name, again, loss);
      cr_assert_eq(memcmp(grads, flat->data, tensor_bytes(flat)), 0, "%s %s, recompute %s: the gradients differ",
                   SUBJECT_KINDS[k].name, dtype_name(s.act), RECOMPUTE[r].name);
      cr_assert_lt(peak[r], peak[r - 1], "%s %s: %zu bytes for recompute %s, %zu for %s", SUBJECT_KINDS[k].name,
                   dtype_name(s.act), peak[r], RECOMPUTE[r].name, peak[r - 1], RECOMPUTE[r - 1].name);
    }
    free(grads);
    subject_close(&s);
  }
}

Test(models, need_the_gradients_of_one_layer_at_a_time) {
  size_t peak[2];
  for (int deep = 0; deep < 2; deep++) {
    ModelConfig config = subject_config(LAYER_MAMBA2, false, false);
    config.n_layer = deep ? 23 : 3;
    Subject s = subject_open(&config, F32);
    gradients_of(&s, RECOMPUTE_BLOCK, &peak[deep]);
    subject_close(&s);
  }
  /* Twenty more layers: the stream after each, and the headers that backward goes by. */
  const size_t more = (peak[1] - peak[0]) / 20, stream = N_TOKENS * 24 * sizeof(float);
  cr_assert(more >= stream && more < stream + 1024, "%zu bytes a further layer, of them the stream %zu", more, stream);
}
