/* files: see files.h. Names are compared as bytes, so the order does not depend on the locale. */
#include "data/files.h"

#include <errno.h>
#include <fts.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/readable.h"

static Status read_all(int fd, const char *path, size_t expected_bytes, SourceText *source) {
  size_t capacity = source->bytes + expected_bytes + 1; /* one more: the read that finds the end needs room to ask */
  source->text = base_realloc(source->text, capacity);
  for (;;) {
    if (source->bytes == capacity) source->text = base_realloc(source->text, capacity += capacity / 2);
    ssize_t n = read(fd, source->text + source->bytes, capacity - source->bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return readable_failed(path, CODE_DATA);
    if (n == 0) return STATUS_OK;
    source->bytes += (size_t)n;
  }
}

static Status add_file(const char *path, SourceText *source) {
  int fd;
  size_t bytes;
  TRY(readable_open(path, CODE_DATA, &fd, &bytes));
  size_t begin = source->bytes;
  Status status = STATUS_OK;
  if (source->names_only) source->bytes += bytes;
  else status = read_all(fd, path, bytes, source);
  close(fd);
  TRY(status);
  source->file = base_realloc(source->file, sizeof *source->file * (size_t)(source->n_files + 1));
  source->file[source->n_files++] = (SourceFile){base_strdup(path), begin, source->bytes};
  return STATUS_OK;
}

static int by_name(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

static Status add_walk(FTS *walk, SourceText *source) {
  for (;;) {
    errno = 0;
    FTSENT *entry = fts_read(walk);
    if (!entry) return errno ? status_fail(CODE_DATA, "fts_read: %s", strerror(errno)) : STATUS_OK;
    switch (entry->fts_info) {
    case FTS_F: TRY(add_file(entry->fts_accpath, source)); break;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
    case FTS_SLNONE:
      errno = entry->fts_info == FTS_SLNONE ? ENOENT : entry->fts_errno;
      return readable_failed(entry->fts_path, CODE_DATA);
    case FTS_DC:
      return status_fail(CODE_DATA, "%s: a symbolic link back to a folder above it; remove it", entry->fts_path);
    default: break; /* folders on the way down and up, pipes, sockets, devices */
    }
  }
}

static Status add_folder(const char *path, SourceText *source) {
  size_t before = source->bytes;
  char *roots[] = {(char *)path, NULL}; /* fts does not write to it */
  FTS *walk = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
  if (!walk) return readable_failed(path, CODE_DATA);
  Status status = add_walk(walk, source);
  fts_close(walk);
  TRY(status);
  if (source->bytes == before)
    return status_fail(CODE_DATA, "%s: no text in this folder or below; put files there or name others", path);
  return STATUS_OK;
}

static Status add_named(const char *path, SourceText *source) {
  struct stat info;
  if (stat(path, &info) != 0) return readable_failed(path, CODE_DATA);
  if (S_ISDIR(info.st_mode)) return add_folder(path, source);
  size_t before = source->bytes;
  TRY(add_file(path, source));
  if (source->bytes == before) return status_fail(CODE_DATA, "%s: the file is empty; fill it or leave it out", path);
  return STATUS_OK;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static Status add_glob(const char *pattern, SourceText *source) {
  glob_t found = {0};
  int rc = glob(pattern, GLOB_ERR | GLOB_NOSORT, NULL, &found);
  Status status = STATUS_OK;
  if (rc == 0) {
    qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, by_bytes);
    for (size_t i = 0; i < found.gl_pathc && status.code == CODE_OK; i++) status = add_named(found.gl_pathv[i], source);
  } else if (rc == GLOB_NOMATCH) {
    status = status_fail(CODE_DATA, "%s: no file matches this pattern", pattern);
  } else {
    status = status_fail(CODE_DATA, "%s: a folder on the way cannot be read; check its permissions", pattern);
  }
  globfree(&found);
  return status;
}

static Status add_path(const char *path, SourceText *source) {
  /* A name that exists is meant literally, brackets and stars included. */
  struct stat info;
  bool is_pattern = stat(path, &info) != 0 && errno == ENOENT && strpbrk(path, "*?[");
  return is_pattern ? add_glob(path, source) : add_named(path, source);
}

static Status gather(char *const *paths, int n_paths, SourceText *source) {
  if (n_paths == 0) return status_fail(CODE_USAGE, "data.path: found nothing, expected files, folders or globs");
  for (int i = 0; i < n_paths; i++) TRY_OR(add_path(paths[i], source), files_free(source));
  return STATUS_OK;
}

Status files_read(char *const *paths, int n_paths, SourceText *source) {
  *source = (SourceText){0};
  return gather(paths, n_paths, source);
}

Status files_list(char *const *paths, int n_paths, SourceText *source) {
  *source = (SourceText){.names_only = true};
  return gather(paths, n_paths, source);
}

void files_free(SourceText *source) {
  for (int i = 0; i < source->n_files; i++) free(source->file[i].path);
  free(source->file);
  free(source->text);
  *source = (SourceText){0};
}
