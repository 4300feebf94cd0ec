/* embedding: y[t] = w[token[t]];  dw[token[t]] += dy[t].
 *
 * Backward cuts the columns among threads: each goes through all tokens in order, so a token that occurs twice is summed
 * in the same order whatever the number of threads. */
#include "tensor/cpu/cpu.h"

enum { GRAD_COLS = 64 };

KERNEL_FWD(embedding, Embedding) {
  const int64_t n_t = tensor_count(p->token), n_v = p->w->dim[0], width = p->w->dim[1];
  const int32_t *token = p->token->data;
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++) {
    CHECK(token[t] >= 0 && token[t] < n_v, "token %d at %lld of a vocabulary of %lld", token[t], (long long)t,
          (long long)n_v);
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      real buffer[ROW_RUN];
      const int64_t n = min_i64(ROW_RUN, width - i);
      Tensor w = cols_from(p->w, i), y = cols_from(p->y, i);
      row_store(&y, t, n, row_load(&w, token[t], n, buffer));
    }
  }
}

KERNEL_BWD(embedding, Embedding) {
  const int64_t n_t = tensor_count(p->token), width = p->w->dim[1];
  const int32_t *token = p->token->data;
#pragma omp parallel for schedule(static) if (parallel_pays(n_t * width))
  for (int64_t i = 0; i < width; i += GRAD_COLS) {
    const int64_t n = min_i64(GRAD_COLS, width - i);
    Tensor dw = cols_from(p->dw, i), dy = cols_from(p->dy, i);
    real buffer[GRAD_COLS];
    for (int64_t t = 0; t < n_t; t++) row_add(&dw, token[t], n, row_load(&dy, t, n, buffer));
  }
}
