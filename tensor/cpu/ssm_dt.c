/* ssm_dt: the scan's step sizes dt, log-decays a and trapezoid weights lambda, per token and head. The definition of the
 * operation (SsmDt in tensor/kernels.h; specification, sections 2.1 step 3, 2.2 steps 1 and 2).
 *
 * Backward, with s = dt_raw + dt_bias:
 *   ddt += A da, then ds = ddt softplus'(s), nothing where dt sits on a clamp
 *   Mamba-2: A = -exp(A_log), dA_log = sum_t a da
 *   Mamba-3: A = min(-f(A_raw), -A_floor), dA_raw = -f'(A_raw) dt da, nothing on the floor; dtrap = lambda (1 - lambda) dlambda
 * The inputs are read again; nothing is saved. Tokens are cut into blocks, which also carry the parameters' sums. */
#include "tensor/cpu/cpu.h"

enum { N_ROWS = 5 }; /* rows of H a block keeps */

KERNEL_SCRATCH(ssm_dt, SsmDt) {
  (void)backward;
  return (size_t)(sum_blocks(p->dt->dim[0]) * N_ROWS * p->dt->dim[1]) * sizeof(real);
}

/* f of Mamba-3's A = -f(A_raw), and its derivative. */
static real decay_rate(const SsmDt *p, real u) {
  if (p->A_softplus) return real_softplus(u);
  return u >= 0 ? 1 + u : 1 / (1 - u);
}
static real decay_rate_slope(const SsmDt *p, real u) {
  if (p->A_softplus) return real_dsoftplus(u);
  return u >= 0 ? 1 : 1 / ((1 - u) * (1 - u));
}

/* What both passes read of one token: rows of H. */
typedef struct Rows {
  const real *dt_raw, *A_raw, *trap;
  const real *dt_bias, *A_log;
} Rows;
static Rows rows_at(const SsmDt *p, int64_t t, int64_t n_h, real *buffers) {
  return (Rows){.dt_raw = row_load(p->dt_raw, t, n_h, buffers),
                .A_raw = p->A_raw ? row_load(p->A_raw, t, n_h, buffers + n_h) : NULL,
                .trap = p->trap ? row_load(p->trap, t, n_h, buffers + 2 * n_h) : NULL,
                .dt_bias = p->dt_bias->data,
                .A_log = p->A_log ? p->A_log->data : NULL};
}

/* Of one token and head. The slopes are zero where a clamp is active. */
typedef struct Point {
  real dt, dt_slope; /* d dt / d dt_raw */
  real A, A_slope;   /* d A / d A_raw (Mamba-3), d A / d A_log (Mamba-2) */
} Point;
static Point point_at(const SsmDt *p, Rows in, int64_t h) {
  real s = in.dt_raw[h] + in.dt_bias[h];
  Point at = {.dt = real_softplus(s), .dt_slope = real_dsoftplus(s)};
  if (in.A_log) {
    real low = (real)p->dt_min, high = (real)p->dt_max;
    if (at.dt < low || at.dt > high) {
      at.dt = at.dt < low ? low : high;
      at.dt_slope = 0;
    }
    at.A = at.A_slope = -R(exp)(in.A_log[h]);
    return at;
  }
  real rate = decay_rate(p, in.A_raw[h]);
  bool on_floor = rate < (real)p->A_floor;
  at.A = on_floor ? -(real)p->A_floor : -rate;
  at.A_slope = on_floor ? 0 : -decay_rate_slope(p, in.A_raw[h]);
  return at;
}

static real *real_row(const Tensor *t, int64_t row) { return t ? (real *)t->data + row * t->ld : NULL; }

KERNEL_FWD(ssm_dt, SsmDt) {
  int64_t n_t = p->dt->dim[0], n_h = p->dt->dim[1], n_blocks = sum_blocks(n_t);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < n_blocks; b++)
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      Rows in = rows_at(p, t, n_h, (real *)p->scratch + b * N_ROWS * n_h);
      real *dt = real_row(p->dt, t), *a = real_row(p->a, t), *lambda = real_row(p->lambda, t);
      for (int64_t h = 0; h < n_h; h++) {
        Point at = point_at(p, in, h);
        dt[h] = at.dt;
        a[h] = at.A * at.dt;
        if (lambda) lambda[h] = real_sigmoid(in.trap[h]);
      }
    }
}

/* Gradients of one token. The rows that were read turn into gradients in `out`: dt_raw | A_raw | trap. */
static void backward_token(const SsmDt *p, int64_t t, int64_t n_h, real *buffers, real *dt_bias_sum, real *A_log_sum) {
  Rows in = rows_at(p, t, n_h, buffers);
  real *out_dt = buffers, *out_A = buffers + n_h, *out_trap = buffers + 2 * n_h;
  const real *ddt_in = real_row(p->ddt, t), *da_in = real_row(p->da, t), *dlambda_in = real_row(p->dlambda, t);
  for (int64_t h = 0; h < n_h; h++) {
    Point at = point_at(p, in, h);
    real da = da_in ? da_in[h] : 0, ddt = (ddt_in ? ddt_in[h] : 0) + at.A * da, dA = at.dt * da * at.A_slope;
    real sigmoid = in.trap ? real_sigmoid(in.trap[h]) : 0;
    out_dt[h] = ddt * at.dt_slope;
    dt_bias_sum[h] += out_dt[h];
    if (in.A_log) A_log_sum[h] += dA;
    else out_A[h] = dA;
    if (in.trap) out_trap[h] = dlambda_in ? sigmoid * (1 - sigmoid) * dlambda_in[h] : 0;
  }
  if (p->ddt_raw) row_add(p->ddt_raw, t, n_h, out_dt);
  if (p->dA_raw) row_add(p->dA_raw, t, n_h, out_A);
  if (p->dtrap) row_add(p->dtrap, t, n_h, out_trap);
}

KERNEL_BWD(ssm_dt, SsmDt) {
  int64_t n_t = p->dt->dim[0], n_h = p->dt->dim[1], n_blocks = sum_blocks(n_t);
  real *scratch = p->scratch;
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < n_blocks; b++) {
    real *buffers = scratch + b * N_ROWS * n_h, *sums = buffers + 3 * n_h;
    memset(sums, 0, 2 * (size_t)n_h * sizeof(real));
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++)
      backward_token(p, t, n_h, buffers, sums, sums + n_h);
  }
  real *ddt_bias = p->ddt_bias ? p->ddt_bias->data : NULL, *dA_log = p->dA_log ? p->dA_log->data : NULL;
  for (int64_t b = 0; b < n_blocks; b++) {
    const real *sums = scratch + (b * N_ROWS + 3) * n_h;
    for (int64_t h = 0; h < n_h; h++) {
      if (ddt_bias) ddt_bias[h] += sums[h];
      if (dA_log) dA_log[h] += sums[n_h + h];
    }
  }
}
