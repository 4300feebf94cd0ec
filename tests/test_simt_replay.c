/* replay (tensor/replay.h) on the twin of the CUDA backend: work that comes again is launched as a graph, and what it writes
 * each time arrives; an argument that changes, other shapes, other memory or a look at a result never meet an old graph. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "models/aspis.h"
#include "tensor/replay.h"
#include "tests/simt/simt.h"

enum { N = 40, N_TIMES = 12 };

/* Adds what the host writes, times i + 1 for time i, to a vector; each kind of work in its own way. */
typedef enum Kind { KIND_WRITTEN, KIND_ARGUMENT, KIND_SHAPE, KIND_MEMORY, KIND_LANES, KIND_LOOKS } Kind;

typedef struct Work {
  Device device;
  Tensor *sum, *other; /* in the weights arena */
  Kind kind;
  int time;
} Work;

static Work work_open(Kind kind) {
  Work w = {.kind = kind};
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 0);
  const Status status = device_open(&w.device, "simt", F32, (DeviceSizes){1 << 20, 1 << 20, 1 << 20});
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  w.sum = tensor_new1(&w.device.weights, F32, N), w.other = tensor_new1(&w.device.weights, F32, N);
  device_zero(&w.device, w.sum), device_zero(&w.device, w.other);
  return w;
}

static void add_written(Work *w, Tensor *to, int64_t n, float value) {
  const size_t mark = arena_mark(&w->device.step);
  Tensor *x = tensor_new1(&w->device.step, F32, n), part = tensor_over(to->data, F32, 1, &n);
  Tensor host = device_mirror(&w->device, x);
  for (int64_t i = 0; i < n; i++) tensor_set(&host, i, value);
  device_push(&w->device, x);
  add_fwd(&w->device, &(Add){.x = x, .y = &part});
  arena_rewind(&w->device.step, mark);
}

/* The sum goes to and fro between the lanes, twice. */
static void add_on_lanes(Work *w) {
  const BackendLanes *lanes = w->device.backend->lanes;
  for (int i = 0; i < 2; i++) {
    add_fwd(&w->device, &(Add){.x = w->sum, .y = w->sum});
    lanes->follow(1, 0);
    lanes->use(1);
    add_fwd(&w->device, &(Add){.x = w->sum, .y = w->other});
    lanes->mark(i);
    lanes->use(0);
    lanes->follow(0, 1);
  }
  add_fwd(&w->device, &(Add){.x = w->other, .y = w->sum});
}

static void do_work(void *user) {
  Work *w = user;
  const float value = (float)(w->time + 1);
  if (w->kind == KIND_LOOKS) device_pull(&w->device, w->sum);
  if (w->kind == KIND_ARGUMENT) /* sum -= lr sum */
    sgd_fwd(&w->device, &(Sgd){.lr = 0.5 * value, .grad_scale = 1, .value = w->other, .grad = w->sum});
  if (w->kind == KIND_LANES) add_on_lanes(w);
  add_written(w, w->kind == KIND_MEMORY && w->time % 2 ? w->other : w->sum, w->kind == KIND_SHAPE ? N - w->time : N,
              value);
}

/* The bytes of both vectors after N_TIMES, and what became of them. */
static ReplayCounts run(Kind kind, bool on, float *found) {
  Work w = work_open(kind);
  Replay *replay = replay_open(&w.device, on, NULL);
  for (; w.time < N_TIMES; w.time++) replay_run(replay, do_work, &w);
  const Tensor sum = device_pull(&w.device, w.sum), other = device_pull(&w.device, w.other);
  memcpy(found, sum.data, N * sizeof *found), memcpy(found + N, other.data, N * sizeof *found);
  const ReplayCounts counts = replay_counts(replay);
  replay_close(replay);
  device_close(&w.device);
  return counts;
}

Test(simt_replay, gives_the_same_bytes_whatever_changes) {
  const struct {
    Kind kind;
    const char *what;
    int64_t replayed, captured;
  } cases[] = {{KIND_WRITTEN, "other numbers written", N_TIMES - 1, 1},
               {KIND_ARGUMENT, "another argument of a kernel", 0, 0},
               {KIND_SHAPE, "other shapes", 0, 0},
               {KIND_MEMORY, "two memories in turn", N_TIMES - 2, 2},
               {KIND_LANES, "two lanes", N_TIMES - 1, 1},
               {KIND_LOOKS, "a look at a result", 0, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    float off[2 * N], on[2 * N];
    run(cases[i].kind, false, off);
    const ReplayCounts counts = run(cases[i].kind, true, on);
    cr_assert_eq(memcmp(off, on, sizeof off), 0, "%s: other bytes with graphs: %g for %g", cases[i].what, (double)on[0],
                 (double)off[0]);
    cr_assert_eq(counts.replayed, cases[i].replayed, "%s: %lld of %d times by a graph, expected %lld", cases[i].what,
                 (long long)counts.replayed, N_TIMES, (long long)cases[i].replayed);
    cr_assert_eq(counts.captured, cases[i].captured, "%s: %lld graphs", cases[i].what, (long long)counts.captured);
    cr_assert_eq(counts.replayed + counts.one_by_one, N_TIMES, "%s: %lld and %lld of %d times", cases[i].what,
                 (long long)counts.replayed, (long long)counts.one_by_one, N_TIMES);
  }
}

Test(simt_replay, gives_up_and_says_why) {
  Work w = work_open(KIND_LOOKS);
  Replay *replay = replay_open(&w.device, true, NULL);
  for (; w.time < 40; w.time++) replay_run(replay, do_work, &w);
  cr_assert_not_null(replay_given_up(replay), "40 times, and still hoping");
  cr_assert_str_eq(replay_given_up(replay), "it waits for the host");
  replay_close(replay);
  device_close(&w.device);
}

/* Beyond the graphs that are kept the one that was launched least lately makes room. */
Test(simt_replay, drops_the_oldest_graph) {
  Work w = work_open(KIND_SHAPE);
  Replay *replay = replay_open(&w.device, true, NULL);
  for (int turn = 0; turn < 3; turn++)
    for (w.time = 0; w.time < 6; w.time++) replay_run(replay, do_work, &w);
  const ReplayCounts counts = replay_counts(replay);
  cr_assert_eq(counts.one_by_one, 6, "%lld times one by one", (long long)counts.one_by_one);
  cr_assert(counts.dropped > 0 && counts.replayed == 12, "%lld replayed, %lld graphs dropped",
            (long long)counts.replayed, (long long)counts.dropped);
  replay_close(replay);
  device_close(&w.device);
}

/* Greedy tokens of two sequences, each with a prompt of its own. */
static ReplayCounts decode(bool on, bool hybrid, int32_t *made) {
  enum { N_SEQ = 2, N_NEW = 10, VOCAB = 11 };
  ModelConfig config = model_config_default();
  config.d_model = 16, config.n_layer = 2, config.vocab_size = VOCAB, config.pad_vocab_size_multiple = 8;
  config.ssm_cfg = mixer_config_default(LAYER_MAMBA3);
  config.ssm_cfg.d_model = 16, config.ssm_cfg.d_state = 8, config.ssm_cfg.headdim = 8, config.ssm_cfg.chunk_size = 16;
  if (hybrid) config.n_attn_layers = 1, config.attn_layer_idx[0] = 1, config.attn_cfg.num_heads = 2;
  Device device;
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 1);
  const Status status = device_open(&device, "simt", F32, (DeviceSizes){1 << 20, 1 << 22, 64 << 20});
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  Model *model = model_new(&config);
  params_alloc(&model->params, &device, F32, false, 0);
  params_init(&model->params, 5);
  Decoder decoder = decoder_open(model, &device, F32, N_SEQ, 4 + N_NEW);
  if (on) decoder_use_graphs(&decoder);
  float logits[N_SEQ * 16];
  int32_t token[N_SEQ];
  const int32_t prompt[] = {1, 2, 3, 4};
  for (int s = 0; s < N_SEQ; s++) decoder_read(&decoder, s, prompt + s, 2, logits + s * 16);
  for (int i = 0; i < N_NEW; i++) {
    for (int s = 0; s < N_SEQ; s++) {
      token[s] = 0;
      for (int v = 1; v < VOCAB; v++)
        if (logits[s * 16 + v] > logits[s * 16 + token[s]]) token[s] = v;
      made[i * N_SEQ + s] = token[s];
    }
    decoder_step(&decoder, token, logits);
  }
  memcpy(made + N_NEW * N_SEQ, logits, sizeof logits);
  const ReplayCounts counts = on ? replay_counts(decoder.replay) : (ReplayCounts){0};
  decoder_close(&decoder);
  model_free(model);
  device_close(&device);
  return counts;
}

Test(simt_replay, decodes_the_same_tokens_and_logits) {
  for (int hybrid = 0; hybrid < 2; hybrid++) {
    int32_t off[20 + 32] = {0}, on[20 + 32] = {0};
    decode(false, hybrid, off);
    const ReplayCounts counts = decode(true, hybrid, on);
    cr_assert_eq(memcmp(off, on, sizeof off), 0, "%s: other tokens or logits", hybrid ? "hybrid" : "mamba3");
    cr_assert(counts.replayed == 9 && counts.captured == 1, "%s: %lld of 10 steps by %lld graphs",
              hybrid ? "hybrid" : "mamba3", (long long)counts.replayed, (long long)counts.captured);
  }
}

/* What is large goes out in pieces, on another stream than what made it. */
Test(simt_replay, reads_large_tensors_behind_what_makes_them) {
  const int64_t n = (5 << 20) / sizeof(float) + 3;
  Device device;
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 1);
  const Status status = device_open(&device, "simt", F32, (DeviceSizes){16 << 20, 1 << 20, 1 << 20});
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  Tensor *x = tensor_new1(&device.weights, F32, n), *y = tensor_new1(&device.weights, F32, n);
  const Tensor host = device_mirror(&device, x);
  for (int64_t i = 0; i < n; i++) ((float *)host.data)[i] = (float)i;
  for (int time = 0; time < 3; time++) {
    device_push(&device, x);
    device_zero(&device, y);
    add_fwd(&device, &(Add){.x = x, .y = y});
    const Tensor found = device_pull(&device, y);
    for (int64_t i = 0; i < n; i++)
      cr_assert_eq(((const float *)found.data)[i], (float)i, "element %lld is %g", (long long)i,
                   (double)((const float *)found.data)[i]);
  }
  device_close(&device);
}
