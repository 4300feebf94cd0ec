/* readable: see readable.h. */
#include "tensor/readable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

Status readable_failed(const char *path, Code code) {
  return status_fail(code, "%s: cannot read: %s", path, strerror(errno));
}

Status readable_open(const char *path, Code code, int *fd, size_t *bytes) {
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused below, not waited for here */
  if (*fd < 0) return readable_failed(path, code);
  struct stat info;
  const char *found = NULL;
  if (fstat(*fd, &info) != 0) found = "nothing that can be looked at";
  else if (S_ISDIR(info.st_mode)) found = "a folder";
  else if (!S_ISREG(info.st_mode)) found = "a pipe or a device";
  if (found) {
    close(*fd);
    return status_fail(code, "%s: found %s, expected a regular file", path, found);
  }
  *bytes = (size_t)info.st_size;
  return STATUS_OK;
}

Status readable_map(const char *path, Code code, Mapped *mapped) {
  int fd;
  *mapped = (Mapped){0};
  TRY(readable_open(path, code, &fd, &mapped->bytes));
  void *data = mapped->bytes ? mmap(NULL, mapped->bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
  Status status = data == MAP_FAILED ? readable_failed(path, code) : STATUS_OK;
  close(fd);
  if (status.code == CODE_OK) mapped->data = data;
  return status;
}

void readable_unmap(Mapped *mapped) {
  if (mapped->data) munmap((void *)(uintptr_t)mapped->data, mapped->bytes);
  *mapped = (Mapped){0};
}

Status readable_text(const char *path, size_t most_bytes, const char *what, Code code, char **text) {
  Mapped mapped;
  TRY(readable_map(path, code, &mapped));
  Status status = STATUS_OK;
  if (mapped.bytes > most_bytes)
    status =
        status_fail(code, "%s: not %s: found %zu bytes, expected at most %zu", path, what, mapped.bytes, most_bytes);
  else if (mapped.bytes && memchr(mapped.data, 0, mapped.bytes))
    status = status_fail(code, "%s: not %s: it has zero bytes", path, what);
  if (status.code == CODE_OK) {
    *text = base_alloc(mapped.bytes + 1);
    if (mapped.bytes) memcpy(*text, mapped.data, mapped.bytes);
    (*text)[mapped.bytes] = '\0';
  }
  readable_unmap(&mapped);
  return status;
}
