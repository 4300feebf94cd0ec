/* dates: see dates.h. Days are counted with years that begin in March, so that the leap day is the last of its year and
 * the months before it have a fixed pattern of 153 days in five. */
#include "data/dates.h"

#include <stdio.h>
#include <string.h>

enum { MINUTE = 60, HOUR = 3600, DAY = 86400, DAYS_IN_400_YEARS = 146097, DAYS_TO_1970 = 719468 };

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* Days from 1970-01-01 to a date. */
static int64_t days_of(int64_t year, int month, int day) {
  const int64_t y = year - (month < 3), cycle = floor_div(y, 400), of_cycle = y - 400 * cycle;
  const int of_year = (153 * (month < 3 ? month + 9 : month - 3) + 2) / 5 + day - 1;
  return cycle * DAYS_IN_400_YEARS + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - DAYS_TO_1970;
}

static void civil_of(int64_t days, int *year, int *month, int *day) {
  const int64_t shifted = days + DAYS_TO_1970, cycle = floor_div(shifted, DAYS_IN_400_YEARS);
  const int64_t n = shifted - cycle * DAYS_IN_400_YEARS;
  const int64_t y = (n - n / 1460 + n / 36524 - n / 146096) / 365;
  const int of_year = (int)(n - (365 * y + y / 4 - y / 100)), m = (5 * of_year + 2) / 153;
  *day = of_year - (153 * m + 2) / 5 + 1;
  *month = m < 10 ? m + 3 : m - 9;
  *year = (int)(y + 400 * cycle + (*month < 3));
}

static int days_in_month(int64_t year, int month) {
  return (int)(days_of(year + month / 12, month % 12 + 1, 1) - days_of(year, month, 1));
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

typedef struct Cursor {
  const char *at, *end;
} Cursor;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Up to `most` digits; returns how many. */
static int take_digits(Cursor *c, int most, int *value) {
  int n = 0;
  for (*value = 0; n < most && c->at < c->end && is_digit(*c->at); c->at++, n++) *value = 10 * *value + (*c->at - '0');
  return n;
}

static bool take(Cursor *c, char wanted) {
  if (c->at == c->end || *c->at != wanted) return false;
  c->at++;
  return true;
}

/* hh:mm[:ss[.000]] */
static bool take_time(Cursor *c, DateStyle *style, int64_t *seconds) {
  int hour, minute, second = 0, fraction = 0, n = take_digits(c, 2, &hour);
  if (n == 0 || !take(c, ':') || take_digits(c, 2, &minute) != 2) return false;
  if (n == 1) style->padded = false;
  style->seconds = take(c, ':');
  if (style->seconds && take_digits(c, 2, &second) != 2) return false;
  if (style->seconds && take(c, '.') && (take_digits(c, 9, &fraction) == 0 || fraction != 0)) return false;
  *seconds += hour * HOUR + minute * MINUTE + second;
  return hour < 24 && minute < 60 && second < 60;
}

/* Z, +hh, +hhmm or +hh:mm */
static bool take_zone(Cursor *c, DateStyle *style) {
  const char *from = c->at;
  int hours = 0, minutes = 0;
  if (!take(c, 'Z') && c->at < c->end) {
    if (!take(c, '+') && !take(c, '-')) return false;
    if (take_digits(c, 2, &hours) != 2) return false;
    const bool colon = take(c, ':'), has_minutes = c->at < c->end;
    if ((colon || has_minutes) && take_digits(c, 2, &minutes) != 2) return false;
  }
  snprintf(style->zone, sizeof style->zone, "%.*s", (int)(c->at - from), from);
  return hours < 24 && minutes < 60;
}

/* The three numbers of a day and what separates them; widths in digits. */
static bool take_day(Cursor *c, int part[3], int width[3], char *separator) {
  width[0] = take_digits(c, 4, &part[0]);
  if (width[0] == 0 || c->at == c->end || !strchr("-/.", *c->at)) return false;
  *separator = *c->at;
  for (int i = 1; i < 3; i++) {
    width[i] = take(c, *separator) ? take_digits(c, i == 2 && width[0] != 4 ? 4 : 2, &part[i]) : 0;
    if (width[i] == 0) return i == 2 && width[0] == 4 && *separator == '-' && c->at == c->end; /* 2016-07 */
  }
  return true;
}

DateOutcome date_parse(const char *text, size_t n, DateStyle *style, int64_t *date) {
  Cursor c = {text, text + n};
  int part[3] = {0}, width[3] = {0};
  DateStyle seen = {.padded = true};
  if (!take_day(&c, part, width, &seen.separator)) return DATE_BAD;
  seen.order = width[0] == 4 ? 'Y' : seen.separator == '.' ? 'D' : style->order;
  if (seen.order == 0) return DATE_AMBIGUOUS;
  if ((seen.order == 'Y') != (width[0] == 4) || (width[0] != 4 && (width[0] > 2 || width[2] != 4))) return DATE_BAD;
  seen.no_day = width[2] == 0;
  const int year = seen.order == 'Y' ? part[0] : part[2];
  const int month = seen.order == 'M' ? part[0] : part[1];
  const int day = seen.no_day ? 1 : seen.order == 'Y' ? part[2] : seen.order == 'D' ? part[0] : part[1];
  if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)) return DATE_BAD;
  for (int i = 0; i < 3; i++) seen.padded &= width[i] != 1;
  int64_t seconds = days_of(year, month, day) * DAY;
  if (c.at < c.end) {
    seen.joint = *c.at++;
    if ((seen.joint != ' ' && seen.joint != 'T') || !take_time(&c, &seen, &seconds) || !take_zone(&c, &seen) ||
        c.at != c.end)
      return DATE_BAD;
  }
  *style = seen;
  *date = seconds;
  return DATE_OK;
}

char date_order(const char *text, size_t n) {
  Cursor c = {text, text + n};
  int part[3], width[3];
  char separator;
  if (!take_day(&c, part, width, &separator) || width[0] == 4 || separator == '.') return 0;
  return part[0] > 12 && part[1] <= 12 ? 'D' : part[1] > 12 && part[0] <= 12 ? 'M' : 0;
}

bool date_style_join(DateStyle *file, const DateStyle *seen) {
  if (file->order == 0) {
    *file = *seen;
    return true;
  }
  file->padded &= seen->padded;
  file->seconds |= seen->seconds;
  if (!file->joint) file->joint = seen->joint;
  return file->order == seen->order && file->no_day == seen->no_day && strcmp(file->zone, seen->zone) == 0;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

char *date_format(int64_t date, const DateStyle *style) {
  const DateFields f = date_fields(date);
  const int w = style->padded ? 2 : 1;
  const char s = style->separator;
  char day[48], time[32] = "";
  if (style->no_day) snprintf(day, sizeof day, "%04d%c%0*d", f.year, s, w, f.month);
  else if (style->order == 'Y') snprintf(day, sizeof day, "%04d%c%0*d%c%0*d", f.year, s, w, f.month, s, w, f.day);
  else {
    const bool day_first = style->order == 'D';
    snprintf(day, sizeof day, "%0*d%c%0*d%c%04d", w, day_first ? f.day : f.month, s, w, day_first ? f.month : f.day, s,
             f.year);
  }
  if (style->joint && style->seconds)
    snprintf(time, sizeof time, "%c%0*d:%02d:%02d", style->joint, w, f.hour, f.minute, f.second);
  else if (style->joint) snprintf(time, sizeof time, "%c%0*d:%02d", style->joint, w, f.hour, f.minute);
  return base_format("%s%s%s", day, time, style->zone);
}

DateFields date_fields(int64_t date) {
  DateFields f;
  const int64_t days = floor_div(date, DAY);
  const int seconds = (int)(date - days * DAY);
  civil_of(days, &f.year, &f.month, &f.day);
  f.hour = seconds / HOUR, f.minute = seconds / MINUTE % 60, f.second = seconds % 60;
  f.day_of_week = (int)(days + 3 - 7 * floor_div(days + 3, 7)); /* 1970-01-01 was a Thursday */
  f.day_of_year = (int)(days - days_of(f.year, 1, 1)) + 1;
  /* A week belongs to the year of its Thursday. */
  const int64_t thursday = days - f.day_of_week + 3;
  int year, month, day;
  civil_of(thursday, &year, &month, &day);
  f.week = (int)((thursday - days_of(year, 1, 1)) / 7) + 1;
  return f;
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

int64_t date_after(int64_t date, DateStep step, int64_t k) {
  if (step.months == 0) return date + k * step.seconds;
  const DateFields f = date_fields(date);
  const int64_t month = 12 * (int64_t)f.year + f.month - 1 + k * step.months, year = floor_div(month, 12);
  const int of_year = (int)(month - 12 * year) + 1, last = days_in_month(year, of_year);
  return days_of(year, of_year, step.month_end || f.day > last ? last : f.day) * DAY + date -
         floor_div(date, DAY) * DAY;
}

int64_t date_steps(int64_t from, int64_t to, DateStep step) {
  if (step.seconds) return floor_div(to - from, step.seconds);
  if (!step.months) return 0;
  const DateFields a = date_fields(from), b = date_fields(to);
  const int64_t steps = floor_div(12 * ((int64_t)b.year - a.year) + b.month - a.month, step.months);
  return steps - (date_after(from, step, steps) > to);
}

static bool keeps(const int64_t *date, int64_t n, DateStep step) {
  for (int64_t i = 1; i < n; i++)
    if (date[i] != date_after(date[0], step, i)) return false;
  return true;
}

/* The difference of more than half of the neighbours where there is one (Boyer and Moore's vote). */
static int64_t common_difference(const int64_t *date, int64_t n) {
  int64_t candidate = 0, votes = 0;
  for (int64_t i = 1; i < n; i++) {
    const int64_t difference = date[i] - date[i - 1];
    if (votes == 0) candidate = difference;
    votes += difference == candidate ? 1 : -1;
  }
  return candidate;
}

bool date_step(const int64_t *date, int64_t n, DateStep *step, int64_t *broken) {
  *step = (DateStep){0};
  if (n < 2) return true;
  *step = (DateStep){.seconds = date[1] - date[0]};
  if (keeps(date, n, *step)) return true;
  const DateFields a = date_fields(date[0]), b = date_fields(date[1]);
  const int months = 12 * (b.year - a.year) + b.month - a.month;
  for (int end = 1; end >= 0 && months > 0; end--) { /* 31 January and 28 February: last days first */
    *step = (DateStep){.months = months, .month_end = end};
    if (keeps(date, n, *step)) return true;
  }
  *step = (DateStep){.seconds = common_difference(date, n)};
  *broken = 1;
  while (*broken < n - 1 && date[*broken] - date[*broken - 1] == step->seconds) ++*broken;
  return false;
}

char *date_step_text(DateStep step) {
  static const struct {
    int64_t seconds;
    const char *name;
  } units[] = {{7 * DAY, "week"}, {DAY, "day"}, {HOUR, "hour"}, {MINUTE, "minute"}, {1, "second"}};
  int64_t n = step.months;
  const char *name = "month";
  for (size_t i = 0; step.months == 0 && i < sizeof units / sizeof *units; i++) {
    name = units[i].name, n = step.seconds / units[i].seconds;
    if (n > 0 && step.seconds % units[i].seconds == 0) break;
  }
  return base_format("%lld %s%s", (long long)n, name, n == 1 ? "" : "s");
}

int64_t date_season(DateStep step) {
  if (step.months) return 12 % step.months ? 1 : 12 / step.months;
  if (step.seconds == DAY) return 7;
  if (step.seconds == 7 * DAY) return 52;
  return step.seconds > 0 && DAY % step.seconds == 0 ? DAY / step.seconds : 1;
}
