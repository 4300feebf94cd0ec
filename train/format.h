/* format: how numbers are written, for machines (JSON) and for people, and a string that grows. */
#pragma once

#include "tensor/base.h"

/* A growing text; {0} is the empty one. `data` is NUL-terminated once something was added, and the caller's to free. */
typedef struct StrBuf {
  char *data;
  size_t n, capacity;
} StrBuf;

void strbuf_add(StrBuf *buf, const char *bytes, size_t n);
void strbuf_puts(StrBuf *buf, const char *string);
void strbuf_printf(StrBuf *buf, const char *format, ...) PRINTF_LIKE(2, 3);
/* The text as the whole of a file, which appears at once or not at all (tensor/publish.h). CODE_DATA. */
Status strbuf_save(const StrBuf *buf, const char *path);
/* A whole file as text. CODE_DATA; a missing one too. */
Status strbuf_load(StrBuf *buf, const char *path);

/* Room for any number below. */
typedef struct Short {
  char text[32];
} Short;

/* The shortest decimal that reads back to the same double. Non-finite is a CHECK. */
Short format_double(double value);
Short format_count(double value);      /* 950, 412k, 1.24M, 3.1G */
Short format_bytes(double bytes);      /* 61.2 GiB, 512 MiB */
Short format_duration(double seconds); /* 42s, 3m05s, 1h52m, 2d03h */
/* Eight-level bars of n values in `width` columns at most, malloc'ed; ASCII when LC_ALL, LC_CTYPE or LANG (the first
 * that is set) does not name UTF-8. Non-finite values leave a gap. */
char *format_sparkline(const double *values, int64_t n, int width);
