/* yaml_tree: YAML text to a small tree, through libyaml's event interface, with limits that a hostile file cannot pass.
 * Anchors, aliases, merge keys, tags and duplicate keys are refused; every node knows its place. */
#pragma once

#include "train/config/mistakes.h"

typedef enum YamlKind { YAML_SCALAR, YAML_MAP, YAML_LIST } YamlKind;

typedef struct YamlNode YamlNode;
struct YamlNode {
  YamlKind kind;
  char *text;   /* of a scalar */
  bool quoted;  /* a scalar in quotes or a block: text, never null or a number */
  bool refused; /* already reported: what it means is not asked */
  int line, column;
  char *key; /* the node's key when its parent is a map */
  int key_line, key_column;
  YamlNode *child, *next;
};

/* Where a text comes from, for messages. */
typedef struct YamlSource {
  const char *where; /* file name, or "--set optim.lr=1" */
  bool places;       /* lines and columns mean something */
} YamlSource;

#define YAML_MAX_BYTES (1 << 20)
#define YAML_MAX_DEPTH 32
#define YAML_MAX_NODES 10000

/* The tree of one document, or NULL with at least one mistake added. An empty text is a null scalar when
 * empty_is_null, else a mistake. Free with yaml_tree_free. */
YamlNode *yaml_tree_parse(const char *text, size_t bytes, const YamlSource *source, bool empty_is_null,
                          Mistakes *mistakes);
void yaml_tree_free(YamlNode *node);
/* Plain `null`, `~` or nothing. */
bool yaml_tree_is_null(const YamlNode *node);
/* What was found, for messages: the text, shortened; "a map", "nothing". malloc'ed */
char *yaml_tree_found(const YamlNode *node);
/* "file:line:column: " or "--set a=b: "; malloc'ed */
char *yaml_tree_place(const YamlSource *source, int line, int column);
