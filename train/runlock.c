/* runlock: one trainer a run directory, by an advisory lock on <run>/lock, which the system takes back when the holder
 * dies; the file's text says who holds it. */
#include "train/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static Status lock_open_file(const char *path, const char *directory, int fd) {
  if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK)
      return status_fail(CODE_USAGE, "%s: cannot lock: %s; choose an --out on a file system with locks", path,
                         strerror(errno));
    char holder[128];
    ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
    holder[n > 0 ? n : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    return status_fail(CODE_USAGE, "%s: another trainer is at work here (%s); wait for it, or give another --out",
                       directory, *holder ? holder : "it has not said who it is");
  }
  struct stat st;
  if (fstat(fd, &st) == 0 && st.st_nlink == 0)
    return status_fail(CODE_USAGE, "%s: was given up by another trainer this moment; run it again", directory);
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  char *holder = base_format("pid %d on host %s\n", (int)getpid(), host);
  size_t n = strlen(holder);
  bool written = ftruncate(fd, 0) == 0 && pwrite(fd, holder, n, 0) == (ssize_t)n;
  free(holder);
  if (!written) return status_fail(CODE_DATA, "%s: cannot write: %s", path, strerror(errno));
  return STATUS_OK;
}

Status runlock_take(const char *directory, int *lock) {
  char *path = base_format("%s/lock", directory);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  Status status = fd < 0 ? status_fail(CODE_DATA, "%s: cannot write: %s", path, strerror(errno))
                         : lock_open_file(path, directory, fd);
  if (status.code == CODE_OK) *lock = fd;
  else if (fd >= 0) close(fd);
  free(path);
  return status;
}

void runlock_release(int lock) { close(lock); }

void runlock_give_up(const char *directory, int lock) {
  char *path = base_format("%s/lock", directory);
  unlink(path);
  rmdir(directory); /* not where there is anything else */
  free(path);
  close(lock);
}
