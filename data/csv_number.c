/* csv_number: see csv.h. The common number, of up to 19 digits, is read in one pass over them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/csv.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* 10^0 .. 10^22: the powers of ten that a double holds exactly. */
static const double POWER[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                               1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { MAX_EXACT_POWER = 22, MAX_DIGITS = 19 /* 10^19 < 2^64 */ };

/* m / 10^k correctly rounded, m > 0, 0 < k <= 19. Both are shifted until their top bit is set, so the whole-number
 * quotient has 63 bits or more; whether a remainder is left goes into its last bit, far below those that a double keeps,
 * and the one rounding is that of the conversion. */
static double exact_quotient(uint64_t m, int k) {
  uint64_t d = 1;
  for (int i = 0; i < k; i++) d *= 10;
  const int shift_m = __builtin_clzll(m), shift_d = __builtin_clzll(d);
  const unsigned __int128 dividend = (unsigned __int128)(m << shift_m) << 63;
  d <<= shift_d;
  uint64_t quotient = (uint64_t)(dividend / d);
  quotient |= (unsigned __int128)quotient * d != dividend;
  return ldexp((double)quotient, shift_d - shift_m - 63);
}

static double long_number(const char *text, size_t n) {
  char *copy = base_format("%.*s", (int)n, text);
  const double value = strtod(copy, NULL);
  free(copy);
  return value;
}

const char *csv_scan_number(const char *text, const char *end, double *value) {
  const char *p = text;
  const bool negative = p < end && *p == '-';
  p += p < end && (*p == '-' || *p == '+');
  uint64_t m = 0;
  int64_t n_digits = 0, exponent = 0;
  for (; p < end && is_digit(*p); p++, n_digits++) m = 10 * m + (uint64_t)(*p - '0');
  if (p < end && *p == '.')
    for (p++; p < end && is_digit(*p); p++, n_digits++, exponent--) m = 10 * m + (uint64_t)(*p - '0');
  if (n_digits == 0) return NULL;
  if (p < end && (*p == 'e' || *p == 'E')) {
    const bool down = ++p < end && *p == '-';
    p += p < end && (*p == '-' || *p == '+');
    const char *digits = p;
    int64_t written = 0;
    for (; p < end && is_digit(*p); p++) written = min_i64(10 * written + (*p - '0'), 1000000);
    if (p == digits) return NULL;
    exponent += down ? -written : written;
  }
  const bool whole = n_digits <= MAX_DIGITS, exact = whole && m >> 53 == 0;
  double size;
  if (exact && exponent <= 0 && exponent >= -MAX_EXACT_POWER) size = (double)m / POWER[-exponent];
  else if (exact && exponent > 0 && exponent <= MAX_EXACT_POWER) size = (double)m * POWER[exponent];
  else if (whole && m != 0 && exponent < 0 && exponent >= -MAX_DIGITS) size = exact_quotient(m, (int)-exponent);
  else size = fabs(long_number(text, (size_t)(p - text)));
  *value = negative ? -size : size;
  return p;
}

static bool is_word(const char *text, size_t n, const char *const *words) {
  for (; *words; words++)
    if (strlen(*words) == n && strncasecmp(text, *words, n) == 0) return true;
  return false;
}

static bool has_decimal_comma(const char *text, size_t n) {
  size_t digits = 0, commas = 0, others = 0;
  for (size_t i = 0; i < n; i++) {
    digits += is_digit(text[i]);
    commas += text[i] == ',';
    others += !is_digit(text[i]) && !strchr(",.+-eE", text[i]);
  }
  return digits > 0 && commas > 0 && others == 0;
}

CsvCell csv_number(const char *text, size_t n, double *value) {
  static const char *const missing[] = {"", "nan", "na", "n/a", "null", "none", "-", "?", NULL};
  static const char *const infinite[] = {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", NULL};
  if (csv_scan_number(text, text + n, value) == text + n) return isinf(*value) ? CSV_INFINITE : CSV_NUMBER;
  if (is_word(text, n, missing)) {
    *value = NAN;
    return CSV_MISSING;
  }
  if (is_word(text, n, infinite)) return CSV_INFINITE;
  return has_decimal_comma(text, n) ? CSV_DECIMAL_COMMA : CSV_OTHER;
}
