/* Gradients of swiglu: value and gate as the halves of one projection, y a view, rows of more than one run, and gates far
 * out on both sides. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  (void)options;
  Arena *arena = &tape->device->step;
  const int64_t width = in[0]->dim[1] / 2;
  Tensor *y = tensor_cols(arena, tape_tensor(tape, tape->act, in[0]->dim[0], width + 5), 2, width);
  out[0] = op_swiglu(tape, tensor_cols(arena, in[0], 0, width), tensor_cols(arena, in[0], width, width), y);
  out[1] = op_swiglu(tape, in[1], in[2], NULL);
  return 2;
}

void gradcheck_swiglu(void) {
  static const int64_t WIDTHS[] = {1, 6, 259};
  for (int64_t n_t = 1; n_t <= 4; n_t += 3)
    for (size_t w = 0; w < sizeof WIDTHS / sizeof *WIDTHS; w++)
      for (double spread = 1; spread <= 10; spread += 9) {
        const int64_t dim[] = {n_t, WIDTHS[w]};
        Tensor *inputs[] = {gradcheck_randn(2, (int64_t[]){n_t, 2 * WIDTHS[w]}, 0, spread, 1),
                            gradcheck_randn(2, dim, 0, 1, 2), gradcheck_randn(2, dim, 0, spread, 3)};
        GradCase c = {.build = build, .inputs = inputs, .n_inputs = 3, .acts = 7, .max_entries = 40};
        snprintf(c.name, sizeof c.name, "swiglu of (%lld, %lld), spread %g", (long long)n_t, (long long)WIDTHS[w],
                 spread);
        gradcheck_run(&c);
      }
}
