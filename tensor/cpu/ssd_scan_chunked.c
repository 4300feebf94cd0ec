/* ssd_scan, chunked: forward (ssd_scan_chunked.h). One task is a sequence and a part of a group's heads; it goes from
 * tile to tile, and in a tile from head to head. */
#include "tensor/cpu/ssd_scan_chunked.h"

#ifndef ASPIS_REAL_F64

#include <omp.h>

enum { FEW_ROWS = 8 };

typedef struct Work {
  TileWork tile;
  float *state;  /* (heads, P, N) */
  double *theta; /* (heads, S) */
} Work;

static int64_t work_carve(const Scan *s, Work *w, float *block) {
  Carver c = {.block = block};
  scan_tile_carve(s, &w->tile, &c);
  w->state = carve(&c, s->max_heads * s->n_p * s->n_cols);
  w->theta = (double *)carve(&c, s->max_heads * s->n_s * 2);
  return c.used;
}

Scan scan_forward_make(const SsdScan *p, Carver *c) {
  Scan s = scan_make(p, false, CHUNKED_TASKS, 0, c);
  scan_tile_sizes(&s);
  Work unused;
  s.work_size = work_carve(&s, &unused, NULL);
  s.work = carve(c, s.work_size * omp_get_max_threads());
  return s;
}

/* S_{-1} and theta_{-1} of head h. */
static void begin_head(const Scan *s, int64_t seq, int64_t h, float *state, double *theta) {
  const SsdScan *p = s->p;
  const int64_t at = seq * s->n_h + h;
  scan_load_state(s, p->ssm_in, at, state);
  for (int64_t i = 0; i < s->n_s; i++)
    theta[i] = p->angle_in ? wrap((double)real_block(p->angle_in, at, s->n_s)[i]) : 0;
  if (!has_carried_input(p)) return;
  const float delta = delta_before(p, s->starts[seq], h), *x = real_block(p->v_in, at, s->n_p);
  for (int64_t r = 0; r < s->n_r; r++) {
    const float *k = real_block(p->k_in, (seq * s->n_r + r) * s->n_h + h, s->n_n);
    const float *mimo = real_block(p->mimo_x, h * s->n_r + r, s->n_p);
    for (int64_t c = 0; c < s->n_p; c++)
      add_scaled(state + c * s->n_cols, delta * (mimo ? mimo[c] * x[c] : x[c]), k, s->n_n);
  }
}

/* F of the tile's head; asks for what the next one reads and writes. */
static void mix_rows(const Scan *s, TileWork *w, Tile tile, Next then) {
  for (int64_t i = 0; i < tile.m; i++) {
    const int64_t width = causal_width(s, tile, i), own = i / s->n_r * s->n_r, next = own + s->n_r;
    const float *K = w->K + i * s->n_m;
    float *F = w->F + i * s->n_m;
    scan_decay_row(w, i, width);
    prefetch_row(s, then, i, s->p->x, s->p->y);
#pragma omp simd
    for (int64_t j = 0; j < width; j++)
      F[j] = j < own ? w->decay[j] * w->w[j] * K[j] : j < next ? w->gamma[j] * K[j] : 0;
  }
}

/* y = q S^T. Few rows, as in decoding, are not worth a transposed S. */
static void read_state(const Scan *s, TileWork *w, Tile tile, const float *S) {
  const int64_t n_rows = s->n_rows, n_cols = s->n_cols;
  if (tile.m < FEW_ROWS) {
    for (int64_t i = 0; i < tile.m; i++)
      for (int64_t c = 0; c < s->n_p; c++) w->y[i * n_rows + c] = dot(w->q + i * n_cols, S + c * n_cols, n_cols);
    return;
  }
  transpose_padded(s->n_p, s->n_n, S, n_cols, w->turned, n_rows);
  tile_product(tile.m, n_rows, s->n_n, tile_a(w->q, n_cols), w->turned, n_rows, NULL, w->y, n_rows);
}

/* y of one head of the tile, and S from before the tile to behind it. */
static void forward_head(const Scan *s, TileWork *w, Tile tile, int64_t h, float *state, Next next) {
  const SsdScan *p = s->p;
  const int64_t m = tile.m, n_rows = s->n_rows;
  scan_tile_decays(s, w, tile, h);
  scan_tile_v(s, w, tile, h);
  mix_rows(s, w, tile, next);
  read_state(s, w, tile, state);
  tile_product(m, n_rows, m, tile_causal(w->F, s->n_m, s->n_r), w->v, n_rows, w->start, w->y, n_rows);
  for (int64_t i = 0; i < m; i++) {
    const float *v = w->v + i * n_rows, *y = w->y + i * n_rows;
    const int64_t t = tile.first + i / s->n_r;
    Tensor own = cols_from(p->y, (i % s->n_r * s->n_h + h) * s->n_p);
    float *out = row_out(&own, t, w->row);
#pragma omp simd
    for (int64_t c = 0; c < s->n_p; c++) out[c] = real_fma(w->D[c], v[c], y[c]);
    row_store(&own, t, s->n_p, out);
  }
  scan_tile_state(s, w, tile, state);
}

/* What the sequence's last token leaves behind. */
static void end_head(const Scan *s, TileWork *w, Tile tile, int64_t h, const float *state, const double *theta) {
  const SsdScan *p = s->p;
  const int64_t at = tile.seq * s->n_h + h;
  scan_store_state(s, p->ssm_out, at, state);
  for (int64_t i = 0; p->angle_out && i < s->n_s; i++) real_block(p->angle_out, at, s->n_s)[i] = (float)theta[i];
  if (p->v_out) load_row(p->x, tile.first + tile.n - 1, h * s->n_p, s->n_p, s->n_p, w->row);
  store_block(p->v_out, at, w->row, s->n_p);
  for (int64_t r = 0; r < s->n_r; r++)
    store_block(p->k_out, (tile.seq * s->n_r + r) * s->n_h + h, w->k + (tile.m - s->n_r + r) * s->n_cols, s->n_n);
}

/* One task: the heads of part `part` of group `g` in one sequence. */
static void forward_part(const Scan *s, Work *w, int64_t seq, int64_t g, int64_t part) {
  const int64_t start = s->starts[seq], end = s->starts[seq + 1], size = s->n_p * s->n_cols;
  const int64_t first_head = part_first_head(s, g, part), n_heads = part_first_head(s, g, part + 1) - first_head;
  for (int64_t i = 0; i < n_heads; i++) begin_head(s, seq, first_head + i, w->state + i * size, w->theta + i * s->n_s);
  for (int64_t first = start; first < end;) {
    const Tile tile = scan_tile_at(s, seq, first);
    scan_tile_shared(s, &w->tile, tile, g);
    for (int64_t i = 0; i < n_heads; i++) {
      const int64_t h = first_head + i;
      float *state = w->state + i * size;
      double *theta = w->theta + i * s->n_s;
      if ((first - start) % s->n_q == 0)
        scan_store_state(s, s->p->chunk_states, chunk_row(s, seq, first) * s->n_h + h, state);
      if (!s->kq_shared) {
        scan_tile_prepare(s, &w->tile, tile, h, theta, true);
        scan_tile_products(s, &w->tile, tile);
      }
      const Next next = i + 1 < n_heads
                            ? (Next){first, tile.m, h + 1}
                            : (Next){first + tile.n, min_i64(tile.m, (end - first - tile.n) * s->n_r), first_head};
      forward_head(s, &w->tile, tile, h, state, next);
      if (tile.ends_sequence) end_head(s, &w->tile, tile, h, state, theta);
    }
    first += tile.n;
  }
}

KERNEL_FWD(ssd_scan, SsdScan) {
  Carver c = {.block = p->scratch};
  Scan s = scan_forward_make(p, &c);
  scan_check_lengths(&s);
  scan_turn_fill(&s);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < s.n_seq * s.n_g * s.n_parts; task++) {
    Work w;
    work_carve(&s, &w, s.work + s.work_size * omp_get_thread_num());
    const int64_t within = task % (s.n_g * s.n_parts);
    forward_part(&s, &w, task / (s.n_g * s.n_parts), within / s.n_parts, within % s.n_parts);
  }
}

#endif
