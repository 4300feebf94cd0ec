/* plugin: see plugin.h. */
#include "tensor/plugin.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder of the running program, without the last slash; empty where the system does not tell. */
static void program_folder(char *folder, size_t size) {
  const ssize_t n = readlink("/proc/self/exe", folder, size - 1);
  folder[n > 0 ? n : 0] = '\0';
  char *slash = strrchr(folder, '/');
  if (slash) *slash = '\0';
}

char *plugin_path(const char *name) {
  char folder[4096];
  program_folder(folder, sizeof folder);
  const char *asked = getenv("ASPIS_PLUGINS");
  char *const places[] = {asked && *asked ? base_format("%s/libaspis_%s.so", asked, name) : NULL,
                          base_format("%s/libaspis_%s.so", folder, name),
                          base_format("%s/../lib/libaspis_%s.so", folder, name)};
  char *found = NULL;
  for (int i = 0; i < 3; i++) {
    if (places[i] && !found && access(places[i], R_OK) == 0) found = places[i];
    else free(places[i]);
  }
  return found;
}

const char *plugin_of_gpu(void) {
  const char *twin = getenv("ASPIS_CUDA");
  return twin && *twin ? twin : "cuda";
}

bool plugin_has_gpu(void) {
  static const char *const SIGNS[] = {"/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"};
  bool is_there = false; /* a container may have the device without the driver's own files; WSL has neither */
  for (int i = 0; i < 3; i++) is_there |= access(SIGNS[i], R_OK) == 0;
  if (!is_there) return false;
  char *path = plugin_path("cuda");
  free(path);
  return path != NULL;
}

Status plugin_load(const char *name, const char *use, const char *symbol, uint64_t layout, const void **table) {
  char *path = plugin_path(name);
  if (!path)
    return status_fail(CODE_USAGE,
                       "%s: this build has no libaspis_%s.so: build where its libraries are installed "
                       "(scripts/setup.sh)",
                       use, name);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  Status status = STATUS_OK;
  if (!library) status = status_fail(CODE_USAGE, "%s: cannot be opened: %s", use, dlerror());
  else if (!(*table = dlsym(library, symbol)) || *(const uint64_t *)*table != layout) {
    dlclose(library);
    status = status_fail(CODE_USAGE, "%s: %s is of another build of aspis; build both together", use, path);
  }
  free(path);
  return status;
}

Status plugin_open(const char *name, const Backend **backend) {
  static struct {
    char *name;
    const Backend *backend;
  } open[4];
  enum { MOST = sizeof open / sizeof *open };
  int n = 0;
  for (; n < MOST && open[n].name; n++)
    if (strcmp(open[n].name, name) == 0) {
      *backend = open[n].backend;
      return STATUS_OK;
    }
  if (strcmp(name, "cuda") != 0 && strcmp(name, "simt") != 0)
    return status_fail(CODE_USAGE, "device: found %s, expected auto, cpu or cuda", name);
  const char *file = strcmp(name, "cuda") == 0 ? plugin_of_gpu() : name;
  char *path = plugin_path(file), *use = base_format("device: %s", name);
  const void *table;
  Status status = path ? plugin_load(file, use, "aspis_plugin", plugin_layout(), &table)
                       : status_fail(CODE_USAGE,
                                     "device: found %s, but this build has no libaspis_%s.so: build it where the CUDA "
                                     "toolkit (nvcc) is installed, or use device: cpu",
                                     name, name);
  free(path), free(use);
  TRY(status);
  TRY(((const Plugin *)table)->open(backend));
  open[n].name = base_strdup(name), open[n].backend = *backend;
  return STATUS_OK;
}
