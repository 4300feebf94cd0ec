/* dates: points in time of a series, as whole seconds since 1970-01-01 00:00:00 on the file's own clock; the even step
 * between rows; and dates written as the file writes them. Proleptic Gregorian calendar (ISO 8601), no leap seconds. */
#pragma once

#include "tensor/base.h"

/* How a file writes its dates; one file keeps to one clock and one order. */
typedef struct DateStyle {
  char order;     /* 'Y' 2016-07-01 or 2016/7/1, 'D' 31/12/2016 or 31.12.2016, 'M' 12/31/2016; 0: not known yet */
  char separator; /* '-', '/' or '.' */
  char joint;     /* ' ' or 'T' before the time of day; 0: dates only */
  bool padded;    /* 07, not 7 */
  bool no_day;    /* 2016-07 stands for its first day */
  bool seconds;   /* the time of day has seconds */
  char zone[8];   /* "", "Z", "+01:00": kept, not applied: one file has one zone */
} DateStyle;

typedef enum DateOutcome { DATE_OK, DATE_BAD, DATE_AMBIGUOUS } DateOutcome;

/* Reads the n characters at text. style->order must be 0 or what date_order found; the rest of *style is set to what was
 * seen. DATE_AMBIGUOUS: 3/4/2016 while style->order is 0. */
DateOutcome date_parse(const char *text, size_t n, DateStyle *style, int64_t *date);
/* 'D' or 'M' where a date with slashes and the year last can be only one of the two, else 0. */
char date_order(const char *text, size_t n);
/* Joins what one more date of a file shows to what the dates before it did (order 0: none). False when they differ in
 * order, zone or precision, so that a column of them would have two meanings. */
bool date_style_join(DateStyle *file, const DateStyle *seen);
/* As the style writes it, malloc'ed. */
char *date_format(int64_t date, const DateStyle *style);

typedef struct DateFields {
  int year, month, day, hour, minute, second; /* month and day from 1 */
  int day_of_week;                            /* Monday is 0 */
  int day_of_year, week;                      /* from 1; ISO 8601's week */
} DateFields;

DateFields date_fields(int64_t date);

/* From one row to the next: `seconds`, or `months` (month_end: always the last day). All zero: not known. */
typedef struct DateStep {
  int64_t seconds;
  int months;
  bool month_end;
} DateStep;

/* The date k steps on. */
int64_t date_after(int64_t date, DateStep step, int64_t k);
/* Steps from one date to another, rounded down; 0 where the step is not known. */
int64_t date_steps(int64_t from, int64_t to, DateStep step);
/* The step of n dates, which must rise. Even: true. Else false, with the step of most rows and the first row that does
 * not keep to it in *broken. Fewer than two dates have no step. */
bool date_step(const int64_t *date, int64_t n, DateStep *step, int64_t *broken);
/* "1 hour", "15 minutes", "1 month"; malloc'ed. */
char *date_step_text(DateStep step);
/* Rows of the season that a step suggests: a day of what divides a day, a week of days, a year of weeks, months and
 * quarters; 1 where it suggests none. */
int64_t date_season(DateStep step);
