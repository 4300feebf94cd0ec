/* ssd_scan, chunked: the prologue of a tile (ssd_scan_chunked.h). */
#include "tensor/cpu/ssd_scan_chunked.h"
#include "tensor/cpu/tile_bf16.h"

#ifndef ASPIS_REAL_F64

Scan scan_tile_sizes(const SsdScan *p, bool backward) {
  Scan s = scan_sizes(p, CHUNKED_TASKS);
  s.n_rows = round_up(s.n_p, LANES);
  s.n_cols = round_up(s.n_n, LANES);
  s.bf16 = TILE_BF16_NATIVE && p->x->dtype == BF16;
  const int64_t most_rows = backward || s.bf16 ? TILE_MAX : TILE_FORWARD_F32;
  s.n_tile = min_i64(min_i64(max_i64(1, most_rows / s.n_r), s.n_q), s.n_t);
  s.n_m = round_up(s.n_tile * s.n_r, LANES);
  s.max_heads = ceil_div(s.heads_per_group, s.n_parts);
  s.kq_shared = !p->B_norm && s.n_s == 0;
  const int64_t pieces = ceil_div(SEGMENT_TASKS, s.n_seq * s.n_g * s.n_parts);
  s.segment = round_up(pieces > 1 ? max_i64(SEGMENT_MIN, ceil_div(s.n_t, s.n_seq * pieces)) : s.n_t, s.n_q);
  /* a bound that never falls as n_t grows: memory planned for the longest sequences is enough for all */
  s.n_segments = s.n_sums = s.n_seq + (pieces > 1 ? min_i64(s.n_t / SEGMENT_MIN, s.n_seq * pieces) : 0);
  return s;
}

int64_t scan_segments(const Scan *s, Segment *segments) {
  int64_t n = 0;
  for (int64_t seq = 0; seq < s->n_seq; seq++)
    for (int64_t first = s->starts[seq]; first < s->starts[seq + 1]; first += s->segment)
      segments[n++] = (Segment){seq, first, min_i64(first + s->segment, s->starts[seq + 1])};
  return n;
}

void scan_turn(const Scan *s, int64_t h, int64_t first, int64_t end, double *theta) {
  for (int64_t t = first; t < end && s->n_s > 0; t++) {
    const double dt = (double)real_row(s->p->dt, t)[h];
    const float *turn = s->turn + t * s->n_s;
#pragma omp simd
    for (int64_t i = 0; i < s->n_s; i++) theta[i] += (double)turn[i] * dt;
  }
}

void scan_tile_carve(const Scan *s, TileWork *w, Carver *c) {
  const int64_t m = s->n_m, widest = max_i64(m, max_i64(s->n_rows, s->n_cols));
  w->B = carve(c, m * s->n_cols);
  w->C = carve(c, m * s->n_cols);
  w->k = s->kq_shared ? w->B : carve(c, m * s->n_cols);
  w->q = s->kq_shared ? w->C : carve(c, m * s->n_cols);
  w->K = carve(c, m * m);
  w->F = carve(c, m * m);
  w->v = carve(c, m * s->n_rows);
  w->vw = carve(c, m * s->n_rows);
  w->y = carve(c, m * s->n_rows);
  w->turned = carve(c, max_i64(m, s->n_rows) * max_i64(s->n_n, s->n_p));
  w->packed = s->bf16 ? (uint16_t *)carve(c, ceil_div(tile_bf16_scratch(widest, widest, widest), 2)) : NULL;
  w->bias = carve(c, s->n_r * s->n_cols);
  w->angle = carve(c, 2 * s->n_tile * s->n_s);
  w->cosine = carve(c, s->n_tile * turned_width(s));
  w->sine = carve(c, s->n_tile * turned_width(s));
  w->until = carve(c, m / LANES * m);
  w->near = carve(c, s->n_tile * LANES);
  w->near_weight = carve(c, s->n_tile * LANES);
  float **per_row[] = {&w->high, &w->low, &w->w, &w->gamma, &w->start, &w->end, &w->wend, &w->since};
  for (size_t i = 0; i < sizeof per_row / sizeof per_row[0]; i++) *per_row[i] = carve(c, m);
  float **wide[] = {&w->whole, &w->one, &w->D, &w->B_norm, &w->C_norm, &w->row};
  for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) *wide[i] = carve(c, widest);
  w->width = (int64_t *)carve(c, 2 * m);
  for (int64_t i = 0; w->width && i < m; i++) w->width[i] = min_i64(m, tile_causal_width(i, s->n_r, s->bf16));
  for (int64_t i = 0; w->one && i < widest; i++) w->one[i] = 1;
}

/* B or C of the tile, normed with `norm` (tensor and its row as floats) where the model norms. */
static void load_shared(const Scan *s, Tile tile, int64_t g, const Tensor *B, const Tensor *norm, float *weight,
                        float *to) {
  for (int64_t r = 0; r < s->n_r; r++)
    load_rows(B, tile.first, tile.n, (r * s->n_g + g) * s->n_n, s->n_n, s->n_cols, to + r * s->n_cols,
              s->n_r * s->n_cols);
  if (norm) load_rows(norm, 0, 1, 0, s->n_n, s->n_n, weight, 0);
  for (int64_t i = 0; norm && i < tile.m; i++, to += s->n_cols) {
    const float scale = 1 / sqrtf(dot(to, to, s->n_n) / (float)s->n_n + (float)s->p->norm_eps);
#pragma omp simd
    for (int64_t n = 0; n < s->n_n; n++) to[n] *= scale * weight[n];
  }
}

void scan_tile_shared(const Scan *s, TileWork *w, Tile tile, int64_t g) {
  load_shared(s, tile, g, s->p->B, s->p->B_norm, w->B_norm, w->B);
  load_shared(s, tile, g, s->p->C, s->p->C_norm, w->C_norm, w->C);
  if (s->kq_shared) scan_tile_products(s, w, tile);
}

void scan_tile_decays(const Scan *s, TileWork *w, Tile tile, int64_t h) {
  const SsdScan *p = s->p;
  double sum = 0;
  for (int64_t t = tile.first, i = 0; t < tile.first + tile.n; t++) {
    const float dt = real_row(p->dt, t)[h], gamma = p->lambda ? real_row(p->lambda, t)[h] * dt : dt;
    const bool last = tile.ends_sequence && t + 1 == tile.first + tile.n;
    const float weight = gamma + (last ? 0 : delta_before(p, t + 1, h));
    sum += (double)real_row(p->a, t)[h];
    const float high = (float)sum, low = (float)(sum - (double)high);
    for (int64_t r = 0; r < s->n_r; r++, i++) w->gamma[i] = gamma, w->w[i] = weight, w->high[i] = high, w->low[i] = low;
  }
  const float high = w->high[tile.m - 1], low = w->low[tile.m - 1];
#pragma omp simd
  for (int64_t i = 0; i < tile.m; i++) {
    w->start[i] = real_exp(w->high[i]);
    w->end[i] = real_exp((high - w->high[i]) + (low - w->low[i]));
    w->wend[i] = w->w[i] * w->end[i];
  }
  const float whole = w->start[tile.m - 1];
  for (int64_t i = 0; i < max_i64(s->n_p, s->n_n); i++) w->whole[i] = whole;
}

void scan_tile_between(const Scan *s, TileWork *w, Tile tile) {
  for (int64_t first = 0; first < tile.m; first += LANES) {
    const float high = w->high[first], low = w->low[first];
    float *until = w->until + first / LANES * s->n_m;
#pragma omp simd
    for (int i = 0; i < LANES; i++) /* rows behind the last are never used */
      w->since[first + i] = real_exp((w->high[first + i] - high) + (w->low[first + i] - low));
#pragma omp simd
    for (int64_t j = 0; j < first; j++) until[j] = real_exp((high - w->high[j]) + (low - w->low[j]));
  }
  for (int64_t t = 0, own = 0; t < tile.n; t++, own += s->n_r) {
    const int64_t first = own / LANES * LANES;
    const int n_before = (int)(own - first), n = (int)(own + s->n_r - first);
    const float high = w->high[own], low = w->low[own], gamma = w->gamma[own];
    const float *high_j = w->high + first, *low_j = w->low + first, *weight = w->w + first;
    float *near = w->near + t * LANES, *near_weight = w->near_weight + t * LANES;
#pragma omp simd
    for (int l = 0; l < LANES; l++) {
      const float decay = real_exp((high - high_j[l]) + (low - low_j[l]));
      near[l] = l < n_before ? decay : 0;
      near_weight[l] = l < n_before ? decay * weight[l] : l < n ? gamma : 0;
    }
  }
}

/* The angles of the tile's tokens, as cosines and sines. */
static void rotations(const Scan *s, TileWork *w, Tile tile, int64_t h, double *theta) {
  const int64_t n_s = s->n_s, n = tile.n * n_s, width = turned_width(s);
  float *at = w->angle, *cosine = s->p->rotate_halves ? w->cosine : at, *sine = s->p->rotate_halves ? w->sine : at + n;
  for (int64_t t = 0; t < tile.n; t++) {
    const double dt = (double)real_row(s->p->dt, tile.first + t)[h];
    const float *turn = s->turn + (tile.first + t) * n_s;
#pragma omp simd
    for (int64_t i = 0; i < n_s; i++) {
      theta[i] += (double)turn[i] * dt;
      at[t * n_s + i] = (float)wrap(theta[i]);
    }
  }
  for (int64_t i = 0; i < n_s; i++) theta[i] = wrap(theta[i]);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) real_sincos(at[i], &sine[i], &cosine[i]);
  for (int64_t t = 0; !s->p->rotate_halves && t < tile.n; t++, cosine += n_s, sine += n_s) {
    float *twice = w->cosine + t * width, *both = w->sine + t * width;
#pragma omp simd
    for (int64_t i = 0; i < n_s; i++) {
      twice[2 * i] = twice[2 * i + 1] = cosine[i];
      both[2 * i] = -sine[i], both[2 * i + 1] = sine[i];
    }
    for (int64_t j = 2 * n_s; j < width; j++) twice[j] = 1, both[j] = 0;
  }
}

/* The head's rows from the shared ones: bias, rotation. */
static void prepare_rows(const Scan *s, const TileWork *w, Tile tile, int64_t h, const float *shared,
                         const Tensor *bias, float *to) {
  const int64_t n_n = s->n_n, n_cols = s->n_cols, width = turned_width(s), half = n_n / 2;
  zero(w->bias, s->n_r * n_cols);
  for (int64_t r = 0; bias && r < s->n_r; r++) copy(w->bias + r * n_cols, real_block(bias, h * s->n_r + r, n_n), n_n);
  for (int64_t i = 0, r = 0, t = 0; i < tile.m; i++, shared += n_cols, to += n_cols) {
    const float *b = w->bias + r * n_cols, *cosine = w->cosine + t * width, *sine = w->sine + t * width;
    int64_t j = 0;
    for (; !s->p->rotate_halves && j < width; j += LANES) {
      const Lanes x = *lanes_of(shared + j) + *lanes_of(b + j);
      Lanes turned = x;
      lanes_swap_pairs(&turned);
      *lanes_at(to + j) = x * *lanes_of(cosine + j) + turned * *lanes_of(sine + j);
    }
    for (; j < n_cols; j += LANES) *lanes_at(to + j) = *lanes_of(shared + j) + *lanes_of(b + j);
    if (++r == s->n_r) r = 0, t++;
    if (!s->p->rotate_halves) continue;
#pragma omp simd
    for (int64_t c = 0; c < s->n_s; c++) {
      const float x = to[c], y = to[half + c];
      to[c] = x * cosine[c] - y * sine[c];
      to[half + c] = x * sine[c] + y * cosine[c];
    }
  }
}

void scan_tile_prepare(const Scan *s, TileWork *w, Tile tile, int64_t h, double *theta, bool q_too) {
  rotations(s, w, tile, h, theta);
  prepare_rows(s, w, tile, h, w->B, s->p->B_bias, w->k);
  if (q_too) prepare_rows(s, w, tile, h, w->C, s->p->C_bias, w->q);
}

void scan_product(const Scan *s, TileWork *w, int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb,
                  const float *keep, float *c, int64_t ldc) {
  if (s->bf16) tile_product_bf16(m, n, k, a, b, ldb, false, keep, c, ldc, w->packed);
  else tile_product(m, n, k, a, b, ldb, keep, c, ldc);
}

void scan_product_t(const Scan *s, TileWork *w, int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb,
                    bool causal, float *c, int64_t ldc) {
  if (s->bf16) {
    if (causal) tile_product_causal_bf16(m, n, k, a, b, ldb, true, s->n_r, c, ldc, w->packed);
    else tile_product_bf16(m, n, k, a, b, ldb, true, NULL, c, ldc, w->packed);
    return;
  }
  const int64_t width = round_up(n, LANES);
  for (int64_t q = 0; n < width && q < k; q++) zero(w->turned + q * width + n, width - n);
  tile_transpose(n, k, b, ldb, w->turned, width);
  if (causal) tile_product_causal(m, width, k, a, w->turned, width, s->n_r, c, ldc);
  else tile_product(m, width, k, a, w->turned, width, NULL, c, ldc);
}

void scan_tile_products(const Scan *s, TileWork *w, Tile tile) {
  scan_product_t(s, w, tile.m, tile.m, s->n_n, tile_a(w->q, s->n_cols), w->k, s->n_cols, true, w->K, s->n_m);
}

void scan_tile_v(const Scan *s, TileWork *w, Tile tile, int64_t h) {
  const bool per_channel = s->p->D->dim[0] != s->n_h;
  for (int64_t c = 0; c < s->n_p; c++) w->D[c] = ((const float *)s->p->D->data)[per_channel ? h * s->n_p + c : h];
  load_rows(s->p->x, tile.first, tile.n, h * s->n_p, s->n_p, s->n_rows, w->v, s->n_r * s->n_rows);
  for (int64_t t = 0; s->p->mimo_x && t < tile.n; t++) {
    float *v = w->v + t * s->n_r * s->n_rows;
    for (int64_t r = s->n_r - 1; r >= 0; r--) {
      const float *mimo = real_block(s->p->mimo_x, h * s->n_r + r, s->n_p);
      float *v_r = v + r * s->n_rows;
#pragma omp simd
      for (int64_t c = 0; c < s->n_p; c++) v_r[c] = v[c] * mimo[c];
      if (r > 0) zero(v_r + s->n_p, s->n_rows - s->n_p);
    }
  }
}

void scan_tile_state(const Scan *s, TileWork *w, Tile tile, float *S) {
  weigh_rows(s, w, tile, w->v, w->wend);
  scan_product(s, w, s->n_p, s->n_cols, tile.m, tile_a_t(w->vw, s->n_rows), w->k, s->n_cols,
               tile.from_zero ? NULL : w->whole, S, s->n_cols);
}

void scan_load_state(const Scan *s, const Tensor *from, int64_t i, float *to) {
  if (!from) zero(to, s->n_p * s->n_cols);
  for (int64_t c = 0; from && c < s->n_p; c++, to += s->n_cols) {
    copy(to, real_block(from, i * s->n_p + c, s->n_n), s->n_n);
    if (s->n_cols > s->n_n) zero(to + s->n_n, s->n_cols - s->n_n);
  }
}

/* States of at least so many bytes are out of the caches before backward comes for them. */
enum { MANY_STATES = 8 << 20 };

void scan_store_state(const Scan *s, Tensor *to, int64_t i, const float *from) {
  if (to && s->n_cols == s->n_n && tensor_bytes(to) >= MANY_STATES) {
    copy_past_caches(real_block(to, i * s->n_p, s->n_n), from, s->n_p * s->n_n);
    return;
  }
  for (int64_t c = 0; c < s->n_p; c++) store_block(to, i * s->n_p + c, from + c * s->n_cols, s->n_n);
}

#endif
