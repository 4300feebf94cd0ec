/* bench_op: the operations and whole mixers as cases, forward and backward apart, at the sizes of a config. Inputs are
 * random numbers of the magnitude a fresh model has; every one of them gets a gradient, as in training. */
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "train/bench/bench.h"
#include "train/format.h"
#include "train/plan.h"

enum { MAX_INPUTS = 32, MAX_OUTPUTS = 4 };

/* One operation at work. */
typedef struct Trial {
  const Bench *bench;
  const ModelConfig *model;
  MixerConfig ssm; /* of the layer the case is about */
  Dtype act;
  int64_t n_t; /* tokens of the batch */
  Device device;
  Tape tape;
  Tensor *cu_seqlens;
  Tensor *input[MAX_INPUTS], *output[MAX_OUTPUTS]; /* what it reads; what it wrote, from forward */
  int n_inputs, n_outputs;
  uint64_t n_tensors; /* made so far: each has its own numbers */
  char *what;
  ParamTable params;
  Mixer mixer;
  Tensor *target;
  union {
    Conv1d conv;
    SsmDt dt;
    SsdScan scan;
    GatedNorm gate;
    Attention attention;
  };
} Trial;

/* What a case is: the layer whose sizes it takes, how its inputs are made, how it runs. */
typedef struct BenchOp {
  LayerKind layer;
  bool mimo, own_layer; /* own_layer: that of the config instead */
  void (*setup)(Trial *t);
  void (*forward)(Trial *t);
} BenchOp;

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

/* Uniform in [low, high), outliving the tape's rewinds; the gradient is of type `grad`. */
static Tensor *random_tensor(Trial *t, Dtype dtype, Dtype grad, int n_dim, const int64_t *dim, double low,
                             double high) {
  Tensor *x = tensor_new(&t->device.weights, dtype, n_dim, dim);
  Rng rng = rng_make(1, RNG_TEST, 0, t->n_tensors++);
  if (!t->device.dry) {
    Tensor host = device_mirror(&t->device, x);
    for (int64_t i = 0; i < tensor_count(x); i++) tensor_set(&host, i, low + (high - low) * rng_uniform(&rng));
  }
  device_push(&t->device, x);
  x->needs_grad = true;
  x->grad = tensor_new(&t->device.weights, grad, n_dim, dim);
  device_zero(&t->device, x->grad);
  return x;
}

/* Counts x among what the operation reads. */
static Tensor *reads(Trial *t, Tensor *x) {
  CHECK(t->n_inputs < MAX_INPUTS, "more than %d inputs", MAX_INPUTS);
  t->input[t->n_inputs++] = x;
  return x;
}

static Tensor *activation(Trial *t, int64_t n_cols) {
  return random_tensor(t, t->act, t->act, 2, (const int64_t[]){t->n_t, n_cols}, -1, 1);
}

/* Columns of an activation, as a mixer reads its projection. */
static Tensor *columns(Trial *t, Tensor *base, int64_t col, int64_t n_cols) {
  Tensor *view = tensor_cols(&t->device.weights, base, col, n_cols);
  view->needs_grad = true;
  view->grad = tensor_same_view(&t->device.weights, view, base->grad);
  return reads(t, view);
}

/* A scalar a token and head. */
static Tensor *scalars(Trial *t, double low, double high) {
  return reads(t, random_tensor(t, F32, F32, 2, (const int64_t[]){t->n_t, mixer_nheads(&t->ssm)}, low, high));
}

#define DIM(...)                                                                                                       \
  (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }
static Tensor *weight(Trial *t, int n_dim, const int64_t *dim) {
  return reads(t, random_tensor(t, t->act, F32, n_dim, dim, -0.05, 0.05));
}
static Tensor *parameter(Trial *t, int n_dim, const int64_t *dim) {
  return reads(t, random_tensor(t, F32, F32, n_dim, dim, 0.5, 1));
}

/* ---- matrix products --------------------------------------------------------------------------------------------- */

static void setup_product(Trial *t, int64_t n_t, int64_t n_in, int64_t n_out) {
  t->n_t = n_t;
  reads(t, activation(t, n_in));
  weight(t, DIM(n_out, n_in));
  t->what = base_format("%lld x %lld by %lld", (long long)n_t, (long long)n_in, (long long)n_out);
}
static void setup_gemm_in(Trial *t) {
  const MixerConfig *c = &t->ssm;
  const int64_t n_proj = 2 * mixer_d_inner(c) + 2 * c->ngroups * c->d_state + mixer_nheads(c);
  setup_product(t, t->n_t, c->d_model, n_proj);
}
static void setup_gemm_out(Trial *t) { setup_product(t, t->n_t, mixer_d_inner(&t->ssm), t->ssm.d_model); }
static void setup_gemm_rate(Trial *t) { setup_product(t, 2048, 768, 3352); }
static void forward_gemm(Trial *t) {
  t->output[t->n_outputs++] = op_linear(&t->tape, t->input[0], t->input[1], NULL, t->act);
}

/* ---- the parts of a block ---------------------------------------------------------------------------------------- */

static void setup_norm(Trial *t) {
  const int64_t d = t->model->d_model, dim[] = {t->n_t, d};
  reads(t, random_tensor(t, F32, F32, 2, dim, -1, 1));
  weight(t, DIM(d));
  t->what = base_format("RMSNorm, width %lld", (long long)d);
}
static void forward_norm(Trial *t) {
  t->output[t->n_outputs++] = op_rms_norm(&t->tape, t->input[0], t->input[1], 1e-5);
}

static void setup_conv(Trial *t) {
  const MixerConfig *c = &t->ssm;
  const int64_t n_ssm = mixer_d_ssm(c), n_channels = n_ssm + 2 * c->ngroups * c->d_state;
  Tensor *proj = activation(t, n_ssm + n_channels + mixer_nheads(c));
  t->conv = (Conv1d){.silu = true, .cu_seqlens = t->cu_seqlens, .x = columns(t, proj, n_ssm, n_channels)};
  t->conv.w = weight(t, DIM(n_channels, 1, c->d_conv));
  t->conv.bias = weight(t, DIM(n_channels));
  t->what = base_format("%lld channels, %d taps, SiLU", (long long)n_channels, c->d_conv);
}
static void forward_conv(Trial *t) { t->output[t->n_outputs++] = op_conv1d(&t->tape, t->conv, false).y; }

static void setup_dt(Trial *t) {
  const MixerConfig *c = &t->ssm;
  const int64_t n_h = mixer_nheads(c), n_e = mixer_d_inner(c);
  Tensor *proj = activation(t, 2 * n_e + 3 * n_h);
  t->dt = (SsmDt){.dt_min = c->dt_limit[0],
                  .dt_max = c->dt_limit[1],
                  .A_softplus = c->A_softplus,
                  .A_floor = c->A_floor,
                  .dt_raw = columns(t, proj, 2 * n_e, n_h),
                  .dt_bias = parameter(t, DIM(n_h))};
  if (c->layer == LAYER_MAMBA2) t->dt.A_log = parameter(t, DIM(n_h));
  else {
    t->dt.A_raw = columns(t, proj, 2 * n_e + n_h, n_h);
    t->dt.trap = columns(t, proj, 2 * n_e + 2 * n_h, n_h);
  }
  t->what = base_format("%lld heads", (long long)n_h);
}
static void forward_dt(Trial *t) {
  const SsmDt done = op_ssm_dt(&t->tape, t->dt);
  t->output[t->n_outputs++] = done.dt;
  t->output[t->n_outputs++] = done.a;
  if (done.lambda) t->output[t->n_outputs++] = done.lambda;
}

static void setup_scan(Trial *t) {
  const MixerConfig *c = &t->ssm;
  const int64_t n_h = mixer_nheads(c), n_r = mixer_rank(c), n_x = n_h * c->headdim,
                n_bc = n_r * c->ngroups * c->d_state;
  const int64_t n_s = c->layer == LAYER_MAMBA3 ? mixer_n_angles(c) : 0;
  Tensor *proj = activation(t, n_x + 2 * n_bc + n_s);
  t->scan = (SsdScan){.n_h = (int)n_h,
                      .n_p = c->headdim,
                      .n_n = c->d_state,
                      .n_g = c->ngroups,
                      .n_r = (int)n_r,
                      .n_s = (int)n_s,
                      .chunk_size = c->chunk_size,
                      .rotate_halves = c->is_mimo,
                      .norm_eps = 1e-5,
                      .cu_seqlens = t->cu_seqlens,
                      .x = columns(t, proj, 0, n_x),
                      .B = columns(t, proj, n_x, n_bc),
                      .C = columns(t, proj, n_x + n_bc, n_bc),
                      .dt = scalars(t, 0.001, 0.1),
                      .a = scalars(t, -0.5, -0.001),
                      .D = parameter(t, DIM(n_h))};
  if (c->layer == LAYER_MAMBA3) {
    t->scan.lambda = scalars(t, 0, 1);
    t->scan.B_norm = weight(t, DIM(c->d_state));
    t->scan.C_norm = weight(t, DIM(c->d_state));
    t->scan.B_bias = parameter(t, DIM(n_h, n_r, c->d_state));
    t->scan.C_bias = parameter(t, DIM(n_h, n_r, c->d_state));
    if (n_s > 0) t->scan.angle = columns(t, proj, n_x + 2 * n_bc, n_s);
    if (c->is_mimo) t->scan.mimo_x = parameter(t, DIM(n_h, n_r, c->headdim));
  }
  t->what = base_format("%lld heads of %d, d_state %d, chunks of %d, rank %lld", (long long)n_h, c->headdim, c->d_state,
                        c->chunk_size, (long long)n_r);
}
static void forward_scan(Trial *t) { t->output[t->n_outputs++] = op_ssd_scan(&t->tape, t->scan, false).y; }

static void setup_gate(Trial *t) {
  const MixerConfig *c = &t->ssm;
  const int64_t n_h = mixer_nheads(c), n_r = mixer_rank(c), n_e = n_h * c->headdim;
  const bool norm = c->layer == LAYER_MAMBA2 && c->rmsnorm;
  Tensor *proj = activation(t, 2 * n_e);
  t->gate = (GatedNorm){.norm = norm ? GATE_NORM_AFTER : GATE_NORM_NONE,
                        .n_r = (int)n_r,
                        .n_h = (int)n_h,
                        .n_p = c->headdim,
                        .group = (int)n_e / c->ngroups,
                        .eps = 1e-5,
                        .x = reads(t, activation(t, n_r * n_e)),
                        .z = columns(t, proj, 0, n_e)};
  if (norm) t->gate.weight = weight(t, DIM(n_e));
  if (c->is_mimo) {
    t->gate.mimo_z = parameter(t, DIM(n_h, n_r, c->headdim));
    t->gate.mimo_o = parameter(t, DIM(n_h, n_r, c->headdim));
  }
  t->what = base_format("width %lld, rank %lld, %s", (long long)n_e, (long long)n_r, norm ? "RMSNorm" : "no norm");
}
static void forward_gate(Trial *t) { t->output[t->n_outputs++] = op_gated_norm(&t->tape, t->gate).out; }

static void setup_swiglu(Trial *t) {
  const int64_t width = t->model->d_intermediate ? model_d_mlp(t->model) : 4 * t->model->d_model;
  Tensor *proj = activation(t, 2 * width);
  columns(t, proj, 0, width);
  columns(t, proj, width, width);
  t->what = base_format("width %lld", (long long)width);
}
static void forward_swiglu(Trial *t) {
  t->output[t->n_outputs++] = op_swiglu(&t->tape, t->input[0], t->input[1], NULL);
}

static void setup_attention(Trial *t) {
  const AttnConfig *c = &t->model->attn_cfg;
  const int d_model = t->model->d_model, heads = c->num_heads ? c->num_heads : d_model >= 64 ? d_model / 64 : 1;
  const int kv = c->num_heads_kv ? c->num_heads_kv : heads, width = c->head_dim ? c->head_dim : d_model / heads;
  Tensor *proj = activation(t, (int64_t)(heads + 2 * kv) * width);
  t->attention = (Attention){.n_heads = heads,
                             .n_heads_kv = kv,
                             .head_dim = width,
                             .rotary_dim = c->rotary_emb_dim,
                             .rotary_interleaved = c->rotary_emb_interleaved,
                             .rotary_base = c->rotary_emb_base,
                             .scale = 0.1,
                             .cu_seqlens = t->cu_seqlens,
                             .q = columns(t, proj, 0, (int64_t)heads * width),
                             .k = columns(t, proj, (int64_t)heads * width, (int64_t)kv * width),
                             .v = columns(t, proj, (int64_t)(heads + kv) * width, (int64_t)kv * width)};
  t->what = base_format("%d heads of %d", heads, width);
}
static void forward_attention(Trial *t) { t->output[t->n_outputs++] = op_attention(&t->tape, t->attention).y; }

static void setup_cross_entropy(Trial *t) {
  const int64_t n_rows = model_padded_vocab(t->model);
  reads(t, activation(t, t->model->d_model));
  weight(t, DIM(n_rows, t->model->d_model));
  t->target = tensor_new1(&t->device.weights, I32, t->n_t);
  if (!t->device.dry) {
    int32_t *target = device_mirror(&t->device, t->target).data;
    for (int64_t i = 0; i < t->n_t; i++) target[i] = (int32_t)(i % t->model->vocab_size);
  }
  device_push(&t->device, t->target);
  t->what = base_format("width %d, %d classes", t->model->d_model, t->model->vocab_size);
}
static void forward_cross_entropy(Trial *t) {
  t->output[t->n_outputs++] = op_cross_entropy(&t->tape, t->input[0], t->input[1], t->target, t->model->vocab_size);
}

/* ---- whole mixers ------------------------------------------------------------------------------------------------ */

static void setup_mixer(Trial *t) {
  const MixerConfig *c = &t->ssm;
  t->mixer.kind = c->layer;
  if (c->layer == LAYER_MAMBA2) mamba2_init(&t->mixer.mamba2, &t->params, "mixer.", c, 1);
  else mamba3_init(&t->mixer.mamba3, &t->params, "mixer.", c, 1);
  params_alloc(&t->params, &t->device, t->act, true, 0);
  if (!t->device.dry) params_init(&t->params, 1);
  params_zero_grads(&t->params);
  reads(t, activation(t, c->d_model));
  for (int i = 0; i < t->params.n_params; i++) reads(t, &t->params.params[i]->value);
  t->what = base_format("%s%s, d_model %d, d_state %d", c->layer == LAYER_MAMBA2 ? "Mamba-2" : "Mamba-3",
                        c->is_mimo ? " MIMO" : "", c->d_model, c->d_state);
}
static void forward_mixer(Trial *t) {
  t->output[t->n_outputs++] = mixer_forward(&t->mixer, &t->tape, t->input[0], t->cu_seqlens, NULL, NULL);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static Trial trial_of(const Bench *bench, const BenchOp *op) {
  Trial t = (Trial){.bench = bench,
                    .model = &bench->config->model,
                    .ssm = bench->config->model.ssm_cfg,
                    .act = bench->config->dtype,
                    .n_t = bench->n_seq * bench->length};
  t.ssm.layer = op->layer, t.ssm.is_mimo = op->mimo;
  if (op->own_layer) t.ssm = t.model->ssm_cfg;
  t.ssm.d_model = t.model->d_model;
  return t;
}

/* What it reads, on the device that is open. */
static void trial_make(Trial *t, const BenchOp *op) {
  const Bench *bench = t->bench;
  t->cu_seqlens = tensor_new1(&t->device.weights, I32, bench->n_seq + 1);
  if (!t->device.dry) {
    int32_t *starts = device_mirror(&t->device, t->cu_seqlens).data;
    for (int64_t i = 0; i <= bench->n_seq; i++) starts[i] = (int32_t)(i * bench->length);
  }
  device_push(&t->device, t->cu_seqlens);
  op->setup(t);
}

static void trial_close(Trial *t) {
  free(t->what);
  params_free(&t->params);
  device_close(&t->device);
}

/* What backward begins with: the outputs' gradients, small numbers. */
static void seed_outputs(Trial *t) {
  for (int i = 0; i < t->n_outputs; i++) {
    Tensor *dy = tape_grad(&t->tape, t->output[i]);
    if (t->device.dry) continue;
    Tensor host = device_mirror(&t->device, dy);
    if (dy->dtype == F32)
      for (int64_t k = 0; k < tensor_count(dy); k++) ((float *)host.data)[k] = 1e-3f;
    else
      for (int64_t k = 0; k < tensor_count(dy); k++) ((uint16_t *)host.data)[k] = bf16_from_float(1e-3f);
    device_push(&t->device, dy);
  }
}

/* Least bytes of forward and of backward (bench.h). */
static void count_bytes(const Trial *t, double bytes[2]) {
  double in = 0, out = 0, gradients = 0;
  for (int i = 0; i < t->n_inputs; i++) {
    in += (double)tensor_bytes(t->input[i]);
    gradients += (double)tensor_bytes(t->input[i]->grad);
  }
  for (int i = 0; i < t->n_outputs; i++) out += (double)tensor_bytes(t->output[i]);
  bytes[0] = in + out, bytes[1] = in + out + gradients;
}

/* One forward and backward pass; FLOPs and least bytes of each. */
static void trial_run(Trial *t, const BenchOp *op, double seconds[2], double flops[2], double bytes[2]) {
  const size_t mark = arena_mark(&t->device.step);
  t->tape = tape_make(&t->device, t->act, true);
  t->n_outputs = 0;
  t->device.flops = 0;
  double start = base_seconds();
  op->forward(t);
  device_wait(&t->device);
  seconds[0] = base_seconds() - start;
  flops[0] = t->device.flops;
  count_bytes(t, bytes);
  seed_outputs(t);
  device_wait(&t->device);
  start = base_seconds();
  tape_backward(&t->tape);
  device_wait(&t->device);
  seconds[1] = base_seconds() - start;
  flops[1] = t->device.flops - flops[0];
  tape_reset(&t->tape, mark);
}

/* The memory that a trial takes: a pass of it, made dry. */
static Status measure(const Bench *bench, const BenchOp *op, DeviceSizes *sizes) {
  Trial t = trial_of(bench, op);
  double seconds[2], flops[2], bytes[2];
  TRY(device_open_dry(&t.device, bench->config->device, F32));
  trial_make(&t, op);
  trial_run(&t, op, seconds, flops, bytes);
  *sizes = (DeviceSizes){t.device.weights.peak_bytes, t.device.step.peak_bytes, t.device.scratch.peak_bytes};
  trial_close(&t);
  return STATUS_OK;
}

static Status trial_open(Trial *t, const Bench *bench, const BenchOp *op) {
  *t = trial_of(bench, op);
  char *problem = mixer_config_problem(&t->ssm);
  if (problem) {
    Status status = status_fail(CODE_USAGE, "bench: model.%s", problem);
    free(problem);
    return status;
  }
  if (t->n_t > INT32_MAX)
    return status_fail(CODE_USAGE, "bench: found %lld sequences of %lld tokens, expected at most %d tokens",
                       (long long)bench->n_seq, (long long)bench->length, INT32_MAX);
  DeviceSizes sizes;
  TRY(measure(bench, op, &sizes));
  const size_t bytes = sizes.weights_bytes + sizes.step_bytes + sizes.scratch_bytes,
               available = plan_memory_available(bench->config->device);
  if (bytes > available)
    return status_fail(CODE_MEMORY, "bench: needs %s, %s are available: lower data.seq_len or the model's size",
                       format_bytes((double)bytes).text, format_bytes((double)available).text);
  TRY(device_open(&t->device, bench->config->device, F32, sizes));
  trial_make(t, op);
  return STATUS_OK;
}

static Status bench_op(const Bench *bench, const BenchCase *self) {
  Trial t;
  TRY(trial_open(&t, bench, self->op));
  Samples samples[2] = {0};
  double seconds[2], flops[2], bytes[2];
  while (!samples_enough(&samples[0], bench->seconds) || !samples_enough(&samples[1], bench->seconds)) {
    trial_run(&t, self->op, seconds, flops, bytes);
    for (int pass = 0; pass < 2; pass++)
      if (!samples_enough(&samples[pass], bench->seconds)) samples_add(&samples[pass], seconds[pass], bench->seconds);
  }
  for (int pass = 0; pass < 2; pass++)
    bench_print(bench, &(BenchLine){.name = self->name,
                                    .pass = pass ? "backward" : "forward",
                                    .what = t.what,
                                    .samples = &samples[pass],
                                    .flops = flops[pass],
                                    .bytes = bytes[pass],
                                    .tokens = (double)t.n_t});
  trial_close(&t);
  return STATUS_OK;
}

/* Forward and backward of the config's own bare mixer, together: one line. */
static Status bench_mixer(const Bench *bench, const BenchCase *self) {
  Trial t;
  TRY(trial_open(&t, bench, self->op));
  Samples samples = {0};
  double seconds[2], flops[2], bytes[2];
  while (!samples_enough(&samples, bench->seconds)) {
    trial_run(&t, self->op, seconds, flops, bytes);
    samples_add(&samples, seconds[0] + seconds[1], bench->seconds);
  }
  bench_print(bench, &(BenchLine){.name = self->name,
                                  .pass = "forward+backward",
                                  .what = t.what,
                                  .samples = &samples,
                                  .flops = flops[0] + flops[1],
                                  .bytes = bytes[0] + bytes[1],
                                  .tokens = (double)t.n_t});
  trial_close(&t);
  return STATUS_OK;
}

#define OP(layer, mimo, setup, forward) (&(const BenchOp){layer, mimo, false, setup_##setup, forward_##forward})
const BenchCase bench_ops[] = {
    {"gemm_in", "gemm", "input projection of a Mamba-2 mixer", bench_op, OP(LAYER_MAMBA2, false, gemm_in, gemm)},
    {"gemm_out", "gemm", "output projection", bench_op, OP(LAYER_MAMBA2, false, gemm_out, gemm)},
    {"gemm_rate", "gemm", "2048 x 768 by 3352: the machine's rate", bench_op, OP(LAYER_MAMBA2, false, gemm_rate, gemm)},
    {"norm", NULL, "RMSNorm of the residual stream", bench_op, OP(LAYER_MAMBA2, false, norm, norm)},
    {"conv", NULL, "causal convolution and SiLU", bench_op, OP(LAYER_MAMBA2, false, conv, conv)},
    {"dt_mamba2", "dt", "step sizes and decays", bench_op, OP(LAYER_MAMBA2, false, dt, dt)},
    {"dt_mamba3", "dt", "the same, Mamba-3", bench_op, OP(LAYER_MAMBA3, false, dt, dt)},
    {"scan_mamba2", "scan", "the scan alone", bench_op, OP(LAYER_MAMBA2, false, scan, scan)},
    {"scan_siso", "scan", "the same, Mamba-3 SISO", bench_op, OP(LAYER_MAMBA3, false, scan, scan)},
    {"scan_mimo", "scan", "the same, Mamba-3 MIMO", bench_op, OP(LAYER_MAMBA3, true, scan, scan)},
    {"gate_mamba2", "gate", "gate and RMSNorm", bench_op, OP(LAYER_MAMBA2, false, gate, gate)},
    {"gate_siso", "gate", "the same, Mamba-3 SISO", bench_op, OP(LAYER_MAMBA3, false, gate, gate)},
    {"gate_mimo", "gate", "the same, Mamba-3 MIMO", bench_op, OP(LAYER_MAMBA3, true, gate, gate)},
    {"swiglu", NULL, "the MLP's gate", bench_op, OP(LAYER_MAMBA2, false, swiglu, swiglu)},
    {"attention", NULL, "causal attention", bench_op, OP(LAYER_MAMBA2, false, attention, attention)},
    {"cross_entropy", NULL, "classifier and loss", bench_op, OP(LAYER_MAMBA2, false, cross_entropy, cross_entropy)},
    {"mamba2", "mixers", "a whole Mamba-2 mixer", bench_op, OP(LAYER_MAMBA2, false, mixer, mixer)},
    {"mamba3", "mixers", "a whole Mamba-3 SISO mixer", bench_op, OP(LAYER_MAMBA3, false, mixer, mixer)},
    {"mamba3_mimo", "mixers", "a whole Mamba-3 MIMO mixer", bench_op, OP(LAYER_MAMBA3, true, mixer, mixer)},
    {"mixer", NULL, "forward and backward of the config's own mixer, together", bench_mixer,
     &(const BenchOp){.own_layer = true, .setup = setup_mixer, .forward = forward_mixer}},
    {NULL, NULL, NULL, NULL, NULL},
};
