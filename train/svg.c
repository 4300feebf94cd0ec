/* svg: see svg.h. */
#include "train/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_SPAN 20.0 /* a linear axis would press the smaller values flat */
#define LABEL_HEIGHT 15.0
#define LABEL_MAX_CHARS 26

/* Colours: light and dark theme. Six hues of similar weight that stay apart for colour-blind readers. */
static const struct {
  const char *paper, *ink, *muted, *grid, *series[SVG_COLOURS];
} themes[2] = {
    {"#ffffff", "#20242a", "#6a717c", "#e7e7e2", {"#2b6cb0", "#c2542d", "#2f855a", "#7f56b3", "#a8781c", "#2b8a99"}},
    {"#1a1e24", "#e3e6ea", "#98a0ac", "#2d333c", {"#6aaef0", "#f0906a", "#64c795", "#b797e6", "#dcb259", "#62c6d6"}}};

void svg_style(StrBuf *out) {
  strbuf_puts(out, ".fig{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;"
                   "font-variant-numeric:tabular-nums}\n"
                   ".fig .title{font-size:14px;font-weight:600}.fig .small{font-size:10px}\n"
                   ".fig path,.fig line{fill:none;stroke-linejoin:round;stroke-linecap:round}\n");
  for (int t = 0; t < 2; t++) {
    if (t == 1) strbuf_puts(out, "@media (prefers-color-scheme:dark){\n");
    strbuf_printf(out, ".fig .paper{fill:%s}.fig .ink{fill:%s}.fig .muted{fill:%s}.fig .grid{stroke:%s}\n",
                  themes[t].paper, themes[t].ink, themes[t].muted, themes[t].grid);
    strbuf_printf(out, ".fig .grey{color:%s}", themes[t].muted);
    for (int c = 0; c < SVG_COLOURS; c++) strbuf_printf(out, ".fig .c%d{color:%s}", c, themes[t].series[c]);
    strbuf_puts(out, t == 1 ? "\n}\n" : "\n");
  }
}

/* Length of the UTF-8 character at p (of n bytes), 0 when it is none that XML allows. */
static size_t utf8_length(const unsigned char *p, size_t n) {
  if (p[0] < 0x80) return p[0] >= 0x20 && p[0] != 0x7f ? 1 : p[0] == '\n' || p[0] == '\t';
  size_t length = p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : p[0] >= 0xe0 ? 3 : 2;
  if (p[0] < 0xc2 || p[0] > 0xf4 || length > n) return 0;
  for (size_t i = 1; i < length; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
  bool surrogate = p[0] == 0xed && p[1] >= 0xa0, beyond = p[0] == 0xf4 && p[1] >= 0x90;
  bool noncharacter = p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe; /* U+FFFE, U+FFFF */
  return overlong || surrogate || beyond || noncharacter ? 0 : length;
}

void svg_escape(StrBuf *out, const char *text, size_t n) {
  for (size_t i = 0; i < n;) {
    size_t length = utf8_length((const unsigned char *)text + i, n - i);
    if (text[i] == '&') strbuf_puts(out, "&amp;");
    else if (text[i] == '<') strbuf_puts(out, "&lt;");
    else if (text[i] == '>') strbuf_puts(out, "&gt;");
    else if (text[i] == '"') strbuf_puts(out, "&quot;");
    else if (text[i] == '\'') strbuf_puts(out, "&#39;");
    else if (length) strbuf_add(out, text + i, length);
    else strbuf_puts(out, "\xef\xbf\xbd");
    i += length ? length : 1;
  }
}

static void escape(StrBuf *out, const char *text) { svg_escape(out, text, strlen(text)); }

/* Axes --------------------------------------------------------------------------------------------------------- */

typedef struct Axis {
  double low, high;     /* in data */
  double start, extent; /* in pixels; y axes have a negative extent */
  bool log;
} Axis;

static double axis_position(const Axis *axis, double value) {
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

static void y_tick(StrBuf *out, const Axis *x, const Axis *y, double value, const char *label) {
  double at = axis_position(y, value);
  strbuf_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", x->start,
                x->start + x->extent, at, at);
  strbuf_printf(out, "<text class=\"muted\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", x->start - 8,
                at + 4, label);
}

static void y_ticks(StrBuf *out, const Axis *x, const Axis *y) {
  if (!y->log) {
    double step = svg_tick_step(y->low, y->high, (int)fmax(3, -y->extent / 45));
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

static void x_ticks(StrBuf *out, const Figure *f, const Axis *x, double bottom) {
  double step = svg_tick_step(x->low, x->high, 7);
  for (double i = ceil(x->low / step - 1e-9); i * step <= x->high + 1e-9 * step; i++) {
    double at = axis_position(x, i * step);
    strbuf_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", at, at, bottom,
                  bottom + 4);
    if (f->x_label)
      strbuf_printf(out, "<text class=\"muted\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", at,
                    bottom + 18, tick_label(i * step, step, x->high).text);
  }
  if (!f->x_label) return;
  strbuf_printf(out, "<text class=\"muted\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", x->start + x->extent / 2,
                bottom + 36);
  escape(out, f->x_label);
  strbuf_puts(out, "</text>\n");
}

/* Lines -------------------------------------------------------------------------------------------------------- */

typedef struct Pen {
  StrBuf *out;
  const Axis *x, *y;
  bool down;
} Pen;

static void pen_to(Pen *pen, double x, double y) {
  strbuf_printf(pen->out, "%c%.1f %.1f", pen->down ? 'L' : 'M', axis_position(pen->x, x), axis_position(pen->y, y));
  pen->down = true;
}

static bool drawable(const Axis *y, double value) { return isfinite(value) && (!y->log || value > 0); }

/* The path's data; of more points than two a pixel column, each column's lowest and highest in their order. */
static void line_path(StrBuf *out, const Series *s, const Axis *x, const Axis *y) {
  Pen pen = {out, x, y, false};
  bool thin = s->n > 2 * (int64_t)x->extent;
  for (int64_t i = 0; i < s->n;) {
    if (!drawable(y, s->y[i])) {
      pen.down = false;
      i++;
      continue;
    }
    int64_t low = i, high = i, end = i + 1;
    double column = floor(axis_position(x, s->x[i]));
    while (thin && end < s->n && drawable(y, s->y[end]) && floor(axis_position(x, s->x[end])) == column) {
      if (s->y[end] < s->y[low]) low = end;
      if (s->y[end] > s->y[high]) high = end;
      end++;
    }
    int64_t first = low < high ? low : high, second = low < high ? high : low;
    pen_to(&pen, s->x[first], s->y[first]);
    if (second != first) pen_to(&pen, s->x[second], s->y[second]);
    i = end;
  }
}

static void open_colour(StrBuf *out, int colour) {
  if (colour < 0) strbuf_puts(out, "<g class=\"grey\">");
  else strbuf_printf(out, "<g class=\"c%d\">", colour % SVG_COLOURS);
}

static void draw_dots(StrBuf *out, const Series *s, const Axis *x, const Axis *y, double radius) {
  for (int64_t i = 0; i < s->n; i++) {
    if (!drawable(y, s->y[i])) continue;
    strbuf_printf(out,
                  "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"currentColor\"><title>%.4g at %s</title></circle>",
                  axis_position(x, s->x[i]), axis_position(y, s->y[i]), radius, s->y[i], format_count(s->x[i]).text);
  }
}

static void draw_series(StrBuf *out, const Series *s, const Axis *x, const Axis *y) {
  static const char *const strokes[] = {"stroke-width=\"1.5\"", "stroke-width=\"1\" stroke-opacity=\"0.35\"",
                                        "stroke-width=\"2.2\"", "stroke-width=\"1.2\" stroke-dasharray=\"5 4\""};
  open_colour(out, s->colour);
  /* From the seventh series on the colours repeat; dashes tell them apart. */
  const char *dashes = s->colour >= SVG_COLOURS && s->look != LOOK_RULE ? " stroke-dasharray=\"7 3\"" : "";
  strbuf_printf(out, "<path stroke=\"currentColor\" %s%s d=\"", strokes[s->look], dashes);
  if (s->look == LOOK_RULE) {
    Pen pen = {out, x, y, false};
    pen_to(&pen, x->low, s->y[0]);
    pen_to(&pen, x->high, s->y[0]);
  } else {
    line_path(out, s, x, y);
  }
  strbuf_puts(out, "\"/>");
  if (s->n == 1 && s->look != LOOK_RULE) draw_dots(out, s, x, y, 3);
  else if (s->look == LOOK_POINTS && s->n <= 80) draw_dots(out, s, x, y, 2.6);
  strbuf_puts(out, "</g>\n");
}

/* Labels at the ends of lines ---------------------------------------------------------------------------------- */

typedef struct Label {
  const Series *series;
  double y;
} Label;

static int label_order(const void *a, const void *b) {
  const Label *p = a, *q = b;
  if (p->y != q->y) return p->y < q->y ? -1 : 1;
  return p->series < q->series ? -1 : p->series > q->series;
}

/* Bytes of the first n_chars characters of a text. */
static size_t prefix_bytes(const char *text, int n_chars) {
  size_t i = 0;
  for (; text[i] && (n_chars > 0 || ((unsigned char)text[i] & 0xc0) == 0x80); i++)
    if (((unsigned char)text[i + 1] & 0xc0) != 0x80) n_chars--;
  return i;
}

static void draw_labels(StrBuf *out, const Figure *f, const Axis *x, const Axis *y) {
  Label *labels = base_alloc((size_t)(f->n_series + 1) * sizeof *labels);
  int n = 0;
  for (int i = 0; i < f->n_series; i++) {
    const Series *s = &f->series[i];
    int64_t last = s->look == LOOK_RULE ? 0 : s->n - 1;
    while (last >= 0 && !drawable(y, s->y[last])) last--;
    if (s->label && last >= 0) labels[n++] = (Label){s, axis_position(y, s->y[last])};
  }
  qsort(labels, (size_t)n, sizeof *labels, label_order);
  /* Pushed down until none overlap, then up where the last has left the figure. */
  for (int i = 1; i < n; i++) labels[i].y = fmax(labels[i].y, labels[i - 1].y + LABEL_HEIGHT);
  double limit = y->start;
  for (int i = n; i-- > 0; limit -= LABEL_HEIGHT) labels[i].y = fmin(labels[i].y, limit);
  for (int i = 0; i < n; i++) {
    const char *text = labels[i].series->label;
    size_t bytes = prefix_bytes(text, LABEL_MAX_CHARS);
    open_colour(out, labels[i].series->colour);
    strbuf_printf(out, "<text fill=\"currentColor\" x=\"%.1f\" y=\"%.1f\"><title>", x->start + x->extent + 8,
                  labels[i].y + 4);
    escape(out, text);
    strbuf_puts(out, "</title>");
    svg_escape(out, text, bytes);
    strbuf_puts(out, text[bytes] ? "…</text></g>\n" : "</text></g>\n");
  }
  free(labels);
}

static double label_width(const Figure *f) {
  return 24 + 6.8 * (f->label_chars > LABEL_MAX_CHARS ? LABEL_MAX_CHARS + 1 : f->label_chars);
}

/* The figure --------------------------------------------------------------------------------------------------- */

/* Ranges over everything finite; a little air above and below, but no negative axis for positive values. */
static void find_ranges(const Figure *f, Axis *x, Axis *y) {
  double x_high = 0, low = INFINITY, high = -INFINITY;
  for (int i = 0; i < f->n_series; i++) {
    const Series *s = &f->series[i];
    for (int64_t j = 0; j < (s->look == LOOK_RULE ? 1 : s->n); j++) {
      if (!isfinite(s->y[j])) continue;
      low = fmin(low, s->y[j]), high = fmax(high, s->y[j]);
      if (s->look != LOOK_RULE) x_high = fmax(x_high, s->x[j]);
    }
  }
  if (!(low <= high)) low = 0, high = 1; /* nothing to show: an empty frame */
  y->log = !f->linear && low > 0 && high / low > LOG_SPAN;
  if (y->log) {
    double air = pow(high / low, 0.05);
    y->low = low / air, y->high = high * air;
  } else {
    double air = high > low ? 0.06 * (high - low) : low != 0 ? 0.1 * fabs(low) : 0.5;
    y->low = low >= 0 ? fmax(low - air, 0) : low - air;
    y->high = high + air;
  }
  if (f->y_high > 0) y->low = 0, y->high = f->y_high, y->log = false;
  x->low = 0, x->high = x_high > 0 ? x_high : 1, x->log = false;
}

static void put_element(StrBuf *out, const char *open, const char *text, const char *close) {
  strbuf_puts(out, open);
  escape(out, text);
  strbuf_puts(out, close);
}

static void figure_head(StrBuf *out, const Figure *f) {
  strbuf_printf(out, "<svg class=\"fig\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" ",
                f->width, f->height);
  strbuf_printf(out, "aria-labelledby=\"%s-title %s-desc\">\n", f->id, f->id);
  strbuf_printf(out, "<title id=\"%s-title\">", f->id);
  put_element(out, "", f->title, "</title>\n");
  strbuf_printf(out, "<desc id=\"%s-desc\">", f->id);
  put_element(out, "", f->description, "</desc>\n");
}

static void figure_body(StrBuf *out, const Figure *f) {
  double top = 34, bottom = f->height - (f->x_label ? 46 : 14) - (f->corner ? 10 : 0), left = 56;
  Axis x = {.start = left, .extent = f->width - left - label_width(f)};
  Axis y = {.start = bottom, .extent = top - bottom};
  find_ranges(f, &x, &y);
  strbuf_printf(out, "<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n", f->width, f->height);
  put_element(out, "<text class=\"ink title\" x=\"12\" y=\"19\">", f->title, "</text>\n");
  y_ticks(out, &x, &y);
  x_ticks(out, f, &x, bottom);
  for (int i = 0; i < f->n_marks; i++) {
    double at = axis_position(&x, f->marks[i].x);
    open_colour(out, f->marks[i].colour);
    strbuf_printf(
        out, "<line stroke=\"currentColor\" stroke-dasharray=\"2 4\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
        at, at, top, bottom);
    if (f->mark_label) {
      strbuf_printf(out, "<text class=\"small\" fill=\"currentColor\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">",
                    at - 4, top + 8);
      put_element(out, "", f->mark_label, "</text>");
    }
    strbuf_puts(out, "</g>\n");
  }
  for (int layer = 0; layer < 2; layer++) /* what is faint lies behind */
    for (int i = 0; i < f->n_series; i++)
      if ((f->series[i].look == LOOK_FAINT) == (layer == 0) && f->series[i].n) draw_series(out, &f->series[i], &x, &y);
  draw_labels(out, f, &x, &y);
  if (!f->corner) return;
  strbuf_printf(out, "<text class=\"muted small\" x=\"%d\" y=\"%d\" text-anchor=\"end\">", f->width - 10,
                f->height - 7);
  put_element(out, "", f->corner, "</text>\n");
}

void svg_figure(StrBuf *out, const Figure *figure) {
  figure_head(out, figure);
  figure_body(out, figure);
  strbuf_puts(out, "</svg>\n");
}

void svg_document(StrBuf *out, const Figure *figure) {
  figure_head(out, figure);
  strbuf_puts(out, "<style>\n");
  svg_style(out);
  strbuf_puts(out, "</style>\n");
  figure_body(out, figure);
  strbuf_puts(out, "</svg>\n");
}
