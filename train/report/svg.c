/* svg: see svg.h. */
#include "train/report/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/report/svg_axis.h"

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
                   ".fig path,.fig line{fill:none;stroke-linejoin:round;stroke-linecap:round}\n"
                   ".fig .band{fill:currentColor;fill-opacity:.17;stroke:currentColor;stroke-opacity:.17}\n");
  for (int t = 0; t < 2; t++) {
    if (t == 1) strbuf_puts(out, "@media (prefers-color-scheme:dark){\n");
    strbuf_printf(out, ".fig .paper{fill:%s}.fig .ink{fill:%s}.fig .muted{fill:%s}.fig .grid{stroke:%s}\n",
                  themes[t].paper, themes[t].ink, themes[t].muted, themes[t].grid);
    strbuf_printf(out, ".fig .grey{color:%s}.fig .black{color:%s}", themes[t].muted, themes[t].ink);
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
    const bool alone = !pen.down && second == first && (end == s->n || !drawable(y, s->y[end]));
    pen_to(&pen, s->x[first], s->y[first]);
    if (second != first) pen_to(&pen, s->x[second], s->y[second]);
    if (alone) strbuf_puts(out, "h0"); /* a line of no length has round ends: a dot */
    i = end;
  }
}

static void open_colour(StrBuf *out, int colour) {
  if (colour < 0) strbuf_puts(out, colour == SVG_INK ? "<g class=\"black\">" : "<g class=\"grey\">");
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
                                        "stroke-width=\"2.2\"", "stroke-width=\"1.5\" stroke-dasharray=\"5 4\"",
                                        "stroke-width=\"1.2\" stroke-dasharray=\"5 4\""};
  open_colour(out, s->colour);
  /* From the seventh series on the colours repeat; dashes tell them apart. */
  const char *dashes = s->colour >= SVG_COLOURS && s->look < LOOK_DASHED ? " stroke-dasharray=\"7 3\"" : "";
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

static void draw_band(StrBuf *out, const Band *b, const Axis *x, const Axis *y) {
  open_colour(out, b->colour);
  strbuf_puts(out, "<path class=\"band\" d=\"");
  for (int64_t i = 0, end; i < b->n; i = end + 1) {
    for (end = i; end < b->n && drawable(y, b->low[end]) && drawable(y, b->high[end]);) end++;
    if (end == i) continue;
    Pen pen = {out, x, y, false};
    for (int64_t j = i; j < end; j++) pen_to(&pen, b->x[j], b->high[j]);
    for (int64_t j = end; j-- > i;) pen_to(&pen, b->x[j], b->low[j]);
    strbuf_puts(out, "Z");
  }
  strbuf_puts(out, "\"/></g>\n");
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
  if (f->label_chars < 0) return 10;
  return 24 + 6.8 * (f->label_chars > LABEL_MAX_CHARS ? LABEL_MAX_CHARS + 1 : f->label_chars);
}

/* The figure --------------------------------------------------------------------------------------------------- */

typedef struct Range {
  double low, high;
} Range;

static void range_add(Range *range, double value) {
  if (!isfinite(value)) return;
  range->low = fmin(range->low, value), range->high = fmax(range->high, value);
}

/* Ranges over everything finite; a little air above and below, but no negative axis for positive values. */
static void find_ranges(const Figure *f, Axis *x, Axis *y) {
  Range across = {INFINITY, -INFINITY}, up = across;
  for (int i = 0; i < f->n_series; i++) {
    const Series *s = &f->series[i];
    for (int64_t j = 0; j < (s->look == LOOK_RULE ? 1 : s->n); j++) {
      range_add(&up, s->y[j]);
      if (s->look != LOOK_RULE && isfinite(s->y[j])) range_add(&across, s->x[j]);
    }
  }
  for (int i = 0; i < f->n_bands; i++)
    for (int64_t j = 0; j < f->bands[i].n; j++) {
      range_add(&up, f->bands[i].low[j]), range_add(&up, f->bands[i].high[j]);
      range_add(&across, f->bands[i].x[j]);
    }
  double low = up.low, high = up.high;
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
  if (f->y_low < f->y_high) y->low = f->y_low, y->high = f->y_high, y->log = false;
  x->low = f->x_tight && isfinite(across.low) ? across.low : 0, x->log = false;
  x->high = across.high > x->low ? across.high : x->low + 1;
}

static void put_element(StrBuf *out, const char *open, const char *text, const char *close) {
  strbuf_puts(out, open);
  escape(out, text);
  strbuf_puts(out, close);
}

static void draw_marks(StrBuf *out, const Figure *f, const Axis *x, double top, double bottom) {
  for (int i = 0; i < f->n_marks; i++) {
    double at = axis_position(x, f->marks[i].x);
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
}

/* Axes and all that lies between them. */
static void draw_plot(StrBuf *out, const Figure *f, double left, double right, double top, double bottom) {
  Axis x = {.start = left, .extent = right - left, .room = label_width(f)},
       y = {.start = bottom, .extent = top - bottom};
  find_ranges(f, &x, &y);
  axis_y_ticks(out, &x, &y);
  axis_x_ticks(out, &x, bottom, f->x_label != NULL, f->x_dates);
  draw_marks(out, f, &x, top, bottom);
  for (int i = 0; i < f->n_bands; i++)
    if (f->bands[i].n) draw_band(out, &f->bands[i], &x, &y);
  for (int layer = 0; layer < 2; layer++) /* what is faint lies behind */
    for (int i = 0; i < f->n_series; i++)
      if ((f->series[i].look == LOOK_FAINT) == (layer == 0) && f->series[i].n) draw_series(out, &f->series[i], &x, &y);
  if (f->label_chars >= 0) draw_labels(out, f, &x, &y);
}

static void draw_head(StrBuf *out, const char *id, const char *title, const char *description, int width, int height) {
  strbuf_printf(out, "<svg class=\"fig\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" ",
                width, height);
  strbuf_printf(out, "aria-labelledby=\"%s-title %s-desc\">\n", id, id);
  strbuf_printf(out, "<title id=\"%s-title\">", id);
  put_element(out, "", title, "</title>\n");
  strbuf_printf(out, "<desc id=\"%s-desc\">", id);
  put_element(out, "", description, "</desc>\n");
}

static void draw_style(StrBuf *out) {
  strbuf_puts(out, "<style>\n");
  svg_style(out);
  strbuf_puts(out, "</style>\n");
}

/* Small print of at most max_chars; of more, beginning and end. */
static void put_corner(StrBuf *out, const char *text, int max_chars) {
  const int tail_chars = max_chars / 2;
  int chars = 0;
  for (const char *p = text; *p; p++) chars += ((unsigned char)*p & 0xc0) != 0x80;
  if (chars <= max_chars) {
    escape(out, text);
    return;
  }
  svg_escape(out, text, prefix_bytes(text, max_chars - tail_chars - 1));
  strbuf_puts(out, "…");
  escape(out, text + prefix_bytes(text, chars - tail_chars));
}

static void draw_paper(StrBuf *out, const char *title, int width, int height, const char *corner) {
  strbuf_printf(out, "<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n", width, height);
  put_element(out, "<text class=\"ink title\" x=\"12\" y=\"19\">", title, "</text>\n");
  if (!corner) return;
  strbuf_printf(out, "<text class=\"muted small\" x=\"%d\" y=\"%d\" text-anchor=\"end\">", width - 10, height - 7);
  put_corner(out, corner, (int)((width - 20) / 5.6));
  strbuf_puts(out, "</text>\n");
}

static void draw_x_label(StrBuf *out, const char *label, double x, double y) {
  if (!label || !*label) return;
  strbuf_printf(out, "<text class=\"muted\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", x, y);
  put_element(out, "", label, "</text>\n");
}

static void draw_y_label(StrBuf *out, const char *label, double x, double y) {
  if (!label) return;
  strbuf_printf(out, "<text class=\"muted\" transform=\"translate(%.1f %.1f) rotate(-90)\" text-anchor=\"middle\">", x,
                y);
  put_element(out, "", label, "</text>\n");
}

static void draw_figure(StrBuf *out, const Figure *f, bool alone) {
  const double left = f->y_label ? 68 : 56, right = f->width - label_width(f),
               bottom = f->height - (f->x_label ? 46 : 14) - (f->corner ? 10 : 0);
  draw_head(out, f->id, f->title, f->description, f->width, f->height);
  if (alone) draw_style(out);
  draw_paper(out, f->title, f->width, f->height, f->corner);
  draw_plot(out, f, left, right, 34, bottom);
  draw_x_label(out, f->x_label, (left + right) / 2, bottom + 36);
  draw_y_label(out, f->y_label, 20, (34 + bottom) / 2);
  strbuf_puts(out, "</svg>\n");
}

void svg_figure(StrBuf *out, const Figure *figure) { draw_figure(out, figure, false); }
void svg_document(StrBuf *out, const Figure *figure) { draw_figure(out, figure, true); }

/* Figures in a grid --------------------------------------------------------------------------------------------- */

/* One name of the legend, `left` its place; returns its width. out NULL: only that. */
static double legend_entry(StrBuf *out, const Series *s, double left, double y) {
  const size_t bytes = prefix_bytes(s->label, LABEL_MAX_CHARS);
  int chars = s->label[bytes] ? 1 : 0;
  for (size_t i = 0; i < bytes; i++) chars += ((unsigned char)s->label[i] & 0xc0) != 0x80;
  if (!out) return 48 + 6.6 * chars;
  const double ends[2] = {left, left + 22}, middle[2] = {y - 4, y - 4}, low[2] = {y + 1, y + 1},
               high[2] = {y - 9, y - 9};
  const Axis pixels = {.high = 1, .extent = 1}; /* a place is itself */
  Series line = *s;
  line.x = ends, line.y = middle, line.n = 2;
  if (s->n) draw_band(out, &(Band){ends, low, high, 2, s->colour}, &pixels, &pixels);
  if (line.look == LOOK_POINTS) line.look = LOOK_LINE;
  draw_series(out, &line, &pixels, &pixels);
  strbuf_printf(out, "<text class=\"ink\" x=\"%.1f\" y=\"%.1f\">", left + 28, y);
  svg_escape(out, s->label, bytes);
  strbuf_puts(out, s->label[bytes] ? "…</text>\n" : "</text>\n");
  return 48 + 6.6 * chars;
}

/* Lines of names, the last one's foot returned. out NULL: only that. */
static double draw_legend(StrBuf *out, const FigureGrid *g, double y) {
  double left = 12;
  for (int i = 0; i < g->n_legend; i++) {
    const double width = legend_entry(NULL, &g->legend[i], 0, 0);
    if (left > 12 && left + width > g->width) left = 12, y += 18;
    if (out) legend_entry(out, &g->legend[i], left, y);
    left += width;
  }
  return y;
}

static void draw_grid(StrBuf *out, const FigureGrid *g, bool alone) {
  const int n_rows = (g->n_panels + g->n_columns - 1) / g->n_columns;
  const double first = draw_legend(NULL, g, g->note ? 58 : 42) + 12;
  const double foot = first + n_rows * g->panel_height;
  const int height = (int)foot + (g->x_label ? 20 : 4) + (g->corner ? 12 : 0);
  draw_head(out, g->id, g->title, g->description, g->width, height);
  if (alone) draw_style(out);
  draw_paper(out, g->title, g->width, height, g->corner);
  if (g->note) put_element(out, "<text class=\"muted\" x=\"12\" y=\"37\">", g->note, "</text>\n");
  draw_legend(out, g, g->note ? 58 : 42);
  const double margin = g->y_label ? 20 : 8, width = (g->width - margin) / g->n_columns;
  for (int i = 0; i < g->n_panels; i++) {
    const Figure *panel = &g->panels[i];
    const int row = i / g->n_columns;
    const double left = margin + i % g->n_columns * width + 44, right = left - 44 + width - 10,
                 top = first + row * g->panel_height;
    strbuf_printf(out, "<text class=\"muted\" x=\"%.1f\" y=\"%.1f\">", left, top + 12);
    put_element(out, "", panel->title, "</text>\n");
    draw_plot(out, panel, left, right, top + 22, top + g->panel_height - 36);
  }
  draw_y_label(out, g->y_label, 20, (first + foot) / 2 - 8);
  draw_x_label(out, g->x_label, g->width / 2.0, foot + 6);
  strbuf_puts(out, "</svg>\n");
}

void svg_grid(StrBuf *out, const FigureGrid *grid) { draw_grid(out, grid, false); }
void svg_grid_document(StrBuf *out, const FigureGrid *grid) { draw_grid(out, grid, true); }
