/* run: see run.h. */
#include "train/run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "data/tokenizer.h"
#include "train/check/selftest.h"
#include "train/checkpoint.h"
#include "train/dist/replicas.h"
#include "train/dist/zero.h"
#include "train/forecast/forecast_record.h"
#include "train/format.h"
#include "train/resolve.h"
#include "train/save.h"

#ifdef _OPENMP
#include <omp.h>
#endif

/* mkdir -p; *made: the last folder is new; NULL: not wanted. */
static Status make_directory(const char *path, bool *made) {
  char *part = base_strdup(path);
  for (char *slash = part + 1; *slash; slash++) {
    if (*slash != '/') continue;
    *slash = 0;
    mkdir(part, 0777);
    *slash = '/';
  }
  free(part);
  struct stat info;
  const bool is_new = mkdir(path, 0777) == 0;
  if (made) *made = is_new;
  if (is_new || (errno == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode))) return STATUS_OK;
  return status_fail(CODE_DATA, "%s: cannot make the run directory: %s", path, strerror(errno));
}

/* Which checkpoint to start from: NULL for a fresh start. */
static Status find_resume(const Run *run, const RunOptions *options, Checkpoint **checkpoint, char **message) {
  *checkpoint = NULL, *message = NULL;
  if (options->resume == RESUME_PATH) return checkpoint_open(options->resume_path, checkpoint);
  TRY(checkpoint_open_last(run->directory, checkpoint, message));
  if (!*checkpoint || options->resume == RESUME_AUTO) return STATUS_OK;
  if (options->resume == RESUME_REFUSE)
    return status_fail(CODE_USAGE,
                       "%s already holds a checkpoint (%s): continue it with --resume auto, start anew beside it with "
                       "--resume never, or choose another --out",
                       run->directory, (*checkpoint)->path);
  /* never: the old checkpoints are put aside, not lost */
  char *from = base_format("%s/checkpoints", run->directory), *to = NULL;
  Status status = STATUS_OK;
  for (int i = 1; status.code == CODE_OK; i++) {
    to = base_format("%s.old-%d", from, i);
    if (access(to, F_OK) != 0) break;
    free(to);
  }
  if (rename(from, to) != 0)
    status = status_fail(CODE_CHECKPOINT, "%s: cannot be put aside as %s: %s", from, to, strerror(errno));
  *message = base_format("the checkpoints of an earlier run are kept in %s", to);
  free(from);
  free(to);
  checkpoint_close(*checkpoint);
  *checkpoint = NULL;
  return status;
}

/* The config must describe the checkpoint's model, and the batch its sums. */
static Status match_checkpoint(Run *run, const char *path, const CheckpointInfo *info) {
  char *ours = model_config_to_json(&run->config->model);
  bool same = strcmp(ours, info->model_json) == 0;
  free(ours);
  if (!same)
    return status_fail(CODE_CHECKPOINT,
                       "%s: was trained with another model than the config describes: give the config it was trained "
                       "with (config.yaml of its run directory), or start anew with --resume never",
                       path);
  TrainConfig *train = &run->config->train;
  train->micro_batch_size = info->micro_batch_size;
  train->virtual_ranks = info->virtual_ranks;
  return STATUS_OK;
}

static Status open_dataset(Run *run, const CheckpointInfo *info) {
  Config *config = run->config;
  TRY(dataset_open(&config->data, config->seed, info ? info->tokenizer_json : NULL, &run->dataset));
  TRY(config_fit_data(config, run->dataset));
  if (config->train.epochs > 0)
    config->train.steps = (int64_t)ceil(config->train.epochs * (double)dataset_n_samples(run->dataset, PART_TRAIN) /
                                        config->train.batch_size);
  return STATUS_OK;
}

/* Pictures of an earlier run in this directory would pass for this one's. */
static void forget_forecasts(const Run *run) {
  char *path = base_format("%s/%s", run->directory, FORECAST_RECORD);
  unlink(path);
  free(path);
}

static Status open_model(Run *run) {
  Config *config = run->config;
  PlanShape shape = plan_training(config, run->dataset);
  shape.n_ranks = run->dist->size, shape.rank = run->dist->rank;
  TRY(plan_make(config, &shape, run->memory_bytes, &run->plan));
  TRY(dist_fits(run->dist, run->plan.gradient.virtual_ranks));
  /* The resolved config says what was resolved: a resumed run's must be the same text. */
  config->train.virtual_ranks = run->plan.gradient.virtual_ranks;
  config->train.micro_batch_size = run->plan.gradient.micro_batch_size;
  TRY(selftest_once(config->device));
  TRY(device_open(&run->device, config->device, F32, run->plan.sizes));
  run->model = model_new(&config->model);
  run->model->recompute = config->train.recompute;
  zero_share(&run->model->params, run->dist->rank, run->dist->size, run->plan.gradient.virtual_ranks,
             config->train.zero);
  params_alloc(&run->model->params, &run->device, config->dtype, true, gradient_n_spare(&run->plan.gradient));
  run->model->dropout_seed = config->seed;
  run->batch = batch_make(&config->model, config->train.batch_size, shape.train_length, shape.train_pieces);
  if (shape.train_rows > 0) {
    run->carry = base_alloc(sizeof *run->carry);
    *run->carry = carry_open(run->model, &run->device, shape.train_rows, shape.train_run);
  }
  return STATUS_OK;
}

/* Fresh weights, or those of model.init_from, which is what MODEL is on a command line. */
static Status start_weights(Run *run) {
  params_init(&run->model->params, run->config->seed);
  if (!run->config->init_from) return STATUS_OK;
  Checkpoint *checkpoint;
  char *passed_over;
  TRY(resolve_checkpoint(run->config->init_from, &checkpoint, &passed_over));
  if (dist_is_first(run->dist)) resolve_warn(passed_over);
  free(passed_over);
  if (!checkpoint) return weights_load(run->model, run->config->init_from);
  Status status = checkpoint_take(checkpoint, &run->model->params, false);
  checkpoint_close(checkpoint);
  return status;
}

static const char STALE[] = "n_stale";

void run_put_values(const Run *run, CheckpointInfo *info) {
  if (run->config->train.patience == 0) return;
  CheckpointValue *value = &info->values[info->n_values++];
  snprintf(value->name, sizeof value->name, "%s", STALE);
  value->value = (double)run->n_stale;
}

static void take_values(Run *run, const CheckpointInfo *info) {
  for (int i = 0; i < info->n_values; i++)
    if (strcmp(info->values[i].name, STALE) == 0) run->n_stale = (int64_t)info->values[i].value;
}

/* The rows' states; a checkpoint of a run without them says where the rows are, but not what they have read. */
static Status take_carry(Run *run, Checkpoint *from) {
  int n;
  bool found;
  CheckpointTensor *tensors = carry_tensors(run->carry, run->model, &n);
  Status status = checkpoint_take_tensors(from, &run->device, tensors, n, &found);
  free(tensors);
  if (status.code == CODE_OK) run->carry->lost = !found;
  return status;
}

static Status write_config(const Run *run) {
  char *yaml = config_to_yaml(run->config), *path = base_format("%s/config.yaml", run->directory);
  StrBuf text = {0};
  strbuf_printf(&text, "# resolved by aspis %s (%s)\n%s", ASPIS_VERSION, ASPIS_COMMIT, yaml);
  Status status = strbuf_save(&text, path);
  free(text.data), free(yaml), free(path);
  return status;
}

/* YAML has no words for a folder that is no UTF-8: there paths stay as they are, and lead on from the same folder. */
static void anchor(char **path, const char *folder) {
  if (!folder || **path == '/' || !utf8_is(folder)) return;
  char *anchored = base_format("%s/%s", folder, *path);
  free(*path);
  *path = anchored;
}

/* The resolved config names the data from the root, so that `eval` finds it from any folder. */
static void anchor_paths(DataConfig *data) {
  char *folder = getcwd(NULL, 0);
  for (int i = 0; i < data->n_paths; i++) anchor(&data->paths[i], folder);
  for (int i = 0; i < data->n_shards; i++) anchor(&data->shards[i], folder);
  if (tokenizer_is_file(data->tokenizer)) anchor(&data->tokenizer, folder);
  free(folder);
}

/* What a rank may use. Ranks of a host share its memory, and the smallest share counts everywhere, because the micro-batch
 * may follow from it, and orders sums. */
static void share_memory(Run *run) {
  const Dist *dist = run->dist;
  const size_t bytes = plan_memory_available(run->config->device) / (size_t)dist->local_size;
  const int64_t most = bytes < INT64_MAX ? (int64_t)bytes : INT64_MAX;
  run->memory_bytes = (size_t)dist_min(run->dist, most);
}

/* Rank 0's: the directory, the right to it, and where to go on from. */
static Status claim_directory(Run *run, const RunOptions *options, char **message) {
  if (!dist_is_first(run->dist)) return STATUS_OK;
  TRY(make_directory(run->directory, &run->made));
  TRY(runlock_take(run->directory, &run->lock));
  TRY(find_resume(run, options, &run->checkpoint, message));
  if (run->checkpoint) run->resumed_from = base_strdup(run->checkpoint->path);
  return STATUS_OK;
}

/* What the run computes with: on every rank, without a word between them. */
static Status open_state(Run *run) {
  if (run->resumed_from && !run->checkpoint) TRY(checkpoint_open(run->resumed_from, &run->checkpoint));
  Checkpoint *from = run->checkpoint;
  const CheckpointInfo *info = from ? &from->info : NULL;
  TRY(open_dataset(run, info));
  if (from) TRY(match_checkpoint(run, from->path, info));
  TRY(open_model(run));
  TRY(from ? checkpoint_take(from, &run->model->params, true) : start_weights(run));
  if (!from) return STATUS_OK;
  run->step = run->compared = info->step, run->cursor = info->data_cursor, run->tokens = info->tokens;
  run->best_loss = info->best_loss;
  take_values(run, info);
  if (run->carry) TRY(take_carry(run, from));
  checkpoint_close(from);
  run->checkpoint = NULL;
  return STATUS_OK;
}

/* What the config names, as one with another data.kind may, and nobody reads. */
static void tell_unread(const Run *run) {
  const DataConfig *data = &run->config->data;
  if (data->n_paths > 0 && (data->kind == DATA_SYNTHETIC || data->kind == DATA_SHARDS))
    runlog_note(run->log, "data.path is not read: data.kind is %s", data->kind == DATA_SHARDS ? "shards" : "synthetic");
  if (data->n_shards > 0 && data->kind != DATA_SHARDS)
    runlog_note(run->log, "data.shards is not read: data.kind is not shards");
}

/* Rank 0's: what the run tells. */
static Status open_record(Run *run, const RunOptions *options, const char *message) {
  if (!dist_is_first(run->dist)) return STATUS_OK;
  const Config *config = run->config;
  char *yaml = config_to_yaml(config);
  RunLogOptions log_options = {.directory = run->directory,
                               .resume_step = run->resumed_from ? run->step : -1,
                               .config_yaml = yaml,
                               .command = options->command,
                               .quiet = options->quiet};
  Status status = runlog_open(&log_options, &run->log);
  free(yaml);
  TRY(status);
  TRY(write_config(run));
  if (!run->resumed_from) forget_forecasts(run);
  if (message) runlog_note(run->log, "%s", message);
  if (run->resumed_from && run->carry && run->carry->lost)
    runlog_note(run->log, "%s holds no states of rows (data.tbptt): they start anew", run->resumed_from);
  tell_unread(run);
  if (config->dtype == BF16 && !run->device.backend->multiplies_bf16)
    runlog_note(run->log, "bf16 products run as float32 on this processor: bf16 saves memory here, f32 is no slower");
  return STATUS_OK;
}

/* Steps of several ranks become graphs together: NCCL's work is part of one on every rank, and of the same, or of none. */
static void agree_on_graph(void *user, uint64_t *fold, bool *fits) {
  Dist *dist = user;
  struct {
    uint64_t fold, fits;
  } mine = {*fold, *fits}, *all = base_alloc((size_t)dist->size * sizeof *all);
  dist_gather_all(dist, &mine, all, sizeof mine);
  for (int i = 0; i < dist->size; i++) *fits &= all[i].fits != 0;
  *fold = XXH3_64bits(all, (size_t)dist->size * sizeof *all);
  free(all);
}

static void open_replay(Run *run) {
  Dist *dist = run->dist;
  const bool alone = dist->size == 1;
  run->replay = replay_open(&run->device, run->config->train.graph == GRAPH_AUTO && (alone || dist->gpu),
                            alone ? NULL : &(ReplayPeers){agree_on_graph, dist});
}

static Status open_all(Run *run, const RunOptions *options) {
  Dist *dist = run->dist;
  const TrainConfig *train = &run->config->train;
  anchor_paths(&run->config->data);
  char *message = NULL;
  Status status = dist_agree(dist, claim_directory(run, options, &message));
  if (status.code == CODE_OK) {
    dist_set_run(dist, run->directory);
    dist_broadcast_text(dist, &run->resumed_from);
    status = watch_open(dist, train->watchdog, train->stall, &run->watch);
  }
  if (status.code == CODE_OK) {
    run_enter(run, PHASE_START);
    share_memory(run);
    status = dist_agree(dist, open_state(run));
  }
  if (status.code == CODE_OK) status = dist_open_gpu(dist, &run->device, train->transport);
  if (status.code == CODE_OK) open_replay(run);
  if (status.code == CODE_OK)
    run->buckets = buckets_open(&run->model->params, &run->device, dist, gradient_n_parts(&run->plan.gradient),
                                1e6 * train->bucket_mb);
  if (status.code == CODE_OK) status = replicas_compare(dist, &run->model->params, run->step, run->step);
  if (status.code == CODE_OK) status = dist_agree(dist, open_record(run, options, message));
  if (status.code == CODE_OK) run->saver = saver_open(run);
  free(message);
  return status;
}

Status run_open(Run *run, Config *config, const RunOptions *options) {
  *run = (Run){.config = config,
               .dist = options->dist,
               .quiet = options->quiet,
               .verbose = options->verbose,
               .lock = -1,
               .best_loss = INFINITY,
               .last = {.score = NAN}};
  run->directory =
      options->directory ? base_strdup(options->directory) : base_format("%s/%s", config->out_dir, config->name);
  CHECK(fault_parse(config->debug.fault, &run->fault), "debug.fault: %s", config->debug.fault);
#ifdef _OPENMP
  if (config->train.threads > 0) omp_set_num_threads(config->train.threads);
#endif
  Status status = open_all(run, options);
  if (status.code == CODE_OK) return status;
  if (run->made && run->lock >= 0) { /* what could not begin leaves nothing behind */
    runlock_give_up(run->directory, run->lock);
    run->lock = -1;
  }
  run_close(run);
  return status;
}

void run_enter(Run *run, Phase phase) {
  watch_phase(run->watch, run->step + 1, phase);
  fault_strike(&run->fault, run->dist->rank, run->step + 1, phase);
}

void run_close(Run *run) {
  watch_close(run->watch);
  buckets_close(run->buckets);
  saver_close(run->saver);
  runlog_close(run->log);
  replay_close(run->replay);
  if (run->model) model_free(run->model);
  device_close(&run->device);
  if (run->dataset) dataset_close(run->dataset);
  free(run->losses);
  batch_release(&run->batch);
  free(run->carry);
  checkpoint_close(run->checkpoint);
  free(run->resumed_from);
  free(run->directory);
  if (run->lock >= 0) runlock_release(run->lock);
  *run = (Run){.lock = -1};
}

bool run_is_stale(const Run *run) {
  const int patience = run->config->train.patience;
  return patience > 0 && run->n_stale >= patience;
}

Status run_end_with_best(Run *run) {
  char *path = checkpoint_best_path(run->directory);
  CheckpointInfo info = {0};
  Status status = dist_agree(run->dist, checkpoint_load(path, &info, &run->model->params, true));
  if (status.code == CODE_OK) {
    runlog_note(run->log, "the run ends with its best weights, those of step %lld", (long long)info.step);
    run_evaluate(run, 0);
    status = run_save(run, false, true);
  }
  checkpoint_info_free(&info);
  free(path);
  return status;
}

void run_evaluate(Run *run, int64_t n_samples) {
  run_enter(run, dist_is_first(run->dist) ? PHASE_EVALUATE : PHASE_WAIT);
  if (dist_is_first(run->dist))
    run->last = evaluate_part(run->model, &run->device, run->config->dtype, run->dataset, PART_VAL, n_samples,
                              run->plan.eval_sequences, !run->quiet);
  dist_broadcast(run->dist, &run->last, sizeof run->last);
}

Status run_compare(Run *run) {
  if (run->compared == run->step) return STATUS_OK;
  run_enter(run, PHASE_COMPARE);
  TRY(replicas_compare(run->dist, &run->model->params, run->step, run->compared));
  run->compared = run->step;
  return STATUS_OK;
}
