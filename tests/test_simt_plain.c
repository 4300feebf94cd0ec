/* The rows of kernels.def that have no gradient, as CUDA kernels run on the host thread by thread (tests/simt): held to the
 * double definition on odd sizes, float32 and BF16, and to their own bits under other orders of threads, warps and blocks.
 * A row without its test here does not link. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/mixer.h"
#include "tensor/rng.h"
#include "tests/simt/simt.h"

#ifdef __SANITIZE_ADDRESS__ /* which is after memory, and slow */
enum { N_ORDERS = 2 };
#else
enum { N_ORDERS = 20 };
#endif
enum { MOST_RESULTS = 8 };

/* A handful of float32 roundings, 2^-24 each, of numbers of the result's own size. */
static const double FEW_ROUNDINGS = 8 / 16777216.0;
/* Of a step through a mixer: as of the scan (tests/test_simt.c), and with BF16 inputs and outputs three roundings by 2^-8. */
static const double STEP_F32 = 1.5e-5, STEP_BF16 = 3.0 / 256;

typedef struct Machine {
  Device device;
  Dtype act;
  Tensor *result[MOST_RESULTS]; /* the host's copies, in the host's memory */
  int n_results;
} Machine;

static Machine machine_open(const char *name, Dtype real, Dtype act) {
  Machine m = {.act = act};
  const Status status = device_open(&m.device, name, real, (DeviceSizes){16 << 20, 32 << 20, 64 << 20});
  cr_assert_eq(status.code, CODE_OK, "%s: %s", name, status.line);
  return m;
}
static void machine_close(Machine *m) {
  for (int i = 0; i < m->n_results; i++) free(m->result[i]->data), free(m->result[i]);
  device_close(&m->device);
}

/* The same numbers on every machine: values of bfloat16. */
static Tensor *randn(Machine *m, Dtype dtype, int n_dim, const int64_t *dim, double mean, double std, uint32_t stream) {
  Tensor *t = tensor_new(&m->device.weights, m->device.backend->real == F64 ? F64 : dtype, n_dim, dim);
  Tensor host = device_mirror(&m->device, t);
  Rng rng = rng_make(31, RNG_TEST, stream, 0);
  for (int64_t i = 0; i < tensor_count(t); i++)
    tensor_set(&host, i, bf16_to_float(bf16_from_float((float)(mean + std * rng_normal(&rng)))));
  device_push(&m->device, t);
  return t;
}
#define VECTOR(m, dtype, n, mean, std, stream) randn(m, dtype, 1, (const int64_t[]){n}, mean, std, stream)

static void keep(Machine *m, const Tensor *t) {
  if (!t) return;
  const Tensor host = device_pull(&m->device, t);
  Tensor *kept = malloc(sizeof *kept);
  void *data = malloc(tensor_bytes(&host) ? tensor_bytes(&host) : 1);
  *kept = tensor_over(data, host.dtype, host.n_dim, host.dim);
  tensor_copy(kept, &host);
  m->result[m->n_results++] = kept;
}

/* Runs a case on a machine, results kept; `number` says which of the row's cases. */
typedef void Run(Machine *m, int number);

static void check(const char *what, Run *run, int number, Dtype act, double tolerance) {
  Machine want = machine_open("cpu", F64, F64), first = {0};
  run(&want, number);
  for (int order = 0; order < N_ORDERS; order++) {
    simt_seed((uint64_t)order + 1);
    simt_watch(order == 0);
    Machine got = machine_open(simt_device(), F32, act);
    run(&got, number);
    cr_assert_eq(got.n_results, want.n_results, "%s, case %d: other results", what, number);
    for (int r = 0; r < got.n_results; r++) {
      const Tensor *a = got.result[r], *b = want.result[r];
      double scale = 0;
      for (int64_t i = 0; i < tensor_count(b); i++) scale = fmax(scale, fabs(tensor_get(b, i)));
      for (int64_t i = 0; order == 0 && i < tensor_count(b); i++)
        cr_assert(fabs(tensor_get(a, i) - tensor_get(b, i)) <= tolerance * scale,
                  "%s, case %d, %s: result %d [%lld] is %.9g, expected %.9g (of %.3g)", what, number, dtype_name(act),
                  r, (long long)i, tensor_get(a, i), tensor_get(b, i), scale);
      cr_assert(order == 0 || !memcmp(a->data, first.result[r]->data, tensor_bytes(a)),
                "%s, case %d, %s: result %d depends on the order of threads", what, number, dtype_name(act), r);
    }
    if (order == 0) first = got;
    else machine_close(&got);
  }
  machine_close(&first);
  machine_close(&want);
}

/* ---- flat rows: one number an element */

static const int64_t SIZES[] = {1, 7, 255, 256, 1029};
enum { N_SIZES = sizeof SIZES / sizeof SIZES[0] };

static void run_add(Machine *m, int number) {
  Tensor *x = VECTOR(m, F32, SIZES[number], 0, 1, 1), *y = VECTOR(m, F32, SIZES[number], 0, 1, 2);
  add_fwd(&m->device, &(Add){.x = x, .y = y});
  keep(m, y);
}

/* The twin's blocks are 2^15 long. */
static const int64_t SUM_SIZES[N_SIZES] = {1, 7, 255, (1 << 15) + 1, 3 * (1 << 15) - 5};

static Tensor *zeros(Machine *m, int64_t n) {
  Tensor *t = tensor_new1(&m->device.weights, F64, n);
  device_zero(&m->device, t);
  return t;
}

static void run_sum(Machine *m, int number) {
  Tensor *sum = zeros(m, 1);
  for (uint32_t i = 0; i < 2; i++) /* the second is added to the first */
    sum_fwd(&m->device, &(Sum){.x = VECTOR(m, F32, SUM_SIZES[number], 3, 1, 3 + i), .result = sum->data});
  keep(m, sum);
}

static void run_sum_squares(Machine *m, int number) {
  Tensor *sum = zeros(m, 1);
  sum_squares_fwd(&m->device, &(SumSquares){.x = VECTOR(m, F32, SUM_SIZES[number], 0, 1, 3), .result = sum->data});
  keep(m, sum);
}

/* Where the first of 700 that is not finite is found, by sums of squares that say that there is one, or do not. */
typedef struct Search {
  int64_t bad[2], want; /* -1: none */
  double squares[2];
} Search;
static const Search SEARCHES[] = {
    {{-1, -1}, -1, {3, 4}},         {{0, -1}, 1000, {NAN, 4}}, {{699, -1}, 1699, {3, INFINITY}},
    {{256, 255}, 1255, {NAN, NAN}}, {{-1, -1}, -1, {NAN, 1}},  {{5, -1}, -1, {3, 4}},
};
enum { N_SEARCHES = sizeof SEARCHES / sizeof SEARCHES[0] };

static void run_find_bad(Machine *m, int number) {
  const Search *s = &SEARCHES[number];
  Tensor *x = VECTOR(m, F32, 700, 0, 1, 12), *squares = zeros(m, 2), *result = zeros(m, 1);
  Tensor host = device_pull(&m->device, x);
  for (int i = 0; i < 2; i++)
    if (s->bad[i] >= 0) tensor_set(&host, s->bad[i], i ? NAN : -INFINITY);
  device_push(&m->device, x);
  host = device_mirror(&m->device, squares);
  for (int i = 0; i < 2; i++) tensor_set(&host, i, s->squares[i]);
  device_push(&m->device, squares);
  find_bad_fwd(&m->device,
               &(FindBad){.x = x, .squares = squares->data, .n_squares = 2, .first = 1000, .result = result->data});
  host = device_pull(&m->device, result);
  cr_assert_eq(tensor_get(&host, 0), (double)s->want, "case %d: element %g, expected %lld", number,
               tensor_get(&host, 0), (long long)s->want);
}

/* What makes a step bad, and what the verdict then is. */
typedef struct Trial {
  int n_losses, bad_loss; /* 0: none is bad */
  int64_t bad[2];         /* of 700 gradients; -1: none */
  double clip;
  bool before_held;
  int64_t want_bad, want_held;
} Trial;
static const Trial TRIALS[] = {
    {1, 0, {-1, -1}, 0, false, -1, 0}, {8, 0, {-1, -1}, 1e-3, false, -1, 0}, {4, 0, {-1, -1}, 1e9, false, -1, 0},
    {4, 2, {-1, -1}, 1, false, -1, 1}, {2, 0, {699, -1}, 1, false, 699, 1},  {2, 0, {300, 43}, 1, false, 43, 1},
    {2, 0, {0, 256}, 1, false, 0, 1},  {2, 0, {-1, -1}, 1, true, -1, 1},
};
enum { N_TRIALS = sizeof TRIALS / sizeof TRIALS[0], N_JUDGED = 700, OWNERS = 2, OWN_RANGES = 2 };
static const int64_t JUDGED_BOUNDS[OWNERS * OWN_RANGES + 1] = {0, 150, 300, 500, N_JUDGED};

/* What an owner finds in its ranges, which begin and end at `bounds`. */
static void measure(Machine *m, const Tensor *grads, const int64_t *bounds, double *found) {
  const size_t element = dtype_bytes(grads->dtype);
  for (int i = 0; i < OWN_RANGES; i++) {
    const int64_t n = bounds[i + 1] - bounds[i];
    Tensor range = tensor_over((char *)grads->data + (size_t)bounds[i] * element, grads->dtype, 1, &n);
    sum_squares_fwd(&m->device, &(SumSquares){.x = &range, .result = found + i});
  }
  const int64_t n = bounds[OWN_RANGES] - bounds[0];
  Tensor own = tensor_over((char *)grads->data + (size_t)bounds[0] * element, grads->dtype, 1, &n);
  find_bad_fwd(
      &m->device,
      &(FindBad){
          .x = &own, .squares = found, .n_squares = OWN_RANGES, .first = bounds[0], .result = found + OWN_RANGES});
}

/* Two verdicts: one that may hold, and the one that follows it; then updates that follow that one. */
static void run_judge(Machine *m, int number) {
  const Trial *t = &TRIALS[number];
  Tensor *losses = zeros(m, t->n_losses), *verdicts = zeros(m, 2 * sizeof(Verdict) / 8);
  Tensor *grads = VECTOR(m, F32, N_JUDGED, 0, 1, 8), host = device_pull(&m->device, losses);
  for (int i = 0; i < t->n_losses; i++) tensor_set(&host, i, 1.0 / (i + 3));
  if (t->bad_loss) tensor_set(&host, t->bad_loss, NAN);
  device_push(&m->device, losses);
  host = device_pull(&m->device, grads);
  for (int i = 0; i < 2; i++)
    if (t->bad[i] >= 0) tensor_set(&host, t->bad[i], i ? INFINITY : NAN);
  device_push(&m->device, grads);
  host = device_mirror(&m->device, verdicts);
  Verdict *all = host.data;
  all[0] = (Verdict){.held = t->before_held, .bad = -1};
  device_push(&m->device, verdicts);
  Tensor *found = zeros(m, OWNERS * (OWN_RANGES + 1));
  for (int owner = 0; owner < OWNERS; owner++)
    measure(m, grads, JUDGED_BOUNDS + owner * OWN_RANGES, (double *)found->data + owner * (OWN_RANGES + 1));
  Verdict *on_device = verdicts->data;
  judge_fwd(&m->device, &(Judge){.losses = losses->data,
                                 .n_losses = t->n_losses,
                                 .found = found->data,
                                 .n_owners = OWNERS,
                                 .n_own = OWN_RANGES,
                                 .loss_scale = 0.25,
                                 .clip = t->clip,
                                 .before = on_device,
                                 .verdict = on_device + 1});
  Tensor *w = VECTOR(m, F32, N_JUDGED, 0, 1, 9), *v = VECTOR(m, F32, N_JUDGED, 1, 0.1, 10);
  const Tensor before = device_pull(&m->device, w);
  float *kept = malloc(tensor_bytes(&before));
  for (int i = 0; i < N_JUDGED; i++) kept[i] = (float)tensor_get(&before, i);
  adamw_fwd(&m->device, &(Adamw){.lr = 0.01,
                                 .beta1 = 0.9,
                                 .beta2 = 0.95,
                                 .eps = 1e-8,
                                 .step = 3,
                                 .value = w,
                                 .grad = grads,
                                 .m = VECTOR(m, F32, N_JUDGED, 0, 0.1, 11),
                                 .v = v,
                                 .verdict = on_device + 1});
  sgd_fwd(&m->device, &(Sgd){.lr = 0.01, .value = w, .grad = grads, .verdict = on_device + 1});
  host = device_pull(&m->device, verdicts);
  const Verdict *verdict = (const Verdict *)host.data + 1;
  cr_assert_eq(verdict->held, t->want_held, "trial %d: held %lld", number, (long long)verdict->held);
  cr_assert_eq(verdict->bad, t->want_bad, "trial %d: element %lld is bad", number, (long long)verdict->bad);
  const Tensor after = device_pull(&m->device, w);
  int64_t n_changed = 0;
  for (int i = 0; i < N_JUDGED; i++) n_changed += (float)tensor_get(&after, i) != kept[i];
  cr_assert(t->want_held ? n_changed == 0 : n_changed > 0, "trial %d: %lld weights changed", number,
            (long long)n_changed);
  free(kept);
  if (t->want_held) return;
  const int64_t n_numbers = 3; /* loss, norm, scale */
  Tensor numbers = tensor_over(on_device + 1, F64, 1, &n_numbers);
  keep(m, &numbers), keep(m, w);
}

/* A weight as the model has it: of a BF16 model with its lower half, which begins as zero. What is kept is the value alone. */
typedef struct Weight {
  Tensor *value;
  int16_t *low;
} Weight;
static Weight weight_make(Machine *m, int64_t n) {
  Weight w = {.value = VECTOR(m, m->act, n, 0, 1, 4)};
  if (w.value->dtype != BF16) return w;
  Tensor *low = tensor_new1(&m->device.weights, BF16, n);
  device_zero(&m->device, low);
  w.low = low->data;
  return w;
}

/* In the device's memory, as a training step has them. */
static const StepNumbers *numbers_on(Machine *m, StepNumbers numbers) {
  const int64_t n = sizeof numbers / sizeof(double);
  Tensor *there = tensor_new(&m->device.weights, F64, 1, &n);
  memcpy(device_mirror(&m->device, there).data, &numbers, sizeof numbers);
  device_push(&m->device, there);
  return there->data;
}

/* Every other step is told its numbers there. */
static void run_adamw(Machine *m, int number) {
  const int64_t n = SIZES[number];
  const Weight w = weight_make(m, n);
  Tensor *grad = VECTOR(m, F32, n, 0, 0.1, 5), *moment = VECTOR(m, F32, n, 0, 0.1, 6),
         *v = VECTOR(m, F32, n, 1, 0.1, 7);
  for (int step = 5; step < 8; step++)
    adamw_fwd(&m->device,
              &(Adamw){.lr = 0.01,
                       .beta1 = 0.9,
                       .beta2 = 0.95,
                       .eps = 1e-8,
                       .weight_decay = 0.1,
                       .grad_scale = 0.75,
                       .step = step,
                       .numbers = step % 2 ? NULL : numbers_on(m, adamw_numbers(0.02, 0.9, 0.95, 0.1, step)),
                       .value = w.value,
                       .grad = grad,
                       .m = moment,
                       .v = v,
                       .low = w.low});
  keep(m, moment), keep(m, v), keep(m, w.value);
}

static void run_sgd(Machine *m, int number) {
  const int64_t n = SIZES[number];
  const Weight w = weight_make(m, n);
  Tensor *grad = VECTOR(m, F32, n, 0, 0.1, 5);
  for (int step = 0; step < 3; step++)
    sgd_fwd(&m->device, &(Sgd){.lr = 0.01,
                               .weight_decay = 0.1,
                               .grad_scale = 0.75,
                               .numbers = step % 2 ? numbers_on(m, (StepNumbers){.lr = 0.02}) : NULL,
                               .value = w.value,
                               .grad = grad,
                               .low = w.low});
  keep(m, w.value);
}

/* ---- ssm_step, as the mixers put it together */

static const struct {
  LayerKind layer;
  bool mimo;
  int n_seq, option;
} STEPS[] = {{LAYER_MAMBA2, false, 1, 0}, {LAYER_MAMBA2, false, 3, 1}, {LAYER_MAMBA3, false, 1, 0},
             {LAYER_MAMBA3, false, 3, 1}, {LAYER_MAMBA3, true, 3, 0},  {LAYER_MAMBA3, true, 1, 1}};
enum { N_STEPS = sizeof STEPS / sizeof STEPS[0] };

static void run_ssm_step(Machine *m, int number) {
  const bool option = STEPS[number].option;
  const int64_t n_seq = STEPS[number].n_seq;
  MixerConfig c = mixer_config_default(STEPS[number].layer);
  c.d_model = 20, c.expand = 2, c.headdim = 10, c.ngroups = option ? 2 : 1, c.d_state = option ? 20 : 13;
  if (c.layer == LAYER_MAMBA3) c.d_state = option ? 20 : 14, c.is_mimo = STEPS[number].mimo, c.mimo_rank = 3;
  c.is_outproj_norm = c.norm_before_gate = c.D_has_hdim = option;
  char *problem = mixer_config_problem(&c);
  cr_assert(!problem, "%s", problem);
  Dtype act = m->device.backend->real == F64 ? F64 : m->act;
  ParamTable params = {0};
  Mixer mixer = {.kind = c.layer};
  if (c.layer == LAYER_MAMBA2) mamba2_init(&mixer.mamba2, &params, "", &c, 1);
  else mamba3_init(&mixer.mamba3, &params, "", &c, 1);
  params_alloc(&params, &m->device, act, false, 0);
  params_init(&params, 1);
  for (int i = 0; i < params.n_params; i++) { /* values of bfloat16, the same on every machine */
    Tensor *value = &params.params[i]->value, host = device_pull(&m->device, value);
    for (int64_t e = 0; e < tensor_count(value); e++)
      tensor_set(&host, e, bf16_to_float(bf16_from_float((float)tensor_get(&host, e))));
    device_push(&m->device, value);
  }
  LayerState state = mixer_zero_state(&mixer, &m->device, &m->device.weights, m->device.backend->real, n_seq, 0, NULL);
  Tensor *states[] = {state.ssm, state.conv, state.angle, state.k, state.v};
  for (uint32_t i = 0; i < 5; i++)
    if (states[i]) {
      const Tensor from = device_mirror(&m->device, randn(m, F32, states[i]->n_dim, states[i]->dim, 0.5, 0.5, 20 + i));
      device_fill(&m->device, states[i], &from);
    }
  Tape tape = tape_make(&m->device, act, false);
  Tensor *proj = randn(m, act, 2, (const int64_t[]){n_seq, mixer_products(&mixer).in_proj->dim[0]}, 0, 1, 30);
  keep(m, mixer_step(&mixer, &tape, proj, NULL, &state));
  for (int i = 0; i < 5; i++) keep(m, states[i]);
  params_free(&params);
}

/* ---- peak: it does the work it counts, and writes what it should */

static void run_peak(Machine *m, int number) {
  const int64_t dim[] = {3, number == 0 ? 8 : 203};
  Tensor *x = randn(m, F32, 2, dim, 1, 0.5, 40), *y = randn(m, F32, 2, dim, 0, 0, 41);
  double copied = 0, written = 0;
  peak_fwd(&m->device, &(Peak){.kind = PEAK_COPY, .n_rounds = 2, .x = x, .y = y, .work = &copied});
  const double bytes = (double)tensor_bytes(x);
  cr_assert(copied == 4 * bytes, "%g bytes copied, %g counted", 4 * bytes, copied);
  peak_fwd(&m->device, &(Peak){.kind = PEAK_WRITE, .n_rounds = 1, .x = x, .work = &written});
  cr_assert(written == bytes, "%g bytes written, %g counted", bytes, written);
  keep(m, x), keep(m, y);
}

/* ---- the table */

/* Held, and then not. */
static void run_hold(Machine *m, int number) {
  Tensor *x = VECTOR(m, F32, SIZES[number], 0, 1, 1),
         *y[] = {VECTOR(m, F32, SIZES[number], 0, 1, 2), VECTOR(m, F32, SIZES[number], 0, 1, 3)};
  const int64_t n = 2 * (int64_t)(sizeof(Verdict) / sizeof(double));
  Tensor *verdicts = tensor_new(&m->device.weights, F64, 1, &n);
  Verdict *host = device_mirror(&m->device, verdicts).data;
  host[0] = (Verdict){.held = 1}, host[1] = (Verdict){.held = 0};
  device_push(&m->device, verdicts);
  for (int i = 0; i < 2; i++) {
    hold_fwd(&m->device, &(Hold){.verdict = (const Verdict *)verdicts->data + i, .x = x, .y = y[i]});
    keep(m, y[i]);
  }
}

/* Rows that go on and others, with and without what they have more. */
static void run_advance(Machine *m, int number) {
  const int64_t n = SIZES[number];
  Tensor *ints[4]; /* index, x, more, y */
  for (int i = 0; i < 4; i++) {
    ints[i] = tensor_new1(&m->device.weights, I32, n);
    int32_t *host = device_mirror(&m->device, ints[i]).data;
    for (int64_t j = 0; j < n; j++) host[j] = (int32_t)(i == 0 ? (j * 7 + 3) % (n + 2) - 2 : i * 1000 + j);
    device_push(&m->device, ints[i]);
  }
  for (int with = 0; with < 2; with++) {
    advance_fwd(&m->device, &(Advance){.index = ints[0], .x = ints[1], .more = with ? ints[2] : NULL, .y = ints[3]});
    const int32_t *found = device_pull(&m->device, ints[3]).data;
    Tensor *told = VECTOR(m, F32, n, 0, 0, 4);
    Tensor host = device_mirror(&m->device, told);
    for (int64_t j = 0; j < n; j++) tensor_set(&host, j, found[j]);
    device_push(&m->device, told);
    keep(m, told);
  }
}

typedef struct Row {
  Run *run;
  int n_cases;
  bool has_bf16;
  double tolerance, bf16_tolerance;
} Row;
/* AdamW divides by the root of v: a few roundings more, and a BF16 value is told to 2^-8 of it. */
static const Row ROW_add = {run_add, N_SIZES, false, FEW_ROUNDINGS, 0}, ROW_sum = {run_sum, N_SIZES, false, 1e-12, 0},
                 ROW_hold = {run_hold, N_SIZES, false, FEW_ROUNDINGS, 0},
                 ROW_advance = {run_advance, N_SIZES, false, FEW_ROUNDINGS, 0},
                 ROW_find_bad = {run_find_bad, N_SEARCHES, false, FEW_ROUNDINGS, 0},
                 ROW_judge = {run_judge, N_TRIALS, false, FEW_ROUNDINGS, 0},
                 ROW_sum_squares = {run_sum_squares, N_SIZES, false, 1e-12, 0},
                 ROW_adamw = {run_adamw, N_SIZES, true, FEW_ROUNDINGS, 1.0 / 256},
                 ROW_sgd = {run_sgd, N_SIZES, true, FEW_ROUNDINGS, 1.0 / 256},
                 ROW_ssm_step = {run_ssm_step, N_STEPS, true, STEP_F32, STEP_BF16},
                 ROW_peak = {run_peak, 2, false, FEW_ROUNDINGS, 0};

static void check_row(const char *what, const Row *row) {
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 1);
  for (int number = 0; number < row->n_cases; number++) {
    check(what, row->run, number, F32, row->tolerance);
    if (row->has_bf16) check(what, row->run, number, BF16, row->bf16_tolerance);
  }
}

#define KERNEL_GRAD(op)
#define KERNEL_PLAIN(op)                                                                                               \
  Test(simt_plain, op) { check_row(#op, &ROW_##op); }
#define KERNEL(op, Params, grad, scratch_kind) KERNEL_##grad(op)
#include "tensor/kernels.def"
