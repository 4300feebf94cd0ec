/* readable: files that are read are regular ones. A folder is refused, and a pipe or a device, which would have to be waited
 * for or has no end, each in the same words wherever it was named; the caller says which exit code that is. */
#pragma once

#include "tensor/base.h"

/* Opens a file for reading, with its size; close(*fd) after success. */
Status readable_open(const char *path, Code code, int *fd, size_t *bytes);
/* What could not be read, as errno has it: "PATH: cannot read: No such file or directory". */
Status readable_failed(const char *path, Code code);

/* A whole file, mapped; data NULL: it is empty. */
typedef struct Mapped {
  const void *data;
  size_t bytes;
} Mapped;
Status readable_map(const char *path, Code code, Mapped *mapped);
void readable_unmap(Mapped *mapped);

/* A whole small text, malloc'ed and ended by a zero byte; one of more than `most_bytes`, or with a zero byte in it, is
 * refused as no `what` ("a config.json"). */
Status readable_text(const char *path, size_t most_bytes, const char *what, Code code, char **text);
