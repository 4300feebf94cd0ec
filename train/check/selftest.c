/* selftest: see selftest.h. */
#include "train/check/selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "optim/optim.h"
#include "tensor/plugin.h"
#include "train/config/config.h"
#include "train/gradient.h"

enum { N_SEQ = 2, LENGTH = 70, N_PROMPT = 9, N_DECODED = 3, MAX_SETS = 20 };

typedef struct Case {
  const char *name, *sets[MAX_SETS];
  bool jumps; /* gradients jump where a rounding moves an error across zero: float32 alone */
} Case;
#define SMALL                                                                                                          \
  "model.d_model=64", "model.n_layer=2", "model.vocab_size=61", "model.ssm_cfg.d_state=32",                            \
      "model.ssm_cfg.headdim=16", "model.ssm_cfg.chunk_size=32"
#define FORECAST                                                                                                       \
  "model.task=forecast", "data.kind=series", "model.context=70", "model.horizon=5", "model.input_dim=3",               \
      "model.output_dim=3"
static const Case CASES[] = {
    {"Mamba-2", {SMALL, "model.ssm_cfg.layer=Mamba2", "model.ssm_cfg.ngroups=2"}, false},
    {"Mamba-3", {SMALL, "model.ssm_cfg.is_outproj_norm=true", "model.tie_embeddings=false"}, false},
    {"Mamba-3 MIMO and attention",
     {SMALL, "model.ssm_cfg.is_mimo=true", "model.attn_layer_idx=[1]", "model.attn_cfg.num_heads=4",
      "model.attn_cfg.num_heads_kv=2", "model.attn_cfg.rotary_emb_dim=8", "model.d_intermediate=96"},
     false},
    {"forecaster",
     {SMALL, FORECAST, "model.revin=true", "model.revert=true", "model.cycle=7", "model.dropout=0.2", "optim.kind=sgd"},
     false},
    {"forecaster of quantiles",
     {SMALL, FORECAST, "model.loss=quantile", "model.linear=true", "model.bidirectional=true"},
     true},
};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

/* Of the largest entry. Float32: what the golden files allow gradients. BF16: the two round at other places, and a rounding is
 * 2^-8; curves of the twin's training runs part by as much (tests/scripts/test_cuda_twin.sh). Updates start from equal
 * numbers. */
static double tolerance_of(Dtype act) { return act == BF16 ? 1e-1 : 1e-3; }
static const double NORM_TOLERANCE = 1e-5, UPDATE_TOLERANCE = 1e-5;

typedef struct Side {
  Device device;
  Model *model;
} Side;

static Status side_open(Side *s, const Config *config, const char *device) {
  *s = (Side){0};
  TRY(device_open(&s->device, device, F32, (DeviceSizes){(size_t)64 << 20, (size_t)128 << 20, (size_t)96 << 20}));
  s->model = model_new(&config->model);
  s->model->dropout_seed = 1;
  params_alloc(&s->model->params, &s->device, config->dtype, true,
               gradient_n_spare(&(GradientShape){N_SEQ, 2, 1, 0, 0, 0}));
  params_init(&s->model->params, 1);
  return STATUS_OK;
}
static void side_close(Side *s) {
  if (s->model) model_free(s->model);
  if (s->device.backend) device_close(&s->device);
}

static double largest(const float *x, int64_t n) {
  double most = 0;
  for (int64_t i = 0; i < n; i++) most = fmax(most, fabs((double)x[i]));
  return most;
}

/* |got - want| over the largest |want|, or `least` where that is more; NaN is the worst. */
static double off_by(const float *got, const float *want, int64_t n, double least) {
  double worst = 0;
  for (int64_t i = 0; i < n; i++) {
    const double off = fabs((double)got[i] - (double)want[i]);
    if (!(off <= worst)) worst = isnan(off) ? INFINITY : off;
  }
  return worst / fmax(fmax(largest(want, n), least), 1e-30);
}

static Status judge(const Case *c, Dtype act, const char *what, const char *of, double error, double tolerance) {
  if (error <= tolerance) return STATUS_OK;
  return status_fail(
      CODE_CHECK_FAILED,
      "device: cuda: this GPU fails its self-test: %s, %s: %s%s is off by %.2g of its largest number, at most "
      "%.0e expected; use device: cpu, and tests/gpu/run.sh finds the kernel (ASPIS_SELFTEST=never leaves "
      "the test out)",
      c->name, dtype_name(act), what, of, error, tolerance);
}

static Status compare_gradients(const Case *c, const Config *config, Side *cpu, Side *gpu, const Batch *batch) {
  const GradientShape shape = {.batch_size = N_SEQ, .virtual_ranks = 2, .micro_batch_size = 1};
  const double want = gradient_step(cpu->model, &cpu->device, config->dtype, &shape, batch, NULL);
  const double got = gradient_step(gpu->model, &gpu->device, config->dtype, &shape, batch, NULL);
  const double tolerance = tolerance_of(config->dtype);
  TRY(judge(c, config->dtype, "the loss", "", isfinite(got) ? fabs(got - want) / fabs(want) : INFINITY, tolerance));
  ParamTable *a = &cpu->model->params, *b = &gpu->model->params;
  const double least = 1e-3 * largest(a->grads_flat.data, tensor_count(&a->grads_flat));
  for (int i = 0; i < a->n_params; i++) {
    const Tensor pulled = device_pull(&gpu->device, &b->params[i]->grad);
    TRY(judge(c, config->dtype, "the gradient of ", a->params[i]->name,
              off_by(pulled.data, a->params[i]->grad.data, tensor_count(&pulled), least), tolerance));
    memcpy(a->params[i]->grad.data, pulled.data, tensor_bytes(&pulled)); /* the updates begin with the same */
  }
  return STATUS_OK;
}

static Status compare_updates(const Case *c, const Config *config, Side *cpu, Side *gpu) {
  const Param *bad[2] = {NULL, NULL};
  const double want = optim_grad_norm(&cpu->model->params, &cpu->device, &bad[0]);
  const double got = optim_grad_norm(&gpu->model->params, &gpu->device, &bad[1]);
  TRY(judge(c, config->dtype, "the gradients' norm", "", bad[1] ? INFINITY : fabs(got - want) / want, NORM_TOLERANCE));
  optim_update(&cpu->model->params, &cpu->device, &config->optim, 1e-2, optim_clip_scale(want, 1), 1);
  optim_update(&gpu->model->params, &gpu->device, &config->optim, 1e-2, optim_clip_scale(want, 1), 1);
  for (int i = 0; i < cpu->model->params.n_params; i++) {
    Param *a = cpu->model->params.params[i], *b = gpu->model->params.params[i];
    const Tensor *exact[] = {param_exact(a), param_exact(b)};
    TRY(judge(c, config->dtype, "the update of ", a->name,
              off_by(exact[1]->data, exact[0]->data, tensor_count(exact[0]), 1e-2), UPDATE_TOLERANCE));
  }
  return STATUS_OK;
}

static Status compare_tokens(const Case *c, const Config *config, Side *cpu, Side *gpu) {
  if (config->model.task != TASK_LM) return STATUS_OK;
  Side *sides[] = {cpu, gpu};
  const int64_t width = model_padded_vocab(&config->model);
  float *logits = base_alloc((size_t)(2 * width) * sizeof *logits);
  Decoder decoder[2];
  int32_t prompt[N_PROMPT];
  for (int32_t i = 0; i < N_PROMPT; i++) prompt[i] = (i * 7 + 3) % config->model.vocab_size;
  for (int i = 0; i < 2; i++) {
    decoder[i] = decoder_open(sides[i]->model, &sides[i]->device, config->dtype, 1, N_PROMPT + N_DECODED);
    decoder_read(&decoder[i], 0, prompt, N_PROMPT, logits + i * width);
  }
  Status status = STATUS_OK;
  for (int32_t t = 0; t <= N_DECODED && status.code == CODE_OK; t++) {
    status = judge(c, config->dtype, t ? "a decoded token's logits" : "a prompt's logits", "",
                   off_by(logits + width, logits, config->model.vocab_size, 0), tolerance_of(config->dtype));
    for (int i = 0; i < 2 && t < N_DECODED; i++) decoder_step(&decoder[i], &t, logits + i * width);
  }
  free(logits);
  return status;
}

static Status compare(const Case *c, const Config *config, const char *device) {
  Side cpu, gpu;
  TRY_OR(side_open(&cpu, config, "cpu"), side_close(&cpu));
  Status status = side_open(&gpu, config, device);
  if (status.code == CODE_OK) {
    Batch batch = batch_random(&config->model, N_SEQ, LENGTH, 1);
    status = compare_gradients(c, config, &cpu, &gpu, &batch);
    if (status.code == CODE_OK) status = compare_updates(c, config, &cpu, &gpu);
    if (status.code == CODE_OK) status = compare_tokens(c, config, &cpu, &gpu);
    batch_release(&batch);
  }
  side_close(&gpu);
  side_close(&cpu);
  return status;
}

static Status run_case(const Case *c, Dtype act, const char *device) {
  const char *sets[MAX_SETS + 1];
  int n = 0;
  for (; n < MAX_SETS && c->sets[n]; n++) sets[n] = c->sets[n];
  sets[n++] = act == BF16 ? "dtype=bf16" : "dtype=f32";
  Config config = {0};
  Status status = config_load(NULL, sets, n, &config);
  if (status.code == CODE_OK) {
    config_fit_any(&config);
    status = compare(c, &config, device);
  }
  config_free(&config);
  return status;
}

/* ---- what is remembered */

/* The line of a GPU that passed, without its date. */
static char *line_of(const Backend *backend) {
  char *path = plugin_path("cuda");
  struct stat file = {0};
  if (path) stat(path, &file);
  char *line = base_format("%s | plug-in of %lld bytes, %lld | %s", backend->identity, (long long)file.st_size,
                           (long long)file.st_mtime, ASPIS_COMMIT);
  free(path);
  return line;
}

/* NULL where there is no place for it. */
static char *cache_folder(void) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (cache && *cache == '/') return base_format("%s/aspis", cache);
  if (!home || !*home) return NULL;
  char *parent = base_format("%s/.cache", home);
  mkdir(parent, 0777);
  free(parent);
  return base_format("%s/.cache/aspis", home);
}

static bool has_line(const char *path, const char *line) {
  FILE *file = fopen(path, "r");
  char text[1024];
  bool found = false;
  while (file && !found && fgets(text, sizeof text, file)) found = strncmp(text, line, strlen(line)) == 0;
  if (file) fclose(file);
  return found;
}

/* Where it cannot be kept the next use asks again. */
static void add_line(const char *folder, const char *path, const char *line) {
  mkdir(folder, 0777);
  FILE *file = fopen(path, "a");
  if (!file) return;
  char date[32] = "";
  const time_t now = time(NULL);
  struct tm utc;
  if (gmtime_r(&now, &utc)) strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &utc);
  fprintf(file, "%s | passed %s\n", line, date);
  fclose(file);
}

static Status run_all(const char *device) {
  for (int i = 0; i < N_CASES; i++) {
    TRY(run_case(&CASES[i], F32, device));
    if (!CASES[i].jumps) TRY(run_case(&CASES[i], BF16, device));
  }
  return STATUS_OK;
}

Status selftest_once(const char *device) {
  const char *asked = getenv("ASPIS_SELFTEST");
  const bool always = asked && strcmp(asked, "always") == 0;
  if (asked && strcmp(asked, "never") == 0) return STATUS_OK;
  Device dry;
  TRY(device_open_dry(&dry, device, F32));
  const Backend *backend = dry.backend;
  device_close(&dry);
  const bool is_gpu = backend->memory && backend->memory->out_of_reach;
  if (!backend->memory || (!is_gpu && (!asked || !*asked))) return STATUS_OK;
  char *line = line_of(backend), *folder = cache_folder(), *path = folder ? base_format("%s/selftest", folder) : NULL;
  Status status = STATUS_OK;
  if (always || !path || !has_line(path, line)) {
    const double start = base_seconds();
    fprintf(stderr, "aspis: first use of %s: self-test ...", backend->identity);
    status = run_all(device);
    if (status.code == CODE_OK) fprintf(stderr, " passed in %.1f s\n", base_seconds() - start);
    else fprintf(stderr, " FAILED\n");
    if (status.code == CODE_OK && path) add_line(folder, path, line);
  }
  free(line), free(folder), free(path);
  return status;
}
