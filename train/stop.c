/* stop: see stop.h. The handler only touches a sig_atomic_t. */
#include "train/stop.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t requested;

static void on_signal(int number) {
  if (requested && number == SIGINT) _exit(128 + SIGINT);
  requested = number;
}

void stop_install(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  const int numbers[] = {SIGINT, SIGTERM, SIGUSR1};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) sigaction(numbers[i], &action, NULL);
}

int stop_requested(void) { return requested; }

const char *stop_name(int number) {
  switch (number) {
  case SIGINT: return "SIGINT";
  case SIGTERM: return "SIGTERM";
  default: return "SIGUSR1";
  }
}
