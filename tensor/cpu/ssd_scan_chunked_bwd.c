/* ssd_scan, chunked: backward (ssd_scan_chunked.h). Tiles from the last to the first, each with the state that forward
 * saved for its chunk; where a chunk has several tiles, the states between them are computed again. One task is a
 * sequence and a part of a group's heads, for one span of tokens: spans follow each other from the last to the first, so
 * that the slabs of what heads share stay as small as a span, however long the sequences are. */
#include "tensor/cpu/ssd_scan_chunked.h"

#ifndef ASPIS_REAL_F64

#include <omp.h>

/* About as many tokens of each sequence lie between two sums of the slabs. */
enum { SPAN = 1024 };

/* What outlives a span, per segment and head; at first what comes from the segments behind. */
typedef struct Carried {
  Segment *segments;
  float *G;            /* (segments, H, P, N): the gradient of the state behind the tiles done so far */
  double *theta;       /* (segments, H, S): theta of the last token before them */
  double *dtheta;      /* (segments, H, S): the sum of its gradients behind them */
  float *ddelta;       /* (segments, H): the gradient of the last token's delta */
  float *whole;        /* (segments, H): exp(sum of a) */
  int64_t *slab_start; /* (segments): the first row in the slab */
} Carried;

typedef struct Work {
  TileWork tile;
  float *states;     /* (tiles of a chunk, heads, P, N) */
  float *T, *T_sum;  /* (M, M) causal: U, then T; the heads' sum */
  float *dv;         /* (M, P) */
  float *dk, *dq;    /* (M, N) */
  float *dB, *dC;    /* (M, N): the heads' sum */
  float *dturn;      /* (tokens, S): the heads' sum */
  float *cross;      /* (tokens, N): each element's share in the gradient of its pair's theta, by token */
  float *column;     /* (M): sum over i of exp(A_i - A_j) K_ij U_ij */
  float *from_state; /* (tokens): sum of dq_i . q_i through S */
  float *into_state; /* (M): exp(A_end - A_j) v_j . G k_j */
  float *crossing;   /* (tokens): pairs of the tile across t */
  float *same;       /* (tokens): pairs within t */
  float *dbias;      /* (2, R, N): of B_bias and C_bias */
  float *dvector;    /* (1 + R, P): of D and mimo_x */
  float *sum;        /* (max(N, P)): a sum over rows */
  float *ddt;        /* (tokens) */
  double *theta;     /* (heads, S) */
} Work;

/* A head's sums over its sequence: (P), (R, N), (R, N), (R, P). */
typedef struct ParamGradient {
  float *dD, *dB_bias, *dC_bias, *dmimo_x;
} ParamGradient;

static int64_t tiles_per_chunk(const Scan *s) { return ceil_div(min_i64(s->n_q, s->n_t), s->n_tile); }
static int64_t span_tokens(int64_t n_q) { return max_i64(1, SPAN / n_q) * n_q; }

static int64_t work_carve(const Scan *s, Work *w, float *block) {
  Carver c = {.block = block};
  const int64_t m = s->n_m;
  scan_tile_carve(s, &w->tile, &c);
  w->states = carve(&c, tiles_per_chunk(s) * s->max_heads * s->n_p * s->n_cols);
  w->T = carve(&c, m * m);
  w->T_sum = carve(&c, m * m);
  w->dv = carve(&c, m * s->n_rows);
  w->dk = carve(&c, m * s->n_cols);
  w->dq = carve(&c, m * s->n_cols);
  w->dB = carve(&c, m * s->n_cols);
  w->dC = carve(&c, m * s->n_cols);
  w->dturn = carve(&c, s->n_tile * s->n_s);
  w->cross = carve(&c, s->n_tile * s->n_cols);
  w->column = carve(&c, m);
  w->from_state = carve(&c, s->n_tile);
  w->into_state = carve(&c, m);
  w->crossing = carve(&c, s->n_tile);
  w->same = carve(&c, s->n_tile);
  w->dvector = carve(&c, (1 + s->n_r) * s->n_rows);
  w->dbias = carve(&c, 2 * s->n_r * s->n_cols);
  w->sum = carve(&c, max_i64(max_i64(s->n_cols, s->n_rows), s->n_s));
  w->ddt = carve(&c, s->n_tile);
  w->theta = (double *)carve(&c, s->max_heads * s->n_s * 2);
  return c.used;
}

static Scan backward_make(const SsdScan *p, Carried *carried, Carver *c) {
  Scan s = scan_tile_sizes(p, true);
  s.n_slab = min_i64(s.n_t, s.n_segments * span_tokens(s.n_q));
  scan_carve(&s, true, c);
  const int64_t n = s.n_segments * s.n_h;
  carried->segments = (Segment *)carve(c, s.n_segments * (int64_t)(sizeof(Segment) / sizeof(float)));
  carried->G = carve(c, n * s.n_p * s.n_cols);
  carried->theta = (double *)carve(c, n * s.n_s * 2);
  carried->dtheta = (double *)carve(c, n * s.n_s * 2);
  carried->ddelta = carve(c, n);
  carried->whole = carve(c, n);
  carried->slab_start = (int64_t *)carve(c, s.n_segments * 2);
  Work unused;
  s.work_size = work_carve(&s, &unused, NULL);
  s.work = carve(c, s.work_size * omp_get_max_threads());
  return s;
}

/* ---- one head of a tile ---- */

/* K and U to F and T; the sums over pairs of exp(A_i - A_j) K_ij U_ij, going up from the last row, so that `column` holds
 * the rows below the token whose `crossing` is taken. */
static void mix_backward(const Scan *s, Work *work, Tile tile, Next then) {
  TileWork *w = &work->tile;
  const int64_t n_r = s->n_r, n_m = s->n_m, m_padded = round_up(tile.m, LANES);
  float *column = work->column;
  zero(column, n_m);
  scan_tile_between(s, w, tile);
  for (int64_t t = tile.n - 1; t >= 0; t--) {
    const int64_t own = t * n_r, next = own + n_r;
    float same = 0;
    prefetch_token(s, then, t, s->p->x, s->p->dy);
    if (t < then.n) row_prefetch(s->p->dx, then.first + t, then.h * s->n_p, s->n_p);
    for (int64_t i = own; i < next; i++) {
      const int64_t width = min_i64(w->width[i], m_padded);
      const float *K = w->K + i * n_m;
      float *F = w->F + i * n_m, *T = work->T + i * n_m;
      for (int64_t j = own; j < next; j++) same += K[j] * T[j];
      int64_t j = 0;
      Lanes decay;
      for (; j + LANES <= own; j += LANES) {
        decays_before(s, w, i, j, &decay);
        const Lanes K_j = *lanes_of(K + j), U = *lanes_of(T + j), weighted = decay * *lanes_of(w->w + j);
        *lanes_at(column + j) += decay * K_j * U;
        *lanes_at(F + j) = weighted * K_j;
        *lanes_at(T + j) = weighted * U;
      }
      const Lanes K_j = *lanes_of(K + j), U = *lanes_of(T + j), weighted = *lanes_of(w->near_weight + t * LANES);
      *lanes_at(column + j) += *lanes_of(w->near + t * LANES) * K_j * U;
      *lanes_at(F + j) = weighted * K_j;
      *lanes_at(T + j) = weighted * U;
      for (j += LANES; j < next; j++) /* ranks behind the vector that their token begins in */
        F[j] = w->gamma[i] * K[j], T[j] *= w->gamma[i];
      if (j < width) zero(F + j, width - j), zero(T + j, width - j);
      if (s->kq_shared) add_scaled(work->T_sum + i * n_m, 1, T, width);
    }
    work->same[t] = same;
    work->crossing[t] = dot(column, w->w, own);
  }
}

/* dy of the tile's head. */
static void load_dy(const Scan *s, TileWork *w, Tile tile, int64_t h) {
  if (!s->p->dy) zero(w->y, tile.m * s->n_rows);
  for (int64_t r = 0; s->p->dy && r < s->n_r; r++)
    load_rows(s->p->dy, tile.first, tile.n, (r * s->n_h + h) * s->n_p, s->n_p, s->n_rows, w->y + r * s->n_rows,
              s->n_r * s->n_rows);
}

/* G from behind the tile to before it. */
static void step_gradient(const Scan *s, TileWork *w, Tile tile, float *G) {
  weigh_rows(s, w, tile, w->y, w->start);
  scan_product(s, w, s->n_p, s->n_cols, tile.m, tile_a_t(w->vw, s->n_rows), w->q, s->n_cols,
               tile.to_zero ? NULL : w->whole, G, s->n_cols);
}

/* The products of one head: dv, dq, dk (into dB, dC where heads share k and q), G, and the scalars' sums. Returns what
 * goes from S straight to G: exp(A_end) <S, G>. */
static float head_products(const Scan *s, Work *work, Tile tile, const float *S, float *G, Next next) {
  TileWork *w = &work->tile;
  const int64_t m = tile.m, n_r = s->n_r, n_m = s->n_m, n_p = s->n_p, n_n = s->n_n;
  const int64_t n_rows = s->n_rows, n_cols = s->n_cols;
  scan_product_t(s, w, m, m, n_p, tile_a(w->y, n_rows), w->v, n_rows, true, work->T, n_m);
  mix_backward(s, work, tile, next);

  if (!tile.to_zero) scan_product_t(s, w, m, n_p, n_n, tile_a(w->k, n_cols), G, n_cols, false, work->dv, n_rows);
  for (int64_t j = 0; j < m; j++)
    work->into_state[j] = tile.to_zero ? 0 : w->end[j] * dot(w->v + j * n_rows, work->dv + j * n_rows, n_p);
  scan_product(s, w, m, n_rows, m, tile_causal_t(w->F, n_m, n_r), w->y, n_rows, tile.to_zero ? NULL : w->wend, work->dv,
               n_rows);

  if (!tile.from_zero) scan_product(s, w, m, n_cols, n_p, tile_a(w->y, n_rows), S, n_cols, NULL, work->dq, n_cols);
  for (int64_t t = 0, i = 0; t < tile.n; t++) {
    work->from_state[t] = 0;
    for (; i < (t + 1) * n_r && !tile.from_zero; i++)
      work->from_state[t] += w->start[i] * dot(w->q + i * n_cols, work->dq + i * n_cols, n_n);
  }
  if (s->kq_shared) {
    for (int64_t i = 0; i < m && !tile.from_zero; i++)
      add_scaled(work->dC + i * n_cols, w->start[i], work->dq + i * n_cols, n_cols);
    if (!tile.to_zero) {
      weigh_rows(s, w, tile, w->v, w->wend);
      scan_product(s, w, m, n_cols, n_p, tile_a(w->vw, n_rows), G, n_cols, w->one, work->dB, n_cols);
    }
  } else {
    scan_product(s, w, m, n_cols, m, tile_causal(work->T, n_m, n_r), w->k, n_cols, tile.from_zero ? NULL : w->start,
                 work->dq, n_cols);
    if (!tile.to_zero) scan_product(s, w, m, n_cols, n_p, tile_a(w->v, n_rows), G, n_cols, NULL, work->dk, n_cols);
    scan_product(s, w, m, n_cols, m, tile_causal_t(work->T, n_m, n_r), w->q, n_cols, tile.to_zero ? NULL : w->wend,
                 work->dk, n_cols);
  }

  const float straight = tile.from_zero || tile.to_zero ? 0 : w->whole[0] * dot(S, G, n_p * n_cols);
  if (tile.reaches_in) step_gradient(s, w, tile, G);
  return straight;
}

/* ddt (into work->ddt, which theta adds to), da and dlambda of the tile's tokens. */
static void scalars_backward(const Scan *s, const Carried *carried, Work *work, Tile tile, int64_t h, float straight) {
  const SsdScan *p = s->p;
  const TileWork *w = &work->tile;
  float before = straight, behind = 0;
  for (int64_t t = 0, j = 0; t < tile.n; t++) {
    const int64_t row = tile.first + t;
    float ddelta = 0;
    work->crossing[t] += before;
    for (; j < (t + 1) * s->n_r; j++) {
      ddelta += work->column[j] + work->into_state[j];
      before += w->w[j] * work->into_state[j];
    }
    const float dgamma = ddelta + work->same[t];
    work->ddt[t] = dgamma;
    if (!p->lambda) continue;
    work->ddt[t] *= real_row(p->lambda, row)[h];
    add_scalar(p->dlambda, row, h, real_row(p->dt, row)[h] * dgamma);
    /* the next segment's first token is another task's */
    if (row + 1 == carried->segments[tile.segment].end) carried->ddelta[tile.segment * s->n_h + h] = ddelta;
    else delta_backward(p, row + 1, h, ddelta);
  }
  for (int64_t t = tile.n - 1; t >= 0; t--) {
    behind += work->from_state[t];
    add_scalar(p->da, tile.first + t, h, work->crossing[t] + behind);
  }
}

/* One row of dk or dq back through the rotation; each element's share in theta's gradient, (dk, neighbours swapped) k, is
 * added to `cross`, and the row behind the rotation to `shared` and `bias`. */
static void rotate_back(const Scan *s, const float *k, const float *cosine, const float *sine, float *dk, float *cross,
                        float *shared, float *bias) {
  const int64_t width = turned_width(s), half = s->n_n / 2;
  int64_t j = 0;
  for (; !s->p->rotate_halves && j < width; j += LANES) {
    const Lanes x = *lanes_of(dk + j);
    Lanes turned = x;
    lanes_swap_pairs(&turned);
    const Lanes back = x * *lanes_of(cosine + j) - turned * *lanes_of(sine + j);
    *lanes_at(cross + j) += turned * *lanes_of(k + j);
    *lanes_at(shared + j) += back;
    *lanes_at(bias + j) += back;
  }
  if (s->p->rotate_halves) {
#pragma omp simd
    for (int64_t c = 0; c < s->n_s; c++) {
      const float x = dk[c], y = dk[half + c];
      cross[c] += y * k[c];
      cross[half + c] += x * k[half + c];
      dk[c] = x * cosine[c] + y * sine[c];
      dk[half + c] = y * cosine[c] - x * sine[c];
    }
  }
  for (; j < s->n_cols; j += LANES) {
    const Lanes back = *lanes_of(dk + j);
    *lanes_at(shared + j) += back;
    *lanes_at(bias + j) += back;
  }
}

/* dk and dq of a head back to what heads share, and to theta. */
static void prepare_backward(const Scan *s, Work *work, Tile tile, int64_t h, ParamGradient to, double *dtheta) {
  const SsdScan *p = s->p;
  const TileWork *w = &work->tile;
  const int64_t n_r = s->n_r, n_n = s->n_n, n_cols = s->n_cols, n_s = s->n_s, width = turned_width(s);
  for (int64_t r = 0; p->dk_out && tile.ends_sequence && r < n_r; r++)
    add_scaled(work->dk + (tile.m - n_r + r) * n_cols, 1, real_block(p->dk_out, (tile.seq * n_r + r) * s->n_h + h, n_n),
               n_n);
  float *dB_bias = work->dbias, *dC_bias = dB_bias + n_r * n_cols;
  zero(dB_bias, 2 * n_r * n_cols);
  zero(work->cross, tile.n * n_cols);
  for (int64_t t = 0, at = 0; t < tile.n; t++) {
    const float *cosine = w->cosine + t * width, *sine = w->sine + t * width;
    float *cross = work->cross + t * n_cols;
    for (int64_t r = 0; r < n_r; r++, at += n_cols) {
      rotate_back(s, w->k + at, cosine, sine, work->dk + at, cross, work->dB + at, dB_bias + r * n_cols);
      rotate_back(s, w->q + at, cosine, sine, work->dq + at, cross, work->dC + at, dC_bias + r * n_cols);
    }
  }
  for (int64_t r = 0; r < n_r; r++) {
    add_scaled(to.dB_bias + r * n_n, 1, dB_bias + r * n_cols, n_n);
    add_scaled(to.dC_bias + r * n_n, 1, dC_bias + r * n_cols, n_n);
  }
  for (int64_t t = tile.n - 1; t >= 0 && n_s > 0; t--) {
    const float *cross = work->cross + t * n_cols, *second = cross + n_n / 2, dt = real_row(p->dt, tile.first + t)[h];
    float *sum = work->sum;
    if (p->rotate_halves) {
#pragma omp simd
      for (int64_t i = 0; i < n_s; i++) dtheta[i] += (double)(cross[i] - second[i]);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n_s; i++) dtheta[i] += (double)(cross[2 * i] - cross[2 * i + 1]);
    }
    for (int64_t i = 0; i < n_s; i++) sum[i] = (float)dtheta[i];
    work->ddt[t] += dot(sum, s->turn + (tile.first + t) * n_s, n_s);
    add_scaled(work->dturn + t * n_s, dt, sum, n_s);
  }
}

/* dv of a head to dx, dD and dmimo_x. */
static void v_backward(const Scan *s, Work *work, Tile tile, int64_t h, ParamGradient to) {
  const SsdScan *p = s->p;
  const TileWork *w = &work->tile;
  const int64_t n_p = s->n_p, n_rows = s->n_rows;
  float *dD = work->dvector, *dmimo_x = dD + n_rows;
  zero(dD, (1 + s->n_r) * n_rows);
  for (int64_t i = 0; i < tile.m; i++) {
    const float *v = w->v + i * n_rows, *dy = w->y + i * n_rows;
    float *dv = work->dv + i * n_rows;
#pragma omp simd
    for (int64_t c = 0; c < n_p; c++) {
      dD[c] = real_fma(v[c], dy[c], dD[c]);
      dv[c] = real_fma(w->D[c], dy[c], dv[c]);
    }
  }
  add_scaled(to.dD, 1, dD, n_p);
  Tensor own = p->dx ? cols_from(p->dx, h * n_p) : (Tensor){0};
  for (int64_t t = 0; t < tile.n; t++) {
    float *dx = work->dv + t * s->n_r * n_rows;
    if (p->mimo_x) {
      load_rows(p->x, tile.first + t, 1, h * n_p, n_p, n_p, w->row, 0);
      for (int64_t r = 0; r < s->n_r; r++) {
        const float *mimo = real_block(p->mimo_x, h * s->n_r + r, n_p), *dv = dx + r * n_rows;
        float *dmimo = dmimo_x + r * n_rows;
#pragma omp simd
        for (int64_t c = 0; c < n_p; c++) {
          dmimo[c] = real_fma(w->row[c], dv[c], dmimo[c]);
          work->sum[c] = dv[c] * mimo[c] + (r > 0 ? work->sum[c] : 0);
        }
      }
      dx = work->sum;
    }
    if (p->dv_out && tile.ends_sequence && t + 1 == tile.n)
      add_scaled(dx, 1, real_block(p->dv_out, tile.seq * s->n_h + h, n_p), n_p);
    if (p->dx) row_add(&own, tile.first + t, n_p, dx);
  }
  for (int64_t r = 0; p->mimo_x && r < s->n_r; r++) add_scaled(to.dmimo_x + r * n_p, 1, dmimo_x + r * n_rows, n_p);
}

/* ---- a task ---- */

static ParamGradient param_gradient(const Scan *s, int64_t k, int64_t h) {
  float *dD = s->dparam + (k * s->n_h + h) * s->param_width, *dB_bias = dD + s->n_p;
  float *dC_bias = dB_bias + s->n_r * s->n_n;
  return (ParamGradient){dD, dB_bias, dC_bias, dC_bias + s->n_r * s->n_n};
}

/* theta of the last of n tokens to theta before the first. */
static void turn_back(const Scan *s, int64_t h, int64_t first, int64_t n, double *theta) {
  for (int64_t t = first; t < first + n; t++) {
    const double dt = (double)real_row(s->p->dt, t)[h];
    const float *turn = s->turn + t * s->n_s;
#pragma omp simd
    for (int64_t i = 0; i < s->n_s; i++) theta[i] -= (double)turn[i] * dt;
  }
  for (int64_t i = 0; i < s->n_s; i++) theta[i] = wrap(theta[i]);
}

/* theta of the last token of segment k. */
static void end_theta(const Scan *s, const Carried *carried, int64_t k, int64_t h, double *theta) {
  const Segment segment = carried->segments[k];
  const Tensor *in = s->p->angle_in;
  for (int64_t i = 0; i < s->n_s; i++) theta[i] = in ? (double)real_block(in, segment.seq * s->n_h + h, s->n_s)[i] : 0;
  scan_turn(s, h, s->starts[segment.seq], segment.end, theta);
}

/* Before the last tile of segment k; what comes from segments behind it is in place. */
static void begin_head(const Scan *s, const Carried *carried, int64_t k, int64_t h) {
  const SsdScan *p = s->p;
  const Segment segment = carried->segments[k];
  const int64_t own = k * s->n_h + h, at = segment.seq * s->n_h + h;
  zero(s->dparam + own * s->param_width, s->param_width);
  end_theta(s, carried, k, h, carried->theta + own * s->n_s);
  if (!ends_sequence(s, segment)) return;
  if (p->dssm_out) scan_load_state(s, p->dssm_out, at, carried->G + own * s->n_p * s->n_cols);
  for (int64_t i = 0; i < s->n_s; i++)
    carried->dtheta[own * s->n_s + i] = p->dangle_out ? (double)real_block(p->dangle_out, at, s->n_s)[i] : 0;
}

/* Behind the sequence's first tile: G is the gradient of S_{-1} = h_in + delta sum_r v_in,r k_in,r^T. */
static void end_head(const Scan *s, const Carried *carried, Work *work, int64_t segment, int64_t h) {
  const SsdScan *p = s->p;
  const int64_t seq = carried->segments[segment].seq, own = segment * s->n_h + h, at = seq * s->n_h + h,
                start = s->starts[seq], n_p = s->n_p, n_n = s->n_n;
  const float *G = carried->G + own * n_p * s->n_cols;
  for (int64_t c = 0; c < n_p; c++) add_block(p->dssm_in, at * n_p + c, G + c * s->n_cols, n_n);
  for (int64_t i = 0; p->dangle_in && i < s->n_s; i++)
    real_block(p->dangle_in, at, s->n_s)[i] += (float)carried->dtheta[own * s->n_s + i];
  if (!has_carried_input(p)) return;
  const float delta = delta_before(p, start, h), *x = real_block(p->v_in, at, n_p);
  float *dmimo_x = param_gradient(s, segment, h).dmimo_x, *dx = real_block(p->dv_in, at, n_p), ddelta = 0;
  for (int64_t r = 0; r < s->n_r; r++) {
    const int64_t k_at = (seq * s->n_r + r) * s->n_h + h;
    const float *k = real_block(p->k_in, k_at, n_n), *mimo = real_block(p->mimo_x, h * s->n_r + r, n_p);
    zero(work->sum, n_n);
    for (int64_t c = 0; c < n_p; c++) {
      const float factor = mimo ? mimo[c] : 1, v = factor * x[c], dv = dot(G + c * s->n_cols, k, n_n);
      add_scaled(work->sum, delta * v, G + c * s->n_cols, n_n);
      ddelta += v * dv;
      dmimo_x[r * n_p + c] += x[c] * delta * dv;
      if (dx) dx[c] += factor * delta * dv;
    }
    add_block(p->dk_in, k_at, work->sum, n_n);
  }
  delta_backward(p, start, h, ddelta);
}

/* The states entering the tiles of a chunk, for the heads [first_head, first_head + n_heads). */
static void chunk_states(const Scan *s, const Carried *carried, Work *work, int64_t k, int64_t g, int64_t first_head,
                         int64_t n_heads, int64_t first, int64_t end) {
  const int64_t seq = carried->segments[k].seq, size = s->n_p * s->n_cols;
  TileWork *w = &work->tile;
  for (int64_t i = 0; i < n_heads; i++) {
    const int64_t h = first_head + i;
    double *theta = work->theta + i * s->n_s;
    if (!scan_tile_at(s, seq, first).from_zero)
      scan_load_state(s, s->p->chunk_states, chunk_row(s, seq, first) * s->n_h + h, work->states + i * size);
    memcpy(theta, carried->theta + (k * s->n_h + h) * s->n_s, (size_t)s->n_s * sizeof *theta);
    if (first + s->n_tile < end) turn_back(s, h, first, end - first, theta);
  }
  float *state = work->states;
  for (int64_t t = first; t + s->n_tile < end; t += s->n_tile) {
    const Tile tile = scan_tile_at(s, seq, t);
    scan_tile_shared(s, w, tile, g);
    for (int64_t i = 0; i < n_heads; i++, state += size) {
      const int64_t h = first_head + i;
      float *next = state + n_heads * size;
      if (!s->kq_shared) scan_tile_prepare(s, w, tile, h, work->theta + i * s->n_s, false);
      scan_tile_decays(s, w, tile, h);
      scan_tile_v(s, w, tile, h);
      if (!tile.from_zero) copy(next, state, size);
      scan_tile_state(s, w, tile, next);
    }
  }
}

/* One head of a tile. */
static void backward_head(const Scan *s, const Carried *carried, Work *work, Tile tile, int64_t h, const float *S,
                          Next next) {
  const int64_t at = tile.segment * s->n_h + h;
  const ParamGradient to = param_gradient(s, tile.segment, h);
  TileWork *w = &work->tile;
  if (!s->kq_shared) {
    double *theta = carried->theta + at * s->n_s;
    turn_back(s, h, tile.first, tile.n, theta);
    memcpy(work->theta, theta, (size_t)s->n_s * sizeof *theta);
    scan_tile_prepare(s, w, tile, h, work->theta, true);
    scan_tile_products(s, w, tile);
  }
  scan_tile_decays(s, w, tile, h);
  scan_tile_v(s, w, tile, h);
  load_dy(s, w, tile, h);
  const float straight = head_products(s, work, tile, S, carried->G + at * s->n_p * s->n_cols, next);
  scalars_backward(s, carried, work, tile, h, straight);
  if (!s->kq_shared) prepare_backward(s, work, tile, h, to, carried->dtheta + at * s->n_s);
  v_backward(s, work, tile, h, to);
  for (int64_t t = 0; t < tile.n; t++) add_scalar(s->p->ddt, tile.first + t, h, work->ddt[t]);
}

/* A tile's sums over the part's heads, into the part's slab. */
static void store_shared(const Scan *s, const Carried *carried, Work *work, Tile tile, int64_t span_first, int64_t g,
                         int64_t part) {
  TileWork *w = &work->tile;
  const int64_t m = tile.m, n_m = s->n_m, n_cols = s->n_cols;
  if (s->kq_shared) {
    scan_product(s, w, m, n_cols, m, tile_causal(work->T_sum, n_m, s->n_r), w->k, n_cols, w->one, work->dC, n_cols);
    scan_product(s, w, m, n_cols, m, tile_causal_t(work->T_sum, n_m, s->n_r), w->q, n_cols, w->one, work->dB, n_cols);
  }
  const int64_t slab_row = carried->slab_start[tile.segment] + tile.first - span_first;
  for (int64_t i = 0; i < m; i++) {
    const int64_t row = part * s->n_slab + slab_row + i / s->n_r;
    const int64_t to = row * s->shared_width + (i % s->n_r * s->n_g + g) * s->n_n;
    copy(s->dB + to, work->dB + i * n_cols, s->n_n);
    copy(s->dC + to, work->dC + i * n_cols, s->n_n);
  }
  copy(s->dturn + ((g * s->n_parts + part) * s->n_slab + slab_row) * s->n_s, work->dturn, tile.n * s->n_s);
}

/* One task: tokens [first, end) of segment k, for the heads of part `part` of group `g`. */
static void backward_part(const Scan *s, const Carried *carried, Work *work, int64_t k, int64_t g, int64_t part,
                          int64_t first, int64_t end) {
  const Segment segment = carried->segments[k];
  const int64_t first_head = part_first_head(s, g, part), n_heads = part_first_head(s, g, part + 1) - first_head;
  for (int64_t i = 0; end == segment.end && i < n_heads; i++) begin_head(s, carried, k, first_head + i);
  for (int64_t chunk = first + (end - first - 1) / s->n_q * s->n_q; chunk >= first; chunk -= s->n_q) {
    const int64_t chunk_end = min_i64(chunk + s->n_q, end);
    chunk_states(s, carried, work, k, g, first_head, n_heads, chunk, chunk_end);
    for (int64_t i = (chunk_end - chunk - 1) / s->n_tile; i >= 0; i--) {
      Tile tile = scan_tile_at(s, segment.seq, chunk + i * s->n_tile);
      tile.segment = k;
      tile.to_zero = tile.ends_sequence && !s->p->dssm_out;
      tile.reaches_in =
          tile.first > segment.first || (begins_sequence(s, segment) && (s->p->dssm_in || has_carried_input(s->p)));
      zero(work->dB, tile.m * s->n_cols);
      zero(work->dC, tile.m * s->n_cols);
      if (s->kq_shared) zero(work->T_sum, tile.m * s->n_m);
      zero(work->dturn, tile.n * s->n_s);
      scan_tile_shared(s, &work->tile, tile, g);
      for (int64_t j = 0; j < n_heads; j++) {
        const Next next = j + 1 < n_heads      ? (Next){tile.first, tile.n, first_head + j + 1}
                          : tile.first > first ? (Next){tile.first - s->n_tile, s->n_tile, first_head}
                                               : (Next){0};
        backward_head(s, carried, work, tile, first_head + j, work->states + (i * n_heads + j) * s->n_p * s->n_cols,
                      next);
      }
      store_shared(s, carried, work, tile, first, g, part);
    }
  }
  for (int64_t i = 0; first == s->starts[segment.seq] && i < n_heads; i++)
    end_head(s, carried, work, k, first_head + i);
}

/* ---- segments ---- */

/* What segment k adds to the gradient of the state before it (with dssm_out in the sequence's last), into the G of the
 * segment there. */
static void find_gradient(const Scan *s, const Carried *carried, Work *work, int64_t k, int64_t g, int64_t part) {
  const Segment segment = carried->segments[k];
  TileWork *w = &work->tile;
  for (int64_t h = part_first_head(s, g, part); h < part_first_head(s, g, part + 1); h++) {
    float *G = carried->G + ((k - 1) * s->n_h + h) * s->n_p * s->n_cols;
    scan_load_state(s, ends_sequence(s, segment) ? s->p->dssm_out : NULL, segment.seq * s->n_h + h, G);
    double sum = 0, *theta = carried->theta + (k * s->n_h + h) * s->n_s;
    end_theta(s, carried, k, h, theta);
    for (int64_t chunk = segment.first + (segment.end - segment.first - 1) / s->n_q * s->n_q; chunk >= segment.first;
         chunk -= s->n_q)
      for (int64_t i = (min_i64(s->n_q, segment.end - chunk) - 1) / s->n_tile; i >= 0; i--) {
        const Tile tile = scan_tile_at(s, segment.seq, chunk + i * s->n_tile);
        scan_tile_shared(s, w, tile, g);
        if (!s->kq_shared) {
          turn_back(s, h, tile.first, tile.n, theta);
          memcpy(work->theta, theta, (size_t)s->n_s * sizeof *theta);
          scan_tile_prepare(s, w, tile, h, work->theta, true);
        }
        scan_tile_decays(s, w, tile, h);
        load_dy(s, w, tile, h);
        step_gradient(s, w, tile, G);
        sum += (double)w->high[tile.m - 1] + (double)w->low[tile.m - 1];
      }
    carried->whole[k * s->n_h + h] = (float)exp(sum);
  }
}

/* dtheta += sign times the cross products of the rows of dx and x, rotated all alike. */
static void add_cross(const Scan *s, int64_t n_rows, const float *dx, int64_t ld_dx, const float *x, int64_t ld_x,
                      double sign, double *dtheta) {
  for (int64_t c = 0; dx && c < n_rows; c++, dx += ld_dx, x += ld_x)
    for (int64_t i = 0; i < s->n_s; i++) {
      const Pair at = pair_at(s->p, i);
      dtheta[i] += sign * ((double)dx[at.second] * x[at.first] - (double)dx[at.first] * x[at.second]);
    }
}

/* From what each segment adds to what comes from all segments behind. A turn of all k and q behind a segment is a turn of
 * what they leave behind at the sequence's end and, backwards, of the state S that they find: so the sum of the
 * gradients of their thetas is known without them. */
static void join_gradients(const Scan *s, const Carried *carried, int64_t n_segments) {
  const SsdScan *p = s->p;
  const int64_t size = s->n_p * s->n_cols, n_n = s->n_n;
#pragma omp parallel for schedule(static)
  for (int64_t h = 0; h < s->n_h; h++)
    for (int64_t k = n_segments - 2; k >= 0; k--) {
      const Segment segment = carried->segments[k];
      if (ends_sequence(s, segment)) continue;
      const int64_t own = k * s->n_h + h, next = own + s->n_h, at = segment.seq * s->n_h + h;
      float *G = carried->G + own * size;
      if (!ends_sequence(s, carried->segments[k + 1]))
        add_scaled(G, carried->whole[next], carried->G + next * size, size);
      double *dtheta = carried->dtheta + own * s->n_s;
      for (int64_t i = 0; i < s->n_s; i++)
        dtheta[i] = p->dangle_out ? (double)real_block(p->dangle_out, at, s->n_s)[i] : 0;
      const float *S = real_block(p->chunk_states, chunk_row(s, segment.seq, segment.end) * s->n_h + h, s->n_p * n_n);
      add_cross(s, s->n_p, G, s->n_cols, S, n_n, -1, dtheta);
      add_cross(s, s->n_p, real_block(p->dssm_out, at, s->n_p * n_n), n_n, real_block(p->ssm_out, at, s->n_p * n_n),
                n_n, 1, dtheta);
      for (int64_t r = 0; r < s->n_r; r++) {
        const int64_t row = (segment.seq * s->n_r + r) * s->n_h + h;
        add_cross(s, 1, real_block(p->dk_out, row, n_n), 0, real_block(p->k_out, row, n_n), 0, 1, dtheta);
      }
    }
}

/* ---- the kernel ---- */

KERNEL_SCRATCH(ssd_scan, SsdScan) {
  if (!backward) return (size_t)scan_forward_scratch(p) * sizeof(float);
  Carver c = {0};
  Carried carried;
  backward_make(p, &carried, &c);
  return (size_t)c.used * sizeof(float);
}

/* The `at`-th tokens and on of each segment, up to a span of them: their slab rows; returns how many. */
static int64_t slab_rows(const Scan *s, const Carried *carried, int64_t n_segments, int64_t at) {
  int64_t n = 0;
  for (int64_t k = 0; k < n_segments; k++) {
    const int64_t first = carried->segments[k].first + at;
    carried->slab_start[k] = n;
    for (int64_t t = first; t < min_i64(first + span_tokens(s->n_q), carried->segments[k].end); t++)
      s->slab_token[n++] = t;
  }
  return n;
}

KERNEL_BWD(ssd_scan, SsdScan) {
  Carver c = {.block = p->scratch};
  Carried carried;
  Scan s = backward_make(p, &carried, &c);
  CHECK(p->chunk_states, "the forward pass saved no chunk_states");
  scan_turn_fill(&s);
  zero(s.dnorm, SUM_BLOCKS * 2 * s.n_n);
  const int64_t n_segments = scan_segments(&s, carried.segments), n_parts = s.n_g * s.n_parts;
  if (n_segments > s.n_seq) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t task = 0; task < n_segments * n_parts; task++) {
      const int64_t k = task / n_parts, part = task % n_parts;
      if (begins_sequence(&s, carried.segments[k])) continue;
      Work work;
      work_carve(&s, &work, s.work + s.work_size * omp_get_thread_num());
      find_gradient(&s, &carried, &work, k, part / s.n_parts, part % s.n_parts);
    }
    join_gradients(&s, &carried, n_segments);
  }
  int64_t longest = 0;
  for (int64_t k = 0; k < n_segments; k++)
    longest = max_i64(longest, carried.segments[k].end - carried.segments[k].first);
  const int64_t span = span_tokens(s.n_q);
  for (int64_t at = (longest - 1) / span * span; at >= 0; at -= span) {
    const int64_t n_rows = slab_rows(&s, &carried, n_segments, at);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t task = 0; task < n_segments * n_parts; task++) {
      const int64_t k = task / n_parts, part = task % n_parts, first = carried.segments[k].first + at;
      const int64_t end = min_i64(first + span, carried.segments[k].end);
      if (first >= end) continue;
      Work work;
      work_carve(&s, &work, s.work + s.work_size * omp_get_thread_num());
      backward_part(&s, &carried, &work, k, part / s.n_parts, part % s.n_parts, first, end);
    }
    scan_backward_shared(&s, n_rows);
  }
  for (int64_t k = 0; k < n_segments && p->lambda; k++)
    for (int64_t h = 0; h < s.n_h && !ends_sequence(&s, carried.segments[k]); h++)
      delta_backward(p, carried.segments[k].end, h, carried.ddelta[k * s.n_h + h]);
  scan_backward_parameters(&s, n_segments);
}

#endif
