/* arena: see arena.h. Under AddressSanitizer every allocation is followed by a poisoned gap and rewound memory is
 * poisoned, so that an overrun inside the arena is caught like one on the heap. */
#include "tensor/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define GAP_BYTES ARENA_ALIGN
#else
#define GAP_BYTES 0
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

/* Whether AddressSanitizer is told what is in use. */
static bool is_guarded(const Arena *arena) { return arena->memory && !arena->out_of_reach; }

/* Arenas of this size and more ask for large pages: streams through them wait less for addresses. */
#define HUGE_FROM ((size_t)16 << 20)

/* Dry pointers start here: never NULL, never mapped. */
#define DRY_BASE ((char *)4096)

static Status reserve(const char *name, size_t bytes, char **memory) {
  void *reserved = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED)
    return status_fail(CODE_MEMORY, "cannot reserve %.1f MiB for the %s arena: %s; lower train.micro_batch_size",
                       (double)bytes / 1048576.0, name, strerror(errno));
#ifdef MADV_HUGEPAGE
  if (bytes >= HUGE_FROM) madvise(reserved, bytes, MADV_HUGEPAGE); /* a wish: where it is not granted nothing changes */
#endif
  *memory = reserved;
  return STATUS_OK;
}

static size_t whole_pages(size_t bytes) { return (size_t)round_up((int64_t)(bytes ? bytes : 1), 4096); }

Status arena_open(Arena *arena, const char *name, size_t capacity_bytes) {
  *arena = (Arena){.name = name, .capacity_bytes = whole_pages(capacity_bytes)};
  return reserve(name, arena->capacity_bytes, &arena->memory);
}

Status arena_open_over(Arena *arena, const char *name, void *memory, size_t capacity_bytes, bool out_of_reach) {
  *arena = (Arena){.name = name, .memory = memory, .capacity_bytes = capacity_bytes, .out_of_reach = out_of_reach};
  return reserve(name, whole_pages(capacity_bytes), &arena->mirror);
}

/* Address space only: a dry run's headers are a few kB a layer. */
#define DRY_HEADER_BYTES ((size_t)64 << 20)

void arena_open_dry(Arena *arena, const char *name) {
  *arena = (Arena){.name = name, .capacity_bytes = SIZE_MAX, .headers = base_zalloc(sizeof(Arena))};
  Status status = arena_open(arena->headers, name, DRY_HEADER_BYTES);
  CHECK(status.code == CODE_OK, "%s", status.line);
}

void arena_close(Arena *arena) {
  if (is_guarded(arena)) ASAN_UNPOISON_MEMORY_REGION(arena->memory, arena->peak_bytes);
  if (arena->memory && !arena->mirror) munmap(arena->memory, arena->capacity_bytes);
  if (arena->mirror) munmap(arena->mirror, whole_pages(arena->capacity_bytes));
  if (arena->headers) arena_close(arena->headers);
  free(arena->headers);
  *arena = (Arena){0};
}

void *arena_alloc(Arena *arena, size_t bytes) {
  size_t step = (size_t)round_up((int64_t)bytes + GAP_BYTES, ARENA_ALIGN);
  CHECK(step <= arena->capacity_bytes - arena->used_bytes, "%s arena: %zu bytes wanted, %zu of %zu in use", arena->name,
        bytes, arena->used_bytes, arena->capacity_bytes);
  char *memory = (arena->memory ? arena->memory : DRY_BASE) + arena->used_bytes;
  arena->used_bytes += step;
  if (arena->used_bytes > arena->peak_bytes) arena->peak_bytes = arena->used_bytes;
  if (is_guarded(arena)) {
    ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    ASAN_POISON_MEMORY_REGION(memory + bytes, step - bytes);
  }
  return memory;
}

void *arena_header(Arena *arena, size_t bytes) {
  char *counted = arena_alloc(arena, bytes);
  if (arena->headers) return arena_alloc(arena->headers, bytes);
  return arena->mirror ? arena->mirror + (counted - arena->memory) : counted;
}

size_t arena_place(const Arena *arena, const void *memory) {
  const uintptr_t begin = (uintptr_t)(arena->memory ? arena->memory : DRY_BASE), at = (uintptr_t)memory;
  return at >= begin && at < begin + arena->used_bytes ? (size_t)(at - begin) : 0;
}

bool arena_owns(const Arena *arena, const void *memory) {
  const uintptr_t begin = (uintptr_t)arena->memory, at = (uintptr_t)memory;
  return arena->memory && at >= begin && at < begin + arena->capacity_bytes;
}

void arena_rewind(Arena *arena, size_t mark) {
  CHECK(mark <= arena->used_bytes, "%s arena: rewound to %zu, only %zu in use", arena->name, mark, arena->used_bytes);
  if (is_guarded(arena)) ASAN_POISON_MEMORY_REGION(arena->memory + mark, arena->used_bytes - mark);
  arena->used_bytes = mark;
}
