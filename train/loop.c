/* loop: training, read from top to bottom.
 *
 *   data -> model -> loss -> backward -> reduce (the tree of parts and ranks) -> clip -> AdamW -> log, evaluate, sample,
 *   checkpoint
 *
 * Every rank goes through it in step; what is written is rank 0's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "train/dist/tree.h"
#include "train/dist/zero.h"
#include "train/run.h"
#include "train/sample.h"
#include "train/settle.h"
#include "train/stop.h"

static bool due(int64_t step, int64_t every, int64_t last) { return every > 0 && (step % every == 0 || step == last); }
static bool due_or_last(int64_t step, int64_t every, int64_t last) { return step == last || due(step, every, last); }

static void next_batch(Run *run) {
  run->batch.n_seq = run->config->train.batch_size;
  run->batch.length = dataset_train_length(run->dataset, run->step);
  dataset_fill(run->dataset, PART_TRAIN, run->cursor, &run->batch);
}

/* debug.fault: makes a step go bad on its rank, so that what follows can be tested. */
static void plant_nan(Run *run) {
  const int rank = run->dist->rank;
  if (fault_is(&run->fault, FAULT_NAN_LOSS, rank, run->step + 1)) {
    const Tensor *losses = &run->model->params.losses;
    Tensor host = device_pull(&run->device, losses);
    for (int64_t i = 0; i < tensor_count(losses); i++) tensor_set(&host, i, NAN); /* its own among them */
    device_push(&run->device, losses);
  }
  if (!fault_is(&run->fault, FAULT_NAN_GRAD, rank, run->step + 1)) return;
  const Tensor *grad = &run->model->params.params[0]->grad;
  Tensor host = device_pull(&run->device, grad);
  tensor_set(&host, 0, NAN);
  device_push(&run->device, grad);
}

static void plant_difference(Run *run) {
  if (!fault_is(&run->fault, FAULT_DIVERGE, run->dist->rank, run->step + 1)) return;
  const Tensor *value = &run->model->params.params[0]->value;
  Tensor host = device_pull(&run->device, value);
  tensor_set(&host, 0, tensor_get(&host, 0) + 1);
  device_push(&run->device, value);
}

/* All that a step does on the device. It may be called twice for a step (tensor/replay.h), so it changes nothing of the run. */
typedef struct Step {
  Run *run;
  const StepNumbers *numbers;
} Step;

static void do_step(void *user) {
  const Step *step = user;
  Run *run = step->run;
  const Config *config = run->config;
  ParamTable *params = &run->model->params;
  run_enter(run, PHASE_GRADIENT);
  params_tell_numbers(params, step->numbers);
  int n_losses = gradient_parts(run->model, &run->device, config->dtype, &run->plan.gradient, &run->batch, run->carry,
                                run->buckets);
  plant_nan(run);
  run_enter(run, PHASE_REDUCE);
  n_losses = gradient_reduce(params, &run->device, run->dist, run->buckets, n_losses);
  run_enter(run, PHASE_UPDATE);
  zero_judge(params, run->dist,
             &(StepEvidence){.n_losses = n_losses,
                             .clip = config->optim.clip,
                             .follows = config->train.nonfinite != NONFINITE_SKIP});
  optim_update_judged(params, &run->device, &config->optim);
  if (run->carry) carry_hold(run->carry, run->model, &run->device);
  zero_gather_values(params, run->dist);
}

/* Returns the learning rate. */
static double make_step(Run *run) {
  const OptimConfig *optim = &run->config->optim;
  run_enter(run, PHASE_DATA);
  next_batch(run);
  const double lr = schedule_lr(optim, run->step + 1, run->config->train.steps);
  const StepNumbers batch = gradient_numbers(&run->batch);
  StepNumbers numbers = optim_numbers(optim, lr, run->step + 1);
  numbers.loss_scale = batch.loss_scale, numbers.first_sample = batch.first_sample;
  const bool gave_up = replay_given_up(run->replay);
  replay_run(run->replay, do_step, &(Step){run, &numbers});
  if (!gave_up && replay_given_up(run->replay))
    runlog_note(run->log, "step %lld and later ones are launched kernel by kernel, not as CUDA graphs: %s",
                (long long)run->step + 1, replay_given_up(run->replay));
  return lr;
}

static void tell_replays(Run *run) {
  const ReplayCounts counts = replay_counts(run->replay);
  if (counts.captured > 0 && !run->quiet)
    runlog_note(run->log, "CUDA graphs: %lld steps replayed, %lld launched kernel by kernel, %lld graphs made",
                (long long)counts.replayed, (long long)counts.one_by_one, (long long)counts.captured);
}

static int64_t resident_bytes(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

static void log_step(Run *run, double loss, double norm, double lr, int64_t tokens_since, double seconds_since,
                     double seconds) {
  if (!run->log) return;
  run->losses = base_realloc(run->losses, (size_t)(run->n_losses + 1) * sizeof(double));
  run->losses[run->n_losses++] = loss;
  runlog_step(run->log, &(StepMetrics){.step = run->step,
                                       .steps = run->config->train.steps,
                                       .tokens = run->tokens,
                                       .loss = loss,
                                       .lr = lr,
                                       .grad_norm = norm,
                                       .tok_per_s = (double)tokens_since / seconds_since,
                                       .seconds = seconds,
                                       .mem_bytes = resident_bytes(),
                                       .mfu = NAN,
                                       .graph_steps = replay_counts(run->replay).replayed});
}

/* The last evaluation covers the whole validation part, and every one does that early stopping compares; others on the way
 * cover eval_batches batches. True: best so far. */
static bool evaluate(Run *run) {
  const TrainConfig *train = &run->config->train;
  bool whole = run->step == train->steps || train->patience > 0;
  int64_t n = whole ? 0 : train->eval_batches * train->batch_size;
  run_evaluate(run, n);
  NamedValue values[EVALUATION_MAX_VALUES];
  int n_values = evaluation_values(&run->last, true, values);
  runlog_eval(run->log, run->step, run->tokens, values, n_values);
  bool best = run->last.score < run->best_loss;
  if (best) run->best_loss = run->last.score;
  run->n_stale = best ? 0 : run->n_stale + 1;
  return best;
}

/* What comes after this step needs to know that the step was good. */
static bool somebody_looks(const Run *run) {
  const TrainConfig *train = &run->config->train;
  const int64_t every[] = {train->log_every, train->sample_every, train->compare_every, train->eval_every,
                           train->save_every};
  bool looks = run->step == 1 || run->step == train->steps;
  for (size_t i = 0; i < sizeof every / sizeof *every; i++) looks |= due(run->step, every[i], train->steps);
  return looks;
}

/* What --verbose shows: after step 2 the high-water marks must not move (a curriculum's lengths excepted), and of the sum over
 * ranks most is to be done when backward is (buckets.h). */
static void tell_inner_figures(Run *run) {
  if (!run->verbose || !run->log || (run->step != 2 && run->step != run->config->train.steps)) return;
  const Device *d = &run->device;
  runlog_note(run->log, "arenas at step %lld: weights %zu, step %zu, scratch %zu bytes at most", (long long)run->step,
              d->weights.peak_bytes, d->step.peak_bytes, d->scratch.peak_bytes);
  const BucketsFigures f = buckets_figures(run->buckets);
  if (f.n_steps == 0) return;
  runlog_note(run->log,
              "gradients at step %lld: %.0f bytes a step in %d buckets; their sum was begun for %.1f %% and done for "
              "%.1f %% of the bytes when backward ended (%d steps)",
              (long long)run->step, f.bytes / f.n_steps, f.n, 100 * f.begun / f.bytes, 100 * f.hidden / f.bytes,
              f.n_steps);
}

Status loop_train(Run *run) {
  const TrainConfig *train = &run->config->train;
  double start = base_seconds(), logged_at = start;
  int64_t logged_tokens = run->tokens;
  Verdict verdict = {0};
  run->settled = run->step;
  while (run->step < train->steps && !run_is_stale(run)) {
    const double lr = make_step(run);
    tree_keep_pace(run->dist, &run->device, run->step);
    plant_difference(run);

    run->step++;
    run->tokens_before[run->step % PARAMS_VERDICTS] = run->tokens;
    run->cursor += run->batch.n_seq;
    run->tokens += run->batch.n_seq * run->batch.length;
    if (settle_must(run) || somebody_looks(run)) TRY(settle(run, &verdict));
    if (run->carry && !(run->carry->lost && verdict.held)) carry_commit(run->carry);
    if (run->step == 1 || due(run->step, train->log_every, train->steps)) {
      double now = base_seconds();
      log_step(run, verdict.loss, verdict.norm, lr, run->tokens - logged_tokens, now - logged_at, now - start);
      logged_at = now, logged_tokens = run->tokens;
    }
    bool best = due_or_last(run->step, train->eval_every, train->steps) && evaluate(run);
    if (dist_is_first(run->dist) && due(run->step, train->sample_every, train->steps)) sample_write(run);
    tell_inner_figures(run);
    if (due(run->step, train->compare_every, train->steps)) TRY(run_compare(run));
    const int stopping =
        (int)dist_max(run->dist, stop_requested()); /* a signal to one rank stops all after this step */
    if (stopping) TRY(settle(run, &verdict));
    if (best || stopping || due_or_last(run->step, train->save_every, train->steps))
      TRY(run_save(run, best, stopping || run->step == train->steps));
    if (stopping && run->step < train->steps)
      return status_fail(CODE_STOPPED, "%s: stopped after step %lld, saved in %s: continue with --resume auto",
                         stop_name(stopping), (long long)run->step, run->directory);
  }
  TRY(run_saved(run));
  tell_replays(run);
  if (run_is_stale(run))
    runlog_note(run->log, "stopped early: no new best in %d evaluations, the last at step %lld", train->patience,
                (long long)run->step);
  return train->patience > 0 ? run_end_with_best(run) : STATUS_OK;
}
