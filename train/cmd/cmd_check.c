/* aspis check [CONFIG] [--golden DIR]: is what this build computes on this device right?
 * Of a config: its gradients. Of golden files: everything in them. One line a case on stdout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/check/check_config.h"
#include "train/check/golden.h"
#include "train/cmd/command.h"

/* What the lines said. */
typedef struct Tally {
  int n_cases, n_failed;
  char *failed; /* names of the first few, for the closing line */
} Tally;

enum { MAX_NAMED = 5 };

static void tally_add(Tally *tally, const char *name, bool ok) {
  tally->n_cases++;
  if (ok) return;
  if (tally->n_failed++ >= MAX_NAMED) return;
  char *longer = base_format("%s%s%s", tally->failed ? tally->failed : "", tally->failed ? ", " : "", name);
  free(tally->failed);
  tally->failed = longer;
}

static void print_line(Tally *tally, const char *name, double error, double tolerance, bool ok, const char *detail) {
  printf("%-44s %9.2e %9.0e  %-4s  %s\n", name, error, tolerance, ok ? "ok" : "FAIL", detail);
  fflush(stdout);
  tally_add(tally, name, ok);
}

/* ---- golden files */

static Status check_golden_files(Device *device, Dtype dtype, double tolerance, char **paths, int n, Tally *tally) {
  Status first = STATUS_OK;
  for (int i = 0; i < n; i++) {
    const char *slash = strrchr(paths[i], '/');
    char *name = base_strdup(slash + 1);
    char *suffix = strstr(name, ".h5");
    if (suffix) *suffix = '\0';
    GoldenResult result;
    Status status = golden_check(device, dtype, tolerance, paths[i], &result);
    if (status.code == CODE_OK) {
      print_line(tally, name, result.error, result.tolerance, result.ok, result.where);
    } else {
      printf("%-44s %9s %9s  FAIL  cannot be read\n", name, "-", "-");
      tally_add(tally, name, false);
      if (first.code == CODE_OK) first = status;
      else status_clear(&status);
    }
    free(name);
  }
  return first;
}

static Status check_golden(const Command *command, Dtype dtype, double tolerance, Tally *tally) {
  char **paths;
  int n;
  TRY(golden_list(command_text(command, "golden", NULL), &paths, &n));
  Device device;
  Status status =
      device_open(&device, command_text(command, "device", "auto"), dtype == F64 ? F64 : F32, DEVICE_SIZES_ROOMY);
  if (status.code == CODE_OK) {
    status = check_golden_files(&device, dtype, tolerance, paths, n, tally);
    device_close(&device);
  }
  golden_list_free(paths, n);
  return status;
}

/* ---- a config's gradients */

static void print_report(const GradientReport *report, Dtype dtype, Tally *tally) {
  for (int i = 0; i < report->n_groups; i++) {
    const GradientGroup *group = &report->groups[i];
    char detail[96] = "";
    /* The column holds the comparison that uses more of its tolerance; the other one follows. */
    const double by_difference = group->difference_error / report->difference_tolerance;
    const bool dtype_first = dtype != F64 && !(group->dtype_error / report->dtype_tolerance < by_difference);
    if (dtype_first)
      snprintf(detail, sizeof detail, "%s against f64; f64 against differences %.0e", dtype_name(dtype),
               group->difference_error);
    else if (dtype != F64)
      snprintf(detail, sizeof detail, "f64 against differences; %s against f64 %.0e", dtype_name(dtype),
               group->dtype_error);
    else snprintf(detail, sizeof detail, "f64 against differences");
    print_line(tally, group->name, dtype_first ? group->dtype_error : group->difference_error,
               dtype_first ? report->dtype_tolerance : report->difference_tolerance, gradient_group_ok(report, group),
               detail);
  }
}

static Status check_gradients(const Command *command, int dtype_option, double tolerance, Tally *tally) {
  const char **sets;
  int n_sets = command_all(command, "set", &sets);
  Config config = {0};
  Status status = config_load(command->args[0], sets, n_sets, &config);
  free(sets);
  if (status.code == CODE_OK) {
    config_fit_any(&config);
    const Dtype dtype = dtype_option >= 0 ? (Dtype)dtype_option : config.dtype;
    GradientReport report;
    status = check_config(&config, command_text(command, "device", config.device), dtype, tolerance, &report);
    if (status.code == CODE_OK) print_report(&report, dtype, tally);
    gradient_report_free(&report);
  }
  config_free(&config);
  return status;
}

static Status tally_status(const Tally *tally) {
  if (tally->n_failed == 0) return STATUS_OK;
  return status_fail(CODE_CHECK_FAILED, "%d of %d cases out of tolerance: %s%s", tally->n_failed, tally->n_cases,
                     tally->failed, tally->n_failed > MAX_NAMED ? ", ..." : "");
}

static Status cmd_check(const Command *command) {
  static const char *const DTYPE_NAMES[] = {"f32", "f64", "bf16", NULL};
  static const Dtype DTYPES[] = {F32, F64, BF16};
  const bool golden = command_has(command, "golden"), gradients = command->n_args > 0;
  if (!golden && !gradients) return status_fail(CODE_USAGE, "check: expected a CONFIG, --golden DIR, or both");
  int choice = 0;
  double tolerance = 0;
  TRY(command_choice(command, "dtype", DTYPE_NAMES, &choice));
  TRY(command_real(command, "tolerance", 0, 1, &tolerance));
  const int dtype = command_has(command, "dtype") ? (int)DTYPES[choice] : -1;

  Tally tally = {0};
  Status status = STATUS_OK;
  if (golden) status = check_golden(command, DTYPES[choice], tolerance, &tally);
  if (status.code == CODE_OK && gradients) status = check_gradients(command, dtype, tolerance, &tally);
  if (status.code == CODE_OK) status = tally_status(&tally);
  free(tally.failed);
  return status;
}

const CommandSpec command_check = {
    .name = "check",
    .summary = "hold a config's gradients, or golden files, to what is right",
    .usage = "check [CONFIG] [options]",
    .examples = {"aspis check configs/quickstart.yaml", "aspis check --golden tests/golden",
                 "aspis check --golden tests/golden --dtype f64"},
    .options =
        (const OptionSpec[]){
            {"golden", "DIR", "check every golden case in DIR: mixer_*.h5, forecaster_*.h5, lm_*/", false},
            {"device", "auto|cpu|cuda", "where to compute (default: the config's, or auto)", false},
            {"dtype", "f32|f64|bf16", "type to compute in (default: the config's, or f32); f64 is for checks only",
             false},
            {"tolerance", "X", "one tolerance instead of the type's own", false},
            OPTION_SET,
            {0}},
    .args = "CONFIG",
    .min_args = 0,
    .max_args = 1,
    .run = cmd_check,
};
