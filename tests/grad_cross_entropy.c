/* Gradients of cross_entropy: ignored targets, padded rows of the classifier, one token, one word, and a number of tokens
 * that leaves a remainder after a chunk of 1024. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

enum { MAX_T = 1030 };

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  out[0] = op_cross_entropy(tape, in[0], in[1], in[2], *(const int *)options);
  return 1;
}

static void check(int64_t n_t, int64_t width, int vocab_size, int n_padded, bool ignored, int max_entries) {
  int32_t target[MAX_T];
  for (int64_t t = 0; t < n_t; t++)
    target[t] = ignored && t % 3 == 1 ? CROSS_ENTROPY_IGNORE : (int32_t)(t * 7 % vocab_size);
  Tensor *inputs[] = {gradcheck_randn(2, (int64_t[]){n_t, width}, 0, 1, 1),
                      gradcheck_randn(2, (int64_t[]){vocab_size + n_padded, width}, 0, 1, 2),
                      gradcheck_ints(n_t, target)};
  GradCase c = {.build = build,
                .options = &vocab_size,
                .inputs = inputs,
                .n_inputs = 3,
                .acts = 1,
                .weights = 2,
                .max_entries = max_entries};
  snprintf(c.name, sizeof c.name, "cross_entropy of (%lld, %lld), vocabulary %d + %d padded%s", (long long)n_t,
           (long long)width, vocab_size, n_padded, ignored ? ", ignored targets" : "");
  gradcheck_run(&c);
}

void gradcheck_cross_entropy(void) {
  static const int VOCABULARIES[] = {1, 2, 11, 37};
  for (size_t v = 0; v < sizeof VOCABULARIES / sizeof *VOCABULARIES; v++)
    for (int n_padded = 0; n_padded <= 5; n_padded += 5)
      for (int ignored = 0; ignored < 2; ignored++) {
        check(1, 3, VOCABULARIES[v], n_padded, false, 0);
        check(6, 4, VOCABULARIES[v], n_padded, ignored, 80);
      }
  check(MAX_T, 1, 5, 3, true, 0);
}
