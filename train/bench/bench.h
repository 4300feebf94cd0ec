/* bench: what `aspis bench` measures and how its lines come about.
 *
 *   machine   the ceilings of this machine, or of its GPU, measured: multiply-adds in registers, large matrix products (of
 *             a GPU), reading and copying from L2, L3, memory
 *   case      one operation, mixer, update or training step at the sizes of a config, on random numbers
 *   line      time (median and least of several runs after a warm-up), GFLOP/s, GB/s, and the share of its ceiling
 *
 * FLOPs are those of the algorithm as autograd/ops counts them (two a multiply-add; the scan's at autograd/ops/ssd_scan.c),
 * whatever a kernel recomputes or pads. Bytes are those an operation must touch at least: its inputs read and its outputs
 * written once; backward, the inputs and the outputs' gradients read and the inputs' gradients written once. A line's
 * ceiling is the larger of FLOPs / peak FLOP/s and bytes / peak bytes/s, the latter at the first level of memory that
 * holds the bytes. */
#pragma once

#include "train/config/config.h"

/* Rates in FLOP/s and bytes/s (a copied byte counts twice). */
typedef struct MachineLevel {
  const char *name;
  double bytes; /* what it holds, of all threads together; the last one holds anything */
  double read, copy;
} MachineLevel;

enum { MACHINE_MAX_LEVELS = 3 };
typedef struct Machine {
  char *cpu; /* model, build of the kernels; or the GPU's */
  int n_threads;
  bool is_gpu;
  double fma_one_thread, fma;   /* float32 */
  double bf16_one_thread, bf16; /* 0: this build of the kernels has no BF16 products */
  double product, bf16_product; /* of a GPU: large matrix products by its library, float32 and BF16; else 0 */
  MachineLevel level[MACHINE_MAX_LEVELS];
  int n_levels;
} Machine;

/* Of a device by its name (device_open). About a second. Fails as device_open does. */
Status machine_measure(Machine *machine, const char *device);
void machine_free(Machine *machine);

/* One request of the command line. The config's batch_size and length are the batch of every case. */
typedef struct Bench {
  const Config *config;
  int64_t n_seq, length;
  double seconds;                      /* to spend on a case at least, beside five runs */
  int64_t decode_batch, decode_prompt; /* decode: sequences, and tokens of their prompt */
  int64_t decode_tokens;               /* decode: generated with the cache and without it; 0: not compared */
  bool json;
  Machine machine;
  struct {
    double wall, own, all; /* seconds: of the clock, of this process, of all processes together */
  } begin;                 /* of the present case */
} Bench;

/* Times of one thing run again and again; {0} is none yet. */
enum { SAMPLES_MIN = 5, SAMPLES_MAX = 101 };
typedef struct Samples {
  double seconds[SAMPLES_MAX], spent;
  int n, n_warm;
  bool warm;
} Samples;
/* Takes the time of one run. The first are warm-up: two at least and a fifth of `seconds`, but a second at most. */
void samples_add(Samples *samples, double run_seconds, double seconds);
/* Whether five runs and `seconds` are there. */
bool samples_enough(const Samples *samples, double seconds);

/* One line of the table. */
typedef struct BenchLine {
  const char *name, *pass, *what; /* what: the sizes, in words */
  const Samples *samples;
  double flops, bytes;   /* of one run; 0: not counted */
  const Samples *beside; /* the same bytes only read, in turn with the runs: their ceiling; NULL: the machine's */
  double tokens;
} BenchLine;
void bench_print_machine(const Bench *bench);
void bench_print_head(const Bench *bench);
void bench_print(const Bench *bench, const BenchLine *line);
/* Before a case: its lines' peak_rss_mib and other_cpu_pct (the share of the machine that other processes took
 * meanwhile: above 5 a line is not worth much) count from here. */
void bench_begin(Bench *bench);

/* A case: its name, the group it is also asked for by (or NULL), and its run, which prints its lines. */
typedef struct BenchCase BenchCase;
struct BenchCase {
  const char *name, *group, *summary;
  Status (*run)(const Bench *bench, const BenchCase *self);
  const struct BenchOp *op; /* of an operation (bench_op.c) */
};
/* Ended by an empty row each: operations and mixers; the update and whole steps; generation. */
extern const BenchCase bench_ops[], bench_steps[], bench_decodes[];
