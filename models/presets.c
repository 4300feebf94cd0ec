/* presets: model sizes by name.
 *
 * Published: mamba2-* (the config.json files of state-spaces/mamba2-*, GPT-NeoX vocabulary) and mamba3-1.5b with its MIMO
 * twin (state-spaces/mamba3-{siso,mimo}-1.5b, Llama-3.1 vocabulary). mamba3-180m has the published count of 186 849 600
 * parameters; it, 440m and 880m (the repositories' 893m and 894m fit) follow the paper's recipe: width and depth as in
 * the table, MLP of twice the width, narrower with MIMO so that the counts match (Lahoti et al. 2026).
 * mamba3-112m, -306m, -367m are the shapes of the package mamba3-ssm (small, medium, large), whose names count its own
 * layers; as Mamba-3 layers with a byte vocabulary they have 105, 293 and 351 million parameters. */
#include <string.h>

#include "models/aspis.h"

typedef struct Preset {
  const char *name;
  LayerKind layer;
  int d_model, n_layer, d_intermediate, vocab_size, pad_vocab_size_multiple;
  int d_state, headdim, chunk_size;
  bool is_mimo, A_softplus;
} Preset;

enum { BYTES = 256, NEOX = 50277, LLAMA3 = 128256 };

/* name, layer, d_model, n_layer, d_intermediate, vocab_size, pad, d_state, headdim, chunk_size, is_mimo, A_softplus */
static const Preset PRESETS[] = {
    {"tiny", LAYER_MAMBA3, 128, 4, 0, BYTES, 8, 32, 32, 64, false, false},
    {"mamba2-130m", LAYER_MAMBA2, 768, 24, 0, NEOX, 16, 128, 64, 256, false, false},
    {"mamba2-370m", LAYER_MAMBA2, 1024, 48, 0, NEOX, 16, 128, 64, 256, false, false},
    {"mamba2-780m", LAYER_MAMBA2, 1536, 48, 0, NEOX, 16, 128, 64, 256, false, false},
    {"mamba2-1.3b", LAYER_MAMBA2, 2048, 48, 0, NEOX, 16, 128, 64, 256, false, false},
    {"mamba2-2.7b", LAYER_MAMBA2, 2560, 64, 0, NEOX, 16, 128, 64, 256, false, false},
    {"mamba3-180m", LAYER_MAMBA3, 768, 12, 1536, LLAMA3, 16, 128, 64, 64, false, false},
    {"mamba3-180m-mimo", LAYER_MAMBA3, 768, 12, 1264, LLAMA3, 16, 128, 64, 16, true, false},
    {"mamba3-440m", LAYER_MAMBA3, 1024, 24, 2048, LLAMA3, 16, 128, 64, 64, false, false},
    {"mamba3-440m-mimo", LAYER_MAMBA3, 1024, 24, 1792, LLAMA3, 16, 128, 64, 16, true, false},
    {"mamba3-880m", LAYER_MAMBA3, 1536, 24, 3072, LLAMA3, 16, 128, 64, 64, false, false},
    {"mamba3-880m-mimo", LAYER_MAMBA3, 1536, 24, 2800, LLAMA3, 16, 128, 64, 16, true, false},
    {"mamba3-1.5b", LAYER_MAMBA3, 2048, 24, 4096, LLAMA3, 16, 128, 64, 64, false, false},
    {"mamba3-1.5b-mimo", LAYER_MAMBA3, 2048, 24, 3824, LLAMA3, 16, 128, 64, 16, true, false},
    {"mamba3-112m", LAYER_MAMBA3, 1024, 16, 0, BYTES, 8, 64, 64, 64, false, true},
    {"mamba3-306m", LAYER_MAMBA3, 1536, 20, 0, BYTES, 8, 64, 64, 64, false, true},
    {"mamba3-367m", LAYER_MAMBA3, 1536, 24, 0, BYTES, 8, 64, 64, 64, false, true},
};
enum { N_PRESETS = sizeof PRESETS / sizeof *PRESETS };

bool model_preset(const char *name, ModelConfig *config) {
  for (int i = 0; i < N_PRESETS; i++) {
    const Preset *p = &PRESETS[i];
    if (strcmp(p->name, name) != 0) continue;
    *config = model_config_default();
    config->d_model = p->d_model;
    config->n_layer = p->n_layer;
    config->d_intermediate = p->d_intermediate;
    config->vocab_size = p->vocab_size;
    config->pad_vocab_size_multiple = p->pad_vocab_size_multiple;
    config->ssm_cfg = mixer_config_default(p->layer);
    config->ssm_cfg.d_model = p->d_model;
    config->ssm_cfg.d_state = p->d_state;
    config->ssm_cfg.headdim = p->headdim;
    config->ssm_cfg.chunk_size = p->chunk_size;
    config->ssm_cfg.is_mimo = p->is_mimo;
    config->ssm_cfg.A_softplus = p->A_softplus;
    return true;
  }
  return false;
}

const char *const *model_preset_names(void) {
  static const char *names[N_PRESETS + 1];
  for (int i = 0; i < N_PRESETS; i++) names[i] = PRESETS[i].name;
  return names;
}
