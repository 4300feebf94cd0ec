/* Training: a step's gradient (its tree, its mean, its independence of threads and micro-batches), the plan against the
 * run, evaluation against a computation of its own. What steps do to a run: test_loop. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "tests/support/dataset.h"
#include "tests/support/small_run.h"
#include "train/gradient.h"

#define SIZES ((DeviceSizes){(size_t)64 << 20, (size_t)256 << 20, (size_t)64 << 20})

enum { N_SEQ = 8, LENGTH = 21, VOCAB = 29, N_SPARE = 3 };

TestSuite(gradient, .init = workplace_enter, .fini = workplace_leave);
TestSuite(plan, .init = workplace_enter, .fini = workplace_leave);
TestSuite(evaluate, .init = workplace_enter, .fini = workplace_leave);

typedef struct Subject {
  Device device;
  Model *model;
  Dtype act;
} Subject;

static Subject subject_open(LayerKind layer, Dtype act) {
  ModelConfig c = model_config_default();
  c.d_model = 24, c.n_layer = 2, c.vocab_size = VOCAB;
  c.ssm_cfg = mixer_config_default(layer);
  c.ssm_cfg.d_model = 24, c.ssm_cfg.d_state = 12, c.ssm_cfg.headdim = 8, c.ssm_cfg.chunk_size = 8;
  Subject s = {.act = act};
  Status status = device_open(&s.device, "cpu", act == F64 ? F64 : F32, SIZES);
  cr_assert_eq(status.code, CODE_OK, "device: %s", status.line);
  s.model = model_new(&c);
  params_alloc(&s.model->params, &s.device, act, true, N_SPARE);
  params_init(&s.model->params, 5);
  return s;
}

static void subject_close(Subject *s) {
  model_free(s->model);
  device_close(&s->device);
}

/* Random tokens; a target in four is ignored. */
static Batch random_batch(void) {
  Batch batch = batch_new(N_SEQ, LENGTH);
  Rng rng = rng_make(11, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < N_SEQ * LENGTH; i++) {
    batch.token[i] = (int32_t)rng_below(&rng, VOCAB);
    batch.target[i] = rng_below(&rng, 4) ? (int32_t)rng_below(&rng, VOCAB) : CROSS_ENTROPY_IGNORE;
  }
  return batch;
}

static double step(Subject *s, int virtual_ranks, int micro_batch_size, const Batch *batch) {
  GradientShape shape = {
      .batch_size = (int)batch->n_seq, .virtual_ranks = virtual_ranks, .micro_batch_size = micro_batch_size};
  return gradient_step(s->model, &s->device, s->act, &shape, batch, NULL);
}

/* The gradients as they stand, malloc'ed. */
static void *copy_grads(const Subject *s) {
  const Tensor *flat = &s->model->params.grads_flat;
  return memcpy(malloc(tensor_bytes(flat)), flat->data, tensor_bytes(flat));
}

static bool same_grads(const Subject *s, const void *grads) {
  const Tensor *flat = &s->model->params.grads_flat;
  return memcmp(flat->data, grads, tensor_bytes(flat)) == 0;
}

/* Largest difference of the gradients from others, over their largest element. */
static double relative_difference(const Subject *s, const void *grads) {
  const Tensor *flat = &s->model->params.grads_flat;
  Tensor other = tensor_over((void *)(uintptr_t)grads, flat->dtype, 1, flat->dim);
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < tensor_count(flat); i++) {
    worst = fmax(worst, fabs(tensor_get(flat, i) - tensor_get(&other, i)));
    largest = fmax(largest, fabs(tensor_get(&other, i)));
  }
  return worst / largest;
}

/* ---- one step's gradient */

static const struct {
  const char *name;
  LayerKind layer;
  Dtype act;
} KINDS[] = {{"mamba2 f32", LAYER_MAMBA2, F32}, {"mamba3 f32", LAYER_MAMBA3, F32}, {"mamba3 bf16", LAYER_MAMBA3, BF16}};
enum { N_KINDS = sizeof KINDS / sizeof *KINDS };

Test(gradient, has_the_same_bits_for_any_number_of_threads) {
  Batch batch = random_batch();
  for (int k = 0; k < N_KINDS; k++) {
    Subject s = subject_open(KINDS[k].layer, KINDS[k].act);
    omp_set_num_threads(1);
    double loss = step(&s, 4, 1, &batch);
    void *grads = copy_grads(&s);
    for (int threads = 2; threads <= 5; threads++) {
      omp_set_num_threads(threads);
      double again = step(&s, 4, 1, &batch);
      cr_assert_eq(loss, again, "%s, %d threads: loss %.17g, with one %.17g", KINDS[k].name, threads, again, loss);
      cr_assert(same_grads(&s, grads), "%s, %d threads: the gradients differ", KINDS[k].name, threads);
    }
    free(grads);
    subject_close(&s);
  }
  batch_free(&batch);
}

/* sum[0..n) over a tree of pairs: (0 + 1) + (2 + 3) + ... as floats. */
static void add_as_tree(float **parts, double *losses, int n_parts, int64_t n) {
  for (int span = 1; span < n_parts; span *= 2)
    for (int p = 0; p < n_parts; p += 2 * span) {
      for (int64_t i = 0; i < n; i++) parts[p][i] += parts[p + span][i];
      losses[p] += losses[p + span];
    }
}

static void add_in_a_row(float **parts, double *losses, int n_parts, int64_t n) {
  for (int p = 1; p < n_parts; p++) {
    for (int64_t i = 0; i < n; i++) parts[0][i] += parts[p][i];
    losses[0] += losses[p];
  }
}

/* Each part's gradient by itself, its micro-batches in order, then added by `add` into the first. */
static double by_parts(Subject *s, const Batch *batch, int n_parts, float **parts,
                       void (*add)(float **, double *, int, int64_t)) {
  double losses[N_SEQ], scale = 1.0 / (double)batch_n_targets(batch);
  for (int p = 0; p < n_parts; p++) {
    params_zero_grads(&s->model->params);
    params_tell_numbers(&s->model->params, &(StepNumbers){.loss_scale = scale});
    losses[p] = 0;
    for (int row = 0; row < N_SEQ / n_parts; row++) {
      Batch micro = batch_rows(batch, &s->model->config, p * (N_SEQ / n_parts) + row, 1);
      gradient_micro_batch(s->model, &s->device, s->act, &micro, 0, scale, NULL, &losses[p], (TapeWatcher){0});
    }
    parts[p] = copy_grads(s);
  }
  add(parts, losses, n_parts, tensor_count(&s->model->params.grads_flat));
  return losses[0] * scale;
}

Test(gradient, adds_the_parts_in_a_binary_tree) {
  Batch batch = random_batch();
  Subject s = subject_open(LAYER_MAMBA3, F32);
  float *parts[N_SEQ];
  for (int n_parts = 1; n_parts <= N_SEQ; n_parts *= 2) {
    double loss = by_parts(&s, &batch, n_parts, parts, add_as_tree), found = step(&s, n_parts, 1, &batch);
    cr_assert(same_grads(&s, parts[0]), "%d parts: not the sum in the order of the tree", n_parts);
    cr_assert_eq(found, loss, "%d parts: loss %.17g, expected %.17g", n_parts, found, loss);
    for (int p = 0; p < n_parts; p++) free(parts[p]);
  }
  /* The comparison can tell orders apart. */
  by_parts(&s, &batch, N_SEQ, parts, add_in_a_row);
  cr_assert_not(same_grads(&s, parts[0]), "a plain sum has the same bits: this test proves nothing");
  for (int p = 0; p < N_SEQ; p++) free(parts[p]);
  subject_close(&s);
  batch_free(&batch);
}

Test(gradient, does_not_depend_on_what_stood_there_before) {
  Batch batch = random_batch();
  for (int k = 0; k < N_KINDS; k++) {
    Subject s = subject_open(KINDS[k].layer, KINDS[k].act);
    ParamTable *params = &s.model->params;
    params_zero_grads(params);
    step(&s, 4, 1, &batch);
    void *grads = copy_grads(&s);
    for (int i = 0; i < params->n_params; i++)
      for (int64_t j = 0; j < tensor_count(&params->params[i]->grad); j++) tensor_set(&params->params[i]->grad, j, NAN);
    step(&s, 1, 1, &batch); /* one part: nothing is swapped in that was computed before */
    for (int i = 0; i < params->n_params; i++)
      for (int64_t j = 0; j < tensor_count(&params->params[i]->grad); j++)
        cr_assert(isfinite(tensor_get(&params->params[i]->grad, j)), "%s: %s[%lld] was not written", KINDS[k].name,
                  params->params[i]->name, (long long)j);
    step(&s, 4, 1, &batch);
    cr_assert(same_grads(&s, grads), "%s: the gradients differ", KINDS[k].name);
    params_unset_grads(params);
    params_set_grads(params); /* nothing was added to any */
    for (int i = 0; i < params->n_params; i++)
      for (int64_t j = 0; j < tensor_count(&params->params[i]->grad); j++)
        cr_assert_eq(tensor_get(&params->params[i]->grad, j), 0, "%s: %s[%lld] is not zero", KINDS[k].name,
                     params->params[i]->name, (long long)j);
    free(grads);
    subject_close(&s);
  }
  batch_free(&batch);
}

/* nll of the targets that count, from the logits. */
static double nll_by_hand(Subject *s, const Batch *batch, int64_t *n_targets) {
  double sum = 0;
  *n_targets = 0;
  for (int64_t row = 0; row < batch->n_seq; row++) {
    size_t mark = arena_mark(&s->device.step);
    Tape tape = tape_make(&s->device, s->act, false);
    Batch one = batch_rows(batch, &s->model->config, row, 1);
    Tensor *token = batch_tensor(&one, one.token, &tape);
    Tensor *logits = lm_logits(s->model, &tape, token, model_equal_seqlens(&tape, 1, one.length), NULL, NULL, NULL);
    for (int64_t t = 0; t < one.length; t++) {
      if (one.target[t] == CROSS_ENTROPY_IGNORE) continue;
      double total = 0;
      for (int v = 0; v < s->model->config.vocab_size; v++)
        total += exp(tensor_get(logits, t * tensor_last(logits) + v));
      sum += log(total) - tensor_get(logits, t * tensor_last(logits) + one.target[t]);
      ++*n_targets;
    }
    tape_reset(&tape, mark);
  }
  return sum;
}

Test(gradient, is_that_of_the_mean_over_the_targets_that_count) {
  Batch batch = random_batch();
  for (int64_t i = 5 * LENGTH; i < N_SEQ * LENGTH; i++) batch.target[i] = CROSS_ENTROPY_IGNORE;
  Subject s = subject_open(LAYER_MAMBA2, F64);
  int64_t n_targets;
  double sum = nll_by_hand(&s, &batch, &n_targets), loss = step(&s, 4, 2, &batch);
  cr_assert_float_eq(loss, sum / (double)n_targets, 1e-12, "loss %.15g, by hand %.15g over %lld targets", loss,
                     sum / (double)n_targets, (long long)n_targets);
  void *grads = copy_grads(&s);
  Batch counting = batch_rows(&batch, &s.model->config, 0, 5);
  double alone = step(&s, 1, 5, &counting), difference = relative_difference(&s, grads);
  cr_assert_float_eq(alone, loss, 1e-12, "loss %.15g without the ignored rows, %.15g with them", alone, loss);
  cr_assert_lt(difference, 1e-12, "the gradient moves by %g with the ignored rows", difference);
  free(grads);

  /* The gradient is the loss's: a small step along it. */
  Tensor *flat = &s.model->params.grads_flat;
  double squares = 0, h = 1e-6;
  for (int64_t i = 0; i < tensor_count(flat); i++) squares += pow(tensor_get(flat, i), 2);
  for (int i = 0; i < s.model->params.n_params; i++) {
    Param *p = s.model->params.params[i];
    for (int64_t j = 0; j < tensor_count(&p->value); j++)
      tensor_set(&p->value, j, tensor_get(&p->value, j) + h * tensor_get(&p->grad, j));
  }
  double slope = (nll_by_hand(&s, &batch, &n_targets) / (double)n_targets - loss) / h;
  cr_assert_float_eq(slope / squares, 1, 1e-4, "slope %g along the gradient, its square norm is %g", slope, squares);
  subject_close(&s);
  batch_free(&batch);
}

Test(gradient, of_a_batch_without_targets_is_zero) {
  Batch batch = random_batch();
  for (int64_t i = 0; i < N_SEQ * LENGTH; i++) batch.target[i] = CROSS_ENTROPY_IGNORE;
  Subject s = subject_open(LAYER_MAMBA3, F32);
  double loss = step(&s, 2, 4, &batch);
  cr_assert_eq(loss, 0, "loss %g of nothing", loss);
  const Param *bad;
  double norm = optim_grad_norm(&s.model->params, &s.device, &bad);
  cr_assert(norm == 0 && !bad, "norm %g, expected 0", norm);
  subject_close(&s);
  batch_free(&batch);
}

Test(gradient, depends_on_the_cut_into_micro_batches_by_rounding_only) {
  static const struct {
    const char *name;
    Dtype act;
    double tolerance; /* relative to the largest element; sums of some 200 terms */
  } TYPES[] = {{"f64", F64, 1e-13}, {"f32", F32, 1e-5}};
  Batch batch = random_batch();
  for (int k = 0; k < 2; k++) {
    Subject s = subject_open(LAYER_MAMBA3, TYPES[k].act);
    double loss = step(&s, 1, N_SEQ, &batch);
    void *grads = copy_grads(&s);
    for (int virtual_ranks = 1; virtual_ranks <= N_SEQ; virtual_ranks *= 2)
      for (int micro = 1; micro <= N_SEQ / virtual_ranks; micro *= 2) {
        double cut = step(&s, virtual_ranks, micro, &batch), difference = relative_difference(&s, grads);
        cr_assert_lt(difference, TYPES[k].tolerance, "%s, %d parts, micro-batches of %d: gradients differ by %g",
                     TYPES[k].name, virtual_ranks, micro, difference);
        cr_assert_lt(fabs(cut - loss), TYPES[k].tolerance, "%s, %d parts, micro-batches of %d: loss %.17g and %.17g",
                     TYPES[k].name, virtual_ranks, micro, cut, loss);
      }
    free(grads);
    subject_close(&s);
  }
  batch_free(&batch);
}

/* ---- whole runs */

Test(plan, is_the_peak_of_the_run_to_the_byte) {
  static const struct {
    const char *name;
    const char *sets[6];
  } RUNS[] = {
      {"mamba3", {NULL}},
      {"mamba2", {"model.ssm_cfg.layer=Mamba2", "train.virtual_ranks=4"}},
      {"mixer", {"model.ssm_cfg.layer=Mamba2", "train.recompute=mixer"}},
      {"block", {"train.recompute=block"}},
      {"bf16", {"dtype=bf16", "train.micro_batch_size=2"}},
      {"mimo", {"model.ssm_cfg.is_mimo=true", "model.d_intermediate=32", "model.tie_embeddings=false"}},
      {"hybrid", {"model.attn_layer_idx=[1]", "model.attn_cfg.num_heads=2", "train.micro_batch_size=auto"}},
      {"synthetic",
       {"data.kind=synthetic", "data.seq_len=40", "data.min_length=40", "data.eval_length=90", "train.sample_every=0"}},
  };
  for (size_t i = 0; i < sizeof RUNS / sizeof *RUNS; i++) {
    Run run;
    Config config;
    run_start(&run, &config, RUNS[i].name, RUNS[i].sets);
    Status status = loop_train(&run);
    cr_assert_eq(status.code, CODE_OK, "%s: %s", RUNS[i].name, status.line);
    const struct {
      const char *arena;
      size_t planned, used;
    } arenas[] = {{"weights", run.plan.sizes.weights_bytes, run.device.weights.peak_bytes},
                  {"step", run.plan.sizes.step_bytes, run.device.step.peak_bytes},
                  {"scratch", run.plan.sizes.scratch_bytes, run.device.scratch.peak_bytes}};
    for (int a = 0; a < 3; a++)
      cr_assert_eq(arenas[a].used, arenas[a].planned, "%s: %s arena: %zu bytes used, %zu planned", RUNS[i].name,
                   arenas[a].arena, arenas[a].used, arenas[a].planned);
    run_end(&run, &config);
  }
}

Test(plan, takes_the_smallest_micro_batch_of_2048_tokens_that_fits) {
  static const struct {
    const char *length, *batch;
    int micro;
  } CASES[] = {{"data.seq_len=256", "train.batch_size=32", 8},
               {"data.seq_len=256", "train.batch_size=4", 4},
               {"data.seq_len=700", "train.batch_size=12", 3},
               {"data.seq_len=4096", "train.batch_size=6", 1},
               {"data.seq_len=100", "train.batch_size=7", 7}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    const char *sets[] = {"train.micro_batch_size=auto", "train.virtual_ranks=1", CASES[i].length, CASES[i].batch};
    Config config;
    Status status = config_parse(SMALL_YAML, "small.yaml", sets, 4, &config);
    cr_assert_eq(status.code, CODE_OK, "%s", status.line);
    config.model.vocab_size = 256;
    const PlanShape shape = {.train_length = config.data.seq_len, .eval_length = 50};
    Plan plan, less;
    status = plan_make(&config, &shape, SIZE_MAX, &plan);
    cr_assert_eq(status.code, CODE_OK, "%s", status.line);
    cr_assert_eq(plan.gradient.micro_batch_size, CASES[i].micro, "%s, %s: micro-batches of %d, expected %d",
                 CASES[i].length, CASES[i].batch, plan.gradient.micro_batch_size, CASES[i].micro);
    status = plan_make(&config, &shape, plan_total_bytes(&plan), &less);
    cr_assert(status.code == CODE_OK && less.gradient.micro_batch_size == CASES[i].micro, "%s, %s: just enough memory",
              CASES[i].length, CASES[i].batch);
    status = plan_make(&config, &shape, plan_total_bytes(&plan) - 1, &less);
    if (CASES[i].micro == 1)
      cr_assert_eq(status.code, CODE_MEMORY, "%s, %s: code %d in too little memory", CASES[i].length, CASES[i].batch,
                   status.code);
    else
      cr_assert(status.code == CODE_OK && less.gradient.micro_batch_size < CASES[i].micro &&
                    config.train.batch_size % less.gradient.micro_batch_size == 0,
                "%s, %s: micro-batches of %d in less memory", CASES[i].length, CASES[i].batch,
                less.gradient.micro_batch_size);
    status_clear(&status);
    config_free(&config);
  }
}

Test(plan, refuses_passes_of_more_tokens_than_kernels_count_and_plans_few_evaluations_of_many) {
  Config config;
  const char *sets[] = {"train.micro_batch_size=1048576", "train.virtual_ranks=1", "train.batch_size=1048576"};
  Status status = config_parse(SMALL_YAML, "small.yaml", sets, 3, &config);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  config.model.vocab_size = 256;
  Plan plan;
  status = plan_make(&config, &(PlanShape){.train_length = 2048, .eval_length = 50}, SIZE_MAX, &plan);
  cr_assert(status.code == CODE_USAGE && strstr(status.line, "found 1048576 sequences of 2048 tokens, expected at most "
                                                             "2147483647 tokens at once"),
            "code %d: %s", status.code, status.line);
  status_clear(&status);
  status = plan_make(&config, &(PlanShape){.train_length = 2047, .eval_length = 1}, SIZE_MAX, &plan);
  cr_assert(status.code == CODE_OK && plan.eval_sequences == 4096, "%lld sequences: %s", (long long)plan.eval_sequences,
            status.line);
  config_free(&config);
}

Test(evaluate, covers_every_target_once_and_equals_a_computation_by_hand) {
  Run run;
  Config config;
  run_start(&run, &config, "run", (const char *const[]){"train.batch_size=8", "train.micro_batch_size=4", NULL});
  cr_assert_geq(run.plan.eval_sequences, 4, "%lld sequences an evaluation forward", (long long)run.plan.eval_sequences);
  char text[TEXT_BYTES];
  write_words(text);
  /* The validation part is the text's last tenth; windows of seq_len lie end to end in it. */
  const int64_t begin = TEXT_BYTES * 9 / 10, n_targets = TEXT_BYTES - begin - 1, length = config.data.seq_len;
  Subject s = {run.device, run.model, config.dtype};
  double sum = 0;
  int64_t n = 0;
  for (int64_t at = begin; at < TEXT_BYTES - 1; at += length) {
    Batch window = batch_new(1, min_i64(length, TEXT_BYTES - 1 - at));
    for (int64_t t = 0; t < window.length; t++)
      window.token[t] = (unsigned char)text[at + t], window.target[t] = (unsigned char)text[at + t + 1];
    int64_t n_window;
    sum += nll_by_hand(&s, &window, &n_window);
    n += n_window;
    batch_free(&window);
  }
  cr_assert_eq(n, n_targets, "%lld targets by hand, expected %lld", (long long)n, (long long)n_targets);
  /* run's evaluation forward was planned for eval_sequences sequences at a time. */
  for (int64_t n_seq = 1; n_seq <= run.plan.eval_sequences; n_seq++) {
    Evaluation e = evaluate_part(run.model, &run.device, config.dtype, run.dataset, PART_VAL, 0, n_seq, false);
    cr_assert_eq(e.n_targets, n_targets, "%lld at a time: %lld targets, expected %lld", (long long)n_seq,
                 (long long)e.n_targets, (long long)n_targets);
    double mean = sum / (double)n_targets;
    cr_assert_float_eq(e.nll, mean, 1e-6, "%lld at a time: nll %.9g, by hand %.9g", (long long)n_seq, e.nll, mean);
    cr_assert_float_eq(e.perplexity, exp(mean), 1e-3, "%lld at a time: perplexity %g", (long long)n_seq, e.perplexity);
    cr_assert_float_eq(e.bits_per_byte, mean / log(2), 1e-5, "%lld at a time: bits per byte %g", (long long)n_seq,
                       e.bits_per_byte);
  }
  Evaluation two = evaluate_part(run.model, &run.device, config.dtype, run.dataset, PART_VAL, 2, 1, false);
  cr_assert_eq(two.n_targets, 2 * length, "two samples: %lld targets", (long long)two.n_targets);
  run_end(&run, &config);
}
