/* base: the words everything else is written in: sizes, CHECK, Status.
 *
 * A user's mistake (config, data, checkpoint, command line) or a failing machine is RETURNED as a Status that carries
 * its line and exit code; the library never exits. A programmer's mistake ends in CHECK, which is always on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus /* the CUDA kernels read it, too */
#define NO_RETURN [[noreturn]]
#else
#define NO_RETURN _Noreturn
#endif
#ifdef __CUDACC__ /* small functions that kernels call as well */
#define ON_DEVICE_TOO __host__ __device__
#else
#define ON_DEVICE_TOO
#endif
#define PRINTF_LIKE(format_at, args_at) __attribute__((format(printf, format_at, args_at)))

/* The exit codes of the program (README, "Exit codes"); 0 is success. */
typedef enum Code {
  CODE_OK = 0,
  CODE_CHECK_FAILED = 1,
  CODE_USAGE = 2, /* command line or config */
  CODE_DATA = 3,
  CODE_CHECKPOINT = 4, /* checkpoint or weights */
  CODE_NONFINITE = 5,
  CODE_PEER = 6,
  CODE_MEMORY = 7,
  CODE_STOPPED = 75 /* stopped on request, state saved */
} Code;

/* The outcome of a call that a user's mistake or the machine can make fail.
 * `line` is NULL when code is 0, else owned by the Status: one or more lines, no trailing newline, ready to print. */
typedef struct Status {
  Code code;
  char *line;
} Status;

#define STATUS_OK ((Status){CODE_OK, NULL})

/* A failure with its line; `format` names file, key, what was found, what was expected, what to do. */
Status status_fail(Code code, const char *format, ...) PRINTF_LIKE(2, 3);
/* Frees the line; the Status becomes STATUS_OK. Only callers that swallow a failure need it. */
void status_clear(Status *status);

/* Returns from the calling function when `call` failed. */
#define TRY(call)                                                                                                      \
  do {                                                                                                                 \
    Status try_status_ = (call);                                                                                       \
    if (try_status_.code != CODE_OK) return try_status_;                                                               \
  } while (0)

/* As TRY, with cleaning up first. */
#define TRY_OR(call, cleanup)                                                                                          \
  do {                                                                                                                 \
    Status try_status_ = (call);                                                                                       \
    if (try_status_.code != CODE_OK) {                                                                                 \
      cleanup;                                                                                                         \
      return try_status_;                                                                                              \
    }                                                                                                                  \
  } while (0)

/* Prints file:line and the message to stderr and aborts (exit 134). */
NO_RETURN void check_failed(const char *file, int line, const char *condition, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* CHECK(condition, "what was expected, with the values", ...): a fault of ours, on in every build. */
#define CHECK(condition, ...)                                                                                          \
  do {                                                                                                                 \
    if (!(condition)) check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__);                                       \
  } while (0)

/* malloc, calloc, realloc and strdup for small host objects; never NULL (CHECK). Freed with free(). */
void *base_alloc(size_t bytes);
void *base_zalloc(size_t bytes);
void *base_realloc(void *old, size_t bytes);
char *base_strdup(const char *text);
bool base_ends_with(const char *text, const char *end);
/* sprintf into a fresh string, freed with free(). */
char *base_format(const char *format, ...) PRINTF_LIKE(1, 2);

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t multiple) { return ceil_div(a, multiple) * multiple; }
static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Monotonic seconds, for intervals. */
double base_seconds(void);
