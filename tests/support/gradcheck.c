/* gradcheck: see gradcheck.h.
 *
 * The analytic gradients come from one recorded run. They start from a constant instead of zero: a backward rule that
 * overwrites where it must add is seen. The numeric ones come from unrecorded runs with one entry moved, by the
 * four-point stencil  f'(x) = (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h:  its truncation is of order h^4, so
 * that h can be large enough for rounding not to matter. Kinks of f must be further than 2h away. */
#include "tests/support/gradcheck.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "tensor/rng.h"

#define STEP 1e-4 /* h, relative to the entry where that is above 1 */
#define TOLERANCE 1e-6
#define SMALLEST_SCALE 1e-3
#define GRAD_START 0.5 /* what stands in every gradient before backward adds to it */
#define DIRECTION_SEED 977
#define ENTRY_SEED 1409

static Device *gradcheck_device(void) {
  static Device device;
  static bool open;
  if (!open) {
    omp_set_num_threads(1); /* thousands of tiny kernels; the thread count changes no bit (tests/test_ops.c) */
    Status status = device_open(&device, "cpu", F64, (DeviceSizes){256u << 20, 256u << 20, 256u << 20});
    CHECK(status.code == CODE_OK, "%s", status.line);
    open = true;
  }
  return &device;
}

Tensor *gradcheck_randn(int n_dim, const int64_t *dim, double mean, double std, uint64_t seed) {
  Tensor *t = tensor_new(&gradcheck_device()->weights, F64, n_dim, dim);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < tensor_count(t); i++) tensor_set(t, i, mean + std * rng_normal(&rng));
  return t;
}

Tensor *gradcheck_ints(int64_t n, const int32_t *values) {
  Tensor *t = tensor_new1(&gradcheck_device()->weights, I32, n);
  for (int64_t i = 0; i < n; i++) tensor_set(t, i, values[i]);
  return t;
}

static bool is_checked(const GradCase *c, int input) {
  return input < c->n_inputs - c->n_data && c->inputs[input] && c->inputs[input]->dtype == F64;
}

/* Runs the case without recording and adds factor * <outputs, directions> to the terms, one term an output entry:
 * differences are taken entry by entry, before the sum over entries can round them away. */
static void add_outputs(const GradCase *c, Tensor *const *direction, double factor, double *terms) {
  Device *device = gradcheck_device();
  size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, F64, false);
  Tensor *outputs[GRADCHECK_MAX_TENSORS];
  int n_outputs = c->build(&tape, c->inputs, c->options, outputs);
  for (int o = 0; o < n_outputs; o++) {
    int64_t count = tensor_count(outputs[o]);
    for (int64_t i = 0; i < count; i++) *terms++ += factor * tensor_get(outputs[o], i) * tensor_get(direction[o], i);
  }
  tape_reset(&tape, mark);
}

/* d loss / d input[entry] */
static double numeric_grad(const GradCase *c, Tensor *input, int64_t entry, Tensor *const *direction, double *terms,
                           int64_t n_terms) {
  static const struct {
    int steps;
    double factor;
  } STENCIL[] = {{1, 8}, {-1, -8}, {2, -1}, {-2, 1}};
  const double x = tensor_get(input, entry), h = STEP * fmax(1, fabs(x));
  for (int64_t i = 0; i < n_terms; i++) terms[i] = 0;
  for (int s = 0; s < 4; s++) {
    tensor_set(input, entry, x + STENCIL[s].steps * h);
    add_outputs(c, direction, STENCIL[s].factor, terms);
  }
  tensor_set(input, entry, x);
  double sum = 0;
  for (int64_t i = 0; i < n_terms; i++) sum += terms[i];
  return sum / (12 * h);
}

/* The recorded run: fills inputs[].grad and directions[]; returns the number of output entries. */
static int64_t analytic_grads(const GradCase *c, Tape *tape, Tensor **direction) {
  for (int i = 0; i < c->n_inputs; i++)
    if (is_checked(c, i)) {
      c->inputs[i]->needs_grad = true;
      c->inputs[i]->grad = NULL;
      Tensor *grad = tape_grad(tape, c->inputs[i]);
      for (int64_t e = 0; e < tensor_count(grad); e++) tensor_set(grad, e, GRAD_START);
    }
  Tensor *outputs[GRADCHECK_MAX_TENSORS];
  int n_outputs = c->build(tape, c->inputs, c->options, outputs);
  cr_assert(n_outputs > 0 && n_outputs <= GRADCHECK_MAX_TENSORS, "%s: %d outputs", c->name, n_outputs);
  int64_t n_entries = 0;
  for (int o = 0; o < n_outputs; o++) {
    Tensor *out = outputs[o], *grad = tape_grad(tape, out);
    cr_assert(grad != NULL, "%s: output %d needs no gradient", c->name, o);
    direction[o] = tensor_new(&tape->device->step, F64, out->n_dim, out->dim);
    Rng rng = rng_make(DIRECTION_SEED, RNG_TEST, (uint32_t)o, 0);
    for (int64_t e = 0; e < tensor_count(out); e++) {
      cr_assert(isfinite(tensor_get(out, e)), "%s: output %d[%lld] is %g", c->name, o, (long long)e,
                tensor_get(out, e));
      double d = rng_normal(&rng);
      tensor_set(direction[o], e, d);
      tensor_set(grad, e, tensor_get(grad, e) + d);
    }
    n_entries += tensor_count(out);
  }
  tape_backward(tape);
  return n_entries;
}

static void check_input(const GradCase *c, int input, Tensor *const *direction, double *terms, int64_t n_terms) {
  Tensor *t = c->inputs[input];
  const int64_t n = tensor_count(t), n_checked = c->max_entries > 0 ? min_i64(n, c->max_entries) : n;
  double scale = SMALLEST_SCALE;
  for (int64_t e = 0; e < n; e++) scale = fmax(scale, fabs(tensor_get(t->grad, e) - GRAD_START));
  for (int64_t i = 0; i < n_checked; i++) {
    int64_t entry = n_checked == n ? i : (int64_t)rng_permute(ENTRY_SEED, RNG_TEST, 0, (uint64_t)n, (uint64_t)i);
    double analytic = tensor_get(t->grad, entry) - GRAD_START;
    double numeric = numeric_grad(c, t, entry, direction, terms, n_terms);
    cr_assert(fabs(analytic - numeric) < TOLERANCE * scale,
              "%s: gradient of input %d %s at %lld: analytic %.10g, numeric %.10g (off by %.2g of %.3g)", c->name,
              input, tensor_shape_text(t), (long long)entry, analytic, numeric, fabs(analytic - numeric) / scale,
              scale);
  }
}

void gradcheck_run(const GradCase *c) {
  Device *device = gradcheck_device();
  size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, F64, true);
  Tensor *direction[GRADCHECK_MAX_TENSORS];
  cr_assert(c->n_inputs <= GRADCHECK_MAX_TENSORS, "%s: %d inputs", c->name, c->n_inputs);
  int64_t n_terms = analytic_grads(c, &tape, direction);
  double *terms = base_alloc((size_t)n_terms * sizeof *terms);
  for (int i = 0; i < c->n_inputs; i++)
    if (is_checked(c, i)) check_input(c, i, direction, terms, n_terms);
  free(terms);
  for (int i = 0; i < c->n_inputs; i++)
    if (is_checked(c, i)) c->inputs[i]->grad = NULL;
  tape_reset(&tape, mark);
}
