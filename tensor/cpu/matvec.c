/* matvec: see matvec.h. */
#include "tensor/cpu/matvec.h"

#ifndef ASPIS_REAL_F64

/* Rows of w that one thread takes at a time; chains of sums, which hide the latency of an addition. */
enum { ROWS = 16, CHAINS = 4, AHEAD_BYTES = 4096 };

size_t matvec_scratch(const Linear *p) {
  return (size_t)(tensor_rows(p->x) * round_up(p->w->dim[1], LANES)) * sizeof(real);
}

/* What comes AHEAD_BYTES later in memory is asked for, past the row's end too: the next row lies there. */
static inline void ask_ahead(const void *at) { __builtin_prefetch((const char *)at + AHEAD_BYTES); }

static inline real chains_sum(Lanes sum[CHAINS]) {
  sum[0] += sum[1], sum[2] += sum[3], sum[0] += sum[2];
  return lanes_sum(&sum[0]);
}

/* w . x of n reals. */
static inline real dot_real(const real *w, const real *x, int64_t n) {
  Lanes sum[CHAINS] = {{0}};
  int64_t i = 0;
  for (; i + CHAINS * LANES <= n; i += CHAINS * LANES)
    for (int c = 0; c < CHAINS; c++) {
      ask_ahead(w + i + c * LANES);
      lanes_add_product(&sum[c], lanes_of(w + i + c * LANES), lanes_of(x + i + c * LANES));
    }
  real total = chains_sum(sum);
  for (; i < n; i++) total = real_fma(w[i], x[i], total);
  return total;
}

/* The same of a row in BF16. */
static inline real dot_bf16(const uint16_t *w, const real *x, int64_t n) {
  Lanes sum[CHAINS] = {{0}}, row;
  int64_t i = 0;
  for (; i + CHAINS * LANES <= n; i += CHAINS * LANES) {
    ask_ahead(w + i), ask_ahead(w + i + CHAINS / 2 * LANES);
    for (int c = 0; c < CHAINS; c++) {
      lanes_from_bf16(&row, w + i + c * LANES);
      lanes_add_product(&sum[c], &row, lanes_of(x + i + c * LANES));
    }
  }
  real total = chains_sum(sum);
  for (; i < n; i++) total = real_fma((real)bf16_to_float(w[i]), x[i], total);
  return total;
}

#if LANES_MULTIPLY_BF16
/* The same of both in BF16. */
static inline real dot_both_bf16(const uint16_t *w, const uint16_t *x, int64_t n) {
  enum { STEP = 2 * LANES };
  Lanes sum[CHAINS] = {{0}};
  int64_t i = 0;
  for (; i + CHAINS * STEP <= n; i += CHAINS * STEP)
    for (int c = 0; c < CHAINS; c++) {
      ask_ahead(w + i + c * STEP);
      lanes_add_product_bf16(&sum[c], w + i + c * STEP, x + i + c * STEP);
    }
  real total = chains_sum(sum);
  for (; i < n; i++) total = real_fma(bf16_to_float(w[i]), bf16_to_float(x[i]), total);
  return total;
}
#endif

static real row_dot(const Linear *p, int64_t o, int64_t t, const real *x) {
  const int64_t n_in = p->w->dim[1];
  if (p->w->dtype == REAL_DTYPE) return dot_real((const real *)p->w->data + o * p->w->ld, x, n_in);
  const uint16_t *w = (const uint16_t *)p->w->data + o * p->w->ld;
#if LANES_MULTIPLY_BF16
  if (p->x->dtype == BF16) return dot_both_bf16(w, (const uint16_t *)p->x->data + t * p->x->ld, n_in);
#else
  (void)t;
#endif
  return dot_bf16(w, x, n_in);
}

void matvec(const Linear *p) {
  const int64_t n_t = tensor_rows(p->x), n_out = p->w->dim[0], n_in = p->w->dim[1], x_ld = round_up(n_in, LANES);
  real *x = p->scratch;
  for (int64_t t = 0; t < n_t; t++) {
    const real *row = row_load(p->x, t, n_in, x + t * x_ld);
    if (row != x + t * x_ld) memcpy(x + t * x_ld, row, (size_t)n_in * sizeof(real));
  }
#pragma omp parallel for schedule(static) if (parallel_pays(n_out * n_in))
  for (int64_t first = 0; first < n_out; first += ROWS) {
    const int64_t n = min_i64(ROWS, n_out - first);
    real y[MATVEC_MOST][ROWS], biases[ROWS];
    for (int64_t i = 0; i < n; i++)
      for (int64_t t = 0; t < n_t; t++) y[t][i] = row_dot(p, first + i, t, x + t * x_ld);
    linear_store(p, first, n, (real *)y, ROWS, biases);
  }
}

#endif
