/* Gradients of embedding: tokens that repeat, tokens that never occur. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  (void)options;
  out[0] = op_embedding(tape, in[0], in[1]);
  return 1;
}

void gradcheck_embedding(void) {
  const int32_t token[] = {3, 0, 3, 6, 3};
  for (int64_t n_t = 1; n_t <= 5; n_t += 4)
    for (int64_t width = 3; width <= 67; width += 64) { /* 67: more than one run of columns */
      Tensor *inputs[] = {gradcheck_randn(2, (const int64_t[]){7, width}, 0, 1, 1), gradcheck_ints(n_t, token)};
      GradCase c = {.build = build, .inputs = inputs, .n_inputs = 2, .weights = 1, .max_entries = 200};
      snprintf(c.name, sizeof c.name, "embedding of %lld tokens, width %lld", (long long)n_t, (long long)width);
      gradcheck_run(&c);
    }
}
