/* fields: fields of a structure as keys of a JSON object, read and written by one table a structure.
 *
 * A mistake in what is read is CODE_CHECKPOINT; its line names the file, the key, what was found and what was expected. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "tensor/base.h"

typedef enum FieldKind {
  FIELD_INT,
  FIELD_COUNT,    /* int, 1 or more */
  FIELD_OPTIONAL, /* int; null and absent mean 0, and 0 is not written */
  FIELD_BOOL,
  FIELD_FLAG, /* bool; false is not written: the canonical package may not know the key */
  FIELD_REAL,
  FIELD_OPTIONAL_REAL,
  FIELD_PAIR,
  FIELD_LIMIT, /* pair whose upper end may be infinite; not written when it is [0, infinite) */
  FIELD_REALS, /* numbers, and elsewhere how many */
  FIELD_CHOICE /* one of words[], as its index; the first is the default and not written */
} FieldKind;

typedef struct Field {
  const char *name;
  FieldKind kind;
  size_t offset;
  int written;              /* the sets of keys (bits) that it is written with; it is read with all */
  const char *const *words; /* of a choice; NULL ends them */
  size_t bytes;             /* of its place; a choice's is a bool or an enum, a list's has room for all that fit */
  size_t count_offset;      /* of a list: where its length is */
} Field;

/* A row of a table, which {0} ends. */
#define FIELD(Struct, name, kind, written)                                                                             \
  { #name, kind, offsetof(Struct, name), written, NULL, sizeof((Struct){0}.name), 0 }
#define FIELD_OF_WORDS(Struct, key, name, written, ...)                                                                \
  {                                                                                                                    \
    key, FIELD_CHOICE, offsetof(Struct, name), written, (const char *const[]){__VA_ARGS__, NULL},                      \
        sizeof((Struct){0}.name), 0                                                                                    \
  }
#define FIELD_OF_REALS(Struct, name, count, written)                                                                   \
  { #name, FIELD_REALS, offsetof(Struct, name), written, NULL, sizeof((Struct){0}.name), offsetof(Struct, count) }

/* An upper end from here on is none, and is written as this: JSON has no infinity. */
#define FIELD_NO_LIMIT 1e30

/* Where a value stands, for messages: "config.json: ssm_cfg.headdim". */
typedef struct FieldPlace {
  const char *where, *prefix;
} FieldPlace;

/* found: NULL where there is nothing. */
Status field_refuse(FieldPlace place, const char *key, const json_t *found, const char *expected);
Status field_require_object(FieldPlace place, const char *key, const json_t *value);
Status field_read_int(FieldPlace place, const char *key, const json_t *value, int *out); /* 0 or more */
Status field_read(FieldPlace place, const Field *field, const json_t *value, void *target);
/* Fills target from the object's keys that are in one of the tables (NULL ends them); keys in `others` are the caller's,
 * any other is a mistake. */
Status fields_read(FieldPlace place, const json_t *object, const Field *const *tables, const char *const *others,
                   void *target);

/* Keys in the order they are written, indented by a space a depth. */
typedef struct FieldWriter {
  FILE *stream;
  int depth;
  bool first;
} FieldWriter;

void field_open_object(FieldWriter *w);
void field_close_object(FieldWriter *w);
void field_write_key(FieldWriter *w, const char *key);
void field_write_bool(FieldWriter *w, const char *key, bool value);
/* The table's rows whose `written` has a bit of `set`. */
void fields_write(FieldWriter *w, const Field *fields, int set, const void *source);
