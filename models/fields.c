/* fields: see fields.h. */
#include "models/fields.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What lies at a field's place is of the kind's type. */
static void check_place(const Field *field) {
  static const size_t BYTES[] = {[FIELD_INT] = sizeof(int),
                                 [FIELD_COUNT] = sizeof(int),
                                 [FIELD_OPTIONAL] = sizeof(int),
                                 [FIELD_BOOL] = sizeof(bool),
                                 [FIELD_FLAG] = sizeof(bool),
                                 [FIELD_REAL] = sizeof(double),
                                 [FIELD_OPTIONAL_REAL] = sizeof(double),
                                 [FIELD_PAIR] = 2 * sizeof(double),
                                 [FIELD_LIMIT] = 2 * sizeof(double)};
  if (field->kind == FIELD_REALS) return;
  CHECK(field->kind == FIELD_CHOICE ? field->bytes == sizeof(bool) || field->bytes == sizeof(int)
                                    : field->bytes == BYTES[field->kind],
        "%s: a field of %zu bytes", field->name, field->bytes);
}

/* ---- reading */

Status field_refuse(FieldPlace place, const char *key, const json_t *found, const char *expected) {
  char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
  Status status = status_fail(CODE_CHECKPOINT, "%s: %s%s: found %.60s, expected %s", place.where, place.prefix, key,
                              text ? text : "nothing", expected);
  free(text);
  return status;
}

static Status read_from(int low, FieldPlace place, const char *key, const json_t *value, int *out) {
  json_int_t n = json_integer_value(value);
  if (!json_is_integer(value) || n < low || n > INT_MAX)
    return field_refuse(place, key, value, low ? "an integer, 1 or more" : "an integer, 0 or more");
  *out = (int)n;
  return STATUS_OK;
}

Status field_read_int(FieldPlace place, const char *key, const json_t *value, int *out) {
  return read_from(0, place, key, value, out);
}

static Status read_real(FieldPlace place, const char *key, const json_t *value, double *out) {
  if (!json_is_number(value)) return field_refuse(place, key, value, "a number");
  *out = json_number_value(value);
  return STATUS_OK;
}

static Status read_pair(FieldPlace place, const char *key, const json_t *value, double *out) {
  if (!json_is_array(value) || json_array_size(value) != 2) return field_refuse(place, key, value, "two numbers");
  for (size_t i = 0; i < 2; i++) TRY(read_real(place, key, json_array_get(value, i), &out[i]));
  return STATUS_OK;
}

static Status read_choice(FieldPlace place, const Field *field, const json_t *value, char *at) {
  const char *word = json_string_value(value);
  int index = 0;
  while (field->words[index] && !(word && !strcmp(word, field->words[index]))) index++;
  if (!field->words[index]) {
    char *expected = base_format("\"%s\"", field->words[0]);
    for (int i = 1; field->words[i]; i++) {
      char *longer = base_format("%s or \"%s\"", expected, field->words[i]);
      free(expected);
      expected = longer;
    }
    Status status = field_refuse(place, field->name, value, expected);
    free(expected);
    return status;
  }
  if (field->bytes == sizeof(bool)) *(bool *)(void *)at = index;
  else *(int *)(void *)at = index;
  return STATUS_OK;
}

Status field_read(FieldPlace place, const Field *field, const json_t *value, void *target) {
  char *at = (char *)target + field->offset;
  check_place(field);
  int *as_int = (int *)(void *)at;
  double *as_real = (double *)(void *)at;
  bool *as_bool = (bool *)(void *)at;
  switch (field->kind) {
  case FIELD_OPTIONAL:
    if (!json_is_null(value)) return field_read_int(place, field->name, value, as_int);
    *as_int = 0;
    return STATUS_OK;
  case FIELD_COUNT: return read_from(1, place, field->name, value, as_int);
  case FIELD_INT: return field_read_int(place, field->name, value, as_int);
  case FIELD_OPTIONAL_REAL:
    if (!json_is_null(value)) return read_real(place, field->name, value, as_real);
    *as_real = 0;
    return STATUS_OK;
  case FIELD_REAL: return read_real(place, field->name, value, as_real);
  case FIELD_PAIR: return read_pair(place, field->name, value, as_real);
  case FIELD_LIMIT:
    TRY(read_pair(place, field->name, value, as_real));
    if (as_real[1] >= FIELD_NO_LIMIT) as_real[1] = INFINITY;
    return STATUS_OK;
  case FIELD_FLAG:
  case FIELD_BOOL:
    if (!json_is_boolean(value)) return field_refuse(place, field->name, value, "true or false");
    *as_bool = json_is_true(value);
    return STATUS_OK;
  case FIELD_REALS: {
    const size_t n = json_array_size(value);
    if (!json_is_array(value) || n > field->bytes / sizeof *as_real)
      return field_refuse(place, field->name, value, "an array of numbers");
    for (size_t i = 0; i < n; i++) TRY(read_real(place, field->name, json_array_get(value, i), &as_real[i]));
    *(int *)(void *)((char *)target + field->count_offset) = (int)n;
    return STATUS_OK;
  }
  case FIELD_CHOICE: break;
  }
  return read_choice(place, field, value, at);
}

static const Field *find_field(const Field *fields, const char *name) {
  for (; fields->name; fields++)
    if (!strcmp(fields->name, name)) return fields;
  return NULL;
}

Status fields_read(FieldPlace place, const json_t *object, const Field *const *tables, const char *const *others,
                   void *target) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    const Field *field = NULL;
    for (int i = 0; tables[i] && !field; i++) field = find_field(tables[i], key);
    bool known = field != NULL;
    for (int i = 0; others[i] && !known; i++) known = !strcmp(others[i], key);
    if (!known) return status_fail(CODE_CHECKPOINT, "%s: %s%.80s: unknown key", place.where, place.prefix, key);
    if (field) TRY(field_read(place, field, value, target));
  }
  return STATUS_OK;
}

Status field_require_object(FieldPlace place, const char *key, const json_t *value) {
  return json_is_object(value) ? STATUS_OK : field_refuse(place, key, value, "an object");
}

/* ---- writing */

void field_write_key(FieldWriter *w, const char *key) {
  fprintf(w->stream, "%s\n%*s\"%s\": ", w->first ? "" : ",", w->depth, "", key);
  w->first = false;
}

void field_open_object(FieldWriter *w) {
  fputc('{', w->stream);
  w->depth++;
  w->first = true;
}

void field_close_object(FieldWriter *w) {
  w->depth--;
  if (!w->first) fprintf(w->stream, "\n%*s", w->depth, "");
  fputc('}', w->stream);
  w->first = false;
}

/* The shortest decimal that reads back as the same double. */
static void write_real(FILE *stream, double value) {
  char text[40];
  if (isinf(value)) value = FIELD_NO_LIMIT;
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  fprintf(stream, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

void field_write_bool(FieldWriter *w, const char *key, bool value) {
  field_write_key(w, key);
  fputs(value ? "true" : "false", w->stream);
}

static void write_reals(FieldWriter *w, const char *key, const double *values, int n) {
  field_write_key(w, key);
  fputc('[', w->stream);
  for (int i = 0; i < n; i++) {
    if (i) fputs(", ", w->stream);
    write_real(w->stream, values[i]);
  }
  fputc(']', w->stream);
}

static void write_field(FieldWriter *w, const Field *field, const void *source) {
  const char *at = (const char *)source + field->offset;
  check_place(field);
  int as_int = 0;
  bool as_bool = false;
  const double *as_real = (const double *)(const void *)at;
  switch (field->kind) {
  case FIELD_INT:
  case FIELD_COUNT:
  case FIELD_OPTIONAL:
    memcpy(&as_int, at, sizeof as_int);
    if (field->kind == FIELD_OPTIONAL && as_int == 0) return;
    field_write_key(w, field->name);
    fprintf(w->stream, "%d", as_int);
    return;
  case FIELD_REAL:
  case FIELD_OPTIONAL_REAL:
    if (field->kind == FIELD_OPTIONAL_REAL && *as_real == 0) return;
    field_write_key(w, field->name);
    write_real(w->stream, *as_real);
    return;
  case FIELD_PAIR: write_reals(w, field->name, as_real, 2); return;
  case FIELD_LIMIT:
    if (as_real[0] != 0 || !isinf(as_real[1])) write_reals(w, field->name, as_real, 2);
    return;
  case FIELD_REALS:
    memcpy(&as_int, (const char *)source + field->count_offset, sizeof as_int);
    write_reals(w, field->name, as_real, as_int);
    return;
  case FIELD_FLAG:
  case FIELD_BOOL:
    memcpy(&as_bool, at, sizeof as_bool);
    if (field->kind == FIELD_FLAG && !as_bool) return;
    field_write_bool(w, field->name, as_bool);
    return;
  case FIELD_CHOICE: break;
  }
  if (field->bytes == sizeof(bool)) as_int = *(const bool *)(const void *)at;
  else memcpy(&as_int, at, sizeof as_int);
  if (as_int == 0) return;
  field_write_key(w, field->name);
  fprintf(w->stream, "\"%s\"", field->words[as_int]);
}

void fields_write(FieldWriter *w, const Field *fields, int set, const void *source) {
  for (; fields->name; fields++)
    if (fields->written & set) write_field(w, fields, source);
}
