/* svg: line figures as SVG text: axes with round ticks, lines labelled at their ends, light and dark by the viewer's
 * preference, a text alternative, no scripts. The same input gives the same bytes. */
#pragma once

#include "train/format.h"

#define SVG_COLOURS 6 /* series colours repeat after these */

typedef enum SeriesLook {
  LOOK_LINE,   /* a thin line */
  LOOK_FAINT,  /* a paler one, behind */
  LOOK_POINTS, /* a strong line through dots, each with its numbers as a tooltip */
  LOOK_RULE    /* one value, dashed across the whole width */
} SeriesLook;

/* n points with x ascending; a non-finite y leaves a gap. A rule reads only y[0]. Long series are thinned to the lowest
 * and the highest point of every pixel column. */
typedef struct Series {
  const char *label; /* NULL: not labelled */
  const double *x, *y;
  int64_t n;
  int colour; /* -1: grey */
  SeriesLook look;
} Series;

/* A vertical dashed line at x. */
typedef struct Mark {
  double x;
  int colour;
} Mark;

typedef struct Figure {
  const char *id;          /* unique on the page */
  const char *title;       /* drawn above */
  const char *description; /* for those who cannot see it */
  const char *x_label;     /* NULL: the axis is left bare */
  const char *mark_label;  /* what the marks are */
  const char *corner;      /* small print at the lower right, NULL: none */
  int width, height;
  int label_chars; /* room for labels at the right, in characters; longer labels are cut */
  bool linear;     /* never a logarithmic y axis */
  double y_high;   /* > 0: the y axis runs from 0 to here, whatever the values */
  const Series *series;
  int n_series;
  const Mark *marks;
  int n_marks;
} Figure;

/* Unless `linear`, the y axis is logarithmic where all values are positive and span more than a factor of 20. */
void svg_figure(StrBuf *out, const Figure *figure);
/* The rules that figures need; inside <style>, once a page. */
void svg_style(StrBuf *out);
/* A file of its own: figure with style. */
void svg_document(StrBuf *out, const Figure *figure);

/* Text for XML and HTML, element or attribute: & < > " ' escaped; control characters and what is not UTF-8 become U+FFFD. */
void svg_escape(StrBuf *out, const char *text, size_t n);
/* Round steps (1, 2, 5 times a power of ten) for about n_wanted ticks over [low, high]; low < high. */
double svg_tick_step(double low, double high, int n_wanted);
