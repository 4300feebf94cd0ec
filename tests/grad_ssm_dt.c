/* Gradient check of ssm_dt: both models, both sides of every clamp. */
#include "tests/support/gradcheck.h"

#include <math.h>
#include <stdio.h>

enum Input { DT_RAW, DT_BIAS, A_LOG, A_RAW, TRAP, N_INPUTS };

static int build(Tape *tape, Tensor **inputs, const void *options, Tensor **outputs) {
  SsmDt in = *(const SsmDt *)options; /* the options alone */
  in.dt_raw = inputs[DT_RAW], in.dt_bias = inputs[DT_BIAS], in.A_log = inputs[A_LOG];
  in.A_raw = inputs[A_RAW], in.trap = inputs[TRAP];
  SsmDt out = op_ssm_dt(tape, in);
  outputs[0] = out.dt, outputs[1] = out.a, outputs[2] = out.lambda;
  return out.lambda ? 3 : 2;
}

enum { N_H = 3 };

static void run(const char *what, SsmDt options, bool mamba3, int64_t n_t, Tensor *dt_raw, Tensor *A_raw) {
  const int64_t rows[] = {n_t, N_H}, heads[] = {N_H};
  Tensor *inputs[N_INPUTS] = {[DT_RAW] = dt_raw ? dt_raw : gradcheck_randn(2, rows, 0, 1, 1),
                              [DT_BIAS] = gradcheck_randn(1, heads, -1, 0.5, 2)};
  if (mamba3) {
    inputs[A_RAW] = A_raw ? A_raw : gradcheck_randn(2, rows, 0, 2, 3);
    inputs[TRAP] = gradcheck_randn(2, rows, 0, 2, 4);
  } else {
    inputs[A_LOG] = gradcheck_randn(1, heads, 0, 1, 5);
  }
  GradCase c = {.build = build,
                .options = &options,
                .inputs = inputs,
                .n_inputs = N_INPUTS,
                .acts = 1u << DT_RAW | 1u << A_RAW | 1u << TRAP};
  snprintf(c.name, sizeof c.name, "ssm_dt %s, %lld tokens", what, (long long)n_t);
  gradcheck_run(&c);
}

/* values one after another over n_t rows of N_H */
static Tensor *filled(int64_t n_t, const double *values, int n_values) {
  Tensor *t = gradcheck_randn(2, (const int64_t[]){n_t, N_H}, 0, 1, 6);
  for (int64_t i = 0; i < tensor_count(t); i++) tensor_set(t, i, values[i % n_values]);
  return t;
}

void gradcheck_ssm_dt(void) {
  static const int64_t LENGTHS[] = {1, 5, 41}; /* 41: more tokens than blocks of a sum */
  for (int i = 0; i < 3; i++) {
    int64_t n_t = LENGTHS[i];
    run("Mamba-2", (SsmDt){.dt_min = 0, .dt_max = INFINITY}, false, n_t, NULL, NULL);
    run("Mamba-3 heavy tail", (SsmDt){.A_floor = 1e-4}, true, n_t, NULL, NULL);
    run("Mamba-3 softplus", (SsmDt){.A_floor = 1e-4, .A_softplus = true}, true, n_t, NULL, NULL);
  }
  /* dt_bias is below 1 in size here, so that these lie below, between and above the limits, and above softplus' switch */
  static const double DT_RAW_VALUES[] = {-4, 0.75, 6, 25, 1.25, -7, 19};
  run("Mamba-2 dt_limit", (SsmDt){.dt_min = 0.2, .dt_max = 1.5}, false, 8, filled(8, DT_RAW_VALUES, 7), NULL);
  run("Mamba-2 above the switch", (SsmDt){.dt_max = INFINITY}, false, 8, filled(8, DT_RAW_VALUES, 7), NULL);
  /* heavy tail: f = 1/(1-u) is below 0.2 for u < -4; softplus for u < -1.51 */
  static const double A_RAW_VALUES[] = {-9, -4.5, -3.5, -1.6, -1.4, -0.01, 0.01, 2, 21};
  run("Mamba-3 heavy tail on the floor", (SsmDt){.A_floor = 0.2}, true, 9, NULL, filled(9, A_RAW_VALUES, 9));
  run("Mamba-3 softplus on the floor", (SsmDt){.A_floor = 0.2, .A_softplus = true}, true, 9, NULL,
      filled(9, A_RAW_VALUES, 9));
}
