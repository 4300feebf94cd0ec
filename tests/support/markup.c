/* markup: see markup.h. */
#include "tests/support/markup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

int n_times(const char *text, const char *piece) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, piece)); at++) n++;
  return n;
}

void assert_well_formed(const char *name, const char *text) {
  static const char *const empty[] = {"meta", "br", "!DOCTYPE", "!doctype"};
  char stack[64][16];
  int depth = 0;
  for (const char *at = strchr(text, '<'); at; at = strchr(at, '<')) {
    const char *end = at + 1;
    for (bool quoted = false; *end && (quoted || *end != '>'); end++) quoted ^= *end == '"';
    cr_assert(*end == '>', "%s: a tag ends: %.40s", name, at);
    bool closing = at[1] == '/', self_closing = end[-1] == '/';
    char tag[16] = "";
    sscanf(at + 1 + closing, "%15[^ />\n]", tag);
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) self_closing |= strcmp(tag, empty[i]) == 0;
    if (closing) {
      cr_assert(depth > 0 && strcmp(stack[depth - 1], tag) == 0, "%s: </%s> closes <%s>", name, tag,
                depth ? stack[depth - 1] : "");
      depth--;
    } else if (!self_closing) {
      cr_assert_lt(depth, 64, "%s: nesting", name);
      memcpy(stack[depth++], tag, sizeof tag);
    }
    at = end;
  }
  cr_assert_eq(depth, 0, "%s: <%s> is closed", name, depth ? stack[depth - 1] : "");
}
