/* cpu_build: tests of what is compiled for newer processors than this one may be. */
#pragma once

#include <stdbool.h>

/* Whether this machine has what the build of the kernels needs; if not, a line says so. */
bool cpu_build_runs_here(const char *build);
