/* Invariants of the scan and of the convolution before it: what must hold whatever the kernel. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "autograd/ops.h"
#include "tensor/rng.h"

enum { N_T = 23, N_H = 4, N_P = 5, N_N = 12, N_G = 2, CHUNK = 8 };

/* ---- a scan with inputs, and what comes out of it ---- */

enum Input {
  X,
  B,
  C,
  ANGLE,
  DT,
  A,
  LAMBDA,
  N_ROW_INPUTS,
  D = N_ROW_INPUTS,
  B_NORM,
  C_NORM,
  B_BIAS,
  C_BIAS,
  MIMO_X,
  N_INPUTS
};
static const char *const INPUT_NAME[] = {"x", "B",      "C",      "angle",  "dt",     "a",     "lambda",
                                         "D", "B_norm", "C_norm", "B_bias", "C_bias", "mimo_x"};

typedef struct Model {
  char name[16];
  int n_r, n_s;
  bool mamba3;
} Model;
static const Model MODELS[] = {{"Mamba-2", 1, 0, false}, {"Mamba-3 SISO", 1, 3, true}, {"Mamba-3 MIMO", 3, 6, true}};
enum { N_MODELS = sizeof MODELS / sizeof MODELS[0] };

typedef struct Scan {
  Device device;
  Tape tape;
  Model model;
  Tensor *in[N_INPUTS]; /* all N_T tokens */
  Tensor *dy;           /* direction of y */
} Scan;

static Tensor *randn(Device *device, Dtype dtype, int n_dim, const int64_t *dim, double mean, double std,
                     uint32_t stream) {
  Tensor *t = tensor_new(&device->step, dtype, n_dim, dim);
  Rng rng = rng_make(71, RNG_TEST, stream, 0);
  for (int64_t i = 0; i < tensor_count(t); i++)
    tensor_set(t, i, bf16_to_float(bf16_from_float((float)(mean + std * rng_normal(&rng)))));
  t->needs_grad = true;
  return t;
}

/* The same numbers whatever the types: all of them are bfloat16 values. */
static void scan_open(Scan *s, Model model, Dtype real, Dtype act) {
  *s = (Scan){.model = model};
  Status status = device_open(&s->device, "cpu", real, (DeviceSizes){1 << 20, 64 << 20, 64 << 20});
  cr_assert_eq(status.code, CODE_OK, "%s: %s", model.name, status.line);
  s->tape = tape_make(&s->device, act, true);
  const int64_t width = model.n_r * N_G * N_N, n_r = model.n_r;
  const struct {
    bool real, mamba3;
    int n_dim;
    int64_t dim[3];
    double mean, std;
  } SHAPES[N_INPUTS] = {
      [X] = {false, false, 2, {N_T, N_H * N_P}, 0, 1},     [B] = {false, false, 2, {N_T, width}, 0, 1},
      [C] = {false, false, 2, {N_T, width}, 0, 1},         [ANGLE] = {false, true, 2, {N_T, model.n_s}, 0, 1},
      [DT] = {true, false, 2, {N_T, N_H}, 0.6, 0.1},       [A] = {true, false, 2, {N_T, N_H}, -0.3, 0.05},
      [LAMBDA] = {true, true, 2, {N_T, N_H}, 0.5, 0.1},    [D] = {true, false, 1, {N_H}, 1, 0.2},
      [B_NORM] = {true, true, 1, {N_N}, 1, 0.2},           [C_NORM] = {true, true, 1, {N_N}, 1, 0.2},
      [B_BIAS] = {true, true, 3, {N_H, n_r, N_N}, 1, 0.2}, [C_BIAS] = {true, true, 3, {N_H, n_r, N_N}, 1, 0.2},
      [MIMO_X] = {true, true, 3, {N_H, n_r, N_P}, 1, 0.2}};
  for (int i = 0; i < N_INPUTS; i++)
    if (!SHAPES[i].mamba3 || (model.mamba3 && (i != MIMO_X || n_r > 1)))
      s->in[i] = randn(&s->device, SHAPES[i].real ? real : act, SHAPES[i].n_dim, SHAPES[i].dim, SHAPES[i].mean,
                       SHAPES[i].std, (uint32_t)i);
  s->dy = randn(&s->device, act, 2, (const int64_t[]){N_T, n_r * N_H * N_P}, 0, 1, N_INPUTS);
}

/* Scans rows [first, end) as sequences of the given lengths (ends with 0), from the states in `from` where given. */
static SsdScan scan_rows(Scan *s, int first, int end, const int *lengths, int chunk, const SsdScan *from) {
  Tensor *in[N_INPUTS];
  for (int i = 0; i < N_INPUTS; i++)
    in[i] = i < N_ROW_INPUTS && s->in[i] ? tensor_every(&s->device.step, s->in[i], first, 1, end - first) : s->in[i];
  int n_seq = 0;
  while (lengths[n_seq]) n_seq++;
  Tensor *cu_seqlens = tensor_new1(&s->device.step, I32, n_seq + 1);
  tensor_set(cu_seqlens, 0, 0);
  for (int i = 0; i < n_seq; i++) tensor_set(cu_seqlens, i + 1, tensor_get(cu_seqlens, i) + lengths[i]);
  SsdScan p = {.n_h = N_H, .n_p = N_P, .n_n = N_N, .n_g = N_G, .n_r = s->model.n_r, .n_s = s->model.n_s};
  p.chunk_size = chunk, p.rotate_halves = s->model.n_r > 1, p.norm_eps = 1e-5, p.cu_seqlens = cu_seqlens;
  p.x = in[X], p.B = in[B], p.C = in[C], p.angle = in[ANGLE], p.dt = in[DT], p.a = in[A], p.lambda = in[LAMBDA];
  p.D = in[D], p.B_norm = in[B_NORM], p.C_norm = in[C_NORM], p.B_bias = in[B_BIAS], p.C_bias = in[C_BIAS];
  p.mimo_x = in[MIMO_X];
  if (from) p.ssm_in = from->ssm_out, p.angle_in = from->angle_out, p.k_in = from->k_out, p.v_in = from->v_out;
  SsdScan out = op_ssd_scan(&s->tape, p, true);
  Tensor *dy = tape_grad(&s->tape, out.y);
  for (int64_t i = 0; i < tensor_count(dy); i++) tensor_set(dy, i, tensor_get(s->dy, first * tensor_last(dy) + i));
  return out;
}

/* A direction for the final states, so that their gradients are tested too. */
static void seed_states(Scan *s, const SsdScan *out) {
  Tensor *states[] = {out->ssm_out, out->angle_out, out->k_out, out->v_out};
  for (int i = 0; i < 4; i++)
    if (states[i])
      tensor_copy(tape_grad(&s->tape, states[i]),
                  randn(&s->device, F32, states[i]->n_dim, states[i]->dim, 0, 1, 100 + i));
}

static const int WHOLE[] = {N_T, 0};

static SsdScan scan_whole(Scan *s, int chunk) {
  SsdScan out = scan_rows(s, 0, N_T, WHOLE, chunk, NULL);
  seed_states(s, &out);
  tape_backward(&s->tape);
  return out;
}

/* |got - want| <= tolerance * max |want|, from entry `first` of want on; tolerance 0: the same bits. */
static void assert_close(const Tensor *got, const Tensor *want, int64_t first, double tolerance, const char *model,
                         const char *what) {
  double scale = 0;
  for (int64_t i = 0; i < tensor_count(want); i++) scale = fmax(scale, fabs(tensor_get(want, i)));
  for (int64_t i = 0; i < tensor_count(got); i++) {
    double a = tensor_get(got, i), b = tensor_get(want, first + i);
    cr_assert(fabs(a - b) <= tolerance * scale, "%s: %s[%lld] is %.9g, expected %.9g (off by %.2g of the largest)",
              model, what, (long long)i, a, b, fabs(a - b) / scale);
  }
}

static void assert_same_gradients(const Scan *got, const Scan *want, double tolerance) {
  for (int i = 0; i < N_INPUTS; i++)
    if (want->in[i]) assert_close(got->in[i]->grad, want->in[i]->grad, 0, tolerance, want->model.name, INPUT_NAME[i]);
}

static void assert_same_states(const SsdScan *got, const SsdScan *want, double tolerance, const char *model) {
  const Tensor *a[] = {got->ssm_out, got->angle_out, got->k_out, got->v_out};
  const Tensor *b[] = {want->ssm_out, want->angle_out, want->k_out, want->v_out};
  static const char *const NAME[] = {"ssm_out", "angle_out", "k_out", "v_out"};
  for (int i = 0; i < 4; i++)
    if (b[i]) assert_close(a[i], b[i], 0, tolerance, model, NAME[i]);
}

/* ---- the scan ---- */

Test(scan, a_split_with_carried_state_equals_the_whole_with_gradients) {
  static const int SPLITS[] = {1, 5, CHUNK, N_T - 1};
  for (int m = 0; m < N_MODELS; m++)
    for (int i = 0; i < 4; i++) {
      Scan whole, split;
      scan_open(&whole, MODELS[m], F64, F64);
      scan_open(&split, MODELS[m], F64, F64);
      SsdScan want = scan_whole(&whole, CHUNK);
      int at = SPLITS[i];
      SsdScan head = scan_rows(&split, 0, at, (const int[]){at, 0}, CHUNK, NULL);
      SsdScan tail = scan_rows(&split, at, N_T, (const int[]){N_T - at, 0}, CHUNK, &head);
      seed_states(&split, &tail);
      tape_backward(&split.tape);
      assert_close(head.y, want.y, 0, 1e-12, MODELS[m].name, "y before the split");
      assert_close(tail.y, want.y, at * tensor_last(want.y), 1e-12, MODELS[m].name, "y after the split");
      assert_same_states(&tail, &want, 1e-12, MODELS[m].name);
      assert_same_gradients(&split, &whole, 1e-11);
      device_close(&whole.device);
      device_close(&split.device);
    }
}

/* The definition walks token by token whatever the chunk; the chunked kernel adds the same terms in another order, each
 * sum with a relative error of some 2^-24 per term: 2e-6 of the largest entry is 32 of them. */
static void check_chunk_sizes(Dtype real, double tolerance) {
  static const int CHUNKS[] = {1, 3, N_T - 1, N_T, 64};
  for (int m = 0; m < N_MODELS; m++)
    for (int i = 0; i < 5; i++) {
      Scan one, other;
      scan_open(&one, MODELS[m], real, real);
      scan_open(&other, MODELS[m], real, real);
      SsdScan want = scan_whole(&one, CHUNK), got = scan_whole(&other, CHUNKS[i]);
      assert_close(got.y, want.y, 0, tolerance, MODELS[m].name, "y");
      assert_same_states(&got, &want, tolerance, MODELS[m].name);
      assert_same_gradients(&other, &one, tolerance);
      device_close(&one.device);
      device_close(&other.device);
    }
}

Test(scan, chunk_size_changes_rounding_at_most) {
  check_chunk_sizes(F32, 2e-6);
  check_chunk_sizes(F64, 0);
}

Test(scan, thread_count_changes_no_bit) {
  static const int THREADS[] = {2, 5};
  for (int m = 0; m < N_MODELS; m++)
    for (int i = 0; i < 2; i++) {
      static const int LENGTHS[] = {9, 1, 13, 0};
      Scan one, many;
      scan_open(&one, MODELS[m], F32, F32);
      scan_open(&many, MODELS[m], F32, F32);
      omp_set_num_threads(1);
      SsdScan want = scan_rows(&one, 0, N_T, LENGTHS, CHUNK, NULL);
      tape_backward(&one.tape);
      omp_set_num_threads(THREADS[i]);
      SsdScan got = scan_rows(&many, 0, N_T, LENGTHS, CHUNK, NULL);
      tape_backward(&many.tape);
      assert_close(got.y, want.y, 0, 0, MODELS[m].name, "y");
      assert_same_states(&got, &want, 0, MODELS[m].name);
      assert_same_gradients(&many, &one, 0);
      device_close(&one.device);
      device_close(&many.device);
    }
}

/* dtypes: outputs to the bit in float; gradients in double, because sums over all tokens are cut by their number. */
static void check_packed(Model model, Dtype real, double gradient_tolerance) {
  static const int LENGTHS[] = {1, 9, 1, 12, 0};
  Scan packed, apart;
  scan_open(&packed, model, real, real);
  scan_open(&apart, model, real, real);
  SsdScan all = scan_rows(&packed, 0, N_T, LENGTHS, CHUNK, NULL);
  tape_backward(&packed.tape);
  for (int i = 0, first = 0; LENGTHS[i]; first += LENGTHS[i++]) {
    SsdScan piece = scan_rows(&apart, first, first + LENGTHS[i], (const int[]){LENGTHS[i], 0}, CHUNK, NULL);
    assert_close(piece.y, all.y, first * tensor_last(all.y), 0, model.name, "y of a piece");
    assert_close(piece.ssm_out, all.ssm_out, i * tensor_count(piece.ssm_out), 0, model.name, "ssm_out of a piece");
  }
  tape_backward(&apart.tape);
  assert_same_gradients(&apart, &packed, gradient_tolerance);
  device_close(&packed.device);
  device_close(&apart.device);
}

/* A plan made for the longest sequences must do for shorter ones. */
Test(scan, scratch_never_shrinks_as_sequences_grow) {
  static const int SEQUENCES[] = {1, 2, 3, 16}, HEADS[] = {1, 4, 24}, CHUNKS[] = {16, 32, 100};
  Device device;
  cr_assert_eq(device_open_dry(&device, "cpu", F32).code, CODE_OK, "no device");
  for (int b = 0; b < 4; b++)
    for (int h = 0; h < 3; h++)
      for (int q = 0; q < 3; q++)
        for (int backward = 0; backward < 2; backward++) {
          size_t before = 0;
          for (int64_t n_t = SEQUENCES[b]; n_t < 6000; n_t += 1 + n_t / 40) {
            SsdScan p = {.n_h = HEADS[h], .n_p = 8, .n_n = 16, .n_g = 1, .n_r = 1, .chunk_size = CHUNKS[q]};
            const size_t mark = arena_mark(&device.step);
            p.cu_seqlens = tensor_new1(&device.step, I32, SEQUENCES[b] + 1);
            p.x = tensor_new2(&device.step, F32, n_t, HEADS[h] * 8);
            p.D = tensor_new1(&device.step, F32, HEADS[h]);
            const size_t bytes = device.backend->ssd_scan_scratch(&p, backward);
            cr_assert_geq(bytes, before, "%d sequences, %d heads, chunk %d, %lld tokens, %s: %zu after %zu bytes",
                          SEQUENCES[b], HEADS[h], CHUNKS[q], (long long)n_t, backward ? "backward" : "forward", bytes,
                          before);
            before = bytes;
            arena_rewind(&device.step, mark);
          }
        }
  device_close(&device);
}

Test(scan, packed_sequences_equal_separate_ones) {
  for (int m = 0; m < N_MODELS; m++) {
    check_packed(MODELS[m], F32, 2e-6);
    check_packed(MODELS[m], F64, 1e-14);
  }
}

Test(scan, later_tokens_leave_earlier_outputs_untouched) {
  for (int m = 0; m < N_MODELS; m++)
    for (int at = 1; at < N_T; at += 7) {
      Scan one, other;
      scan_open(&one, MODELS[m], F32, F32);
      scan_open(&other, MODELS[m], F32, F32);
      for (int i = 0; i < N_ROW_INPUTS; i++)
        for (int64_t e = 0; other.in[i] && e < tensor_last(other.in[i]); e++) {
          int64_t entry = at * tensor_last(other.in[i]) + e;
          tensor_set(other.in[i], entry, 0.5 * tensor_get(other.in[i], entry));
        }
      SsdScan want = scan_whole(&one, CHUNK), got = scan_whole(&other, CHUNK);
      int64_t width = tensor_last(want.y);
      Tensor *before = tensor_every(&other.device.step, got.y, 0, 1, at);
      assert_close(before, want.y, 0, 0, MODELS[m].name, "y before the changed token");
      bool changed = false;
      for (int64_t e = 0; e < width; e++)
        changed |= tensor_get(got.y, at * width + e) != tensor_get(want.y, at * width + e);
      cr_assert(changed, "%s: y at the changed token %d is the same", MODELS[m].name, at);
      device_close(&one.device);
      device_close(&other.device);
    }
}

/* In a build without BF16 products: a bfloat16 has 8 significant bits, an output differs by up to half a unit of its last
 * place, 2^-8 of it; dB and dC are rounded once too. Arithmetic is float either way. */
Test(scan, bfloat16_storage_rounds_outputs_and_nothing_else) {
  setenv("ASPIS_CPU", "generic", 1);
  for (int m = 0; m < N_MODELS; m++) {
    Scan wide, narrow;
    scan_open(&wide, MODELS[m], F32, F32);
    scan_open(&narrow, MODELS[m], F32, BF16);
    SsdScan want = scan_whole(&wide, CHUNK), got = scan_whole(&narrow, CHUNK);
    assert_close(got.y, want.y, 0, 1.0 / 256, MODELS[m].name, "y");
    assert_same_states(&got, &want, 0, MODELS[m].name);
    for (int i = 0; i < N_INPUTS; i++)
      if (wide.in[i])
        assert_close(narrow.in[i]->grad, wide.in[i]->grad, 0, i <= ANGLE ? 1.0 / 256 : 0, MODELS[m].name,
                     INPUT_NAME[i]);
    device_close(&wide.device);
    device_close(&narrow.device);
  }
}

/* ---- the convolution ---- */

enum { N_C = 133, N_W = 4 }; /* more channels than one tile */

typedef struct Conv {
  Device device;
  Tape tape;
  Tensor *x, *w, *bias, *dy;
} Conv;

static void conv_open(Conv *c, Dtype act) {
  Status status = device_open(&c->device, "cpu", F32, (DeviceSizes){1 << 20, 16 << 20, 16 << 20});
  cr_assert_eq(status.code, CODE_OK, "conv1d: %s", status.line);
  c->tape = tape_make(&c->device, act, true);
  c->x = randn(&c->device, act, 2, (const int64_t[]){N_T, N_C}, 0, 1, 1);
  c->w = randn(&c->device, act, 3, (const int64_t[]){N_C, 1, N_W}, 0, 0.5, 2);
  c->bias = randn(&c->device, act, 1, (const int64_t[]){N_C}, 0, 0.5, 3);
  /* parameter gradients are real, whatever the parameter's type */
  for (int i = 0; i < 2; i++) {
    Tensor *t = i ? c->bias : c->w;
    t->grad = tensor_new(&c->device.step, F32, t->n_dim, t->dim);
    tensor_zero(t->grad);
  }
  c->dy = randn(&c->device, act, 2, (const int64_t[]){N_T, N_C}, 0, 1, 4);
}

static Conv1d conv_rows(Conv *c, int first, int end, const int *lengths, Tensor *window_in) {
  int n_seq = 0;
  while (lengths[n_seq]) n_seq++;
  Tensor *cu_seqlens = tensor_new1(&c->device.step, I32, n_seq + 1);
  tensor_set(cu_seqlens, 0, 0);
  for (int i = 0; i < n_seq; i++) tensor_set(cu_seqlens, i + 1, tensor_get(cu_seqlens, i) + lengths[i]);
  Conv1d p = {.silu = true, .cu_seqlens = cu_seqlens, .w = c->w, .bias = c->bias, .window_in = window_in};
  p.x = tensor_every(&c->device.step, c->x, first, 1, end - first);
  Conv1d out = op_conv1d(&c->tape, p, true);
  Tensor *dy = tape_grad(&c->tape, out.y);
  for (int64_t i = 0; i < tensor_count(dy); i++) tensor_set(dy, i, tensor_get(c->dy, (int64_t)first * N_C + i));
  return out;
}

static void assert_same_conv_gradients(const Conv *got, const Conv *want, double x_tolerance, double tolerance,
                                       const char *name) {
  assert_close(got->x->grad, want->x->grad, 0, x_tolerance, name, "dx");
  assert_close(got->w->grad, want->w->grad, 0, tolerance, name, "dw");
  assert_close(got->bias->grad, want->bias->grad, 0, tolerance, name, "dbias");
}

Test(conv1d, a_split_with_carried_window_equals_the_whole_with_gradients) {
  static const int SPLITS[] = {1, 2, 3, 11, N_T - 1};
  for (int i = 0; i < 5; i++) {
    Conv whole, split;
    conv_open(&whole, F32);
    conv_open(&split, F32);
    Conv1d want = conv_rows(&whole, 0, N_T, WHOLE, NULL);
    tape_backward(&whole.tape);
    int at = SPLITS[i];
    Conv1d head = conv_rows(&split, 0, at, (const int[]){at, 0}, NULL);
    Conv1d tail = conv_rows(&split, at, N_T, (const int[]){N_T - at, 0}, head.window_out);
    tape_backward(&split.tape);
    assert_close(head.y, want.y, 0, 0, "conv1d", "y before the split");
    assert_close(tail.y, want.y, (int64_t)at * N_C, 0, "conv1d", "y after the split");
    assert_close(tail.window_out, want.window_out, 0, 0, "conv1d", "window_out");
    assert_same_conv_gradients(&split, &whole, 1e-6, 1e-6, "conv1d");
    device_close(&whole.device);
    device_close(&split.device);
  }
}

Test(conv1d, packed_sequences_equal_separate_ones) {
  static const int LENGTHS[] = {1, 9, 2, 11, 0};
  Conv packed, apart;
  conv_open(&packed, F32);
  conv_open(&apart, F32);
  Conv1d all = conv_rows(&packed, 0, N_T, LENGTHS, NULL);
  tape_backward(&packed.tape);
  for (int i = 0, first = 0; LENGTHS[i]; first += LENGTHS[i++]) {
    Conv1d piece = conv_rows(&apart, first, first + LENGTHS[i], (const int[]){LENGTHS[i], 0}, NULL);
    assert_close(piece.y, all.y, (int64_t)first * N_C, 0, "conv1d", "y of a piece");
  }
  tape_backward(&apart.tape);
  assert_same_conv_gradients(&apart, &packed, 0, 1e-6, "conv1d");
  device_close(&packed.device);
  device_close(&apart.device);
}

Test(conv1d, thread_count_changes_no_bit) {
  Conv one, many;
  conv_open(&one, F32);
  conv_open(&many, F32);
  omp_set_num_threads(1);
  Conv1d want = conv_rows(&one, 0, N_T, (const int[]){9, 14, 0}, NULL);
  tape_backward(&one.tape);
  omp_set_num_threads(3);
  Conv1d got = conv_rows(&many, 0, N_T, (const int[]){9, 14, 0}, NULL);
  tape_backward(&many.tape);
  assert_close(got.y, want.y, 0, 0, "conv1d", "y");
  assert_same_conv_gradients(&many, &one, 0, 0, "conv1d");
  device_close(&one.device);
  device_close(&many.device);
}

Test(conv1d, bfloat16_storage_rounds_outputs_and_nothing_else) {
  Conv wide, narrow;
  conv_open(&wide, F32);
  conv_open(&narrow, BF16);
  Conv1d want = conv_rows(&wide, 0, N_T, WHOLE, NULL), got = conv_rows(&narrow, 0, N_T, WHOLE, NULL);
  tape_backward(&wide.tape);
  tape_backward(&narrow.tape);
  assert_close(got.y, want.y, 0, 1.0 / 256, "conv1d", "y");
  assert_same_conv_gradients(&narrow, &wide, 1.0 / 256, 0, "conv1d");
  device_close(&wide.device);
  device_close(&narrow.device);
}
