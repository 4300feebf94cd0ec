/* mistakes: see mistakes.h. */
#include "train/config/mistakes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINES 100
#define MAX_WORD 95

void mistakes_add(Mistakes *mistakes, const char *format, ...) {
  if (mistakes->n++ >= MAX_LINES) return;
  va_list args;
  va_start(args, format);
  char *line = NULL;
  CHECK(vasprintf(&line, format, args) >= 0, "cannot format \"%s\"", format);
  va_end(args);
  if (mistakes->lines) {
    char *lines = base_format("%s\n%s", mistakes->lines, line);
    free(mistakes->lines);
    free(line);
    mistakes->lines = lines;
  } else {
    mistakes->lines = line;
  }
}

Status mistakes_status(Mistakes *mistakes, Code code) {
  if (!mistakes->n) return STATUS_OK;
  Status status = mistakes->n > MAX_LINES
                      ? status_fail(code, "%s\n... and %d more mistakes", mistakes->lines, mistakes->n - MAX_LINES)
                      : status_fail(code, "%s", mistakes->lines);
  mistakes_clear(mistakes);
  return status;
}

void mistakes_clear(Mistakes *mistakes) {
  free(mistakes->lines);
  *mistakes = (Mistakes){0};
}

static int min_of(int a, int b) { return a < b ? a : b; }

int name_distance(const char *a, const char *b) {
  int n_a = min_of((int)strlen(a), MAX_WORD), n_b = min_of((int)strlen(b), MAX_WORD);
  int rows[3][MAX_WORD + 1]; /* of the table of prefixes: the row before the last, the last, this one */
  int *before = rows[0], *last = rows[1], *row = rows[2];
  for (int j = 0; j <= n_b; j++) row[j] = j;
  for (int i = 1; i <= n_a; i++) {
    int *spare = before;
    before = last, last = row, row = spare;
    row[0] = i;
    for (int j = 1; j <= n_b; j++) {
      row[j] = min_of(last[j - 1] + (a[i - 1] != b[j - 1]), 1 + min_of(last[j], row[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = min_of(row[j], before[j - 2] + 1);
    }
  }
  return row[n_b];
}

const char *name_nearest(const char *word, const char *const *names, int n) {
  const char *nearest = NULL;
  int best = 2 + (int)strlen(word) / 4;
  for (int i = 0; i < n; i++) {
    int distance = name_distance(word, names[i]);
    if (distance < best) best = distance, nearest = names[i];
  }
  return nearest;
}
