/* markup: what tests ask of HTML and SVG. */
#pragma once

/* Elements open and close in order; attributes are quoted. What a browser forgives, an SVG viewer does not. */
void assert_well_formed(const char *name, const char *text);
/* How often a piece occurs in a text. */
int n_times(const char *text, const char *piece);
