/* The update: schedules at their corners, clipping, AdamW and SGD against numbers worked out by hand (specification, 2.4),
 * which tensors decay (2.3), and bf16 weights with their masters. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "optim/optim.h"

#define SIZES ((DeviceSizes){(size_t)16 << 20, (size_t)16 << 20, (size_t)16 << 20})

/* ---- schedules */

Test(schedule, has_the_promised_rate_at_every_corner) {
  static const struct {
    const char *name;
    ScheduleKind kind;
    int64_t warmup, decay, steps, step;
    double ratio, factor;
  } CORNERS[] = {
      {"warm-up, first step", SCHEDULE_COSINE, 10, 0, 100, 1, 0.1, 0.1},
      {"warm-up, middle", SCHEDULE_CONSTANT, 10, 0, 100, 5, 0.1, 0.5},
      {"warm-up, last step", SCHEDULE_LINEAR, 10, 0, 100, 10, 0.1, 1},
      {"warm-up longer than the run", SCHEDULE_LINEAR, 200, 0, 100, 100, 0.1, 0.5},
      {"warm-up as long as the run", SCHEDULE_COSINE, 100, 0, 100, 100, 0.1, 1},
      {"constant, first step", SCHEDULE_CONSTANT, 0, 0, 100, 1, 0.1, 1},
      {"constant, last step", SCHEDULE_CONSTANT, 10, 0, 100, 100, 0.1, 1},
      {"linear, first step", SCHEDULE_LINEAR, 0, 0, 100, 1, 0, 0.99},
      {"linear, first step after the warm-up", SCHEDULE_LINEAR, 20, 0, 100, 21, 0.2, 0.99},
      {"linear, middle", SCHEDULE_LINEAR, 20, 0, 100, 60, 0.2, 0.6},
      {"linear, last step", SCHEDULE_LINEAR, 20, 0, 100, 100, 0.2, 0.2},
      {"linear to zero, last step", SCHEDULE_LINEAR, 20, 0, 100, 100, 0, 0},
      {"cosine, quarter", SCHEDULE_COSINE, 20, 0, 100, 40, 0, 0.85355339059327373},
      {"cosine, middle", SCHEDULE_COSINE, 20, 0, 100, 60, 0.1, 0.55},
      {"cosine, last step", SCHEDULE_COSINE, 20, 0, 100, 100, 0.1, 0.1},
      {"cosine, beyond the last step", SCHEDULE_COSINE, 20, 0, 100, 130, 0.1, 0.1},
      {"wsd, before the decay", SCHEDULE_WSD, 10, 20, 100, 80, 0.1, 1},
      {"wsd, first step of the decay", SCHEDULE_WSD, 10, 20, 100, 81, 0, 0.95},
      {"wsd, middle of the decay", SCHEDULE_WSD, 10, 20, 100, 90, 0.1, 0.55},
      {"wsd, last step", SCHEDULE_WSD, 10, 20, 100, 100, 0.1, 0.1},
      {"wsd, decay longer than what the warm-up leaves", SCHEDULE_WSD, 60, 80, 100, 80, 0, 0.5},
      {"wsd without decay, last step", SCHEDULE_WSD, 10, 0, 100, 100, 0.1, 1},
      {"ratio 1 keeps the rate", SCHEDULE_COSINE, 0, 0, 100, 77, 1, 1},
  };
  for (size_t i = 0; i < sizeof CORNERS / sizeof *CORNERS; i++) {
    OptimConfig c = {.lr = 3e-3,
                     .schedule = CORNERS[i].kind,
                     .warmup_steps = CORNERS[i].warmup,
                     .decay_steps = CORNERS[i].decay,
                     .min_lr_ratio = CORNERS[i].ratio};
    double factor = schedule_lr(&c, CORNERS[i].step, CORNERS[i].steps) / c.lr;
    cr_assert_float_eq(factor, CORNERS[i].factor, 1e-12, "%s: %.17g of lr, expected %.17g", CORNERS[i].name, factor,
                       CORNERS[i].factor);
  }
}

/* ---- the norm and its clip */

Test(clip, scales_by_clip_over_norm_and_never_up) {
  static const struct {
    const char *name;
    double norm, clip, scale;
  } CASES[] = {{"below", 0.5, 1, 1},
               {"zero gradient", 0, 1, 1},
               {"above", 4, 1, 1 / 4.000001},
               {"equal", 1, 1, 1 / 1.000001},
               {"other clip", 10, 2.5, 2.5 / 10.000001},
               {"off", 1e9, 0, 1}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    double scale = optim_clip_scale(CASES[i].norm, CASES[i].clip);
    cr_assert_float_eq(scale, CASES[i].scale, 1e-15, "%s: %.17g, expected %.17g", CASES[i].name, scale, CASES[i].scale);
  }
}

typedef struct Subject {
  Device device;
  ParamTable params;
} Subject;

/* A matrix (n, 3) that decays, a vector (n) that does not, a real vector (5). */
static Subject subject_open_share(Dtype act, int64_t n, int n_ranges, int first_range, int n_own) {
  Subject s = {0};
  Status status = device_open(&s.device, "cpu", act == F64 ? F64 : F32, SIZES);
  cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
  params_add_linear(&s.params, "", "matrix", n, 3, 1);
  params_add_vector(&s.params, "", "vector", n, INIT_VALUE(1));
  params_add_real(&s.params, "", "real", 1, (const int64_t[]){5}, INIT_VALUE(1));
  params_share(&s.params, n_ranges, first_range, n_own);
  params_alloc(&s.params, &s.device, act, true, n_own < n_ranges);
  params_init(&s.params, 3);
  return s;
}

static Subject subject_open(Dtype act, int64_t n) { return subject_open_share(act, n, 1, 0, 1); }

static void subject_close(Subject *s) {
  params_free(&s->params);
  device_close(&s->device);
}

Test(clip, norm_is_over_all_tensors_and_names_the_first_that_is_not_finite) {
  Subject s = subject_open(F32, 40000); /* more than one block of the sum */
  double squares = 0;
  for (int i = 0; i < s.params.n_params; i++) {
    Tensor *grad = &s.params.params[i]->grad;
    for (int64_t j = 0; j < tensor_count(grad); j++) {
      tensor_set(grad, j, sin((double)(j + 7 * i)));
      squares += pow(tensor_get(grad, j), 2);
    }
  }
  const Param *bad = s.params.params[0];
  double norm = optim_grad_norm(&s.params, &s.device, &bad);
  cr_assert_float_eq(norm / sqrt(squares), 1, 1e-12, "norm %.17g, expected %.17g", norm, sqrt(squares));
  cr_assert_null(bad, "all gradients are finite, but %s was named", bad->name);

  static const double BAD[] = {NAN, INFINITY, -INFINITY};
  for (size_t k = 0; k < sizeof BAD / sizeof *BAD; k++) {
    tensor_set(&s.params.params[2]->grad, 4, NAN);
    tensor_set(&s.params.params[1]->grad, 39999, BAD[k]);
    norm = optim_grad_norm(&s.params, &s.device, &bad);
    cr_assert(bad == s.params.params[1], "%g in vector: named %s", BAD[k], bad ? bad->name : "none");
    cr_assert(!isfinite(norm), "%g in vector: norm %g", BAD[k], norm);
  }
  tensor_set(&s.params.params[1]->grad, 39999, 1);
  optim_grad_norm(&s.params, &s.device, &bad);
  cr_assert(bad == s.params.params[2], "NaN in real: named %s", bad ? bad->name : "none");
  subject_close(&s);
}

/* ---- updates */

static const double GRADIENTS[3] = {0.5, -1.0, 0.25};

/* From 1, with gradients 0.5, -1, 0.25 halved by the clip, lr 0.1, 0.2, 0.3, betas 0.9 and 0.95, eps 1e-8, decay 0.1:
 * worked out with 40 digits from the formulas of the specification. */
static const double ADAMW_DECAYED[3] = {0.890000003999999840, 0.944874792190905079, 0.957695491144574517};
static const double ADAMW_PLAIN[3] = {0.900000003999999840, 0.972674792270905076, 1.013841734990301666};

static OptimConfig adamw_config(void) {
  return (OptimConfig){.kind = OPTIM_ADAMW, .lr = 1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
}

static void step_once(Subject *s, const OptimConfig *config, int step) {
  for (int i = 0; i < s->params.n_params; i++) {
    Tensor *grad = &s->params.params[i]->grad;
    for (int64_t j = 0; j < tensor_count(grad); j++) tensor_set(grad, j, GRADIENTS[step - 1]);
  }
  optim_update(&s->params, &s->device, config, 0.1 * step, 0.5, step);
}

static void assert_all(const Tensor *t, double expected, double tolerance, const char *name, int step) {
  for (int64_t i = 0; i < tensor_count(t); i++)
    cr_assert_float_eq(tensor_get(t, i), expected, tolerance, "%s, step %d, element %lld: %.17g, expected %.17g", name,
                       step, (long long)i, tensor_get(t, i), expected);
}

static void set_all(Subject *s, double value) {
  for (int i = 0; i < s->params.n_params; i++) {
    Tensor *exact = param_exact(s->params.params[i]);
    for (int64_t j = 0; j < tensor_count(exact); j++) tensor_set(exact, j, value);
    param_refresh(s->params.params[i]);
  }
}

Test(adamw, follows_the_numbers_worked_out_by_hand) {
  static const struct {
    const char *name;
    Dtype act;
    double tolerance; /* a few roundings of values near 1; double: of the digits written above */
  } KINDS[] = {{"f64", F64, 1e-14}, {"f32", F32, 5e-7}, {"bf16 masters", BF16, 5e-7}};
  for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
    Subject s = subject_open(KINDS[k].act, 5000);
    OptimConfig config = adamw_config();
    set_all(&s, 1);
    for (int step = 1; step <= 3; step++) {
      step_once(&s, &config, step);
      assert_all(param_exact(s.params.params[0]), ADAMW_DECAYED[step - 1], KINDS[k].tolerance, KINDS[k].name, step);
      assert_all(param_exact(s.params.params[1]), ADAMW_PLAIN[step - 1], KINDS[k].tolerance, KINDS[k].name, step);
      assert_all(param_exact(s.params.params[2]), ADAMW_PLAIN[step - 1], KINDS[k].tolerance, KINDS[k].name, step);
    }
    subject_close(&s);
  }
}

Test(sgd, takes_the_scaled_gradient_and_the_decay) {
  Subject s = subject_open(F64, 50);
  OptimConfig config = {.kind = OPTIM_SGD, .lr = 1, .weight_decay = 0.1};
  set_all(&s, 1);
  step_once(&s, &config, 1);
  assert_all(&s.params.params[0]->value, 1 - 0.1 * (0.25 + 0.1), 1e-15, "matrix", 1);
  assert_all(&s.params.params[1]->value, 1 - 0.1 * 0.25, 1e-15, "vector", 1);
  subject_close(&s);
}

Test(adamw, keeps_in_the_master_what_bf16_cannot_hold) {
  Subject s = subject_open(BF16, 5000);
  OptimConfig config = adamw_config();
  set_all(&s, 1);
  Param *matrix = s.params.params[0], *real = s.params.params[2];
  cr_assert(matrix->value.dtype == BF16 && matrix->low, "the matrix is bf16 with lower halves");
  cr_assert(real->value.dtype == F32 && !real->low, "what stays real has none");
  for (int i = 0; i < s.params.n_params; i++) tensor_zero(&s.params.params[i]->grad);
  /* A thousandth of the spacing of bf16 below 1, by decay alone: the value rounds back to 1 until 500 steps are summed. */
  for (int step = 1; step <= 1000; step++) {
    optim_update(&s.params, &s.device, &config, 4e-5 * 0.9765625, 1, step);
    if (step == 400) assert_all(&matrix->value, 1, 0, "bf16 value", step);
  }
  double master = pow(1 - 4e-6 * 0.9765625, 1000);
  const Tensor *exact = param_exact(matrix);
  assert_all(exact, master, 1e-4, "master", 1000);
  assert_all(&matrix->value, 0.99609375, 0, "bf16 value", 1000);
  for (int64_t i = 0; i < tensor_count(&matrix->value); i++)
    cr_assert_eq(tensor_get(&matrix->value, i), (double)bf16_to_float(bf16_from_float((float)tensor_get(exact, i))),
                 "element %lld: the value is not the rounded master", (long long)i);
  subject_close(&s);
}

Test(split, keeps_lower_halves_of_the_own_elements_and_shows_all_when_they_are_brought) {
  enum { RANGES = 4, N = 700 }; /* the bounds cut the matrix twice; the last range also has what stays real */
  Subject whole = subject_open(BF16, N), share[RANGES];
  const int64_t n_flat = tensor_count(&whole.params.grads_flat);
  int64_t n_kept = 0;
  for (int r = 0; r < RANGES; r++) {
    share[r] = subject_open_share(BF16, N, RANGES, r, 1);
    const int64_t *bounds = share[r].params.bounds, kept = tensor_count(&share[r].params.lows_flat);
    cr_assert_eq(kept, bounds[r + 1] - bounds[r], "range %d keeps %lld lower halves", r, (long long)kept);
    n_kept += kept;
  }
  cr_assert_eq(n_kept, n_flat, "%lld lower halves of %lld are kept", (long long)n_kept, (long long)n_flat);
  for (int r = 0; r < RANGES; r++) {
    ParamTable *params = &share[r].params;
    for (int shown = 0; shown < 2; shown++) {
      if (shown) {
        Tensor all = params_show_lows(params, true);
        for (int o = 0; o < RANGES; o++) { /* as gathering does, which finds the own ones there */
          if (o == r) continue;
          const Tensor *lows = &share[o].params.lows_flat;
          memcpy((int16_t *)all.data + params->bounds[o], lows->data, tensor_bytes(lows));
        }
      }
      for (int i = 0; i < params->n_params; i++) {
        const Param *param = params->params[i];
        const Tensor *exact = param_exact(params->params[i]), *expected = param_exact(whole.params.params[i]);
        for (int64_t j = 0; j < tensor_count(exact); j++) {
          const int64_t at = param->flat + j;
          const bool known =
              shown || param->value.dtype == F32 || (at >= params->bounds[r] && at < params->bounds[r + 1]);
          const double value = tensor_get(exact, j), wanted = tensor_get(known ? expected : &param->value, j);
          cr_assert_eq(value, wanted, "range %d, %s, element %lld%s: %.9g, expected %.9g", r, param->name, (long long)j,
                       shown ? ", all shown" : "", value, wanted);
        }
      }
    }
    params_show_lows(params, false);
  }
  for (int r = 0; r < RANGES; r++) {
    ParamTable *params = &share[r].params;
    for (int i = 0; i < params->n_params; i++) { /* a new value reaches the own lower halves */
      Tensor *exact = param_exact(params->params[i]);
      for (int64_t j = 0; j < tensor_count(exact); j++) tensor_set(exact, j, 1.0 / 3);
      param_refresh(params->params[i]);
      ParamPart part;
      for (int64_t j = 0; params_own_part(params, i, &part) && part.low && j < tensor_count(&part.value); j++)
        cr_assert_eq(bf16_join(((const uint16_t *)part.value.data)[j], part.low[j]), 1.0f / 3,
                     "range %d, %s, own element %lld", r, params->params[i]->name, (long long)j);
    }
  }
  for (int r = 0; r < RANGES; r++) subject_close(&share[r]);
  subject_close(&whole);
}

/* ---- decay */

/* Specification, 2.3, as names. */
static bool spares_decay(const char *name) {
  static const char *const ENDS[] = {".dt_bias", ".A_log",  ".D",      ".B_bias", ".C_bias",
                                     ".mimo_x",  ".mimo_z", ".mimo_o", ".bias"};
  for (size_t i = 0; i < sizeof ENDS / sizeof *ENDS; i++)
    if (base_ends_with(name, ENDS[i])) return true;
  return strstr(name, "norm") != NULL;
}

static ModelConfig wide_config(LayerKind layer) {
  ModelConfig c = model_config_default();
  c.d_model = 16, c.n_layer = 2, c.vocab_size = 11, c.d_intermediate = 8, c.tie_embeddings = false;
  c.ssm_cfg = mixer_config_default(layer);
  c.ssm_cfg.d_model = 16, c.ssm_cfg.d_state = 8, c.ssm_cfg.headdim = 8;
  c.ssm_cfg.bias = true, c.ssm_cfg.is_mimo = true, c.ssm_cfg.is_outproj_norm = true;
  c.attn_layer_idx[0] = 1, c.n_attn_layers = 1;
  c.attn_cfg.num_heads = 2, c.attn_cfg.d_conv = 3;
  return c;
}

Test(decay, touches_all_but_the_tensors_the_specification_spares) {
  ModelConfig configs[] = {wide_config(LAYER_MAMBA2), wide_config(LAYER_MAMBA3), wide_config(LAYER_MAMBA3)};
  configs[2].task = TASK_FORECAST;
  static const char *const NAMES[] = {"mamba2 hybrid", "mamba3 mimo hybrid", "forecaster"};
  int n_spared = 0, n_decayed = 0;
  for (int k = 0; k < 3; k++) {
    Device device;
    Status status = device_open(&device, "cpu", F32, SIZES);
    cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
    Model *model = model_new(&configs[k]);
    params_alloc(&model->params, &device, F32, true, 0);
    Subject s = {device, model->params};
    set_all(&s, 1);
    params_zero_grads(&model->params);
    OptimConfig config = adamw_config();
    optim_update(&model->params, &device, &config, 0.5, 1, 1);
    for (int i = 0; i < model->params.n_params; i++) {
      const Param *param = model->params.params[i];
      bool spared = spares_decay(param->name);
      double expected = spared ? 1 : (double)0.95f;
      for (int64_t j = 0; j < tensor_count(&param->value); j++)
        cr_assert_eq(tensor_get(&param->value, j), expected, "%s: %s: 1 became %.9g, expected %.9g", NAMES[k],
                     param->name, tensor_get(&param->value, j), expected);
      n_spared += spared, n_decayed += !spared;
    }
    model_free(model);
    device_close(&device);
  }
  cr_assert(n_spared > 30 && n_decayed > 20, "%d spared, %d decayed: the models became too plain", n_spared, n_decayed);
}
