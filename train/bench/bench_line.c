/* bench_line: times gathered, and one line for each: a table for people, JSON for programs. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tensor/base.h"
#include "train/bench/bench.h"
#include "train/format.h"
#include "train/proc.h"

void samples_add(Samples *samples, double run_seconds, double seconds) {
  samples->spent += run_seconds;
  if (samples->warm) {
    samples->seconds[samples->n++] = run_seconds;
    return;
  }
  samples->n_warm++;
  samples->warm = samples->spent >= 1 || (samples->n_warm >= 2 && samples->spent >= 0.2 * seconds);
  if (samples->warm) samples->spent = 0;
}

bool samples_enough(const Samples *samples, double seconds) {
  return samples->n == SAMPLES_MAX || (samples->n >= SAMPLES_MIN && samples->spent >= seconds);
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The median and the least of some times. */
static double median_of(const Samples *samples, double *least) {
  double sorted[SAMPLES_MAX];
  memcpy(sorted, samples->seconds, sizeof sorted);
  qsort(sorted, (size_t)samples->n, sizeof *sorted, compare);
  *least = sorted[0];
  return sorted[samples->n / 2];
}

/* The seconds this work takes at the machine's rates, and what holds it there. */
static double ceiling(const Bench *bench, const BenchLine *line, const char **bound) {
  if (line->beside) {
    double least;
    *bound = "weights";
    return median_of(line->beside, &least);
  }
  const Machine *m = &bench->machine;
  const double f32 = m->product > m->fma ? m->product : m->fma;
  const double bf16 = m->bf16_product > m->bf16 ? m->bf16_product : m->bf16;
  const double rate = bench->config->dtype == BF16 && bf16 > 0 ? bf16 : f32;
  int level = 0;
  while (level < m->n_levels - 1 && line->bytes > m->level[level].bytes) level++;
  const MachineLevel *l = &m->level[level];
  const double arithmetic = line->flops / rate, memory = line->bytes / (l->read > l->copy ? l->read : l->copy);
  *bound = arithmetic >= memory ? "arithmetic" : l->name;
  return arithmetic >= memory ? arithmetic : memory;
}

/* Seconds that all processes have computed since the machine started; 0: not known. */
static double busy_seconds(void) {
  FILE *file = fopen("/proc/stat", "r");
  if (!file) return 0;
  double user, nice, system, idle, iowait, irq, softirq;
  const int n = fscanf(file, "cpu %lf %lf %lf %lf %lf %lf %lf", &user, &nice, &system, &idle, &iowait, &irq, &softirq);
  fclose(file);
  return n == 7 ? (user + nice + system + irq + softirq) / (double)sysconf(_SC_CLK_TCK) : 0;
}

static double own_seconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void bench_begin(Bench *bench) {
  FILE *file = fopen("/proc/self/clear_refs", "w");
  if (file) {
    fputs("5", file); /* proc(5): resets the peak resident set size */
    fclose(file);
  }
  bench->begin.wall = base_seconds(), bench->begin.own = own_seconds(), bench->begin.all = busy_seconds();
}

static double other_cpu_pct(const Bench *bench) {
  const double own = own_seconds() - bench->begin.own, others = busy_seconds() - bench->begin.all - own;
  const double machine = (base_seconds() - bench->begin.wall) * (double)sysconf(_SC_NPROCESSORS_ONLN);
  return others > 0 ? 100 * others / machine : 0;
}

static double peak_rss_mib(void) {
  char *value = proc_value("/proc/self/status", "VmHWM");
  const double mib = value ? strtod(value, NULL) / 1024 : 0;
  free(value);
  return mib;
}

/* One line; the object is given away. */
static void print_json(json_t *object) {
  CHECK(object, "a line of the benchmark is not valid JSON");
  json_dumpf(object, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(object);
}

void bench_print(const Bench *bench, const BenchLine *line) {
  const int n = line->samples->n;
  double least;
  const double median = median_of(line->samples, &least);
  const char *bound;
  const double share = ceiling(bench, line, &bound) / median, gflops = line->flops / median / 1e9;
  const double gb_per_s = line->bytes / median / 1e9, tok_per_s = line->tokens / median;
  if (bench->json)
    print_json(json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:i, s:f, s:f, s:f, s:s, s:f, s:f, s:f, s:i, s:s}", "case",
                         line->name, "pass", line->pass, "shape", line->what, "dtype", dtype_name(bench->config->dtype),
                         "ms", median * 1e3, "min_ms", least * 1e3, "runs", n, "gflops", gflops, "gb_per_s", gb_per_s,
                         "peak_fraction", share, "bound", bound, "tok_per_s", tok_per_s, "peak_rss_mib", peak_rss_mib(),
                         "other_cpu_pct", other_cpu_pct(bench), "threads", bench->machine.n_threads, "cpu",
                         bench->machine.cpu));
  else
    printf("%-14s %-16s %10.3f %10.3f %9.1f %8.1f %5.0f %% %-10s %8s %8.1f %5.0f %%  %s\n", line->name, line->pass,
           median * 1e3, least * 1e3, gflops, gb_per_s, 100 * share, bound, format_count(tok_per_s).text,
           peak_rss_mib(), other_cpu_pct(bench), line->what);
  fflush(stdout);
}

void bench_print_head(const Bench *bench) {
  if (bench->json) return;
  printf("%s, %lld x %lld tokens\n", dtype_name(bench->config->dtype), (long long)bench->n_seq,
         (long long)bench->length);
  printf("%-14s %-16s %10s %10s %9s %8s %18s %8s %8s %7s  %s\n", "case", "pass", "ms", "least", "GFLOP/s", "GB/s",
         "of the ceiling", "tok/s", "RSS MiB", "others", "sizes");
}

static void machine_line(const Bench *bench, const char *pass, double gflops, double gb_per_s, int n_threads) {
  print_json(json_pack("{s:s, s:s, s:f, s:f, s:i, s:s}", "case", "machine", "pass", pass, "gflops", gflops / 1e9,
                       "gb_per_s", gb_per_s / 1e9, "threads", n_threads, "cpu", bench->machine.cpu));
}

static void print_machine_json(const Bench *bench) {
  const Machine *m = &bench->machine;
  if (!m->is_gpu) machine_line(bench, "multiply-adds f32", m->fma_one_thread, 0, 1);
  machine_line(bench, "multiply-adds f32", m->fma, 0, m->n_threads);
  if (!m->is_gpu) machine_line(bench, "multiply-adds bf16", m->bf16_one_thread, 0, 1);
  machine_line(bench, "multiply-adds bf16", m->bf16, 0, m->n_threads);
  if (m->is_gpu) {
    machine_line(bench, "products f32", m->product, 0, m->n_threads);
    machine_line(bench, "products bf16", m->bf16_product, 0, m->n_threads);
  }
  for (int i = 0; i < m->n_levels; i++) {
    char pass[32];
    snprintf(pass, sizeof pass, "read %s", m->level[i].name);
    machine_line(bench, pass, 0, m->level[i].read, m->n_threads);
    snprintf(pass, sizeof pass, "copy %s", m->level[i].name);
    machine_line(bench, pass, 0, m->level[i].copy, m->n_threads);
  }
}

static void print_levels(const Machine *m) {
  for (int i = 0; i < m->n_levels; i++)
    printf("  %-19s %8.1f GB/s read, %.1f copied (read and written)\n", m->level[i].name, m->level[i].read / 1e9,
           m->level[i].copy / 1e9);
}

void bench_print_machine(const Bench *bench) {
  const Machine *m = &bench->machine;
  if (bench->json) {
    print_machine_json(bench);
    return;
  }
  if (m->is_gpu) {
    printf("%s\n", m->cpu);
    printf("  multiply-adds       %8.1f GFLOP/s float32, %.1f bf16 in mma.sync\n", m->fma / 1e9, m->bf16 / 1e9);
    printf("  products, cuBLASLt  %8.1f GFLOP/s float32, %.1f bf16\n", m->product / 1e9, m->bf16_product / 1e9);
  } else {
    printf("%s, %d threads\n", m->cpu, m->n_threads);
    printf("  multiply-adds f32   %8.1f GFLOP/s on one thread, %.1f on all\n", m->fma_one_thread / 1e9, m->fma / 1e9);
  }
  if (m->is_gpu) return print_levels(m);
  if (m->bf16 > 0)
    printf("  multiply-adds bf16  %8.1f GFLOP/s on one thread, %.1f on all\n", m->bf16_one_thread / 1e9, m->bf16 / 1e9);
  else printf("  multiply-adds bf16  none in this build of the kernels\n");
  print_levels(m);
}
