/* subject: see subject.h. */
#include "tests/support/subject.h"

#include <math.h>

#include "tensor/rng.h"

ModelConfig subject_config(LayerKind layer, bool is_mimo, bool hybrid) {
  ModelConfig c = model_config_default();
  c.d_model = 24, c.n_layer = 3, c.vocab_size = 29, c.d_intermediate = hybrid ? 40 : 0;
  c.ssm_cfg = mixer_config_default(layer);
  c.ssm_cfg.d_model = 24, c.ssm_cfg.d_state = 12, c.ssm_cfg.headdim = 8, c.ssm_cfg.ngroups = 2;
  c.ssm_cfg.chunk_size = 4, c.ssm_cfg.is_mimo = is_mimo, c.ssm_cfg.mimo_rank = 2;
  c.ssm_cfg.learnable_init_states = is_mimo || hybrid;
  if (hybrid) {
    c.attn_layer_idx[0] = 1, c.n_attn_layers = 1;
    c.attn_cfg.num_heads = 4, c.attn_cfg.num_heads_kv = 2, c.attn_cfg.rotary_emb_dim = 4, c.attn_cfg.d_conv = 3;
  }
  return c;
}

const SubjectKind SUBJECT_KINDS[SUBJECT_N_KINDS] = {{"mamba2", LAYER_MAMBA2, false, false},
                                                    {"mamba3", LAYER_MAMBA3, false, false},
                                                    {"mamba3 mimo", LAYER_MAMBA3, true, false},
                                                    {"mamba2 hybrid with mlp", LAYER_MAMBA2, false, true}};

/* They are zero at first, which would hide them. */
static void draw_init_states(Model *model) {
  Rng rng = rng_make(7, RNG_TEST, 1, 0);
  for (int i = 0; i < model->config.n_layer; i++) {
    const Tensor *learned = mixer_init_states(&model->blocks[i].mixer);
    if (!learned) continue;
    Tensor value = *learned;
    for (int64_t j = 0; j < tensor_count(&value); j++) tensor_set(&value, j, rng_normal(&rng));
  }
}

Subject subject_open(const ModelConfig *config, Dtype act) {
  Subject s = {.act = act};
  Status status = device_open(&s.device, "cpu", act == F64 ? F64 : F32, SUBJECT_SIZES);
  cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
  s.model = model_new(config);
  params_alloc(&s.model->params, &s.device, act, true, 0);
  params_init(&s.model->params, 7);
  draw_init_states(s.model);
  return s;
}

void subject_close(Subject *s) {
  model_free(s->model);
  device_close(&s->device);
}

Tensor *subject_tokens(Arena *arena, int n, uint64_t seed) {
  Tensor *token = tensor_new1(arena, I32, n);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int i = 0; i < n; i++) ((int32_t *)token->data)[i] = (int32_t)rng_below(&rng, 29);
  return token;
}

double largest_difference(const Tensor *a, int64_t a_first, const Tensor *b, int64_t b_first, int64_t n) {
  double worst = 0;
  for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs(tensor_get(a, a_first + i) - tensor_get(b, b_first + i)));
  return worst;
}
