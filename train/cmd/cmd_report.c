/* aspis report RUN...: writes report.html and prints its path. */
#include <stdio.h>
#include <stdlib.h>

#include "train/cmd/command.h"
#include "train/report/report.h"

static Status cmd_report(const Command *command) {
  char *path;
  TRY(command_check_output(command, "out"));
  TRY(report_write(&(ReportOptions){.runs = command->args,
                                    .n_runs = command->n_args,
                                    .out = command_text(command, "out", NULL),
                                    .version = ASPIS_VERSION},
                   &path));
  printf("%s\n", path);
  free(path);
  return STATUS_OK;
}

const CommandSpec command_report = {
    .name = "report",
    .summary = "draw one run, or several overlaid, as a self-contained HTML page",
    .usage = "report RUN... [--out FILE]",
    .examples = {"aspis report runs/quickstart", "aspis report runs/mamba3 runs/mamba2 --out compare.html"},
    .options =
        (const OptionSpec[]){{"out", "FILE", "where the page goes (default: report.html in the first run)", false},
                             {0}},
    .args = "RUN...",
    .min_args = 1,
    .max_args = -1,
    .run = cmd_report,
};
