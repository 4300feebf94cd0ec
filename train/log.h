/* log: what a run tells while it runs: the progress line on stderr, metrics.jsonl (the single source; the report and
 * everything else derive from it), TensorBoard events, samples/ and status.json.
 *
 * An interrupted and resumed run leaves the same metrics lines as an uninterrupted one, except for the time, rate and
 * memory fields, if the loop keeps this order: log step n, evaluate, runlog_sync, publish the checkpoint of step n.
 *
 * Nothing here ever ends a run: when the disk is full the first failure is told in one line, what could not be written
 * waits in memory and follows when there is room. Every function takes log == NULL (ranks other than 0) and does nothing. */
#pragma once

#include "tensor/base.h"
#include "train/format.h"

typedef struct RunLog RunLog;

typedef struct RunLogOptions {
  const char *directory;   /* exists; subfolders are made when needed */
  int64_t resume_step;     /* the checkpoint's step; lines after it are cut. -1: a fresh run, all old lines are */
  const char *config_yaml; /* NULL, or text shown under TensorBoard's "config" */
  const char *command;     /* NULL, or the command line, for the report's corner */
  bool quiet;              /* no progress and result lines; runlog_note still speaks */
} RunLogOptions;

/* One logged training step. */
typedef struct StepMetrics {
  int64_t step, steps; /* this one (1-based) and the last one */
  int64_t tokens;      /* seen since step 0 */
  double loss;         /* nats per token (or MSE) */
  double lr, grad_norm;
  double tok_per_s;
  double seconds; /* wall time since this session's first step began; the eta follows from it */
  int64_t mem_bytes;
  double mfu;          /* fraction of the machine's peak, NaN: not known */
  int64_t graph_steps; /* of this session's steps so far, launched as CUDA graphs; 0: left out */
} StepMetrics;

/* A value of an evaluation: "val_loss", "perplexity", "bits_per_byte", "accuracy", "val_mse", "baseline_nll", ... */
typedef struct NamedValue {
  const char *name;
  double value;
} NamedValue;

typedef enum RunState { RUN_RUNNING, RUN_DONE, RUN_STOPPED, RUN_FAILED } RunState;

/* The right to train in a directory, held until release or the process ends. CODE_USAGE when another trainer holds it,
 * with its pid and host. Take it before looking for checkpoints to resume from. */
Status runlock_take(const char *directory, int *lock);
void runlock_release(int lock);
/* The same of a directory that nothing came of: removes the lock and, where nothing else is in it, the directory. */
void runlock_give_up(const char *directory, int lock);

/* Cuts metrics.jsonl back to lines with step <= resume_step (a torn line is dropped), opens everything for appending
 * and writes status.json as running. CODE_DATA when the directory cannot be written. */
Status runlog_open(const RunLogOptions *options, RunLog **log);
/* Last attempt to write what waits; says what was lost, if anything. */
void runlog_close(RunLog *log);

/* {"step":..,"tokens":..,"loss":..,"lr":..,"grad_norm":..,"tok_per_s":..,"mem_mib":..,"seconds":..} (+ "mfu", "graph_steps"). A number
 * reads back to the same double; a non-finite one is null, and "nonfinite" names its kind. */
void runlog_step(RunLog *log, const StepMetrics *metrics);
/* {"step":..,"tokens":..,<name>:<value>...}, one printed line too. */
void runlog_eval(RunLog *log, int64_t step, int64_t tokens, const NamedValue *values, int n);
/* samples/step-%08d.txt and TensorBoard's text tab. */
void runlog_sample(RunLog *log, int64_t step, const char *text);
/* A line on stderr that does not garble the progress line; no trailing newline in format. */
void runlog_note(RunLog *log, const char *format, ...) PRINTF_LIKE(2, 3);
/* metrics.jsonl to the disk itself; before a checkpoint is published. */
void runlog_sync(RunLog *log);
/* The final status.json: state, exit code and reason (NULL: none). Between, it follows the steps by itself. */
void runlog_state(RunLog *log, RunState state, int exit_code, const char *reason);
/* The same from outside, of a run whose rank 0 may be gone: status.json of this directory says failed, with code and
 * reason; the rest of it stays. */
void runlog_end(const char *directory, int exit_code, const char *reason);
