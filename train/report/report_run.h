/* report_run: what a run directory tells the report: its metrics as columns, its state, config and samples. */
#pragma once

#include "train/format.h"

/* One named metric, in the order of the lines that have it. A non-finite value is NaN. */
typedef struct Column {
  char *name;
  double *step, *tokens, *value;
  int64_t n, capacity;
} Column;

typedef struct RunData {
  char *path, *name; /* the directory as given, and its last part */
  Column *columns;
  int n_columns;
  int64_t n_lines, n_damaged, n_nonfinite; /* lines read, skipped, and with a number that was not finite */
  double last_step, last_tokens;
  double *resumes; /* steps at which sessions took up again */
  int n_resumes;
  char *state, *reason, *command; /* of status.json; NULL: not known */
  char *config;                   /* the text of config.yaml, NULL: none */
  char config_hash[17];           /* XXH3-64 of it in hexadecimal, "" without config */
  char **samples;                 /* file names under samples/, in order */
  int n_samples;
} RunData;

/* CODE_DATA when the directory or its metrics are missing, or no line can be read. *run is freed in any case. */
Status rundata_load(const char *path, RunData *run);
void rundata_free(RunData *run);
/* NULL when no line has it. */
const Column *rundata_column(const RunData *run, const char *name);
/* True of a forecaster's run: its tokens are rows of windows, its losses no nats. */
bool rundata_is_forecast(const RunData *run);
/* The last finite value, NaN without one. */
double rundata_last(const RunData *run, const char *name);
/* Tokens seen at the last logged step not after `step`; 0 when there is none. */
double rundata_tokens_at(const RunData *run, double step);
