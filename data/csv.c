/* csv: see csv.h. The common cell, a number of up to 19 digits with nothing around it, is read in one pass; every other
 * one is first cut out, then looked at. */
#include "data/csv.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/tokenizer.h"

/* --- cells -------------------------------------------------------------------------------------------------------- */

/* What stands in a cell: without the spaces and the quotes around it; "" inside quotes stays doubled. */
typedef struct Cell {
  const char *text;
  size_t n;
  bool open; /* a quote without its partner */
} Cell;

static bool at_line_end(const Csv *csv, const char *p) { return p == csv->end || *p == '\n' || *p == '\r'; }

static const char *after_line_end(const Csv *csv, const char *p) {
  p += p < csv->end && *p == '\r';
  p += p < csv->end && *p == '\n';
  return p;
}

static bool is_space(char c) { return c == ' ' || c == '\t'; }

static bool at_cell_end(const Csv *csv, const char *p) { return at_line_end(csv, p) || *p == csv->delimiter; }

static const char *skip_spaces(const Csv *csv, const char *p) {
  while (!at_cell_end(csv, p) && is_space(*p)) p++;
  return p;
}

/* Cuts out the cell that begins at p; returns the delimiter or line end behind it. */
static const char *take_cell(const Csv *csv, const char *p, Cell *cell) {
  const char *from = p = skip_spaces(csv, p);
  if (!at_line_end(csv, p) && *p == '"') {
    for (p++; !at_line_end(csv, p); p++) {
      if (*p != '"') continue;
      if (p + 1 == csv->end || p[1] != '"') break;
      p++;
    }
    *cell = (Cell){from + 1, (size_t)(p - from - 1), .open = at_line_end(csv, p)};
    p = skip_spaces(csv, p + !cell->open);
    if (at_cell_end(csv, p)) return p;
  }
  while (!at_cell_end(csv, p)) p++;
  const char *to = p; /* of text behind a closing quote too: the cell is all of it, quotes included */
  while (to > from && is_space(to[-1])) to--;
  *cell = (Cell){from, (size_t)(to - from), .open = false};
  return p;
}

/* For messages: the beginning of a cell, malloc'ed. */
static char *shown(Cell cell) {
  enum { MOST = 40 };
  char *text = base_format("\"%.*s%s\"", cell.n > MOST ? MOST : (int)cell.n, cell.text, cell.n > MOST ? "..." : "");
  for (char *c = text; *c; c++)
    if (iscntrl((unsigned char)*c)) *c = '?';
  return text;
}

static Status bad_cell(const Csv *csv, int64_t line, int column, Cell cell, const char *expected) {
  char *found = shown(cell);
  Status status = status_fail(CODE_DATA, "%s: line %lld, column %s: found %s, expected %s", csv->path, (long long)line,
                              csv->names[column], found, expected);
  free(found);
  return status;
}

static Status bad_number(const Csv *csv, int64_t line, int column, Cell cell, CsvCell kind) {
  static const char *const expected[] = {
      [CSV_INFINITE] = "a finite number; correct it, or leave the cell empty and set data.missing",
      [CSV_DECIMAL_COMMA] = ("a decimal point and nothing between thousands; write 1.5 for 1,5 (export the table "
                             "with decimal points)"),
      [CSV_OTHER] = "a number; correct it, or name the columns to use in data.columns",
  };
  return bad_cell(csv, line, column, cell, cell.open ? "a closing quote on the same line; close it" : expected[kind]);
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static Status map_file(const char *path, Csv *csv) {
  TRY(readable_map(path, CODE_DATA, &csv->map));
  if (!csv->map.data) return status_fail(CODE_DATA, "%s: the file is empty; give a CSV with rows", path);
  csv->text = csv->map.data, csv->end = csv->text + csv->map.bytes;
  return STATUS_OK;
}

/* Blank lines at the end. A tab may be the delimiter of a row of missing cells. */
static void drop_last_lines(Csv *csv) {
  for (const char *p = csv->end;; p--) {
    const bool begins_line = p == csv->text || p[-1] == '\n' || p[-1] == '\r';
    if (begins_line) csv->end = p;
    if (p == csv->text || (!begins_line && p[-1] != ' ')) return;
  }
}

/* UTF-16, archives and spreadsheets have zero bytes near their start; text has none. */
static Status find_text(Csv *csv) {
  const size_t bytes = (size_t)(csv->end - csv->text);
  if (memchr(csv->text, 0, bytes < 4096 ? bytes : 4096))
    return status_fail(
        CODE_DATA, "%s: found binary data, expected a CSV as UTF-8 text; export the table as CSV (UTF-8)", csv->path);
  if (bytes >= 3 && memcmp(csv->text, "\xEF\xBB\xBF", 3) == 0) csv->text += 3;
  drop_last_lines(csv);
  if (csv->text < csv->end && at_line_end(csv, skip_spaces(csv, csv->text)))
    return status_fail(
        CODE_DATA, "%s: line 1: found a blank line, expected the names of the columns or a row; remove it", csv->path);
  return STATUS_OK;
}

static const char *delimiter_name(char c) { return c == ',' ? "\",\"" : c == ';' ? "\";\"" : "tab"; }

/* The one delimiter that the first line has outside of quotes. */
static Status find_delimiter(Csv *csv) {
  char found = 0;
  bool quoted = false;
  for (const char *p = csv->text; !at_line_end(csv, p); p++) {
    quoted ^= *p == '"';
    if (quoted || (*p != ',' && *p != ';' && *p != '\t') || *p == found) continue;
    if (found)
      return status_fail(CODE_DATA, "%s: line 1: found %s and %s, expected one delimiter; name it in data.delimiter",
                         csv->path, delimiter_name(found), delimiter_name(*p));
    found = *p;
  }
  csv->delimiter = found ? found : ',';
  return STATUS_OK;
}

static bool is_date(Cell cell) {
  DateStyle style = {0};
  int64_t date;
  return date_parse(cell.text, cell.n, &style, &date) != DATE_BAD;
}

/* Counts the columns of the first line and tells whether it is data: numbers behind at most one date. */
static bool first_line_is_data(Csv *csv) {
  bool is_data = true;
  csv->n_columns = 0;
  for (const char *p = csv->text;; p++, csv->n_columns++) {
    Cell cell;
    double value;
    p = take_cell(csv, p, &cell);
    const CsvCell kind = csv_number(cell.text, cell.n, &value);
    is_data &=
        kind == CSV_NUMBER || kind == CSV_MISSING || kind == CSV_INFINITE || (csv->n_columns == 0 && is_date(cell));
    if (at_line_end(csv, p)) break;
  }
  csv->n_columns++;
  return is_data;
}

static char *name_of(Cell cell, int column) {
  if (cell.n == 0) return base_format("%d", column + 1);
  char *name = base_alloc(cell.n + 1), *to = name;
  for (size_t i = 0; i < cell.n; i++) {
    *to++ = cell.text[i];
    i += cell.text[i] == '"' && i + 1 < cell.n && cell.text[i + 1] == '"';
  }
  *to = '\0';
  return name;
}

static Status name_columns(Csv *csv) {
  csv->names = base_zalloc(sizeof *csv->names * (size_t)csv->n_columns);
  const char *p = csv->text;
  for (int i = 0; i < csv->n_columns; i++) {
    Cell cell;
    p = take_cell(csv, p + (i > 0), &cell);
    csv->names[i] = name_of(csv->has_header ? cell : (Cell){0}, i);
    if (cell.open) return bad_cell(csv, 1, i, cell, "a closing quote on the same line; close it");
    if (!utf8_is(csv->names[i]))
      return status_fail(CODE_DATA, "%s: line 1: the name of column %d is not UTF-8; convert the file to UTF-8",
                         csv->path, i + 1);
    for (int j = 0; j < i; j++)
      if (strcmp(csv->names[i], csv->names[j]) == 0)
        return status_fail(CODE_DATA, "%s: line 1: columns %d and %d are both called %s, expected different names",
                           csv->path, j + 1, i + 1, csv->names[i]);
  }
  csv->rows = csv->has_header ? after_line_end(csv, p) : csv->text;
  csv->first_line = csv->has_header ? 2 : 1;
  return STATUS_OK;
}

static Status learn_columns(char delimiter, SeriesHeader header, Csv *csv) {
  TRY(find_text(csv));
  if (delimiter) csv->delimiter = delimiter;
  else TRY(find_delimiter(csv));
  const bool is_data = first_line_is_data(csv);
  csv->has_header = header == HEADER_AUTO ? !is_data : header == HEADER_YES;
  return name_columns(csv);
}

Status csv_open(const char *path, char delimiter, SeriesHeader header, Csv *csv) {
  *csv = (Csv){0};
  TRY(map_file(path, csv));
  csv->path = base_strdup(path);
  TRY_OR(learn_columns(delimiter, header, csv), csv_close(csv));
  return STATUS_OK;
}

Status csv_over(const char *name, const char *text, size_t n, SeriesHeader header, Csv *csv) {
  *csv = (Csv){.path = base_strdup(name), .text = text, .end = text + n};
  TRY_OR(learn_columns(0, header, csv), csv_close(csv));
  return STATUS_OK;
}

void csv_close(Csv *csv) {
  for (int i = 0; csv->names && i < csv->n_columns; i++) free(csv->names[i]);
  free(csv->names);
  free(csv->path);
  readable_unmap(&csv->map);
  *csv = (Csv){0};
}

int csv_column(const Csv *csv, const char *name) {
  for (int i = 0; i < csv->n_columns; i++)
    if (strcmp(csv->names[i], name) == 0) return i;
  if (!*name || strspn(name, "0123456789") != strlen(name) || strlen(name) > 9) return -1;
  const int position = atoi(name);
  return position >= 1 && position <= csv->n_columns ? position - 1 : -1;
}

bool csv_begins_with_dates(const Csv *csv) {
  Cell cell;
  double value;
  take_cell(csv, csv->rows, &cell);
  return csv_number(cell.text, cell.n, &value) == CSV_OTHER;
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

/* What reading one row needs to know: where each of the file's columns goes. */
typedef struct Reader {
  const Csv *csv;
  int *slot; /* (n_columns): in the row of values; -1: passed over */
  int date_column;
  char date_order;
  SeriesTable *table;
  int64_t capacity, line;
} Reader;

static Status ragged(const Reader *r, const char *row) {
  int n = 0;
  Cell cell;
  for (const char *p = row;; p++) {
    p = take_cell(r->csv, p, &cell), n++;
    if (at_line_end(r->csv, p)) break;
  }
  return status_fail(CODE_DATA,
                     "%s: line %lld: found %d cell%s, expected %d as in line 1; make all rows equally long%s",
                     r->csv->path, (long long)r->line, n, n == 1 ? "" : "s", r->csv->n_columns,
                     n > r->csv->n_columns && r->csv->delimiter == ',' ? " and write decimal points, not commas" : "");
}

/* Whether a time without values was meant, or nothing, is not to be guessed. */
static Status blank(const Reader *r) {
  return status_fail(CODE_DATA,
                     "%s: line %lld: found a blank line, expected %d cells as in line 1; remove it, or write a row of "
                     "missing cells (data.missing)",
                     r->csv->path, (long long)r->line, r->csv->n_columns);
}

static Status take_date(Reader *r, Cell cell) {
  SeriesTable *table = r->table;
  DateStyle seen = {.order = r->date_order};
  int64_t date;
  if (date_parse(cell.text, cell.n, &seen, &date) != DATE_OK)
    return bad_cell(r->csv, r->line, r->date_column, cell,
                    "a date as 2016-07-01 or 2016-07-01 13:00:00; correct it, or see data.date_column");
  if (!date_style_join(&table->style, &seen))
    return bad_cell(r->csv, r->line, r->date_column, cell,
                    "a date written like those above it; write all in one order and one time zone");
  if (table->n_rows > 0 && date <= table->date[table->n_rows - 1]) {
    const int64_t before = table->date[table->n_rows - 1];
    char *above = date_format(before, &table->style),
         *expected = base_format("a date after %s of the row above; %s", above,
                                 date == before ? "remove one of the two rows" : "sort the rows by date");
    Status status = bad_cell(r->csv, r->line, r->date_column, cell, expected);
    free(above);
    free(expected);
    return status;
  }
  table->date[table->n_rows] = date;
  return STATUS_OK;
}

/* One cell into the table; *p moves to the delimiter or line end behind it. */
static Status take_value(Reader *r, const char **p, int column, double *values) {
  const Csv *csv = r->csv;
  const int slot = r->slot[column];
  Cell cell;
  if (slot >= 0) {
    const char *end = csv_scan_number(*p, csv->end, &values[slot]);
    if (end && (at_line_end(csv, end) || *end == csv->delimiter) && isfinite(values[slot])) {
      *p = end;
      return STATUS_OK;
    }
  }
  *p = take_cell(csv, *p, &cell);
  if (column == r->date_column) return take_date(r, cell);
  if (slot < 0) return STATUS_OK;
  const CsvCell kind = csv_number(cell.text, cell.n, &values[slot]);
  return kind <= CSV_MISSING && !cell.open ? STATUS_OK : bad_number(csv, r->line, column, cell, kind);
}

static Status take_row(Reader *r, const char **at) {
  double *values = r->table->value + r->table->n_rows * r->table->n_columns;
  const char *p = *at;
  if (r->csv->n_columns > 1 && at_line_end(r->csv, skip_spaces(r->csv, p))) return blank(r);
  for (int i = 0; i < r->csv->n_columns; i++) {
    if (i > 0 && at_line_end(r->csv, p)) return ragged(r, *at);
    p += i > 0;
    TRY(take_value(r, &p, i, values));
  }
  if (!at_line_end(r->csv, p)) return ragged(r, *at);
  *at = after_line_end(r->csv, p);
  return STATUS_OK;
}

static void reserve(Reader *r, int64_t n_rows) {
  SeriesTable *table = r->table;
  r->capacity = n_rows;
  table->value = base_realloc(table->value, sizeof *table->value * (size_t)(n_rows * table->n_columns));
  if (r->date_column >= 0) table->date = base_realloc(table->date, sizeof *table->date * (size_t)n_rows);
}

/* 3/4/2016 is read by what the column as a whole can only be: some row has a number above 12. */
static Status find_date_order(Reader *r) {
  const Csv *csv = r->csv;
  Cell cell = {0}, first = {0};
  for (const char *p = csv->rows; p < csv->end;) {
    for (int i = 0; i <= r->date_column && (i == 0 || !at_line_end(csv, p)); i++)
      p = take_cell(csv, p + (i > 0), &cell);
    if (!first.text) {
      DateStyle style = {0};
      int64_t date;
      if (date_parse(cell.text, cell.n, &style, &date) != DATE_AMBIGUOUS) return STATUS_OK;
      first = cell;
    }
    r->date_order = date_order(cell.text, cell.n);
    if (r->date_order) return STATUS_OK;
    while (!at_line_end(csv, p)) p++;
    p = after_line_end(csv, p);
  }
  return bad_cell(csv, r->line, r->date_column, first,
                  "a date that tells day from month, and no row does; write dates as 2016-07-01");
}

static Status read_rows(Reader *r) {
  const Csv *csv = r->csv;
  SeriesTable *table = r->table;
  r->line = table->first_line = csv->first_line;
  if (csv->rows == csv->end) return status_fail(CODE_DATA, "%s: found no rows, expected numbers", csv->path);
  if (r->date_column >= 0) TRY(find_date_order(r));
  const char *at = csv->rows;
  const char *line_end = memchr(at, '\n', (size_t)(csv->end - at));
  reserve(r, 16 + (csv->end - at) / (line_end ? line_end - at + 1 : csv->end - at));
  while (at < csv->end) {
    if (table->n_rows == r->capacity) reserve(r, r->capacity + r->capacity / 2);
    TRY(take_row(r, &at));
    table->n_rows++, r->line++;
  }
  reserve(r, table->n_rows);
  return STATUS_OK;
}

Status csv_read(const Csv *csv, const int *columns, int n, int date_column, SeriesTable *table) {
  *table = (SeriesTable){.path = base_strdup(csv->path), .n_columns = n};
  table->names = base_zalloc(sizeof *table->names * (size_t)n);
  if (date_column >= 0) table->date_name = base_strdup(csv->names[date_column]);
  Reader reader = {.csv = csv, .date_column = date_column, .table = table};
  reader.slot = base_alloc(sizeof *reader.slot * (size_t)csv->n_columns);
  for (int i = 0; i < csv->n_columns; i++) reader.slot[i] = -1;
  for (int i = 0; i < n; i++) {
    table->names[i] = base_strdup(csv->names[columns[i]]);
    reader.slot[columns[i]] = i;
  }
  Status status = read_rows(&reader);
  free(reader.slot);
  if (status.code != CODE_OK) series_table_free(table);
  return status;
}
