/* mistakes: a user's mistakes, collected so that all are reported at once, and the nearest right name of each. */
#pragma once

#include "tensor/base.h"

typedef struct Mistakes {
  char *lines; /* NULL: none; else one a line, without the last newline */
  int n;
} Mistakes;

/* Adds one line. Past a hundred they are only counted. */
void mistakes_add(Mistakes *mistakes, const char *format, ...) PRINTF_LIKE(2, 3);
/* STATUS_OK when there were none, else a failure with all lines; empties the list. */
Status mistakes_status(Mistakes *mistakes, Code code);
void mistakes_clear(Mistakes *mistakes);

/* Fewest insertions, deletions, substitutions and swaps of neighbours that make b of a, each letter touched once
 * (optimal string alignment). Words are cut at 95 bytes. */
int name_distance(const char *a, const char *b);
/* The name nearest to `word` among n, or NULL when none is near enough to be meant. The first of equals. */
const char *name_nearest(const char *word, const char *const *names, int n);
