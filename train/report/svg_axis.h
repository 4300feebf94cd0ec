/* svg_axis: axes of figures: where a value lies, round ticks, dates. */
#pragma once

#include "train/format.h"

typedef struct Axis {
  double low, high;     /* in data */
  double start, extent; /* in pixels; y axes have a negative extent */
  double room;          /* pixels beyond the end that labels of x may take */
  bool log;
} Axis;

double axis_position(const Axis *axis, double value);
/* Grid lines over the whole width, each with its value at the left. */
void axis_y_ticks(StrBuf *out, const Axis *x, const Axis *y);
/* Ticks below `bottom`, with labels when `labelled`; the values of x are numbers or, `dates`, seconds since 1970. */
void axis_x_ticks(StrBuf *out, const Axis *x, double bottom, bool labelled, bool dates);
