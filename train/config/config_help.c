/* config_help: `aspis help config [KEY]`, from the table (config_table.h). */
#include "train/config/config_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_key(const Key *key) {
  char *expected = key_expected(key);
  printf("%s: %s\n    %s; default %s\n", key->path, key->help, expected, key->fallback);
  free(expected);
}

static bool is_under_section(const char *path, const char *section) {
  size_t length = strlen(section);
  return !strncmp(path, section, length) && path[length] == '.';
}

static void print_all(const char *section) {
  for (int i = 0; i < n_config_keys; i++)
    if (!section || is_under_section(config_keys[i].path, section)) print_key(&config_keys[i]);
}

Status config_print_help(const char *key) {
  if (!key) {
    printf("Keys of the config, sections by dots (`optim.lr` is `lr` under `optim:`). Precedence: defaults, preset,\n"
           "include, file, --set KEY=VALUE.\n\n"
           "include: a config, or a list of them, to start from; relative to the file it stands in\n");
    print_all(NULL);
    return STATUS_OK;
  }
  int index = key_index(key);
  if (index >= 0) {
    print_key(&config_keys[index]);
    if (!strcmp(key, "model.preset"))
      for (const char *const *name = model_preset_names(); *name; name++) printf("      %s\n", *name);
    return STATUS_OK;
  }
  if (key_is_section(key)) {
    print_all(key);
    return STATUS_OK;
  }
  const char *nearest = key_nearest(key);
  if (nearest) return status_fail(CODE_USAGE, "%s: unknown key; did you mean \"%s\"?", key, nearest);
  return status_fail(CODE_USAGE, "%s: unknown key; `aspis help config` lists all", key);
}
