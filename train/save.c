/* save: see save.h. */
#include "train/save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "train/dist/zero.h"
#include "train/format.h"
#include "train/snapshot.h"
#include "train/thread.h"

enum { MOST_FAILURES = 3 }; /* in a row */

struct Saver {
  Run *run;
  Snapshot *snapshot; /* rank 0's; NULL: none */
  bool beside;        /* rank 0 has one */
  bool begun;         /* a save of which it is not known what became of it */
  int failures;       /* in a row */
  /* rank 0's: the save that was begun last; the thread's while there is one */
  bool has_thread;
  pthread_t thread;
  CheckpointInfo info;
  char *path, *best_path; /* best_path NULL: not the best */
  Status status;
};

/* ---- one checkpoint */

static void forget(Saver *s) {
  CheckpointInfo *info = &s->info;
  free(info->config_yaml), free(info->model_json), free(info->tokenizer_json), free(info->tensors);
  free(s->path), free(s->best_path);
  s->info = (CheckpointInfo){0};
  s->path = s->best_path = NULL;
}

static void describe(Saver *s, bool best) {
  const Run *run = s->run;
  Config kept = *run->config;
  /* how its state lies on ranks, goes between them, is launched and saved is no part of a run: any number continues it, any way */
  kept.train.zero = 0, kept.train.graph = GRAPH_AUTO, kept.train.transport = TRANSPORT_AUTO;
  kept.train.bucket_mb = TRAIN_BUCKET_MB, kept.train.snapshot = SNAPSHOT_AUTO;
  const char *tokenizer = dataset_tokenizer_json(run->dataset);
  s->info = (CheckpointInfo){.step = run->step,
                             .data_cursor = run->cursor,
                             .tokens = run->tokens,
                             .seed = run->config->seed,
                             .micro_batch_size = run->plan.gradient.micro_batch_size,
                             .virtual_ranks = run->plan.gradient.virtual_ranks,
                             .best_loss = run->best_loss,
                             .config_yaml = config_to_yaml(&kept),
                             .model_json = model_config_to_json(&run->config->model),
                             .tokenizer_json = tokenizer ? base_strdup(tokenizer) : NULL,
                             .version = ASPIS_VERSION,
                             .commit = ASPIS_COMMIT};
  run_put_values(run, &s->info);
  if (run->carry) s->info.tensors = carry_tensors(run->carry, run->model, &s->info.n_tensors);
  s->path = checkpoint_step_path(run->directory, run->step);
  s->best_path = best ? checkpoint_best_path(run->directory) : NULL;
}

static void strike(const Saver *s, int set) {
  if (set == 1) fault_strike(&s->run->fault, s->run->dist->rank, s->info.step + 1, PHASE_WRITE);
}

static void gather_set(void *user, int set) {
  const Saver *s = user;
  zero_gather_set(&s->run->model->params, s->run->dist, (ZeroSet)set);
}

/* Rank 0 asks, and every rank takes part as often as it does. */
static void ask_ranks(const Saver *s) { dist_broadcast(s->run->dist, &(int){1}, sizeof(int)); }

/* From the device, while it stands still. */
static void begin_set(void *user, int set) {
  const Saver *s = user;
  if (params_split(&s->run->model->params)) gather_set(user, set);
  strike(s, set);
}
static Status write_still(Saver *s, const char *path) {
  if (params_split(&s->run->model->params)) ask_ranks(s);
  return checkpoint_save_from(path, &s->info, &s->run->model->params,
                              &(CheckpointSource){.begin_set = begin_set, .user = s});
}

/* From the snapshot, by the thread. */
static void begin_aside(void *user, int set) { strike(user, set); }
static Tensor tensor_aside(void *user, const ParamTable *params, int set, int i) {
  return snapshot_tensor(((Saver *)user)->snapshot, params, set, i);
}
static Tensor further_aside(void *user, const Tensor *own, int i) {
  return snapshot_further(((Saver *)user)->snapshot, own, i);
}
static Status write_aside(Saver *s, const char *path) {
  return checkpoint_save_from(path, &s->info, &s->run->model->params,
                              &(CheckpointSource){tensor_aside, further_aside, begin_aside, s});
}

static void write_files(Saver *s, Status (*write)(Saver *s, const char *path)) {
  const Run *run = s->run;
  s->status = write(s, s->path);
  if (s->status.code == CODE_OK && s->best_path) s->status = write(s, s->best_path);
  if (s->status.code == CODE_OK) s->status = checkpoint_prune(run->directory, run->config->train.keep);
}

static void *write_files_aside(void *user) {
#ifdef _OPENMP
  omp_set_num_threads(1); /* the others compute */
#endif
  write_files(user, write_aside);
  return NULL;
}

static Status make_folder(const Run *run) {
  char *folder = base_format("%s/checkpoints", run->directory);
  Status status = STATUS_OK;
  if (mkdir(folder, 0777) != 0 && errno != EEXIST)
    status = status_fail(CODE_CHECKPOINT, "%s: cannot make the folder: %s", folder, strerror(errno));
  free(folder);
  return status;
}

static void begin(Saver *s, bool best) {
  Run *run = s->run;
  describe(s, best);
  runlog_sync(run->log); /* metrics up to this step are on the disk before the checkpoint that promises them */
  s->status = make_folder(run);
  if (s->status.code != CODE_OK) return;
  if (!s->snapshot) {
    write_files(s, write_still);
    return;
  }
  const bool split = params_split(&run->model->params);
  if (split) ask_ranks(s);
  snapshot_take(s->snapshot, &run->model->params, s->info.tensors, s->info.n_tensors, split ? gather_set : NULL, s);
  s->thread = thread_start(write_files_aside, s, "a checkpoint's file");
  s->has_thread = true;
}

static void join(Saver *s) {
  if (s->has_thread) pthread_join(s->thread, NULL);
  s->has_thread = false;
  forget(s);
}

/* ---- a run's */

/* Collective. A failed save is told and tried again at the next interval; the third in a row, or one that was the last, ends the
 * run. */
static Status end(Saver *s, bool last) {
  Run *run = s->run;
  if (!s->begun) return STATUS_OK;
  if (s->beside) watch_phase(run->watch, run->step + 1, dist_is_first(run->dist) ? PHASE_WRITE : PHASE_WAIT);
  join(s);
  Status status = dist_agree(run->dist, s->status);
  s->status = STATUS_OK, s->begun = false;
  if (status.code == CODE_OK) {
    s->failures = 0;
    return status;
  }
  if (++s->failures >= MOST_FAILURES || last) return status;
  runlog_note(run->log, "%s; training goes on, the next save is tried at the next interval", status.line);
  status_clear(&status);
  return STATUS_OK;
}

Status run_save(Run *run, bool best, bool last) {
  Saver *s = run->saver;
  TRY(end(s, false));
  TRY(run_compare(run));
  if (run->carry) carry_gather(run->carry, run->model, &run->device, run->dist);
  const bool first = dist_is_first(run->dist);
  run_enter(run, first ? PHASE_SAVE : PHASE_WAIT);
  int asked = 0;
  if (first) begin(s, best);
  if (params_split(&run->model->params))
    for (;;) {
      dist_broadcast(run->dist, &asked, sizeof asked); /* rank 0: no more */
      if (!asked) break;
      for (int set = 0; set < N_ZERO_SETS; set++) gather_set(s, set);
    }
  s->begun = true;
  return last || !s->beside ? end(s, last) : STATUS_OK;
}

Status run_saved(Run *run) { return end(run->saver, true); }

Saver *saver_open(Run *run) {
  Saver *s = base_zalloc(sizeof *s);
  s->run = run;
  const size_t bytes = run->plan.snapshot_bytes;
  size_t lacks = run->plan.snapshot_lacks;
  if (bytes > 0) {
    Status status = snapshot_open(&run->device, bytes, &s->snapshot);
    if (status.code != CODE_OK) lacks = bytes;
    status_clear(&status);
  }
  if (lacks > 0)
    runlog_note(run->log, "training waits while a checkpoint is written: the GPU has no room for a copy of %s",
                format_bytes((double)lacks).text);
  s->beside = dist_max(run->dist, s->snapshot != NULL) > 0;
  return s;
}

void saver_close(Saver *s) {
  if (!s) return;
  join(s);
  if (s->status.code != CODE_OK) runlog_note(s->run->log, "%s", s->status.line);
  status_clear(&s->status);
  snapshot_close(s->snapshot);
  free(s);
}
