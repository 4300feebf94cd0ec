/* Gradients of add_norm: with and without update, h used or not, one row and more rows than blocks. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

typedef struct Uses {
  bool h, y;
} Uses;

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  const Uses *uses = options;
  Tensor *h, *y = op_add_norm(tape, in[0], in[1], in[2], 1e-5, &h);
  int n = 0;
  if (uses->y) out[n++] = y;
  if (uses->h) out[n++] = h;
  return n;
}

void gradcheck_add_norm(void) {
  static const Uses USES[] = {{true, true}, {false, true}, {true, false}};
  static const int64_t ROWS[] = {1, 3, 37};
  for (int updated = 0; updated < 2; updated++)
    for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++)
      for (size_t u = 0; u < sizeof USES / sizeof *USES; u++)
        for (int64_t width = 1; width <= 18; width += 17) {
          const int64_t dim[] = {ROWS[r], width};
          Tensor *inputs[] = {gradcheck_randn(2, dim, 0.2, 1, 1), updated ? gradcheck_randn(2, dim, 0, 1, 2) : NULL,
                              gradcheck_randn(1, &width, 1, 0.3, 3)};
          GradCase c = {.build = build, .options = &USES[u], .inputs = inputs, .n_inputs = 3, .max_entries = 60};
          snprintf(c.name, sizeof c.name, "add_norm of %lld rows, width %lld%s, uses%s%s", (long long)ROWS[r],
                   (long long)width, updated ? ", with update" : "", USES[u].y ? " y" : "", USES[u].h ? " h" : "");
          gradcheck_run(&c);
        }
}
