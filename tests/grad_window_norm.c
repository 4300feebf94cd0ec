/* Gradients of window_norm: the cycle's, shorter, as long as and longer than the window, with known columns beside the
 * values, windows that begin anywhere in the cycle, and that go on over rows without values. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

enum { N_SEQ = 3, LENGTH = 5, N_IN = 4 };
static const char *const NAME[] = {"none", "standard", "last", "mean"};

typedef struct Options {
  WindowStatistic statistic;
  int n_c, n_past;
} Options;

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  const Options *o = options;
  out[0] = op_window_norm(tape, (WindowNorm){.statistic = o->statistic,
                                             .eps = 1e-5,
                                             .length = LENGTH,
                                             .n_past = o->n_past,
                                             .n_c = o->n_c,
                                             .x = in[1],
                                             .phase = in[2],
                                             .cycle = in[0]})
               .y;
  return 1;
}

void gradcheck_window_norm(void) {
  for (WindowStatistic statistic = WINDOW_NONE; statistic <= WINDOW_MEAN; statistic++)
    for (int n_c = 1; n_c <= N_IN; n_c += 3)
      for (int n_w = 1; n_w <= 9; n_w += 4) {
        const int32_t phases[N_SEQ] = {0, n_w - 1, n_w / 2};
        const Options options = {statistic, n_c, n_w == 5 ? LENGTH - 2 : LENGTH};
        Tensor *inputs[] = {gradcheck_randn(2, (int64_t[]){n_w, n_c}, 0, 1, 2),
                            gradcheck_randn(2, (int64_t[]){N_SEQ * LENGTH, N_IN}, 1, 2, 1),
                            gradcheck_ints(N_SEQ, phases)};
        GradCase c = {.build = build, .options = &options, .inputs = inputs, .n_inputs = 3, .n_data = 2};
        snprintf(c.name, sizeof c.name, "window_norm %s, %d of %d columns, cycle %d, %d of %d rows with values",
                 NAME[statistic], n_c, N_IN, n_w, options.n_past, LENGTH);
        gradcheck_run(&c);
      }
}
