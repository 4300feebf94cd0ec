/* ssd_scan: the passes before and after the heads (ssd_scan.h). */
#include "tensor/cpu/ssd_scan.h"

void scan_check_lengths(const Scan *s) {
  CHECK(s->starts[0] == 0 && s->starts[s->n_seq] == s->n_t, "cu_seqlens runs from %d to %d over %lld tokens",
        s->starts[0], s->starts[s->n_seq], (long long)s->n_t);
  for (int64_t i = 0; i < s->n_seq; i++)
    CHECK(s->starts[i] < s->starts[i + 1], "sequence %lld has no tokens", (long long)i);
}

void scan_turn_fill(const Scan *s) {
  if (s->n_s == 0) return;
  int64_t n_blocks = sum_blocks(s->n_t);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < n_blocks; b++) {
    real *buffer = s->rows + b * max_i64(3 * s->n_n, s->n_s);
    for (int64_t t = sum_block_start(s->n_t, b); t < sum_block_start(s->n_t, b + 1); t++) {
      const real *angle = row_load(s->p->angle, t, s->n_s, buffer);
      real *turn = s->turn + t * s->n_s;
      for (int64_t i = 0; i < s->n_s; i++) turn[i] = PI * real_tanh(angle[i]);
    }
  }
}

/* One row of B or C of token t back through its norm: the parts' sums -> dB, dnorm. `rows`: 3 N of scratch. */
static void norm_backward(const Scan *s, const Tensor *B, const real *weight, const real *slabs, int64_t row,
                          Tensor *dB, real *dnorm, int64_t t, int64_t col, real *rows) {
  int64_t n_n = s->n_n;
  real *sum = rows, *hat = rows + n_n;
  zero(sum, n_n);
  for (int64_t part = 0; part < s->n_parts; part++)
    add_scaled(sum, 1, slabs + (part * s->n_slab + row) * s->shared_width + col, n_n);
  if (weight) {
    Tensor own = cols_from(B, col);
    const real *b = row_load(&own, t, n_n, hat);
    real scale = 1 / R(sqrt)(dot(b, b, n_n) / (real)n_n + (real)s->p->norm_eps), mean = 0;
#pragma omp simd
    for (int64_t n = 0; n < n_n; n++) {
      hat[n] = b[n] * scale;
      dnorm[n] += sum[n] * hat[n];
      sum[n] *= weight[n];
    }
    mean = dot(sum, hat, n_n) / (real)n_n;
#pragma omp simd
    for (int64_t n = 0; n < n_n; n++) sum[n] = scale * (sum[n] - hat[n] * mean);
  }
  if (!dB) return;
  Tensor own = cols_from(dB, col);
  row_add(&own, t, n_n, sum);
}

/* The rows of token t that scan_backward_shared reads and adds to. */
enum { AHEAD = 4 };
static void prefetch_rows(const Scan *s, int64_t t) {
  const SsdScan *p = s->p;
  const Tensor *wide[] = {p->B, p->C, p->dB, p->dC};
  for (int i = 0; i < 4; i++) row_prefetch(wide[i], t, 0, s->shared_width);
  if (s->n_s > 0) row_prefetch(p->dangle, t, 0, s->n_s);
}

void scan_backward_shared(const Scan *s, int64_t n_rows) {
  const SsdScan *p = s->p;
  int64_t n_blocks = sum_blocks(n_rows), n_n = s->n_n;
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < n_blocks; b++) {
    real *rows = s->rows + b * max_i64(3 * n_n, s->n_s), *dnorm = s->dnorm + b * 2 * n_n;
    for (int64_t row = sum_block_start(n_rows, b); row < sum_block_start(n_rows, b + 1); row++) {
      int64_t t = s->slab_token[row];
      if (row + AHEAD < n_rows) prefetch_rows(s, s->slab_token[row + AHEAD]);
      for (int64_t col = 0; col < s->shared_width; col += n_n) {
        const real *B_norm = p->B_norm ? row_load(p->B_norm, 0, n_n, rows + 2 * n_n) : NULL;
        norm_backward(s, p->B, B_norm, s->dB, row, p->dB, dnorm, t, col, rows);
        const real *C_norm = p->C_norm ? row_load(p->C_norm, 0, n_n, rows + 2 * n_n) : NULL;
        norm_backward(s, p->C, C_norm, s->dC, row, p->dC, dnorm + n_n, t, col, rows);
      }
      if (!p->dangle || s->n_s == 0) continue;
      zero(rows, s->n_s);
      for (int64_t part = 0; part < s->n_g * s->n_parts; part++)
        add_scaled(rows, 1, s->dturn + (part * s->n_slab + row) * s->n_s, s->n_s);
      for (int64_t i = 0; i < s->n_s; i++) {
        real tanh_angle = s->turn[t * s->n_s + i] / PI;
        rows[i] *= PI * (1 - tanh_angle * tanh_angle);
      }
      row_add(p->dangle, t, s->n_s, rows);
    }
  }
}

void scan_backward_parameters(const Scan *s, int64_t n_sums) {
  const SsdScan *p = s->p;
  int64_t bias_size = s->n_r * s->n_n;
#pragma omp parallel for schedule(static)
  for (int64_t h = 0; h < s->n_h; h++)
    for (int64_t i = 0; i < n_sums; i++) {
      const real *from = s->dparam + (i * s->n_h + h) * s->param_width;
      if (p->dD && p->dD->dim[0] != s->n_h) add_block(p->dD, h, from, s->n_p);
      else if (p->dD)
        for (int64_t c = 0; c < s->n_p; c++) ((real *)p->dD->data)[h] += from[c];
      add_block(p->dB_bias, h, from + s->n_p, bias_size);
      add_block(p->dC_bias, h, from + s->n_p + bias_size, bias_size);
      add_block(p->dmimo_x, h, from + s->n_p + 2 * bias_size, s->n_r * s->n_p);
    }
  for (int64_t b = 0; b < SUM_BLOCKS; b++) {
    add_block(p->dB_norm, 0, s->dnorm + b * 2 * s->n_n, s->n_n);
    add_block(p->dC_norm, 0, s->dnorm + b * 2 * s->n_n + s->n_n, s->n_n);
  }
}
