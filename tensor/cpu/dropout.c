/* dropout: y = x keep / (1 - p). keep is drawn anew in backward from the same Philox counters (draw i of a row: word i % 4
 * of block i / 4), so nothing is saved and recomputing gives the same bits. */
#include "tensor/cpu/cpu.h"
#include "tensor/rng.h"

/* to[i] (+)= from[i] * keep / (1 - p) over all rows. */
static void drop(const Dropout *p, const Tensor *from, Tensor *to, bool add) {
  const int64_t n_t = tensor_rows(from), width = tensor_last(from), n_blocks = ceil_div(width, 4);
  const uint64_t threshold = (uint64_t)(p->p * 4294967296.0);
  const real scale = (real)(1 / (1 - p->p));
  const uint64_t first = p->first_sample + (p->samples_before ? (uint64_t)*p->samples_before : 0);
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++) {
    const int64_t row = t % p->rows_per_sample;
    const Rng rng = rng_make(p->seed, RNG_DROPOUT, p->site, first + (uint64_t)(t / p->rows_per_sample));
    const uint32_t key[2] = {(uint32_t)rng.seed, (uint32_t)(rng.seed >> 32)};
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      real buffer[ROW_RUN], kept[ROW_RUN];
      uint32_t draw[ROW_RUN];
      const int64_t n = min_i64(ROW_RUN, width - i);
      for (int64_t b = 0; b < ceil_div(n, 4); b++) {
        const uint32_t counter[4] = {(uint32_t)(row * n_blocks + i / 4 + b), rng.a, (uint32_t)rng.b,
                                     (uint32_t)(rng.b >> 32)};
        philox4x32(counter, key, draw + 4 * b);
      }
      const Tensor x = cols_from(from, i);
      Tensor y = cols_from(to, i);
      const real *run = row_load(&x, t, n, buffer);
      for (int64_t j = 0; j < n; j++) kept[j] = draw[j] >= threshold ? run[j] * scale : 0;
      if (add) row_add(&y, t, n, kept);
      else row_store(&y, t, n, kept);
    }
  }
}

KERNEL_FWD(dropout, Dropout) { drop(p, p->x, p->y, false); }
KERNEL_BWD(dropout, Dropout) { drop(p, p->dy, p->dx, true); }
