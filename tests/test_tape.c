/* The tape: scopes give the same gradients as without them, in the memory they promise; views' gradients add up. */
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/ops.h"
#include "tensor/rng.h"
#include "tests/support/tensors.h"

enum { N_T = 64, WIDTH = 12, N_LAYERS = 4 };

typedef struct Subject {
  Device device;
  Tensor *x, *w_in[N_LAYERS], *w_out[N_LAYERS]; /* in the weights arena, with their gradients */
} Subject;

static Tensor *parameter(Subject *s, int64_t rows, int64_t cols, uint64_t seed) {
  Tensor *t = tensor_new2(&s->device.weights, F32, rows, cols);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < rows * cols; i++) tensor_set(t, i, 0.4 * rng_normal(&rng));
  t->needs_grad = true;
  t->grad = tensor_new2(&s->device.weights, F32, rows, cols);
  return t;
}

static Subject subject_open(void) {
  Subject s = {0};
  Status status = device_open(&s.device, "cpu", F32, (DeviceSizes){1 << 20, 4 << 20, 1 << 20});
  cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
  s.x = parameter(&s, N_T, WIDTH, 1);
  for (int i = 0; i < N_LAYERS; i++) {
    s.w_in[i] = parameter(&s, 2 * WIDTH, WIDTH, (uint64_t)(2 + 2 * i));
    s.w_out[i] = parameter(&s, WIDTH, WIDTH, (uint64_t)(3 + 2 * i));
  }
  return s;
}

typedef struct Layer {
  Tensor *w_in, *w_out;
  Tensor *h;
  ScopeKind inner; /* of its second half */
} Layer;

static void second_half(Tape *tape, const void *args, Tensor *both, Tensor *out) {
  Arena *arena = &tape->device->step;
  Tensor *mixed = op_swiglu(tape, tensor_cols(arena, both, 0, WIDTH), tensor_cols(arena, both, WIDTH, WIDTH), NULL);
  const Layer *l = args;
  out->grad = tape_grad(tape, l->h);
  op_linear_residual(tape, mixed, l->w_out, NULL, l->h, out);
}

/* out = in + w_out swiglu(w_in in), one gradient for in and out */
static void layer(Tape *tape, const void *args, Tensor *in, Tensor *out) {
  const Layer *l = args;
  Tensor *both = op_linear(tape, in, l->w_in, NULL, F32);
  tape_scope(
      tape,
      (TapeScope){.kind = l->inner, .body = second_half, .args = l, .args_bytes = sizeof *l, .in = both, .out = out});
}

static TapeScope layer_scope(ScopeKind kind, const Layer *l, Tensor *in) {
  return (TapeScope){
      .kind = kind, .body = layer, .args = l, .args_bytes = sizeof *l, .in = in, .dtype = F32, .n_cols = WIDTH};
}

typedef struct Options {
  ScopeKind outer, inner;
  int n_layers;
  bool bypass; /* a tensor from before the layers is used again after them */
} Options;

/* Runs the chain and its backward; the sum of the outputs is the loss. *peak: bytes of the step arena. */
static Tensor *run_watched(Subject *s, Options o, TapeWatcher watcher, size_t *peak) {
  Arena *arena = &s->device.step;
  arena_rewind(arena, 0);
  arena->peak_bytes = 0;
  tensor_zero(s->x->grad);
  for (int i = 0; i < N_LAYERS; i++) tensor_zero(s->w_in[i]->grad), tensor_zero(s->w_out[i]->grad);
  Tape tape = tape_make(&s->device, F32, true);
  tape.watcher = watcher;
  Tensor *side = op_linear(&tape, s->x, s->w_out[2], NULL, F32);
  Tensor *h = op_linear(&tape, s->x, s->w_out[0], NULL, F32);
  tape_grad(&tape, h);
  for (int i = 0; i < o.n_layers; i++) {
    Layer l = {s->w_in[i % N_LAYERS], s->w_out[i % N_LAYERS], h, o.inner};
    h = tape_scope(&tape, layer_scope(o.outer, &l, h));
  }
  Tensor *y = o.bypass ? op_residual(&tape, side, h, NULL) : op_linear(&tape, h, s->w_out[1], NULL, F32);
  Tensor *dy = tape_grad(&tape, y);
  for (int64_t i = 0; i < tensor_count(dy); i++) tensor_set(dy, i, 1 + (double)(i % 3));
  tape_backward(&tape);
  *peak = arena->peak_bytes;
  return y;
}

static Tensor *run(Subject *s, Options o, size_t *peak) { return run_watched(s, o, (TapeWatcher){0}, peak); }

/* All gradients behind each other. */
enum { N_GRADS = N_T * WIDTH + N_LAYERS * 3 * WIDTH * WIDTH };
static void copy_grads(const Subject *s, float *to) {
  memcpy(to, s->x->grad->data, tensor_bytes(s->x->grad));
  to += N_T * WIDTH;
  for (int i = 0; i < N_LAYERS; i++) {
    memcpy(to, s->w_in[i]->grad->data, tensor_bytes(s->w_in[i]->grad));
    memcpy(to + 2 * WIDTH * WIDTH, s->w_out[i]->grad->data, tensor_bytes(s->w_out[i]->grad));
    to += 3 * WIDTH * WIDTH;
  }
}

static const char *const KIND_NAMES[] = {[SCOPE_OPEN] = "open", [SCOPE_KEEP] = "keep", [SCOPE_REPLAY] = "replay"};

Test(scopes, change_no_bit_of_any_gradient) {
  Subject s = subject_open();
  float expected[N_GRADS], found[N_GRADS];
  size_t peak;
  for (int bypass = 0; bypass < 2; bypass++) {
    run(&s, (Options){SCOPE_OPEN, SCOPE_OPEN, N_LAYERS, bypass}, &peak);
    copy_grads(&s, expected);
    for (int outer = SCOPE_OPEN; outer <= SCOPE_REPLAY; outer++)
      for (int inner = SCOPE_OPEN; inner <= SCOPE_REPLAY; inner++) {
        run(&s, (Options){outer, inner, N_LAYERS, bypass}, &peak);
        copy_grads(&s, found);
        cr_assert_eq(memcmp(expected, found, sizeof found), 0, "%s in %s%s: other gradients", KIND_NAMES[inner],
                     KIND_NAMES[outer], bypass ? ", with a bypass" : "");
      }
  }
  device_close(&s.device);
}

/* Keeps each weight's gradient as it is when it was asked for as often as in the pass before. */
typedef struct Counting {
  Tensor *weight[2 * N_LAYERS];
  int expected[2 * N_LAYERS], n_complete;
  float kept[2 * N_LAYERS][2 * WIDTH * WIDTH];
  bool complete[2 * N_LAYERS];
} Counting;

static void keep_complete(void *user) {
  Counting *c = user;
  for (int i = 0; i < 2 * N_LAYERS; i++) {
    const Tensor *grad = c->weight[i]->grad;
    if (c->complete[i] || grad->n_asked < c->expected[i]) continue;
    c->complete[i] = true, c->n_complete++;
    memcpy(c->kept[i], grad->data, tensor_bytes(grad));
  }
}

Test(scopes, let_a_watcher_know_when_a_gradient_is_complete) {
  Subject s = subject_open();
  size_t peak;
  for (int outer = SCOPE_OPEN; outer <= SCOPE_REPLAY; outer++)
    for (int inner = SCOPE_OPEN; inner <= SCOPE_REPLAY; inner++) {
      const Options o = {(ScopeKind)outer, (ScopeKind)inner, N_LAYERS + 1, true}; /* some weights are used twice */
      Counting c = {0};
      for (int i = 0; i < N_LAYERS; i++) c.weight[2 * i] = s.w_in[i], c.weight[2 * i + 1] = s.w_out[i];
      for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < 2 * N_LAYERS; i++) c.weight[i]->grad->n_asked = 0;
        run_watched(&s, o, pass == 1 ? (TapeWatcher){keep_complete, &c} : (TapeWatcher){0}, &peak);
        for (int i = 0; i < 2 * N_LAYERS && pass == 0; i++) c.expected[i] = c.weight[i]->grad->n_asked;
      }
      cr_assert_eq(c.n_complete, 2 * N_LAYERS, "%s in %s: %d of %d gradients complete", KIND_NAMES[inner],
                   KIND_NAMES[outer], c.n_complete, 2 * N_LAYERS);
      for (int i = 0; i < 2 * N_LAYERS; i++)
        cr_assert_eq(memcmp(c.kept[i], c.weight[i]->grad->data, tensor_bytes(c.weight[i]->grad)), 0,
                     "%s in %s: weight %d's gradient was added to after it had been called complete", KIND_NAMES[inner],
                     KIND_NAMES[outer], i);
    }
  device_close(&s.device);
}

Test(scopes, give_back_what_they_took) {
  Subject s = subject_open();
  size_t peak[2];
  /* What one more layer costs: what it keeps, and headers, but no gradients. */
  const size_t row = N_T * WIDTH * sizeof(float);
  static const struct {
    ScopeKind outer;
    size_t kept; /* in rows of the stream */
  } CASES[] = {{SCOPE_OPEN, 7}, {SCOPE_KEEP, 4}, {SCOPE_REPLAY, 1}};
  for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
    for (int more = 0; more < 2; more++)
      run(&s, (Options){CASES[c].outer, SCOPE_OPEN, more ? 24 : 4, false}, &peak[more]);
    const size_t each = (peak[1] - peak[0]) / 20, kept = CASES[c].kept * row;
    cr_assert(each >= kept && each < kept + row, "%s: %zu bytes a layer, expected %zu and headers",
              KIND_NAMES[CASES[c].outer], each, kept);
  }
  device_close(&s.device);
}

Test(scopes, run_in_evaluation_leave_only_their_output) {
  Subject s = subject_open();
  Tape tape = tape_make(&s.device, F32, false);
  Layer l = {s.w_in[0], s.w_out[0], s.x, SCOPE_KEEP};
  const size_t mark = arena_mark(&s.device.step);
  Tensor *out = tape_scope(&tape, layer_scope(SCOPE_KEEP, &l, s.x));
  const size_t used = arena_mark(&s.device.step) - mark, kept = tensor_bytes(out);
  cr_assert(used >= kept && used < 2 * kept, "%zu bytes in use, the output has %zu", used, kept);
  device_close(&s.device);
}

Test(scopes, replayed_neither_fill_their_output_again_nor_count_their_work_twice) {
  Subject s = subject_open();
  Tape tape = tape_make(&s.device, F32, true);
  Layer l = {s.w_in[0], s.w_out[0], s.x, SCOPE_KEEP};
  double flops[2];
  for (int replay = 0; replay < 2; replay++) {
    s.device.flops = 0;
    TapeScope scope = layer_scope(replay ? SCOPE_REPLAY : SCOPE_KEEP, &l, s.x);
    Tensor *out = scope.out = tape_tensor(&tape, F32, N_T, WIDTH); /* before the scope, so that it outlives it */
    tape_scope(&tape, scope);
    Tensor *y = op_linear(&tape, out, s.w_out[1], NULL, F32);
    tensor_set(tape_grad(&tape, y), 0, 1);
    for (int64_t i = 0; i < tensor_count(out); i++) tensor_set(out, i, 42);
    tape_backward(&tape);
    flops[replay] = s.device.flops;
    if (replay) cr_assert_eq(tensor_get(out, 5), 42, "the output was computed again");
    tape_reset(&tape, 0);
  }
  cr_assert_eq(flops[0], flops[1], "%g flops kept, %g replayed", flops[0], flops[1]);
  device_close(&s.device);
}

static void uses_a_stranger(Tape *tape, const void *args, Tensor *in, Tensor *out) {
  Tensor *stranger = *(Tensor *const *)args;
  op_residual(tape, in, stranger, out);
}

Test(scopes, refuse_a_body_that_reaches_for_another_gradient, .signal = SIGABRT) {
  Subject s = subject_open();
  Tape tape = tape_make(&s.device, F32, true);
  Tensor *stranger = op_linear(&tape, s.x, s.w_out[0], NULL, F32), *h = op_linear(&tape, s.x, s.w_out[1], NULL, F32);
  h = tape_scope(&tape, (TapeScope){.kind = SCOPE_KEEP,
                                    .body = uses_a_stranger,
                                    .args = &stranger,
                                    .args_bytes = sizeof stranger,
                                    .in = h,
                                    .dtype = F32,
                                    .n_cols = WIDTH});
  tape_grad(&tape, h);
  tape_backward(&tape);
}

/* ---- gradients of views ---- */

typedef struct ViewCase {
  const char *name;
  struct {
    int64_t first, n;
  } part[10]; /* whose gradients arrive one after the other */
} ViewCase;

static const ViewCase VIEW_CASES[] = {{"a partition, in order", {{0, 3}, {3, 1}, {4, 4}}},
                                      {"a partition, from behind", {{5, 3}, {1, 4}, {0, 1}}},
                                      {"gaps at both ends", {{2, 2}, {5, 1}}},
                                      {"one column twice", {{2, 3}, {2, 3}}},
                                      {"a part of what is written", {{1, 6}, {2, 2}}},
                                      {"parts that overlap", {{0, 4}, {2, 4}}},
                                      {"every second column, then all", {{0, 1}, {2, 1}, {4, 1}, {6, 1}, {0, 8}}},
                                      {"the gap between two", {{0, 3}, {5, 3}, {3, 2}}}};

/* Adds 1 to the columns of each part, as an operation does: it stores where nothing was added before. */
static void add_parts(Tape *tape, Tensor *base, const ViewCase *c) {
  for (int i = 0; i < 10 && c->part[i].n > 0; i++) {
    Tensor *view = tensor_cols(&tape->device->step, base, c->part[i].first, c->part[i].n);
    Tensor *grad = tape_grad_unset(tape, view);
    for (int64_t k = 0; k < tensor_count(grad); k++) tensor_set(grad, k, (grad->unset ? 0 : tensor_get(grad, k)) + 1);
    tape_grad_set(grad);
  }
}

Test(views, add_up_in_their_base_and_leave_zeros_beside) {
  enum { COLS = 8 };
  Device device;
  Status status = device_open(&device, "cpu", F32, (DeviceSizes){1 << 20, 1 << 20, 1 << 20});
  cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
  for (size_t c = 0; c < sizeof VIEW_CASES / sizeof *VIEW_CASES; c++) {
    Tape tape = tape_make(&device, F32, true);
    Tensor *base = tape_tensor(&tape, F32, 3, COLS);
    base->needs_grad = true;
    /* what a buffer holds before it is written must not be seen */
    const size_t mark = arena_mark(&device.step);
    Tensor *dirt = tape_tensor(&tape, F32, 64, COLS);
    for (int64_t i = 0; i < tensor_count(dirt); i++) tensor_set(dirt, i, NAN);
    arena_rewind(&device.step, mark);

    add_parts(&tape, base, &VIEW_CASES[c]);
    const Tensor *grad = tape_arrived(&tape, base);
    for (int64_t i = 0; i < tensor_count(grad); i++) {
      double expected = 0;
      for (int k = 0; k < 10; k++) {
        const int64_t at = i % COLS - VIEW_CASES[c].part[k].first;
        expected += at >= 0 && at < VIEW_CASES[c].part[k].n;
      }
      cr_assert_eq(tensor_get(grad, i), expected, "%s: column %d holds %g, expected %g", VIEW_CASES[c].name,
                   (int)(i % COLS), tensor_get(grad, i), expected);
    }
    tape_reset(&tape, 0);
  }
  device_close(&device);
}

/* ---- products on a tape */

Test(tape, sums_the_gradients_of_a_tensor_used_twice) {
  Device device = open_device(F64);
  Tensor *x = randn(&device, F64, 5, 4, 1), *a = randn(&device, F64, 3, 4, 2), *b = randn(&device, F64, 3, 4, 3);
  Tape tape = tape_make(&device, F64, true);
  Tensor *y = op_linear(&tape, x, a, NULL, F64), *z = op_linear(&tape, x, b, NULL, F64);
  seed_grad(&tape, y, 4);
  seed_grad(&tape, z, 5);
  tape_backward(&tape);
  for (int64_t t = 0; t < 5; t++)
    for (int64_t i = 0; i < 4; i++) {
      double expected = 0;
      for (int64_t o = 0; o < 3; o++)
        expected += tensor_get(y->grad, t * 3 + o) * tensor_get(a, o * 4 + i) +
                    tensor_get(z->grad, t * 3 + o) * tensor_get(b, o * 4 + i);
      cr_assert_float_eq(tensor_get(x->grad, t * 4 + i), expected, 1e-12, "dx (%lld, %lld) is %g, expected %g",
                         (long long)t, (long long)i, tensor_get(x->grad, t * 4 + i), expected);
    }
  device_close(&device);
}

Test(tape, view_of_a_projection_gets_its_gradient_where_it_lies) {
  Device device = open_device(F32);
  Tensor *x = randn(&device, F32, 4, 6, 1), *w = randn(&device, F32, 2, 3, 2);
  Tape tape = tape_make(&device, F32, true);
  Tensor *y = op_linear(&tape, tensor_cols(&device.step, x, 2, 3), w, NULL, F32);
  seed_grad(&tape, y, 3);
  tape_backward(&tape);
  for (int64_t i = 0; i < 24; i++) {
    const bool inside = i % 6 >= 2 && i % 6 < 5;
    cr_assert((tensor_get(x->grad, i) != 0) == inside, "dx at row %lld, column %lld is %g", (long long)i / 6,
              (long long)i % 6, tensor_get(x->grad, i));
  }
  device_close(&device);
}

Test(tape, nothing_is_recorded_for_inputs_without_gradient) {
  Device device = open_device(F32);
  Tensor *x = randn(&device, F32, 4, 6, 1), *w = randn(&device, F32, 2, 6, 2);
  Tape off = tape_make(&device, F32, false);
  Tensor *y = op_linear(&off, x, w, NULL, F32);
  cr_assert(!y->needs_grad && !off.last, "an evaluating tape recorded");
  x->needs_grad = w->needs_grad = false;
  Tape on = tape_make(&device, F32, true);
  y = op_linear(&on, x, w, NULL, F32);
  cr_assert(!y->needs_grad && !on.last, "a product of constants was recorded");
  device_close(&device);
}
