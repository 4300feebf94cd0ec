/* plan: see plan.h. */
#include "train/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tensor/replay.h"
#include "train/dist/zero.h"
#include "train/evaluate.h"
#include "train/format.h"
#include "train/sample.h"
#include "train/snapshot.h"

/* What a step writes, of passes that write as much as `pass_bytes` each. */
static size_t step_written(const GradientShape *gradient, int64_t length, size_t pass_bytes) {
  const int part_size = gradient->batch_size / gradient->virtual_ranks;
  const int64_t n_passes = (int64_t)gradient_n_parts(gradient) * (part_size / gradient->micro_batch_size) *
                           (gradient->segment ? length / gradient->segment : 1);
  return (size_t)n_passes * pass_bytes + GRAPH_WRITE_ALIGN; /* and its StepNumbers */
}

PlanShape plan_training(const Config *config, const Dataset *dataset) {
  double chance;
  return (PlanShape){.train_length = dataset_max_length(dataset, PART_TRAIN),
                     .eval_length = dataset_max_length(dataset, PART_VAL),
                     .train_rows = dataset_n_rows(dataset, PART_TRAIN),
                     .eval_rows = dataset_n_rows(dataset, PART_VAL),
                     .train_run = dataset_max_run(dataset, PART_TRAIN),
                     .eval_run = dataset_max_run(dataset, PART_VAL),
                     .train_pieces = dataset_max_pieces(dataset, PART_TRAIN),
                     .eval_pieces = dataset_max_pieces(dataset, PART_VAL),
                     .eval_logits = dataset_scores_last(dataset, &chance),
                     .sample_length = config->train.sample_every > 0 ? sample_max_length(config) : 0};
}

/* Few pieces may be cut finer by a kernel, and then take more of its memory than many: every number of them up to this many is
 * tried, and the most. */
enum { FEW_PIECES = 256 };

/* The next number of pieces to try for a batch; false: it was the last. */
static bool next_pieces(Batch *batch) {
  const int64_t most = batch->n_seq * batch->max_pieces;
  if (batch->dry_pieces >= most) return false;
  batch->dry_pieces = batch->dry_pieces < FEW_PIECES ? batch->dry_pieces + 1 : most;
  return true;
}

/* Whether rank 0 saves a checkpoint that training could go on behind: any but the last step's. */
static bool saves_on_the_way(const TrainConfig *train) {
  const int64_t every[] = {train->save_every, train->eval_every}; /* the best is saved, too */
  bool saves = false;
  for (int i = 0; i < 2; i++) saves |= every[i] > 0 && (train->steps == 0 || every[i] < train->steps);
  return saves;
}

/* What a copy of a checkpoint takes, for plan_make to find room for. */
static size_t wanted_snapshot(const Config *config, int rank, const Model *model, const Carry *carry) {
  if (rank != 0 || config->train.snapshot != SNAPSHOT_AUTO || !saves_on_the_way(&config->train)) return 0;
  int n = 0;
  CheckpointTensor *further = carry ? carry_tensors(carry, model, &n) : NULL;
  const size_t bytes = snapshot_bytes(&model->params, further, n);
  free(further);
  return bytes;
}

Status plan_measure(const Config *config, const PlanShape *shape, const GradientShape *gradient, Plan *plan) {
  Device device;
  TRY(device_open_dry(&device, config->device, F32));
  Model *model = model_new(&config->model);
  model->recompute = config->train.recompute;
  bool training = shape->train_length > 0;
  if (training)
    zero_share(&model->params, gradient->rank, gradient->n_ranks ? gradient->n_ranks : 1, gradient->virtual_ranks,
               config->train.zero);
  params_alloc(&model->params, &device, config->dtype, training, training ? gradient_n_spare(gradient) : 0);
  *plan = (Plan){.gradient = *gradient, .n_params = params_count(&model->params)};
  if (training) {
    Carry carry;
    if (shape->train_rows > 0) carry = carry_open(model, &device, shape->train_rows, shape->train_run);
    Batch rows = {
        .n_seq = gradient->micro_batch_size, .length = shape->train_length, .max_pieces = shape->train_pieces};
    Batch batch = batch_segment(&rows, 0, gradient->segment ? gradient->segment : rows.length);
    batch.dry_pieces = batch.n_seq;
    size_t pass_bytes = 0;
    do {
      device.flops = 0, device.written_bytes = 0;
      gradient_micro_batch(model, &device, config->dtype, &batch, 0, 1, shape->train_rows > 0 ? &carry : NULL, NULL,
                           (TapeWatcher){0});
      if (device.written_bytes > pass_bytes) pass_bytes = device.written_bytes;
    } while (next_pieces(&batch));
    plan->flops_per_token = device.flops / (double)(batch.n_seq * batch.length);
    optim_measure(&model->params, &device);
    optim_judge(&model->params, &device, &(StepEvidence){.n_losses = 1});
    if (config->train.graph == GRAPH_AUTO)
      plan->graph_bytes = replay_bytes(&device, step_written(gradient, shape->train_length, pass_bytes));
    plan->snapshot_lacks = wanted_snapshot(config, gradient->rank, model, shape->train_rows > 0 ? &carry : NULL);
  }
  if (shape->eval_length > 0) {
    plan->eval_sequences = shape->eval_sequences;
    if (plan->eval_sequences == 0)
      plan->eval_sequences = evaluate_n_seq(shape->train_length, shape->eval_length, gradient->micro_batch_size);
    const size_t mark = arena_mark(&device.weights);
    Carry carry;
    if (shape->eval_rows > 0)
      carry = carry_open(model, &device, plan->eval_sequences = shape->eval_rows, shape->eval_run);
    /* the last batch has fewer sequences, which a kernel may cut finer */
    for (int64_t n = 1; n <= plan->eval_sequences; n++) {
      Batch batch = {.n_seq = n, .length = shape->eval_length, .max_pieces = shape->eval_pieces, .dry_pieces = n};
      do {
        evaluate_batch(model, &device, config->dtype, &batch, shape->eval_logits, shape->eval_rows > 0 ? &carry : NULL,
                       &(EvalSums){0});
      } while (n == plan->eval_sequences && next_pieces(&batch));
    }
    arena_rewind(&device.weights, mark);
  }
  if (shape->sample_length > 0) decoder_plan(model, &device, config->dtype, 1, 1, shape->sample_length);
  if (shape->prefix_length > 0) {
    Tape tape = tape_make(&device, config->dtype, false);
    lm_last_logits(model, &tape, tensor_new1(&device.step, I32, shape->prefix_length), NULL, NULL);
  }
  if (shape->pass) shape->pass(model, &device, config->dtype, shape->pass_shape);
  plan->sizes = (DeviceSizes){device.weights.peak_bytes, device.step.peak_bytes, device.scratch.peak_bytes};
  model_free(model);
  device_close(&device);
  return STATUS_OK;
}

/* The largest power of two up to 8 that divides the batch and leaves a part at least 512 tokens. */
static int default_virtual_ranks(int batch_size, int64_t length) {
  int v = 1;
  while (v < 8 && batch_size % (2 * v) == 0 && (int64_t)(batch_size / (2 * v)) * length >= 512) v *= 2;
  return v;
}

/* Enough for the products' full rate, and for reading and adding to every gradient not to count (docs/decisions.md). */
enum { MICRO_BATCH_TOKENS = 2048 };

static int smallest_full_micro_batch(int part, int64_t length) {
  for (int micro = 1; micro < part; micro++)
    if (part % micro == 0 && micro * length >= MICRO_BATCH_TOKENS) return micro;
  return part;
}

/* Shape and arenas are found without it, because they decide about bits. */
static void fit_snapshot(Plan *plan, size_t memory_bytes) {
  if (plan_total_bytes(plan) + plan->snapshot_lacks > memory_bytes) return;
  plan->snapshot_bytes = plan->snapshot_lacks, plan->snapshot_lacks = 0;
}

/* Kernels count the tokens of a pass in 32 bits. A forecaster may have a row for each column, and both directions. */
static Status check_pass(const ModelConfig *model, int micro, int64_t length) {
  const int64_t rows = model->task == TASK_FORECAST ? 2 * (int64_t)max_i64(model->input_dim, 1) : 1;
  if (micro * length <= INT32_MAX / rows) return STATUS_OK;
  return status_fail(CODE_USAGE,
                     "train.micro_batch_size: found %d sequences of %lld tokens, expected at most %lld tokens at once",
                     micro, (long long)length, (long long)(INT32_MAX / rows));
}

Status plan_make(const Config *config, const PlanShape *shape, size_t memory_bytes, Plan *plan) {
  const TrainConfig *train = &config->train;
  GradientShape gradient = {.batch_size = train->batch_size,
                            .virtual_ranks = train->virtual_ranks,
                            .micro_batch_size = train->micro_batch_size,
                            .n_ranks = shape->n_ranks,
                            .rank = shape->rank};
  if (config->data.tbptt_carry == CARRY_STATE) gradient.segment = config->data.tbptt_segment;
  const int64_t pass_length = gradient.segment ? gradient.segment : shape->train_length;
  if (gradient.virtual_ranks == 0)
    gradient.virtual_ranks = default_virtual_ranks(train->batch_size, shape->train_length);
  int part = gradient.batch_size / gradient.virtual_ranks;
  if (gradient.micro_batch_size > 0) {
    if (part % gradient.micro_batch_size != 0)
      return status_fail(CODE_USAGE,
                         "train.micro_batch_size: found %d, expected a divisor of %d (train.batch_size %d / "
                         "train.virtual_ranks %d)",
                         gradient.micro_batch_size, part, gradient.batch_size, gradient.virtual_ranks);
    TRY(check_pass(&config->model, gradient.micro_batch_size, pass_length));
    TRY(plan_measure(config, shape, &gradient, plan));
    if (plan_total_bytes(plan) > memory_bytes)
      return status_fail(CODE_MEMORY,
                         "this run needs %s, %s are available: lower train.micro_batch_size, or set "
                         "train.recompute to mixer or block",
                         format_bytes((double)plan_total_bytes(plan)).text, format_bytes((double)memory_bytes).text);
    fit_snapshot(plan, memory_bytes);
    return STATUS_OK;
  }
  for (int micro = smallest_full_micro_batch(part, pass_length); micro >= 1; micro--) {
    if (part % micro != 0) continue;
    gradient.micro_batch_size = micro;
    TRY(check_pass(&config->model, micro, pass_length));
    TRY(plan_measure(config, shape, &gradient, plan));
    if (plan_total_bytes(plan) > memory_bytes) continue;
    fit_snapshot(plan, memory_bytes);
    return STATUS_OK;
  }
  return status_fail(CODE_MEMORY,
                     "this run needs %s even with micro-batches of one sequence, %s are available: "
                     "set train.recompute to mixer or block, or lower data.seq_len or the model's size",
                     format_bytes((double)plan_total_bytes(plan)).text, format_bytes((double)memory_bytes).text);
}

/* One number of a small /proc or /sys file; `otherwise` where there is none. */
static size_t read_number(const char *path, const char *format, size_t unit, size_t otherwise) {
  FILE *file = fopen(path, "r");
  if (!file) return otherwise;
  char line[256];
  unsigned long long value;
  size_t result = otherwise;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, format, &value) == 1) result = (size_t)value * unit;
  fclose(file);
  return result;
}

size_t plan_memory_available(const char *device) {
  Device dry;
  Status status = device_open_dry(&dry, device, F32);
  const BackendMemory *memory = status.code == CODE_OK ? dry.backend->memory : NULL;
  if (status.code == CODE_OK) device_close(&dry);
  status_clear(&status); /* whoever opens the device for good says it */
  if (memory) return memory->available();
  size_t bytes = read_number("/proc/meminfo", "MemAvailable: %llu kB", 1024, SIZE_MAX);
  size_t group = read_number("/sys/fs/cgroup/memory.max", "%llu", 1, SIZE_MAX);
  struct rlimit limit;
  size_t process = getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur : SIZE_MAX;
  if (group < bytes) bytes = group;
  return process < bytes ? process : bytes;
}
