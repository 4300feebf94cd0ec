/* Gradients of quantile_loss: one and several quantiles, errors on both sides and at least 1e-3 away from the kink. */
#include <math.h>
#include <stdio.h>

#include "tests/support/gradcheck.h"

static const double FROM_KINK = 1e-3, TAU[] = {0.1, 0.5, 0.95};

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  out[0] = op_quantile_loss(tape, *(const int *)options, TAU, in[0], in[1]);
  return 1;
}

void gradcheck_quantile_loss(void) {
  static const int64_t SHAPES[][2] = {{1, 1}, {5, 3}, {2, 300}};
  for (int n_q = 1; n_q <= 3; n_q += 2)
    for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++) {
      const int64_t dim[] = {SHAPES[s][0], n_q * SHAPES[s][1]};
      Tensor *target = gradcheck_randn(2, SHAPES[s], 0, 1, 1), *prediction = gradcheck_randn(2, dim, 0, 1, 2);
      for (int64_t i = 0; i < tensor_count(prediction); i++)
        if (fabs(tensor_get(prediction, i) - tensor_get(target, i / n_q)) < FROM_KINK)
          tensor_set(prediction, i, tensor_get(prediction, i) + 3 * FROM_KINK);
      Tensor *inputs[] = {prediction, target};
      GradCase c = {
          .build = build, .options = &n_q, .inputs = inputs, .n_inputs = 2, .acts = 1, .n_data = 1, .max_entries = 100};
      snprintf(c.name, sizeof c.name, "quantile_loss of (%lld, %lld), %d quantiles", (long long)SHAPES[s][0],
               (long long)SHAPES[s][1], n_q);
      gradcheck_run(&c);
    }
}
