/* rundir: temporary run directories for tests, their files, and what is said on stderr. Helpers fail the test. */
#pragma once

/* A fresh empty directory, malloc'ed path. */
char *rundir_make(void);
/* Removes the directory with all it holds, and frees the path. */
void rundir_remove(char *directory);
/* Appends to a file of the directory, making it where it is missing. */
void rundir_append(const char *directory, const char *file, const char *text);
/* The whole file, malloc'ed. */
char *rundir_read(const char *directory, const char *file);

/* Between begin and end, stderr goes to a file in memory; end gives what was said, malloc'ed. */
typedef struct StderrCapture {
  int saved, file;
} StderrCapture;
StderrCapture stderr_capture_begin(void);
char *stderr_capture_end(StderrCapture capture);
