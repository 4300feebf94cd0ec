/* Sampling: which token is drawn from logits, and how often. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "tensor/rng.h"

static int sample_of(const float *logits, int n, int vocab_size, SampleOptions options, uint64_t draw) {
  Tensor row = tensor_over((void *)logits, F32, 2, (const int64_t[]){1, n});
  return sample_token(&row, 0, vocab_size, &options, draw);
}

Test(sampling, greedy_takes_the_first_of_the_highest_and_never_a_padded_row) {
  const float logits[] = {1, 3, -2, 3, 9};
  cr_assert_eq(sample_of(logits, 5, 4, (SampleOptions){.top_p = 1}, 0), 1, "greedy");
  for (uint64_t draw = 0; draw < 200; draw++) {
    int token = sample_of(logits, 5, 4, (SampleOptions){.temperature = 5, .top_p = 1}, draw);
    cr_assert(token >= 0 && token < 4, "draw %d: padded token %d", (int)draw, token);
  }
}

Test(sampling, refuses_logits_that_are_not_finite) {
  const float nan_logits[] = {1, NAN, 2}, inf_logits[] = {1, 2, INFINITY}, padded[] = {1, 2, NAN};
  SampleOptions warm = {.temperature = 1, .top_p = 1};
  cr_assert_eq(sample_of(nan_logits, 3, 3, (SampleOptions){.top_p = 1}, 0), -1, "NaN, greedy");
  cr_assert_eq(sample_of(inf_logits, 3, 3, warm, 0), -1, "infinity");
  cr_assert_neq(sample_of(padded, 3, 2, warm, 0), -1, "NaN in a padded row counts for nothing");
}

Test(sampling, draws_with_the_softmax_of_logits_over_temperature) {
  const float logits[] = {0.5f, -1, 2, 0};
  enum { N_DRAWS = 20000 };
  for (int cold = 0; cold < 2; cold++) {
    const double temperature = cold ? 0.5 : 1.5;
    int counts[4] = {0};
    double total = 0;
    for (int i = 0; i < 4; i++) total += exp(logits[i] / temperature);
    for (int i = 0; i < N_DRAWS; i++)
      counts[sample_of(logits, 4, 4, (SampleOptions){.temperature = temperature, .top_p = 1, .seed = 3},
                       (uint64_t)i)]++;
    for (int i = 0; i < 4; i++) {
      double p = exp(logits[i] / temperature) / total, got = (double)counts[i] / N_DRAWS;
      cr_assert_lt(fabs(got - p), 5 * sqrt(p * (1 - p) / N_DRAWS), "temperature %g, token %d: %g of draws, expected %g",
                   temperature, i, got, p);
    }
  }
}

Test(sampling, top_k_and_top_p_keep_the_most_likely) {
  const float logits[] = {0, 2, 1, -1}; /* probabilities 0.087, 0.644, 0.237, 0.032 */
  static const struct {
    const char *name;
    int top_k;
    double top_p;
    bool kept[4];
  } CASES[] = {{"top_k 1", 1, 1, {false, true, false, false}},
               {"top_k 2", 2, 1, {false, true, true, false}},
               {"top_k 9", 9, 1, {true, true, true, true}},
               {"top_p 0.6", 0, 0.6, {false, true, false, false}},
               {"top_p 0.7", 0, 0.7, {false, true, true, false}},
               {"top_p 0.95", 0, 0.95, {true, true, true, false}},
               {"top_k 3, top_p 0.9 of those", 3, 0.9, {false, true, true, false}}};
  for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
    bool seen[4] = {false};
    for (uint64_t draw = 0; draw < 2000; draw++) {
      SampleOptions options = {.temperature = 1, .top_k = CASES[c].top_k, .top_p = CASES[c].top_p, .seed = 1};
      seen[sample_of(logits, 4, 4, options, draw)] = true;
    }
    for (int i = 0; i < 4; i++)
      cr_assert_eq(seen[i], CASES[c].kept[i], "%s: token %d %s", CASES[c].name, i, seen[i] ? "drawn" : "not drawn");
  }
}
