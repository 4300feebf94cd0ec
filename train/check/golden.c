/* golden: see golden.h. Reading, comparing and keeping the worst comparison; the kinds of cases have their own files. */
#include "train/check/golden.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TWO_PI 6.283185307179586

/* f32: the reference's own formulas run in float32 stay within 2.5e-6 forward, 4.1e-6 in gradients and 2.9e-6 in training
 * losses. bf16 keeps 8 bits, an error of 4e-3 a rounding, and a layer rounds its activations about ten times. The angle
 * adds up over a sequence and turns the states k and ssm with it (0.12 measured); gradients sum what was rounded (0.15), and
 * where dt_limit clamps, a rounding decides on which side a token lies (0.29). INFINITY: not compared. */
static const struct {
  double f64, f32, bf16;
} TOLERANCES[GOLDEN_N_KINDS] = {
    [GOLDEN_FORWARD] = {1e-9, 1e-5, 5e-2},
    [GOLDEN_STATE] = {1e-9, 1e-5, 3e-1},
    [GOLDEN_ANGLE] = {1e-9, 1e-5, 1e-1},
    [GOLDEN_GRADIENT] = {1e-9, 1e-4, 5e-1},
    [GOLDEN_LOSS] = {1e-9, 1e-5, 1e-1},
    [GOLDEN_NORM] = {1e-9, 1e-5, 1e-1},
    [GOLDEN_TRAINED] = {1e-9, INFINITY, INFINITY},
    [GOLDEN_TOKENS] = {0, 0, INFINITY},
};

static double tolerance_of(const GoldenCase *c, GoldenKind kind) {
  double own = c->act == F64 ? TOLERANCES[kind].f64 : c->act == F32 ? TOLERANCES[kind].f32 : TOLERANCES[kind].bf16;
  return isinf(own) || kind == GOLDEN_TOKENS || c->tolerance <= 0 ? own : c->tolerance;
}

bool golden_skips(const GoldenCase *c, GoldenKind kind) { return isinf(tolerance_of(c, kind)); }

/* How much of the tolerance an error uses: NaN counts as all of it, and more. */
static double used(double error, double tolerance) {
  if (!(error <= tolerance)) return tolerance > 0 && error < INFINITY ? error / tolerance : INFINITY;
  return tolerance > 0 ? error / tolerance : 0;
}

void golden_record(GoldenCase *c, GoldenKind kind, double error, const char *where, int64_t step) {
  const double tolerance = tolerance_of(c, kind);
  GoldenResult *worst = c->result;
  if (isnan(error)) error = INFINITY;
  if (worst->where[0] && used(error, tolerance) <= used(worst->error, worst->tolerance)) return;
  worst->error = error, worst->tolerance = tolerance, worst->ok = error <= tolerance;
  if (step > 0) snprintf(worst->where, sizeof worst->where, "%s, step %lld", where, (long long)step);
  else snprintf(worst->where, sizeof worst->where, "%s", where);
}

double golden_scalar_error(GoldenKind kind, double got, double want) {
  double difference = fabs(got - want);
  return kind == GOLDEN_LOSS ? difference : difference / fmax(fabs(want), 1e-12);
}

static Status read_shape(GoldenCase *c, const char *name, H5Shape *shape) {
  TRY(h5_shape(c->file, name, shape));
  if (shape->n_dim > TENSOR_MAX_DIM)
    return status_fail(CODE_CHECKPOINT, "%s: %s has %d dimensions, expected at most %d", c->path, name, shape->n_dim,
                       TENSOR_MAX_DIM);
  if (shape->n_dim == 0) shape->n_dim = 1, shape->dim[0] = 1;
  return STATUS_OK;
}

Status golden_read(GoldenCase *c, const char *name, Tensor **out) {
  H5Shape shape;
  TRY(read_shape(c, name, &shape));
  *out = tensor_new(&c->host, F64, shape.n_dim, shape.dim);
  return shape.count > 0 ? h5_read_f64(c->file, name, (*out)->data, shape.count) : STATUS_OK;
}

Status golden_read_ints(GoldenCase *c, const char *name, Tensor **out) {
  H5Shape shape;
  TRY(read_shape(c, name, &shape));
  *out = tensor_new(&c->host, I32, shape.n_dim, shape.dim);
  return shape.count > 0 ? h5_read_i32(c->file, name, (*out)->data, shape.count) : STATUS_OK;
}

Status golden_read_seqlens(GoldenCase *c, int64_t n_tokens, Tensor **out) {
  *out = NULL;
  if (!h5_has(c->file, "cu_seqlens")) return STATUS_OK;
  Tensor *host;
  TRY(golden_read_ints(c, "cu_seqlens", &host));
  const int64_t n = tensor_count(host);
  const int32_t *start = host->data;
  bool rises = n >= 2 && host->n_dim == 1 && start[0] == 0 && start[n - 1] == n_tokens;
  for (int64_t i = 1; rises && i < n; i++) rises = start[i] > start[i - 1];
  if (!rises)
    return status_fail(CODE_CHECKPOINT, "%s: cu_seqlens must rise from 0 to the %lld tokens, without empty pieces",
                       c->path, (long long)n_tokens);
  *out = tensor_new1(&c->device->step, I32, n);
  device_fill(c->device, *out, host);
  return STATUS_OK;
}

static Status compare(GoldenCase *c, GoldenKind kind, const char *name, const Tensor *got) {
  if (golden_skips(c, kind)) return STATUS_OK;
  const size_t mark = arena_mark(&c->host);
  Tensor *want;
  TRY(golden_read(c, name, &want));
  const int64_t n = tensor_count(want);
  if (got && tensor_count(got) != n)
    return status_fail(CODE_CHECKPOINT, "%s: %s is %s, expected %s", c->path, name, tensor_shape_text(want),
                       tensor_shape_text(got));
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < n; i++) {
    double reference = tensor_get(want, i);
    double error = got ? fabs(tensor_get(got, i) - reference) : INFINITY;
    if (kind == GOLDEN_ANGLE) error = fabs(remainder(error, TWO_PI));
    if (!(error <= worst)) worst = error; /* also NaN */
    largest = fmax(largest, fabs(reference));
  }
  /* A reference of nothing but rounding noise is zero: there only the absolute error means something. */
  golden_record(c, kind, largest > 1e-12 ? worst / largest : worst, name, 0);
  arena_rewind(&c->host, mark);
  return STATUS_OK;
}

Status golden_compare(GoldenCase *c, GoldenKind kind, const char *name, const Tensor *got) {
  if (!got) return compare(c, kind, name, NULL);
  const Tensor host = device_pull(c->device, got);
  return compare(c, kind, name, &host);
}

/* The group holds exactly the table's names. */
static Status same_names(GoldenCase *c, ParamTable *params, const char *group) {
  char **names;
  int n;
  TRY(h5_list(c->file, group, &names, &n));
  Status status = STATUS_OK;
  for (int i = 0; i < n && status.code == CODE_OK; i++)
    if (!params_find(params, names[i]))
      status = status_fail(CODE_CHECKPOINT, "%s: %s/%s belongs to no parameter of this configuration", c->path, group,
                           names[i]);
  if (status.code == CODE_OK && n != params->n_params)
    status = status_fail(CODE_CHECKPOINT, "%s: %s holds %d tensors, the configuration has %d parameters", c->path,
                         group, n, params->n_params);
  h5_list_free(names, n);
  return status;
}

Status golden_load_params(GoldenCase *c, ParamTable *params, const char *group) {
  TRY(same_names(c, params, group));
  const size_t mark = arena_mark(&c->host);
  for (int i = 0; i < params->n_params; i++) {
    Param *param = params->params[i];
    char name[2 * PARAM_NAME_BYTES];
    snprintf(name, sizeof name, "%s/%s", group, param->name);
    Tensor *value;
    TRY(golden_read(c, name, &value));
    if (!tensor_same_shape(value, &param->value))
      return status_fail(CODE_CHECKPOINT, "%s: %s is %s, expected %s", c->path, name, tensor_shape_text(value),
                         tensor_shape_text(&param->value));
    tensor_copy(param_exact(param), value);
    param_refresh(param);
    arena_rewind(&c->host, mark);
  }
  return STATUS_OK;
}

Status golden_compare_params(GoldenCase *c, ParamTable *params, const char *group, GoldenKind kind) {
  if (golden_skips(c, kind)) return STATUS_OK;
  TRY(same_names(c, params, group));
  for (int i = 0; i < params->n_params; i++) {
    Param *param = params->params[i];
    char name[2 * PARAM_NAME_BYTES];
    snprintf(name, sizeof name, "%s/%s", group, param->name);
    if (kind == GOLDEN_GRADIENT) TRY(golden_compare(c, kind, name, &param->grad));
    else TRY(compare(c, kind, name, param_exact(param)));
  }
  return STATUS_OK;
}

/* ---- cases by name */

typedef struct CaseKind {
  const char *prefix, *suffix;
  bool is_folder;
  Status (*check)(GoldenCase *c);
} CaseKind;

static const CaseKind CASE_KINDS[] = {{"mixer_", ".h5", false, golden_check_mixer},
                                      {"forecaster_", ".h5", false, golden_check_forecaster},
                                      {"lm_", "", true, golden_check_lm}};

static const CaseKind *case_kind(const char *name, bool is_folder) {
  for (size_t i = 0; i < sizeof CASE_KINDS / sizeof *CASE_KINDS; i++) {
    const CaseKind *kind = &CASE_KINDS[i];
    if (strncmp(name, kind->prefix, strlen(kind->prefix)) == 0 && base_ends_with(name, kind->suffix) &&
        kind->is_folder == is_folder)
      return kind;
  }
  return NULL;
}

static bool path_is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Address space for what is read of a case. */
#define HOST_BYTES ((size_t)4 << 30)

Status golden_check(Device *device, Dtype act, double tolerance, const char *path, GoldenResult *result) {
  const char *slash = strrchr(path, '/');
  const bool is_folder = path_is_folder(path);
  const CaseKind *kind = case_kind(slash ? slash + 1 : path, is_folder);
  if (!kind) return status_fail(CODE_DATA, "%s: expected a file mixer_*.h5 or forecaster_*.h5, or a folder lm_*", path);
  *result = (GoldenResult){.ok = true};
  GoldenCase c = {.device = device, .act = act, .tolerance = tolerance, .path = path, .result = result};
  char *file_path = is_folder ? base_format("%s/golden.h5", path) : base_strdup(path);
  Status status = h5_open_read(file_path, CODE_CHECKPOINT, &c.file);
  free(file_path);
  if (status.code == CODE_OK) status = arena_open(&c.host, "golden", HOST_BYTES);
  if (status.code != CODE_OK) {
    if (c.file) h5_close(c.file);
    return status;
  }

  const size_t step_mark = arena_mark(&device->step), weights_mark = arena_mark(&device->weights);
  status = kind->check(&c);
  arena_rewind(&device->step, step_mark);
  arena_rewind(&device->weights, weights_mark);
  arena_close(&c.host);
  h5_close(c.file);
  return status;
}

static int compare_paths(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

Status golden_list(const char *folder, char ***paths, int *n) {
  *paths = NULL, *n = 0;
  DIR *dir = opendir(folder);
  if (!dir) return status_fail(CODE_DATA, "%s: cannot read this folder of golden files: %s", folder, strerror(errno));
  for (struct dirent *entry; (entry = readdir(dir));) {
    char *path = base_format("%s/%s", folder, entry->d_name);
    if (!case_kind(entry->d_name, path_is_folder(path))) {
      free(path);
      continue;
    }
    *paths = base_realloc(*paths, (size_t)(*n + 1) * sizeof **paths);
    (*paths)[(*n)++] = path;
  }
  closedir(dir);
  if (*n == 0)
    return status_fail(CODE_DATA, "%s: no golden case here, expected files mixer_*.h5, forecaster_*.h5 or folders lm_*",
                       folder);
  qsort(*paths, (size_t)*n, sizeof **paths, compare_paths);
  return STATUS_OK;
}

void golden_list_free(char **paths, int n) {
  for (int i = 0; i < n; i++) free(paths[i]);
  free(paths);
}
