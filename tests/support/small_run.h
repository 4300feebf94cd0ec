/* small_run: whole runs of a small model on a text of random words, one rank, in the working directory. Helpers fail the
 * test. */
#pragma once

#include "train/run.h"

/* The config that runs start from; reads text.txt. */
extern const char SMALL_YAML[];
extern Dist small_run_dist;

enum { TEXT_BYTES = 3000 };
/* The words, also written to text.txt. */
void write_words(char text[TEXT_BYTES]);
/* SMALL_YAML with further keys, NULL-terminated (NULL: none); its text is written first. */
void run_start(Run *run, Config *config, const char *directory, const char *const *sets);
void run_end(Run *run, Config *config);
