/* Gradients of rms_norm: one row and more rows than blocks, one channel and more. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  (void)options;
  out[0] = op_rms_norm(tape, in[0], in[1], 1e-5);
  return 1;
}

void gradcheck_rms_norm(void) {
  static const int64_t ROWS[] = {1, 3, 37};
  for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++)
    for (int64_t width = 1; width <= 18; width += 17) {
      const int64_t dim[] = {ROWS[r], width};
      Tensor *inputs[] = {gradcheck_randn(2, dim, 0.2, 1, 1), gradcheck_randn(1, &width, 1, 0.3, 3)};
      GradCase c = {.build = build, .inputs = inputs, .n_inputs = 2, .weights = 2, .max_entries = 60};
      snprintf(c.name, sizeof c.name, "rms_norm of %lld rows, width %lld", (long long)ROWS[r], (long long)width);
      gradcheck_run(&c);
    }
}
