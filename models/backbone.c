/* backbone: the pre-norm residual stream (specification, section 1).
 *
 *   h <- h + mixer(RMSNorm(h));   with an MLP also   h <- h + fc2(value * silu(gate)), [value | gate] = fc1(RMSNorm(h))
 * The stream is kept in real. Adding an update and normalising the sum are one operation, so an update is added where
 * the next norm reads the stream: a layer's output exists once the following layer, or norm_f, has begun. */
#include "models/aspis.h"

#define NORM_EPS 1e-5

static Tensor *mlp_forward(const Block *block, Tape *tape, Tensor *x) {
  const int64_t n_f = block->fc2->dim[1];
  Tensor *both = op_linear(tape, x, block->fc1, NULL, tape->act);
  Tensor *value = tensor_cols(&tape->device->step, both, 0, n_f);
  Tensor *gate = tensor_cols(&tape->device->step, both, n_f, n_f);
  return op_linear(tape, op_swiglu(tape, value, gate, NULL), block->fc2, NULL, tape->act);
}

Tensor *backbone_forward(Model *model, Tape *tape, Tensor *h, Tensor *cu_seqlens, const ModelState *state_in,
                         ModelState *state_out, Tensor **hidden) {
  Tensor *update = NULL;
  for (int i = 0; i < model->config.n_layer; i++) {
    Block *block = &model->blocks[i];
    Tensor *x = op_add_norm(tape, h, update, block->norm, NORM_EPS, &h);
    if (hidden && i > 0) hidden[i - 1] = h;
    update = mixer_forward(&block->mixer, tape, x, cu_seqlens, state_in ? &state_in->layers[i] : NULL,
                           state_out ? &state_out->layers[i] : NULL);
    if (!block->fc1) continue;
    x = op_add_norm(tape, h, update, block->norm2, NORM_EPS, &h);
    update = mlp_forward(block, tape, x);
  }
  Tensor *y = op_add_norm(tape, h, update, model->norm_f, NORM_EPS, &h);
  if (hidden) hidden[model->config.n_layer - 1] = h;
  return y;
}
