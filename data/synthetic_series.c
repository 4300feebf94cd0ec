/* synthetic_series: with S = season, c the column, t the row, hourly from 2020-01-01 00:00:00:
 *
 *   sine          sin(2 pi t / S + c)
 *   trend_season  (0.5 + 0.1 c) t / S / 10 + sin(2 pi t / S + c) + 0.5 sin(2 pi t / (7 S) + 2 c)
 *   regimes       level + swing sin(2 pi t / S + c): level and swing are drawn anew every 10 S rows, level uniform in
 *                 [-2, 2), swing in [0.5, 1.5)
 *
 * plus noise times a standard normal. Value (t, c) depends on nothing but the rule, t and c: like a file, the series is
 * the same whatever the seed of the run. */
#include "data/synthetic_series.h"

#include <math.h>
#include <string.h>

#include "tensor/rng.h"

/* What the numbers are for: the first coordinate of RNG_TASK, behind those of data/synthetic.c. */
enum { DRAW_NOISE = 16, DRAW_REGIME };

static const double TURN = 6.283185307179586;

static double wave(double turns, double phase) { return sin(TURN * (turns - floor(turns)) + phase); }

static double make_sine(const SeriesRule *rule, int column, int64_t row) {
  return wave((double)row / (double)rule->season, column);
}

static double make_trend_season(const SeriesRule *rule, int column, int64_t row) {
  const double seasons = (double)row / (double)rule->season;
  return (0.5 + 0.1 * column) * seasons / 10 + wave(seasons, column) + 0.5 * wave(seasons / 7, 2.0 * column);
}

static double make_regimes(const SeriesRule *rule, int column, int64_t row) {
  Rng rng = rng_make(0, RNG_TASK, DRAW_REGIME, (uint64_t)(row / (10 * rule->season)) << 20 | (uint64_t)column);
  const double level = 4 * rng_uniform(&rng) - 2, swing = 0.5 + rng_uniform(&rng);
  return level + swing * wave((double)row / (double)rule->season, column);
}

static const struct {
  const char *name;
  double (*make)(const SeriesRule *rule, int column, int64_t row);
} RULES[] = {{"sine", make_sine}, {"trend_season", make_trend_season}, {"regimes", make_regimes}};

Status series_rule_find(const SeriesConfig *config, SeriesRule *rule) {
  if (config->generate_rows < 1 || config->generate_columns < 1 || config->generate_season < 1)
    return status_fail(CODE_USAGE,
                       "data.generate: found rows %d, columns %d and season %d, expected at least 1 of each",
                       config->generate_rows, config->generate_columns, config->generate_season);
  for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++)
    if (strcmp(RULES[i].name, config->task) == 0) {
      *rule = (SeriesRule){RULES[i].make, config->generate_rows, config->generate_season, config->generate_noise};
      return STATUS_OK;
    }
  return status_fail(CODE_USAGE, "data.generate.task: found %s, expected sine, trend_season or regimes", config->task);
}

void series_rule_make(const SeriesRule *rule, const int *columns, SeriesTable *table) {
  enum { HOUR = 3600, START = 1577836800 /* 2020-01-01 00:00:00 */ };
  table->n_rows = rule->n_rows;
  table->value = base_alloc(sizeof *table->value * (size_t)(table->n_rows * table->n_columns));
  table->date = base_alloc(sizeof *table->date * (size_t)table->n_rows);
  table->date_name = base_strdup("date");
  table->style = (DateStyle){.order = 'Y', .separator = '-', .joint = ' ', .padded = true, .seconds = true};
  for (int64_t row = 0; row < table->n_rows; row++) {
    table->date[row] = START + HOUR * row;
    for (int i = 0; i < table->n_columns; i++) {
      Rng rng = rng_make(0, RNG_TASK, DRAW_NOISE, (uint64_t)row << 20 | (uint64_t)columns[i]);
      table->value[row * table->n_columns + i] =
          rule->make(rule, columns[i], row) + (rule->noise > 0 ? rule->noise * rng_normal(&rng) : 0);
    }
  }
}
