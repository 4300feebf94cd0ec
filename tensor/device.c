/* device: see device.h. Which build of the CPU kernels runs is decided once per open, by CPUID or by ASPIS_CPU. */
#include "tensor/device.h"

#include <stdlib.h>
#include <string.h>

extern const Backend backend_cpu, backend_cpu_f64;
#if defined(__x86_64__)
extern const Backend backend_cpu_avx2, backend_cpu_avx512;
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
static bool always(void) { return true; }

/* Fastest first. */
static const struct {
  const char *name;
  const Backend *backend;
  bool (*runs_here)(void);
} CPU_BUILDS[] = {
#if defined(__x86_64__)
    {"avx512", &backend_cpu_avx512, has_avx512},
    {"avx2", &backend_cpu_avx2, has_avx2},
#endif
    {"generic", &backend_cpu, always},
};
enum { N_CPU_BUILDS = sizeof CPU_BUILDS / sizeof CPU_BUILDS[0] };

static Status choose_cpu(const Backend **backend) {
  const char *wanted = getenv("ASPIS_CPU");
  for (int i = 0; i < N_CPU_BUILDS; i++) {
    bool named = wanted && *wanted ? strcmp(wanted, CPU_BUILDS[i].name) == 0 : true;
    if (!named) continue;
    if (CPU_BUILDS[i].runs_here()) {
      *backend = CPU_BUILDS[i].backend;
      return STATUS_OK;
    }
    if (wanted && *wanted) return status_fail(CODE_USAGE, "ASPIS_CPU=%s: this processor lacks it", wanted);
  }
  return status_fail(CODE_USAGE, "ASPIS_CPU=%s: unknown, expected generic, avx2 or avx512", wanted);
}

static Status choose_backend(const char *name, Dtype real, const Backend **backend) {
  if (strcmp(name, "cuda") == 0)
    return status_fail(CODE_USAGE, "device: found cuda, expected auto or cpu: this build has no CUDA backend");
  if (strcmp(name, "auto") != 0 && strcmp(name, "cpu") != 0)
    return status_fail(CODE_USAGE, "device: found %s, expected auto, cpu or cuda", name);
  if (real == F64) {
    *backend = &backend_cpu_f64;
    return STATUS_OK;
  }
  CHECK(real == F32, "no backend computes in %s", dtype_name(real));
  return choose_cpu(backend);
}

Status device_open(Device *device, const char *name, Dtype real, DeviceSizes sizes) {
  *device = (Device){0};
  TRY(choose_backend(name, real, &device->backend));
  Status status = STATUS_OK;
  const struct {
    Arena *arena;
    const char *name;
    size_t bytes;
  } arenas[] = {{&device->weights, "weights", sizes.weights_bytes},
                {&device->step, "step", sizes.step_bytes},
                {&device->scratch, "scratch", sizes.scratch_bytes}};
  for (int i = 0; i < 3 && status.code == CODE_OK; i++)
    status = arena_open(arenas[i].arena, arenas[i].name, arenas[i].bytes);
  if (status.code != CODE_OK) device_close(device);
  return status;
}

Status device_open_dry(Device *device, const char *name, Dtype real) {
  *device = (Device){.dry = true};
  TRY(choose_backend(name, real, &device->backend));
  arena_open_dry(&device->weights, "weights");
  arena_open_dry(&device->step, "step");
  arena_open_dry(&device->scratch, "scratch");
  return STATUS_OK;
}

void device_close(Device *device) {
  arena_close(&device->weights);
  arena_close(&device->step);
  arena_close(&device->scratch);
  *device = (Device){0};
}
