/* config: layers of YAML over the defaults (config.h).
 *
 * A layer is one file or one --set, lowest first. All are read into trees before any value counts, because the preset,
 * which lies below them, is named in one of them: they are laid over twice, first to learn that name. */
#include "train/config/config.h"

#include "train/config/config_check.h"
#include "train/config/config_table.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_INCLUDE_DEPTH 8
#define MAX_KEYS 256

typedef struct Layer {
  char *where;     /* file name, or "--set optim.lr=1" */
  char *directory; /* of a file, with its slash; "" is the working directory */
  char *set_path;  /* of a --set: the key; NULL: a file */
  YamlNode *root;
} Layer;

typedef struct Origin { /* of a key's value */
  const Layer *layer;   /* NULL: the default */
  int line, column;
} Origin;

typedef struct Loader {
  Config *config;
  Mistakes mistakes;
  Layer **layers;
  int n_layers;
  Origin origins[MAX_KEYS];
  const char *where; /* for mistakes that no layer made */
} Loader;

/* --- reading the layers ------------------------------------------------------------------------------------------- */

static Layer *layer_add(Loader *loader, char *where, char *directory, char *set_path, YamlNode *root) {
  Layer *layer = base_zalloc(sizeof *layer);
  *layer = (Layer){where, directory, set_path, root};
  loader->layers = base_realloc(loader->layers, (size_t)(loader->n_layers + 1) * sizeof *loader->layers);
  loader->layers[loader->n_layers++] = layer;
  return layer;
}

static YamlSource source_of(const Layer *layer) { return (YamlSource){layer->where, !layer->set_path}; }

/* A file's bytes, malloc'ed; NULL with a mistake when it cannot be read. Reads one byte past the limit at most. */
static char *read_file(const char *path, size_t *bytes, Mistakes *mistakes) {
  struct stat info;
  FILE *file = fopen(path, "rb");
  if (!file) {
    mistakes_add(mistakes, "%s: cannot be read: %s; expected a config in YAML", path, strerror(errno));
    return NULL;
  }
  if (!fstat(fileno(file), &info) && S_ISDIR(info.st_mode)) {
    mistakes_add(mistakes, "%s: found a folder, expected a config in YAML", path);
    fclose(file);
    return NULL;
  }
  char *text = base_alloc(YAML_MAX_BYTES + 1);
  *bytes = fread(text, 1, YAML_MAX_BYTES + 1, file);
  if (ferror(file)) {
    mistakes_add(mistakes, "%s: cannot be read: %s", path, strerror(errno));
    free(text);
    text = NULL;
  }
  fclose(file);
  return text;
}

static char *directory_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? base_format("%.*s", (int)(slash + 1 - path), path) : base_strdup("");
}

typedef struct Included { /* the chain of files that include each other */
  const char *path;
  struct stat info;
  const struct Included *by;
  int depth;
} Included;

static void read_config_file(Loader *loader, const char *path, const Included *by);

static void read_include(Loader *loader, const YamlSource *source, const char *directory, const YamlNode *node,
                         const Included *by) {
  if (node->kind != YAML_SCALAR || yaml_tree_is_null(node)) {
    char *place = yaml_tree_place(source, node->line, node->column), *found = yaml_tree_found(node);
    mistakes_add(&loader->mistakes, "%sinclude: found %s, expected a path or a list of paths", place, found);
    free(place);
    free(found);
    return;
  }
  char *path = *node->text == '/' ? base_strdup(node->text) : base_format("%s%s", directory, node->text);
  read_config_file(loader, path, by);
  free(path);
}

/* Adds the layers of a text: first what it includes, then itself. */
static void read_config_text(Loader *loader, const char *text, size_t bytes, const char *where, const char *directory,
                             const Included *by) {
  YamlSource source = {where, true};
  YamlNode *root = yaml_tree_parse(text, bytes, &source, false, &loader->mistakes);
  if (!root) return;
  if (root->kind != YAML_MAP) {
    char *found = yaml_tree_found(root);
    mistakes_add(&loader->mistakes, "%s:%d:%d: found %s, expected keys (`aspis help config` lists them)", where,
                 root->line, root->column, found);
    free(found);
    yaml_tree_free(root);
    return;
  }
  for (YamlNode *node = root->child; node; node = node->next) {
    if (strcmp(node->key, "include") || node->refused) continue;
    if (node->kind == YAML_LIST)
      for (const YamlNode *item = node->child; item; item = item->next)
        read_include(loader, &source, directory, item, by);
    else read_include(loader, &source, directory, node, by);
    node->refused = true; /* done with: not a key of the table */
  }
  layer_add(loader, base_strdup(where), base_strdup(directory), NULL, root);
}

static void read_config_file(Loader *loader, const char *path, const Included *by) {
  Included self = {.path = path, .by = by, .depth = by ? by->depth + 1 : 0};
  if (!stat(path, &self.info))
    for (const Included *file = by; file; file = file->by)
      if (file->info.st_ino == self.info.st_ino && file->info.st_dev == self.info.st_dev) {
        mistakes_add(&loader->mistakes, "%s: include: found %s, which includes this file, expected no circle", by->path,
                     path);
        return;
      }
  if (self.depth > MAX_INCLUDE_DEPTH) {
    mistakes_add(&loader->mistakes, "%s: include: found more than %d files deep, expected fewer", by->path,
                 MAX_INCLUDE_DEPTH);
    return;
  }
  size_t bytes;
  char *text = read_file(path, &bytes, &loader->mistakes), *directory = directory_of(path);
  if (text) read_config_text(loader, text, bytes, path, directory, &self);
  free(text);
  free(directory);
}

/* directory: that of the config file, which a path in a --set is relative to as well. */
static void read_set(Loader *loader, const char *set, const char *directory) {
  const char *equals = strchr(set, '=');
  if (!equals || equals == set) {
    mistakes_add(&loader->mistakes, "--set %.80s: found no KEY=VALUE, expected for example --set optim.lr=3e-4", set);
    return;
  }
  enum { MOST_SHOWN = 120 };
  char *where = base_format("--set %.*s%s", MOST_SHOWN, set, strlen(set) > MOST_SHOWN ? "..." : "");
  YamlSource source = {where, false};
  YamlNode *root = yaml_tree_parse(equals + 1, strlen(equals + 1), &source, true, &loader->mistakes);
  if (root) layer_add(loader, where, base_strdup(directory), base_format("%.*s", (int)(equals - set), set), root);
  else free(where);
}

/* --- laying them over --------------------------------------------------------------------------------------------- */

static void mistake(Loader *loader, const Layer *layer, int line, int column, const char *key, const char *what) {
  YamlSource source = source_of(layer);
  char *place = yaml_tree_place(&source, line, column);
  mistakes_add(&loader->mistakes, "%s%s: %s", place, key, what);
  free(place);
}

/* True for a file, a folder, a pattern that matches one, or the file of "file.h5:/name". */
static bool path_exists(const char *path) {
  glob_t found;
  if (!access(path, F_OK)) return true;
  const char *colon = strstr(path, ":/");
  if (colon) {
    char *file = base_format("%.*s", (int)(colon - path), path);
    bool exists = !access(file, F_OK);
    free(file);
    if (exists) return true;
  }
  int outcome = glob(path, GLOB_NOSORT, NULL, &found);
  if (!outcome) globfree(&found);
  return !outcome;
}

/* Paths are relative to the file they stand in when that is where they lead, else to the working directory. */
static void resolve_paths(const Key *key, const Layer *layer, Config *config) {
  int n;
  char **paths = key_paths(key, config, &n);
  for (int i = 0; i < n; i++) {
    if (*paths[i] == '/' || !*layer->directory) continue;
    char *beside = base_format("%s%s", layer->directory, paths[i]);
    if (path_exists(beside)) {
      free(paths[i]);
      paths[i] = beside;
    } else {
      free(beside);
    }
  }
}

static void unknown_key(Loader *loader, const Layer *layer, int line, int column, const char *path) {
  const char *nearest = key_nearest(path);
  char *what = !strcmp(path, "include") ? base_strdup("stands in files only")
               : nearest                ? base_format("unknown key; did you mean \"%s\"?", nearest)
                                        : base_strdup("unknown key; `aspis help config` lists all");
  mistake(loader, layer, line, column, path, what);
  free(what);
}

static void apply_value(Loader *loader, const Layer *layer, const YamlNode *node, int index) {
  const Key *key = &config_keys[index];
  char *found = key_read(key, node, loader->config);
  if (!found) {
    loader->origins[index] = (Origin){layer, node->line, node->column};
    resolve_paths(key, layer, loader->config);
    return;
  }
  char *expected = key_expected(key), *what = base_format("%s, expected %s", found, expected);
  bool nothing = yaml_tree_is_null(node) && !*node->text && node->key; /* has no place of its own */
  mistake(loader, layer, nothing ? node->key_line : node->line, nothing ? node->key_column : node->column, key->path,
          what);
  free(what);
  free(expected);
  free(found);
}

static void apply_node(Loader *loader, const Layer *layer, const YamlNode *node, const char *path) {
  int index = key_index(path);
  if (node->refused) return;
  if (index >= 0) {
    apply_value(loader, layer, node, index);
    return;
  }
  int line = node->key ? node->key_line : node->line, column = node->key ? node->key_column : node->column;
  if (!key_is_section(path)) {
    unknown_key(loader, layer, line, column, path);
    return;
  }
  if (yaml_tree_is_null(node)) return; /* a section whose keys are all commented out */
  if (node->kind != YAML_MAP) {
    char *found = yaml_tree_found(node), *what = base_format("found %s, expected a map of keys", found);
    mistake(loader, layer, node->line, node->column, path, what);
    free(found);
    free(what);
    return;
  }
  for (const YamlNode *child = node->child; child; child = child->next) {
    char *child_path = base_format("%s.%s", path, child->key);
    if (strchr(child->key, '.'))
      mistake(loader, layer, child->key_line, child->key_column, child_path,
              "found a dot in a key, expected nested maps (dotted keys are for --set)");
    else apply_node(loader, layer, child, child_path);
    free(child_path);
  }
}

static void apply_layer(Loader *loader, const Layer *layer) {
  if (layer->set_path) {
    apply_node(loader, layer, layer->root, layer->set_path);
    return;
  }
  for (const YamlNode *node = layer->root->child; node; node = node->next) {
    if (strchr(node->key, '.'))
      mistake(loader, layer, node->key_line, node->key_column, node->key,
              "found a dot in a key, expected nested maps (dotted keys are for --set)");
    else apply_node(loader, layer, node, node->key);
  }
}

static void apply_defaults(Config *config) {
  *config = (Config){0};
  Mistakes mistakes = {0};
  for (int i = 0; i < n_config_keys; i++) {
    const Key *key = &config_keys[i];
    YamlNode *node =
        yaml_tree_parse(key->fallback, strlen(key->fallback), &(YamlSource){key->path, false}, true, &mistakes);
    CHECK(node, "default of %s: %s", key->path, mistakes.lines);
    char *wrong = key_read(key, node, config);
    CHECK(!wrong, "default of %s: %s", key->path, wrong);
    yaml_tree_free(node);
  }
}

/* --- putting it together ------------------------------------------------------------------------------------------ */

/* A mistake of a combination, placed where the key at fault got its value. */
static void report_mistake(void *user, const char *key, const char *what) {
  Loader *loader = user;
  int index = key_index(key);
  const Origin *origin = index < 0 ? NULL : &loader->origins[index];
  if (origin && origin->layer) mistake(loader, origin->layer, origin->line, origin->column, key, what);
  else mistakes_add(&loader->mistakes, "%s: %s: %s", loader->where, key, what);
}

/* Lays every layer over the defaults and the preset (NULL: none). */
static void apply_all(Loader *loader, const char *preset) {
  apply_defaults(loader->config);
  if (preset) model_preset(preset, &loader->config->model); /* an unknown one changes nothing: check_preset */
  for (int i = 0; i < loader->n_layers; i++) apply_layer(loader, loader->layers[i]);
  ModelConfig *model = &loader->config->model;
  model->ssm_cfg.d_model = model->d_model;
  config_fit_samples(loader->config);
  loader->config->vocab_size_auto = model->vocab_size == 0;
}

static void check_preset(Loader *loader) {
  const char *preset = loader->config->model_preset;
  ModelConfig unused;
  if (!preset || model_preset(preset, &unused)) return;
  const char *const *names = model_preset_names();
  int n = 0;
  while (names[n]) n++;
  const char *nearest = name_nearest(preset, names, n);
  char *what =
      nearest ? base_format("found \"%s\", expected a preset; did you mean \"%s\"?", preset, nearest)
              : base_format("found \"%s\", expected a preset (`aspis help config model.preset` lists them)", preset);
  report_mistake(loader, "model.preset", what);
  free(what);
}

static void loader_free(Loader *loader) {
  for (int i = 0; i < loader->n_layers; i++) {
    Layer *layer = loader->layers[i];
    free(layer->where);
    free(layer->directory);
    free(layer->set_path);
    yaml_tree_free(layer->root);
    free(layer);
  }
  free(loader->layers);
}

/* A preset states all of the model. */
static void take_weights(Loader *loader) {
  Config *config = loader->config;
  bool stated[MAX_KEYS];
  for (int i = 0; i < n_config_keys; i++) stated[i] = loader->origins[i].layer || config->model_preset;
  config_take_weights(config, stated, report_mistake, loader);
  config_fit_samples(config);
  config->vocab_size_auto = config->model.vocab_size == 0;
}

/* Finishes a loader whose files are read; with_weights: those of model.init_from have a say. */
static Status load(Loader *loader, const char *const *sets, int n_sets, const char *directory, bool with_weights,
                   Config *config) {
  CHECK(n_config_keys <= MAX_KEYS, "config.def has %d keys, room for %d", n_config_keys, MAX_KEYS);
  for (int i = 0; i < n_sets; i++) read_set(loader, sets[i], directory);
  bool readable = !loader->mistakes.n;
  Mistakes aside = loader->mistakes; /* of reading: kept while the first pass is made */
  loader->mistakes = (Mistakes){0};
  Config first;
  loader->config = &first;
  apply_all(loader, NULL);
  mistakes_clear(&loader->mistakes);
  loader->mistakes = aside;
  loader->config = config;
  memset(loader->origins, 0, sizeof loader->origins);
  apply_all(loader, first.model_preset);
  config_free(&first);
  check_preset(loader);
  if (with_weights && config->init_from && readable && !loader->mistakes.n) take_weights(loader);
  /* a combination of values some of which could not be read says nothing */
  if (readable && !loader->mistakes.n) config_check(config, report_mistake, loader);
  loader_free(loader);
  Status status = mistakes_status(&loader->mistakes, CODE_USAGE);
  if (status.code != CODE_OK) config_free(config);
  return status;
}

Status config_load(const char *path, const char *const *sets, int n_sets, Config *config) {
  Loader loader = {.where = path ? path : "config"};
  if (path) read_config_file(&loader, path, NULL);
  char *directory = path ? directory_of(path) : base_strdup("");
  Status status = load(&loader, sets, n_sets, directory, true, config);
  free(directory);
  return status;
}

Status config_parse(const char *text, const char *where, const char *const *sets, int n_sets, Config *config) {
  Loader loader = {.where = where};
  read_config_text(&loader, text, strlen(text), where, "", NULL);
  return load(&loader, sets, n_sets, "", false, config);
}

void config_free(Config *config) {
  for (int i = 0; i < n_config_keys; i++) key_free(&config_keys[i], config);
}

/* Opens the sections that `path` lies in and `before` did not, as nested keys. */
static void write_sections(FILE *file, const char *before, const char *path) {
  int depth = 0;
  bool opened = false;
  for (const char *name = path, *dot; (dot = strchr(name, '.')); name = dot + 1, depth++) {
    size_t length = (size_t)(dot + 1 - path);
    opened |= strncmp(before, path, length) != 0;
    if (opened) fprintf(file, "%*s%.*s:\n", 2 * depth, "", (int)(dot - name), name);
  }
}

char *config_to_yaml(const Config *config) {
  char *text = NULL;
  size_t bytes;
  FILE *file = open_memstream(&text, &bytes);
  CHECK(file, "out of memory for the text of a config");
  Config shown = *config; /* borrows the texts */
  if (shown.vocab_size_auto) shown.model.vocab_size = 0;
  if (shown.train.epochs > 0) shown.train.steps = 0;
  const char *before = "";
  for (int i = 0; i < n_config_keys; i++) {
    const Key *key = &config_keys[i];
    write_sections(file, before, key->path);
    int depth = 0;
    const char *name = key->path;
    for (const char *dot; (dot = strchr(name, '.')); name = dot + 1) depth++;
    char *value = key_write(key, &shown);
    fprintf(file, "%*s%s: %s\n", 2 * depth, "", name, value);
    free(value);
    before = key->path;
  }
  CHECK(!fclose(file), "out of memory for the text of a config");
  return text;
}
