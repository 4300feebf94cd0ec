/* publish: a file appears whole or not at all.
 *
 * It is written beside its place as `<final>.tmp-<pid>`, then: fsync of the file, rename, fsync of the directory. Killed
 * at any moment, the old file or the new one is there, never a part of one. Temp files of dead processes are removed by
 * the next writer in that directory. (ALICE, OSDI 2014: rename without these syncs loses data on some file systems.) */
#pragma once

#include "tensor/base.h"

typedef struct Publish {
  char *path, *temp; /* NULL when idle */
  Code code;         /* of failures */
} Publish;

/* Names the temp file (nothing is opened), having removed stale ones and checked that the directory exists, can be
 * written and has expected_bytes * 1.1 free, and that the path names no folder, device or pipe. A symbolic link stays, and
 * the file behind it is replaced. SIGXFSZ is ignored from here on, so that a file-size limit is an error and
 * not the end of the process. Errors carry `code`. */
Status publish_begin(Publish *publish, const char *path, int64_t expected_bytes, Code code);
/* fsync, rename, fsync of the directory. On failure the temp file is removed and the old file untouched. */
Status publish_commit(Publish *publish);
/* Removes the temp file. Harmless when idle. */
void publish_abandon(Publish *publish);
/* Whether a file could be written there now, to be asked before long work: a temp file is made and removed. */
Status publish_check(const char *path, Code code);
/* The same of files in a folder, which need not be there yet, but the folder that is to hold it. */
Status publish_check_folder(const char *path, Code code);

typedef struct PublishPiece {
  const void *data;
  size_t bytes;
} PublishPiece;

/* Writes the pieces one after another into the temp file and commits; on failure everything is as before. */
Status publish_write(Publish *publish, const PublishPiece *pieces, int n_pieces);
/* begin and write of one piece: `bytes` bytes of `data` as a file. */
Status publish_bytes(const char *path, const void *data, size_t bytes, Code code);
