/* arena: bump memory with one owner; nobody frees a tensor. Three arenas a device: weights, step, scratch (device.h).
 *
 * A dry arena counts without memory: the plan of a run is the run itself, built on dry arenas, so that prediction and
 * truth cannot drift apart. Pages of a real arena are committed when first touched.
 *
 * An arena may lie in memory that the host cannot touch. It has a mirror then: host addresses of the same size, in which
 * headers lie where the arena counts them, and in which host code reads and writes what is copied from and to the same
 * place of the arena (device_pull, device_push). Pages of it are committed when first touched, too. */
#pragma once

#include "tensor/base.h"

#define ARENA_ALIGN 64

typedef struct Arena {
  const char *name;
  char *memory; /* NULL when dry */
  size_t used_bytes, peak_bytes, capacity_bytes;
  struct Arena *headers; /* of a dry arena: real memory for the headers */
  char *mirror;          /* of an arena in memory that the host must not touch */
  bool out_of_reach;     /* that memory has no host address */
} Arena;

/* Reserves address space. Fails with CODE_MEMORY. */
Status arena_open(Arena *arena, const char *name, size_t capacity_bytes);
/* An arena that only counts; what it hands out must not be touched. */
void arena_open_dry(Arena *arena, const char *name);
/* An arena over capacity_bytes of somebody else's memory, with a mirror. out_of_reach: that memory has no host address
 * (else it is a device's that the host plays, and is guarded as the host's own). Fails with CODE_MEMORY. */
Status arena_open_over(Arena *arena, const char *name, void *memory, size_t capacity_bytes, bool out_of_reach);
void arena_close(Arena *arena);
/* ARENA_ALIGN-aligned, not zeroed. Running over the capacity is a CHECK: the plan was wrong. */
void *arena_alloc(Arena *arena, size_t bytes);
/* As arena_alloc, but always memory that the host may touch: tensor headers and tape nodes. Counted alike. */
void *arena_header(Arena *arena, size_t bytes);
/* Where a piece of memory lies, as a mark; 0 when it is not this arena's. */
size_t arena_place(const Arena *arena, const void *memory);
/* Whether it is this arena's, at any place. */
bool arena_owns(const Arena *arena, const void *memory);
static inline size_t arena_mark(const Arena *arena) { return arena->used_bytes; }
/* Gives back everything allocated since the mark. */
void arena_rewind(Arena *arena, size_t mark);
