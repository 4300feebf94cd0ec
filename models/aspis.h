/* aspis: the public header of the library: a model's configuration, the model, and what one does with it.
 *
 *   ModelConfig -> model_new (registers parameters) -> params_alloc -> params_init or weights_load -> model_loss / model_logits
 */
#pragma once

#include "models/state.h"
#include "tensor/replay.h"

typedef enum Task { TASK_LM, TASK_FORECAST } Task;
typedef enum ForecastHead { HEAD_LAST, HEAD_FLATTEN, HEAD_ROWS } ForecastHead;
typedef enum ForecastLoss { FORECAST_MSE, FORECAST_MAE, FORECAST_HUBER, FORECAST_QUANTILE } ForecastLoss;
typedef enum Ablation { ABLATE_NONE, ABLATE_MIXER } Ablation;

#define MODEL_MAX_LAYERS 256

typedef struct ModelConfig {
  Task task;
  int d_model, n_layer, d_intermediate; /* d_intermediate 0: no MLP; else rounded up to a multiple of 128 */
  int d_mlp;                            /* 0: from d_intermediate; a weights file's own fc1 shape sets it */
  int vocab_size, pad_vocab_size_multiple;
  bool tie_embeddings, residual_in_fp32;
  MixerConfig ssm_cfg; /* its d_model mirrors d_model */
  int attn_layer_idx[MODEL_MAX_LAYERS], n_attn_layers;
  AttnConfig attn_cfg;
  Ablation ablate; /* mixer: every layer's mixer is the identity, to see what it adds */
  /* forecast (models/forecaster.c) */
  int input_dim, output_dim, horizon, context;
  int value_dim;    /* the first value_dim inputs are the series' own columns, the rest known covariates; 0: all are */
  int target_first; /* output j continues input target_first + j */
  WindowStatistic revin;
  bool revert;       /* of what revin shifted by, each row of the forecast gets a learned part back */
  int cycle;         /* rows of the learned periodic part; 0: none */
  bool linear;       /* a linear map of the window beside the backbone's forecast */
  bool known_future; /* the window goes on over the rows to forecast, whose known columns are read */
  bool channel_independent, bidirectional;
  int patch_len, stride; /* rows of a token, and from one token to the next */
  ForecastHead head;
  ForecastLoss loss;
  double huber_delta, quantiles[MAX_QUANTILES];
  int n_quantiles;
  double dropout;
} ModelConfig;

ModelConfig model_config_default(void);
/* Rows of embedding and head: vocab_size rounded up. */
static inline int model_padded_vocab(const ModelConfig *c) {
  return (int)round_up(c->vocab_size, c->pad_vocab_size_multiple);
}
static inline int model_d_mlp(const ModelConfig *c) {
  return c->d_mlp ? c->d_mlp : (int)round_up(c->d_intermediate, 128);
}
/* NULL, or what is wrong with the combination (malloc'ed), key names relative to `model.` */
char *model_config_problem(const ModelConfig *config);
/* Sets *config to a preset ("tiny", "mamba2-130m", ...); false if there is none of that name. */
bool model_preset(const char *name, ModelConfig *config);
/* Names of all presets, NULL-terminated. */
const char *const *model_preset_names(void);

/* config.json in the canonical layout (spec 6), and our own `config` JSON in checkpoints: the same text.
 * Unknown keys of ssm_cfg/attn_cfg are refused by name; a bare Infinity is read. */
Status model_config_from_json(const char *text, const char *where, ModelConfig *config);
char *model_config_to_json(const ModelConfig *config); /* malloc'ed */
/* One mixer's options, and a forecaster {"mixer": {...}, "n_layer": .., "input_dim": ..}, as the golden files' attribute
 * `config` has them: the names of ssm_cfg, with d_model inside. */
Status mixer_config_from_json(const char *text, const char *where, MixerConfig *config);
Status forecaster_config_from_json(const char *text, const char *where, ModelConfig *config);

typedef struct Block {
  Mixer mixer;
  Tensor *norm, *norm2, *fc1, *fc2;
} Block;

/* What backward makes again instead of keeping (models/backbone.c): changes memory and time, no bit of the result. */
typedef enum Recompute { RECOMPUTE_NONE, RECOMPUTE_MIXER, RECOMPUTE_BLOCK } Recompute;

struct Model {
  ModelConfig config;
  Recompute recompute; /* none, unless set after model_new */
  ParamTable params;
  Block *blocks;
  Tensor *embedding, *norm_f, *lm_head; /* lm_head is the embedding when tied */
  Tensor *input_proj, *input_proj_bias, *output_proj, *output_proj_bias, *cycle, *linear, *revert;
  uint64_t dropout_seed; /* what the training tape draws by; the run's seed */
};

/* Builds the parameter table; no memory for values yet (params_alloc(&model->params, ...)). config must be valid. */
Model *model_new(const ModelConfig *config);
void model_free(Model *model);

/* cu_seqlens for n_seq sequences of equal length, (n_seq + 1) I32 in the tape's step arena. */
Tensor *model_equal_seqlens(Tape *tape, int64_t n_seq, int64_t length);

/* The host's n values as (n) I32 in the device's step arena; on a dry device only their room. */
Tensor *model_ints(Device *device, const int32_t *values, int64_t n);

/* Which dropout of a model one is (op_dropout): layer i has one after its mixer and one after its MLP. */
enum { DROPOUT_SITE_INPUT, DROPOUT_SITE_HEAD, DROPOUT_SITE_LAYERS };

/* The backbone over an embedded input h (T, D) real -> normed output (T, D) act. hidden: NULL, or n_layer entries that
 * get the residual stream after each layer (the tape must not be recording). */
Tensor *backbone_forward(Model *model, Tape *tape, Tensor *h, Tensor *cu_seqlens, const ModelState *state_in,
                         ModelState *state_out, Tensor **hidden);
/* The same for one token of each sequence, h (n_seq, D), the state moving on in place. Not recorded. */
Tensor *backbone_step(Model *model, Tape *tape, Tensor *h, ModelState *state);
/* token (T) I32 -> per-token nll (T, 1) real of target (T) I32 (CROSS_ENTROPY_IGNORE: 0). */
Tensor *lm_nll(Model *model, Tape *tape, Tensor *token, Tensor *target, Tensor *cu_seqlens, const ModelState *state_in,
               ModelState *state_out);
/* token (T) -> logits (T, V padded) real; hidden as above */
Tensor *lm_logits(Model *model, Tape *tape, Tensor *token, Tensor *cu_seqlens, const ModelState *state_in,
                  ModelState *state_out, Tensor **hidden);
/* The logits (1, V padded) real after the last token of one sequence. */
Tensor *lm_last_logits(Model *model, Tape *tape, Tensor *token, const ModelState *state_in, ModelState *state_out);
/* The same of an embedded input h (T, D) real. */
Tensor *lm_last_logits_of(Model *model, Tape *tape, Tensor *h, const ModelState *state_in, ModelState *state_out);
/* One more token (n_seq) I32 of each sequence -> the logits (n_seq, V padded) real after it. The state moves on in place;
 * attention needs room for one more. */
Tensor *lm_step(Model *model, Tape *tape, Tensor *token, ModelState *state);

/* Decoding: sequences that are continued token by token. The state lies in the device's weights arena; calls rewind the
 * step arena, and are made on a dry device to plan for them (then nothing is read or written). */
typedef struct Decoder {
  Model *model;
  Device *device;
  Dtype act;
  ModelState state;
  Replay *replay; /* of its steps; NULL: they are launched kernel by kernel */
} Decoder;
/* room: tokens of the longest sequence, for attention. */
Decoder decoder_open(Model *model, Device *device, Dtype act, int64_t n_seq, int64_t room);
/* From now on steps are launched as graphs where the device has such (tensor/replay.h); ended by decoder_close, before the
 * device is closed. Without it there is nothing to close. */
void decoder_use_graphs(Decoder *decoder);
void decoder_close(Decoder *decoder);
/* What such a decoder needs of a dry device, with prompts of up to n_prompt tokens. */
void decoder_plan(Model *model, Device *dry, Dtype act, int64_t n_seq, int64_t n_prompt, int64_t room);
/* Sequence s reads n >= 1 tokens, however long it is already: scanned in pieces, so that memory is bounded. The logits after
 * the last one are left in `logits`: V padded floats, or NULL. Each piece is a part of the whole, to rounding. */
void decoder_read(Decoder *decoder, int64_t s, const int32_t *token, int64_t n, float *logits);
/* The same of n vectors (n, D) in place of the tokens' embeddings. */
void decoder_read_embedded(Decoder *decoder, int64_t s, const float *embedded, int64_t n, float *logits);
/* Every sequence reads one token: token (n_seq) -> logits (n_seq, V padded). */
void decoder_step(Decoder *decoder, const int32_t *token, float *logits);

/* n_seq windows of equal length; it is forecaster_window_rows unless head is `last`, tokens are rows and the future is not
 * known: then any. */
typedef struct Windows {
  int64_t n_seq, length;
  Tensor *series; /* (n_seq * length, input_dim) real */
  Tensor *phase;  /* (n_seq) I32: place in the cycle of each window's first row; NULL without model.cycle */
  /* Windows that go on where others ended, and are gone on from: of models that forecaster_stream_problem allows. */
  const ModelState *state_in; /* NULL: zero */
  ModelState *state_out;      /* NULL: not wanted */
} Windows;
/* -> (n_seq, horizon * output_dim * forecaster_n_quantiles) real, in the units of the series */
Tensor *forecaster_predict(Model *model, Tape *tape, const Windows *windows);
/* NULL when a series can be read row by row with the state kept: forecasts of each row in O(1), equal to those of one window
 * that holds all rows so far. Else why not (malloc'ed). */
char *forecaster_stream_problem(const ModelConfig *config);
/* The state that one window starts from, in `arena` of `device`. */
ModelState forecaster_start_state(const Model *model, Device *device, Arena *arena, Dtype real);
/* loss (n_seq, 1) real of a prediction against target (n_seq, horizon * output_dim) real, by config.loss */
Tensor *forecaster_loss(Model *model, Tape *tape, Tensor *prediction, Tensor *target);
/* Forecasts of a value: the quantiles, or 1; and which of them is the point forecast: the one nearest to the median. */
int forecaster_n_quantiles(const ModelConfig *config);
int forecaster_point(const ModelConfig *config);
/* Rows of a window: the context, and with known_future the horizon. */
int64_t forecaster_window_rows(const ModelConfig *config);
/* Sizes that follow from the options: a token's width, the head's input and output, and what `linear` reads of a whole window
 * and makes of it. */
int64_t forecaster_token_width(const ModelConfig *config);
int64_t forecaster_head_width(const ModelConfig *config);
int64_t forecaster_head_out_width(const ModelConfig *config);
int64_t forecaster_linear_width(const ModelConfig *config);
int64_t forecaster_linear_out_width(const ModelConfig *config);

/* Sampling. temperature 0 is greedy; top_k 0 and top_p 1: off; repetition_penalty 1 (or 0): off, else the logits of tokens
 * that came before are divided by it where positive and multiplied where not (Keskar et al. 2019). Draw i of sequence s uses
 * Philox (seed, SAMPLE, s, i). */
typedef struct SampleOptions {
  double temperature, top_p, repetition_penalty;
  int top_k;
  uint64_t seed;
} SampleOptions;
/* One token from a row of logits (vocab_size of them); -1 when one of them is not finite. The row is the sequence s. */
int sample_token(const Tensor *logits, int64_t row, int vocab_size, const SampleOptions *options, uint64_t draw);
/* The penalty, on logits of a row: each token of before (n) counts once. */
void sample_penalize(Tensor *logits, int64_t row, double penalty, const int32_t *before, int64_t n);

/* Sequences to be continued, and what is told of them. */
typedef struct Generate {
  const int32_t *const *prompt; /* of each sequence of the decoder */
  const int64_t *n_prompt;      /* at least 1 */
  int64_t n_new;                /* tokens to make of each, at most */
  SampleOptions sample;
  /* Told each token as it is made; false ends that sequence. */
  bool (*on_token)(void *user, int64_t s, int32_t token);
  void *user;
} Generate;
/* Reads the prompts (equal ones once) and continues every sequence. Returns the number of tokens made, of all together, or
 * -1 when logits were not finite (CODE_NONFINITE is the caller's to report). */
int64_t generate_tokens(Decoder *decoder, const Generate *generate);
/* The same for one sequence without a state: the prefix is computed anew for every token. */
int64_t generate_uncached(Model *model, Device *device, Dtype act, const Generate *generate);

/* Weights: a directory with config.json and model.safetensors, its shards and model.safetensors.index.json, or an old
 * pytorch_model.bin; in the canonical layout or Hugging Face's of Mamba2ForCausalLM. Strict: every missing, unexpected or
 * misshapen tensor is listed and the whole refused (CODE_CHECKPOINT). A tied file may hold lm_head.weight if it equals
 * the embedding. F32, F16 and BF16 files. */
bool weights_directory(const char *path); /* whether it holds one of the three */
Status weights_read_config(const char *directory, ModelConfig *config);
Status weights_load(Model *model, const char *directory);
typedef struct WeightsSurvey {
  const char *format;                /* "safetensors", "sharded safetensors", "pytorch_model.bin" */
  int n_matched, n_cast, n_reshaped; /* cast: from half precision; reshaped: by dimensions of 1 */
  int n_tied;                        /* heads that are the embedding once more */
} WeightsSurvey;
/* The checks of weights_load alone, and what was found; the model needs no memory for values. */
Status weights_survey(const Model *model, const char *directory, WeightsSurvey *survey);
typedef enum WeightsLayout { LAYOUT_CANONICAL, LAYOUT_HF } WeightsLayout;
/* Writes config.json and model.safetensors (F32), each by temp file, fsync, rename. What a layout cannot say is CODE_USAGE. */
Status weights_save(Model *model, const char *directory, WeightsLayout layout);

/* Hugging Face's config.json of a Mamba2ForCausalLM (models/config_hf.c); model_config_from_json reads both. */
char *model_config_to_hf(const ModelConfig *config);      /* malloc'ed */
char *model_config_hf_problem(const ModelConfig *config); /* NULL, or what it has no words for (malloc'ed) */
