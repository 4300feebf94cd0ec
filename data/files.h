/* files: paths from a config -> the bytes behind them, read fully and put end to end. */
#pragma once

#include "tensor/base.h"

typedef struct SourceFile {
  char *path;
  size_t begin, end; /* its bytes in SourceText.text */
} SourceFile;

typedef struct SourceText {
  char *text; /* not NUL-terminated */
  size_t bytes;
  SourceFile *file;
  int n_files;
  bool names_only; /* begin and end are there, the text is not */
} SourceText;

/* Each path is a file, a folder (every regular file below it, sorted by name, folders in their place) or a glob pattern
 * (its matches sorted by name). Order: as given. What is missing, unreadable, empty or not a regular file is CODE_DATA;
 * an empty or special file below a folder is passed over. On failure nothing is left to free. */
Status files_read(char *const *paths, int n_paths, SourceText *source);
/* The same without reading what is in the files. */
Status files_list(char *const *paths, int n_paths, SourceText *source);
void files_free(SourceText *source);
