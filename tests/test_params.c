/* The parameter table: how values, gradients and moments lie, which type, decay and first values they have. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "tensor/rng.h"
#include "tests/support/subject.h"

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
