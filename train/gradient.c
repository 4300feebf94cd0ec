/* gradient: see gradient.h. */
#include "train/gradient.h"

#include <stdlib.h>
#include <string.h>

#include "train/dist/tree.h"

int gradient_n_parts(const GradientShape *shape) {
  return shape->virtual_ranks / (shape->n_ranks ? shape->n_ranks : 1);
}

int gradient_n_spare(const GradientShape *shape) {
  int n = 0;
  while ((1 << n) < gradient_n_parts(shape)) n++;
  return n == 0 && shape->n_ranks > 1 ? 1 : n;
}

static Tensor *tokens_loss(Model *model, Tape *tape, const Batch *batch, Carry *carry) {
  Tensor *token = batch_tensor(batch, batch->token, tape), *target = batch_tensor(batch, batch->target, tape);
  Tensor *cu_seqlens = batch_seqlens(batch, tape);
  ModelState start, end;
  if (carry) carry_pass(carry, model, tape, batch, cu_seqlens, &start, &end);
  return lm_nll(model, tape, token, target, cu_seqlens, carry ? &start : NULL, carry ? &end : NULL);
}

static Tensor *windows_loss(Model *model, Tape *tape, const Batch *batch, Carry *carry) {
  CHECK(!carry, "windows stand alone");
  const Windows windows = batch_windows(batch, &model->config, tape);
  Tensor *prediction = forecaster_predict(model, tape, &windows);
  return forecaster_loss(model, tape, prediction, batch_outputs(batch, &model->config, tape));
}

static void seed(Device *device, const Tensor *dloss, double value) {
  if (!device->dry) {
    Tensor host = device_mirror(device, dloss);
    for (int64_t i = 0; i < tensor_count(dloss); i++) tensor_set(&host, i, value);
  }
  device_push(device, dloss);
}

void gradient_micro_batch(Model *model, Device *device, Dtype act, const Batch *batch, int64_t row, double grad_scale,
                          Carry *carry, double *sum, TapeWatcher watcher) {
  size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, act, true);
  tape.watcher = watcher;
  const StepNumbers *numbers = params_numbers(&model->params);
  tape.dloss = &numbers->loss_scale;
  if (model->config.task != TASK_LM)
    tape.draws = (TapeDraws){model->dropout_seed, (uint64_t)row, batch->n_seq, &numbers->first_sample};
  Tensor *loss = (model->config.task == TASK_LM ? tokens_loss : windows_loss)(model, &tape, batch, carry);
  Tensor *dloss = tape_grad(&tape, loss); /* NULL: its gradient has gone where it belongs */
  sum_fwd(device, &(Sum){.x = loss, .result = sum});
  if (dloss) seed(device, dloss, grad_scale);
  tape_backward(&tape);
  tape_reset(&tape, mark);
}

/* Part p's gradient stands in grads_flat. Level l of the spares holds the sum of 2^l finished parts while bit l of p is
 * set: a binary counter that adds pairs, then pairs of pairs, in the same order whoever computes the parts. */
static void tree_push(ParamTable *params, Device *device, int part, int n_parts) {
  int level = 0;
  for (; part >> level & 1; level++)
    add_fwd(device, &(Add){.x = &params->spare_grads[level], .y = &params->grads_flat});
  if (part < n_parts - 1) params_swap_grads(params, level);
}

double gradient_scale(const Batch *batch) {
  const int64_t n_targets = batch_n_targets(batch);
  return n_targets ? 1.0 / (double)n_targets : 0;
}

StepNumbers gradient_numbers(const Batch *batch) {
  return (StepNumbers){.loss_scale = gradient_scale(batch), .first_sample = batch->first};
}

/* Rows of one micro-batch, segment by segment where gradients are cut between; `last` of all of the rank's. */
static void rows_gradient(Model *model, Device *device, Dtype act, const Batch *rows, int64_t row, double scale,
                          int segment, Carry *carry, double *loss, Buckets *buckets, bool last) {
  const int64_t length = segment ? segment : rows->length;
  for (int64_t at = 0; at < rows->length; at += length) {
    const bool whole = length == rows->length, ends = last && at + length == rows->length;
    Batch part = whole ? *rows : batch_segment(rows, at, segment);
    const TapeWatcher watcher = buckets_begin(buckets, ends);
    gradient_micro_batch(model, device, act, &part, row, scale, carry, loss, watcher);
    buckets_end(buckets, ends);
    if (!whole) batch_release(&part);
  }
}

int gradient_parts(Model *model, Device *device, Dtype act, const GradientShape *shape, const Batch *batch,
                   Carry *carry, Buckets *buckets) {
  ParamTable *params = &model->params;
  const int n_parts = gradient_n_parts(shape), part_size = shape->batch_size / shape->virtual_ranks;
  CHECK(batch->n_seq == shape->batch_size && part_size * shape->virtual_ranks == shape->batch_size &&
            part_size % shape->micro_batch_size == 0,
        "batch of %lld as %d parts of micro-batches of %d", (long long)batch->n_seq, shape->virtual_ranks,
        shape->micro_batch_size);
  CHECK(params->n_spare >= gradient_n_spare(shape) && tensor_count(&params->losses) >= (shape->rank + 1) * n_parts,
        "%d spare gradients and %lld losses for %d parts", params->n_spare, (long long)tensor_count(&params->losses),
        n_parts);
  const double scale = gradient_scale(batch);
  const int64_t first = (int64_t)shape->rank * n_parts * part_size;
  double *losses = (double *)params->losses.data + shape->rank * n_parts;
  device_zero(device, &params->losses);
  params_home_grads(params); /* so that a step finds the memory that the one before found */
  for (int part = 0; part < n_parts; part++) {
    const bool last = part == n_parts - 1;
    params_unset_grads(params);
    for (int i = 0; i < part_size; i += shape->micro_batch_size) {
      const int64_t row = first + (int64_t)part * part_size + i;
      Batch micro = batch_rows(batch, &model->config, row, shape->micro_batch_size);
      rows_gradient(model, device, act, &micro, row, scale, shape->segment, carry, losses + part, buckets,
                    last && i + shape->micro_batch_size == part_size);
    }
    if (last && buckets) break; /* which set the gradients and climb the tree themselves, each as soon as it can */
    params_set_grads(params);
    tree_push(params, device, part, n_parts);
  }
  buckets_complete(buckets);
  return n_parts;
}

int gradient_reduce(ParamTable *params, Device *device, Dist *dist, Buckets *buckets, int n_losses) {
  if (dist->size == 1) return n_losses;
  buckets_finish(buckets);
  if (dist->gpu) {
    tree_collect(dist, device, &params->losses, n_losses * (int64_t)sizeof(double));
    return dist->size * n_losses;
  }
  Tensor losses = device_pull(device, &params->losses);
  tensor_set(&losses, 0, dist_sum(dist, sum_by_pairs((const double *)losses.data + dist->rank * n_losses, n_losses)));
  device_push(device, &params->losses);
  return 1;
}

double gradient_step(Model *model, Device *device, Dtype act, const GradientShape *shape, const Batch *batch,
                     Carry *carry) {
  CHECK(shape->n_ranks <= 1, "a whole step by one of %d ranks", shape->n_ranks);
  const StepNumbers numbers = gradient_numbers(batch);
  params_tell_numbers(&model->params, &numbers);
  const int n_losses = gradient_parts(model, device, act, shape, batch, carry, NULL);
  const Tensor losses = device_pull(device, &model->params.losses);
  return sum_by_pairs(losses.data, n_losses) * gradient_scale(batch);
}
