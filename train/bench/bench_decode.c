/* bench_decode: cached generation as a user gets it: a prompt scanned, then greedy tokens one by one, on random weights; on request
 * beside generation without a cache, which computes every token from all before it.
 *
 * What bounds a token is reading the weights once. The very weights are read by `peak` in turn with the tokens, so that the
 * ceiling is what memory gave at that moment, in whatever cache they are. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "train/batch.h"
#include "train/bench/bench.h"
#include "train/plan.h"

typedef struct Decoding {
  Plan plan;
  Device device, sums; /* sums: where the reading's results go */
  Model *model;
  Decoder decoder;
  size_t weights_bytes; /* of the model's values, which lie in one block */
  int32_t *token;       /* (n_seq) */
  float *logits;
} Decoding;

/* Tokens of a run; its time is told by the token. */
enum { RUN = 16, WARM = 3, MOST_TOKENS = RUN * (SAMPLES_MAX + WARM) };

/* Tokens of the longest sequence. */
static int64_t room_of(const Bench *bench) { return bench->decode_prompt + max_i64(MOST_TOKENS, bench->decode_tokens); }

static void plan_decoding(Model *model, Device *device, Dtype act, const void *shape) {
  const Bench *bench = shape;
  decoder_plan(model, device, act, bench->decode_batch, bench->decode_prompt, room_of(bench));
}

static Status decoding_open(Decoding *d, const Bench *bench) {
  const Config *config = bench->config;
  const int64_t n_seq = bench->decode_batch;
  *d = (Decoding){0};
  const int64_t longest = bench->decode_tokens ? bench->decode_prompt + bench->decode_tokens - 1 : 0;
  TRY(plan_measure(config, &(PlanShape){.pass = plan_decoding, .pass_shape = bench, .prefix_length = longest},
                   &(GradientShape){.batch_size = 1, .virtual_ranks = 1, .micro_batch_size = 1}, &d->plan));
  TRY(device_open(&d->device, config->device, F32, d->plan.sizes));
  d->model = model_new(&config->model);
  params_alloc(&d->model->params, &d->device, config->dtype, false, 0);
  params_init(&d->model->params, config->seed);
  d->weights_bytes = tensor_bytes(&d->model->params.values_flat);
  d->decoder = decoder_open(d->model, &d->device, config->dtype, n_seq, room_of(bench));
  if (config->train.graph == GRAPH_AUTO) decoder_use_graphs(&d->decoder);
  d->token = base_zalloc((size_t)n_seq * sizeof *d->token);
  d->logits = base_alloc((size_t)(n_seq * model_padded_vocab(&config->model)) * sizeof *d->logits);
  return device_open(&d->sums, config->device, F32, (DeviceSizes){.weights_bytes = d->weights_bytes + (1 << 16)});
}

static void decoding_close(Decoding *d) {
  free(d->token), free(d->logits);
  decoder_close(&d->decoder);
  if (d->model) model_free(d->model);
  device_close(&d->device);
  device_close(&d->sums);
}

/* The weights as rows of reals, one a thread. */
static Peak reading(Decoding *d, int n_threads, double *work) {
  const int64_t dim[] = {n_threads, (int64_t)(d->weights_bytes / sizeof(float)) / n_threads};
  Tensor *x = tensor_new2(&d->sums.weights, F32, dim[0], dim[1]), *y = arena_header(&d->sums.weights, sizeof *y);
  *y = *x;
  x->data = d->model->params.values_flat.data;
  return (Peak){.kind = PEAK_READ, .n_rounds = 1, .x = x, .y = y, .work = work};
}

/* The prompt, read as long as it takes to time it; the last reading is what is continued. */
static void time_prompt(Decoding *d, const Bench *bench, Samples *samples) {
  const int64_t n = bench->decode_prompt;
  Batch prompt = batch_random(&bench->config->model, 1, n, bench->config->seed);
  do {
    for (int64_t s = 0; s < bench->decode_batch; s++)
      model_state_put(d->model, &d->device, &d->decoder.state, s, NULL, 0);
    const double start = base_seconds();
    decoder_read(&d->decoder, 0, prompt.token, n, d->logits);
    samples_add(samples, base_seconds() - start, bench->seconds);
  } while (!samples_enough(samples, bench->seconds));
  const int64_t width = model_padded_vocab(&bench->config->model);
  for (int64_t s = 1; s < bench->decode_batch; s++) {
    model_state_put(d->model, &d->device, &d->decoder.state, s, &d->decoder.state, 0);
    memcpy(d->logits + s * width, d->logits, (size_t)width * sizeof *d->logits);
  }
  batch_release(&prompt);
}

static void take_likeliest(Decoding *d, const Bench *bench) {
  const ModelConfig *c = &bench->config->model;
  const int64_t width = model_padded_vocab(c);
  const Tensor logits = tensor_over(d->logits, F32, 2, (const int64_t[]){bench->decode_batch, width});
  for (int64_t s = 0; s < bench->decode_batch; s++)
    d->token[s] = sample_token(&logits, s, c->vocab_size, &(SampleOptions){.top_p = 1}, 0);
}

static void time_tokens(Decoding *d, const Bench *bench, Samples *steps, Samples *reads) {
  double work;
  Peak peak = reading(d, omp_get_max_threads(), &work);
  peak.n_rounds = RUN;
  for (int run = 0; run < WARM || !samples_enough(steps, bench->seconds / RUN); run++) {
    steps->warm = reads->warm = run >= WARM;
    double start = base_seconds();
    for (int i = 0; i < RUN; i++) {
      take_likeliest(d, bench);
      decoder_step(&d->decoder, d->token, d->logits);
    }
    samples_add(steps, (base_seconds() - start) / RUN, bench->seconds);
    start = base_seconds();
    peak_fwd(&d->sums, &peak);
    samples_add(reads, (base_seconds() - start) / RUN, bench->seconds);
  }
}

static double time_cached(Decoding *d, const Bench *bench, const Batch *text) {
  model_state_put(d->model, &d->device, &d->decoder.state, 0, NULL, 0);
  const double start = base_seconds();
  decoder_read(&d->decoder, 0, text->token, bench->decode_prompt, d->logits);
  for (int64_t i = 1; i < bench->decode_tokens; i++) {
    take_likeliest(d, bench);
    decoder_step(&d->decoder, d->token, d->logits);
  }
  take_likeliest(d, bench);
  return base_seconds() - start;
}

/* The logits behind a prefix, from its first token on; random tokens cost what its own would. */
static double time_prefix(Decoding *d, const Bench *bench, const Batch *text, int64_t n) {
  Device *device = &d->device;
  const size_t mark = arena_mark(&device->step);
  Tape tape = tape_make(device, bench->config->dtype, false);
  const Batch prefix = {.n_seq = 1, .length = n, .token = text->token};
  const double start = base_seconds();
  device_pull(device, lm_last_logits(d->model, &tape, batch_tensor(&prefix, prefix.token, &tape), NULL, NULL));
  const double seconds = base_seconds() - start;
  tape_reset(&tape, mark);
  return seconds;
}

/* All tokens without a cache would take minutes: of the prefixes, from the first one to the last, a few are computed, and the
 * time of those between is taken to lie between. */
enum { N_PREFIXES = 9 };

static double time_uncached(Decoding *d, const Bench *bench, const Batch *text) {
  double sum = 0, before = 0;
  time_prefix(d, bench, text, bench->decode_prompt); /* warm */
  for (int64_t i = 0; i < N_PREFIXES; i++) {
    const int64_t n = bench->decode_prompt + i * (bench->decode_tokens - 1) / (N_PREFIXES - 1);
    const double now = time_prefix(d, bench, text, n);
    if (i > 0) sum += (before + now) / 2;
    before = now;
  }
  return sum / (N_PREFIXES - 1) * (double)bench->decode_tokens;
}

static void compare_cache(Decoding *d, const Bench *bench, const char *name, const char *what) {
  Batch text = batch_random(&bench->config->model, 1, bench->decode_prompt + bench->decode_tokens, bench->config->seed);
  const double cached = time_cached(d, bench, &text), uncached = time_uncached(d, bench, &text);
  char *both[] = {base_format("%s: with the prompt", what),
                  base_format("%s: %.3g times as long, by %d prefixes", what, uncached / cached, N_PREFIXES)};
  for (int i = 0; i < 2; i++) {
    const Samples samples = {.seconds = {i ? uncached : cached}, .n = 1};
    char *pass = base_format("%lld %scached", (long long)bench->decode_tokens, i ? "un" : "");
    bench_print(
        bench,
        &(BenchLine){
            .name = name, .pass = pass, .what = both[i], .samples = &samples, .tokens = (double)bench->decode_tokens});
    free(pass), free(both[i]);
  }
  batch_release(&text);
}

static Status bench_decode(const Bench *bench, const BenchCase *self) {
  Decoding d;
  if (bench->config->model.task != TASK_LM) return STATUS_OK; /* among all cases; asked for by name it is refused */
  Status status = decoding_open(&d, bench);
  if (status.code == CODE_OK) {
    Samples prompt = {0}, steps = {0}, reads = {0};
    time_prompt(&d, bench, &prompt);
    time_tokens(&d, bench, &steps, &reads);
    const ModelConfig *m = &bench->config->model;
    const StateBytes state = model_state_bytes(d.model, F32);
    char *what = base_format("%s: d_model %d x %d, %.4g M parameters, %lld after %lld, state %.2f MiB",
                             bench->config->name, m->d_model, m->n_layer, (double)d.plan.n_params / 1e6,
                             (long long)bench->decode_batch, (long long)bench->decode_prompt,
                             (double)(state.fixed + bench->decode_prompt * state.per_token) / 1048576.0);
    bench_print(bench, &(BenchLine){.name = self->name,
                                    .pass = "prompt",
                                    .what = what,
                                    .samples = &prompt,
                                    .tokens = (double)bench->decode_prompt});
    bench_print(bench, &(BenchLine){.name = self->name,
                                    .pass = "token",
                                    .what = what,
                                    .samples = &steps,
                                    .bytes = (double)d.weights_bytes,
                                    .beside = &reads,
                                    .tokens = (double)bench->decode_batch});
    if (bench->decode_tokens) compare_cache(&d, bench, self->name, what);
    free(what);
  }
  decoding_close(&d);
  return status;
}

const BenchCase bench_decodes[] = {
    {"decode", NULL, "cached generation: a prompt, then tokens one by one (--batch, --prompt, --tokens)", bench_decode,
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
