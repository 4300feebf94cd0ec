/* aspis bench [CASE...]: times operations and whole training steps on this machine, forward and backward apart.
 * Sizes are those of one layer of a small language model (d_model 384, 8 x 512 tokens); data and weights are random. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "train/command.h"
#include "train/format.h"
#include "train/plan.h"

enum { BATCH = 8, LENGTH = 512, TOKENS = BATCH * LENGTH, D_MODEL = 384, HEADDIM = 64, D_STATE = 64, VOCAB = 256 };

/* A random tensor that outlives the tape's rewinds. */
static Tensor *random_tensor(Device *device, int64_t rows, int64_t cols, double scale) {
  Tensor *t = tensor_new2(&device->weights, F32, rows, cols);
  Rng rng = rng_make(1, RNG_TEST, 0, (uint64_t)(rows * 131 + cols));
  for (int64_t i = 0; i < rows * cols; i++) ((float *)t->data)[i] = (float)(scale * (2 * rng_uniform(&rng) - 1));
  t->needs_grad = true;
  t->grad = tensor_new2(&device->weights, F32, rows, cols);
  tensor_zero(t->grad);
  return t;
}

typedef struct Bench {
  Device device;
  Tape tape;
  Tensor *input[8];
  Mixer mixer;
  ParamTable params;
  Tensor *token;
} Bench;

static void linear_setup(Bench *b) {
  b->input[0] = random_tensor(&b->device, TOKENS, D_MODEL, 1);
  b->input[1] = random_tensor(&b->device, 4 * D_MODEL, D_MODEL, 0.05);
}
static Tensor *linear_run(Bench *b) { return op_linear(&b->tape, b->input[0], b->input[1], NULL, F32); }

static void norm_setup(Bench *b) {
  b->input[0] = random_tensor(&b->device, TOKENS, D_MODEL, 1);
  b->input[1] = random_tensor(&b->device, TOKENS, D_MODEL, 1);
  b->input[2] = random_tensor(&b->device, 1, D_MODEL, 1);
  b->input[2]->n_dim = b->input[2]->grad->n_dim = 1;
  b->input[2]->dim[0] = b->input[2]->grad->dim[0] = D_MODEL;
}
static Tensor *norm_run(Bench *b) {
  Tensor *h;
  return op_add_norm(&b->tape, b->input[0], b->input[1], b->input[2], 1e-5, &h);
}

static void cross_entropy_setup(Bench *b) {
  b->input[0] = random_tensor(&b->device, TOKENS, D_MODEL, 1);
  b->input[1] = random_tensor(&b->device, VOCAB, D_MODEL, 0.05);
  b->token = tensor_new1(&b->device.weights, I32, TOKENS);
  for (int i = 0; i < TOKENS; i++) ((int32_t *)b->token->data)[i] = i % VOCAB;
}
static Tensor *cross_entropy_run(Bench *b) {
  return op_cross_entropy(&b->tape, b->input[0], b->input[1], b->token, VOCAB);
}

static void mixer_setup(Bench *b, LayerKind layer, bool is_mimo) {
  MixerConfig config = mixer_config_default(layer);
  config.d_model = D_MODEL, config.d_state = D_STATE, config.headdim = HEADDIM, config.chunk_size = 64;
  config.is_mimo = is_mimo;
  b->mixer.kind = layer;
  if (layer == LAYER_MAMBA2) mamba2_init(&b->mixer.mamba2, &b->params, "mixer.", &config, 1);
  else mamba3_init(&b->mixer.mamba3, &b->params, "mixer.", &config, 1);
  params_alloc(&b->params, &b->device, F32, true, 0);
  params_init(&b->params, 1);
  b->input[0] = random_tensor(&b->device, TOKENS, D_MODEL, 1);
}
static void mamba2_setup(Bench *b) { mixer_setup(b, LAYER_MAMBA2, false); }
static void siso_setup(Bench *b) { mixer_setup(b, LAYER_MAMBA3, false); }
static void mimo_setup(Bench *b) { mixer_setup(b, LAYER_MAMBA3, true); }
static Tensor *mixer_run(Bench *b) {
  return mixer_forward(&b->mixer, &b->tape, b->input[0], model_equal_seqlens(&b->tape, BATCH, LENGTH), NULL, NULL);
}

static const struct BenchCase {
  const char *name, *what;
  void (*setup)(Bench *b);
  Tensor *(*run)(Bench *b);
} CASES[] = {
    {"gemm", "4096 x 384 by 1536 x 384", linear_setup, linear_run},
    {"norm", "residual add + RMSNorm, 4096 x 384", norm_setup, norm_run},
    {"cross_entropy", "4096 tokens, 256 classes", cross_entropy_setup, cross_entropy_run},
    {"mamba2", "one mixer, 8 x 512 tokens, d_state 64", mamba2_setup, mixer_run},
    {"mamba3", "the same, Mamba-3 SISO", siso_setup, mixer_run},
    {"mamba3_mimo", "the same, Mamba-3 MIMO rank 4", mimo_setup, mixer_run},
};
enum { N_CASES = sizeof CASES / sizeof CASES[0], REPEATS = 7 };

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, compare);
  return values[n / 2];
}

static void print_line(const char *name, const char *pass, const char *what, double seconds, double flops, bool json) {
  if (json)
    printf("{\"case\": \"%s\", \"pass\": \"%s\", \"ms\": %.4f, \"gflops\": %.2f}\n", name, pass, seconds * 1e3,
           flops / seconds / 1e9);
  else printf("%-14s %-9s %10.3f ms %9.1f GFLOP/s   %s\n", name, pass, seconds * 1e3, flops / seconds / 1e9, what);
  fflush(stdout);
}

static Status run_case(const struct BenchCase *c, bool json) {
  Bench b = {0};
  TRY(device_open(&b.device, "auto", F32, DEVICE_SIZES_ROOMY));
  c->setup(&b);
  double forward[REPEATS], backward[REPEATS], flops[2] = {0};
  size_t mark = arena_mark(&b.device.step);
  for (int i = -1; i < REPEATS; i++) { /* the first one warms up */
    b.tape = tape_make(&b.device, F32, true);
    b.device.flops = 0;
    double t0 = base_seconds();
    Tensor *y = c->run(&b);
    double t1 = base_seconds();
    flops[0] = b.device.flops;
    Tensor *dy = tape_grad(&b.tape, y);
    for (int64_t k = 0; k < tensor_count(dy); k++) ((float *)dy->data)[k] = 1e-3f;
    double t2 = base_seconds();
    tape_backward(&b.tape);
    double t3 = base_seconds();
    flops[1] = b.device.flops - flops[0];
    if (i >= 0) forward[i] = t1 - t0, backward[i] = t3 - t2;
    tape_reset(&b.tape, mark);
  }
  print_line(c->name, "forward", c->what, median(forward, REPEATS), flops[0], json);
  print_line(c->name, "backward", c->what, median(backward, REPEATS), flops[1], json);
  params_free(&b.params);
  device_close(&b.device);
  return STATUS_OK;
}

/* Whole training steps of a config, on random tokens. */
static Status run_step(const char *path, const char *const *sets, int n_sets, bool json) {
  Config config = {0};
  TRY_OR(config_load(path, sets, n_sets, &config), config_free(&config));
  if (config.vocab_size_auto) config.model.vocab_size = VOCAB;
  PlanShape shape = {.train_length = config.data.seq_len};
  Plan plan;
  Device device = {0};
  Status status = plan_make(&config, &shape, plan_memory_available(), &plan);
  if (status.code == CODE_OK) status = device_open(&device, config.device, F32, plan.sizes);
  if (status.code != CODE_OK) {
    config_free(&config);
    return status;
  }
  Model *model = model_new(&config.model);
  params_alloc(&model->params, &device, config.dtype, true, gradient_n_spare(plan.gradient.virtual_ranks));
  params_init(&model->params, 1);
  int64_t n = (int64_t)config.train.batch_size * config.data.seq_len;
  Batch batch = {.n_seq = config.train.batch_size,
                 .length = config.data.seq_len,
                 .token = base_alloc((size_t)n * sizeof(int32_t)),
                 .target = base_alloc((size_t)n * sizeof(int32_t))};
  Rng rng = rng_make(1, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < n; i++)
    batch.token[i] = (int32_t)rng_below(&rng, (uint32_t)config.model.vocab_size),
    batch.target[i] = (int32_t)rng_below(&rng, (uint32_t)config.model.vocab_size);
  double seconds[REPEATS];
  for (int i = -1; i < REPEATS; i++) {
    double start = base_seconds();
    gradient_step(model, &device, config.dtype, &plan.gradient, &batch);
    const Param *bad;
    double norm = optim_grad_norm(&model->params, &device, &bad);
    optim_update(&model->params, &device, &config.optim, config.optim.lr, optim_clip_scale(norm, config.optim.clip),
                 i + 2);
    if (i >= 0) seconds[i] = base_seconds() - start;
  }
  double time = median(seconds, REPEATS);
  if (json)
    printf("{\"case\": \"step\", \"ms\": %.4f, \"tok_per_s\": %.1f, \"gflops\": %.2f}\n", time * 1e3, (double)n / time,
           plan.flops_per_token * (double)n / time / 1e9);
  else
    printf("%-14s %-9s %10.3f ms %9.1f GFLOP/s   %s tok/s, %s\n", "step", "whole", time * 1e3,
           plan.flops_per_token * (double)n / time / 1e9, format_count((double)n / time).text, path);
  free(batch.token), free(batch.target);
  model_free(model);
  device_close(&device);
  config_free(&config);
  return STATUS_OK;
}

static bool wanted(const Command *command, const char *name) {
  for (int i = 0; i < command->n_args; i++)
    if (strcmp(command->args[i], name) == 0) return true;
  return command->n_args == 0;
}

static Status cmd_bench(const Command *command) {
  bool json = command_has(command, "json");
  const char *config = command_text(command, "config", NULL);
  for (int i = 0; i < command->n_args; i++) {
    bool known = strcmp(command->args[i], "step") == 0;
    for (int c = 0; c < N_CASES; c++) known |= strcmp(command->args[i], CASES[c].name) == 0;
    if (!known)
      return status_fail(
          CODE_USAGE, "bench: found case %s, expected gemm, norm, cross_entropy, mamba2, mamba3, mamba3_mimo or step",
          command->args[i]);
    if (strcmp(command->args[i], "step") == 0 && !config)
      return status_fail(CODE_USAGE, "bench step: expected --config CONFIG");
  }
  for (int c = 0; c < N_CASES; c++)
    if (wanted(command, CASES[c].name) && !(config && command->n_args == 0)) TRY(run_case(&CASES[c], json));
  if (!config) return STATUS_OK;
  const char **sets;
  int n_sets = command_all(command, "set", &sets);
  Status status = run_step(config, sets, n_sets, json);
  free(sets);
  return status;
}

const CommandSpec command_bench = {
    .name = "bench",
    .summary = "time operations and training steps on this machine",
    .usage = "bench [CASE...] [options]",
    .examples = {"aspis bench", "aspis bench mamba3 gemm --json",
                 "aspis bench step --config configs/shakespeare_char.yaml"},
    .options =
        (const OptionSpec[]){
            {"config", "CONFIG", "time training steps of this config", false}, OPTION_SET, OPTION_JSON, {0}},
    .args = "CASE...",
    .min_args = 0,
    .max_args = -1,
    .run = cmd_bench,
};
