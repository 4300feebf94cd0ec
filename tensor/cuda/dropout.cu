/* dropout: y = x keep / (1 - p), by the draws of the CPU's kernel: word i % 4 of Philox block i / 4 of a row. A run of eight
 * columns is two blocks. */
#include "tensor/cuda/cuda.h"

extern "C" {
#include "tensor/rng.h"
}

struct Draws {
  uint32_t key[2], site;
  uint64_t first_sample;
  const int64_t *samples_before;
  int64_t rows_per_sample;
  uint64_t threshold;
  float scale;
};

static __global__ void drop(int64_t n_rows, int64_t width, Draws draws, Rows from, Rows to, bool adds) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  const int64_t row = at.row % draws.rows_per_sample, n_blocks = (width + 3) / 4;
  const uint64_t before = draws.samples_before ? (uint64_t)global_load(draws.samples_before) : 0;
  const uint64_t sample = before + draws.first_sample + (uint64_t)(at.row / draws.rows_per_sample);
  float x[Rows::RUN];
  from.get_run(at.row, at.col, at.n, x);
  for (int b = 0; b < 2; b++) {
    const uint32_t counter[4] = {(uint32_t)(row * n_blocks + at.col / 4 + b), draws.site, (uint32_t)sample,
                                 (uint32_t)(sample >> 32)};
    uint32_t word[4];
    philox4x32(counter, draws.key, word);
    for (int i = 0; i < 4; i++) x[4 * b + i] = word[i] >= draws.threshold ? x[4 * b + i] * draws.scale : 0;
  }
  if (adds) to.add_run(at.row, at.col, at.n, x);
  else to.put_run(at.row, at.col, at.n, x);
}

static void launch(const Dropout *p, const Tensor *from, const Tensor *to, bool adds) {
  const uint64_t seed = rng_make(p->seed, RNG_DROPOUT, p->site, 0).seed;
  const Draws draws = {{(uint32_t)seed, (uint32_t)(seed >> 32)},
                       p->site,
                       p->first_sample,
                       p->samples_before,
                       p->rows_per_sample,
                       (uint64_t)(p->p * 4294967296.0),
                       (float)(1 / (1 - p->p))};
  const int64_t n_rows = tensor_rows(from), width = tensor_last(from);
  LAUNCH_RUNS(drop, n_rows, width, draws, rows_of(from), rows_of(to), adds);
}

KERNEL_FWD(dropout, Dropout) { launch(p, p->x, p->y, false); }
KERNEL_BWD(dropout, Dropout) { launch(p, p->dy, p->dx, true); }
