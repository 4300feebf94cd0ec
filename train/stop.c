/* stop: see stop.h. A thread waits for the signals; no handler is ever run. oneDNN 2.6's float products keep data below the
 * stack pointer, where a handler's frame would lie: one signal in a thousand then corrupted the heap (a timer's at 3 kHz every
 * run within seconds; on a stack of its own none). */
#include "train/stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static _Atomic int requested, saves;

static void signals(sigset_t *set) {
  sigemptyset(set);
  sigaddset(set, SIGINT);
  sigaddset(set, SIGTERM);
  sigaddset(set, SIGUSR1);
}

/* As if nobody had asked for it. */
static void die_of(int number) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, number);
  signal(number, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &one, NULL);
  raise(number);
}

static void *wait_for_signals(void *unused) {
  sigset_t set;
  signals(&set);
  for (int number; sigwait(&set, &number) == 0;) {
    if (!atomic_load(&saves)) die_of(number);
    if (atomic_load(&requested) && number == SIGINT) _exit(128 + SIGINT);
    atomic_store(&requested, number);
  }
  return unused;
}

void stop_install(void) {
  sigset_t set;
  signals(&set);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  pthread_t thread;
  const int failed = pthread_create(&thread, NULL, wait_for_signals, NULL);
  CHECK(!failed, "no thread for signals: %s", strerror(failed));
  pthread_detach(thread);
}

void stop_saves(void) { atomic_store(&saves, 1); }

int stop_requested(void) { return atomic_load(&requested); }

const char *stop_name(int number) {
  switch (number) {
  case SIGINT: return "SIGINT";
  case SIGTERM: return "SIGTERM";
  default: return "SIGUSR1";
  }
}
