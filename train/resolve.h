/* resolve: what a path that names a model means: a checkpoint, the last one of a run directory, or a weights directory. */
#pragma once

#include "train/checkpoint.h"

/* The checkpoint that `path` means, to be closed; NULL: it is a weights directory. *passed_over: as checkpoint_open_last's
 * message. What is none of these, or cannot be read, is CODE_CHECKPOINT. */
Status resolve_checkpoint(const char *path, Checkpoint **checkpoint, char **passed_over);
/* Says on stderr what was passed over, unless that is nothing (NULL): for commands; the library prints nothing. */
void resolve_warn(const char *passed_over);
