/* Gradients of point_loss: every kind, errors on both sides of every kink and at least 1e-3 away from it. */
#include <math.h>
#include <stdio.h>

#include "tests/support/gradcheck.h"

static const double DELTA = 0.8, FROM_KINK = 1e-3;
static const char *const KIND_NAME[] = {"mse", "mae", "huber"};

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  out[0] = op_point_loss(tape, *(const PointLossKind *)options, DELTA, in[0], in[1]);
  return 1;
}

void gradcheck_point_loss(void) {
  static const int64_t SHAPES[][2] = {{1, 1}, {5, 3}, {2, 300}};
  for (PointLossKind kind = LOSS_MSE; kind <= LOSS_HUBER; kind++)
    for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++) {
      Tensor *target = gradcheck_randn(2, SHAPES[s], 0, 1, 1), *prediction = gradcheck_randn(2, SHAPES[s], 0, 1, 2);
      for (int64_t i = 0; i < tensor_count(prediction); i++) {
        const double e = fabs(tensor_get(prediction, i) - tensor_get(target, i));
        if (e < FROM_KINK || fabs(e - DELTA) < FROM_KINK)
          tensor_set(prediction, i, tensor_get(prediction, i) + 3 * FROM_KINK);
      }
      Tensor *inputs[] = {prediction, target};
      GradCase c = {.build = build,
                    .options = &kind,
                    .inputs = inputs,
                    .n_inputs = 2,
                    .acts = 1,
                    .n_data = 1,
                    .max_entries = 100};
      snprintf(c.name, sizeof c.name, "point_loss %s of (%lld, %lld)", KIND_NAME[kind], (long long)SHAPES[s][0],
               (long long)SHAPES[s][1]);
      gradcheck_run(&c);
    }
}
