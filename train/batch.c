/* batch: see batch.h. */
#include "train/batch.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"

static int64_t n_inputs(const Batch *batch, const ModelConfig *c) {
  return batch->n_seq * batch->length * c->input_dim;
}
static int64_t n_outputs(const Batch *batch, const ModelConfig *c) { return batch->n_seq * c->horizon * c->output_dim; }

Batch batch_make(const ModelConfig *config, int64_t n_seq, int64_t length, int64_t max_pieces) {
  const size_t n = (size_t)n_seq, n_tokens = n * (size_t)length;
  Batch batch = {.n_seq = n_seq, .length = length};
  if (config->task == TASK_LM) {
    batch.token = base_alloc(n_tokens * sizeof *batch.token);
    batch.target = base_alloc(n_tokens * sizeof *batch.target);
    batch.goes_on = base_zalloc(n);
    batch.max_pieces = max_pieces;
    if (max_pieces > 0) batch.begins = base_alloc(n_tokens);
    return batch;
  }
  batch.input = base_alloc((size_t)n_inputs(&batch, config) * sizeof *batch.input);
  batch.output = base_alloc((size_t)n_outputs(&batch, config) * sizeof *batch.output);
  batch.row = base_alloc(n * sizeof *batch.row);
  return batch;
}

Batch batch_random(const ModelConfig *config, int64_t n_seq, int64_t length, uint64_t seed) {
  Batch batch = batch_make(config, n_seq, length, 0);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  if (config->task == TASK_LM) {
    for (int64_t i = 0; i < n_seq * length; i++) {
      batch.token[i] = (int32_t)rng_below(&rng, (uint32_t)config->vocab_size);
      batch.target[i] = (int32_t)rng_below(&rng, (uint32_t)config->vocab_size);
    }
    return batch;
  }
  for (int64_t i = 0; i < n_inputs(&batch, config); i++) batch.input[i] = (float)rng_normal(&rng);
  for (int64_t i = 0; i < n_outputs(&batch, config); i++) batch.output[i] = (float)rng_normal(&rng);
  for (int64_t s = 0; s < n_seq; s++) batch.row[s] = rng_below(&rng, 1 << 16);
  return batch;
}

void batch_release(Batch *batch) {
  free(batch->token), free(batch->target), free(batch->begins), free(batch->goes_on);
  free(batch->input), free(batch->output), free(batch->row);
  *batch = (Batch){0};
}

int64_t batch_n_targets(const Batch *batch) {
  if (!batch->target) return batch->n_seq;
  int64_t n = 0;
  for (int64_t i = 0; i < batch->n_seq * batch->length; i++) n += batch->target[i] != CROSS_ENTROPY_IGNORE;
  return n;
}

Batch batch_rows(const Batch *batch, const ModelConfig *config, int64_t first, int64_t n) {
  CHECK(first >= 0 && first + n <= batch->n_seq, "rows %lld + %lld of %lld", (long long)first, (long long)n,
        (long long)batch->n_seq);
  Batch rows = {.n_seq = n, .length = batch->length, .first = batch->first + first, .max_pieces = batch->max_pieces};
  if (batch->token) rows.token = batch->token + first * batch->length;
  if (batch->begins) rows.begins = batch->begins + first * batch->length;
  if (batch->goes_on) rows.goes_on = batch->goes_on + first;
  if (batch->target) rows.target = batch->target + first * batch->length;
  if (batch->input) rows.input = batch->input + first * batch->length * config->input_dim;
  if (batch->output) rows.output = batch->output + first * config->horizon * config->output_dim;
  if (batch->row) rows.row = batch->row + first;
  return rows;
}

Batch batch_segment(const Batch *batch, int64_t at, int64_t n) {
  CHECK(at >= 0 && n > 0 && at % n == 0 && at + n <= batch->length, "tokens %lld + %lld of %lld", (long long)at,
        (long long)n, (long long)batch->length);
  const bool is_dry = !batch->token;
  Batch part = {.n_seq = batch->n_seq,
                .length = n,
                .first = batch->first,
                .segment = at / n,
                .max_pieces = min_i64(batch->max_pieces, n)};
  if (is_dry) return part;
  const size_t n_tokens = (size_t)(part.n_seq * n);
  part.token = base_alloc(n_tokens * sizeof *part.token), part.target = base_alloc(n_tokens * sizeof *part.target);
  part.goes_on = base_alloc((size_t)part.n_seq);
  if (batch->begins) part.begins = base_alloc(n_tokens);
  for (int64_t s = 0; s < part.n_seq; s++) {
    const int64_t from = s * batch->length + at, to = s * n;
    memcpy(part.token + to, batch->token + from, (size_t)n * sizeof *part.token);
    memcpy(part.target + to, batch->target + from, (size_t)n * sizeof *part.target);
    part.goes_on[s] = at == 0 ? batch->goes_on[s] : !batch->begins || !batch->begins[from];
    if (!batch->begins) continue;
    memcpy(part.begins + to, batch->begins + from, (size_t)n);
    part.begins[to] = 1;
  }
  return part;
}

Tensor *batch_tensor(const Batch *batch, const int32_t *values, Tape *tape) {
  return model_ints(tape->device, values, batch->n_seq * batch->length);
}

Tensor *batch_seqlens(const Batch *batch, Tape *tape) {
  if (batch->max_pieces == 0) return model_equal_seqlens(tape, batch->n_seq, batch->length);
  const int64_t n_t = batch->n_seq * batch->length;
  CHECK(n_t <= INT32_MAX, "%lld sequences of %lld tokens", (long long)batch->n_seq, (long long)batch->length);
  const int64_t n_most = batch->n_seq * batch->max_pieces, n_dry = batch->dry_pieces ? batch->dry_pieces : n_most;
  if (tape->device->dry) {
    Tensor *dry = tensor_new1(&tape->device->step, I32, n_dry + 1);
    device_push(tape->device, dry);
    return dry;
  }
  int64_t n = 0;
  for (int64_t t = 0; t < n_t; t++) n += batch->begins[t];
  CHECK(n <= n_most, "%lld pieces, at most %lld were planned for", (long long)n, (long long)n_most);
  Tensor *cu_seqlens = tensor_new1(&tape->device->step, I32, n + 1);
  int32_t *start = device_mirror(tape->device, cu_seqlens).data;
  for (int64_t t = 0; t < n_t; t++)
    if (batch->begins[t]) *start++ = (int32_t)t;
  *start = (int32_t)n_t;
  device_push(tape->device, cu_seqlens);
  return cu_seqlens;
}

/* (n_rows, n_cols) floats as reals of the tape's device. */
static Tensor *real_tensor(Tape *tape, const float *values, int64_t n_rows, int64_t n_cols) {
  Tensor *tensor = tape_tensor(tape, tape_real(tape), n_rows, n_cols);
  const Tensor from = tensor_over((void *)(uintptr_t)values, F32, tensor->n_dim, tensor->dim);
  device_fill(tape->device, tensor, &from);
  return tensor;
}

Windows batch_windows(const Batch *batch, const ModelConfig *config, Tape *tape) {
  const int64_t n_cycle = config->cycle;
  Windows w = {.n_seq = batch->n_seq, .length = batch->length};
  w.series = real_tensor(tape, batch->input, batch->n_seq * batch->length, config->input_dim);
  if (n_cycle == 0) return w;
  w.phase = tensor_new1(&tape->device->step, I32, batch->n_seq);
  if (!tape->device->dry) {
    const Tensor phase = device_mirror(tape->device, w.phase);
    for (int64_t s = 0; s < batch->n_seq; s++) /* rows before the first are negative */
      ((int32_t *)phase.data)[s] = (int32_t)((batch->row[s] % n_cycle + n_cycle) % n_cycle);
  }
  device_push(tape->device, w.phase);
  return w;
}

Tensor *batch_outputs(const Batch *batch, const ModelConfig *config, Tape *tape) {
  return real_tensor(tape, batch->output, batch->n_seq, (int64_t)config->horizon * config->output_dim);
}
