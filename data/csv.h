/* csv: tables of numbers as people keep them: commas, semicolons or tabs; a header or none; quotes (RFC 4180); CRLF; a
 * byte order mark; missing cells (empty, NaN, NA, N/A, null, none, -, in any case). One record is one line; blank ones may stand at the end only, but that the blank line of a
 * single column is a missing cell.
 *
 * The file is mapped, not read: text is looked at once, where it lies. Numbers are exact: the double nearest to what is
 * written. Everything that is not as expected is CODE_DATA, a line with file, line, column, found, expected, what to do. */
#pragma once

#include "data/data.h"
#include "data/series_table.h"
#include "tensor/readable.h"

typedef struct Csv {
  char *path;
  const char *text, *end; /* without a byte order mark and blank lines at the end */
  Mapped map;             /* of a file */
  char delimiter;
  bool has_header;
  const char *rows;   /* the first line behind the header ... */
  int64_t first_line; /* ... and its number */
  int n_columns;
  char **names; /* a column without a name is called by its position, from 1 */
} Csv;

/* Opens a file and learns its columns from its first line. delimiter 0: the one of , ; tab that the first line has.
 * header auto: the first line is one unless all of it is numbers behind at most one date. */
Status csv_open(const char *path, char delimiter, SeriesHeader header, Csv *csv);
/* The same over n characters in memory, which must live as long; `name` stands for the path. */
Status csv_over(const char *name, const char *text, size_t n, SeriesHeader header, Csv *csv);
void csv_close(Csv *csv);
/* Column by its name or, when no column has that name, by its position from 1; -1: no such column. */
int csv_column(const Csv *csv, const char *name);
/* True when the first row's first cell is a date or some other text: neither a number nor missing. */
bool csv_begins_with_dates(const Csv *csv);
/* Reads the rows: n columns of numbers, and dates from date_column (-1: none). */
Status csv_read(const Csv *csv, const int *columns, int n, int date_column, SeriesTable *table);

/* One cell as a number: the n characters at text, whole. */
typedef enum CsvCell { CSV_NUMBER, CSV_MISSING, CSV_INFINITE, CSV_DECIMAL_COMMA, CSV_OTHER } CsvCell;
CsvCell csv_number(const char *text, size_t n, double *value);
/* The number that begins at text: digits, at most one point, an exponent. Returns where it ends, NULL where none begins. */
const char *csv_scan_number(const char *text, const char *end, double *value);
