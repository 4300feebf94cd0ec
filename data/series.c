/* series: windows over rows of numbers, as the long-horizon forecasting papers cut them (Informer's loader, after which
 * the ETT tables are made): the rows are cut by position into training, validation and test part; with L = context and
 * H = horizon
 *
 *   a window of row w:  input = rows [w, w + L), output = rows [w + L, w + L + H) of the output columns, stride 1; where the
 *                       future is known, the input goes on over the H rows of the output, their values 0;
 *   validation and test begin L rows before their part, so that the first row forecast is the part's first;
 *   a part of n rows (the look-back included) has n - L - H + 1 windows.
 *
 * Training sample i is window permute_e(i mod n) of epoch e = i / n. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/kind.h"
#include "data/series.h"
#include "tensor/rng.h"

typedef struct SeriesDataset {
  Dataset base;
  Series *series;
  char *json;
  float *rows;      /* (n_rows, n_input), scaled; NaN where there is no value */
  int64_t *dates;   /* (n_rows); NULL: none */
  int64_t first[3]; /* by DataPart: row of the first window */
  int64_t clock;    /* Batch.row of row 0 */
} SeriesDataset;

static void series_sample(const Dataset *dataset, DataPart part, int64_t index, const Batch *sample) {
  const SeriesDataset *d = (const SeriesDataset *)dataset;
  const SeriesInfo *info = dataset->series;
  const int64_t n = dataset->n_samples[part], n_in = info->n_input, n_out = info->n_output;
  CHECK(sample->length == info->window, "windows of %d rows, batch of %lld", info->window, (long long)sample->length);
  const int64_t window = part == PART_TRAIN ? (int64_t)rng_permute(dataset->seed, RNG_SHUFFLE, (uint32_t)(index / n),
                                                                   (uint64_t)n, (uint64_t)(index % n))
                                            : index;
  const float *rows = d->rows + (d->first[part] + window) * n_in;
  for (int64_t i = 0; i < sample->length * n_in; i++) {
    const bool ahead = i >= info->context * n_in && i % n_in < info->n_values;
    sample->input[i] = ahead || isnan(rows[i]) ? 0 : rows[i];
  }
  rows += info->context * n_in;
  for (int64_t h = 0; h < info->horizon; h++)
    for (int64_t j = 0; j < n_out; j++) sample->output[h * n_out + j] = rows[h * n_in + info->output_input[j]];
  if (sample->row) *sample->row = d->clock + d->first[part] + window;
}

SeriesWindow dataset_window(const Dataset *dataset, DataPart part, int64_t index) {
  const SeriesInfo *info = dataset->series;
  CHECK(info && part != PART_TRAIN && index >= 0 && index < dataset->n_samples[part], "window %lld of part %d",
        (long long)index, (int)part);
  const SeriesDataset *d = (const SeriesDataset *)dataset;
  const int64_t first = d->first[part] + index, n = info->context + info->horizon;
  SeriesWindow window = {.values = base_alloc(sizeof(double) * (size_t)(n * info->n_output)), .row = d->clock + first};
  for (int64_t i = 0; i < n * info->n_output; i++) {
    const int input = info->output_input[i % info->n_output];
    const double scaled = d->rows[(first + i / info->n_output) * info->n_input + input];
    window.values[i] = scaled * info->std[input] + info->mean[input];
  }
  if (!d->dates) return window;
  window.dates = base_alloc(sizeof(int64_t) * (size_t)n);
  memcpy(window.dates, d->dates + first, sizeof(int64_t) * (size_t)n);
  return window;
}

void series_window_free(SeriesWindow *window) {
  free(window->values);
  free(window->dates);
  *window = (SeriesWindow){0};
}

static int64_t series_train_length(const Dataset *dataset, int64_t step) {
  (void)step;
  return dataset->series->window;
}

static void series_close(Dataset *dataset) {
  SeriesDataset *d = (SeriesDataset *)dataset;
  series_free(d->series);
  free(d->json);
  free(d->rows);
  free(d->dates);
  free(d);
}

/* --- parts -------------------------------------------------------------------------------------------------------- */

static const char *const PART_NAME[] = {"training", "validation", "test"};

/* Ends of the parts by shares: all ends are rounded, not sizes, so that no row falls between two parts. */
static Status borders_by_share(const DataConfig *config, const SeriesTable *table, int64_t end[3]) {
  const double share[] = {config->split_train, config->split_val, config->split_test};
  double sum = 0;
  for (int part = 0; part < 3; part++) {
    sum += share[part];
    end[part] = min_i64(llround(sum * (double)table->n_rows), table->n_rows);
  }
  if (sum <= 1 + 1e-9) return STATUS_OK;
  return status_fail(CODE_USAGE, "data.split: found train %g, val %g and test %g, expected a sum of at most 1",
                     share[0], share[1], share[2]);
}

/* 12, 4 and 4 months of 30 days. */
static Status borders_of_ett(const Series *series, const SeriesTable *table, int64_t end[3]) {
  enum { MONTH = 30 * 86400 };
  static const int months[] = {12, 16, 20};
  const int64_t step = series->step.seconds;
  if (step == 0 || MONTH % step != 0)
    return status_fail(CODE_DATA, "%s: found %s, expected dates with a step that divides 30 days (data.borders: ett)",
                       table->path, series->info.step ? series->info.step : "no dates");
  for (int part = 0; part < 3; part++) end[part] = months[part] * (MONTH / step);
  if (end[2] <= table->n_rows) return STATUS_OK;
  return status_fail(CODE_DATA, "%s: found %lld rows, expected at least %lld: 20 months of 30 days (data.borders: ett)",
                     table->path, (long long)table->n_rows, (long long)end[2]);
}

/* The first row at or after a date; n_rows when there is none. */
static int64_t row_of_date(const SeriesTable *table, int64_t date) {
  int64_t low = 0, high = table->n_rows;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (table->date[middle] < date) low = middle + 1;
    else high = middle;
  }
  return low;
}

static Status borders_by_date(const SeriesConfig *config, const Series *series, const SeriesTable *table,
                              int64_t end[3]) {
  if (!table->date)
    return status_fail(CODE_USAGE, "data.borders: found dates, but %s has none; give data.split instead", table->path);
  const int64_t last = table->date[table->n_rows - 1];
  for (int part = 0; part < 3; part++) {
    const char *text = config->borders[part];
    DateStyle style = {0};
    int64_t date;
    if (date_parse(text, strlen(text), &style, &date) != DATE_OK)
      return status_fail(CODE_USAGE, "data.borders: found %s, expected ett or three dates as 2017-06-26", text);
    end[part] = row_of_date(table, date);
    /* the end may be the row after the last */
    if (date > table->date[0] && date <= date_after(last, series->step, part == 2)) continue;
    char *from = date_format(table->date[0], &table->style), *to = date_format(last, &table->style);
    Status status = status_fail(CODE_DATA, "data.borders: found %s, expected a date inside of %s: after %s, up to %s",
                                text, table->path, from, to);
    free(from);
    free(to);
    return status;
  }
  if (end[0] < end[1] && end[1] < end[2]) return STATUS_OK;
  return status_fail(CODE_USAGE, "data.borders: found %s, %s and %s, expected three dates that rise",
                     config->borders[0], config->borders[1], config->borders[2]);
}

static Status find_borders(const DataConfig *config, const Series *series, const SeriesTable *table, int64_t end[3]) {
  const SeriesConfig *c = &config->series;
  if (c->n_borders == 0) return borders_by_share(config, table, end);
  if (c->n_borders == 1 && strcmp(c->borders[0], "ett") == 0) return borders_of_ett(series, table, end);
  if (c->n_borders == 3) return borders_by_date(c, series, table, end);
  return status_fail(CODE_USAGE,
                     "data.borders: found %d, expected ett, or three dates: validation starts, test starts, end",
                     c->n_borders);
}

/* First row and number of windows of each part. An empty test part is none. */
static Status cut_windows(SeriesDataset *d, const SeriesTable *table, const int64_t end[3]) {
  const SeriesInfo *info = &d->series->info;
  for (int part = 0; part < 3; part++) {
    const int64_t begin = part == 0 ? 0 : end[part - 1], n = end[part] - begin;
    const int64_t look_back = part == 0 ? 0 : info->context;
    const int64_t windows = n + look_back - info->context - info->horizon + 1;
    d->first[part] = begin - look_back;
    if (part == PART_TEST && n == 0) continue;
    if (windows < 1)
      return status_fail(CODE_DATA,
                         "%s: found %lld rows in the %s part (of %lld), expected at least %s = %d; give more rows, "
                         "another data.split or data.borders, or a smaller %s",
                         table->path, (long long)n, PART_NAME[part], (long long)table->n_rows,
                         part == 0 ? "model.context + model.horizon" : "model.horizon",
                         part == 0 ? info->context + info->horizon : info->horizon,
                         part == 0 ? "model.context" : "model.horizon");
    d->base.n_samples[part] = windows;
    d->base.max_length[part] = info->window;
  }
  return STATUS_OK;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static Status take_vocabulary(Series *series, const char *vocabulary, const SeriesTable *table) {
  Series *stored;
  TRY(series_from_json(vocabulary, &stored));
  Status status = series_take_stored(series, stored, table);
  series_free(stored);
  return status;
}

static Status prepare(const DataConfig *config, const char *vocabulary, SeriesTable *table, SeriesDataset *d) {
  Series *series = d->series;
  int64_t end[3];
  TRY(series_take_dates(series, table));
  if (series->info.season == 0) series->info.season = date_season(series->step);
  TRY(series_fill_missing(series, table));
  TRY(find_borders(config, series, table, end));
  TRY(cut_windows(d, table, end));
  if (vocabulary) TRY(take_vocabulary(series, vocabulary, table));
  else if (config->series.scale) TRY(series_fit_scaler(series, table, end[PART_TRAIN]));
  d->clock = series_clock(series, table);
  d->rows = base_alloc(sizeof *d->rows * (size_t)(end[PART_TEST] * series->info.n_input));
  series_make_rows(series, table, 0, end[PART_TEST], d->rows);
  d->dates = table->date; /* taken over: pictures show them */
  table->date = NULL;
  d->base.tokenizer_json = d->json = series_to_json(series);
  d->base.series = &series->info;
  return STATUS_OK;
}

static Status open_source(const DataConfig *config, const char *vocabulary, const SeriesSource *source,
                          SeriesDataset *d) {
  SeriesTable table;
  TRY(series_from_config(&config->series, source, &d->series));
  TRY(series_read(d->series, source, &table));
  Status status = prepare(config, vocabulary, &table, d);
  series_table_free(&table);
  return status;
}

static Status series_open(const DataConfig *config, const char *vocabulary, Dataset **dataset) {
  SeriesSource *source;
  TRY(series_source_open(config, &source));
  SeriesDataset *d = base_zalloc(sizeof *d);
  Status status = open_source(config, vocabulary, source, d);
  series_source_close(source);
  if (status.code != CODE_OK) series_close(&d->base);
  else *dataset = &d->base;
  return status;
}

const DatasetKind dataset_series_kind = {series_open, series_close, series_train_length, series_sample};
