/* forecaster: input_proj -> backbone -> the last position -> output_proj (specification, section 1). */
#include "models/aspis.h"

Tensor *forecaster_predict(Model *model, Tape *tape, Tensor *series, int64_t n_seq, int64_t length) {
  CHECK(model->config.task == TASK_FORECAST, "a language model has no series");
  CHECK(series->dim[0] == n_seq * length, "series %s, expected %lld * %lld rows", tensor_shape_text(series),
        (long long)n_seq, (long long)length);
  Tensor *cu_seqlens = model_equal_seqlens(tape, n_seq, length);
  Tensor *h = op_linear(tape, series, model->input_proj, model->input_proj_bias, tape_real(tape));
  Tensor *y = backbone_forward(model, tape, h, cu_seqlens, NULL, NULL, NULL);
  Tensor *last = tensor_every(&tape->device->step, y, length - 1, length, n_seq);
  return op_linear(tape, last, model->output_proj, model->output_proj_bias, tape_real(tape));
}
