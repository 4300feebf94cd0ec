/* watch: notices a rank that died, hangs or stands still, and ends the run within seconds with one message.
 *
 * A thread of each rank keeps a TCP connection to rank 0's: not the library's that carries the gradients, which says
 * nothing of a peer that it waits for. A rank tells its step and phase whenever they change, and that it lives several
 * times within train.watchdog seconds; rank 0 answers. A closed connection is a death, silence for train.watchdog a hang
 * (a stopped process, a host without power), a phase that lasts train.stall seconds on every rank a stand-still. A slow
 * rank beats, and so is left alone. Who notices tells it and ends its process; rank 0 sends everyone home. */
#pragma once

#include "train/dist/dist.h"
#include "train/fault.h"

typedef struct Watch Watch;

/* Collective. With one rank, or watchdog_seconds 0, *watch is NULL, which every call takes. */
Status watch_open(Dist *dist, double watchdog_seconds, double stall_seconds, Watch **watch);
/* This rank is in `phase` of `step` now. */
void watch_phase(Watch *watch, int64_t step, Phase phase);
/* Collective: nobody watches any more. */
void watch_close(Watch *watch);
