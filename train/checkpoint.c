/* checkpoint: see checkpoint.h. */
#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_TEXT_BYTES ((int64_t)256 << 20)
#define VALUE_PREFIX "value."

static const struct {
  const char *name;
  size_t offset;
  bool required;
} TEXTS[] = {
    {"text/commit", offsetof(CheckpointInfo, commit), true},
    {"text/config.yaml", offsetof(CheckpointInfo, config_yaml), true},
    {"text/model.json", offsetof(CheckpointInfo, model_json), true},
    {"text/tokenizer.json", offsetof(CheckpointInfo, tokenizer_json), false},
    {"text/version", offsetof(CheckpointInfo, version), true},
};
enum { N_TEXTS = sizeof TEXTS / sizeof TEXTS[0] };

static char **text_of(const CheckpointInfo *info, int i) {
  return (char **)((char *)(uintptr_t)info + TEXTS[i].offset);
}

void checkpoint_info_free(CheckpointInfo *info) {
  for (int i = 0; i < N_TEXTS; i++) free(*text_of(info, i));
  *info = (CheckpointInfo){0};
}

/* ---- tensors: three sets of them, each under its own prefix */

typedef struct TensorSet {
  const char *prefix;
  Tensor *(*of)(Param *param); /* on the host */
  void (*put)(Param *param);   /* the way back, after writing to it */
} TensorSet;

static Tensor *host_of(Param *param, const Tensor *t) {
  param->exact = device_pull(param->device, t);
  return &param->exact;
}
static Tensor *moment_m(Param *param) { return host_of(param, &param->m); }
static Tensor *moment_v(Param *param) { return host_of(param, &param->v); }
static void put_m(Param *param) { device_push(param->device, &param->m); }
static void put_v(Param *param) { device_push(param->device, &param->v); }

static const TensorSet SETS[] = {
    {"model", param_exact, param_refresh}, {"optim/m", moment_m, put_m}, {"optim/v", moment_v, put_v}};
enum { N_SETS = sizeof SETS / sizeof SETS[0] };

static bool has_moments(const ParamTable *params) { return params->n_params > 0 && params->m_flat.data; }

static int64_t bytes_of(const ParamTable *params, int n_sets) { return 4 * n_sets * params_count(params); }

static Status tensor_save(H5File *file, const char *name, const Tensor *t) {
  CHECK(tensor_contiguous(t), "%s is a view", name);
  if (t->dtype == F32) return h5_write(file, name, H5_F32, t->n_dim, t->dim, t->data);
  int64_t n = tensor_count(t);
  float *data = base_alloc((size_t)n * sizeof *data);
  Tensor exact = tensor_over(data, F32, t->n_dim, t->dim);
  tensor_copy(&exact, t);
  Status status = h5_write(file, name, H5_F32, t->n_dim, t->dim, data);
  free(data);
  return status;
}

/* ---- saving */

static Status info_save(H5File *file, const CheckpointInfo *info) {
  TRY(h5_set_int(file, "format", CHECKPOINT_FORMAT));
  TRY(h5_set_int(file, "step", info->step));
  TRY(h5_set_int(file, "data_cursor", info->data_cursor));
  TRY(h5_set_int(file, "tokens", info->tokens));
  TRY(h5_set_int(file, "seed", (int64_t)info->seed));
  TRY(h5_set_int(file, "micro_batch_size", info->micro_batch_size));
  TRY(h5_set_int(file, "virtual_ranks", info->virtual_ranks));
  TRY(h5_set_double(file, "best_loss", info->best_loss));
  CHECK(info->n_values >= 0 && info->n_values <= CHECKPOINT_MAX_VALUES, "%d values", info->n_values);
  for (int i = 0; i < info->n_values; i++) {
    char name[sizeof VALUE_PREFIX + sizeof info->values[i].name];
    snprintf(name, sizeof name, VALUE_PREFIX "%s", info->values[i].name);
    TRY(h5_set_double(file, name, info->values[i].value));
  }
  for (int i = 0; i < N_TEXTS; i++) {
    const char *text = *text_of(info, i);
    CHECK(text || !TEXTS[i].required, "a checkpoint without %s", TEXTS[i].name);
    if (text) TRY(h5_write_text(file, TEXTS[i].name, text));
  }
  return STATUS_OK;
}

static Status set_save(H5File *file, int set, const ParamTable *params, const CheckpointSource *source) {
  for (int i = 0; i < params->n_params; i++) {
    char name[PARAM_NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s/%s", SETS[set].prefix, params->params[i]->name);
    const Tensor t = source->tensor ? source->tensor(source->user, params, set, i) : *SETS[set].of(params->params[i]);
    TRY(tensor_save(file, name, &t));
  }
  return STATUS_OK;
}

static Status further_save(H5File *file, const CheckpointInfo *info, const ParamTable *params,
                           const CheckpointSource *source) {
  for (int i = 0; i < info->n_tensors; i++) {
    const Tensor *own = info->tensors[i].tensor;
    const Tensor t = source->further ? source->further(source->user, own, i) : device_pull(params->device, own);
    TRY(tensor_save(file, info->tensors[i].name, &t));
  }
  return STATUS_OK;
}

Status checkpoint_save_from(const char *path, const CheckpointInfo *info, const ParamTable *params,
                            const CheckpointSource *source) {
  const int n_sets = has_moments(params) ? N_SETS : 1;
  int64_t bytes = bytes_of(params, n_sets) + (1 << 20);
  for (int i = 0; i < info->n_tensors; i++) bytes += (int64_t)tensor_bytes(info->tensors[i].tensor);
  for (int i = 0; i < N_TEXTS; i++) bytes += *text_of(info, i) ? (int64_t)strlen(*text_of(info, i)) : 0;
  H5File *file = NULL;
  Status status = h5_create(path, bytes, true, CODE_CHECKPOINT, &file);
  const bool created = status.code == CODE_OK;
  if (created) status = info_save(file, info);
  for (int s = 0; s < n_sets; s++) {
    if (source->begin_set) source->begin_set(source->user, s);
    if (status.code == CODE_OK) status = set_save(file, s, params, source);
  }
  if (status.code == CODE_OK) status = further_save(file, info, params, source);
  if (status.code == CODE_OK) return h5_commit(file);
  if (created) h5_close(file);
  return status;
}

Status checkpoint_save(const char *path, const CheckpointInfo *info, const ParamTable *params) {
  return checkpoint_save_from(path, info, params, &(CheckpointSource){0});
}

/* ---- reading */

static Status int_read(H5File *file, const char *path, const char *attr, int64_t least, int64_t most, int64_t *value) {
  TRY(h5_attr_int(file, "/", attr, value));
  if (*value >= least && *value <= most) return STATUS_OK;
  return status_fail(CODE_CHECKPOINT, "%s: attribute %s: found %" PRId64 ", expected %" PRId64 " to %" PRId64, path,
                     attr, *value, least, most);
}

static Status values_read(H5File *file, const char *path, char **attrs, int n_attrs, CheckpointInfo *info) {
  size_t prefix = strlen(VALUE_PREFIX);
  for (int i = 0; i < n_attrs; i++) {
    if (strncmp(attrs[i], VALUE_PREFIX, prefix) != 0) continue;
    if (info->n_values == CHECKPOINT_MAX_VALUES || strlen(attrs[i] + prefix) >= sizeof info->values[0].name)
      return status_fail(CODE_CHECKPOINT, "%s: attribute %s: too long a name, or too many of them", path, attrs[i]);
    CheckpointValue *value = &info->values[info->n_values++];
    snprintf(value->name, sizeof value->name, "%s", attrs[i] + prefix);
    TRY(h5_attr_double(file, "/", attrs[i], &value->value));
  }
  return STATUS_OK;
}

static Status info_read(H5File *file, const char *path, CheckpointInfo *info) {
  int64_t format, seed, micro_batch_size, virtual_ranks;
  TRY(h5_attr_int(file, "/", "format", &format));
  if (format != CHECKPOINT_FORMAT)
    return status_fail(CODE_CHECKPOINT,
                       "%s: checkpoint format: found %" PRId64 ", expected %d: read it with the version of "
                       "aspis that wrote it",
                       path, format, CHECKPOINT_FORMAT);
  TRY(int_read(file, path, "step", 0, INT64_MAX, &info->step));
  TRY(int_read(file, path, "data_cursor", 0, INT64_MAX, &info->data_cursor));
  TRY(int_read(file, path, "tokens", 0, INT64_MAX, &info->tokens));
  TRY(h5_attr_int(file, "/", "seed", &seed));
  TRY(int_read(file, path, "micro_batch_size", 0, INT_MAX, &micro_batch_size));
  TRY(int_read(file, path, "virtual_ranks", 0, INT_MAX, &virtual_ranks));
  TRY(h5_attr_double(file, "/", "best_loss", &info->best_loss));
  info->seed = (uint64_t)seed;
  info->micro_batch_size = (int)micro_batch_size, info->virtual_ranks = (int)virtual_ranks;
  for (int i = 0; i < N_TEXTS; i++)
    if (TEXTS[i].required || h5_has(file, TEXTS[i].name))
      TRY(h5_read_text(file, TEXTS[i].name, MAX_TEXT_BYTES, text_of(info, i)));
  info->has_optimizer = h5_has(file, "optim");
  char **attrs;
  int n_attrs;
  TRY(h5_list_attrs(file, &attrs, &n_attrs));
  Status status = values_read(file, path, attrs, n_attrs, info);
  h5_list_free(attrs, n_attrs);
  return status;
}

void checkpoint_close(Checkpoint *c) {
  if (!c) return;
  h5_close(c->file);
  checkpoint_info_free(&c->info);
  free(c->path);
  free(c);
}

Status checkpoint_open(const char *path, Checkpoint **checkpoint) {
  H5File *file;
  *checkpoint = NULL;
  TRY(h5_open_sealed(path, 0, CODE_CHECKPOINT, &file));
  Checkpoint *c = base_zalloc(sizeof *c);
  *c = (Checkpoint){.path = base_strdup(path), .file = file};
  TRY_OR(info_read(file, path, &c->info), checkpoint_close(c));
  *checkpoint = c;
  return STATUS_OK;
}

void checkpoint_take_info(Checkpoint *c, CheckpointInfo *info) {
  *info = c->info;
  c->info = (CheckpointInfo){0};
}

Status checkpoint_read_info(const char *path, CheckpointInfo *info) {
  Checkpoint *c;
  TRY(checkpoint_open(path, &c));
  checkpoint_take_info(c, info);
  checkpoint_close(c);
  return STATUS_OK;
}

/* ---- loading */

/* The differences between file and model, gathered: at most SHOWN are spelled out. */
typedef struct Differences {
  char *text;
  size_t length;
  FILE *stream;
  int n;
} Differences;
enum { SHOWN = 20 };

static void difference_add(Differences *d, const char *name, const char *what) {
  if (d->n++ < SHOWN) fprintf(d->stream, "\n  %s: %s", name, what);
}

static void shape_text(const H5Shape *shape, char *text, size_t bytes) {
  size_t at = (size_t)snprintf(text, bytes, "(");
  for (int i = 0; i < shape->n_dim && at < bytes; i++)
    at += (size_t)snprintf(text + at, bytes - at, "%s%lld", i ? ", " : "", (long long)shape->dim[i]);
  if (at < bytes) snprintf(text + at, bytes - at, ")");
}

static Status tensor_compare(H5File *file, const char *name, const Tensor *t, Differences *differences) {
  if (!h5_has(file, name)) {
    difference_add(differences, name, "missing");
    return STATUS_OK;
  }
  H5Shape shape;
  TRY(h5_shape(file, name, &shape));
  bool same = shape.kind == H5_F32 && shape.n_dim == t->n_dim;
  for (int i = 0; i < t->n_dim && same; i++) same = shape.dim[i] == t->dim[i];
  if (same) return STATUS_OK;
  char found[128], what[320];
  shape_text(&shape, found, sizeof found);
  snprintf(what, sizeof what, "found %s%s, expected %s", found, shape.kind == H5_F32 ? "" : " of another type",
           tensor_shape_text(t));
  difference_add(differences, name, what);
  return STATUS_OK;
}

static Status set_compare(H5File *file, const TensorSet *set, const ParamTable *params, Differences *differences) {
  char name[PARAM_NAME_BYTES + 272];
  for (int i = 0; i < params->n_params; i++) {
    snprintf(name, sizeof name, "%s/%s", set->prefix, params->params[i]->name);
    TRY(tensor_compare(file, name, &params->params[i]->value, differences));
  }
  if (!h5_has(file, set->prefix)) return STATUS_OK;
  char **names;
  int n;
  TRY(h5_list(file, set->prefix, &names, &n));
  for (int i = 0; i < n; i++)
    if (!params_find(params, names[i])) {
      snprintf(name, sizeof name, "%s/%s", set->prefix, names[i]);
      difference_add(differences, name, "unexpected");
    }
  h5_list_free(names, n);
  return STATUS_OK;
}

static void differences_open(Differences *d) {
  *d = (Differences){0};
  d->stream = open_memstream(&d->text, &d->length);
  CHECK(d->stream, "out of memory for a message");
}

/* `status`, unless it is fine and there are differences. */
static Status differences_close(Differences *d, const char *path, Status status) {
  if (d->n > SHOWN) fprintf(d->stream, "\n  and %d more", d->n - SHOWN);
  fclose(d->stream);
  if (status.code == CODE_OK && d->n)
    status = status_fail(CODE_CHECKPOINT, "%s: not a checkpoint of this model:%s", path, d->text);
  free(d->text);
  return status;
}

static Status compare(H5File *file, const char *path, const ParamTable *params, int n_sets) {
  Differences differences;
  differences_open(&differences);
  Status status = STATUS_OK;
  for (int s = 0; s < n_sets && status.code == CODE_OK; s++) status = set_compare(file, &SETS[s], params, &differences);
  return differences_close(&differences, path, status);
}

static Status tensor_load(H5File *file, const char *name, Tensor *t) {
  int64_t n = tensor_count(t);
  if (t->dtype == F32) return h5_read_f32(file, name, t->data, n);
  float *data = base_alloc((size_t)n * sizeof *data);
  Status status = h5_read_f32(file, name, data, n);
  Tensor exact = tensor_over(data, F32, t->n_dim, t->dim);
  if (status.code == CODE_OK) tensor_copy(t, &exact);
  free(data);
  return status;
}

static Status tensors_load(H5File *file, ParamTable *params, int n_sets) {
  for (int s = 0; s < n_sets; s++) {
    const bool split = s > 0 && params_split(params);
    if (split) params_show_moment(params, s == 2, false);
    for (int i = 0; i < params->n_params; i++) {
      char name[PARAM_NAME_BYTES + 16];
      snprintf(name, sizeof name, "%s/%s", SETS[s].prefix, params->params[i]->name);
      TRY(tensor_load(file, name, SETS[s].of(params->params[i])));
      SETS[s].put(params->params[i]);
    }
    if (split) params_show_moment(params, s == 2, true);
  }
  return STATUS_OK;
}

Status checkpoint_take(Checkpoint *c, ParamTable *params, bool with_optimizer) {
  CHECK(!with_optimizer || has_moments(params), "%s: the parameters have no moments to load into", c->path);
  const int n_sets = with_optimizer ? N_SETS : 1;
  TRY(compare(c->file, c->path, params, n_sets));
  return tensors_load(c->file, params, n_sets);
}

Status checkpoint_load(const char *path, CheckpointInfo *info, ParamTable *params, bool with_optimizer) {
  Checkpoint *c;
  TRY(checkpoint_open(path, &c));
  Status status = checkpoint_take(c, params, with_optimizer);
  if (status.code == CODE_OK) checkpoint_take_info(c, info);
  checkpoint_close(c);
  return status;
}

static Status further_load(H5File *file, const char *path, Device *device, const CheckpointTensor *tensors, int n) {
  Differences differences;
  differences_open(&differences);
  Status status = STATUS_OK;
  for (int i = 0; i < n && status.code == CODE_OK; i++)
    status = tensor_compare(file, tensors[i].name, tensors[i].tensor, &differences);
  TRY(differences_close(&differences, path, status));
  for (int i = 0; i < n; i++) {
    Tensor host = device_mirror(device, tensors[i].tensor);
    TRY(tensor_load(file, tensors[i].name, &host));
    device_push(device, tensors[i].tensor);
  }
  return STATUS_OK;
}

Status checkpoint_take_tensors(Checkpoint *c, Device *device, const CheckpointTensor *tensors, int n, bool *found) {
  *found = false;
  for (int i = 0; i < n; i++) *found |= h5_has(c->file, tensors[i].name);
  return *found ? further_load(c->file, c->path, device, tensors, n) : STATUS_OK;
}

/* ---- the checkpoints of a run */

char *checkpoint_step_path(const char *run_dir, int64_t step) {
  return base_format("%s/checkpoints/step-%08" PRId64 ".h5", run_dir, step);
}

char *checkpoint_best_path(const char *run_dir) { return base_format("%s/checkpoints/best.h5", run_dir); }

static int compare_steps(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

/* True for "step-<8 or more digits>.h5", exactly as checkpoint_step_path writes it. */
static bool parse_step(const char *name, int64_t *step) {
  const char *digits = name + strlen("step-");
  if (strncmp(name, "step-", strlen("step-")) != 0) return false;
  size_t n = strspn(digits, "0123456789");
  if (n < 8 || n > 18 || (n > 8 && digits[0] == '0') || strcmp(digits + n, ".h5") != 0) return false;
  *step = strtoll(digits, NULL, 10);
  return true;
}

/* Steps of the run's step files, newest first; none where there is no folder. */
static Status steps_list(const char *run_dir, int64_t **steps, int *n) {
  char *folder = base_format("%s/checkpoints", run_dir);
  DIR *dir = opendir(folder);
  *steps = NULL, *n = 0;
  Status status = STATUS_OK;
  if (!dir && errno != ENOENT) status = status_fail(CODE_CHECKPOINT, "%s: cannot list: %s", folder, strerror(errno));
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    int64_t step;
    if (!parse_step(entry->d_name, &step)) continue;
    *steps = base_realloc(*steps, (size_t)(*n + 1) * sizeof **steps);
    (*steps)[(*n)++] = step;
  }
  if (dir) closedir(dir);
  free(folder);
  if (*n) qsort(*steps, (size_t)*n, sizeof **steps, compare_steps);
  return status;
}

static Status verify(const char *path) {
  CheckpointInfo info;
  TRY(checkpoint_read_info(path, &info));
  checkpoint_info_free(&info);
  return STATUS_OK;
}

Status checkpoint_open_last(const char *run_dir, Checkpoint **checkpoint, char **message) {
  *checkpoint = NULL, *message = NULL;
  int64_t *steps;
  int n;
  TRY(steps_list(run_dir, &steps, &n));
  for (int i = 0; i < n && !*checkpoint; i++) {
    char *candidate = checkpoint_step_path(run_dir, steps[i]);
    Status status = checkpoint_open(candidate, checkpoint);
    free(candidate);
    if (status.code == CODE_OK) continue;
    char *longer = *message ? base_format("%s\n%s", *message, status.line) : base_strdup(status.line);
    free(*message);
    *message = longer;
    status_clear(&status);
  }
  free(steps);
  if (*checkpoint || n == 0) return STATUS_OK;
  Status status = status_fail(CODE_CHECKPOINT, "%s: none of its %d checkpoints can be used:\n%s", run_dir, n, *message);
  free(*message);
  *message = NULL;
  return status;
}

Status checkpoint_prune(const char *run_dir, int keep) {
  CHECK(keep >= 1, "keep %d", keep);
  int64_t *steps;
  int n;
  TRY(steps_list(run_dir, &steps, &n));
  Status status = STATUS_OK;
  for (int i = keep; i < n && status.code == CODE_OK; i++) {
    if (i == keep) {
      char *newest = checkpoint_step_path(run_dir, steps[0]);
      status = verify(newest);
      free(newest);
      if (status.code != CODE_OK) break;
    }
    char *path = checkpoint_step_path(run_dir, steps[i]);
    if (unlink(path) != 0 && errno != ENOENT)
      status = status_fail(CODE_CHECKPOINT, "%s: cannot remove: %s", path, strerror(errno));
    free(path);
  }
  free(steps);
  return status;
}
