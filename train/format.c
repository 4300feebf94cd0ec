/* format: see format.h. */
#include "train/format.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "tensor/publish.h"

static void strbuf_reserve(StrBuf *buf, size_t n) {
  if (buf->n + n + 1 <= buf->capacity) return;
  buf->capacity = 2 * buf->capacity > buf->n + n + 1 ? 2 * buf->capacity : buf->n + n + 1;
  buf->data = base_realloc(buf->data, buf->capacity);
}

void strbuf_add(StrBuf *buf, const char *bytes, size_t n) {
  strbuf_reserve(buf, n);
  if (n) memcpy(buf->data + buf->n, bytes, n);
  buf->n += n;
  buf->data[buf->n] = '\0';
}

void strbuf_puts(StrBuf *buf, const char *string) { strbuf_add(buf, string, strlen(string)); }

void strbuf_printf(StrBuf *buf, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, args);
  va_end(args);
  CHECK(length >= 0, "cannot format \"%s\"", format);
  strbuf_reserve(buf, (size_t)length);
  vsnprintf(buf->data + buf->n, (size_t)length + 1, format, again);
  va_end(again);
  buf->n += (size_t)length;
}

Status strbuf_save(const StrBuf *buf, const char *path) {
  return publish_bytes(path, buf->n ? buf->data : "", buf->n, CODE_DATA);
}

Status strbuf_load(StrBuf *buf, const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return status_fail(CODE_DATA, "%s: cannot read: %s", path, strerror(errno));
  char block[1 << 16];
  for (;;) {
    ssize_t n = read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int error = errno;
      close(fd);
      return status_fail(CODE_DATA, "%s: cannot read: %s", path, strerror(error));
    }
    if (n == 0) break;
    strbuf_add(buf, block, (size_t)n);
  }
  close(fd);
  return STATUS_OK;
}

Short format_double(double value) {
  CHECK(isfinite(value), "%g has no decimal", value);
  Short out;
  bool whole = value == trunc(value) && fabs(value) < 1e15; /* %g would make 2000 to 2e+03 */
  if (whole) snprintf(out.text, sizeof out.text, "%.0f", value);
  for (int digits = 1; digits <= 17 && !whole; digits++) {
    snprintf(out.text, sizeof out.text, "%.*g", digits, value);
    if (strtod(out.text, NULL) == value) break;
  }
  return out;
}

/* Three significant digits in the largest unit that leaves at least 1; 999.7 rounds up into the next unit. */
static Short format_scaled(double value, double base, const char *const *units, int n_units) {
  int unit = 0;
  while (unit + 1 < n_units && fabs(value) >= 0.9995 * base) {
    value /= base;
    unit++;
  }
  double size = fabs(value);
  int decimals = unit == 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  Short out;
  snprintf(out.text, sizeof out.text, "%.*f%s", decimals, value, units[unit]);
  return out;
}

static Short not_a_number(void) { return (Short){"n/a"}; }

Short format_count(double value) {
  static const char *const units[] = {"", "k", "M", "G", "T"};
  return isfinite(value) ? format_scaled(value, 1e3, units, 5) : not_a_number();
}

Short format_bytes(double bytes) {
  static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB"};
  return isfinite(bytes) ? format_scaled(bytes, 1024, units, 5) : not_a_number();
}

Short format_duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e12)) return not_a_number();
  int64_t s = llround(seconds);
  Short out;
  if (s < 60) snprintf(out.text, sizeof out.text, "%ds", (int)s);
  else if (s < 3600) snprintf(out.text, sizeof out.text, "%dm%02ds", (int)(s / 60), (int)(s % 60));
  else if (s < 86400) snprintf(out.text, sizeof out.text, "%dh%02dm", (int)(s / 3600), (int)(s / 60 % 60));
  else snprintf(out.text, sizeof out.text, "%lldd%02dh", (long long)(s / 86400), (int)(s / 3600 % 24));
  return out;
}

static bool locale_is_utf8(void) {
  static const char *const variables[] = {"LC_ALL", "LC_CTYPE", "LANG"};
  for (int i = 0; i < 3; i++) {
    const char *value = getenv(variables[i]);
    if (value && *value) return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
  }
  return false;
}

char *format_sparkline(const double *values, int64_t n, int width) {
  static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  static const char *const ascii[] = {"_", ".", "-", "~", "=", "+", "*", "#"};
  const char *const *levels = locale_is_utf8() ? blocks : ascii;
  int n_columns = (int)min_i64(n, max_i64(width, 0));
  double low = INFINITY, high = -INFINITY;
  double *means = base_alloc((size_t)n_columns * sizeof *means);
  for (int c = 0; c < n_columns; c++) {
    double sum = 0;
    int64_t n_finite = 0;
    for (int64_t i = n * c / n_columns; i < n * (c + 1) / n_columns; i++) {
      if (!isfinite(values[i])) continue;
      sum += values[i];
      n_finite++;
    }
    means[c] = n_finite ? sum / (double)n_finite : NAN;
    if (isfinite(means[c])) low = fmin(low, means[c]), high = fmax(high, means[c]);
  }
  StrBuf line = {0};
  strbuf_puts(&line, "");
  for (int c = 0; c < n_columns; c++) {
    int level = high > low ? (int)((means[c] - low) / (high - low) * 7.999) : 0;
    strbuf_puts(&line, isfinite(means[c]) ? levels[level] : " ");
  }
  free(means);
  return line.data;
}
