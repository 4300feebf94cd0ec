/* thread: a thread that works beside the main one and gets no signals: those are the main thread's. */
#pragma once

#include <pthread.h>

/* Runs `run` with `user`, to be joined. `purpose` completes "no thread for ...", should there be none (CHECK). */
pthread_t thread_start(void *(*run)(void *user), void *user, const char *purpose);
