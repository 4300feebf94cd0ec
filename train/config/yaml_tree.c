/* yaml_tree: see yaml_tree.h. */
#include "train/config/yaml_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct Reader {
  yaml_parser_t parser;
  const YamlSource *source;
  Mistakes *mistakes;
  const char *text;
  size_t bytes;
  int n_nodes;
  char path[512]; /* keys that lead to the value being read, with a dot after each; cut when longer */
} Reader;

char *yaml_tree_place(const YamlSource *source, int line, int column) {
  return source->places ? base_format("%s:%d:%d: ", source->where, line, column) : base_format("%s: ", source->where);
}

static void mistake_at(Reader *reader, int line, int column, const char *what, const char *name) {
  char *place = yaml_tree_place(reader->source, line, column);
  mistakes_add(reader->mistakes, "%s%s%s", place, name, what);
  free(place);
}

static int line_of(yaml_mark_t mark) { return (int)mark.line + 1; }
static int column_of(yaml_mark_t mark) { return (int)mark.column + 1; }

void yaml_tree_free(YamlNode *node) {
  if (!node) return;
  for (YamlNode *child = node->child, *next; child; child = next) {
    next = child->next;
    yaml_tree_free(child);
  }
  free(node->text);
  free(node->key);
  free(node);
}

/* True when the line's indentation holds a tab: the usual cause of a syntax error that names none. */
static bool line_indents_with_tab(const Reader *reader, size_t line) {
  const char *c = reader->text, *end = c + reader->bytes;
  for (; line > 0 && c; line--) {
    c = memchr(c, '\n', (size_t)(end - c));
    if (c) c++;
  }
  if (!c) return false;
  for (; c < end && (*c == ' ' || *c == '\t'); c++)
    if (*c == '\t') return true;
  return false;
}

static void syntax_mistake(Reader *reader) {
  const yaml_parser_t *parser = &reader->parser;
  CHECK(parser->error != YAML_MEMORY_ERROR, "out of memory in libyaml");
  if (parser->error == YAML_READER_ERROR) { /* has an offset in bytes instead of a mark */
    int line = 1, column = 1;
    for (size_t i = 0; i < parser->problem_offset && i < reader->bytes; i++) {
      unsigned char c = (unsigned char)reader->text[i];
      if (c == '\n') line++, column = 1;
      else if ((c & 0xc0u) != 0x80u) column++;
    }
    char *what = base_format("not UTF-8 text: %s", parser->problem);
    mistake_at(reader, line, column, what, "");
    free(what);
    return;
  }
  const char *problem = parser->problem ? parser->problem : "cannot be read";
  char *what = line_indents_with_tab(reader, parser->problem_mark.line)
                   ? base_format("not YAML: found a tab in the indentation, expected spaces")
                   : base_format("not YAML: %s%s%s", problem, parser->context ? " " : "",
                                 parser->context ? parser->context : "");
  mistake_at(reader, line_of(parser->problem_mark), column_of(parser->problem_mark), what, "");
  free(what);
}

static bool next_event(Reader *reader, yaml_event_t *event) {
  if (yaml_parser_parse(&reader->parser, event)) return true;
  syntax_mistake(reader);
  return false;
}

static YamlNode *node_new(const yaml_event_t *event, YamlKind kind) {
  YamlNode *node = base_zalloc(sizeof *node);
  node->kind = kind;
  node->line = line_of(event->start_mark);
  node->column = column_of(event->start_mark);
  return node;
}

/* Anchors and tags change what a value means in ways that no key here has a use for. */
static void refuse_extras(Reader *reader, YamlNode *node, const yaml_char_t *anchor, const yaml_char_t *tag) {
  if (anchor)
    mistake_at(reader, node->line, node->column,
               "found an anchor (&), which is not taken; write the value, or use include", "");
  if (tag)
    mistake_at(reader, node->line, node->column, "found a tag (!), which is not taken; write the plain value", "");
  node->refused = anchor || tag;
}

static YamlNode *read_scalar(Reader *reader, const yaml_event_t *event) {
  YamlNode *node = node_new(event, YAML_SCALAR);
  node->text = base_strdup((const char *)event->data.scalar.value);
  node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
  refuse_extras(reader, node, event->data.scalar.anchor, event->data.scalar.tag);
  if (strlen(node->text) != event->data.scalar.length) {
    mistake_at(reader, node->line, node->column, "found a NUL character in the text, expected none", "");
    node->refused = true;
  }
  return node;
}

static YamlNode *read_node(Reader *reader, const yaml_event_t *event, int depth);

/* The items of a list up to its end; false when reading failed. */
static bool read_items(Reader *reader, YamlNode *list, int depth) {
  YamlNode **tail = &list->child;
  for (;;) {
    yaml_event_t event;
    if (!next_event(reader, &event)) return false;
    bool end = event.type == YAML_SEQUENCE_END_EVENT;
    if (!end) *tail = read_node(reader, &event, depth);
    yaml_event_delete(&event);
    if (end) return true;
    if (!*tail) return false;
    tail = &(*tail)->next;
  }
}

static void check_key(Reader *reader, const YamlNode *map, YamlNode *node) {
  const char *refusal = NULL;
  if (!strcmp(node->key, "<<")) refusal = ": merge keys are not taken; use include";
  for (const YamlNode *other = map->child; other && other != node && !refusal; other = other->next)
    if (!strcmp(other->key, node->key)) refusal = ": found a second time in this map, expected once";
  if (!refusal) return;
  char *name = base_format("%s%s", reader->path, node->key);
  mistake_at(reader, node->key_line, node->key_column, refusal, name);
  free(name);
  node->refused = true;
}

/* The keys and values of a map up to its end; false when reading failed. */
static bool read_entries(Reader *reader, YamlNode *map, int depth) {
  YamlNode **tail = &map->child;
  for (;;) {
    yaml_event_t event;
    if (!next_event(reader, &event)) return false;
    bool end = event.type == YAML_MAPPING_END_EVENT;
    YamlNode *key = end ? NULL : read_node(reader, &event, depth);
    yaml_event_delete(&event);
    if (end) return true;
    if (!key) return false;
    bool key_refused = key->refused || key->kind != YAML_SCALAR;
    if (key->kind != YAML_SCALAR)
      mistake_at(reader, key->line, key->column, "found a map or list as a key, expected a name", "");
    if (!next_event(reader, &event)) {
      yaml_tree_free(key);
      return false;
    }
    size_t path_length = strlen(reader->path);
    snprintf(reader->path + path_length, sizeof reader->path - path_length, "%s.", key->text ? key->text : "");
    YamlNode *node = read_node(reader, &event, depth);
    reader->path[path_length] = '\0';
    yaml_event_delete(&event);
    if (!node) {
      yaml_tree_free(key);
      return false;
    }
    node->key = base_strdup(key->text ? key->text : "");
    node->key_line = key->line;
    node->key_column = key->column;
    node->refused |= key_refused;
    yaml_tree_free(key);
    *tail = node;
    tail = &node->next;
    if (!key_refused) check_key(reader, map, node);
  }
}

/* The node that begins with `event`; NULL when reading cannot go on, with its mistake added. */
static YamlNode *read_node(Reader *reader, const yaml_event_t *event, int depth) {
  const char *limit = NULL;
  if (++reader->n_nodes > YAML_MAX_NODES) limit = "found more than 10000 values, expected a config";
  if (depth >= YAML_MAX_DEPTH) limit = "found maps or lists nested deeper than 32, expected a config";
  if (limit) {
    mistake_at(reader, line_of(event->start_mark), column_of(event->start_mark), limit, "");
    return NULL;
  }
  YamlNode *node;
  bool whole = true;
  switch (event->type) {
  case YAML_SCALAR_EVENT: return read_scalar(reader, event);
  case YAML_ALIAS_EVENT:
    node = node_new(event, YAML_SCALAR);
    node->text = base_strdup("");
    node->refused = true;
    mistake_at(reader, node->line, node->column,
               "found an alias (*), which is not taken; write the value, or use include", "");
    return node;
  case YAML_SEQUENCE_START_EVENT:
    node = node_new(event, YAML_LIST);
    refuse_extras(reader, node, event->data.sequence_start.anchor, event->data.sequence_start.tag);
    whole = read_items(reader, node, depth + 1);
    break;
  default:
    CHECK(event->type == YAML_MAPPING_START_EVENT, "libyaml event %d where a value begins", (int)event->type);
    node = node_new(event, YAML_MAP);
    refuse_extras(reader, node, event->data.mapping_start.anchor, event->data.mapping_start.tag);
    whole = read_entries(reader, node, depth + 1);
  }
  if (whole) return node;
  yaml_tree_free(node);
  return NULL;
}

/* Events of a whole stream: start, at most one document, end. */
static YamlNode *read_stream(Reader *reader, bool empty_is_null) {
  YamlNode *root = NULL;
  for (bool failed = false;;) {
    yaml_event_t event;
    if (failed || !next_event(reader, &event)) {
      yaml_tree_free(root);
      return NULL;
    }
    yaml_event_type_t type = event.type;
    if (type == YAML_STREAM_END_EVENT && !root && empty_is_null) {
      root = node_new(&event, YAML_SCALAR);
      root->text = base_strdup("");
    } else if (type == YAML_STREAM_END_EVENT && !root) {
      mistake_at(reader, 1, 1, "found nothing in it, expected keys (`aspis help config` lists them)", "");
    } else if (type == YAML_DOCUMENT_START_EVENT && root) {
      mistake_at(reader, line_of(event.start_mark), column_of(event.start_mark),
                 "found a second document (---), expected one", "");
      failed = true;
    } else if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
               type != YAML_DOCUMENT_END_EVENT && type != YAML_STREAM_END_EVENT) {
      root = read_node(reader, &event, 0);
      failed = !root;
    }
    yaml_event_delete(&event);
    if (type == YAML_STREAM_END_EVENT) return root;
  }
}

YamlNode *yaml_tree_parse(const char *text, size_t bytes, const YamlSource *source, bool empty_is_null,
                          Mistakes *mistakes) {
  Reader reader = {.source = source, .mistakes = mistakes, .text = text, .bytes = bytes};
  if (bytes > YAML_MAX_BYTES) {
    mistakes_add(mistakes, "%s: found more than %d bytes, expected a config", source->where, YAML_MAX_BYTES);
    return NULL;
  }
  CHECK(yaml_parser_initialize(&reader.parser), "out of memory in libyaml");
  yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, bytes);
  YamlNode *root = read_stream(&reader, empty_is_null);
  yaml_parser_delete(&reader.parser);
  return root;
}

bool yaml_tree_is_null(const YamlNode *node) {
  return node->kind == YAML_SCALAR && !node->quoted &&
         (!*node->text || !strcmp(node->text, "~") || !strcmp(node->text, "null"));
}

/* The first bytes of a text, up to a line's end and not inside a character. */
static int shown_length(const char *text) {
  size_t length = strcspn(text, "\n");
  if (length <= 60) return (int)length;
  for (length = 60; length > 0 && ((unsigned char)text[length] & 0xc0u) == 0x80u;) length--;
  return (int)length;
}

/* "[0.9, 1.0]"; items that are no scalars as "..." */
static char *list_text(const YamlNode *list) {
  char *text = base_strdup("[");
  for (const YamlNode *item = list->child; item; item = item->next) {
    char *longer = base_format("%s%s%s", text, item == list->child ? "" : ", ", item->text ? item->text : "...");
    free(text);
    text = longer;
    if (strlen(text) > 60) break;
  }
  char *whole = base_format("%s]", text);
  free(text);
  return whole;
}

char *yaml_tree_found(const YamlNode *node) {
  if (node->kind == YAML_MAP) return base_strdup("a map");
  if (node->kind == YAML_SCALAR && !node->quoted && !*node->text) return base_strdup("nothing");
  char *text = node->kind == YAML_LIST ? list_text(node) : base_strdup(node->text);
  int length = shown_length(text);
  const char *quote = node->quoted ? "\"" : "";
  char *found = base_format("%s%.*s%s%s", quote, length, text, text[length] ? "..." : "", quote);
  free(text);
  return found;
}
