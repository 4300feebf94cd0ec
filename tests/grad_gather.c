/* Gradients of gather: runs that are taken once, several times and never; single elements and whole rows, wider than one
 * block of columns; the result in another shape; runs of the rest where the index is negative. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

typedef struct Options {
  int64_t width, n_rows, n_cols;
} Options;

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  const Options *o = options;
  out[0] = op_gather(tape, in[0], in[1], o->width, o->n_rows, o->n_cols);
  return 1;
}

static int build_or(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  (void)options;
  out[0] = op_gather_or(tape, in[0], in[1], in[2]);
  return 1;
}

void gradcheck_gather(void) {
  static const int32_t INDEX[] = {3, 0, 0, 5, 2, 3};
  static const struct {
    int64_t x[2], width, n_rows, n_cols;
  } CASES[] = {{{6, 1}, 1, 6, 1}, {{6, 1}, 1, 2, 3}, {{3, 2}, 1, 3, 2},    {{6, 4}, 4, 6, 4},
               {{6, 4}, 4, 3, 8}, {{3, 4}, 2, 3, 4}, {{6, 70}, 70, 2, 210}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    Options options = {CASES[i].width, CASES[i].n_rows, CASES[i].n_cols};
    Tensor *inputs[] = {gradcheck_randn(2, CASES[i].x, 0, 1, 1), gradcheck_ints(6, INDEX)};
    GradCase c = {.build = build, .options = &options, .inputs = inputs, .n_inputs = 2, .acts = 1, .n_data = 1};
    snprintf(c.name, sizeof c.name, "gather runs of %lld of (%lld, %lld)", (long long)CASES[i].width,
             (long long)CASES[i].x[0], (long long)CASES[i].x[1]);
    gradcheck_run(&c);
  }
  static const int32_t SOME[] = {-1, 1, -1, 1, 0};
  Tensor *inputs[] = {gradcheck_randn(2, (const int64_t[]){2, 70}, 0, 1, 1), gradcheck_ints(5, SOME),
                      gradcheck_randn(3, (const int64_t[]){5, 7, 10}, 0, 1, 0)};
  GradCase c = {
      .name = "gather or the rest", .build = build_or, .inputs = inputs, .n_inputs = 3, .acts = 1 | 4, .n_data = 2};
  gradcheck_run(&c);
}
