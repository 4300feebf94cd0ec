/* config.json: what is published is read, what is written reads back, nothing else does. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "tensor/h5.h"
#include "tests/support/store.h"

#define GOLDEN ASPIS_SOURCE_DIR "/tests/golden/"

TestSuite(config_json, .timeout = 60);

#define MAMBA2_130M                                                                                                    \
  "{\"d_model\": 768, \"d_intermediate\": 0, \"n_layer\": 24, \"vocab_size\": 50277, \"ssm_cfg\": {\"layer\": "        \
  "\"Mamba2\"},"                                                                                                       \
  " \"attn_layer_idx\": [], \"attn_cfg\": {}, \"rms_norm\": true, \"residual_in_fp32\": true, \"fused_add_norm\": "    \
  "true,"                                                                                                              \
  " \"pad_vocab_size_multiple\": 16, \"tie_embeddings\": true}"

Test(config_json, published_ones_are_read) {
  ModelConfig c, preset;
  store_ok(model_config_from_json(MAMBA2_130M, "130m", &c), "130m");
  cr_assert(model_preset("mamba2-130m", &preset), "preset");
  char *text = model_config_to_json(&c), *expected = model_config_to_json(&preset);
  cr_assert_str_eq(text, expected, "mamba2-130m's config.json is not the preset");
  cr_assert_eq(model_padded_vocab(&c), 50288, "padded vocabulary");
  cr_assert_eq(c.ssm_cfg.chunk_size, 256, "the canonical default of chunk_size");
  free(text), free(expected);

  store_ok(model_config_from_json("{\"d_model\": 2560, \"n_layer\": 64, \"vocab_size\": 50277, \"ssm_cfg\": "
                                  "{\"layer\": \"Mamba2\"}, \"attn_layer_idx\": "
                                  "[9, 18, 27, 36, 45, 56], \"attn_cfg\": {\"causal\": true, \"d_conv\": 4, "
                                  "\"head_dim\": 128, \"num_heads\": 30, "
                                  "\"out_proj_bias\": false, \"qkv_proj_bias\": false, \"rotary_emb_dim\": 64}, "
                                  "\"pad_vocab_size_multiple\": 16}",
                                  "attn", &c),
           "mamba2attn-2.7b");
  cr_assert(c.n_attn_layers == 6 && c.attn_layer_idx[5] == 56 && c.attn_cfg.head_dim == 128 &&
                !c.attn_cfg.qkv_proj_bias,
            "attention");

  store_ok(model_config_from_json(
               "{\"d_model\": 2048, \"d_intermediate\": 4096, \"n_layer\": 24, \"vocab_size\": 128256, \"ssm_cfg\": "
               "{\"layer\": "
               "\"Mamba3\", \"d_state\": 128, \"expand\": 2, \"headdim\": 64, \"ngroups\": 1, \"rope_fraction\": 0.5, "
               "\"dt_min\": "
               "0.001, \"dt_max\": 0.1, \"dt_init_floor\": 0.0001, \"A_floor\": 0.0001, \"chunk_size\": 64, "
               "\"is_mimo\": false, "
               "\"is_outproj_norm\": false}, \"attn_layer_idx\": [], \"attn_cfg\": {}, \"rms_norm\": true, "
               "\"residual_in_fp32\": "
               "true, \"fused_add_norm\": true, \"pad_vocab_size_multiple\": 16, \"tie_embeddings\": true}",
               "1.5b", &c),
           "mamba3-siso-1.5b");
  cr_assert(c.ssm_cfg.layer == LAYER_MAMBA3 && !c.ssm_cfg.A_softplus && c.d_intermediate == 4096, "Mamba-3");
}

#define WITH_SSM(ssm) "{\"d_model\": 64, \"n_layer\": 2, \"vocab_size\": 11, \"ssm_cfg\": {" ssm "}}"
#define WITH(rest)                                                                                                     \
  "{\"d_model\": 64, \"n_layer\": 2, \"vocab_size\": 11, \"ssm_cfg\": {\"layer\": \"Mamba3\"}, " rest "}"

Test(config_json, infinity_is_read_in_both_spellings) {
  static const char *const TEXTS[] = {WITH_SSM("\"layer\": \"Mamba2\", \"dt_limit\": [0.01, Infinity]"),
                                      WITH_SSM("\"dt_limit\": [0.01, 1e30], \"layer\": \"Mamba2\"")};
  for (int i = 0; i < 2; i++) {
    ModelConfig c;
    store_ok(model_config_from_json(TEXTS[i], "limit", &c), TEXTS[i]);
    cr_assert(c.ssm_cfg.dt_limit[0] == 0.01 && isinf(c.ssm_cfg.dt_limit[1]), "%s", TEXTS[i]);
  }
  ModelConfig c;
  store_expect(model_config_from_json(WITH("\"Infinity\\\"Infinity\": 1"), "key", &c), CODE_CHECKPOINT,
               "Infinity\"Infinity: unknown", "a word inside a string is left alone");
}

Test(config_json, what_is_not_understood_is_refused_by_name) {
  static const struct {
    char text[200], phrase[80];
  } CASES[] = {
      {WITH_SSM("\"layer\": \"Mamba2\", \"headdims\": 64"), "ssm_cfg.headdims: unknown key"},
      {WITH("\"num_layers\": 3"), "num_layers: unknown key"},
      {WITH("\"attn_layer_idx\": [1], \"attn_cfg\": {\"causal\": true, \"num_heads\": 4, \"mlp_dim\": 8}"),
       "attn_cfg.mlp_dim: unknown key"},
      {WITH("\"attn_layer_idx\": [1], \"attn_cfg\": {\"num_heads\": 4}"),
       "attn_cfg.causal: found nothing, expected true"},
      {WITH("\"attn_layer_idx\": [1], \"attn_cfg\": {\"num_heads\": 4, \"causal\": false}"),
       "attn_cfg.causal: found false"},
      {WITH("\"attn_layer_idx\": [1]"), "attn_cfg.causal"},
      {WITH("\"attn_layer_idx\": 1"), "attn_layer_idx: found 1, expected an array"},
      {WITH("\"attn_layer_idx\": [2], \"attn_cfg\": {\"num_heads\": 4, \"causal\": true}"), "attn_layer_idx"},
      {WITH("\"rms_norm\": false"), "rms_norm: found false, expected true"},
      {WITH_SSM("\"layer\": \"Mamba1\""), "ssm_cfg.layer: found \"Mamba1\""},
      {WITH_SSM(""), "ssm_cfg.layer: found nothing"},
      {WITH_SSM("\"layer\": \"Mamba2\", \"headdim\": 60"), "headdim: found 60"},
      {WITH_SSM("\"layer\": \"Mamba2\", \"headdim\": 64.0"), "headdim: found 64.0, expected an integer"},
      {WITH_SSM("\"layer\": \"Mamba2\", \"headdim\": 4294967360"), "headdim: found 4294967360"},
      {WITH_SSM("\"layer\": \"Mamba2\", \"dt_limit\": [0]"), "dt_limit: found [0], expected two numbers"},
      {WITH_SSM("\"layer\": \"Mamba3\", \"A_activation\": \"relu\""), "A_activation: found \"relu\""},
      {WITH("\"tie_embeddings\": 1"), "tie_embeddings: found 1, expected true or false"},
      {WITH("\"tie_embeddings\": true, \"tie_embeddings\": false"), "duplicate"},
      {"{\"n_layer\": 2, \"vocab_size\": 11, \"ssm_cfg\": {\"layer\": \"Mamba3\"}}", "d_model: found nothing"},
      {"{\"d_model\": 64, \"n_layer\": 2, \"ssm_cfg\": {\"layer\": \"Mamba3\"}}", "vocab_size: found nothing"},
      {"[1]", "expected an object"},
      {WITH("\"pad_vocab_size_multiple\": NaN"), "pad_vocab_size_multiple: found \"\""},
      {"", "not JSON"},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    ModelConfig c = model_config_default();
    store_expect(model_config_from_json(CASES[i].text, "c.json", &c), CODE_CHECKPOINT, CASES[i].phrase, CASES[i].text);
    cr_assert_eq(c.d_model, model_config_default().d_model, "%s: refused, but the config was written", CASES[i].text);
  }
}

Test(config_json, written_ones_read_back) {
  ModelConfig cases[5];
  for (int i = 0; i < 5; i++) cases[i] = model_config_default();
  cases[0].ssm_cfg = mixer_config_default(LAYER_MAMBA2);
  cases[0].ssm_cfg.d_ssm = 128, cases[0].ssm_cfg.dt_limit[0] = 0.1 + 0.2, cases[0].ssm_cfg.D_has_hdim = true;
  cases[0].ssm_cfg.A_init_range[1] = 7.25;
  cases[1].ssm_cfg.A_softplus = true, cases[1].ssm_cfg.is_mimo = true, cases[1].ssm_cfg.mimo_rank = 2;
  cases[2].n_attn_layers = 2, cases[2].attn_layer_idx[0] = 1, cases[2].attn_layer_idx[1] = 3;
  cases[2].attn_cfg.num_heads = 6, cases[2].attn_cfg.num_heads_kv = 2, cases[2].attn_cfg.softmax_scale = 1.0 / 3;
  cases[3].d_intermediate = 3824, cases[3].d_mlp = 3824, cases[3].tie_embeddings = false;
  cases[4].task = TASK_FORECAST, cases[4].input_dim = 7, cases[4].output_dim = 3, cases[4].horizon = 96,
  cases[4].context = 336;
  for (int i = 0; i < 5; i++) {
    cases[i].ssm_cfg.d_model = cases[i].d_model;
    ModelConfig back;
    char *text = model_config_to_json(&cases[i]);
    store_ok(model_config_from_json(text, "written", &back), text);
    char *again = model_config_to_json(&back);
    cr_assert_str_eq(text, again, "case %d", i);
    const MixerConfig *a = &cases[i].ssm_cfg, *b = &back.ssm_cfg;
    cr_assert(a->layer == b->layer && a->d_ssm == b->d_ssm && a->dt_limit[0] == b->dt_limit[0] &&
                  a->dt_limit[1] == b->dt_limit[1] && a->D_has_hdim == b->D_has_hdim &&
                  a->A_init_range[1] == b->A_init_range[1] && a->A_softplus == b->A_softplus &&
                  a->is_mimo == b->is_mimo && a->mimo_rank == b->mimo_rank && a->d_model == b->d_model,
              "case %d: ssm_cfg of %s", i, text);
    cr_assert(back.task == cases[i].task && model_d_mlp(&back) == model_d_mlp(&cases[i]) &&
                  back.n_attn_layers == cases[i].n_attn_layers &&
                  back.attn_layer_idx[1] == cases[i].attn_layer_idx[1] &&
                  back.tie_embeddings == cases[i].tie_embeddings &&
                  back.attn_cfg.softmax_scale == cases[i].attn_cfg.softmax_scale && back.horizon == cases[i].horizon &&
                  back.context == cases[i].context,
              "case %d: model of %s", i, text);
    free(text), free(again);
  }
}

Test(config_json, only_what_is_not_canonical_adds_keys) {
  ModelConfig c = model_config_default();
  char *text = model_config_to_json(&c);
  static const char *const ABSENT[] = {"A_activation", "d_mlp", "d_ssm", "task", "dt_limit", "num_heads"};
  for (int i = 0; i < 6; i++) cr_assert_null(strstr(text, ABSENT[i]), "%s is in %s", ABSENT[i], text);
  free(text);
}

Test(config_json, the_golden_files_are_read) {
  H5File *file;
  char *text;
  MixerConfig mixer;
  ModelConfig forecaster;
  store_ok(h5_open_read(GOLDEN "mixer_mamba2_options.h5", CODE_DATA, &file), "mixer");
  store_ok(h5_attr_string(file, "/", "config", &text), "config");
  h5_close(file);
  store_ok(mixer_config_from_json(text, "mixer", &mixer), text);
  cr_assert(mixer.layer == LAYER_MAMBA2 && mixer.d_model == 32 && mixer.ngroups == 2 && mixer.D_has_hdim &&
                mixer.bias && !mixer.conv_bias && mixer.dt_limit[0] == 0.05 && mixer.dt_limit[1] == 0.4 &&
                mixer.d_conv == 3 && mixer.d_ssm == 0,
            "%s", text);
  free(text);
  store_ok(h5_open_read(GOLDEN "forecaster_mamba3.h5", CODE_DATA, &file), "forecaster");
  store_ok(h5_attr_string(file, "/", "config", &text), "config");
  h5_close(file);
  store_ok(forecaster_config_from_json(text, "forecaster", &forecaster), text);
  cr_assert(forecaster.task == TASK_FORECAST && forecaster.d_model == 32 && forecaster.n_layer == 2 &&
                forecaster.input_dim == 3 && forecaster.output_dim == 1 && forecaster.horizon == 5 &&
                forecaster.ssm_cfg.layer == LAYER_MAMBA3,
            "%s", text);
  free(text);
}
