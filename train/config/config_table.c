/* config_table: see config_table.h. */
#include "train/config/config_table.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(offsetof(OptimConfig, beta2) == offsetof(OptimConfig, beta1) + sizeof(double),
               "optim.betas is read as a pair that begins at beta1");

#define ANY .low = -INFINITY, .high = INFINITY
#define RANGE(a, b) .low = (a), .high = (b)
#define AT_LEAST(a) .low = (a), .high = INFINITY
#define ABOVE(a) .low = (a), .high = INFINITY, .low_open = true
#define BELOW(a, b) .low = (a), .high = (b), .high_open = true
#define TO_INFINITY(a) .low = (a), .high = INFINITY, .infinite = true
#define ONE_OF(names) .choices = names
#define OR_FILE(names, glob) .choices = names, .files = glob
#define OR(text, ...) .word = text, __VA_ARGS__
#define COUNTED(field, ...) .count_offset = offsetof(Config, field), __VA_ARGS__
#define KEY(name, type, field, otherwise, limits, text)                                                                \
  {.path = name,                                                                                                       \
   .kind = KIND_##type,                                                                                                \
   .offset = offsetof(Config, field),                                                                                  \
   .size = sizeof(((Config *)0)->field),                                                                               \
   .fallback = otherwise,                                                                                              \
   .help = text,                                                                                                       \
   limits},
const Key config_keys[] = {
#include "train/config/config.def"
};
const int n_config_keys = sizeof config_keys / sizeof *config_keys;

/* --- names ------------------------------------------------------------------------------------------------------- */

int key_index(const char *path) {
  for (int i = 0; i < n_config_keys; i++)
    if (!strcmp(config_keys[i].path, path)) return i;
  return -1;
}

/* True when `path` is `prefix` or lies under it. */
static bool is_under(const char *path, const char *prefix) {
  size_t length = strlen(prefix);
  return !strncmp(path, prefix, length) && (!path[length] || path[length] == '.');
}

bool key_is_section(const char *path) {
  for (int i = 0; i < n_config_keys; i++)
    if (strcmp(config_keys[i].path, path) && is_under(config_keys[i].path, path)) return true;
  return false;
}

static const char *last_name(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot ? dot + 1 : path;
}

/* How far a candidate is from what was written: letters that differ, in halves; a right last name under a wrong section
 * counts as one letter and a half, a part of a name as three and a half. INT_MAX: too far to be meant. */
static int unlikeness(const char *written, const char *candidate) {
  int whole = name_distance(written, candidate), last = name_distance(last_name(written), last_name(candidate));
  int far = INT_MAX;
  if (whole <= 1 + (int)strlen(last_name(written)) / 4) far = 2 * whole;
  if (last <= (int)strlen(last_name(written)) / 4 && 3 + 2 * last < far) far = 3 + 2 * last;
  bool part = strlen(last_name(written)) >= 3 && strstr(last_name(candidate), last_name(written));
  return part && far > 7 ? 7 : far;
}

const char *key_nearest(const char *path) {
  static _Thread_local char section[96];
  const char *nearest = NULL;
  int best = INT_MAX;
  for (int i = 0; i < n_config_keys; i++) {
    const char *key = config_keys[i].path;
    int far = unlikeness(path, key);
    if (far < best) best = far, nearest = key;
    for (const char *dot = strchr(key, '.'); dot; dot = strchr(dot + 1, '.')) {
      char parent[sizeof section];
      snprintf(parent, sizeof parent, "%.*s", (int)(dot - key), key);
      far = unlikeness(path, parent);
      if (far < best) {
        best = far;
        snprintf(section, sizeof section, "%s", parent);
        nearest = section;
      }
    }
  }
  return nearest;
}

/* --- what a key takes --------------------------------------------------------------------------------------------- */

double key_high(const Key *key) {
  if (isfinite(key->high) || (key->kind != KIND_INT && key->kind != KIND_INTS)) return key->high;
  return key->size == sizeof(int64_t) && key->kind == KIND_INT ? 0x1p63 : INT_MAX;
}

/* ", 1 to 64", ", 1 or more", ", above 0", "" */
static char *range_text(const Key *key) {
  if (isfinite(key->low) && isfinite(key->high))
    return base_format(", %.15g %s %.15g", key->low, key->high_open ? "to below" : "to", key->high);
  if (!isfinite(key->low)) return base_strdup("");
  return base_format(key->low_open ? ", above %.15g" : ", %.15g or more", key->low);
}

/* "a|b|c" -> "a, b or c" */
static char *choices_text(const char *choices) {
  char *text = base_strdup("");
  while (*choices) {
    size_t length = strcspn(choices, "|");
    const char *after = choices[length] ? choices + length + 1 : choices + length;
    const char *joint = !*text ? "" : !*after ? " or " : ", ";
    char *longer = base_format("%s%s%.*s", text, joint, (int)length, choices);
    free(text);
    text = longer;
    choices = after;
  }
  return text;
}

char *key_expected(const Key *key) {
  static const char *const kinds[] = {
      [KIND_TEXT] = "text",
      [KIND_PATH] = "a path",
      [KIND_PATHS] = "a list of paths",
      [KIND_TEXTS] = "a list of texts",
      [KIND_INT] = "an integer in digits",
      [KIND_INTS] = "a list of integers",
      [KIND_REAL] = "a number",
      [KIND_REALS] = "a list of numbers",
      [KIND_PAIR] = "a list of two numbers",
      [KIND_BOOL] = "true or false",
  };
  char *range = key->choices ? choices_text(key->choices) : range_text(key);
  char *text = base_format("%s%s%s%s%s%s%s", key->choices ? "" : kinds[key->kind], range,
                           key->infinite ? ", or .inf" : "", key->files ? ", or a file " : "",
                           key->files ? key->files : "", key->word ? ", or " : "", key->word ? key->word : "");
  free(range);
  return text;
}
