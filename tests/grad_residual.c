/* Gradients of residual, alone and behind a product (op_linear_residual): rows of more than one run, with and without
 * bias, and a stream that two updates join one after the other. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  (void)options;
  out[0] = op_residual(tape, in[0], in[1], NULL);
  out[1] = op_linear_residual(tape, in[2], in[3], in[4], in[0], NULL);
  out[2] = op_linear_residual(tape, in[2], in[3], NULL, out[0],
                              tape_tensor(tape, tape_real(tape), in[0]->dim[0], in[0]->dim[1]));
  return 3;
}

void gradcheck_residual(void) {
  static const int64_t WIDTHS[] = {1, 6, 259};
  for (int64_t n_t = 1; n_t <= 4; n_t += 3)
    for (size_t i = 0; i < sizeof WIDTHS / sizeof *WIDTHS; i++) {
      const int64_t width = WIDTHS[i], dim[] = {n_t, width};
      Tensor *inputs[] = {gradcheck_randn(2, dim, 0, 1, 1), gradcheck_randn(2, dim, 0, 1, 2),
                          gradcheck_randn(2, (int64_t[]){n_t, 5}, 0, 1, 3),
                          gradcheck_randn(2, (int64_t[]){width, 5}, 0, 1, 4), gradcheck_randn(1, &width, 0, 1, 5)};
      GradCase c = {.build = build, .inputs = inputs, .n_inputs = 5, .acts = 6, .weights = 24, .max_entries = 40};
      snprintf(c.name, sizeof c.name, "residual of (%lld, %lld)", (long long)n_t, (long long)width);
      gradcheck_run(&c);
    }
}
