/* Gradients of window_denorm: forecast, linear forecast, cycle and what is kept of the mean, both layouts of the forecast, several quantiles, outputs that are some
 * of the columns. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

enum { N_SEQ = 3, LENGTH = 5, HORIZON = 4, N_C = 3 };

typedef struct Options {
  WindowDenorm p; /* but for its tensors */
} Options;

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  WindowDenorm p = ((const Options *)options)->p;
  p.x = in[0], p.cycle = in[1], p.linear = in[2], p.keep = in[3];
  p.phase = in[4], p.mean = in[5], p.std = in[6];
  out[0] = op_window_denorm(tape, p);
  return 1;
}

void gradcheck_window_denorm(void) {
  static const int N_OUT[] = {N_C, 1}, N_Q[] = {1, 3}, N_W[] = {0, 1, 3, 11};
  for (int rows = 0; rows < 2; rows++)
    for (int o = 0; o < 2; o++)
      for (int q = 0; q < 2; q++)
        for (int w = 0; w < 4; w++) {
          const int n_out = N_OUT[o], n_q = N_Q[q], n_w = N_W[w];
          const int32_t phases[N_SEQ] = {0, n_w / 2, n_w ? n_w - 1 : 0};
          const int64_t state[] = {N_SEQ, N_C};
          const int64_t x[] = {rows ? N_SEQ * n_out : N_SEQ, (int64_t)HORIZON * n_q * (rows ? 1 : n_out)};
          Options options = {{.length = LENGTH,
                              .horizon = HORIZON,
                              .n_out = n_out,
                              .n_q = n_q,
                              .first = N_C - n_out,
                              .row_per_series = rows}};
          Tensor *inputs[] = {gradcheck_randn(2, x, 0, 1, 1),
                              n_w ? gradcheck_randn(2, (int64_t[]){n_w, N_C}, 0, 1, 2) : NULL,
                              n_w == 1 ? NULL : gradcheck_randn(2, x, 0, 1, 5),
                              n_w == 3 ? NULL : gradcheck_randn(1, (int64_t[]){HORIZON}, 1, 0.5, 6),
                              gradcheck_ints(N_SEQ, phases),
                              gradcheck_randn(2, state, 0, 1, 3),
                              gradcheck_randn(2, state, 2, 0.5, 4)};
          GradCase c = {.build = build, .options = &options, .inputs = inputs, .n_inputs = 7, .acts = 1, .n_data = 3};
          snprintf(c.name, sizeof c.name, "window_denorm %s, %d of %d columns, %d quantiles, cycle %d",
                   rows ? "a row a series" : "a row a sequence", n_out, N_C, n_q, n_w);
          gradcheck_run(&c);
        }
}
