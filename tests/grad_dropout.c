/* Gradients of dropout: few, some and most dropped; several rows a sample; rows longer than one run. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

typedef struct Options {
  double p;
  int64_t n_samples;
} Options;

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  const Options *o = options;
  tape->draws = (TapeDraws){.seed = 9, .first_sample = 4, .n_samples = o->n_samples};
  out[0] = op_dropout(tape, in[0], o->p, 2);
  return 1;
}

void gradcheck_dropout(void) {
  static const double P[] = {0.05, 0.3, 0.9};
  static const int64_t SHAPES[][2] = {{1, 1}, {6, 7}, {2, 300}};
  for (size_t p = 0; p < sizeof P / sizeof *P; p++)
    for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++) {
      Options options = {P[p], s == 1 ? 2 : SHAPES[s][0]};
      Tensor *x = gradcheck_randn(2, SHAPES[s], 0, 1, 1);
      GradCase c = {.build = build, .options = &options, .inputs = &x, .n_inputs = 1, .acts = 1, .max_entries = 100};
      snprintf(c.name, sizeof c.name, "dropout %g of (%lld, %lld)", P[p], (long long)SHAPES[s][0],
               (long long)SHAPES[s][1]);
      gradcheck_run(&c);
    }
}
