/* aspis doctor: what this machine has for training, what is missing and what to do about it. Reads /proc and /sys; where
 * a fact cannot be had, the table says so. */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <omp.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <yaml.h>

#include "tensor/h5.h"
#include "tensor/onednn.h"
#include "tensor/plugin.h"
#include "train/cmd/command.h"
#include "train/format.h"
#include "train/proc.h"

/* The table goes to stdout as it is found; what to do comes last. */
typedef struct Findings {
  StrBuf advice;
  int n_advice;
} Findings;

static void row(const char *name, const char *format, ...) PRINTF_LIKE(2, 3);
static void row(const char *name, const char *format, ...) {
  va_list args;
  va_start(args, format);
  printf("  %-16s ", name);
  vprintf(format, args);
  putchar('\n');
  va_end(args);
}

static void advise(Findings *findings, const char *advice) {
  strbuf_printf(&findings->advice, "  %d. %s\n", ++findings->n_advice, advice);
}

static bool has_word(const char *words, const char *word) {
  size_t n = strlen(word);
  for (const char *at = words; at && (at = strstr(at, word)); at += n)
    if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) return true;
  return false;
}

/* Processor ------------------------------------------------------------------------------------------------------ */

static void check_kernels(Findings *findings) {
  Device device;
  Status status = device_open_dry(&device, "auto", F32);
  const char *forced = getenv("ASPIS_CPU");
  if (status.code == CODE_OK) {
    row("kernels", "%s%s%s", device.backend->name, forced && *forced ? ", forced by ASPIS_CPU=" : " (chosen by itself)",
        forced && *forced ? forced : "");
    row("bf16 products", "%s",
        device.backend->multiplies_bf16 ? "faster than float32" : "run as float32: bf16 saves memory, not time");
    device_close(&device);
  } else {
    row("kernels", "none: %s", status.line);
    advise(findings, "unset ASPIS_CPU, or set it to a build this processor has.");
    status_clear(&status);
  }
}

static void check_processor(Findings *findings) {
  static const struct {
    const char *flag, *name;
  } features[] = {{"avx2", "AVX2"}, {"avx512f", "AVX-512"}, {"avx512_bf16", "AVX-512 BF16"}, {"amx_bf16", "AMX BF16"}};
  printf("processor\n");
  char *model = proc_value("/proc/cpuinfo", "model name"), *flags = proc_value("/proc/cpuinfo", "flags");
  row("model", "%s", model ? model : "not known");
  StrBuf has = {0};
  for (size_t i = 0; i < sizeof features / sizeof *features; i++)
    strbuf_printf(&has, "%s%s %s", i ? ", " : "", features[i].name, has_word(flags, features[i].flag) ? "yes" : "no");
  row("vector units", "%s", has.data);
  check_kernels(findings);

  cpu_set_t allowed;
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  int usable = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : (int)online;
  row("cores", "%d usable of %ld, OpenMP uses %d threads", usable, online, omp_get_max_threads());
  if (usable < online)
    advise(findings, "this process is pinned to fewer cores than there are; mpirun needs --bind-to none.");
  if (omp_get_max_threads() > usable)
    advise(findings, "OMP_NUM_THREADS asks for more threads than there are usable cores; unset it.");
  free(model);
  free(flags);
  free(has.data);
}

/* Memory --------------------------------------------------------------------------------------------------------- */

/* A /proc/meminfo entry in bytes, NaN: not known. */
static double memory_entry(const char *key) {
  char *value = proc_value("/proc/meminfo", key);
  double bytes = value ? 1024 * strtod(value, NULL) : NAN;
  free(value);
  return bytes;
}

static void check_memory(Findings *findings) {
  printf("memory\n");
  row("total", "%s, %s available", format_bytes(memory_entry("MemTotal")).text,
      format_bytes(memory_entry("MemAvailable")).text);
  StrBuf limit = {0};
  Status status = strbuf_load(&limit, "/sys/fs/cgroup/memory.max");
  status_clear(&status);
  if (limit.n && strncmp(limit.data, "max", 3) != 0)
    row("container limit", "%s", format_bytes(strtod(limit.data, NULL)).text);
  free(limit.data);
  struct rlimit address_space;
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY) {
    row("address space", "limited to %s", format_bytes((double)address_space.rlim_cur).text);
    advise(findings, "address space is limited: `ulimit -v unlimited`, because arenas reserve more than they use.");
  }
}

/* GPUs ----------------------------------------------------------------------------------------------------------- */

/* NVIDIA display controllers on the PCI bus, with or without a driver. */
static int count_nvidia_devices(void) {
  DIR *bus = opendir("/sys/bus/pci/devices");
  int n = 0;
  for (struct dirent *entry; bus && (entry = readdir(bus));) {
    char *vendor_path = base_format("/sys/bus/pci/devices/%s/vendor", entry->d_name);
    char *class_path = base_format("/sys/bus/pci/devices/%s/class", entry->d_name);
    StrBuf vendor = {0}, class = {0};
    Status read_vendor = strbuf_load(&vendor, vendor_path), read_class = strbuf_load(&class, class_path);
    n += vendor.n && class.n && strncmp(vendor.data, "0x10de", 6) == 0 && strncmp(class.data, "0x03", 4) == 0;
    status_clear(&read_vendor);
    status_clear(&read_class);
    free(vendor.data);
    free(class.data);
    free(vendor_path);
    free(class_path);
  }
  if (bus) closedir(bus);
  return n;
}

static void check_gpus(Findings *findings) {
  printf("GPU\n");
  int n_devices = count_nvidia_devices(), n_driven = 0;
  DIR *driven = opendir("/proc/driver/nvidia/gpus");
  for (struct dirent *entry; driven && (entry = readdir(driven));) {
    if (entry->d_name[0] == '.') continue;
    char *path = base_format("/proc/driver/nvidia/gpus/%s/information", entry->d_name);
    char *model = proc_value(path, "Model");
    row("device", "%s", model ? model : "NVIDIA, model not known");
    n_driven++;
    free(model);
    free(path);
  }
  if (driven) closedir(driven);
  if (!n_driven && n_devices) row("device", "%d from NVIDIA, without a driver", n_devices);
  if (!n_driven && !n_devices) row("device", "none found");
  char *driver = proc_value("/proc/driver/nvidia/version", "NVRM version");
  row("driver", "%s", driver ? driver : "none loaded");
  char *plugin = plugin_path("cuda");
  const Backend *backend;
  Status opened = plugin ? plugin_open("cuda", &backend) : STATUS_OK;
  if (!plugin) row("CUDA backend", "not built: no nvcc was found; training runs on the processor");
  else row("CUDA backend", "%s", opened.code == CODE_OK ? backend->identity : opened.line);
  if (n_driven && !plugin) advise(findings, "install the CUDA toolkit and build again, to train on the GPU.");
  status_clear(&opened);
  free(plugin);
  free(driver);
}

/* Libraries and disk --------------------------------------------------------------------------------------------- */

static void check_libraries(void) {
  unsigned h5[3];
  int dnnl[3], yaml[3];
  h5_version(h5);
  onednn_version(dnnl);
  yaml_get_version(&yaml[0], &yaml[1], &yaml[2]);
  printf("libraries\n");
  row("HDF5", "%u.%u.%u", h5[0], h5[1], h5[2]);
  row("oneDNN", "%d.%d.%d", dnnl[0], dnnl[1], dnnl[2]);
  row("libyaml", "%d.%d.%d", yaml[0], yaml[1], yaml[2]);
  row("jansson", "%s", jansson_version_str());
  char pcre2[64] = ""; /* "10.42 2022-12-11" */
  pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
  row("PCRE2", "%.*s", (int)strcspn(pcre2, " "), pcre2);
  row("utf8proc", "%s, Unicode %s", utf8proc_version(), utf8proc_unicode_version());
  row("xxhash", "%u.%u.%u", XXH_versionNumber() / 10000, XXH_versionNumber() / 100 % 100, XXH_versionNumber() % 100);
  row("OpenMP", "specification of %d-%02d", _OPENMP / 100, _OPENMP % 100);
}

/* Beside TCP, which is always there. */
static void check_ranks(void) {
  static const struct {
    const char *row, *plugin, *without;
  } plugins[] = {{"MPI", "mpi", "not built: several ranks are started by torchrun, Slurm or by hand"},
                 {"NCCL", "nccl", "not built: gradients of several GPUs pass through the host's memory"}};
  printf("several ranks\n");
  for (size_t i = 0; i < sizeof plugins / sizeof *plugins; i++) {
    char *path = plugin_path(plugins[i].plugin);
    row(plugins[i].row, "%s", path ? path : plugins[i].without);
    free(path);
  }
}

static void check_disk(Findings *findings) {
  struct statvfs disk;
  char folder[4096];
  printf("disk\n");
  row("working folder", "%s", getcwd(folder, sizeof folder) ? folder : strerror(errno));
  if (statvfs(".", &disk) < 0) {
    row("free", "not known: %s", strerror(errno));
    return;
  }
  double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
  row("free", "%s", format_bytes(free_bytes).text);
  if (free_bytes < 1 << 30)
    advise(findings, "less than 1 GiB is free here; checkpoints go to --out DIR on a larger disk.");
  if (access(".", W_OK) < 0) {
    row("writable", "no: %s", strerror(errno));
    advise(findings, "this folder cannot be written; run from another, or give train --out DIR.");
  }
}

static Status cmd_doctor(const Command *command) {
  (void)command;
  Findings findings = {0};
  printf("aspis %s (%s)\n", ASPIS_VERSION, ASPIS_COMMIT);
  check_processor(&findings);
  check_memory(&findings);
  check_gpus(&findings);
  check_libraries();
  check_ranks();
  check_disk(&findings);
  if (findings.n_advice) printf("what to do\n%s", findings.advice.data);
  else printf("nothing is missing for training on the processor\n");
  free(findings.advice.data);
  return STATUS_OK;
}

const CommandSpec command_doctor = {
    .name = "doctor",
    .summary = "show what this machine has for training, what is missing and what to do",
    .usage = "doctor",
    .examples = {"aspis doctor", "ASPIS_CPU=avx2 aspis doctor"},
    .args = "",
    .run = cmd_doctor,
};
