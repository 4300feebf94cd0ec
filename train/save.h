/* save: a run's checkpoints on their way to the disk.
 *
 * Where rank 0's device has room for a snapshot (plan.h, snapshot.h), a save takes that and returns: a thread writes the file while
 * training goes on, one file at a time. What became of it is known when the next save is due, or the run ends. Elsewhere
 * training waits. Either way the bytes are those of the step that was saved, and a file that is not whole never takes a name that a run
 * is resumed from (tensor/publish.h). */
#pragma once

#include "train/run.h"

/* Collective, once model and log are there. Rank 0 takes the memory for a snapshot; that there is none is told. */
Saver *saver_open(Run *run);
/* Waits for what is being written. NULL: nothing to do. Before the device is closed. */
void saver_close(Saver *saver);
