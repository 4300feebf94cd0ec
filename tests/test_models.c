/* Models: presets, the parameter table, and what must hold of a whole model whatever its kernels do. */
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

/* ---- the parameter table */

Test(params, lie_aligned_at_the_same_offset_of_every_block) {
  ModelConfig config = subject_config(LAYER_MAMBA3, true, true);
  Subject s = subject_open(&config, BF16);
  ParamTable *params = &s.model->params;
  const char *grads = params->grads_flat.data;
  const Param *first = params->params[0];
  for (int i = 0; i < params->n_params; i++) {
    const Param *p = params->params[i];
    cr_assert_eq((uintptr_t)p->value.data % 64, 0, "%s: value not aligned", p->name);
    cr_assert_eq((uintptr_t)p->grad.data % 64, 0, "%s: gradient not aligned", p->name);
    ptrdiff_t offset = (const char *)p->grad.data - grads;
    cr_assert_eq((const char *)p->m.data - (const char *)first->m.data, offset, "%s: offset of m", p->name);
    cr_assert_eq((const char *)p->v.data - (const char *)first->v.data, offset, "%s: offset of v", p->name);
    cr_assert_eq(p->value.grad, &p->grad, "%s: the value does not point at its gradient", p->name);
    cr_assert_eq(p->grad.dtype, F32, "%s: gradient is %s", p->name, dtype_name(p->grad.dtype));
  }
  /* Padding is zero, so that flat loops over whole blocks may be taken at their word. */
  int64_t n_flat = tensor_count(&params->grads_flat), n_nonzero = 0;
  for (int i = 0; i < params->n_params; i++)
    for (int64_t j = 0; j < tensor_count(&params->params[i]->grad); j++) tensor_set(&params->params[i]->grad, j, 1);
  for (int64_t i = 0; i < n_flat; i++) n_nonzero += tensor_get(&params->grads_flat, i) != 0;
  cr_assert_eq(n_nonzero, params_count(params), "%lld of %lld flat gradients belong to parameters",
               (long long)n_nonzero, (long long)params_count(params));
  subject_close(&s);
}

Test(params, bf16_and_lower_half_are_any_float_to_the_last_bit) {
  static const uint32_t EDGES[] = {0,          0x80000000, 1,          0x7fff,     0x8000,     0x8001,     0xffff,
                                   0x3f808000, 0x3f818000, 0x3f800000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000};
  Rng rng = rng_make(5, RNG_TEST, 0, 0);
  for (int i = 0; i < 20000; i++) {
    union {
      uint32_t u;
      float f;
    } x = {.u = i < 14 ? EDGES[i] : rng_u32(&rng)}, joined;
    int16_t low;
    const uint16_t high = bf16_split(x.f, &low);
    joined.f = bf16_join(high, low);
    cr_assert_eq(joined.u, x.u, "%08x comes back as %08x", x.u, joined.u);
    if (fabsf(x.f) < 3e38f && (x.u & 0xffff) != 0x8000)
      cr_assert_eq(high, bf16_from_float(x.f), "%08x is rounded to %04x", x.u, high);
  }
}

static bool stays_real(const char *name) {
  static const char *const ENDS[] = {"dt_bias", "A_log",  ".D",     "B_bias",     "C_bias",
                                     "mimo_x",  "mimo_z", "mimo_o", "init_states"};
  for (size_t i = 0; i < sizeof ENDS / sizeof *ENDS; i++) {
    size_t n = strlen(name), n_end = strlen(ENDS[i]);
    if (n >= n_end && strcmp(name + n - n_end, ENDS[i]) == 0) return true;
  }
  return false;
}

Test(params, of_the_ssm_stay_f32_in_a_bf16_model_and_all_others_have_masters) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    Subject s = subject_open(&config, BF16);
    for (int i = 0; i < s.model->params.n_params; i++) {
      Param *p = s.model->params.params[i];
      Dtype expected = stays_real(p->name) ? F32 : BF16;
      cr_assert_eq(p->value.dtype, expected, "%s: %s is %s", SUBJECT_KINDS[k].name, p->name,
                   dtype_name(p->value.dtype));
      cr_assert_eq(p->low != NULL, expected == BF16, "%s: %s: lower halves", SUBJECT_KINDS[k].name, p->name);
      const Tensor *exact = param_exact(p);
      for (int64_t j = 0; j < tensor_count(&p->value) && p->low; j++)
        cr_assert_float_eq(tensor_get(&p->value, j), tensor_get(exact, j), fabs(tensor_get(exact, j)) / 256,
                           "%s: %s[%lld] is not its master rounded", SUBJECT_KINDS[k].name, p->name, (long long)j);
    }
    subject_close(&s);
  }
}

/* The reference's rule (tests/golden/reference/mamba_ref.py, decays), and the canonical package's of init_states. */
static bool reference_decays(const char *name) {
  static const char *const ENDS[] = {"dt_bias",       "A_log",  "D",          "norm.weight", "norm2.weight",
                                     "norm_f.weight", "bias",   "B_bias",     "C_bias",      "mimo_x",
                                     "mimo_z",        "mimo_o", "init_states"};
  for (size_t i = 0; i < sizeof ENDS / sizeof *ENDS; i++) {
    size_t n = strlen(name), n_end = strlen(ENDS[i]);
    if (n >= n_end && strcmp(name + n - n_end, ENDS[i]) == 0) return false;
  }
  return true;
}

Test(params, decay_exactly_where_the_reference_does) {
  for (int k = 0; k < SUBJECT_N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    config.tie_embeddings = false, config.ssm_cfg.bias = true, config.ssm_cfg.is_outproj_norm = true;
    Model *model = model_new(&config);
    for (int i = 0; i < model->params.n_params; i++) {
      const Param *p = model->params.params[i];
      cr_assert_eq(p->decay, reference_decays(p->name), "%s: %s %s", SUBJECT_KINDS[k].name, p->name,
                   p->decay ? "decays" : "does not decay");
    }
    model_free(model);
  }
}

static void range_of(Subject *s, const char *name, double *low, double *high, double *deviation) {
  Param *p = params_find(&s->model->params, name);
  cr_assert(p, "%s: no such parameter", name);
  const Tensor *t = param_exact(p);
  double squares = 0;
  *low = INFINITY, *high = -INFINITY;
  for (int64_t i = 0; i < tensor_count(t); i++) {
    double x = tensor_get(t, i);
    *low = fmin(*low, x), *high = fmax(*high, x), squares += x * x;
  }
  *deviation = sqrt(squares / (double)tensor_count(t));
}

Test(params, are_initialised_as_specified) {
  ModelConfig config = subject_config(LAYER_MAMBA2, false, false);
  config.d_model = config.ssm_cfg.d_model = 128, config.n_layer = 4;
  Subject s = subject_open(&config, F32);
  const double out = 1 / (sqrt(256) * sqrt(4)), in = 1 / sqrt(128);
  const double dt_low = log(expm1(1e-3)), dt_high = log(expm1(1e-1));
  const struct {
    const char *name;
    double low, high, deviation;
  } EXPECTED[] = {
      {"backbone.embedding.weight", -0.12, 0.12, 0.02},
      {"backbone.layers.0.mixer.in_proj.weight", -in, in, in / sqrt(3)},
      {"backbone.layers.0.mixer.out_proj.weight", -out, out, out / sqrt(3)},
      {"backbone.layers.0.mixer.conv1d.weight", -0.5, 0.5, 0.5 / sqrt(3)},
      {"backbone.layers.0.mixer.conv1d.bias", -0.5, 0.5, 0.5 / sqrt(3)},
      {"backbone.layers.0.mixer.D", 1, 1, 1},
      {"backbone.layers.0.mixer.norm.weight", 1, 1, 1},
      {"backbone.layers.0.mixer.dt_bias", dt_low, dt_high, NAN},
      {"backbone.layers.0.mixer.A_log", 0, log(16), NAN},
      {"backbone.norm_f.weight", 1, 1, 1},
  };
  for (size_t i = 0; i < sizeof EXPECTED / sizeof *EXPECTED; i++) {
    double low, high, deviation;
    range_of(&s, EXPECTED[i].name, &low, &high, &deviation);
    cr_assert(low >= EXPECTED[i].low - 1e-5 && high <= EXPECTED[i].high + 1e-5, "%s: in [%g, %g], expected [%g, %g]",
              EXPECTED[i].name, low, high, EXPECTED[i].low, EXPECTED[i].high);
    cr_assert(isnan(EXPECTED[i].deviation) || fabs(deviation / EXPECTED[i].deviation - 1) < 0.12,
              "%s: root mean square %g, expected %g", EXPECTED[i].name, deviation, EXPECTED[i].deviation);
    if (EXPECTED[i].low < EXPECTED[i].high) cr_assert_gt(high, low, "%s: all values are %g", EXPECTED[i].name, low);
  }
  subject_close(&s);
}

Test(params, of_one_seed_are_the_same_and_of_another_differ) {
  ModelConfig config = subject_config(LAYER_MAMBA3, true, false);
  Subject a = subject_open(&config, F32), b = subject_open(&config, F32);
  Param *pa = params_find(&a.model->params, "backbone.layers.1.mixer.in_proj.weight");
  Param *pb = params_find(&b.model->params, "backbone.layers.1.mixer.in_proj.weight");
  cr_assert_eq(memcmp(pa->value.data, pb->value.data, tensor_bytes(&pa->value)), 0, "seed 7 twice");
  params_init(&b.model->params, 8);
  cr_assert_neq(memcmp(pa->value.data, pb->value.data, tensor_bytes(&pa->value)), 0, "seeds 7 and 8");
  subject_close(&a);
  subject_close(&b);
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

/* ---- sampling and generation */

static int sample_of(const float *logits, int n, int vocab_size, SampleOptions options, uint64_t draw) {
  Tensor row = tensor_over((void *)logits, F32, 2, (const int64_t[]){1, n});
  return sample_token(&row, 0, vocab_size, &options, draw);
}

Test(sampling, greedy_takes_the_first_of_the_highest_and_never_a_padded_row) {
  const float logits[] = {1, 3, -2, 3, 9};
  cr_assert_eq(sample_of(logits, 5, 4, (SampleOptions){.top_p = 1}, 0), 1, "greedy");
  for (uint64_t draw = 0; draw < 200; draw++) {
    int token = sample_of(logits, 5, 4, (SampleOptions){.temperature = 5, .top_p = 1}, draw);
    cr_assert(token >= 0 && token < 4, "draw %d: padded token %d", (int)draw, token);
  }
}

Test(sampling, refuses_logits_that_are_not_finite) {
  const float nan_logits[] = {1, NAN, 2}, inf_logits[] = {1, 2, INFINITY}, padded[] = {1, 2, NAN};
  SampleOptions warm = {.temperature = 1, .top_p = 1};
  cr_assert_eq(sample_of(nan_logits, 3, 3, (SampleOptions){.top_p = 1}, 0), -1, "NaN, greedy");
  cr_assert_eq(sample_of(inf_logits, 3, 3, warm, 0), -1, "infinity");
  cr_assert_neq(sample_of(padded, 3, 2, warm, 0), -1, "NaN in a padded row counts for nothing");
}

Test(sampling, draws_with_the_softmax_of_logits_over_temperature) {
  const float logits[] = {0.5f, -1, 2, 0};
  enum { N_DRAWS = 20000 };
  for (int cold = 0; cold < 2; cold++) {
    const double temperature = cold ? 0.5 : 1.5;
    int counts[4] = {0};
    double total = 0;
    for (int i = 0; i < 4; i++) total += exp(logits[i] / temperature);
    for (int i = 0; i < N_DRAWS; i++)
      counts[sample_of(logits, 4, 4, (SampleOptions){.temperature = temperature, .top_p = 1, .seed = 3},
                       (uint64_t)i)]++;
    for (int i = 0; i < 4; i++) {
      double p = exp(logits[i] / temperature) / total, got = (double)counts[i] / N_DRAWS;
      cr_assert_lt(fabs(got - p), 5 * sqrt(p * (1 - p) / N_DRAWS), "temperature %g, token %d: %g of draws, expected %g",
                   temperature, i, got, p);
    }
  }
}

Test(sampling, top_k_and_top_p_keep_the_most_likely) {
  const float logits[] = {0, 2, 1, -1}; /* probabilities 0.087, 0.644, 0.237, 0.032 */
  static const struct {
    const char *name;
    int top_k;
    double top_p;
    bool kept[4];
  } CASES[] = {{"top_k 1", 1, 1, {false, true, false, false}},
               {"top_k 2", 2, 1, {false, true, true, false}},
               {"top_k 9", 9, 1, {true, true, true, true}},
               {"top_p 0.6", 0, 0.6, {false, true, false, false}},
               {"top_p 0.7", 0, 0.7, {false, true, true, false}},
               {"top_p 0.95", 0, 0.95, {true, true, true, false}},
               {"top_k 3, top_p 0.9 of those", 3, 0.9, {false, true, true, false}}};
  for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
    bool seen[4] = {false};
    for (uint64_t draw = 0; draw < 2000; draw++) {
      SampleOptions options = {.temperature = 1, .top_k = CASES[c].top_k, .top_p = CASES[c].top_p, .seed = 1};
      seen[sample_of(logits, 4, 4, options, draw)] = true;
    }
    for (int i = 0; i < 4; i++)
      cr_assert_eq(seen[i], CASES[c].kept[i], "%s: token %d %s", CASES[c].name, i, seen[i] ? "drawn" : "not drawn");
  }
}
