/* ssd_scan, chunked: forward (ssd_scan_chunked.h). One task is a sequence and a part of a group's heads; it goes from
 * tile to tile, and in a tile from head to head. */
#include "tensor/cpu/ssd_scan_chunked.h"

#ifndef ASPIS_REAL_F64

#include <omp.h>

enum { FEW_ROWS = 8 };

/* What crosses segments. */
typedef struct Joint {
  Segment *segments;
  float *state; /* (segments, H, P, N): what enters the next segment; none where sequences are not split */
  float *whole; /* (segments, H): exp(sum of a) */
} Joint;

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

static Scan forward_make(const SsdScan *p, Joint *joint, Carver *c) {
  Scan s = scan_tile_sizes(p, false);
  scan_carve(&s, false, c);
  const bool split = s.segment < s.n_t;
  joint->segments = (Segment *)carve(c, s.n_segments * (int64_t)(sizeof(Segment) / sizeof(float)));
  joint->state = split ? carve(c, s.n_segments * s.n_h * s.n_p * s.n_cols) : NULL;
  joint->whole = carve(c, s.n_segments * s.n_h);
  Work unused;
  s.work_size = work_carve(&s, &unused, NULL);
  s.work = carve(c, s.work_size * omp_get_max_threads());
  return s;
}

int64_t scan_forward_scratch(const SsdScan *p) {
  Carver c = {0};
  Joint joint;
  forward_make(p, &joint, &c);
  return c.used;
}

/* S and theta before segment k, for head h; where the states are only being found, of the first segment alone. */
static void begin_head(const Scan *s, const Joint *joint, int64_t k, int64_t h, bool find, float *state,
                       double *theta) {
  const SsdScan *p = s->p;
  const Segment segment = joint->segments[k];
  const int64_t seq = segment.seq, start = s->starts[seq], at = seq * s->n_h + h, size = s->n_p * s->n_cols;
  for (int64_t i = 0; i < s->n_s; i++) theta[i] = p->angle_in ? (double)real_block(p->angle_in, at, s->n_s)[i] : 0;
  scan_turn(s, h, start, segment.first, theta);
  for (int64_t i = 0; i < s->n_s; i++) theta[i] = wrap(theta[i]);
  if (!begins_sequence(s, segment)) {
    if (find) zero(state, size);
    else copy(state, joint->state + ((k - 1) * s->n_h + h) * size, size);
    return;
  }
  if (!takes_state(p)) return; /* the first tile will only write it */
  scan_load_state(s, p->ssm_in, at, state);
  if (!has_carried_input(p)) return;
  const float delta = delta_before(p, start, h), *x = real_block(p->v_in, at, s->n_p);
  for (int64_t r = 0; r < s->n_r; r++) {
    const float *key = real_block(p->k_in, (seq * s->n_r + r) * s->n_h + h, s->n_n);
    const float *mimo = real_block(p->mimo_x, h * s->n_r + r, s->n_p);
    for (int64_t c = 0; c < s->n_p; c++)
      add_scaled(state + c * s->n_cols, delta * (mimo ? mimo[c] * x[c] : x[c]), key, s->n_n);
  }
}

/* F of the tile's head; asks for what the next one reads and writes. */
static void mix_rows(const Scan *s, TileWork *w, Tile tile, Next then) {
  const int64_t m_padded = round_up(tile.m, LANES);
  scan_tile_between(s, w, tile);
  for (int64_t i = 0, t = 0, own = 0, next = s->n_r; i < tile.m; i++) {
    const int64_t width = min_i64(w->width[i], m_padded);
    const float *K = w->K + i * s->n_m;
    float *F = w->F + i * s->n_m;
    int64_t j = 0;
    Lanes decay;
    if (i == own) prefetch_token(s, then, t, s->p->x, s->p->y);
    for (; j + LANES <= own; j += LANES) {
      decays_before(s, w, i, j, &decay);
      *lanes_at(F + j) = decay * *lanes_of(w->w + j) * *lanes_of(K + j);
    }
    *lanes_at(F + j) = *lanes_of(w->near_weight + t * LANES) * *lanes_of(K + j);
    for (j += LANES; j < next; j++) F[j] = w->gamma[i] * K[j]; /* ranks behind the vector that their token begins in */
    if (j < width) zero(F + j, width - j);
    if (i + 1 == next) t++, own = next, next += s->n_r;
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
  scan_product_t(s, w, tile.m, s->n_p, s->n_n, tile_a(w->q, n_cols), S, n_cols, false, w->y, n_rows);
}

/* y of one head of the tile, and S from before the tile to behind it where that is `wanted`. */
static void forward_head(const Scan *s, TileWork *w, Tile tile, int64_t h, float *state, bool wanted, Next next) {
  const SsdScan *p = s->p;
  const int64_t m = tile.m, n_rows = s->n_rows;
  scan_tile_decays(s, w, tile, h);
  scan_tile_v(s, w, tile, h);
  mix_rows(s, w, tile, next);
  if (!tile.from_zero) read_state(s, w, tile, state);
  scan_product(s, w, m, n_rows, m, tile_causal(w->F, s->n_m, s->n_r), w->v, n_rows, tile.from_zero ? NULL : w->start,
               w->y, n_rows);
  for (int64_t r = 0; r < s->n_r; r++) {
    Tensor own = cols_from(p->y, (r * s->n_h + h) * s->n_p);
    for (int64_t t = 0; t < tile.n; t++) {
      const float *v = w->v + (t * s->n_r + r) * n_rows, *y = w->y + (t * s->n_r + r) * n_rows;
      float *out = row_out(&own, tile.first + t, w->row);
#pragma omp simd
      for (int64_t c = 0; c < s->n_p; c++) out[c] = real_fma(w->D[c], v[c], y[c]);
      row_store(&own, tile.first + t, s->n_p, out);
    }
  }
  if (wanted) scan_tile_state(s, w, tile, state);
}

/* What the sequence's last token leaves behind. */
static void end_head(const Scan *s, TileWork *w, Tile tile, int64_t h, const float *state, const double *theta) {
  const SsdScan *p = s->p;
  const int64_t at = tile.seq * s->n_h + h;
  scan_store_state(s, p->ssm_out, at, state);
  for (int64_t i = 0; p->angle_out && i < s->n_s; i++) real_block(p->angle_out, at, s->n_s)[i] = (float)theta[i];
  if (p->v_out) load_rows(p->x, tile.first + tile.n - 1, 1, h * s->n_p, s->n_p, s->n_p, w->row, 0);
  store_block(p->v_out, at, w->row, s->n_p);
  for (int64_t r = 0; r < s->n_r; r++)
    store_block(p->k_out, (tile.seq * s->n_r + r) * s->n_h + h, w->k + (tile.m - s->n_r + r) * s->n_cols, s->n_n);
}

/* One task: the heads of part `part` of group `g` in segment k. */
static void forward_part(const Scan *s, const Joint *joint, Work *w, int64_t k, int64_t g, int64_t part) {
  const Segment segment = joint->segments[k];
  const int64_t seq = segment.seq, end = segment.end, size = s->n_p * s->n_cols;
  const int64_t first_head = part_first_head(s, g, part), n_heads = part_first_head(s, g, part + 1) - first_head;
  for (int64_t i = 0; i < n_heads; i++)
    begin_head(s, joint, k, first_head + i, false, w->state + i * size, w->theta + i * s->n_s);
  for (int64_t first = segment.first; first < end;) {
    const Tile tile = scan_tile_at(s, seq, first);
    const bool wanted = first + tile.n < end || (tile.ends_sequence && s->p->ssm_out);
    scan_tile_shared(s, &w->tile, tile, g);
    for (int64_t i = 0; i < n_heads; i++) {
      const int64_t h = first_head + i;
      float *state = w->state + i * size;
      double *theta = w->theta + i * s->n_s;
      if ((first - s->starts[seq]) % s->n_q == 0 && !tile.from_zero)
        scan_store_state(s, s->p->chunk_states, chunk_row(s, seq, first) * s->n_h + h, state);
      if (!s->kq_shared) {
        scan_tile_prepare(s, &w->tile, tile, h, theta, true);
        scan_tile_products(s, &w->tile, tile);
      }
      const Next next = i + 1 < n_heads ? (Next){first, tile.n, h + 1}
                                        : (Next){first + tile.n, min_i64(tile.n, end - first - tile.n), first_head};
      forward_head(s, &w->tile, tile, h, state, wanted, next);
      if (tile.ends_sequence) end_head(s, &w->tile, tile, h, state, theta);
    }
    first += tile.n;
  }
}

/* The same, but nothing is wanted except what the segment adds to the state. */
static void find_state(const Scan *s, const Joint *joint, Work *w, int64_t k, int64_t g, int64_t part) {
  const Segment segment = joint->segments[k];
  const int64_t size = s->n_p * s->n_cols;
  for (int64_t h = part_first_head(s, g, part); h < part_first_head(s, g, part + 1); h++) {
    float *state = joint->state + (k * s->n_h + h) * size;
    double sum = 0;
    begin_head(s, joint, k, h, true, state, w->theta);
    for (int64_t first = segment.first; first < segment.end;) {
      const Tile tile = scan_tile_at(s, segment.seq, first);
      scan_tile_shared(s, &w->tile, tile, g);
      if (!s->kq_shared) scan_tile_prepare(s, &w->tile, tile, h, w->theta, false);
      scan_tile_decays(s, &w->tile, tile, h);
      scan_tile_v(s, &w->tile, tile, h);
      scan_tile_state(s, &w->tile, tile, state);
      sum += (double)w->tile.high[tile.m - 1] + (double)w->tile.low[tile.m - 1];
      first += tile.n;
    }
    joint->whole[k * s->n_h + h] = (float)exp(sum);
  }
}

/* From what each segment adds to what enters the next. */
static void join_states(const Scan *s, const Joint *joint, int64_t n_segments) {
  const int64_t size = s->n_p * s->n_cols;
#pragma omp parallel for schedule(static)
  for (int64_t h = 0; h < s->n_h; h++)
    for (int64_t k = 1; k < n_segments; k++) {
      float *state = joint->state + (k * s->n_h + h) * size;
      if (!begins_sequence(s, joint->segments[k]))
        add_scaled(state, joint->whole[k * s->n_h + h], state - s->n_h * size, size);
    }
}

typedef void ForwardTask(const Scan *s, const Joint *joint, Work *w, int64_t k, int64_t g, int64_t part);
static void for_tasks(const Scan *s, const Joint *joint, int64_t n_segments, ForwardTask *run) {
  const int64_t n_parts = s->n_g * s->n_parts;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < n_segments * n_parts; task++) {
    Work w;
    work_carve(s, &w, s->work + s->work_size * omp_get_thread_num());
    run(s, joint, &w, task / n_parts, task % n_parts / s->n_parts, task % s->n_parts);
  }
}

KERNEL_FWD(ssd_scan, SsdScan) {
  Carver c = {.block = p->scratch};
  Joint joint;
  Scan s = forward_make(p, &joint, &c);
  scan_check_lengths(&s);
  scan_turn_fill(&s);
  const int64_t n_segments = scan_segments(&s, joint.segments);
  if (n_segments > s.n_seq) {
    for_tasks(&s, &joint, n_segments, find_state);
    join_states(&s, &joint, n_segments);
  }
  for_tasks(&s, &joint, n_segments, forward_part);
}

#endif
