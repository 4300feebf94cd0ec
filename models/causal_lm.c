/* causal_lm: embedding -> backbone -> head (specification, sections 1 and 2.4). */
#include "models/aspis.h"

static Tensor *lm_features(Model *model, Tape *tape, Tensor *token, Tensor *cu_seqlens, const ModelState *state_in,
                           ModelState *state_out, Tensor **hidden) {
  CHECK(model->config.task == TASK_LM, "a forecaster has no tokens");
  Tensor *h = op_embedding(tape, model->embedding, token);
  return backbone_forward(model, tape, h, cu_seqlens, state_in, state_out, hidden);
}

Tensor *lm_nll(Model *model, Tape *tape, Tensor *token, Tensor *target, Tensor *cu_seqlens, const ModelState *state_in,
               ModelState *state_out) {
  Tensor *y = lm_features(model, tape, token, cu_seqlens, state_in, state_out, NULL);
  return op_cross_entropy(tape, y, model->lm_head, target, model->config.vocab_size);
}

Tensor *lm_logits(Model *model, Tape *tape, Tensor *token, Tensor *cu_seqlens, const ModelState *state_in,
                  ModelState *state_out, Tensor **hidden) {
  Tensor *y = lm_features(model, tape, token, cu_seqlens, state_in, state_out, hidden);
  return op_linear(tape, y, model->lm_head, NULL, tape_real(tape));
}

Tensor *lm_last_logits(Model *model, Tape *tape, Tensor *token, const ModelState *state_in, ModelState *state_out) {
  CHECK(model->config.task == TASK_LM, "a forecaster has no tokens");
  return lm_last_logits_of(model, tape, op_embedding(tape, model->embedding, token), state_in, state_out);
}

Tensor *lm_last_logits_of(Model *model, Tape *tape, Tensor *h, const ModelState *state_in, ModelState *state_out) {
  const int64_t n_t = h->dim[0];
  Tensor *y = backbone_forward(model, tape, h, model_equal_seqlens(tape, 1, n_t), state_in, state_out, NULL);
  Tensor *last = tensor_every(&tape->device->step, y, n_t - 1, 1, 1);
  return op_linear(tape, last, model->lm_head, NULL, tape_real(tape));
}

Tensor *lm_step(Model *model, Tape *tape, Tensor *token, ModelState *state) {
  CHECK(model->config.task == TASK_LM, "a forecaster has no tokens");
  Tensor *y = backbone_step(model, tape, op_embedding(tape, model->embedding, token), state);
  return op_linear(tape, y, model->lm_head, NULL, tape_real(tape));
}
