/* scan_shapes: see scan_shapes.h. */
#include "tests/support/scan_shapes.h"

#include "tensor/rng.h"

#define MAMBA2(size) .n_h = 2, .n_p = 64, .n_n = 64, .n_g = 1, .n_r = 1, .chunk = size
#define SISO(size) MAMBA2(size), .n_s = 16, .mamba3 = true
#define MIMO(size)                                                                                                     \
  .n_h = 2, .n_p = 32, .n_n = 64, .n_g = 1, .n_r = 4, .n_s = 32, .chunk = size, .mamba3 = true, .halves = true

const ScanShape SCAN_SHAPES[] = {
    {"Mamba-2, one token", MAMBA2(64), .states = STATES_BOTH, .lengths = {1}},
    {"Mamba-2, a chunk less one", MAMBA2(64), .lengths = {63}},
    {"Mamba-2, a chunk", MAMBA2(64), .states = STATES_BOTH, .lengths = {64}},
    {"Mamba-2, a chunk and one", MAMBA2(64), .states = STATES_BOTH, .lengths = {65}},
    {"Mamba-2, packed", MAMBA2(64), .states = STATES_BOTH, .lengths = {1, 70, 64, 1, 9, 130}},
    {"Mamba-2, chunks of 1", MAMBA2(1), .states = STATES_BOTH, .lengths = {9, 1}},
    {"Mamba-2, chunks of 7", MAMBA2(7), .lengths = {50}},
    {"Mamba-2, chunks of several tiles", MAMBA2(200), .states = STATES_BOTH, .lengths = {150, 330}},
    {"Mamba-2, a first state", MAMBA2(64), .states = STATES_IN, .lengths = {30, 100}},
    {"Mamba-2, a last state", MAMBA2(64), .states = STATES_OUT, .lengths = {100, 30}},
    {"Mamba-2, no states, several tiles", MAMBA2(200), .lengths = {32, 150, 1}},
    {"Mamba-2, no decay", MAMBA2(64), .states = STATES_BOTH, .decay = DECAY_NONE, .lengths = {130}},
    {"Mamba-2, strong decay", MAMBA2(64), .states = STATES_BOTH, .decay = DECAY_STRONG, .lengths = {130}},
    {"Mamba-2, mixed decay", MAMBA2(64), .states = STATES_BOTH, .decay = DECAY_MIXED, .lengths = {130}},
    {"Mamba-2, odd sizes", .n_h = 4, .n_p = 5, .n_n = 13, .n_g = 2, .n_r = 1, .chunk = 8, .D_has_hdim = true,
     .states = STATES_BOTH, .lengths = {23, 1, 8}},
    {"Mamba-2, many heads", .n_h = 40, .n_p = 8, .n_n = 16, .n_g = 2, .n_r = 1, .chunk = 32, .states = STATES_BOTH,
     .lengths = {70}},
    {"Mamba-2, a wide state", .n_h = 2, .n_p = 24, .n_n = 136, .n_g = 1, .n_r = 1, .chunk = 64, .lengths = {100}},
    {"Mamba-2, long", .n_h = 1, .n_p = 4, .n_n = 8, .n_g = 1, .n_r = 1, .chunk = 48, .states = STATES_BOTH,
     .lengths = {2100, 40, 1030}},
    {"Mamba-2, two heads in segments", .n_h = 2, .n_p = 20, .n_n = 24, .n_g = 1, .n_r = 1, .chunk = 48,
     .states = STATES_BOTH, .decay = DECAY_NONE, .lengths = {2100}},
    {"Mamba-2, segments, packed", .n_h = 1, .n_p = 5, .n_n = 12, .n_g = 1, .n_r = 1, .chunk = 100,
     .states = STATES_BOTH, .lengths = {700, 1, 1200, 512}},
    {"Mamba-3 SISO, one token", SISO(64), .states = STATES_BOTH, .lengths = {1}},
    {"Mamba-3 SISO, a chunk less one", SISO(64), .states = STATES_BOTH, .lengths = {63}},
    {"Mamba-3 SISO, a chunk", SISO(64), .lengths = {64}},
    {"Mamba-3 SISO, a chunk and one", SISO(64), .states = STATES_BOTH, .lengths = {65}},
    {"Mamba-3 SISO, packed", SISO(64), .states = STATES_BOTH, .lengths = {1, 70, 64, 1, 9, 130}},
    {"Mamba-3 SISO, chunks of 1", SISO(1), .states = STATES_BOTH, .lengths = {9, 1}},
    {"Mamba-3 SISO, chunks of several tiles", SISO(200), .states = STATES_BOTH, .lengths = {150, 330}},
    {"Mamba-3 SISO, a first state", SISO(64), .states = STATES_IN, .lengths = {30, 100}},
    {"Mamba-3 SISO, a last state", SISO(200), .states = STATES_OUT, .lengths = {100, 30}},
    {"Mamba-3 SISO, no decay", SISO(64), .states = STATES_BOTH, .decay = DECAY_NONE, .lengths = {130}},
    {"Mamba-3 SISO, strong decay", SISO(64), .states = STATES_BOTH, .decay = DECAY_STRONG, .lengths = {130}},
    {"Mamba-3 SISO, mixed decay", SISO(64), .states = STATES_BOTH, .decay = DECAY_MIXED, .lengths = {130}},
    {"Mamba-3 SISO, odd sizes", .n_h = 4, .n_p = 5, .n_n = 14, .n_g = 2, .n_r = 1, .n_s = 3, .chunk = 8, .mamba3 = true,
     .D_has_hdim = true, .states = STATES_BOTH, .lengths = {23, 1, 8}},
    {"Mamba-3 SISO, no rotation", .n_h = 3, .n_p = 8, .n_n = 12, .n_g = 1, .n_r = 1, .chunk = 16, .mamba3 = true,
     .states = STATES_BOTH, .lengths = {40}},
    {"Mamba-3 SISO, long", .n_h = 1, .n_p = 4, .n_n = 8, .n_g = 1, .n_r = 1, .n_s = 4, .chunk = 48, .mamba3 = true,
     .states = STATES_BOTH, .lengths = {2100, 40, 1030}},
    {"Mamba-3 SISO, two heads in segments", .n_h = 2, .n_p = 20, .n_n = 24, .n_g = 1, .n_r = 1, .n_s = 6, .chunk = 48,
     .mamba3 = true, .states = STATES_BOTH, .decay = DECAY_NONE, .lengths = {2100}},
    {"Mamba-3 SISO, segments, packed", .n_h = 1, .n_p = 5, .n_n = 12, .n_g = 1, .n_r = 1, .n_s = 3, .chunk = 100,
     .mamba3 = true, .lengths = {700, 1, 1200, 512}},
    {"Mamba-3 MIMO, one token", MIMO(64), .states = STATES_BOTH, .lengths = {1}},
    {"Mamba-3 MIMO, a chunk less one", MIMO(64), .states = STATES_BOTH, .lengths = {63}},
    {"Mamba-3 MIMO, a chunk and one", MIMO(64), .states = STATES_BOTH, .lengths = {65}},
    {"Mamba-3 MIMO, packed", MIMO(64), .states = STATES_BOTH, .lengths = {1, 70, 17, 1, 9}},
    {"Mamba-3 MIMO, a first state", MIMO(64), .states = STATES_IN, .lengths = {7, 20}},
    {"Mamba-3 MIMO, a last state", MIMO(64), .states = STATES_OUT, .lengths = {20, 7}},
    {"Mamba-3 MIMO, no states", MIMO(64), .lengths = {9, 40}},
    {"Mamba-3 MIMO, strong decay", MIMO(64), .states = STATES_BOTH, .decay = DECAY_STRONG, .lengths = {40}},
    {"Mamba-3 MIMO, mixed decay", MIMO(64), .states = STATES_BOTH, .decay = DECAY_MIXED, .lengths = {40}},
    {"Mamba-3 MIMO, odd sizes", .n_h = 4, .n_p = 5, .n_n = 14, .n_g = 2, .n_r = 3, .n_s = 5, .chunk = 8, .mamba3 = true,
     .halves = true, .D_has_hdim = true, .states = STATES_BOTH, .lengths = {23, 1, 8}},
    {"Mamba-3 MIMO, segments", .n_h = 1, .n_p = 6, .n_n = 12, .n_g = 1, .n_r = 2, .n_s = 3, .chunk = 64, .mamba3 = true,
     .halves = true, .states = STATES_BOTH, .decay = DECAY_NONE, .lengths = {1300, 30}},
    {"Mamba-3 MIMO, rank 5", .n_h = 2, .n_p = 20, .n_n = 34, .n_g = 1, .n_r = 5, .n_s = 8, .chunk = 32, .mamba3 = true,
     .halves = true, .states = STATES_BOTH, .lengths = {60}},
    {"Mamba-3 MIMO, more ranks than a tile has rows", .n_h = 1, .n_p = 3, .n_n = 4, .n_g = 1, .n_r = 70, .n_s = 2,
     .chunk = 4, .mamba3 = true, .halves = true, .states = STATES_BOTH, .lengths = {3}},
};
const int N_SCAN_SHAPES = sizeof SCAN_SHAPES / sizeof SCAN_SHAPES[0];

/* normal(mean, std) in bfloat16 values. */
static Tensor *randn(Device *device, Dtype dtype, int64_t d0, int64_t d1, int64_t d2, int64_t d3, double mean,
                     double std, uint32_t stream) {
  const int64_t dim[] = {d0, d1, d2, d3};
  int n_dim = 0;
  while (n_dim < 4 && dim[n_dim] > 0) n_dim++;
  Tensor *t = tensor_new(&device->step, dtype, n_dim, dim);
  Tensor host = device_mirror(device, t);
  Rng rng = rng_make(83, RNG_TEST, stream, 0);
  for (int64_t i = 0; i < tensor_count(t); i++)
    tensor_set(&host, i, bf16_to_float(bf16_from_float((float)(mean + std * rng_normal(&rng)))));
  device_push(device, t);
  t->needs_grad = true;
  return t;
}

static void decays(Device *device, Tensor *a, ScanDecay decay) {
  static const double SCALE[] = {[DECAY_USUAL] = 1, [DECAY_NONE] = 3e-6, [DECAY_STRONG] = 130, [DECAY_MIXED] = 1};
  const int64_t n_h = tensor_last(a);
  Tensor host = device_mirror(device, a);
  for (int64_t i = 0; i < tensor_count(a); i++) {
    double value = tensor_get(&host, i) * SCALE[decay];
    if (decay == DECAY_MIXED) value *= (i / n_h + i % n_h) % 5 == 2 ? 10000 : 0.03;
    tensor_set(&host, i, (double)(float)value);
  }
  device_push(device, a);
}

static void add_result(ScanCase *c, const char *name, Tensor *t, bool act, bool angle) {
  if (!t) return;
  const int i = c->n_results++;
  c->host[i] = device_pull(&c->device, t);
  c->results[i] = (ScanResult){name, &c->host[i], act, angle};
}

Status scan_case_run(ScanCase *c, const char *name, const ScanShape *o, Dtype real, Dtype act) {
  *c = (ScanCase){0};
  TRY(device_open(&c->device, name, real, (DeviceSizes){1 << 20, 64 << 20, 64 << 20}));
  Device *device = &c->device;
  Tape tape = tape_make(device, act, true);
  int n_seq = 0, n_t = 0;
  for (; o->lengths[n_seq]; n_seq++) n_t += o->lengths[n_seq];
  const int n_h = o->n_h, n_p = o->n_p, n_n = o->n_n, n_r = o->n_r, width = n_r * o->n_g * n_n;
  SsdScan p = {.n_h = n_h, .n_p = n_p, .n_n = n_n, .n_g = o->n_g, .n_r = n_r, .n_s = o->n_s};
  p.chunk_size = o->chunk, p.rotate_halves = o->halves, p.norm_eps = 1e-5;
  p.cu_seqlens = tensor_new1(&device->step, I32, n_seq + 1);
  Tensor starts = device_mirror(device, p.cu_seqlens);
  tensor_set(&starts, 0, 0);
  for (int i = 0; i < n_seq; i++) tensor_set(&starts, i + 1, tensor_get(&starts, i) + o->lengths[i]);
  device_push(device, p.cu_seqlens);
  /* x, B, C are columns of one projection, as in a model */
  Tensor *proj = randn(device, act, n_t, n_h * n_p + 2 * width + 3, 0, 0, 0, 1, 1);
  p.x = tensor_cols(&device->step, proj, 0, n_h * n_p);
  p.B = tensor_cols(&device->step, proj, n_h * n_p, width);
  p.C = tensor_cols(&device->step, proj, n_h * n_p + width, width);
  p.dt = randn(device, real, n_t, n_h, 0, 0, 0.6, 0.1, 2);
  p.a = randn(device, real, n_t, n_h, 0, 0, -0.3, 0.05, 3);
  decays(device, p.a, o->decay);
  p.D = randn(device, real, o->D_has_hdim ? n_h * n_p : n_h, 0, 0, 0, 1, 0.3, 4);
  if (o->n_s) p.angle = randn(device, act, n_t, o->n_s, 0, 0, 0, 1, 5);
  if (o->mamba3) {
    p.lambda = randn(device, real, n_t, n_h, 0, 0, 0.5, 0.1, 6);
    p.B_norm = randn(device, real, n_n, 0, 0, 0, 1, 0.2, 7);
    p.C_norm = randn(device, real, n_n, 0, 0, 0, 1, 0.2, 8);
    p.B_bias = randn(device, real, n_h, n_r, n_n, 0, 1, 0.3, 9);
    p.C_bias = randn(device, real, n_h, n_r, n_n, 0, 1, 0.3, 10);
    if (o->halves) p.mimo_x = randn(device, real, n_h, n_r, n_p, 0, 1, 0.3, 11);
  }
  if (o->states & STATES_IN) {
    p.ssm_in = randn(device, real, n_seq, n_h, n_p, n_n, 0, 1, 12);
    if (o->n_s) p.angle_in = randn(device, real, n_seq, n_h, o->n_s, 0, 3, 1, 13);
    if (o->mamba3) p.k_in = randn(device, real, n_seq, n_r, n_h, n_n, 0, 1, 14);
    if (o->mamba3) p.v_in = randn(device, real, n_seq, n_h, n_p, 0, 0, 1, 15);
  }
  c->scan = p = op_ssd_scan(&tape, p, o->states & STATES_OUT);
  Tensor *outputs[] = {p.y, p.ssm_out, p.angle_out, p.k_out, p.v_out};
  for (uint32_t i = 0; i < 5; i++)
    if (outputs[i]) {
      const int64_t last = tensor_last(outputs[i]);
      const Tensor direction = device_mirror(
          device, randn(device, outputs[i]->dtype, tensor_count(outputs[i]) / last, last, 0, 0, 0, 1, 20 + i));
      device_fill(device, tape_grad(&tape, outputs[i]), &direction);
    }
  tape_backward(&tape);

  add_result(c, "y", p.y, true, false);
  add_result(c, "ssm_out", p.ssm_out, false, false);
  add_result(c, "angle_out", p.angle_out, false, true);
  add_result(c, "k_out", p.k_out, false, false);
  add_result(c, "v_out", p.v_out, false, false);
  add_result(c, "dx, dB, dC", tape_grad(&tape, proj), true, false); /* what pads it is zeroed now */
  const struct {
    const char *name;
    Tensor *of;
  } gradients[] = {{"ddt", p.dt},
                   {"da", p.a},
                   {"dlambda", p.lambda},
                   {"dD", p.D},
                   {"dB_norm", p.B_norm},
                   {"dC_norm", p.C_norm},
                   {"dB_bias", p.B_bias},
                   {"dC_bias", p.C_bias},
                   {"dmimo_x", p.mimo_x},
                   {"dssm_in", p.ssm_in},
                   {"dk_in", p.k_in},
                   {"dv_in", p.v_in},
                   {"dangle_in", p.angle_in}};
  add_result(c, "dangle", p.angle ? p.angle->grad : NULL, true, false);
  for (size_t i = 0; i < sizeof gradients / sizeof gradients[0]; i++)
    add_result(c, gradients[i].name, gradients[i].of ? gradients[i].of->grad : NULL, false, false);
  return STATUS_OK;
}

void scan_case_close(ScanCase *c) { device_close(&c->device); }
