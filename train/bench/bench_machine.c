/* bench_machine: what this machine, or its GPU, can do at best, measured with the `peak` kernel of the build in use: the
 * best of several short runs, because whatever disturbs a run only makes it slower. A GPU's matrix products are those of its
 * library, by `linear`. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/device.h"
#include "train/bench/bench.h"
#include "train/proc.h"

enum { RUNS = 9 };

/* The least time of a few runs: a run that the system puts aside takes a hundred times as long. */
static double least_seconds(Device *device, Peak *peak, int n_runs) {
  double least = INFINITY;
  for (int i = 0; i < n_runs; i++) {
    const double start = base_seconds();
    peak_fwd(device, peak);
    least = fmin(least, base_seconds() - start);
  }
  return least;
}

/* Work a second of one kind, best of RUNS, each about run_seconds long; 0: this build of the kernels does none. */
static double rate(Device *device, PeakKind kind, Tensor *x, Tensor *y, double run_seconds) {
  double work = 0;
  Peak peak = {.kind = kind, .n_rounds = 1, .x = x, .y = y, .work = &work};
  while (least_seconds(device, &peak, 3) < run_seconds / 2 && work > 0) peak.n_rounds *= 2;
  return work > 0 ? work / least_seconds(device, &peak, RUNS) : 0;
}

/* Bytes of the first processor's unified or data cache of this level; 0: not known. */
static double cache_bytes(int level) {
  for (int i = 0; i < 8; i++) {
    const char *fields[] = {"level", "type", "size"};
    char text[3][32] = {{0}};
    for (int f = 0; f < 3; f++) {
      char *path = base_format("/sys/devices/system/cpu/cpu0/cache/index%d/%s", i, fields[f]);
      FILE *file = fopen(path, "r");
      free(path);
      if (!file) return 0;
      if (!fgets(text[f], sizeof text[f], file)) *text[f] = 0;
      fclose(file);
    }
    if (atoi(text[0]) == level && strncmp(text[1], "Instruction", 11) != 0) return 1024 * atof(text[2]); /* "1024K" */
  }
  return 0;
}

/* Rates over x and y of `bytes` together, spread over the threads. */
static Status measure_level(const char *name, double holds, double bytes, int n_threads, Machine *machine) {
  const double row = bytes / 2 / n_threads / sizeof(float);
  Device device;
  TRY(device_open(&device, "cpu", F32, (DeviceSizes){.weights_bytes = (size_t)bytes + (1 << 20)}));
  Tensor *x = tensor_new2(&device.weights, F32, n_threads, (int64_t)row);
  Tensor *y = tensor_new2(&device.weights, F32, n_threads, (int64_t)row);
  double work;
  peak_fwd(&device, &(Peak){.kind = PEAK_WRITE, .n_rounds = 1, .x = x, .work = &work});
  peak_fwd(&device, &(Peak){.kind = PEAK_WRITE, .n_rounds = 1, .x = y, .work = &work});
  machine->level[machine->n_levels++] = (MachineLevel){.name = name,
                                                       .bytes = holds,
                                                       .read = rate(&device, PEAK_READ, x, y, 0.01),
                                                       .copy = rate(&device, PEAK_COPY, x, y, 0.01)};
  device_close(&device);
  return STATUS_OK;
}

static Status measure_arithmetic(Machine *machine) {
  Device device;
  TRY(device_open(&device, "cpu", F32, (DeviceSizes){.weights_bytes = 1 << 20}));
  char *model = proc_value("/proc/cpuinfo", "model name");
  machine->cpu = base_format("%s, %s", model ? model : "processor not known", device.backend->name);
  free(model);
  Tensor *one = tensor_new2(&device.weights, F32, 1, 16);
  Tensor *all = tensor_new2(&device.weights, F32, machine->n_threads, 16);
  machine->fma_one_thread = rate(&device, PEAK_FMA, one, NULL, 0.01);
  machine->fma = rate(&device, PEAK_FMA, all, NULL, 0.01);
  machine->bf16_one_thread = rate(&device, PEAK_FMA_BF16, one, NULL, 0.01);
  machine->bf16 = rate(&device, PEAK_FMA_BF16, all, NULL, 0.01);
  device_close(&device);
  return STATUS_OK;
}

/* ---- a GPU */

/* Work a second of a square product, best of RUNS. */
static double product_rate(Device *device, Dtype dtype, int64_t n) {
  const size_t mark = arena_mark(&device->step);
  Linear product = {.x = tensor_new2(&device->step, dtype, n, n),
                    .w = tensor_new2(&device->step, dtype, n, n),
                    .y = tensor_new2(&device->step, dtype, n, n)};
  device_zero(device, product.x), device_zero(device, product.w);
  double least = INFINITY;
  for (int i = 0; i < RUNS; i++) {
    device_wait(device);
    const double start = base_seconds();
    linear_fwd(device, &product);
    device_wait(device);
    least = fmin(least, base_seconds() - start);
  }
  arena_rewind(&device->step, mark);
  return 2.0 * (double)n * (double)n * (double)n / least;
}

/* Copies of 1 GiB, products of 8192: far beyond caches and launches. The host's twin is measured for its lines only. */
static Status measure_gpu(Machine *machine, const char *name, Device *device) {
  const bool is_twin = !device->backend->memory->out_of_reach;
  const int64_t row = is_twin ? 1 << 12 : 1 << 20, n_rows = is_twin ? 4 : 128, side = is_twin ? 16 : 8192;
  const double run_seconds = is_twin ? 1e-4 : 0.01;
  const size_t copies = (size_t)(2 * n_rows * row) * sizeof(float),
               products = (size_t)(3 * side * side) * sizeof(float);
  device_close(device);
  TRY(device_open(device, name, F32, (DeviceSizes){copies + (1 << 20), products + (1 << 20), (size_t)256 << 20}));
  machine->cpu = base_strdup(device->backend->identity);
  Tensor *x = tensor_new2(&device->weights, F32, n_rows, row), *y = tensor_new2(&device->weights, F32, n_rows, row);
  device_zero(device, x), device_zero(device, y);
  machine->level[machine->n_levels++] = (MachineLevel){.name = "memory",
                                                       .read = rate(device, PEAK_READ, x, y, run_seconds),
                                                       .copy = rate(device, PEAK_COPY, x, y, run_seconds)};
  machine->fma = rate(device, PEAK_FMA, x, NULL, run_seconds);
  machine->bf16 = rate(device, PEAK_FMA_BF16, x, NULL, run_seconds);
  machine->product = product_rate(device, F32, side);
  machine->bf16_product = product_rate(device, BF16, side);
  return STATUS_OK;
}

/* ---- either */

static Status measure_cpu(Machine *machine) {
  TRY(measure_arithmetic(machine));
  /* half of a cache, so that x and y stay in it; memory: four times the last cache, at least 256 MiB */
  const double l2 = cache_bytes(2) * machine->n_threads, l3 = cache_bytes(3), mib = 1 << 20;
  const double beyond = 4 * l3 > 256 * mib ? 4 * l3 : 256 * mib;
  Status status = STATUS_OK;
  if (l2 > 0) status = measure_level("L2", l2, l2 / 2, machine->n_threads, machine);
  if (status.code == CODE_OK && l3 > l2) status = measure_level("L3", l3, l3 / 2, machine->n_threads, machine);
  if (status.code == CODE_OK) status = measure_level("memory", 0, beyond, machine->n_threads, machine);
  return status;
}

Status machine_measure(Machine *machine, const char *name) {
  *machine = (Machine){.n_threads = omp_get_max_threads()};
  Device device;
  TRY(device_open(&device, name, F32, (DeviceSizes){.weights_bytes = 1 << 16}));
  machine->is_gpu = device.backend->memory != NULL;
  Status status = machine->is_gpu ? measure_gpu(machine, name, &device) : measure_cpu(machine);
  device_close(&device);
  if (status.code != CODE_OK) machine_free(machine);
  return status;
}

void machine_free(Machine *machine) {
  free(machine->cpu);
  *machine = (Machine){0};
}
