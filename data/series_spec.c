/* series_spec: which columns of the data are inputs and outputs, and all that a checkpoint keeps of a series, as JSON:
 *
 *   {"kind": "series", "context": .., "horizon": .., "window": .., "season": .., "values": [names], "known": [names], "calendar": [names],
 *    "outputs": [names], "mean": [of values and known], "std": [..], "all_columns": bool, "header": .., "missing": .., "gaps": ..,
 *    "dates": null | {"column": name, "first": s, "seconds": s, "months": n, "month_end": bool}} */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/series.h"

void series_free(Series *series) {
  if (!series) return;
  SeriesInfo *info = &series->info;
  for (int i = 0; i < info->n_input; i++) free(info->input_names[i]);
  for (int i = 0; i < info->n_output; i++) free(info->output_names[i]);
  free(info->input_names);
  free(info->output_names);
  free(info->output_input);
  free(info->mean);
  free(info->std);
  free(info->step);
  free(series->date_name);
  free(series);
}

const SeriesInfo *series_info(const Series *series) { return &series->info; }

static void add_input(Series *series, const char *name) {
  SeriesInfo *info = &series->info;
  const size_t n = (size_t)++info->n_input;
  info->input_names = base_realloc(info->input_names, sizeof *info->input_names * n);
  info->mean = base_realloc(info->mean, sizeof *info->mean * n);
  info->std = base_realloc(info->std, sizeof *info->std * n);
  info->input_names[n - 1] = base_strdup(name);
  info->mean[n - 1] = 0, info->std[n - 1] = 1;
}

static void add_output(Series *series, int input) {
  SeriesInfo *info = &series->info;
  const size_t n = (size_t)++info->n_output;
  info->output_names = base_realloc(info->output_names, sizeof *info->output_names * n);
  info->output_input = base_realloc(info->output_input, sizeof *info->output_input * n);
  info->output_names[n - 1] = base_strdup(info->input_names[input]);
  info->output_input[n - 1] = input;
}

/* The first n inputs are searched. */
static int find_input(const Series *series, const char *name, int n) {
  for (int i = 0; i < n; i++)
    if (strcmp(series->info.input_names[i], name) == 0) return i;
  return -1;
}

char *series_list_names(char *const *names, int n) {
  enum { MOST = 12 };
  char *list = base_strdup("");
  for (int i = 0; i < n && i < MOST; i++) {
    char *longer = base_format("%s%s%s", list, i ? ", " : "", names[i]);
    free(list);
    list = longer;
  }
  if (n <= MOST) return list;
  char *whole = base_format("%s and %d more", list, n - MOST);
  free(list);
  return whole;
}

/* --- from a config ------------------------------------------------------------------------------------------------ */

static Status no_column(const SeriesSource *source, const char *key, const char *name) {
  int n;
  char *const *names = series_source_names(source, &n);
  char *list = series_list_names(names, n);
  Status status =
      status_fail(CODE_DATA, "%s: found %s, expected a column of %s: %s", key, name, series_source_path(source), list);
  free(list);
  return status;
}

/* The column that `name` names, as the file calls it. */
static Status name_column(const SeriesSource *source, const char *key, const char *name, const char **column) {
  int n;
  const int index = series_source_column(source, name);
  if (index < 0) return no_column(source, key, name);
  if (index == series_source_date_column(source))
    return status_fail(CODE_USAGE, "%s: found %s, which is the column of dates, expected one of numbers", key, name);
  *column = series_source_names(source, &n)[index];
  return STATUS_OK;
}

static Status add_named(const SeriesSource *source, const char *key, char *const *names, int n, Series *series) {
  for (int i = 0; i < n; i++) {
    const char *column;
    TRY(name_column(source, key, names[i], &column));
    if (find_input(series, column, series->info.n_input) >= 0)
      return status_fail(CODE_USAGE, "%s: found %s a second time, expected each column once", key, names[i]);
    add_input(series, column);
  }
  return STATUS_OK;
}

static bool is_known(const SeriesConfig *config, const SeriesSource *source, int column) {
  for (int i = 0; i < config->n_known_columns; i++)
    if (series_source_column(source, config->known_columns[i]) == column) return true;
  return false;
}

/* The value columns: those named, or all others; of features S the target alone. */
static Status add_values(const SeriesConfig *config, const SeriesSource *source, Series *series) {
  int n;
  char *const *names = series_source_names(source, &n);
  TRY(add_named(source, "data.columns", config->columns, config->n_columns, series));
  for (int i = 0; config->n_columns == 0 && i < n; i++)
    if (i != series_source_date_column(source) && !is_known(config, source, i)) add_input(series, names[i]);
  series->all_columns = config->n_columns == 0 && config->features != SERIES_S;
  if (series->info.n_input == 0)
    return status_fail(CODE_DATA, "%s: found no column of values, expected one at least", series_source_path(source));
  return STATUS_OK;
}

static Status find_target(const SeriesConfig *config, const SeriesSource *source, const Series *series, int *target) {
  *target = series->info.n_input == 1 ? 0 : -1;
  if (config->target) {
    const char *column;
    TRY(name_column(source, "data.target", config->target, &column));
    *target = find_input(series, column, series->info.n_input);
  }
  if (*target >= 0) return STATUS_OK;
  char *list = series_list_names(series->info.input_names, series->info.n_input);
  Status status =
      status_fail(CODE_USAGE, "data.target: found %s, expected one of the value columns (data.features: %s): %s",
                  config->target ? config->target : "none", config->features == SERIES_S ? "S" : "MS", list);
  free(list);
  return status;
}

static void keep_only(Series *series, int input) {
  SeriesInfo *info = &series->info;
  char *name = info->input_names[input];
  for (int i = 0; i < info->n_input; i++)
    if (i != input) free(info->input_names[i]);
  info->input_names[0] = name;
  info->n_input = 1;
}

static Status choose_columns(const SeriesConfig *config, const SeriesSource *source, Series *series) {
  SeriesInfo *info = &series->info;
  int target = 0;
  TRY(add_values(config, source, series));
  if (config->features != SERIES_M) TRY(find_target(config, source, series, &target));
  if (config->features == SERIES_S) keep_only(series, target), target = 0;
  info->n_values = info->n_input;
  if (config->features == SERIES_M)
    for (int i = 0; i < info->n_values; i++) add_output(series, i);
  else add_output(series, target);
  TRY(add_named(source, "data.known_columns", config->known_columns, config->n_known_columns, series));
  series->info.n_known = config->n_known_columns;
  for (int i = 0; i < config->n_calendar; i++) {
    const char *name = config->calendar[i];
    if (calendar_find(name) < 0)
      return status_fail(CODE_USAGE,
                         "data.calendar: found %s, expected minute, hour, day_of_week, day_of_month, "
                         "day_of_year, week or month",
                         name);
    if (find_input(series, name, info->n_input) >= 0)
      return status_fail(CODE_USAGE, "data.calendar: found %s, which is an input already, expected each once", name);
    add_input(series, name);
  }
  return STATUS_OK;
}

Status series_from_config(const SeriesConfig *config, const SeriesSource *source, Series **series) {
  CHECK(config->context > 0 && config->horizon > 0, "windows of %d + %d rows", config->context, config->horizon);
  Series *s = base_zalloc(sizeof *s);
  s->info.context = config->context;
  s->info.horizon = config->horizon;
  s->info.window = config->context + (config->known_future ? config->horizon : 0);
  s->info.season = config->season;
  s->header = config->header;
  s->missing = config->missing;
  s->gaps = config->gaps;
  TRY_OR(choose_columns(config, source, s), series_free(s));
  *series = s;
  return STATUS_OK;
}

/* --- against what is stored --------------------------------------------------------------------------------------- */

/* The names of a that b lacks, n of them: "OT, HUFL"; malloc'ed. */
static char *names_without(char *const *a, int n_a, char *const *b, int n_b, int *n) {
  char **lacking = base_alloc(sizeof *lacking * (size_t)n_a);
  *n = 0;
  for (int i = 0; i < n_a; i++) {
    bool found = false;
    for (int j = 0; j < n_b; j++) found |= strcmp(a[i], b[j]) == 0;
    if (!found) lacking[(*n)++] = a[i];
  }
  char *list = series_list_names(lacking, *n);
  free(lacking);
  return list;
}

/* found and expected hold the same names; with `exactly`, no others either. */
static Status same_names(const char *where, char *const *found, int n_found, char *const *expected, int n_expected,
                         bool exactly) {
  int n_lacking, n_beside;
  char *lacking = names_without(expected, n_expected, found, n_found, &n_lacking);
  char *beside = names_without(found, n_found, expected, n_expected, &n_beside);
  Status status = STATUS_OK;
  if (n_lacking > 0 || (exactly && n_beside > 0)) {
    char *all = series_list_names(expected, n_expected);
    status = status_fail(CODE_DATA, "%s: %s%s%s%s%s, expected the columns the model was trained with: %s", where,
                         n_lacking ? "lacks " : "", lacking, n_lacking && exactly && n_beside ? "; " : "",
                         exactly && n_beside ? "found " : "", exactly ? beside : "", all);
    free(all);
  }
  free(lacking);
  free(beside);
  return status;
}

Status series_match_columns(const Series *series, const char *path, char *const *names, int n, int date_column) {
  char **numbers = base_alloc(sizeof *numbers * (size_t)n);
  int n_numbers = 0;
  for (int i = 0; i < n; i++)
    if (i != date_column) numbers[n_numbers++] = names[i];
  Status status = same_names(path, numbers, n_numbers, series->info.input_names,
                             series->info.n_values + series->info.n_known, series->all_columns);
  free(numbers);
  return status;
}

Status series_match_step(const Series *series, const SeriesTable *table, DateStep step) {
  const DateStep expected = series->step;
  const bool known = (step.seconds || step.months) && (expected.seconds || expected.months);
  if (!known || (step.seconds == expected.seconds && step.months == expected.months)) return STATUS_OK;
  char *found = date_step_text(step), *wanted = date_step_text(expected);
  Status status = status_fail(CODE_DATA, "%s: column %s: found rows %s apart, expected %s as in the training data",
                              table->path, table->date_name, found, wanted);
  free(found);
  free(wanted);
  return status;
}

Status series_take_stored(Series *series, const Series *stored, const SeriesTable *table) {
  const char *path = table->path;
  SeriesInfo *to = &series->info;
  const SeriesInfo *from = &stored->info;
  TRY(same_names(path, to->input_names, to->n_input, from->input_names, from->n_input, true));
  TRY(same_names(path, to->output_names, to->n_output, from->output_names, from->n_output, true));
  for (int i = 0; i < to->n_input; i++)
    if (strcmp(to->input_names[i], from->input_names[i]) != 0)
      return status_fail(CODE_DATA,
                         "%s: column %s: found where the model was trained with %s, expected the same order; name the "
                         "columns in data.columns",
                         path, to->input_names[i], from->input_names[i]);
  TRY(series_match_step(stored, table, series->step));
  if (stored->date_name) series->first_date = stored->first_date;
  memcpy(to->mean, from->mean, sizeof *to->mean * (size_t)to->n_input);
  memcpy(to->std, from->std, sizeof *to->std * (size_t)to->n_input);
  return STATUS_OK;
}

/* The n columns of these names. */
static Status read_names(const SeriesSource *source, char *const *names, int n, SeriesTable *table) {
  int *columns = base_alloc(sizeof *columns * (size_t)n);
  for (int i = 0; i < n; i++) columns[i] = series_source_column(source, names[i]);
  Status status = series_source_read(source, columns, n, table);
  free(columns);
  return status;
}

Status series_read_known(const Series *series, const SeriesSource *source, SeriesTable *table) {
  const SeriesInfo *info = &series->info;
  char *const *known = info->input_names + info->n_values;
  int n;
  char *const *names = series_source_names(source, &n);
  TRY(same_names(series_source_path(source), names, n, known, info->n_known, false));
  return read_names(source, known, info->n_known, table);
}

Status series_read(const Series *series, const SeriesSource *source, SeriesTable *table) {
  const int n = series->info.n_values + series->info.n_known;
  TRY(read_names(source, series->info.input_names, n, table));
  if (table->date || n == series->info.n_input) return STATUS_OK;
  series_table_free(table);
  return status_fail(CODE_USAGE, "data.calendar: found features of dates, but %s has none; see data.date_column",
                     series_source_path(source));
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

static json_t *names_to_json(char *const *names, int n) {
  json_t *list = json_array();
  for (int i = 0; i < n; i++) json_array_append_new(list, json_string(names[i]));
  return list;
}

static json_t *reals_to_json(const double *values, int n) {
  json_t *list = json_array();
  for (int i = 0; i < n; i++) json_array_append_new(list, json_real(values[i]));
  return list;
}

char *series_to_json(const Series *series) {
  const SeriesInfo *info = &series->info;
  const int n_known = series->info.n_known, n_file = info->n_values + n_known;
  json_t *dates = json_null();
  if (series->date_name)
    dates = json_pack("{s:s, s:I, s:I, s:i, s:b}", "column", series->date_name, "first", (json_int_t)series->first_date,
                      "seconds", (json_int_t)series->step.seconds, "months", series->step.months, "month_end",
                      series->step.month_end);
  json_t *root =
      json_pack("{s:s, s:i, s:i, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:i, s:i, s:i, s:o}", "kind", "series",
                "context", info->context, "horizon", info->horizon, "window", info->window, "season",
                (json_int_t)info->season, "values", names_to_json(info->input_names, info->n_values), "known",
                names_to_json(info->input_names + info->n_values, n_known), "calendar",
                names_to_json(info->input_names + n_file, info->n_input - n_file), "outputs",
                names_to_json(info->output_names, info->n_output), "mean", reals_to_json(info->mean, n_file), "std",
                reals_to_json(info->std, n_file), "all_columns", series->all_columns, "header", (int)series->header,
                "missing", (int)series->missing, "gaps", (int)series->gaps, "dates", dates);
  CHECK(root, "json_pack: a column's name is not UTF-8, or out of memory");
  char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17));
  CHECK(text, "json_dumps: out of memory");
  json_decref(root);
  return text;
}

static Status not_series(const char *what) {
  return status_fail(CODE_DATA, "series: \"%s\": not what a series' checkpoint holds; train again or give another",
                     what);
}

/* Adds the strings of a list as inputs; *n counts them. */
static Status read_inputs(const json_t *root, const char *key, Series *series, int *n) {
  const json_t *list = json_object_get(root, key);
  if (!json_is_array(list)) return not_series(key);
  *n = (int)json_array_size(list);
  for (int i = 0; i < *n; i++) {
    const char *name = json_string_value(json_array_get(list, (size_t)i));
    if (!name || find_input(series, name, series->info.n_input) >= 0) return not_series(key);
    add_input(series, name);
  }
  return STATUS_OK;
}

static Status read_outputs(const json_t *root, Series *series) {
  const json_t *list = json_object_get(root, "outputs");
  for (size_t i = 0; i < json_array_size(list); i++) {
    const char *name = json_string_value(json_array_get(list, i));
    const int input = name ? find_input(series, name, series->info.n_values) : -1;
    if (input < 0) return not_series("outputs");
    add_output(series, input);
  }
  return series->info.n_output > 0 ? STATUS_OK : not_series("outputs");
}

static Status read_reals(const json_t *root, const char *key, int n, double low, double *values) {
  const json_t *list = json_object_get(root, key);
  if (json_array_size(list) != (size_t)n) return not_series(key);
  for (int i = 0; i < n; i++) {
    const json_t *value = json_array_get(list, (size_t)i);
    values[i] = json_number_value(value);
    if (!json_is_number(value) || !(values[i] > low)) return not_series(key);
  }
  return STATUS_OK;
}

static Status read_int(const json_t *root, const char *key, int64_t low, int64_t high, int64_t *value) {
  const json_t *node = json_object_get(root, key);
  *value = json_integer_value(node);
  return json_is_integer(node) && *value >= low && *value <= high ? STATUS_OK : not_series(key);
}

static Status read_dates(const json_t *dates, Series *series) {
  if (json_is_null(dates)) return STATUS_OK;
  const char *column = json_string_value(json_object_get(dates, "column"));
  int64_t months;
  if (!column) return not_series("dates");
  series->date_name = base_strdup(column);
  TRY(read_int(dates, "first", -(INT64_C(1) << 50), INT64_C(1) << 50, &series->first_date));
  TRY(read_int(dates, "seconds", 0, INT64_C(1) << 50, &series->step.seconds));
  TRY(read_int(dates, "months", 0, 1 << 20, &months));
  series->step.months = (int)months;
  series->step.month_end = json_is_true(json_object_get(dates, "month_end"));
  if (months || series->step.seconds) series->info.step = date_step_text(series->step);
  return STATUS_OK;
}

static Status read_root(const json_t *root, Series *series) {
  SeriesInfo *info = &series->info;
  const char *kind = json_string_value(json_object_get(root, "kind"));
  int64_t context, horizon, window, header, missing, gaps;
  int n_calendar;
  if (!kind || strcmp(kind, "series") != 0) return not_series("kind");
  TRY(read_int(root, "context", 1, 1 << 24, &context));
  TRY(read_int(root, "horizon", 1, 1 << 24, &horizon));
  TRY(read_int(root, "window", context, context + horizon, &window));
  TRY(read_int(root, "season", 1, INT64_C(1) << 40, &info->season));
  TRY(read_int(root, "header", HEADER_AUTO, HEADER_NO, &header));
  TRY(read_int(root, "missing", MISSING_REFUSE, MISSING_MASK, &missing));
  TRY(read_int(root, "gaps", GAPS_REFUSE, GAPS_IGNORE, &gaps));
  info->context = (int)context, info->horizon = (int)horizon, info->window = (int)window;
  series->header = (SeriesHeader)header, series->missing = (SeriesMissing)missing;
  series->gaps = (SeriesGaps)gaps;
  series->all_columns = json_is_true(json_object_get(root, "all_columns"));
  TRY(read_inputs(root, "values", series, &info->n_values));
  TRY(read_inputs(root, "known", series, &info->n_known));
  TRY(read_inputs(root, "calendar", series, &n_calendar));
  const int n_file = info->n_values + info->n_known;
  for (int i = n_file; i < info->n_input; i++)
    if (calendar_find(info->input_names[i]) < 0) return not_series("calendar");
  if (n_calendar > 0 && !json_is_object(json_object_get(root, "dates"))) return not_series("dates");
  TRY(read_outputs(root, series));
  TRY(read_reals(root, "mean", n_file, -INFINITY, info->mean));
  TRY(read_reals(root, "std", n_file, 0, info->std));
  return read_dates(json_object_get(root, "dates"), series);
}

Status series_from_json(const char *json, Series **series) {
  json_error_t error;
  json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &error);
  if (!root) return status_fail(CODE_DATA, "series: line %d, column %d: %s", error.line, error.column, error.text);
  Series *s = base_zalloc(sizeof *s);
  Status status = read_root(root, s);
  json_decref(root);
  if (status.code != CODE_OK) series_free(s);
  else *series = s;
  return status;
}
