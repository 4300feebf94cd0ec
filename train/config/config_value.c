/* config_value: a value of the config between YAML and its field, by the kind of its key (config_table.h). */
#include "train/config/config_table.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *field_of(const Key *key, Config *config) { return (char *)config + key->offset; }
static int *count_of(const Key *key, Config *config) { return (int *)(void *)((char *)config + key->count_offset); }

static bool in_range(const Key *key, double value) {
  double high = key_high(key);
  return !(value < key->low || value > high || (key->low_open && value <= key->low) ||
           (key->high_open && value >= key->high));
}

/* Digits with a sign, and in range. */
static bool read_int(const Key *key, const YamlNode *node, int64_t *value) {
  if (node->kind != YAML_SCALAR || node->quoted) return false;
  const char *digits = node->text + (*node->text == '-' || *node->text == '+');
  size_t n = strspn(digits, "0123456789");
  if (!n || n > 19 || digits[n]) return false;
  char *end;
  *value = strtoll(node->text, &end, 10);
  return (*value != INT64_MAX && *value != INT64_MIN) && in_range(key, (double)*value);
}

/* A decimal number as YAML 1.2 writes it; neither hexadecimal nor nan, and infinity only where it is a value. */
static bool read_real(const Key *key, const YamlNode *node, double *value) {
  if (node->kind != YAML_SCALAR || node->quoted) return false;
  const char *text = node->text;
  if (!strcmp(text, ".inf") || !strcmp(text, "inf") || !strcmp(text, "+.inf")) {
    *value = INFINITY;
    return key->infinite;
  }
  if (!*text || text[strspn(text, "+-.0123456789eE")]) return false;
  char *end;
  *value = strtod(text, &end);
  return !*end && end != text && isfinite(*value) && in_range(key, *value);
}

/* The index of the choice, or -1. */
static int read_choice(const Key *key, const YamlNode *node) {
  if (node->kind != YAML_SCALAR) return -1;
  size_t text_length = strlen(node->text);
  int i = 0;
  for (const char *choice = key->choices; *choice; i++) {
    size_t length = strcspn(choice, "|");
    if (length == text_length && !strncmp(choice, node->text, length)) return i;
    choice += length + (choice[length] == '|');
  }
  return -1;
}

static bool is_word(const Key *key, const YamlNode *node) {
  if (!key->word) return false;
  if (!strcmp(key->word, "null")) return yaml_tree_is_null(node);
  return node->kind == YAML_SCALAR && !strcmp(node->text, key->word);
}

static void store_int(const Key *key, Config *config, int64_t value) {
  void *field = field_of(key, config);
  switch (key->size) {
  case sizeof(bool): *(bool *)field = value != 0; break;
  case sizeof(int): *(int *)field = (int)value; break;
  default:
    CHECK(key->size == sizeof(int64_t), "%s: a field of %zu bytes", key->path, key->size);
    *(int64_t *)field = value;
  }
}

static bool is_text(const YamlNode *node) { return node->kind == YAML_SCALAR && !yaml_tree_is_null(node); }

static bool read_text(const Key *key, const YamlNode *node, Config *config) {
  char **field = field_of(key, config);
  char *text = NULL;
  if (!is_word(key, node)) {
    if (!is_text(node)) return false;
    const bool is_file = key->files && fnmatch(key->files, node->text, 0) == 0;
    if (key->choices && !is_file && read_choice(key, node) < 0) return false;
    text = base_strdup(node->text);
  }
  free(*field);
  *field = text;
  return true;
}

/* A list of texts; one text stands for a list of one. */
static bool read_texts(const Key *key, const YamlNode *node, Config *config) {
  const YamlNode *first = node->kind == YAML_LIST ? node->child : node;
  int n = 0;
  for (const YamlNode *item = first; item; item = node->kind == YAML_LIST ? item->next : NULL, n++)
    if (!is_text(item)) return false;
  char **texts = base_zalloc((size_t)n * sizeof *texts);
  const YamlNode *item = first;
  for (int i = 0; i < n; i++, item = item->next) texts[i] = base_strdup(item->text);
  key_free(key, config);
  *(char ***)field_of(key, config) = texts;
  *count_of(key, config) = n;
  return true;
}

static bool read_ints(const Key *key, const YamlNode *node, Config *config) {
  int values[MODEL_MAX_LAYERS], n = 0, capacity = (int)(key->size / sizeof(int));
  CHECK(capacity <= MODEL_MAX_LAYERS, "%s: room for %d integers", key->path, capacity);
  if (node->kind != YAML_LIST) return false;
  for (const YamlNode *item = node->child; item; item = item->next) {
    int64_t value;
    if (n == capacity || !read_int(key, item, &value)) return false;
    values[n++] = (int)value;
  }
  int *field = field_of(key, config);
  memset(field, 0, key->size);
  memcpy(field, values, (size_t)n * sizeof(int));
  *count_of(key, config) = n;
  return true;
}

static bool read_reals(const Key *key, const YamlNode *node, Config *config) {
  double values[MAX_QUANTILES];
  int n = 0, capacity = (int)(key->size / sizeof(double));
  CHECK(capacity <= MAX_QUANTILES, "%s: room for %d numbers", key->path, capacity);
  if (node->kind != YAML_LIST) return false;
  for (const YamlNode *item = node->child; item; item = item->next)
    if (n == capacity || !read_real(key, item, &values[n++])) return false;
  double *field = field_of(key, config);
  memset(field, 0, key->size);
  memcpy(field, values, (size_t)n * sizeof *values);
  *count_of(key, config) = n;
  return true;
}

static bool read_pair(const Key *key, const YamlNode *node, Config *config) {
  if (node->kind != YAML_LIST || !node->child || !node->child->next || node->child->next->next) return false;
  double pair[2];
  if (!read_real(key, node->child, &pair[0]) || !read_real(key, node->child->next, &pair[1])) return false;
  memcpy(field_of(key, config), pair, sizeof pair);
  return true;
}

static bool read_int_field(const Key *key, const YamlNode *node, Config *config) {
  int64_t value = 0;
  if (!is_word(key, node) && !read_int(key, node, &value)) return false;
  store_int(key, config, value);
  return true;
}

static bool read_real_field(const Key *key, const YamlNode *node, Config *config) {
  double value = 0;
  if (!is_word(key, node) && !read_real(key, node, &value)) return false;
  *(double *)field_of(key, config) = value;
  return true;
}

static bool read_bool(const Key *key, const YamlNode *node, Config *config) {
  if (node->kind != YAML_SCALAR || node->quoted) return false;
  bool yes = !strcmp(node->text, "true");
  if (!yes && strcmp(node->text, "false")) return false;
  *(bool *)field_of(key, config) = yes;
  return true;
}

static bool read_enum(const Key *key, const YamlNode *node, Config *config) {
  int index = read_choice(key, node);
  if (index >= 0) store_int(key, config, index);
  return index >= 0;
}

/* Sets the field and returns true, or leaves it alone. */
typedef bool ReadField(const Key *key, const YamlNode *node, Config *config);
static ReadField *const readers[] = {
    [KIND_TEXT] = read_text,     [KIND_PATH] = read_text, [KIND_PATHS] = read_texts,     [KIND_TEXTS] = read_texts,
    [KIND_INT] = read_int_field, [KIND_INTS] = read_ints, [KIND_REAL] = read_real_field, [KIND_REALS] = read_reals,
    [KIND_PAIR] = read_pair,     [KIND_BOOL] = read_bool, [KIND_ENUM] = read_enum,
};

char *key_read(const Key *key, const YamlNode *node, Config *config) {
  if (readers[key->kind](key, node, config)) return NULL;
  char *found = yaml_tree_found(node), *text = base_format("found %s", found);
  free(found);
  return text;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

/* The code point that begins at text, and its bytes; a byte that begins none stands for itself. */
static unsigned code_point(const char *text, int *bytes) {
  unsigned c = (unsigned char)*text;
  *bytes = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
  if (*bytes == 1) return c;
  unsigned point = c & (0x7fu >> *bytes);
  for (int i = 1; i < *bytes; i++) {
    if (((unsigned char)text[i] & 0xc0u) != 0x80u) { /* the end of the text, too */
      *bytes = 1;
      return c;
    }
    point = point << 6 | ((unsigned char)text[i] & 0x3fu);
  }
  return point;
}

/* True for what YAML refuses to read as it is, or folds: controls, line ends, non-characters. */
static bool needs_escape(unsigned point) {
  return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x2028 || point == 0x2029 || point == 0xfffe ||
         point == 0xffff;
}

/* A text that YAML reads back as the same text: plain when nothing in it means anything, else in double quotes. */
static char *write_text(const char *text) {
  static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off"};
  bool plain = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-") == strlen(text) &&
               *text && *text != '-' && *text != '.' && !(*text >= '0' && *text <= '9');
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) plain &= strcmp(text, words[i]) != 0;
  if (plain) return base_strdup(text);
  char *quoted = base_alloc(6 * strlen(text) + 3), *to = quoted;
  *to++ = '"';
  for (int bytes; *text; text += bytes) {
    unsigned point = code_point(text, &bytes);
    if (point == '"' || point == '\\') *to++ = '\\';
    if (needs_escape(point)) to += sprintf(to, "\\u%04X", point);
    else
      for (int i = 0; i < bytes; i++) *to++ = text[i];
  }
  *to++ = '"';
  *to = '\0';
  return quoted;
}

/* The shortest of three lengths that reads back as the same double, with a mark that it is a real. */
static char *write_real(double value) {
  if (isinf(value)) return base_strdup(".inf");
  char text[40];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  return base_format("%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static const void *shown_field(const Key *key, const Config *config) { return (const char *)config + key->offset; }

static int64_t load_int(const Key *key, const Config *config) {
  const void *field = shown_field(key, config);
  if (key->size == sizeof(bool)) return *(const bool *)field;
  if (key->size == sizeof(int)) return *(const int *)field;
  return *(const int64_t *)field;
}

static char *write_choice(const Key *key, int64_t index) {
  const char *choice = key->choices;
  for (; index > 0; index--) {
    choice += strcspn(choice, "|");
    CHECK(*choice++, "%s: the field's value is none of %s", key->path, key->choices);
  }
  return base_format("%.*s", (int)strcspn(choice, "|"), choice);
}

/* "[a, b]" of n items; frees the items. */
static char *write_list(char **items, int n) {
  char *list = base_strdup("[");
  for (int i = 0; i < n; i++) {
    char *longer = base_format("%s%s%s", list, i ? ", " : "", items[i]);
    free(list);
    free(items[i]);
    list = longer;
  }
  char *whole = base_format("%s]", list);
  free(list);
  return whole;
}

static char *write_text_field(const Key *key, const Config *config) {
  const char *text = *(char *const *)shown_field(key, config);
  return text ? write_text(text) : base_strdup("null");
}

static char *write_list_field(const Key *key, const Config *config) {
  const void *field = shown_field(key, config);
  int n = *(const int *)(const void *)((const char *)config + key->count_offset);
  char **items = base_zalloc((size_t)n * sizeof *items);
  for (int i = 0; i < n; i++)
    items[i] =
        key->kind == KIND_INTS ? base_format("%d", ((const int *)field)[i]) : write_text((*(char **const *)field)[i]);
  char *list = write_list(items, n);
  free(items);
  return list;
}

static char *write_reals(const Key *key, const Config *config) {
  const double *values = shown_field(key, config);
  int n = *(const int *)(const void *)((const char *)config + key->count_offset);
  char *items[MAX_QUANTILES];
  for (int i = 0; i < n; i++) items[i] = write_real(values[i]);
  return write_list(items, n);
}

static char *write_int_field(const Key *key, const Config *config) {
  int64_t value = load_int(key, config);
  return key->word && !value ? base_strdup(key->word) : base_format("%lld", (long long)value);
}

static char *write_real_field(const Key *key, const Config *config) {
  double value = *(const double *)shown_field(key, config);
  return key->word && value == 0 ? base_strdup(key->word) : write_real(value);
}

static char *write_pair(const Key *key, const Config *config) {
  const double *pair = shown_field(key, config);
  return write_list((char *[]){write_real(pair[0]), write_real(pair[1])}, 2);
}

static char *write_bool(const Key *key, const Config *config) {
  return base_strdup(*(const bool *)shown_field(key, config) ? "true" : "false");
}

static char *write_enum(const Key *key, const Config *config) { return write_choice(key, load_int(key, config)); }

typedef char *WriteField(const Key *key, const Config *config);
static WriteField *const writers[] = {
    [KIND_TEXT] = write_text_field,  [KIND_PATH] = write_text_field, [KIND_PATHS] = write_list_field,
    [KIND_TEXTS] = write_list_field, [KIND_INT] = write_int_field,   [KIND_INTS] = write_list_field,
    [KIND_REAL] = write_real_field,  [KIND_REALS] = write_reals,     [KIND_PAIR] = write_pair,
    [KIND_BOOL] = write_bool,        [KIND_ENUM] = write_enum,
};

char *key_write(const Key *key, const Config *config) { return writers[key->kind](key, config); }

/* --- ownership ---------------------------------------------------------------------------------------------------- */

char **key_paths(const Key *key, Config *config, int *n) {
  *n = 0;
  if (key->kind == KIND_PATH) {
    const char *path = *(char **)field_of(key, config);
    *n = path && (!key->files || fnmatch(key->files, path, 0) == 0) ? 1 : 0;
  }
  if (key->kind == KIND_PATHS) *n = *count_of(key, config);
  if (!*n) return NULL;
  return key->kind == KIND_PATH ? (char **)field_of(key, config) : *(char ***)field_of(key, config);
}

void key_free(const Key *key, Config *config) {
  if (key->kind == KIND_TEXT || key->kind == KIND_PATH) {
    char **field = field_of(key, config);
    free(*field);
    *field = NULL;
  } else if (key->kind == KIND_PATHS || key->kind == KIND_TEXTS) {
    char ***field = field_of(key, config);
    for (int i = 0; i < *count_of(key, config); i++) free((*field)[i]);
    free(*field);
    *field = NULL;
    *count_of(key, config) = 0;
  }
}
