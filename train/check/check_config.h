/* check_config: the gradients of one config's model, checked where it will run.
 *
 * Two comparisons on random tokens (or series): the double definition's gradients against differences of its loss, and the
 * gradients of the device and type that training would use against the double ones, entry by entry, on the same values. */
#pragma once

#include "train/config/config.h"

/* One kind of parameter, over all layers: "backbone.layers.*.mixer.dt_bias". */
typedef struct GradientGroup {
  char name[PARAM_NAME_BYTES];
  int n_tensors;
  double difference_error; /* double gradients against differences */
  double dtype_error;      /* the dtype's against the double ones; 0 when dtype is F64 */
} GradientGroup;

typedef struct GradientReport {
  GradientGroup *groups; /* in the order of the parameter table */
  int n_groups;
  double difference_tolerance, dtype_tolerance;
} GradientReport;

/* dtype: F32, BF16, or F64 for the first comparison alone. tolerance: of the second (F64: of the first); 0: the dtype's
 * own. Being out of tolerance is not an error; a device or memory that is not there is. */
Status check_config(const Config *config, const char *device, Dtype dtype, double tolerance, GradientReport *report);
bool gradient_group_ok(const GradientReport *report, const GradientGroup *group);
void gradient_report_free(GradientReport *report);
