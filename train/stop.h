/* stop: INT, TERM and USR1 ask the run to save at the step's end and exit 75; a second INT quits at once (exit 130). */
#pragma once

#include "tensor/base.h"

/* Takes the signals. Before any thread is made, since threads inherit that they are not interrupted. */
void stop_install(void);
/* From here on they ask; until then they kill, as they do by themselves. */
void stop_saves(void);
/* The signal's number once one has come, else 0. */
int stop_requested(void);
const char *stop_name(int number);
