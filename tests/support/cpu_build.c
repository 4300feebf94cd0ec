/* cpu_build: see cpu_build.h. */
#include "tests/support/cpu_build.h"

#include <stdio.h>
#include <stdlib.h>

#include "tensor/device.h"

/* Opening the device also asks Linux for AMX's tiles. */
bool cpu_build_runs_here(const char *build) {
  Device device;
  setenv("ASPIS_CPU", build, 1);
  Status status = device_open_dry(&device, "cpu", F32);
  const bool runs = status.code == CODE_OK;
  if (!runs) fprintf(stderr, "not tested: %s\n", status.line);
  if (runs) device_close(&device);
  status_clear(&status);
  return runs;
}
