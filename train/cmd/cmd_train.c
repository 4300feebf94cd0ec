/* aspis train CONFIG: trains, evaluates, saves. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/cmd/command.h"
#include "train/dist/dist.h"
#include "train/forecast/forecast_record.h"
#include "train/format.h"
#include "train/report/report.h"
#include "train/run.h"
#include "train/stop.h"

/* "auto", "never" or a path. */
static void read_resume(const Command *command, RunOptions *options) {
  const char *resume = command_text(command, "resume", NULL);
  if (!resume) options->resume = RESUME_REFUSE;
  else if (strcmp(resume, "auto") == 0) options->resume = RESUME_AUTO;
  else if (strcmp(resume, "never") == 0) options->resume = RESUME_NEVER;
  else options->resume = RESUME_PATH, options->resume_path = resume;
}

static void announce(const Run *run, double seconds) {
  const Config *c = run->config;
  const Plan *plan = &run->plan;
  const Dist *dist = run->dist;
  char *ranks = dist->size > 1 ? base_format(" on each of %d ranks (%s%s%s)", dist->size, dist->backend->name,
                                             dist->gpu ? ", " : "", dist->gpu ? dist->gpu->name : "")
                               : NULL;
  fprintf(stderr,
          "aspis %s | %s | %.2fM parameters | %s on %s | %lld steps of %d x %lld tokens (%d parts, micro-batch %d) | "
          "%.0f MiB%s\n",
          ASPIS_VERSION, run->directory, (double)plan->n_params / 1e6, dtype_name(c->dtype), run->device.backend->name,
          (long long)c->train.steps, c->train.batch_size, (long long)dataset_max_length(run->dataset, PART_TRAIN),
          plan->gradient.virtual_ranks, plan->gradient.micro_batch_size, (double)plan_total_bytes(plan) / 1048576.0,
          ranks ? ranks : "");
  free(ranks);
  if (run->resumed_from) fprintf(stderr, "resumed from %s (step %lld)\n", run->resumed_from, (long long)run->step);
  fprintf(stderr, "ready after %.2f s\n", seconds);
}

/* What a person looks at afterwards: the loss in one line, and the page. */
static void show_report(const Run *run) {
  const char *runs[] = {run->directory};
  char *path, *bars = format_sparkline(run->losses, run->n_losses, 60);
  Status status = report_write(&(ReportOptions){.runs = runs, .n_runs = 1, .version = ASPIS_VERSION}, &path);
  if (run->n_losses > 1)
    fprintf(stderr, "loss %s %.4f to %.4f\n", bars, run->losses[0], run->losses[run->n_losses - 1]);
  if (status.code == CODE_OK) fprintf(stderr, "report %s\n", path);
  else fprintf(stderr, "aspis: no report: %s\n", status.line);
  if (status.code == CODE_OK) free(path);
  status_clear(&status);
  free(bars);
}

/* What pictures of forecasts are drawn from. */
static void record_forecasts(Run *run) {
  if (run->config->model.task != TASK_FORECAST) return;
  Status status = forecast_record_write(run->model, &run->device, run->config->dtype, run->dataset,
                                        run->plan.eval_sequences, run->step, run->directory);
  if (status.code != CODE_OK) runlog_note(run->log, "no pictures of forecasts: %s", status.line);
  status_clear(&status);
}

/* "aspis train c.yaml --set a=b", for the record. */
static char *join_arguments(const Command *command) {
  StrBuf line = {0};
  strbuf_puts(&line, "aspis train");
  for (int i = 0; i < command->argc; i++) strbuf_printf(&line, " %s", command->argv[i]);
  return line.data;
}

static void print_result(const Run *run) {
  NamedValue values[EVALUATION_MAX_VALUES];
  int n = evaluation_values(&run->last, true, values);
  printf("step %lld", (long long)run->step);
  for (int i = 0; i < n; i++) printf(" | %s %.6g", values[i].name, values[i].value);
  printf("\n");
}

/* What a run leaves beside its checkpoints, and its end in status.json: rank 0's. */
static void finish(Run *run, const Status *status, bool quiet) {
  if (!dist_is_first(run->dist)) return;
  const RunState state = status->code == CODE_OK ? RUN_DONE : status->code == CODE_STOPPED ? RUN_STOPPED : RUN_FAILED;
  runlog_state(run->log, state, (int)status->code, status->line);
  if (status->code != CODE_OK) return;
  record_forecasts(run);
  if (!quiet) show_report(run);
  print_result(run);
}

static Status train(const Command *command, Dist *dist) {
  double start = base_seconds();
  const char **sets;
  int n_sets = command_all(command, "set", &sets);
  Config config = {0};
  Status status = config_load(command->args[0], sets, n_sets, &config);
  free(sets);
  if (status.code == CODE_OK) status = config_require_run(&config, command->args[0]);
  status = dist_agree(dist, status);
  TRY_OR(status, config_free(&config));
  RunOptions options = {.directory = command_text(command, "out", NULL),
                        .quiet = command->quiet || !dist_is_first(dist),
                        .verbose = command->verbose,
                        .dist = dist};
  read_resume(command, &options);
  char *line = join_arguments(command);
  options.command = line;
  Run run;
  status = run_open(&run, &config, &options);
  free(line);
  TRY_OR(status, config_free(&config));
  stop_saves();
  if (!options.quiet) announce(&run, base_seconds() - start);
  status = loop_train(&run);
  if (status.code == CODE_OK && isnan(run.last.score)) run_evaluate(&run, 0); /* resumed at its end: still to be told */
  run_enter(&run, dist_is_first(dist) ? PHASE_FINISH : PHASE_WAIT);
  finish(&run, &status, command->quiet);
  dist_max(dist, 0); /* nobody leaves, and so ends the others, before rank 0 has written */
  run_close(&run);
  config_free(&config);
  return status;
}

static Status cmd_train(const Command *command) {
  stop_install();
  Dist *dist;
  TRY(dist_open(&dist));
  Status status = train(command, dist);
  if (dist->size > 1 && dist_is_first(dist)) command_tell(&status); /* while all are here: mpirun ends who is late */
  else if (dist->size > 1) {
    free(status.line);
    status.line = NULL;
  }
  dist_finish(dist);
  return status;
}

const CommandSpec command_train = {
    .name = "train",
    .summary = "train a model from a config; save, evaluate and resume it",
    .usage = "train CONFIG [options]",
    .examples = {"aspis train configs/quickstart.yaml", "aspis train c.yaml --set optim.lr=3e-4 --out runs/try-2",
                 "aspis train c.yaml --resume auto"},
    .options = (const OptionSpec[]){OPTION_SET,
                                    {"out", "DIR", "run directory (default: <out_dir>/<name>)", false},
                                    {"resume", "auto|never|PATH",
                                     "continue the last checkpoint; put it aside and "
                                     "start anew; continue this one",
                                     false},
                                    {0}},
    .args = "CONFIG",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_train,
};
