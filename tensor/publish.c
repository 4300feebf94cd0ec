/* publish: see publish.h. */
#include "tensor/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define TEMP_MARK ".tmp-"

/* The folder of a path, malloc'ed. */
static char *folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return base_strdup(".");
  if (slash == path) return base_strdup("/");
  return base_format("%.*s", (int)(slash - path), path);
}

/* True for "<anything>.tmp-<pid>" where no such process runs. */
static bool is_stale_temp(const char *name) {
  const char *mark = NULL;
  for (const char *at = name; (at = strstr(at, TEMP_MARK)); at++) mark = at;
  if (!mark || mark == name) return false;
  const char *digits = mark + strlen(TEMP_MARK);
  if (!*digits || strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 9) return false;
  pid_t pid = (pid_t)atol(digits);
  return pid > 0 && kill(pid, 0) != 0 && errno == ESRCH;
}

static void remove_stale_temps(const char *folder) {
  DIR *dir = opendir(folder);
  if (!dir) return;
  for (struct dirent *entry; (entry = readdir(dir));)
    if (is_stale_temp(entry->d_name)) unlinkat(dirfd(dir), entry->d_name, 0);
  closedir(dir);
}

static Status folder_check(const char *folder, const char *path, int64_t expected_bytes, Code code) {
  struct statvfs disk;
  char *inside = base_format("%s/.", folder); /* what is no folder has none */
  const int failed = statvfs(inside, &disk);
  free(inside);
  if (failed) return status_fail(code, "%s: cannot write: folder %s: %s", path, folder, strerror(errno));
  if (access(folder, W_OK | X_OK) != 0)
    return status_fail(code, "%s: cannot write into %s: %s", path, folder, strerror(errno));
  double need = 1.1 * (double)expected_bytes, have = (double)disk.f_bavail * (double)disk.f_frsize;
  if (need > have)
    return status_fail(code, "%s: not enough space: found %.0f bytes free in %s, expected %.0f", path, have, folder,
                       need);
  return STATUS_OK;
}

/* Where a path leads through symbolic links, malloc'ed: rename would put a file in the place of a link, and of
 * /dev/stdout in that of the device. */
static char *behind_links(const char *path) {
  struct stat info;
  char *real = lstat(path, &info) == 0 && S_ISLNK(info.st_mode) ? realpath(path, NULL) : NULL;
  return real ? real : base_strdup(path);
}

/* Nothing is there yet, or a file that may be replaced. */
static Status place_check(const char *path, Code code) {
  struct stat info;
  if (stat(path, &info) != 0 || S_ISREG(info.st_mode)) return STATUS_OK;
  return status_fail(code, "%s: cannot write: found %s, expected a new file or one to replace", path,
                     S_ISDIR(info.st_mode) ? "a folder" : "a device or a pipe");
}

Status publish_begin(Publish *publish, const char *path, int64_t expected_bytes, Code code) {
  struct sigaction action;
  if (sigaction(SIGXFSZ, NULL, &action) == 0 && action.sa_handler == SIG_DFL) signal(SIGXFSZ, SIG_IGN);
  TRY(place_check(path, code));
  char *place = behind_links(path), *folder = folder_of(place);
  remove_stale_temps(folder);
  TRY_OR(folder_check(folder, path, expected_bytes, code), (free(folder), free(place)));
  free(folder);
  *publish = (Publish){place, base_format("%s" TEMP_MARK "%ld", place, (long)getpid()), code};
  return STATUS_OK;
}

static void publish_clear(Publish *publish) {
  free(publish->path);
  free(publish->temp);
  *publish = (Publish){0};
}

void publish_abandon(Publish *publish) {
  if (!publish->path) return;
  unlink(publish->temp);
  publish_clear(publish);
}

/* fsync of a file or folder by name: "" or what failed. */
static const char *sync_path(const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC);
  if (fd < 0) return "open";
  int failed = fsync(fd), error = errno;
  close(fd);
  errno = error;
  return failed ? "fsync" : "";
}

Status publish_commit(Publish *publish) {
  const char *failed = sync_path(publish->temp, O_RDONLY);
  if (!*failed && rename(publish->temp, publish->path) != 0) failed = "rename";
  if (!*failed) {
    char *folder = folder_of(publish->path);
    failed = sync_path(folder, O_RDONLY | O_DIRECTORY);
    free(folder);
  }
  Status status = STATUS_OK;
  if (*failed) status = status_fail(publish->code, "%s: cannot save: %s: %s", publish->path, failed, strerror(errno));
  publish_abandon(publish);
  return status;
}

Status publish_check(const char *path, Code code) {
  Publish publish = {0};
  TRY(publish_begin(&publish, path, 0, code));
  const int fd = open(publish.temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  Status status = fd < 0 ? status_fail(code, "%s: cannot write: %s", path, strerror(errno)) : STATUS_OK;
  if (fd >= 0) close(fd);
  publish_abandon(&publish);
  return status;
}

Status publish_check_folder(const char *path, Code code) {
  struct stat info;
  const bool there = stat(path, &info) == 0;
  if (there && !S_ISDIR(info.st_mode))
    return status_fail(code, "%s: cannot write: found a file, expected a folder or nothing", path);
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') n--;
  char *inside = base_format(there ? "%.*s/probe" : "%.*s", (int)n, path);
  Status status = publish_check(inside, code);
  free(inside);
  return status;
}

static int write_all(int fd, const char *data, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = write(fd, data, bytes < (1u << 30) ? bytes : 1u << 30);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -1;
    data += n, bytes -= (size_t)n;
  }
  return 0;
}

Status publish_write(Publish *publish, const PublishPiece *pieces, int n_pieces) {
  int fd = open(publish->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  int failed = fd < 0;
  for (int i = 0; i < n_pieces && !failed; i++) failed = write_all(fd, pieces[i].data, pieces[i].bytes) != 0;
  int error = errno;
  if (fd >= 0 && close(fd) != 0 && !failed) failed = 1, error = errno;
  if (!failed) return publish_commit(publish);
  Status status = status_fail(publish->code, "%s: cannot write: %s", publish->path, strerror(error));
  publish_abandon(publish);
  return status;
}

Status publish_bytes(const char *path, const void *data, size_t bytes, Code code) {
  Publish publish = {0};
  TRY(publish_begin(&publish, path, (int64_t)bytes, code));
  return publish_write(&publish, &(PublishPiece){data, bytes}, 1);
}
