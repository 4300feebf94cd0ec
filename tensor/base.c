/* base: see base.h. */
#include "tensor/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char *format_args(const char *format, va_list args) {
  va_list copy;
  va_copy(copy, args);
  int length = vsnprintf(NULL, 0, format, copy);
  va_end(copy);
  CHECK(length >= 0, "cannot format \"%s\"", format);
  char *text = base_alloc((size_t)length + 1);
  vsnprintf(text, (size_t)length + 1, format, args);
  return text;
}

/* What a message quotes of a file must not steer the terminal it is shown on. */
static void disarm(char *text) {
  for (char *c = text; *c; c++)
    if (((unsigned char)*c < ' ' && *c != '\n') || *c == 0x7f) *c = '?';
}

Status status_fail(Code code, const char *format, ...) {
  CHECK(code != CODE_OK, "a failure needs a code");
  va_list args;
  va_start(args, format);
  Status status = {code, format_args(format, args)};
  va_end(args);
  disarm(status.line);
  return status;
}

void status_clear(Status *status) {
  free(status->line);
  *status = STATUS_OK;
}

_Noreturn void check_failed(const char *file, int line, const char *condition, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "%s:%d: CHECK(%s) failed: ", file, line, condition);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  abort();
}

void *base_alloc(size_t bytes) {
  void *memory = malloc(bytes ? bytes : 1);
  CHECK(memory, "out of memory for %zu bytes", bytes);
  return memory;
}

void *base_zalloc(size_t bytes) {
  void *memory = calloc(1, bytes ? bytes : 1);
  CHECK(memory, "out of memory for %zu bytes", bytes);
  return memory;
}

void *base_realloc(void *old, size_t bytes) {
  void *memory = realloc(old, bytes ? bytes : 1);
  CHECK(memory, "out of memory for %zu bytes", bytes);
  return memory;
}

char *base_strdup(const char *text) {
  size_t bytes = strlen(text) + 1;
  return memcpy(base_alloc(bytes), text, bytes);
}

bool base_ends_with(const char *text, const char *end) {
  const size_t n = strlen(text), n_end = strlen(end);
  return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

char *base_format(const char *format, ...) {
  va_list args;
  va_start(args, format);
  char *text = format_args(format, args);
  va_end(args);
  return text;
}

double base_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
