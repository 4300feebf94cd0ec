/* device: see device.h. Which build of the CPU kernels runs is decided once per open, by CPUID or by ASPIS_CPU. */
#include "tensor/device.h"

#include "tensor/plugin.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const Backend backend_cpu, backend_cpu_f64;
#if defined(__x86_64__)
extern const Backend backend_cpu_avx2, backend_cpu_avx512;
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
#ifdef ASPIS_BUILD_AVX512_BF16
extern const Backend backend_cpu_avx512_bf16;
static bool has_avx512_bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
/* Intel's dot products do half of what its float32 multiply-adds do, AMD's twice as much (docs/decisions.md). */
static bool bf16_pays(void) { return has_avx512_bf16() && !__builtin_cpu_is("intel"); }
#endif
#ifdef ASPIS_BUILD_AMX
extern const Backend backend_cpu_amx;
/* CPUID 7: AMX-BF16 is bit 22 of edx, AMX-TILE bit 24. The tiles are 8 KiB more to save for a thread, so Linux wants a
 * process to ask before it uses them. */
static bool has_amx(void) {
  enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  unsigned eax, ebx, ecx, edx;
  return has_avx512_bf16() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & AMX_BF16) && (edx & AMX_TILE) &&
         syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif
static bool always(void) { return true; }

/* Fastest first. The first that pays is taken; any that runs may be asked for. */
static const struct {
  const char *name;
  const Backend *backend;
  bool (*runs_here)(void), (*pays)(void);
} CPU_BUILDS[] = {
#ifdef ASPIS_BUILD_AMX
    {"amx", &backend_cpu_amx, has_amx, always},
#endif
#ifdef ASPIS_BUILD_AVX512_BF16
    {"avx512_bf16", &backend_cpu_avx512_bf16, has_avx512_bf16, bf16_pays},
#endif
#if defined(__x86_64__)
    {"avx512", &backend_cpu_avx512, has_avx512, always},
    {"avx2", &backend_cpu_avx2, has_avx2, always},
#endif
    {"generic", &backend_cpu, always, always},
};
enum { N_CPU_BUILDS = sizeof CPU_BUILDS / sizeof CPU_BUILDS[0] };

const char *device_cpu_build(int i) { return i < N_CPU_BUILDS ? CPU_BUILDS[i].name : NULL; }

static Status unknown_build(const char *wanted) {
  char names[128] = "";
  for (int i = N_CPU_BUILDS - 1; i >= 0; i--) {
    strcat(names, CPU_BUILDS[i].name);
    strcat(names, i > 1 ? ", " : i == 1 ? " or " : "");
  }
  return status_fail(CODE_USAGE, "ASPIS_CPU=%s: unknown, expected %s", wanted, names);
}

static Status choose_cpu(const Backend **backend) {
  const char *wanted = getenv("ASPIS_CPU");
  for (int i = 0; i < N_CPU_BUILDS; i++) {
    const bool asked = wanted && *wanted;
    if (asked ? strcmp(wanted, CPU_BUILDS[i].name) != 0 : !CPU_BUILDS[i].pays()) continue;
    if (CPU_BUILDS[i].runs_here()) {
      *backend = CPU_BUILDS[i].backend;
      return STATUS_OK;
    }
    if (asked) return status_fail(CODE_USAGE, "ASPIS_CPU=%s: this processor lacks it", wanted);
  }
  return unknown_build(wanted);
}

static Status choose_backend(const char *name, Dtype real, const Backend **backend) {
  CHECK(real == F32 || real == F64, "no backend computes in %s", dtype_name(real));
  const bool wants_auto = strcmp(name, "auto") == 0, wants_cpu = strcmp(name, "cpu") == 0;
  if (!wants_auto && !wants_cpu) {
    if (real == F64)
      return status_fail(CODE_USAGE, "device: found %s, expected cpu: nothing else computes in f64", name);
    return plugin_open(name, backend);
  }
  if (real == F64) {
    *backend = &backend_cpu_f64;
    return STATUS_OK;
  }
  if (wants_auto && plugin_has_gpu()) return plugin_open("cuda", backend);
  return choose_cpu(backend);
}

static Status open_arena(Arena *arena, const char *name, size_t bytes, const BackendMemory *memory) {
  if (!memory || bytes == 0) return arena_open(arena, name, bytes);
  void *at;
  TRY(memory->open(name, bytes, &at));
  TRY_OR(arena_open_over(arena, name, at, bytes, memory->out_of_reach || memory->delayed), memory->close(at));
  return STATUS_OK;
}

static void close_arena(Arena *arena, const BackendMemory *memory) {
  void *own = arena->mirror ? arena->memory : NULL;
  arena_close(arena);
  if (own) memory->close(own);
}

static DeviceSizes roomy(const BackendMemory *memory) {
  const size_t most = (size_t)24 << 30, free_bytes = memory ? memory->available() : most;
  const size_t sixth = (free_bytes < most ? free_bytes / 8 * 7 : most) / 6 / ARENA_ALIGN * ARENA_ALIGN;
  return (DeviceSizes){sixth, 4 * sixth, sixth};
}

Status device_open(Device *device, const char *name, Dtype real, DeviceSizes sizes) {
  *device = (Device){0};
  TRY(choose_backend(name, real, &device->backend));
  const BackendMemory *memory = device->backend->memory;
  if (sizes.step_bytes == SIZE_MAX) sizes = roomy(memory);
  Status status = STATUS_OK;
  const struct {
    Arena *arena;
    const char *name;
    size_t bytes;
  } arenas[] = {{&device->weights, "weights", sizes.weights_bytes},
                {&device->step, "step", sizes.step_bytes},
                {&device->scratch, "scratch", sizes.scratch_bytes}};
  for (int i = 0; i < 3 && status.code == CODE_OK; i++)
    status = open_arena(arenas[i].arena, arenas[i].name, arenas[i].bytes, memory);
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
  const BackendMemory *memory = device->backend ? device->backend->memory : NULL;
  close_arena(&device->weights, memory);
  close_arena(&device->step, memory);
  close_arena(&device->scratch, memory);
  *device = (Device){0};
}

/* ---- what the host sees of tensors */

static const Arena *owner(const Device *device, const Tensor *t) {
  const Arena *arenas[] = {&device->step, &device->weights, &device->scratch};
  for (int i = 0; i < 3; i++)
    if (arena_owns(arenas[i], t->data)) return arenas[i];
  return NULL;
}

Tensor device_mirror(Device *device, const Tensor *t) {
  if (!device->backend->memory) return *t;
  const Arena *arena = owner(device, t);
  CHECK(arena && arena->mirror, "a tensor %s that is not on the device", tensor_shape_text(t));
  Tensor host = *t;
  host.data = arena->mirror + ((char *)t->data - arena->memory);
  host.base = NULL, host.grad = NULL;
  return host;
}

/* Runs of bytes that a tensor's elements lie in: its rows, or all of it. */
static int64_t n_runs(const Tensor *t) { return tensor_contiguous(t) ? 1 : tensor_rows(t); }
static size_t run_bytes(const Tensor *t) { return tensor_bytes(t) / (size_t)n_runs(t); }
static char *run_at(const Tensor *t, int64_t i) {
  return (char *)t->data + (size_t)(i * t->ld) * dtype_bytes(t->dtype);
}

Tensor device_pull(Device *device, const Tensor *t) {
  const Tensor host = device_mirror(device, t);
  const BackendMemory *memory = device->backend->memory;
  for (int64_t i = 0; memory && tensor_count(t) > 0 && i < n_runs(t); i++)
    memory->read(run_at(&host, i), run_at(t, i), run_bytes(t));
  return host;
}

void device_push(Device *device, const Tensor *t) {
  const BackendMemory *memory = device->backend->memory;
  if (!memory || tensor_count(t) == 0) return;
  device->written_bytes += (size_t)(n_runs(t) * round_up((int64_t)run_bytes(t), GRAPH_WRITE_ALIGN));
  if (device->dry) return;
  const Tensor host = device_mirror(device, t);
  for (int64_t i = 0; i < n_runs(t); i++) memory->write(run_at(t, i), run_at(&host, i), run_bytes(t));
}

void device_fill(Device *device, Tensor *to, const Tensor *from) {
  if (!device->dry) {
    Tensor host = device_mirror(device, to);
    tensor_copy(&host, from);
  }
  device_push(device, to);
}

void device_wait(Device *device) {
  const BackendMemory *memory = device->backend->memory;
  char byte;
  if (memory && !device->dry) memory->read(&byte, device->weights.memory, 1);
}

void device_zero(Device *device, Tensor *t) {
  if (device->dry || tensor_count(t) == 0) return;
  const BackendMemory *memory = device->backend->memory;
  if (!memory) tensor_zero(t);
  for (int64_t i = 0; memory && i < n_runs(t); i++) memory->zero(run_at(t, i), run_bytes(t));
}
