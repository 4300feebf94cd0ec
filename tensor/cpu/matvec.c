/* matvec: see matvec.h. */
#include "tensor/cpu/matvec.h"

/* Rows of w that one thread takes at a time; chains of sums, which hide the latency of an addition. */
enum { ROWS = 16, CHAINS = 4, AHEAD_BYTES = 2048 };

size_t matvec_scratch(const Linear *p) {
  return (size_t)(tensor_rows(p->x) * round_up(p->w->dim[1], LANES)) * sizeof(real);
}

/* w . x of n, w as reals or in BF16. What comes AHEAD_BYTES later in memory is asked for, past the row's end too: the next row
 * lies there. */
static inline real row_dot(const void *w, bool is_bf16, const real *x, int64_t n) {
  Lanes sum[CHAINS] = {{0}};
  const uint16_t *half = w;
  const real *whole = w;
  int64_t i = 0;
  for (; i + CHAINS * LANES <= n; i += CHAINS * LANES)
    for (int c = 0; c < CHAINS; c++) {
      const int64_t at = i + c * LANES;
      if (is_bf16) {
        Lanes row;
        if (c % 2 == 0) __builtin_prefetch((const char *)(half + at) + AHEAD_BYTES);
        lanes_from_bf16(&row, half + at);
        lanes_add_product(&sum[c], &row, lanes_of(x + at));
      } else {
        __builtin_prefetch((const char *)(whole + at) + AHEAD_BYTES);
        lanes_add_product(&sum[c], lanes_of(whole + at), lanes_of(x + at));
      }
    }
  sum[0] += sum[1], sum[2] += sum[3], sum[0] += sum[2];
  real total = lanes_sum(&sum[0]);
  for (; i < n; i++) total = real_fma(is_bf16 ? (real)bf16_to_float(half[i]) : whole[i], x[i], total);
  return total;
}

static void store(const Linear *p, int64_t t, int64_t o, real value) {
  real bias = 0;
  if (p->bias) {
    const Tensor at = cols_from(p->bias, o);
    bias = *row_load(&at, 0, 1, &bias);
  }
  value += bias;
  Tensor at = cols_from(p->y, o);
  row_store(&at, t, 1, &value);
}

void matvec(const Linear *p) {
  const int64_t n_t = tensor_rows(p->x), n_out = p->w->dim[0], n_in = p->w->dim[1], x_ld = round_up(n_in, LANES);
  real *x = p->scratch;
  for (int64_t t = 0; t < n_t; t++) {
    const real *row = row_load(p->x, t, n_in, x + t * x_ld);
    if (row != x + t * x_ld) memcpy(x + t * x_ld, row, (size_t)n_in * sizeof(real));
  }
  const bool is_bf16 = p->w->dtype == BF16;
#pragma omp parallel for schedule(static) if (parallel_pays(n_out * n_in))
  for (int64_t first = 0; first < n_out; first += ROWS)
    for (int64_t o = first; o < min_i64(first + ROWS, n_out); o++) {
      const char *w = (const char *)p->w->data + o * p->w->ld * (int64_t)dtype_bytes(p->w->dtype);
      for (int64_t t = 0; t < n_t; t++)
        store(p, t, o, is_bf16 ? row_dot(w, true, x + t * x_ld, n_in) : row_dot(w, false, x + t * x_ld, n_in));
    }
}
