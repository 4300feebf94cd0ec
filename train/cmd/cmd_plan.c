/* aspis plan CONFIG: what a run would need: parameters by part, bytes by arena, FLOPs a token, micro-batch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/cmd/command.h"
#include "train/plan.h"
#include "train/plan_ranks.h"
#include "train/sample.h"

/* A number with a unit of so many thousands (base 1000 or 1024); *value stays where the option was not given. */
static Status read_scaled(const Command *command, const char *name, double base, const char *expected, double *value) {
  static const char UNITS[] = "KMGTP";
  const char *text = command_text(command, name, NULL);
  if (!text) return STATUS_OK;
  char *end;
  double scaled = strtod(text, &end);
  const char *unit = *end ? strchr(UNITS, *end) : NULL;
  for (const char *u = UNITS; unit && u <= unit; u++) scaled *= base;
  if (end == text || (*end && (!unit || end[1])) || !(scaled > 0 && scaled < 0x1p63))
    return status_fail(CODE_USAGE, "--%s: found %s, expected a %s", name, text, expected);
  *value = scaled;
  return STATUS_OK;
}

static Status read_bytes(const Command *command, const char *name, size_t *bytes) {
  double value = (double)*bytes;
  TRY(read_scaled(command, name, 1024, "size like 80G or 512M", &value));
  if (command_has(command, name)) *bytes = (size_t)value; /* else not by way of a double: it may be SIZE_MAX */
  return STATUS_OK;
}

/* The part of the model a parameter belongs to, by its canonical name. */
static const char *part_of(const char *name) {
  static const struct {
    const char *piece, *part;
  } PARTS[] = {{"embedding", "embedding"}, {"lm_head", "head"}, {"output_proj", "head"}, {"input_proj", "input"},
               {".mixer.", "mixers"},      {".mlp.", "MLPs"},   {"norm", "norms"}};
  for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++)
    if (strstr(name, PARTS[i].piece)) return PARTS[i].part;
  return "other";
}

typedef struct PartCount {
  const char *part;
  int64_t n;
} PartCount;
enum { MAX_PARTS = 8 };

static int count_parts(const Config *config, PartCount *counts) {
  Model *model = model_new(&config->model);
  int n = 0;
  for (int i = 0; i < model->params.n_params; i++) {
    const Param *p = model->params.params[i];
    const char *part = part_of(p->name);
    int at = 0;
    while (at < n && strcmp(counts[at].part, part) != 0) at++;
    if (at == n) counts[n++] = (PartCount){part, 0};
    counts[at].n += tensor_count(&p->value);
  }
  model_free(model);
  return n;
}

/* Tokens of a training sequence, as the config alone tells. */
static int64_t sequence_length(const Config *config) {
  return config->model.task == TASK_LM ? config->data.seq_len : forecaster_window_rows(&config->model);
}

/* What one sequence's state takes (models/state.h). */
static StateBytes state_bytes(const Config *config) {
  Model *model = model_new(&config->model);
  const StateBytes bytes = model_state_bytes(model, F32);
  model_free(model);
  return bytes;
}

static void print_table(const Config *config, const Plan *plan, const PartCount *counts, int n, size_t memory) {
  const double mib = 1048576.0;
  printf("parameters   %14lld\n", (long long)plan->n_params);
  for (int i = 0; i < n; i++) printf("  %-10s %14lld\n", counts[i].part, (long long)counts[i].n);
  printf("memory       %14.1f MiB of %.0f\n", (double)plan_total_bytes(plan) / mib, (double)memory / mib);
  printf("  %-10s %14.1f MiB   values, gradients, moments\n", "weights", (double)plan->sizes.weights_bytes / mib);
  printf("  %-10s %14.1f MiB   activations and their gradients, one micro-batch\n", "step",
         (double)plan->sizes.step_bytes / mib);
  printf("  %-10s %14.1f MiB   one kernel's workspace\n", "scratch", (double)plan->sizes.scratch_bytes / mib);
  if (plan->graph_bytes > 0)
    printf("  %-10s %14.1f MiB   what steps launched as CUDA graphs find written\n", "graphs",
           (double)plan->graph_bytes / mib);
  if (plan->snapshot_bytes > 0)
    printf("  %-10s %14.1f MiB   a copy of a checkpoint, so that training goes on while it is written\n", "checkpoint",
           (double)plan->snapshot_bytes / mib);
  if (plan->snapshot_lacks > 0)
    printf("  %-10s %14s       no room for a copy of %.1f MiB: training waits while one is written\n", "checkpoint",
           "-", (double)plan->snapshot_lacks / mib);
  const StateBytes state = state_bytes(config);
  printf("state        %14.3f MiB a sequence", (double)state.fixed / mib);
  if (state.per_token) printf(", and %.3f KiB a token", (double)state.per_token / 1024);
  printf("\nbatch        %14d sequences, %d parts, micro-batch %d\n", plan->gradient.batch_size,
         plan->gradient.virtual_ranks, plan->gradient.micro_batch_size);
  printf("work         %14.3f MFLOP a token, forward and backward\n", plan->flops_per_token / 1e6);
  if (config->train.steps > 0)
    printf("run          %14lld steps, %.3g tokens, %.3g PFLOP\n", (long long)config->train.steps,
           (double)config->train.steps * config->train.batch_size * (double)sequence_length(config),
           plan->flops_per_token * (double)config->train.steps * config->train.batch_size *
               (double)sequence_length(config) / 1e15);
}

static void print_json(const Config *config, const Plan *plan, const PartCount *counts, int n) {
  const StateBytes state = state_bytes(config);
  printf("{\"parameters\": %lld, \"by_part\": {", (long long)plan->n_params);
  for (int i = 0; i < n; i++) printf("%s\"%s\": %lld", i ? ", " : "", counts[i].part, (long long)counts[i].n);
  printf("}, \"weights_bytes\": %zu, \"step_bytes\": %zu, \"scratch_bytes\": %zu, \"graph_bytes\": %zu, "
         "\"snapshot_bytes\": %zu, \"snapshot_lacks_bytes\": %zu, \"flops_per_token\": %.0f, "
         "\"state_bytes\": %lld, \"state_bytes_per_token\": %lld, \"batch_size\": %d, \"virtual_ranks\": %d, "
         "\"micro_batch_size\": %d",
         plan->sizes.weights_bytes, plan->sizes.step_bytes, plan->sizes.scratch_bytes, plan->graph_bytes,
         plan->snapshot_bytes, plan->snapshot_lacks, plan->flops_per_token, (long long)state.fixed,
         (long long)state.per_token, plan->gradient.batch_size, plan->gradient.virtual_ranks,
         plan->gradient.micro_batch_size);
}

/* "400G", or bits a second; without `name`, `otherwise`. */
static Status read_rate(const Command *command, const char *name, double otherwise, double *value) {
  *value = otherwise;
  return read_scaled(command, name, 1000, "rate like 400G or 25T", value);
}

static Status read_cluster(const Command *command, Cluster *cluster) {
  double network, link, micros = 10;
  int64_t per_host = 8;
  if (!command_has(command, "rate"))
    return status_fail(CODE_USAGE,
                       "plan: --network: found no --rate, expected what one rank computes, in FLOP/s: `aspis bench "
                       "step --config CONFIG` measures it");
  TRY(read_rate(command, "rate", 0, &cluster->rate));
  TRY(read_rate(command, "network", 0, &network));
  TRY(read_rate(command, "link", network, &link));
  TRY(command_real(command, "latency", 0, 1e6, &micros));
  TRY(command_int(command, "ranks-per-host", 1, 1 << 10, &per_host));
  if (per_host & (per_host - 1))
    return status_fail(CODE_USAGE, "--ranks-per-host: found %d, expected a power of two", (int)per_host);
  cluster->net_bytes = network / 8, cluster->host_bytes = link / 8;
  cluster->latency = micros * 1e-6, cluster->ranks_per_host = (int)per_host;
  return STATUS_OK;
}

static RanksShape ranks_shape(const Config *config, const Plan *plan) {
  const double pass = (double)plan->gradient.micro_batch_size * (double)sequence_length(config);
  return (RanksShape){.flops_per_token = plan->flops_per_token,
                      .gradient_bytes = 4.0 * (double)plan->n_params,
                      .tokens_per_pass = pass,
                      .n_layers = config->model.n_layer,
                      .n_buckets = buckets_most(4 * plan->n_params, 1e6 * config->train.bucket_mb)};
}

/* Two ways to use more ranks: the config's batch cut finer, or a batch that grows with them, a part of it for each. */
static void print_ranks(const Config *config, const Plan *plan, const Cluster *cluster, int n_ranks, bool json) {
  const RanksShape shape = ranks_shape(config, plan);
  const double length = (double)sequence_length(config), batch = (double)plan->gradient.batch_size * length;
  const double part = batch / plan->gradient.virtual_ranks;
  if (!json) {
    printf("\nstep of n ranks, on paper: %.4g TFLOP/s a rank, %.4g GB/s within a host of %d, %.4g GB/s between hosts, "
           "%.3g us a message\n",
           cluster->rate / 1e12, cluster->host_bytes / 1e9, cluster->ranks_per_host, cluster->net_bytes / 1e9,
           cluster->latency * 1e6);
    printf("               the batch of %d sequences, cut finer           a batch of n parts of %d sequences\n",
           plan->gradient.batch_size, plan->gradient.batch_size / plan->gradient.virtual_ranks);
    printf("%6s %10s %10s %10s %7s %9s %12s %12s %7s %9s\n", "ranks", "sum ms", "compute ms", "step ms", "effic.",
           "at once", "compute ms", "tokens/s", "effic.", "at once");
  }
  for (int n = 1; n <= n_ranks; n *= 2) {
    const bool fits = n <= plan->gradient.batch_size;
    const RanksTime cut = plan_ranks(&shape, cluster, n, batch / n), grown = plan_ranks(&shape, cluster, n, part);
    if (json) {
      printf("%s{\"ranks\": %d, \"sum_ms\": %.6g, ", n > 1 ? ", " : "", n, 1e3 * grown.sum);
      if (fits)
        printf("\"batch\": {\"step_ms\": %.6g, \"efficiency\": %.4f, \"efficiency_at_once\": %.4f}, ", 1e3 * cut.step,
               cut.compute / cut.step, cut.compute / cut.at_once);
      printf("\"part_each\": {\"step_ms\": %.6g, \"tok_per_s\": %.6g, \"efficiency\": %.4f, \"efficiency_at_once\": "
             "%.4f}}",
             1e3 * grown.step, n * part / grown.step, grown.compute / grown.step, grown.compute / grown.at_once);
      continue;
    }
    printf("%6d %10.3f ", n, 1e3 * grown.sum);
    if (fits)
      printf("%10.2f %10.2f %6.1f%% %8.1f%% ", 1e3 * cut.compute, 1e3 * cut.step, 100 * cut.compute / cut.step,
             100 * cut.compute / cut.at_once);
    else printf("%10s %10s %7s %9s ", "-", "-", "-", "-");
    printf("%12.2f %12.4g %6.1f%% %8.1f%%\n", 1e3 * grown.compute, n * part / grown.step,
           100 * grown.compute / grown.step, 100 * grown.compute / grown.at_once);
  }
}

static bool needs_data(const Config *config) {
  const ModelConfig *m = &config->model;
  return m->task == TASK_LM ? config->vocab_size_auto : m->input_dim == 0 || m->output_dim == 0;
}

/* The vocabulary and lengths come from the data where it is there; a text that is not there yet is planned for by the
 * tokenizer's size. */
static Status find_shape(Config *config, PlanShape *shape) {
  Dataset *dataset;
  Status opened = dataset_open(&config->data, config->seed, NULL, &dataset);
  if (opened.code == CODE_OK) {
    TRY_OR(config_fit_data(config, dataset), dataset_close(dataset));
    *shape = plan_training(config, dataset);
    dataset_close(dataset);
    return STATUS_OK;
  }
  if (needs_data(config)) return opened;
  status_clear(&opened);
  const int64_t length = sequence_length(config);
  *shape = (PlanShape){.train_length = length,
                       .eval_length = length,
                       .sample_length = config->train.sample_every > 0 ? sample_max_length(config) : 0};
  return STATUS_OK;
}

static Status plan_config(Config *config, const Command *command) {
  size_t memory = plan_memory_available(config->device);
  TRY(read_bytes(command, "device-memory", &memory));
  int64_t n_ranks = 1;
  Cluster cluster = {0};
  TRY(command_int(command, "ranks", 1, 1 << 16, &n_ranks));
  if (n_ranks & (n_ranks - 1))
    return status_fail(CODE_USAGE, "--ranks: found %lld, expected a power of two", (long long)n_ranks);
  if (command_has(command, "network")) TRY(read_cluster(command, &cluster));
  PlanShape shape;
  TRY(find_shape(config, &shape));
  shape.n_ranks = (int)n_ranks;
  Plan plan;
  TRY(plan_make(config, &shape, memory, &plan));
  if (!command_has(command, "network") && plan.gradient.virtual_ranks % n_ranks != 0)
    return status_fail(CODE_USAGE, "--ranks: found %lld, expected a divisor of train.virtual_ranks = %d",
                       (long long)n_ranks, plan.gradient.virtual_ranks);
  PartCount counts[MAX_PARTS];
  int n = count_parts(config, counts);
  const bool json = command_has(command, "json");
  if (json) print_json(config, &plan, counts, n);
  else print_table(config, &plan, counts, n, memory);
  if (command_has(command, "network")) {
    if (json) printf(", \"ranks\": [");
    print_ranks(config, &plan, &cluster, (int)n_ranks, json);
    if (json) printf("]");
  }
  if (json) printf("}\n");
  return STATUS_OK;
}

static Status cmd_plan(const Command *command) {
  const char **sets;
  int n_sets = command_all(command, "set", &sets);
  Config config = {0};
  Status status = config_load(command->args[0], sets, n_sets, &config);
  free(sets);
  if (status.code == CODE_OK) status = plan_config(&config, command);
  config_free(&config);
  return status;
}

const CommandSpec command_plan = {
    .name = "plan",
    .summary = "what a config would need: parameters, memory, FLOPs; nothing is run",
    .usage = "plan CONFIG [options]",
    .examples = {"aspis plan configs/shakespeare_char.yaml", "aspis plan c.yaml --device-memory 16G --json",
                 "aspis plan c.yaml --ranks 1024 --network 400G --link 3600G --rate 300T"},
    .options =
        (const OptionSpec[]){OPTION_SET,
                             {"device-memory", "SIZE", "plan for this much memory (default: what is free)", false},
                             {"ranks", "N", "as one of N ranks; with --network, of 1, 2, 4 ... N", false},
                             {"network", "BITS", "bits a second of a rank between hosts (400G): predicts steps", false},
                             {"rate", "FLOPS", "FLOP/s of a rank (400T), measured by `aspis bench step`", false},
                             {"link", "BITS", "bits a second of a rank within a host (default: the network's)", false},
                             {"ranks-per-host", "N", "(default: 8)", false},
                             {"latency", "US", "microseconds of a message (default: 10)", false},
                             OPTION_JSON,
                             {0}},
    .args = "CONFIG",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_plan,
};
