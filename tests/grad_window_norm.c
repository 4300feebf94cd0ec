/* Gradients of window_norm: the cycle's, shorter, as long as and longer than the window, with known columns beside the
 * values, windows that begin anywhere in the cycle. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

enum { N_SEQ = 3, LENGTH = 5, N_IN = 4 };
static const char *const NAME[] = {"none", "standard", "last", "mean"};

typedef struct Options {
  WindowStatistic statistic;
  int n_c;
  Tensor *x, *phase;
} Options;

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  const Options *o = options;
  out[0] = op_window_norm(tape, (WindowNorm){.statistic = o->statistic,
                                             .eps = 1e-5,
                                             .length = LENGTH,
                                             .n_c = o->n_c,
                                             .x = o->x,
                                             .phase = o->phase,
                                             .cycle = in[0]})
               .y;
  return 1;
}

void gradcheck_window_norm(void) {
  for (WindowStatistic statistic = WINDOW_NONE; statistic <= WINDOW_MEAN; statistic++)
    for (int n_c = 1; n_c <= N_IN; n_c += 3)
      for (int n_w = 1; n_w <= 9; n_w += 4) {
        const int32_t phases[N_SEQ] = {0, n_w - 1, n_w / 2};
        Options options = {statistic, n_c, gradcheck_randn(2, (int64_t[]){N_SEQ * LENGTH, N_IN}, 1, 2, 1),
                           gradcheck_ints(N_SEQ, phases)};
        Tensor *cycle = gradcheck_randn(2, (int64_t[]){n_w, n_c}, 0, 1, 2);
        GradCase c = {.build = build, .options = &options, .inputs = &cycle, .n_inputs = 1};
        snprintf(c.name, sizeof c.name, "window_norm %s, %d of %d columns, cycle %d", NAME[statistic], n_c, N_IN, n_w);
        gradcheck_run(&c);
      }
}
