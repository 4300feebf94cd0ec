/* The CUDA kernels, run on the host thread by thread (tests/simt), held to the double definition: every differentiable row
 * of kernels.def on the shapes and options of its gradient check (tests/grad_<op>.c), outputs and gradients, as a float32
 * model has them and as a BF16 one. The first cases of a row run under twenty orders of threads, warps and blocks, on cards
 * of other numbers of processors and less shared memory, which must not change a bit, the others under one, each another; and
 * global memory is watched once: blocks of a launch that
 * touch what another writes end the test, in whatever order. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "tests/simt/simt.h"
#include "tests/support/gradcheck.h"

/* A float32 rounds by 2^-24 of its value. An entry is a sum of up to some thousand products of factors that carry a few
 * roundings each; errors of random sign add up like the root of their number: 2^-24 * sqrt(4000) * 4 = 1.5e-5 of the
 * largest entry. */
static const double F32_TOLERANCE = 1.5e-5;
/* What is stored as bfloat16 (8 significant bits) is off by up to half a unit of its last place, 2^-8 of its value; up to
 * three such roundings lie on a way (an intermediate, a gradient that was there before, the result), unless the case says
 * otherwise. */
static const double BF16_ROUNDING = 1.0 / 256;
#define SMALLEST_SCALE 1e-3
#define GRAD_START 0.5 /* what stands in every gradient before backward adds to it */
#define DIRECTION_SEED 977
#ifdef __SANITIZE_ADDRESS__ /* which is after memory, and slow */
enum { N_FIRST_CASES = 1, N_ORDERS_FIRST = 3, N_ORDERS = 1 };
#else
enum { N_FIRST_CASES = 3, N_ORDERS_FIRST = 20, N_ORDERS = 1 };
#endif
enum { MOST_RESULTS = 2 * GRADCHECK_MAX_TENSORS };

typedef struct Machine {
  Device device;
  Tensor *result[MOST_RESULTS]; /* outputs and gradients of the last run, as the host sees them, in the weights arena */
  int n_results;
  size_t mark;
} Machine;

static Machine definition, twin;

static void open(Machine *machine, const char *name, Dtype real) {
  if (machine->device.backend) return;
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 1);
  Status status = device_open(&machine->device, name, real, (DeviceSizes){256u << 20, 256u << 20, 256u << 20});
  CHECK(status.code == CODE_OK, "%s", status.line);
}

/* Cases are made of F64 tensors of the definition's device, as for the gradient check. */
Tensor *gradcheck_randn(int n_dim, const int64_t *dim, double mean, double std, uint64_t seed) {
  open(&definition, "cpu", F64);
  Tensor *t = tensor_new(&definition.device.weights, F64, n_dim, dim);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < tensor_count(t); i++) tensor_set(t, i, mean + std * rng_normal(&rng));
  return t;
}

Tensor *gradcheck_ints(int64_t n, const int32_t *values) {
  open(&definition, "cpu", F64);
  Tensor *t = tensor_new1(&definition.device.weights, I32, n);
  for (int64_t i = 0; i < n; i++) tensor_set(t, i, values[i]);
  return t;
}

static double round_to(Dtype dtype, double x) { return dtype == BF16 ? bf16_to_float(bf16_from_float((float)x)) : x; }

/* Input i of the case on a machine's device, in its real, or where the model has it in BF16 in that, or rounded so. */
static Tensor *upload(Machine *machine, const GradCase *c, int i, Dtype act) {
  const Tensor *from = c->inputs[i];
  if (!from) return NULL;
  const Dtype real = machine->device.backend->real, stored = (c->acts | c->weights) >> i & 1 ? act : real;
  const Dtype dtype = from->dtype == I32 ? I32 : real == F64 ? F64 : stored;
  Tensor *to = tensor_new(&machine->device.weights, dtype, from->n_dim, from->dim);
  Tensor host = device_mirror(&machine->device, to);
  for (int64_t e = 0; e < tensor_count(from); e++)
    tensor_set(&host, e, from->dtype == I32 ? tensor_get(from, e) : round_to(stored, tensor_get(from, e)));
  device_push(&machine->device, to);
  to->needs_grad = from->dtype != I32 && i < c->n_inputs - c->n_data;
  return to;
}

/* The host's copy, kept until the next case. */
static void keep(Machine *machine, const Tensor *t) {
  const Tensor host = device_pull(&machine->device, t);
  Tensor *kept = tensor_new(&definition.device.weights, host.dtype, host.n_dim, host.dim);
  tensor_copy(kept, &host);
  machine->result[machine->n_results++] = kept;
}

static void add_direction(Machine *machine, Tensor *grad, int output) {
  Rng rng = rng_make(DIRECTION_SEED, RNG_TEST, (uint32_t)output, 0);
  Tensor host = device_pull(&machine->device, grad);
  for (int64_t e = 0; e < tensor_count(&host); e++)
    tensor_set(&host, e, tensor_get(&host, e) + round_to(BF16, rng_normal(&rng)));
  device_push(&machine->device, grad);
}

static void begin_grad(Machine *machine, Tape *tape, Tensor *input, bool is_weight) {
  if (is_weight) input->grad = tensor_new(&machine->device.weights, tape_real(tape), input->n_dim, input->dim);
  Tensor *grad = tape_grad(tape, input), host = device_mirror(&machine->device, grad);
  for (int64_t e = 0; e < tensor_count(grad); e++) tensor_set(&host, e, GRAD_START);
  device_push(&machine->device, grad);
}

/* Runs a case forward and backward; results: outputs, then gradients. */
static void run(Machine *machine, const GradCase *c, Dtype act) {
  Device *device = &machine->device;
  const size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, device->backend->real == F64 ? F64 : act, true);
  Tensor *inputs[GRADCHECK_MAX_TENSORS], *outputs[GRADCHECK_MAX_TENSORS];
  for (int i = 0; i < c->n_inputs; i++) inputs[i] = upload(machine, c, i, act);
  for (int i = 0; i < c->n_inputs; i++)
    if (inputs[i] && inputs[i]->needs_grad) begin_grad(machine, &tape, inputs[i], c->weights >> i & 1);
  const int n_outputs = c->build(&tape, inputs, c->options, outputs);
  for (int o = 0; o < n_outputs; o++) add_direction(machine, tape_grad(&tape, outputs[o]), o);
  tape_backward(&tape);
  machine->n_results = 0;
  for (int o = 0; o < n_outputs; o++) keep(machine, outputs[o]);
  for (int i = 0; i < c->n_inputs; i++)
    if (inputs[i] && inputs[i]->needs_grad) keep(machine, inputs[i]->grad);
  tape_reset(&tape, mark);
}

static void assert_close(const GradCase *c, Dtype act, int result, const Tensor *got, const Tensor *want) {
  const double tolerance = act == F32 ? F32_TOLERANCE : BF16_ROUNDING * (c->bf16_roundings ? c->bf16_roundings : 3);
  const int64_t n = tensor_count(want);
  double scale = SMALLEST_SCALE;
  for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(tensor_get(want, i)));
  for (int64_t i = 0; i < n; i++) {
    const double a = tensor_get(got, i), b = tensor_get(want, i);
    cr_assert(fabs(a - b) <= tolerance * scale,
              "%s, %s: result %d %s at %lld is %.9g, expected %.9g (off by %.2g of %.3g)", c->name, dtype_name(act),
              result, tensor_shape_text(want), (long long)i, a, b, fabs(a - b) / scale, scale);
  }
}

/* Cards of other processors (the scan's sums over heads depend on them: tests/test_simt_scan.c) and shared memory. */
static bool is_scan;
static void use_card(int order) {
  static const int PROCESSORS[] = {4, 132, 1}, SHARED_KIB[] = {227, 99, 163, 100};
  if (!is_scan) simt_processors(PROCESSORS[order % 3]);
  simt_shared((size_t)SHARED_KIB[order % 4] << 10);
}

/* Results of the first order against the definition, of the others against the first, bit for bit. */
static void compare(const GradCase *c, Dtype act, uint64_t seed, int n_orders) {
  const size_t mark = arena_mark(&definition.device.weights), twin_mark = arena_mark(&twin.device.weights);
  run(&definition, c, act);
  Tensor *first[MOST_RESULTS];
  for (int order = 0; order < n_orders; order++) {
    simt_seed(seed + (uint64_t)order);
    simt_watch(order == 0);
    use_card(order);
    run(&twin, c, act);
    arena_rewind(&twin.device.weights, twin_mark);
    cr_assert_eq(twin.n_results, definition.n_results, "%s: other results", c->name);
    for (int r = 0; r < twin.n_results; r++) {
      if (order == 0) assert_close(c, act, r, first[r] = twin.result[r], definition.result[r]);
      else
        cr_assert(!memcmp(first[r]->data, twin.result[r]->data, tensor_bytes(first[r])),
                  "%s, %s: result %d %s depends on the order of threads, or on the card", c->name, dtype_name(act), r,
                  tensor_shape_text(first[r]));
    }
  }
  arena_rewind(&definition.device.weights, mark);
}

void gradcheck_run(const GradCase *c) {
  open(&definition, "cpu", F64);
  open(&twin, simt_device(), F32);
  static int n_cases; /* of the row: each has a process of its own */
  const int n_orders = n_cases++ < N_FIRST_CASES ? N_ORDERS_FIRST : N_ORDERS;
  compare(c, F32, (uint64_t)n_cases, n_orders);
  if (c->acts || c->weights) compare(c, BF16, (uint64_t)n_cases, n_orders);
}

#define KERNEL_GRAD(op)                                                                                                \
  Test(simt, op) {                                                                                                     \
    is_scan = strcmp(#op, "ssd_scan") == 0;                                                                            \
    gradcheck_##op();                                                                                                  \
  }
#define KERNEL_PLAIN(op)
#define KERNEL(op, Params, grad, scratch_kind) KERNEL_##grad(op)
#include "tensor/kernels.def"
