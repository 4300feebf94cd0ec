/* svg_axis: see svg_axis.h. */
#include "train/report/svg_axis.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/dates.h"
#include "train/report/svg.h"

#define DAY 86400.0
#define DATE_LABEL_WIDTH 58.0 /* pixels from tick to tick */

double axis_position(const Axis *axis, double value) {
  double share =
      axis->log ? log(value / axis->low) / log(axis->high / axis->low) : (value - axis->low) / (axis->high - axis->low);
  return axis->start + share * axis->extent;
}

double svg_tick_step(double low, double high, int n_wanted) {
  CHECK(low < high && n_wanted > 0, "ticks over [%g, %g]", low, high);
  double rough = (high - low) / n_wanted, power = pow(10, floor(log10(rough))), digit = rough / power;
  return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

/* 0.5M, 3e-4, 2.25: as many decimals as the step between ticks needs. */
static Short tick_label(double value, double step, double largest) {
  Short out;
  if (fabs(value) < step / 1000) return (Short){"0"};
  static const char *const units[] = {"", "k", "M", "G", "T", "P"};
  double unit = 1;
  int u = 0, exponent = 0;
  while (largest >= 1e4 && u < 5 && largest / unit >= 1e3) unit *= 1e3, u++;
  if (largest < 0.01) {
    exponent = (int)floor(log10(largest * 1.0000001));
    unit = pow(10, exponent);
  }
  int decimals = (int)fmax(0, -floor(log10(step / unit * 1.0000001)));
  if (exponent) snprintf(out.text, sizeof out.text, "%.*fe%d", decimals, value / unit, exponent);
  else snprintf(out.text, sizeof out.text, "%.*f%s", decimals, value / unit, units[u]);
  return out;
}

/* y ------------------------------------------------------------------------------------------------------------ */

static void y_tick(StrBuf *out, const Axis *x, const Axis *y, double value, const char *label) {
  double at = axis_position(y, value);
  strbuf_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", x->start,
                x->start + x->extent, at, at);
  strbuf_printf(out, "<text class=\"muted\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", x->start - 8,
                at + 4, label);
}

void axis_y_ticks(StrBuf *out, const Axis *x, const Axis *y) {
  if (!y->log) {
    double step = svg_tick_step(y->low, y->high, (int)fmax(4, -y->extent / 45));
    double largest = fmax(fabs(y->low), fabs(y->high));
    for (double i = ceil(y->low / step - 1e-9); i * step <= y->high + 1e-9 * step; i++)
      y_tick(out, x, y, i * step, tick_label(i * step, step, largest).text);
    return;
  }
  double decades = log10(y->high / y->low);
  int stride = (int)fmax(1, ceil(decades / fmax(1, -y->extent / 30)));
  for (int e = (int)floor(log10(y->low)); e <= (int)ceil(log10(y->high)); e++) {
    for (int digit = 1; digit <= 5; digit += digit == 1 ? 1 : 3) { /* 1, 2, 5 */
      double value = digit * pow(10, e);
      bool wanted = digit == 1 ? e % stride == 0 : decades < -y->extent / 90;
      if (wanted && value >= y->low * 0.9999 && value <= y->high * 1.0001)
        y_tick(out, x, y, value, tick_label(value, pow(10, e), value).text);
    }
  }
}

/* x ------------------------------------------------------------------------------------------------------------ */

/* A label that would stick out of a narrow figure is left out, the tick stays. */
static void x_tick(StrBuf *out, const Axis *x, double value, double bottom, const char *label) {
  double at = axis_position(x, value);
  if (label && at + 3.7 * (double)strlen(label) > x->start + x->extent + x->room) label = NULL;
  strbuf_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", at, at, bottom,
                bottom + 4);
  if (label)
    strbuf_printf(out, "<text class=\"muted\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", at,
                  bottom + 18, label);
}

static void number_ticks(StrBuf *out, const Axis *x, double bottom, bool labelled) {
  double step = fmax(1, svg_tick_step(x->low, x->high, (int)fmax(3, fmin(7, x->extent / 70)))); /* they count things */
  for (double i = ceil(x->low / step - 1e-9); i * step <= x->high + 1e-9 * step; i++)
    x_tick(out, x, i * step, bottom, labelled ? tick_label(i * step, step, x->high).text : NULL);
}

/* "06:00", "24 Oct", "Oct 2017" or "2017": what changes from tick to tick. Midnight is a day. */
static Short date_label(int64_t date, bool days, bool months) {
  static const char *const names[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const DateFields f = date_fields(date);
  Short out;
  if (months) snprintf(out.text, sizeof out.text, "%s %d", names[f.month - 1], f.year);
  else if (days || (f.hour == 0 && f.minute == 0 && f.second == 0))
    snprintf(out.text, sizeof out.text, "%d %s", f.day, names[f.month - 1]);
  else if (f.second) snprintf(out.text, sizeof out.text, "%02d:%02d:%02d", f.hour, f.minute, f.second);
  else snprintf(out.text, sizeof out.text, "%02d:%02d", f.hour, f.minute);
  return out;
}

/* Round distances between dates up to four weeks; weeks begin on Mondays. */
static bool short_date_ticks(StrBuf *out, const Axis *x, double bottom, bool labelled, double least) {
  static const int steps[] = {1,    2,    5,    10,       15,       30,        60,    120,    300,       600,       900,
                              1800, 3600, 7200, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 172800, 7 * 86400, 14 * 86400};
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    if (steps[i] < least) continue;
    const double origin = steps[i] >= 7 * DAY ? 4 * DAY : 0; /* 1970-01-05 was a Monday */
    for (double k = ceil((x->low - origin) / steps[i]); origin + k * steps[i] <= x->high; k++) {
      const double date = origin + k * steps[i];
      x_tick(out, x, date, bottom, labelled ? date_label((int64_t)date, steps[i] >= DAY, false).text : NULL);
    }
    return true;
  }
  return false;
}

static void date_ticks(StrBuf *out, const Axis *x, double bottom, bool labelled) {
  const double least = (x->high - x->low) * DATE_LABEL_WIDTH / x->extent;
  if (short_date_ticks(out, x, bottom, labelled, least)) return;
  static const int months[] = {1, 2, 3, 6};
  int64_t step = 0;
  for (size_t i = 0; i < 4 && !step; i++)
    if (months[i] * 28 * DAY >= 1.3 * least) step = months[i]; /* these labels are longer */
  if (!step) {
    int64_t years = 1; /* 1, 2, 5, 10, ... */
    for (int i = 0; (double)years * 365 * DAY < least; i++) years = i % 3 == 1 ? years / 2 * 5 : years * 2;
    step = 12 * years;
  }
  const DateFields f = date_fields((int64_t)x->low);
  int64_t month = (int64_t)f.year * 12 + f.month - 1;
  for (month -= month % step;; month += step) {
    const int64_t date = date_after(0, (DateStep){.months = 1}, month - 1970 * 12);
    if ((double)date > x->high) return;
    if ((double)date < x->low) continue;
    Short year;
    snprintf(year.text, sizeof year.text, "%d", (int)(month / 12));
    x_tick(out, x, (double)date, bottom, !labelled ? NULL : step >= 12 ? year.text : date_label(date, true, true).text);
  }
}

void axis_x_ticks(StrBuf *out, const Axis *x, double bottom, bool labelled, bool dates) {
  (dates ? date_ticks : number_ticks)(out, x, bottom, labelled);
}
