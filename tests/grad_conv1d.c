/* Gradient check of conv1d: with and without silu, bias and windows; sequences shorter than the taps; packed ones. x and y
 * are views, as in a model. */
#include "tests/support/gradcheck.h"

#include <stdio.h>

enum { MAX_SEQ = 4 };

typedef struct ConvOptions {
  int n_c, n_w;
  bool silu, bias, window_in, window_out;
  int lengths[MAX_SEQ];
} ConvOptions;

enum Input { PROJ, W, BIAS, WINDOW, CU_SEQLENS, N_INPUTS };

static int build(Tape *tape, Tensor **inputs, const void *options, Tensor **outputs) {
  const ConvOptions *o = options;
  Arena *arena = &tape->device->step;
  Conv1d in = {.silu = o->silu, .cu_seqlens = inputs[CU_SEQLENS], .w = inputs[W], .bias = inputs[BIAS]};
  in.x = tensor_cols(arena, inputs[PROJ], 1, o->n_c);
  in.window_in = inputs[WINDOW];
  in.y = tensor_cols(arena, tape_tensor(tape, tape->act, in.x->dim[0], o->n_c + 3), 2, o->n_c);
  Conv1d out = op_conv1d(tape, in, o->window_out);
  outputs[0] = out.y, outputs[1] = out.window_out;
  return out.window_out ? 2 : 1;
}

static void run(ConvOptions o) {
  int32_t starts[MAX_SEQ + 1] = {0};
  int n_seq = 0;
  for (; n_seq < MAX_SEQ && o.lengths[n_seq] > 0; n_seq++) starts[n_seq + 1] = starts[n_seq] + o.lengths[n_seq];
  Tensor *inputs[N_INPUTS] = {
      [PROJ] = gradcheck_randn(2, (const int64_t[]){starts[n_seq], o.n_c + 2}, 0, 1, 1),
      [W] = gradcheck_randn(3, (const int64_t[]){o.n_c, 1, o.n_w}, 0, 0.7, 2),
      [CU_SEQLENS] = gradcheck_ints(n_seq + 1, starts),
  };
  if (o.bias) inputs[BIAS] = gradcheck_randn(1, (const int64_t[]){o.n_c}, 0, 0.5, 3);
  if (o.window_in) inputs[WINDOW] = gradcheck_randn(3, (const int64_t[]){n_seq, o.n_c, o.n_w - 1}, 0, 1, 4);
  GradCase c = {.build = build,
                .options = &o,
                .inputs = inputs,
                .n_inputs = N_INPUTS,
                .acts = 1u << PROJ,
                .weights = 1u << W | 1u << BIAS,
                .max_entries = 60};
  snprintf(c.name, sizeof c.name, "conv1d C%d W%d%s%s%s%s, %d tokens in %d", o.n_c, o.n_w, o.silu ? " silu" : "",
           o.bias ? " bias" : "", o.window_in ? " window in" : "", o.window_out ? " window out" : "", starts[n_seq],
           n_seq);
  gradcheck_run(&c);
}

void gradcheck_conv1d(void) {
  static const int LENGTHS[][MAX_SEQ] = {{1}, {2}, {3}, {4}, {9}, {1, 1, 1}, {2, 7, 1, 4}, {5, 3}};
  for (size_t i = 0; i < sizeof LENGTHS / sizeof LENGTHS[0]; i++)
    for (int options = 0; options < 16; options++) {
      ConvOptions o = {.n_c = 5, .n_w = 4, .silu = options & 1, .bias = options & 2};
      o.window_in = options & 4, o.window_out = options & 8;
      memcpy(o.lengths, LENGTHS[i], sizeof o.lengths);
      run(o);
    }
  /* sequences that begin and end anywhere in panels and blocks of rows */
  for (int n_w = 2; n_w <= 5; n_w++)
    run((ConvOptions){.n_c = 3,
                      .n_w = n_w,
                      .silu = true,
                      .bias = true,
                      .window_in = true,
                      .window_out = true,
                      .lengths = {31, 2, 221, 36}});
  /* more channels than a tile; other numbers of taps */
  run((ConvOptions){
      .n_c = 131, .n_w = 2, .silu = true, .bias = true, .window_in = true, .window_out = true, .lengths = {3}});
  run((ConvOptions){.n_c = 3, .n_w = 6, .silu = true, .window_in = true, .window_out = true, .lengths = {2, 9}});
}
