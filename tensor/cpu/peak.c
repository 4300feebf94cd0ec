/* peak: loops that do one thing, as fast as this build of the kernels can: the ceilings that `aspis bench` holds every
 * operation to. One row of x (and of y) is one thread's.
 *
 * Twelve chains of multiply-adds hide the latency of every processor met so far (4 cycles, two a cycle: 8 chains) and
 * leave four of sixteen registers for the constants. */
#include "tensor/cpu/cpu.h"
#include "tensor/cpu/lanes.h"
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#include <immintrin.h>
#endif

enum { CHAINS = 12 };

/* s <- s/2 + 1: stays between 0 and 2, so that no chain meets a number that is slow to compute with. */
static double multiply_add(int64_t n_rounds, real *row) {
  Lanes chain[CHAINS];
  for (int c = 0; c < CHAINS; c++)
    for (int i = 0; i < LANES; i++) chain[c][i] = (real)c / CHAINS;
  for (int64_t round = 0; round < n_rounds; round++)
    for (int c = 0; c < CHAINS; c++)
#if REAL_FUSED
      for (int i = 0; i < LANES; i++) chain[c][i] = real_fma(chain[c][i], (real)0.5, 1);
#else
      chain[c] = chain[c] * (real)0.5 + 1;
#endif
  for (int c = 1; c < CHAINS; c++) chain[0] += chain[c];
  *lanes_at(row) = chain[0];
  return 2.0 * LANES * CHAINS * (double)n_rounds;
}

#if defined(__AMX_BF16__)
/* Four tiles of sums (0 to 3) from two of A (4, 5) and two of B (6, 7): what a blocked product does between loads. */
static double multiply_add_bf16(int64_t n_rounds, real *row) {
  enum { ROWS = 16, ROW_BYTES = 64, N_SUMS = 4 };
  const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } config = {.palette = 1,
              .row_bytes = {ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES, ROW_BYTES},
              .rows = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS}};
  float sums[ROWS * ROW_BYTES / sizeof(float)];
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t round = 0; round < n_rounds; round++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, ROW_BYTES);
  _tile_release();
  row[0] = sums[0];
  return 2.0 * ROWS * (ROW_BYTES / 4) * (ROW_BYTES / 2) * N_SUMS * (double)n_rounds;
}
#elif defined(__AVX512BF16__)
static double multiply_add_bf16(int64_t n_rounds, real *row) {
  const __m512bh one = (__m512bh)_mm512_set1_epi16(0x3f80);
  __m512 chain[CHAINS], sum = _mm512_setzero_ps();
  for (int c = 0; c < CHAINS; c++) chain[c] = _mm512_setzero_ps();
  for (int64_t round = 0; round < n_rounds; round++)
    for (int c = 0; c < CHAINS; c++) chain[c] = _mm512_dpbf16_ps(chain[c], one, one);
  for (int c = 0; c < CHAINS; c++) sum = _mm512_add_ps(sum, chain[c]);
  _mm512_storeu_ps(row, sum);
  return 2.0 * 32 * CHAINS * (double)n_rounds;
}
#else
static double multiply_add_bf16(int64_t n_rounds, real *row) {
  (void)n_rounds, (void)row;
  return 0;
}
#endif

static real sum_row(const real *x, int64_t n) {
  Lanes sum[4] = {{0}};
  const int64_t step = 4 * LANES;
  int64_t i = 0;
  for (; i + step <= n; i += step)
    for (int k = 0; k < 4; k++) sum[k] += *lanes_of(x + i + k * LANES);
  for (; i < n; i++) sum[0][0] += x[i];
  sum[0] += sum[1], sum[2] += sum[3], sum[0] += sum[2];
  return lanes_sum(&sum[0]);
}

KERNEL_FWD(peak, Peak) {
  const int64_t n_rows = p->x->dim[0], n = p->x->dim[1];
  double work = 0;
  /* every row does the same, so it does not matter which one's count is kept */
#pragma omp parallel for schedule(static) num_threads((int)n_rows) lastprivate(work)
  for (int64_t r = 0; r < n_rows; r++) {
    real *x = (real *)p->x->data + r * n, *y = p->y ? (real *)p->y->data + r * n : NULL;
    const double bytes = (double)p->n_rounds * (double)n * sizeof(real);
    switch (p->kind) {
    case PEAK_FMA: work = multiply_add(p->n_rounds, x); break;
    case PEAK_FMA_BF16: work = multiply_add_bf16(p->n_rounds, x); break;
    case PEAK_WRITE:
      for (int64_t round = 0; round < p->n_rounds; round++) memset(x, 0, (size_t)n * sizeof(real));
      work = bytes;
      break;
    case PEAK_READ:
      for (int64_t round = 0; round < p->n_rounds; round++) y[0] += sum_row(x, n);
      work = bytes;
      break;
    case PEAK_COPY:
      for (int64_t round = 0; round < p->n_rounds; round++) memcpy(y, x, (size_t)n * sizeof(real));
      work = 2 * bytes;
      break;
    }
  }
  *p->work = work * (double)n_rows;
}
