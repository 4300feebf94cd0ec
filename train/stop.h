/* stop: INT, TERM and USR1 ask the run to save at the step's end and exit 75; a second INT quits at once (exit 130). */
#pragma once

#include "tensor/base.h"

void stop_install(void);
/* The signal's name ("SIGTERM") once one has come, else NULL. */
const char *stop_requested(void);
