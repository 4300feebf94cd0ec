/* rundir: see rundir.h. */
#include "tests/support/rundir.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "train/format.h"

char *rundir_make(void) {
  const char *root = getenv("TMPDIR");
  char *path = base_format("%s/aspis-test-XXXXXX", root && *root ? root : "/tmp");
  cr_assert_not_null(mkdtemp(path), "a temporary directory %s", path);
  return path;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where) {
  (void)info, (void)kind, (void)where;
  return remove(path);
}

void rundir_remove(char *directory) {
  cr_assert_eq(nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0, "%s is removed", directory);
  free(directory);
}

void rundir_append(const char *directory, const char *file, const char *text) {
  char *path = base_format("%s/%s", directory, file);
  FILE *stream = fopen(path, "a");
  cr_assert_not_null(stream, "%s opens", path);
  cr_assert_geq(fputs(text, stream), 0, "%s takes text", path);
  cr_assert_eq(fclose(stream), 0, "%s closes", path);
  free(path);
}

char *rundir_read(const char *directory, const char *file) {
  char *path = base_format("%s/%s", directory, file);
  StrBuf text = {0};
  strbuf_puts(&text, "");
  Status status = strbuf_load(&text, path);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line ? status.line : path);
  free(path);
  return text.data;
}

StderrCapture stderr_capture_begin(void) {
  fflush(stderr);
  StderrCapture capture = {dup(STDERR_FILENO), memfd_create("stderr", MFD_CLOEXEC)};
  cr_assert(capture.saved >= 0 && capture.file >= 0 && dup2(capture.file, STDERR_FILENO) >= 0, "stderr is captured");
  return capture;
}

char *stderr_capture_end(StderrCapture capture) {
  fflush(stderr);
  char said[1 << 16];
  ssize_t n = pread(capture.file, said, sizeof said - 1, 0);
  bool restored = dup2(capture.saved, STDERR_FILENO) >= 0;
  close(capture.saved);
  close(capture.file);
  cr_assert(n >= 0 && restored, "stderr is given back");
  said[n] = '\0';
  return base_strdup(said);
}
