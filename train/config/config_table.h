/* config_table: the rows of config.def in memory: look-up, suggestions, reading a value from YAML into its field and
 * writing it back. */
#pragma once

#include "train/config/config.h"
#include "train/config/yaml_tree.h"

typedef enum KeyKind {
  KIND_TEXT,
  KIND_PATH,
  KIND_PATHS,
  KIND_TEXTS,
  KIND_INT,
  KIND_INTS,
  KIND_REAL,
  KIND_REALS,
  KIND_PAIR,
  KIND_BOOL,
  KIND_ENUM
} KeyKind;

typedef struct Key {
  const char *path; /* "optim.lr" */
  KeyKind kind;
  size_t offset, size;  /* of the field in Config */
  const char *fallback; /* the default, as YAML */
  const char *help;
  double low, high; /* of numbers, ends included unless open */
  bool low_open, high_open, infinite;
  const char *choices; /* "a|b"; NULL: free */
  const char *files;   /* a glob: besides the choices, names of files */
  const char *word;    /* stands for 0, or for no text */
  size_t count_offset; /* of a list's length */
} Key;

extern const Key config_keys[];
extern const int n_config_keys;

/* Index of a key by its path, or -1. */
int key_index(const char *path);
/* True for "model", "model.ssm_cfg", ... */
bool key_is_section(const char *path);
/* The nearest key or section to an unknown path, NULL when none is near. Also finds a key by its last name alone. */
const char *key_nearest(const char *path);
/* Largest value of a number: the limit, or what the field holds. */
double key_high(const Key *key);
/* What the key takes, "an integer, 1 to 64, or auto"; malloc'ed. */
char *key_expected(const Key *key);

/* Sets the field of config from a node; an old value is freed. NULL, or what was found instead ("found 3.5", malloc'ed);
 * the field then stays as it was. */
char *key_read(const Key *key, const YamlNode *node, Config *config);
/* The field's value as YAML (malloc'ed). */
char *key_write(const Key *key, const Config *config);
/* Frees what the field owns. */
void key_free(const Key *key, Config *config);
/* The field's value, for keys of kind PATH and PATHS: n strings that may be replaced (malloc'ed). */
char **key_paths(const Key *key, Config *config, int *n);
