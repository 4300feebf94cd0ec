/* svg: line figures as SVG text: axes with round ticks, lines labelled at their ends, light and dark by the viewer's
 * preference, a text alternative, no scripts. The same input gives the same bytes. */
#pragma once

#include "train/format.h"

#define SVG_COLOURS 6 /* series colours repeat after these */

typedef enum SeriesLook {
  LOOK_LINE,   /* a thin line */
  LOOK_FAINT,  /* a paler one, behind */
  LOOK_POINTS, /* a strong line through dots, each with its numbers as a tooltip */
  LOOK_DASHED, /* a thin dashed line */
  LOOK_RULE    /* one value, dashed across the whole width */
} SeriesLook;

/* Colours by number are those of series, from 0; they repeat after SVG_COLOURS. */
enum { SVG_GREY = -1, SVG_INK = -2 };

/* n points with x ascending; a non-finite y leaves a gap. A rule reads only y[0]. Long series are thinned to the lowest
 * and the highest point of every pixel column. */
typedef struct Series {
  const char *label; /* NULL: not labelled */
  const double *x, *y;
  int64_t n;
  int colour;
  SeriesLook look;
} Series;

/* The space between two lines, shaded; where one of them is not finite there is none. */
typedef struct Band {
  const double *x, *low, *high;
  int64_t n;
  int colour;
} Band;

/* A vertical dashed line at x. */
typedef struct Mark {
  double x;
  int colour;
} Mark;

typedef struct Figure {
  const char *id;          /* unique on the page */
  const char *title;       /* drawn above */
  const char *description; /* for those who cannot see it */
  const char *x_label;     /* NULL: the axis is left bare; "": it has numbers alone */
  const char *y_label;     /* along the y axis; NULL: the title tells */
  const char *mark_label;  /* what the marks are */
  const char *corner;      /* small print at the lower right, NULL: none */
  int width, height;
  int label_chars; /* room for labels at the right, in characters; longer labels are cut; < 0: no labels, no room */
  bool linear;     /* never a logarithmic y axis */
  double y_low, y_high; /* y_low < y_high: the y axis runs from here to there, whatever the values */
  bool x_tight;         /* the x axis begins at the lowest x, not at 0 */
  bool x_dates;         /* x is seconds since 1970 */
  const Band *bands;
  int n_bands;
  const Series *series;
  int n_series;
  const Mark *marks;
  int n_marks;
} Figure;

/* Figures side by side, n_columns in a row, under one title and one legend: a line of the legend for each name. A panel's
 * title stands small above it; what else a panel says of itself (id, description, corner, width, height) is not read. */
typedef struct FigureGrid {
  const char *id, *title, *note, *description, *corner, *x_label,
      *y_label; /* as a Figure's; note: small, below the title */
  int width, panel_height, n_columns;
  const Series *legend; /* label, colour and look; n > 0: with a band behind it */
  int n_legend;
  const Figure *panels;
  int n_panels;
} FigureGrid;

/* Unless `linear`, the y axis is logarithmic where all values are positive and span more than a factor of 20. */
void svg_figure(StrBuf *out, const Figure *figure);
void svg_grid(StrBuf *out, const FigureGrid *grid);
/* The rules that figures need; inside <style>, once a page. */
void svg_style(StrBuf *out);
/* A file of its own: figure with style. */
void svg_document(StrBuf *out, const Figure *figure);
void svg_grid_document(StrBuf *out, const FigureGrid *grid);

/* Text for XML and HTML, element or attribute: & < > " ' escaped; control characters and what is not UTF-8 become U+FFFD. */
void svg_escape(StrBuf *out, const char *text, size_t n);
/* Round steps (1, 2, 5 times a power of ten) for about n_wanted ticks over [low, high]; low < high. */
double svg_tick_step(double low, double high, int n_wanted);
