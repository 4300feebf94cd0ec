/* synthetic_series: series that are made by a rule, for a first run and for tests; see synthetic_series.c. */
#pragma once

#include "data/series_table.h"

typedef struct SeriesRule {
  double (*make)(const struct SeriesRule *rule, int column, int64_t row); /* without the noise */
  int64_t n_rows, season;
  double noise; /* standard deviation */
} SeriesRule;

/* config->task by its name; an unknown one, or one row and less, is CODE_USAGE. */
Status series_rule_find(const SeriesConfig *config, SeriesRule *rule);
/* Fills rows, values and dates of a table whose columns are named; columns[i] is the rule's column of column i. */
void series_rule_make(const SeriesRule *rule, const int *columns, SeriesTable *table);
