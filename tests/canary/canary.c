/* canary: faults planted on purpose, one an argument. A sanitizer build that lets one of them pass is blind; CTest expects
 * each of these runs to fail (tests/CMakeLists.txt). */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/arena.h"

/* volatile: the optimiser must not see through the fault */
static void *volatile kept;

static int plant_leak(void) {
  kept = malloc(100);
  kept = NULL;
  return 0;
}

static int plant_overflow(void) {
  volatile char *memory = malloc(10);
  volatile int past = 10;
  memory[past] = 1;
  free((void *)memory);
  return 0;
}

static int plant_shift(void) {
  volatile int bits = 40;
  return (1 << bits) == 7;
}

static int plant_arena(void) {
  Arena arena;
  Status status = arena_open(&arena, "canary", 4096);
  if (status.code != CODE_OK) return 0;
  volatile char *memory = arena_alloc(&arena, 60);
  volatile int past = 64;
  memory[past] = 1;
  arena_close(&arena);
  return 0;
}

int main(int argc, char **argv) {
  const struct {
    const char *name;
    int (*plant)(void);
  } faults[] = {{"leak", plant_leak}, {"overflow", plant_overflow}, {"shift", plant_shift}, {"arena", plant_arena}};
  for (size_t i = 0; argc == 2 && i < sizeof faults / sizeof faults[0]; i++)
    if (strcmp(argv[1], faults[i].name) == 0) return faults[i].plant();
  fprintf(stderr, "usage: canary leak|overflow|shift|arena\n");
  return 0;
}
