/* configs: what the tests of train/config share. Helpers fail the test. */
#pragma once

#include "train/config/config.h"

#define N_OF(array) ((int)(sizeof(array) / sizeof *(array)))

/* Files that config_load refuses with CODE_USAGE and exactly this message. */
typedef struct RefusedFile {
  const char *path, *message;
} RefusedFile;
void assert_files_refused(const RefusedFile *files, int n);
