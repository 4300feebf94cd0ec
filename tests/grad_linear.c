/* Gradients of linear: with and without bias, inputs that are views of wider tensors or of every other row, shapes of one
 * row, one column, and more than one block. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

typedef enum View { WHOLE, COLUMNS, ROWS } View;
static const char *const VIEW_NAME[] = {"whole", "columns", "every other row"};

/* One x of twice the size serves every view. */
static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  Arena *arena = &tape->device->step;
  Tensor *x = in[0];
  const int64_t n_t = x->dim[0], n_in = in[1]->dim[1];
  if (*(const View *)options == COLUMNS) x = tensor_cols(arena, x, 2, n_in);
  if (*(const View *)options == ROWS) x = tensor_every(arena, x, 1, 2, n_t / 2);
  out[0] = op_linear(tape, x, in[1], in[2], tape->act);
  return 1;
}

void gradcheck_linear(void) {
  static const int64_t SHAPES[][3] = {{1, 1, 1}, {1, 5, 3}, {7, 1, 4}, {6, 5, 1}, {9, 4, 70}, {132, 3, 2}, {3, 2, 131}};
  for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++)
    for (View view = WHOLE; view <= ROWS; view++)
      for (int biased = 0; biased < 2; biased++) {
        const int64_t n_t = SHAPES[s][0], n_in = SHAPES[s][1], n_out = SHAPES[s][2];
        const int64_t x_dim[] = {view == ROWS ? 2 * n_t : n_t, view == COLUMNS ? n_in + 3 : n_in};
        Tensor *inputs[] = {gradcheck_randn(2, x_dim, 0, 1, 1), gradcheck_randn(2, (int64_t[]){n_out, n_in}, 0, 1, 2),
                            biased ? gradcheck_randn(1, &n_out, 0, 1, 3) : NULL};
        GradCase c = {.build = build,
                      .options = &view,
                      .inputs = inputs,
                      .n_inputs = 3,
                      .acts = 1,
                      .weights = 6,
                      .max_entries = 40};
        snprintf(c.name, sizeof c.name, "linear (%lld, %lld) to %lld%s, x %s", (long long)n_t, (long long)n_in,
                 (long long)n_out, biased ? " with bias" : "", VIEW_NAME[view]);
        gradcheck_run(&c);
      }
}
