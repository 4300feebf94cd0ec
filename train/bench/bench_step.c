/* bench_step: what a training run does again and again: the optimiser's update, and whole steps of a config (forward,
 * backward, clipping, update) on random data. */
#include <stdlib.h>

#include "tensor/replay.h"
#include "train/bench/bench.h"
#include "train/gradient.h"
#include "train/plan.h"

/* A config's model, ready to train; random data for one global batch. */
typedef struct Trainee {
  Plan plan;
  Device device;
  Model *model;
  Batch batch;
  Replay *replay; /* of whole steps */
} Trainee;

static Status trainee_open(Trainee *t, const Bench *bench) {
  const Config *config = bench->config;
  *t = (Trainee){0};
  const PlanShape shape = {.train_length = bench->length};
  TRY(plan_make(config, &shape, plan_memory_available(config->device), &t->plan));
  TRY(device_open(&t->device, config->device, F32, t->plan.sizes));
  t->model = model_new(&config->model);
  t->model->recompute = config->train.recompute;
  params_alloc(&t->model->params, &t->device, config->dtype, true, gradient_n_spare(&t->plan.gradient));
  params_init(&t->model->params, config->seed);
  t->replay = replay_open(&t->device, config->train.graph == GRAPH_AUTO, NULL);
  t->batch = batch_random(&config->model, bench->n_seq, bench->length, config->seed);
  return STATUS_OK;
}

static void trainee_close(Trainee *t) {
  replay_close(t->replay);
  batch_release(&t->batch);
  model_free(t->model);
  device_close(&t->device);
}

/* A step, or the update alone, as the loop has it (train/loop.c). */
typedef struct Step {
  Trainee *trainee;
  const Config *config;
  int64_t number;
} Step;

static void tell_numbers(const Step *step) {
  const OptimConfig *optim = &step->config->optim;
  StepNumbers numbers = optim_numbers(optim, optim->lr, step->number);
  numbers.loss_scale = gradient_scale(&step->trainee->batch);
  params_tell_numbers(&step->trainee->model->params, &numbers);
}

static void update(const Step *step, int n_losses) {
  Trainee *t = step->trainee;
  const OptimConfig *optim = &step->config->optim;
  optim_measure(&t->model->params, &t->device);
  optim_judge(&t->model->params, &t->device, &(StepEvidence){.n_losses = n_losses, .clip = optim->clip});
  optim_update_judged(&t->model->params, &t->device, optim);
}

static void update_alone(void *user) {
  tell_numbers(user);
  update(user, 1);
}

static void whole_step(void *user) {
  const Step *step = user;
  Trainee *t = step->trainee;
  tell_numbers(step);
  update(step, gradient_parts(t->model, &t->device, step->config->dtype, &t->plan.gradient, &t->batch, NULL, NULL));
}

/* The clock is right behind it. */
static void run(ReplayWork *work, Step step) {
  replay_run(step.trainee->replay, work, &step);
  device_wait(&step.trainee->device);
}

static char *describe(const Trainee *t, const Config *config) {
  const ModelConfig *m = &config->model;
  return base_format("%s: d_model %d x %d, %.4g M parameters, micro-batch %d", config->name, m->d_model, m->n_layer,
                     (double)t->plan.n_params / 1e6, t->plan.gradient.micro_batch_size);
}

/* The gradients are read twice, because the norm of all of them scales the first. */
static Status bench_update(const Bench *bench, const BenchCase *self) {
  Trainee t;
  TRY(trainee_open(&t, bench));
  Samples samples = {0};
  params_zero_grads(&t.model->params);
  for (int64_t step = 1; !samples_enough(&samples, bench->seconds); step++) {
    const double start = base_seconds();
    run(update_alone, (Step){&t, bench->config, step});
    samples_add(&samples, base_seconds() - start, bench->seconds);
  }
  double bytes = 0;
  for (int i = 0; i < t.model->params.n_params; i++) {
    const Param *p = t.model->params.params[i];
    const bool adamw = bench->config->optim.kind == OPTIM_ADAMW;
    const double real = (double)tensor_bytes(&p->grad), value = (double)tensor_bytes(&p->value);
    bytes += 2 * real + (adamw ? 4 * real : 0) + 2 * (p->low ? real : value);
  }
  char *what = describe(&t, bench->config);
  bench_print(bench,
              &(BenchLine){.name = self->name, .pass = "update", .what = what, .samples = &samples, .bytes = bytes});
  free(what);
  trainee_close(&t);
  return STATUS_OK;
}

static Status bench_step(const Bench *bench, const BenchCase *self) {
  const Config *config = bench->config;
  Trainee t;
  TRY(trainee_open(&t, bench));
  Samples samples = {0};
  for (int64_t step = 1; !samples_enough(&samples, bench->seconds); step++) {
    const double start = base_seconds();
    run(whole_step, (Step){&t, config, step});
    samples_add(&samples, base_seconds() - start, bench->seconds);
  }
  const double n_t = (double)(bench->n_seq * bench->length);
  char *what = describe(&t, config);
  bench_print(bench, &(BenchLine){.name = self->name,
                                  .pass = "step",
                                  .what = what,
                                  .samples = &samples,
                                  .flops = t.plan.flops_per_token * n_t,
                                  .tokens = n_t});
  free(what);
  trainee_close(&t);
  return STATUS_OK;
}

const BenchCase bench_steps[] = {
    {"adamw", NULL, "gradient norm, clipping and update of all parameters", bench_update, NULL},
    {"step", NULL, "whole training steps", bench_step, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
