/* check_config: see check_config.h.
 *
 * Differences are taken with four points, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, whose error is of order h^4. Each
 * parameter tensor is moved as a whole, every entry by +-h at random: that compares <gradient, signs> and sees an error
 * in any entry. A row's moves add up in what it multiplies, so h is smaller for longer rows; and all activations move, some
 * across the one point where Mamba-3's heavy_tail has no second derivative, so it is smaller than for an entry. Where that is cheap its largest and one random entry are moved alone, too. */
#include "train/check/check_config.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"

#define ENTRY_STEP 3e-4
#define TENSOR_STEP 4e-5 /* over the root of the row length */
#define DIFFERENCE_TOLERANCE 1e-6
/* Multiplications that one comparison by differences may cost before it is made smaller: a quarter of a minute or so. */
#define AFFORDABLE 2e10

enum { SHORT_PIECE = 3, LONG_PIECE = 13, N_SERIES = 2 };

/* f32: what the golden files allow gradients (train/check/golden.c). bf16: 0.013 measured, on fresh weights of six layers. */
static double dtype_tolerance(Dtype dtype) { return dtype == BF16 ? 1e-1 : 1e-4; }

/* The random input of one check; memory of its own. */
typedef struct Sample {
  Tensor cu_seqlens, token, target; /* language model: a short and a longer piece */
  Tensor series, series_target;     /* forecaster, F64 */
  Tensor phase;                     /* of its windows in the cycle */
  int64_t length;
  void *memory;
} Sample;

/* A model on a device. */
typedef struct Subject {
  Device device;
  Dtype act;
  Model *model;
} Subject;

static Sample sample_new(const ModelConfig *c, uint64_t seed, int64_t long_piece) {
  const int64_t n_t = SHORT_PIECE + long_piece, n_in = N_SERIES * forecaster_window_rows(c);
  const int64_t n_out = (int64_t)c->horizon * c->output_dim;
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  Sample s = {.length = forecaster_window_rows(c)};
  if (c->task == TASK_LM) {
    int32_t *ints = s.memory = base_alloc((size_t)(3 + 2 * n_t) * sizeof *ints);
    const int32_t starts[] = {0, SHORT_PIECE, (int32_t)n_t};
    memcpy(ints, starts, sizeof starts);
    s.cu_seqlens = tensor_over(ints, I32, 1, (const int64_t[]){3});
    s.token = tensor_over(ints + 3, I32, 1, &n_t);
    s.target = tensor_over(ints + 3 + n_t, I32, 1, &n_t);
    for (int64_t i = 0; i < 2 * n_t; i++) ints[3 + i] = (int32_t)rng_below(&rng, (uint32_t)c->vocab_size);
    ((int32_t *)s.target.data)[SHORT_PIECE - 1] = CROSS_ENTROPY_IGNORE;
    return s;
  }
  const int64_t n_values = n_in * c->input_dim + N_SERIES * n_out;
  double *values = s.memory = base_alloc((size_t)n_values * sizeof *values + N_SERIES * sizeof(int32_t));
  int32_t *phase = (int32_t *)(void *)(values + n_values);
  for (int64_t i = 0; i < n_values; i++) values[i] = rng_normal(&rng);
  for (int i = 0; i < N_SERIES; i++) phase[i] = c->cycle > 0 ? (int32_t)rng_below(&rng, (uint32_t)c->cycle) : 0;
  s.phase = tensor_over(phase, I32, 1, (const int64_t[]){N_SERIES});
  s.series = tensor_over(values, F64, 2, (const int64_t[]){n_in, c->input_dim});
  s.series_target = tensor_over(values + n_in * c->input_dim, F64, 2, (const int64_t[]){N_SERIES, n_out});
  return s;
}

/* What the host has, on the tape's device; numbers in its real. */
static Tensor *device_copy(Tape *tape, const Tensor *from) {
  const Dtype dtype = from->dtype == I32 ? I32 : tape_real(tape);
  Tensor *copy = tensor_new(&tape->device->step, dtype, from->n_dim, from->dim);
  if (!tape->device->dry) device_fill(tape->device, copy, from);
  return copy;
}

/* The loss, a sum over tokens (or series); with `backward` its gradients are left in the model's. */
static double subject_loss(Subject *s, Sample *sample, bool backward) {
  const size_t mark = arena_mark(&s->device.step);
  Tape tape = tape_make(&s->device, s->act, backward);
  Tensor *loss;
  if (s->model->config.task == TASK_LM) {
    loss = lm_nll(s->model, &tape, device_copy(&tape, &sample->token), device_copy(&tape, &sample->target),
                  device_copy(&tape, &sample->cu_seqlens), NULL, NULL);
  } else {
    Tensor *series = device_copy(&tape, &sample->series), *target = device_copy(&tape, &sample->series_target);
    Tensor *prediction = forecaster_predict(s->model, &tape,
                                            &(Windows){.n_seq = N_SERIES,
                                                       .length = sample->length,
                                                       .series = series,
                                                       .phase = device_copy(&tape, &sample->phase)});
    loss = forecaster_loss(s->model, &tape, prediction, target);
  }
  double sum = 0;
  if (!s->device.dry) {
    const Tensor losses = device_pull(&s->device, loss);
    for (int64_t i = 0; i < tensor_count(loss); i++) sum += tensor_get(&losses, i);
  }
  if (backward) {
    params_zero_grads(&s->model->params);
    Tensor *dloss = tape_grad(&tape, loss);
    if (!s->device.dry) {
      Tensor ones = device_mirror(&s->device, dloss);
      for (int64_t i = 0; i < tensor_count(loss); i++) tensor_set(&ones, i, 1);
      device_push(&s->device, dloss);
    }
    tape_backward(&tape);
  }
  tape_reset(&tape, mark);
  return sum;
}

static void subject_close(Subject *s) {
  model_free(s->model);
  device_close(&s->device);
}

/* Opens the model on a device just large enough: what a dry run of the loss took. */
static Status subject_open(Subject *s, const ModelConfig *config, const char *device, Dtype act, Sample *sample) {
  const Dtype real = act == F64 ? F64 : F32;
  Subject dry = {.act = act};
  TRY(device_open_dry(&dry.device, device, real));
  dry.model = model_new(config);
  params_alloc(&dry.model->params, &dry.device, act, true, 0);
  subject_loss(&dry, sample, true);
  const DeviceSizes sizes = {dry.device.weights.peak_bytes, dry.device.step.peak_bytes, dry.device.scratch.peak_bytes};
  subject_close(&dry);

  *s = (Subject){.act = act};
  TRY(device_open(&s->device, device, real, sizes));
  s->model = model_new(config);
  params_alloc(&s->model->params, &s->device, act, true, 0);
  return STATUS_OK;
}

/* Fresh weights, but nothing left symmetric: constants get noise; and the embedding is widened, because differences
 * behind a norm of very small numbers are ill-conditioned. */
static void subject_randomize(Subject *s, uint64_t seed) {
  ParamTable *params = &s->model->params;
  params_init(params, seed);
  for (int i = 0; i < params->n_params; i++) {
    Param *param = params->params[i];
    Tensor *exact = param_exact(param);
    Rng rng = rng_make(seed, RNG_TEST, 1, (uint64_t)i);
    for (int64_t j = 0; j < tensor_count(exact); j++) {
      if (param->init.kind == INIT_CONSTANT) tensor_set(exact, j, tensor_get(exact, j) + 0.1 * rng_normal(&rng));
      if (param->init.kind == INIT_NORMAL) tensor_set(exact, j, tensor_get(exact, j) * 10);
    }
    param_refresh(param);
  }
}

/* A tensor moved by `amount` in the direction signs(seed), or in one entry. */
typedef struct Move {
  Tensor *value;
  const double *origin;
  int64_t entry; /* -1: all, by their signs */
  const signed char *signs;
} Move;

static double loss_at(Subject *s, Sample *sample, const Move *move, double amount) {
  const int64_t first = move->entry < 0 ? 0 : move->entry;
  const int64_t last = move->entry < 0 ? tensor_count(move->value) : move->entry + 1;
  double *values = move->value->data;
  for (int64_t i = first; i < last; i++) values[i] = move->origin[i] + amount * move->signs[i];
  double loss = subject_loss(s, sample, false);
  for (int64_t i = first; i < last; i++) values[i] = move->origin[i];
  return loss;
}

/* |difference quotient - expected| of `scale`. */
static double move_error(Subject *s, Sample *sample, const Move *move, double expected, double scale) {
  const double h = move->entry < 0 ? TENSOR_STEP / sqrt((double)tensor_last(move->value)) : ENTRY_STEP;
  double near = loss_at(s, sample, move, h) - loss_at(s, sample, move, -h);
  double far = loss_at(s, sample, move, 2 * h) - loss_at(s, sample, move, -2 * h);
  return fabs((8 * near - far) / (12 * h) - expected) / scale;
}

/* The worst error of one tensor's gradients. Gradients below 1e-4 are held to that, the differences' own noise. */
static double difference_error(Subject *s, Sample *sample, Param *param, uint64_t seed, int index, bool entries) {
  const int64_t n = tensor_count(&param->value);
  const double *grad = param->grad.data;
  double *origin = base_alloc((size_t)n * sizeof *origin);
  signed char *signs = base_alloc((size_t)n);
  memcpy(origin, param->value.data, (size_t)n * sizeof *origin);
  Rng rng = rng_make(seed, RNG_TEST, 2, (uint64_t)index);
  double expected = 0, squares = 0;
  int64_t largest = 0;
  for (int64_t i = 0; i < n; i++) {
    signs[i] = rng_below(&rng, 2) ? 1 : -1;
    expected += signs[i] * grad[i];
    squares += grad[i] * grad[i];
    if (fabs(grad[i]) > fabs(grad[largest])) largest = i;
  }
  Move move = {.value = &param->value, .origin = origin, .entry = -1, .signs = signs};
  double worst = move_error(s, sample, &move, expected, fmax(sqrt(squares), 1e-4));
  const int64_t alone[] = {largest, (int64_t)rng_below(&rng, (uint32_t)n)};
  for (int i = 0; i < 2 && entries; i++) {
    move.entry = alone[i];
    double error = move_error(s, sample, &move, signs[alone[i]] * grad[alone[i]], fmax(fabs(grad[largest]), 1e-4));
    if (!(error <= worst)) worst = error;
  }
  free(origin);
  free(signs);
  return worst;
}

static double largest_abs(const Tensor *t) {
  double largest = 0;
  for (int64_t i = 0; i < tensor_count(t); i++) largest = fmax(largest, fabs(tensor_get(t, i)));
  return largest;
}

/* Largest difference of two gradients, of the reference's largest entry, or of a ten-thousandth of the model's where the
 * tensor's gradients are smaller than that. */
static double dtype_error(const Tensor *got, const Tensor *want, double model_largest) {
  double worst = 0;
  for (int64_t i = 0; i < tensor_count(want); i++) {
    double error = fabs(tensor_get(got, i) - tensor_get(want, i));
    if (!(error <= worst)) worst = error;
  }
  return worst / fmax(fmax(largest_abs(want), 1e-4 * model_largest), 1e-300);
}

/* "backbone.layers.11.norm.weight" -> "backbone.layers.*.norm.weight" */
static void group_name(const char *name, char out[PARAM_NAME_BYTES]) {
  size_t at = 0;
  for (const char *from = name; *from;) {
    bool number = isdigit((unsigned char)*from) && from > name && from[-1] == '.';
    size_t digits = number ? strspn(from, "0123456789") : 0;
    if (digits > 0 && from[digits] == '.') out[at++] = '*', from += digits;
    else out[at++] = *from++;
  }
  out[at] = '\0';
}

static GradientGroup *group_of(GradientReport *report, const char *param_name) {
  char name[PARAM_NAME_BYTES];
  group_name(param_name, name);
  for (int i = 0; i < report->n_groups; i++)
    if (strcmp(report->groups[i].name, name) == 0) return &report->groups[i];
  report->groups = base_realloc(report->groups, (size_t)(report->n_groups + 1) * sizeof *report->groups);
  GradientGroup *group = &report->groups[report->n_groups++];
  *group = (GradientGroup){0};
  memcpy(group->name, name, sizeof name);
  return group;
}

/* NaN is kept: it is the worst. */
static void keep_worst(double *worst, double error) {
  if (!(error <= *worst)) *worst = isnan(error) ? INFINITY : error;
}

/* How much the comparison by differences of moving every tensor once costs. */
static double difference_cost(const ParamTable *params, int64_t n_tokens) {
  return 4.0 * params->n_params * (double)params_count(params) * (double)n_tokens;
}

static void check_subjects(Subject *exact, Subject *used, const Config *config, Sample *sample, bool entries,
                           GradientReport *report) {
  ParamTable *params = &exact->model->params;
  subject_randomize(used, config->seed);
  for (int i = 0; i < params->n_params && used != exact; i++) {
    const Tensor value = device_pull(&used->device, &used->model->params.params[i]->value);
    tensor_copy(&params->params[i]->value, &value);
  }
  subject_loss(exact, sample, true);
  if (used != exact) subject_loss(used, sample, true);

  double model_largest = 0;
  for (int i = 0; i < params->n_params; i++) model_largest = fmax(model_largest, largest_abs(&params->params[i]->grad));
  for (int i = 0; i < params->n_params; i++) {
    Param *param = params->params[i];
    GradientGroup *group = group_of(report, param->name);
    group->n_tensors++;
    keep_worst(&group->difference_error, difference_error(exact, sample, param, config->seed, i, entries));
    if (used == exact) continue;
    const Tensor grad = device_pull(&used->device, &used->model->params.params[i]->grad);
    keep_worst(&group->dtype_error, dtype_error(&grad, &param->grad, model_largest));
  }
}

Status check_config(const Config *config, const char *device, Dtype dtype, double tolerance, GradientReport *report) {
  *report = (GradientReport){.difference_tolerance = DIFFERENCE_TOLERANCE, .dtype_tolerance = dtype_tolerance(dtype)};
  if (tolerance > 0) *(dtype == F64 ? &report->difference_tolerance : &report->dtype_tolerance) = tolerance;

  Model *counted = model_new(&config->model);
  const int64_t crossing = min_i64(config->model.ssm_cfg.chunk_size, 64) + 3;
  const bool crosses = difference_cost(&counted->params, SHORT_PIECE + crossing) <= AFFORDABLE;
  const int64_t long_piece = crosses ? crossing : LONG_PIECE;
  const bool entries = 3 * difference_cost(&counted->params, SHORT_PIECE + long_piece) <= AFFORDABLE;
  model_free(counted);

  Sample sample = sample_new(&config->model, config->seed, long_piece);
  Subject exact, used;
  Status status = subject_open(&exact, &config->model, dtype == F64 ? device : "cpu", F64, &sample);
  if (status.code == CODE_OK) {
    if (dtype == F64) {
      check_subjects(&exact, &exact, config, &sample, entries, report);
    } else if ((status = subject_open(&used, &config->model, device, dtype, &sample)).code == CODE_OK) {
      check_subjects(&exact, &used, config, &sample, entries, report);
      subject_close(&used);
    }
    subject_close(&exact);
  }
  free(sample.memory);
  return status;
}

bool gradient_group_ok(const GradientReport *report, const GradientGroup *group) {
  return group->difference_error <= report->difference_tolerance && group->dtype_error <= report->dtype_tolerance;
}

void gradient_report_free(GradientReport *report) {
  free(report->groups);
  *report = (GradientReport){0};
}
