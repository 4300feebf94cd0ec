/* proc: see proc.h. */
#include "train/proc.h"

#include <stdlib.h>
#include <string.h>

#include "train/format.h"

char *proc_value(const char *path, const char *key) {
  StrBuf text = {0};
  Status status = strbuf_load(&text, path);
  status_clear(&status);
  char *value = NULL;
  for (char *line = text.data; line && *line && !value;) {
    char *end = strchrnul(line, '\n'), *colon = memchr(line, ':', (size_t)(end - line));
    if (colon && strncmp(line, key, strlen(key)) == 0 &&
        strspn(line + strlen(key), " \t") == (size_t)(colon - line) - strlen(key)) {
      const char *start = colon + 1 + strspn(colon + 1, " \t");
      value = start < end ? base_format("%.*s", (int)(end - start), start) : base_strdup("");
    }
    line = *end ? end + 1 : end;
  }
  free(text.data);
  return value;
}
