/* verify: see verify.h. The definition runs on the CPU's float64 build, where no fast kernel exists. */
#include "train/verify.h"

#include <math.h>
#include <stdlib.h>

#include "tensor/rng.h"
#include "train/format.h"

enum { N_TOKENS = 64, SEED = 1 };

static Tensor *logits_of(Model *model, Tape *tape, const int32_t *token) {
  Tensor *tokens = tensor_new1(&tape->device->step, I32, N_TOKENS);
  const int64_t n = N_TOKENS;
  const Tensor from = tensor_over((void *)(uintptr_t)token, I32, 1, &n);
  if (!tape->device->dry) device_fill(tape->device, tokens, &from);
  return lm_logits(model, tape, tokens, model_equal_seqlens(tape, 1, N_TOKENS), NULL, NULL, NULL);
}

void verify_pass(Model *model, Device *dry, Dtype act, const void *shape) {
  (void)shape;
  const size_t mark = arena_mark(&dry->step);
  Tape tape = tape_make(dry, act, false);
  logits_of(model, &tape, NULL);
  tape_reset(&tape, mark);
  decoder_plan(model, dry, act, 1, 1, N_TOKENS);
}

static void by_scan(Model *model, Device *device, const int32_t *token, double *logits) {
  const size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, F32, false);
  const Tensor *found = logits_of(model, &tape, token);
  for (int64_t i = 0; i < tensor_count(found); i++) logits[i] = ((const float *)found->data)[i];
  tape_reset(&tape, mark);
}

static void by_steps(Model *model, Device *device, const int32_t *token, double *logits) {
  const int64_t width = model_padded_vocab(&model->config);
  const size_t mark = arena_mark(&device->weights);
  Decoder decoder = decoder_open(model, device, F32, 1, N_TOKENS);
  float *row = base_alloc((size_t)width * sizeof *row);
  for (int t = 0; t < N_TOKENS; t++) {
    decoder_step(&decoder, token + t, row);
    for (int64_t v = 0; v < width; v++) logits[t * width + v] = row[v];
  }
  free(row);
  arena_rewind(&device->weights, mark);
}

/* A device with the memory that the definition takes: twice the weights', of any size. */
static Status open_exact(const ModelConfig *config, Device *device) {
  Device dry;
  TRY(device_open_dry(&dry, "cpu", F64));
  Model *model = model_new(config);
  params_alloc(&model->params, &dry, F64, false, 0);
  Tape tape = tape_make(&dry, F64, false);
  logits_of(model, &tape, NULL);
  const DeviceSizes sizes = {dry.weights.peak_bytes, dry.step.peak_bytes, dry.scratch.peak_bytes};
  model_free(model);
  device_close(&dry);
  const size_t bytes = sizes.weights_bytes + sizes.step_bytes + sizes.scratch_bytes,
               available = plan_memory_available("cpu");
  if (bytes > available)
    return status_fail(CODE_MEMORY, "--verify: the definition needs %s, %s are available",
                       format_bytes((double)bytes).text, format_bytes((double)available).text);
  return device_open(device, "cpu", F64, sizes);
}

static Status by_definition(const Model *model, const int32_t *token, double *logits) {
  Device device;
  TRY(open_exact(&model->config, &device));
  Model *exact = model_new(&model->config);
  params_alloc(&exact->params, &device, F64, false, 0);
  for (int i = 0; i < exact->params.n_params; i++)
    tensor_copy(&exact->params.params[i]->value, &model->params.params[i]->value);
  Tape tape = tape_make(&device, F64, false);
  const Tensor *found = logits_of(exact, &tape, token);
  for (int64_t i = 0; i < tensor_count(found); i++) logits[i] = ((const double *)found->data)[i];
  model_free(exact);
  device_close(&device);
  return STATUS_OK;
}

static double largest_difference(const double *a, const double *b, int64_t n) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++) {
    const double difference = b ? fabs(a[i] - b[i]) : fabs(a[i]);
    if (!(difference <= largest)) largest = difference; /* not finite: stays */
  }
  return largest;
}

Status verify_model(OpenModel *open, Verify *verify) {
  Model *model = open->model;
  const int64_t n = N_TOKENS * (int64_t)model_padded_vocab(&model->config);
  int32_t token[N_TOKENS];
  Rng rng = rng_make(SEED, RNG_TEST, 0, 0);
  for (int t = 0; t < N_TOKENS; t++) token[t] = (int32_t)rng_below(&rng, (uint32_t)model->config.vocab_size);
  double *scan = base_alloc((size_t)n * sizeof *scan), *steps = base_alloc((size_t)n * sizeof *steps),
         *definition = base_alloc((size_t)n * sizeof *definition);
  by_scan(model, &open->device, token, scan);
  by_steps(model, &open->device, token, steps);
  Status status = by_definition(model, token, definition);
  *verify = (Verify){.n_tokens = N_TOKENS};
  if (status.code == CODE_OK) {
    verify->largest = largest_difference(definition, NULL, n);
    verify->scan_steps = largest_difference(scan, steps, n);
    verify->scan_definition = largest_difference(scan, definition, n);
    verify->steps_definition = largest_difference(steps, definition, n);
  }
  free(scan), free(steps), free(definition);
  return status;
}
