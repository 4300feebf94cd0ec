/* thread: see thread.h. */
#include "train/thread.h"

#include <signal.h>
#include <string.h>

#include "tensor/base.h"

pthread_t thread_start(void *(*run)(void *user), void *user, const char *purpose) {
  pthread_t thread;
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  const int failed = pthread_create(&thread, NULL, run, user);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  CHECK(!failed, "no thread for %s: %s", purpose, strerror(failed));
  return thread;
}
