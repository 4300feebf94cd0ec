/* dropout: builder and backward rule (Dropout in tensor/kernels.h). Saves nothing: the draws are repeated. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  Dropout *p = params;
  p->dy = tape_arrived(tape, p->y);
  if (!p->dy) return;
  p->dx = tape_grad(tape, p->x);
  dropout_bwd(tape->device, p);
}

Tensor *op_dropout(Tape *tape, Tensor *x, double probability, uint32_t site) {
  const TapeDraws *draws = &tape->draws;
  CHECK(probability >= 0 && probability < 1, "dropout of %g", probability);
  if (probability == 0 || draws->n_samples == 0) return x;
  CHECK(x->n_dim == 2 && x->dim[0] % draws->n_samples == 0, "%lld samples in %s", (long long)draws->n_samples,
        tensor_shape_text(x));
  Dropout p = {.p = probability,
               .seed = draws->seed,
               .first_sample = draws->first_sample,
               .samples_before = draws->samples_before,
               .site = site,
               .rows_per_sample = x->dim[0] / draws->n_samples,
               .x = x,
               .y = tape_tensor(tape, x->dtype, x->dim[0], x->dim[1])};
  dropout_fwd(tape->device, &p);
  const bool needs_grad = tape->recording && x->needs_grad;
  tape_mark_output(p.y, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, p);
  return p.y;
}
