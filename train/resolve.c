/* resolve: see resolve.h. */
#include "train/resolve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "models/aspis.h"

Status resolve_checkpoint(const char *path, Checkpoint **checkpoint, char **passed_over) {
  struct stat info;
  *checkpoint = NULL, *passed_over = NULL;
  if (stat(path, &info) != 0)
    return status_fail(CODE_CHECKPOINT, "%s: %s; expected a run directory, a weights directory or a checkpoint .h5",
                       path, strerror(errno));
  if (!S_ISDIR(info.st_mode)) return checkpoint_open(path, checkpoint);
  if (weights_directory(path)) return STATUS_OK;
  TRY(checkpoint_open_last(path, checkpoint, passed_over));
  if (*checkpoint) return STATUS_OK;
  return status_fail(CODE_CHECKPOINT,
                     "%s: found neither checkpoints/step-*.h5 nor model.safetensors (or pytorch_model.bin), expected "
                     "a run directory, a weights directory or a checkpoint .h5",
                     path);
}

void resolve_warn(const char *passed_over) {
  if (passed_over) fprintf(stderr, "aspis: passed over: %s\n", passed_over);
}
