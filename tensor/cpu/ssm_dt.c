/* ssm_dt: the scan's step sizes dt, log-decays a and trapezoid weights lambda, per token and head. The definition of the
 * operation (SsmDt in tensor/kernels.h; specification, sections 2.1 step 3, 2.2 steps 1 and 2).
 *
 * Backward, with s = dt_raw + dt_bias:
 *   ddt += A da, then ds = ddt softplus'(s), nothing where dt sits on a clamp
 *   Mamba-2: A = -exp(A_log), dA_log = sum_t a da
 *   Mamba-3: A = min(-f(A_raw), -A_floor), dA_raw = -f'(A_raw) dt da, nothing on the floor; dtrap = lambda (1 - lambda) dlambda
 * The inputs are read again; nothing is saved. Tokens are cut into blocks, which also carry the parameters' sums. Heads are
 * few, so that a block goes through PANEL tokens at once as one run of PANEL * H values, with the parameters repeated. */
#include "tensor/cpu/cpu.h"

enum { PANEL = 16, N_RUNS = 6 };

/* What one block works in. */
typedef struct Work {
  real *dt_raw, *A_raw, *trap; /* (PANEL, H): inputs; backward turns them into their gradients */
  real *dt_bias, *A;           /* (PANEL, H): the same in every row; A: Mamba-2 */
  real *zero;                  /* (PANEL, H): for gradients that do not arrive */
  real *sums;                  /* (2, H): the block's share of ddt_bias and dA_log */
} Work;

static int64_t work_reals(int64_t n_h) { return (N_RUNS * PANEL + 2) * n_h; }

KERNEL_SCRATCH(ssm_dt, SsmDt) {
  (void)backward;
  return (size_t)(sum_blocks(p->dt->dim[0]) * work_reals(p->dt->dim[1])) * sizeof(real);
}

static Work work_of_block(const SsmDt *p, int64_t block) {
  const int64_t n_h = p->dt->dim[1];
  real *at = (real *)p->scratch + block * work_reals(n_h);
  Work k;
  real **const runs[N_RUNS] = {&k.dt_raw, &k.A_raw, &k.trap, &k.dt_bias, &k.A, &k.zero};
  for (int i = 0; i < N_RUNS; i++, at += PANEL * n_h) *runs[i] = at;
  k.sums = at;
  return k;
}

static Work work_begin(const SsmDt *p, int64_t block) {
  const Work k = work_of_block(p, block);
  const int64_t n_t = p->dt->dim[0], n_h = p->dt->dim[1];
  const int64_t n_rows = min_i64(PANEL, sum_block_start(n_t, block + 1) - sum_block_start(n_t, block));
  const real *dt_bias = p->dt_bias->data, *A_log = p->A_log ? p->A_log->data : NULL;
  for (int64_t i = 0; i < n_rows * n_h; i++) {
    k.dt_bias[i] = dt_bias[i % n_h];
    k.A[i] = A_log ? -real_exp(A_log[i % n_h]) : 0;
    k.zero[i] = 0;
  }
  memset(k.sums, 0, 2 * (size_t)n_h * sizeof(real));
  return k;
}

/* n_rows rows of a (T, H) from token t on, one behind the other; nothing where there is no tensor. */
static void load_rows(const Tensor *from, int64_t t, int64_t n_rows, int64_t n_h, real *to) {
  for (int64_t r = 0; from && r < n_rows; r++, to += n_h) {
    const real *row = row_load(from, t + r, n_h, to);
    if (row != to) memcpy(to, row, (size_t)n_h * sizeof(real));
  }
}

static void add_rows(Tensor *to, int64_t t, int64_t n_rows, int64_t n_h, const real *from) {
  for (int64_t r = 0; to && r < n_rows; r++) row_add(to, t + r, n_h, from + r * n_h);
}

static void load_panel(const SsmDt *p, const Work *k, int64_t t, int64_t n_rows) {
  const int64_t n_h = p->dt->dim[1];
  load_rows(p->dt_raw, t, n_rows, n_h, k->dt_raw);
  load_rows(p->A_raw, t, n_rows, n_h, k->A_raw);
  load_rows(p->trap, t, n_rows, n_h, k->trap);
}

/* Token t's row of a contiguous (T, H); where that is absent, `instead`. */
static real *row_of(const Tensor *tensor, int64_t t, real *instead) {
  return tensor ? (real *)tensor->data + t * tensor->ld : instead;
}

/* f of Mamba-3's A = -f(A_raw), and its derivative. */
static inline real decay_rate(bool softplus, real u) {
  return softplus ? real_softplus(u) : u >= 0 ? 1 + u : 1 / (1 - u);
}
static inline real decay_rate_slope(bool softplus, real u) {
  const real tail = 1 / (1 - u);
  return softplus ? real_dsoftplus(u) : u >= 0 ? 1 : tail * tail;
}

static void forward2(const SsmDt *p, const Work *k, int64_t n, real *restrict dt, real *restrict a) {
  const real low = (real)p->dt_min, high = (real)p->dt_max, *restrict raw = k->dt_raw, *restrict bias = k->dt_bias;
  const real *restrict A = k->A;
  for (int64_t i = 0; i < n; i++) {
    const real free = real_softplus(raw[i] + bias[i]), clamped = free < low ? low : free > high ? high : free;
    dt[i] = clamped;
    a[i] = A[i] * clamped;
  }
}

static inline void forward3(const SsmDt *p, bool softplus, const Work *k, int64_t n, real *restrict dt,
                            real *restrict a, real *restrict lambda) {
  const real floor = (real)p->A_floor, *restrict raw = k->dt_raw, *restrict bias = k->dt_bias;
  const real *restrict A_raw = k->A_raw, *restrict trap = k->trap;
  for (int64_t i = 0; i < n; i++) {
    const real rate = decay_rate(softplus, A_raw[i]);
    dt[i] = real_softplus(raw[i] + bias[i]);
    a[i] = -(rate < floor ? floor : rate) * dt[i];
    lambda[i] = real_sigmoid(trap[i]);
  }
}

/* All tokens, shared among the threads that come here. */
static void forward_rows(const SsmDt *p) {
  const int64_t n_t = p->dt->dim[0], n_h = p->dt->dim[1], n_blocks = sum_blocks(n_t);
#pragma omp for schedule(static) nowait
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work k = work_begin(p, b);
    const int64_t end = sum_block_start(n_t, b + 1);
    for (int64_t t = sum_block_start(n_t, b); t < end; t += PANEL) {
      const int64_t n_rows = min_i64(PANEL, end - t), n = n_rows * n_h;
      load_panel(p, &k, t, n_rows);
      real *dt = row_of(p->dt, t, NULL), *a = row_of(p->a, t, NULL), *lambda = row_of(p->lambda, t, NULL);
      if (p->A_log) forward2(p, &k, n, dt, a);
      else if (p->A_softplus) forward3(p, true, &k, n, dt, a, lambda);
      else forward3(p, false, &k, n, dt, a, lambda);
    }
  }
}

KERNEL_FWD(ssm_dt, SsmDt) {
  if (parallel_pays(tensor_count(p->dt))) {
#pragma omp parallel
    forward_rows(p);
  } else {
    forward_rows(p);
  }
}

/* The inputs in k turn into gradients: of dt_raw, of A_log (in A_raw's place), of A_raw, of trap. */
static void backward2(const SsmDt *p, const Work *k, int64_t n, const real *restrict ddt, const real *restrict da) {
  const real low = (real)p->dt_min, high = (real)p->dt_max, *restrict bias = k->dt_bias, *restrict A = k->A;
  real *restrict dt_raw = k->dt_raw, *restrict dA_log = k->A_raw;
  for (int64_t i = 0; i < n; i++) {
    const real s = dt_raw[i] + bias[i], free = real_softplus(s), slope = real_dsoftplus(s);
    const real clamped = free < low ? low : free > high ? high : free;
    dt_raw[i] = real_fma(A[i], da[i], ddt[i]) * (free < low || free > high ? 0 : slope);
    dA_log[i] = A[i] * clamped * da[i];
  }
}

static inline void backward3(const SsmDt *p, bool softplus, const Work *k, int64_t n, const real *restrict ddt,
                             const real *restrict da, const real *restrict dlambda) {
  const real floor = (real)p->A_floor, *restrict bias = k->dt_bias;
  real *restrict dt_raw = k->dt_raw, *restrict A_raw = k->A_raw, *restrict trap = k->trap;
  for (int64_t i = 0; i < n; i++) {
    const real s = dt_raw[i] + bias[i], dt = real_softplus(s);
    const real rate = decay_rate(softplus, A_raw[i]), slope = decay_rate_slope(softplus, A_raw[i]);
    const real lambda = real_sigmoid(trap[i]);
    dt_raw[i] = real_fma(-(rate < floor ? floor : rate), da[i], ddt[i]) * real_dsoftplus(s);
    A_raw[i] = -(rate < floor ? 0 : slope) * dt * da[i];
    trap[i] = lambda * (1 - lambda) * dlambda[i];
  }
}

static void backward_panel(const SsmDt *p, const Work *k, int64_t t, int64_t n_rows) {
  const int64_t n_h = p->dt->dim[1], n = n_rows * n_h;
  load_panel(p, k, t, n_rows);
  const real *ddt = row_of(p->ddt, t, k->zero), *da = row_of(p->da, t, k->zero);
  const real *dlambda = row_of(p->dlambda, t, k->zero);
  if (p->A_log) backward2(p, k, n, ddt, da);
  else if (p->A_softplus) backward3(p, true, k, n, ddt, da, dlambda);
  else backward3(p, false, k, n, ddt, da, dlambda);
  add_rows(p->ddt_raw, t, n_rows, n_h, k->dt_raw);
  add_rows(p->dA_raw, t, n_rows, n_h, k->A_raw);
  add_rows(p->dtrap, t, n_rows, n_h, k->trap);
  real *restrict dt_bias_sum = k->sums, *restrict A_log_sum = k->sums + n_h;
  for (int64_t r = 0; r < n_rows; r++)
    for (int64_t h = 0; h < n_h; h++) {
      dt_bias_sum[h] += k->dt_raw[r * n_h + h];
      A_log_sum[h] += k->A_raw[r * n_h + h];
    }
}

KERNEL_BWD(ssm_dt, SsmDt) {
  const int64_t n_t = p->dt->dim[0], n_h = p->dt->dim[1], n_blocks = sum_blocks(n_t);
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * n_h))
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work k = work_begin(p, b);
    const int64_t end = sum_block_start(n_t, b + 1);
    for (int64_t t = sum_block_start(n_t, b); t < end; t += PANEL) backward_panel(p, &k, t, min_i64(PANEL, end - t));
  }
  for (int64_t b = 0; b < n_blocks; b++) {
    const real *sums = work_of_block(p, b).sums;
    if (p->ddt_bias) row_add(p->ddt_bias, 0, n_h, sums);
    if (p->dA_log) row_add(p->dA_log, 0, n_h, sums + n_h);
  }
}
