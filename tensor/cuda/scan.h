/* scan: what the two passes of ssd_scan share: sizes, and the prologue of a tile (ssd_scan.cu has the mathematics). */
#pragma once

#include "tensor/cuda/segment.h"
#include "tensor/cuda/tile.h"

constexpr int SCAN_THREADS = 256, SCAN_MOST_ROWS = 64;
/* Sequences times heads that are half of scan_segment_blocks or fewer are cut into segments until there are about as many, none
 * shorter than SEGMENT_MIN tokens. It is 108, the processors of an A100, the fewest of the cards that models are trained on,
 * and not the card's own: so the cuts, and with them the sums' roundings, are the shape's alone. Tests lower it. */
extern "C" int64_t scan_segment_blocks;
constexpr int64_t SEGMENT_MIN = 256;
constexpr double TWO_PI = 6.283185307179586476925286766559;
constexpr float PI = 3.14159265358979f;

/* A call's sizes and tensors, as kernels see them. */
struct Scan {
  int n_h, n_p, n_n, n_g, n_r, n_s, n_q;
  int n_tile, n_m;      /* tokens of a tile, its rows padded */
  int n_rows, n_cols;   /* P and N padded */
  int ld_n, ld_p, ld_m; /* of matrices in shared memory: padded once more, so that rows begin in different banks */
  int64_t n_t, n_seq;
  int64_t segment, n_segments; /* tokens of a segment, whole chunks; rows of segments (segment.h) */
  bool halves, kq_shared, D_per_channel, takes_input; /* takes_input: k_in and v_in are there and count */
  float norm_eps;
  const int32_t *starts;
  Rows x, B, C, dt, a, lambda, D, B_norm, C_norm, B_bias, C_bias, angle, mimo_x;
  Rows ssm_in, angle_in, k_in, v_in; /* rows: of (seq, h, p): N; of (seq, h): S; of (seq, r, h): N; of (seq, h): P */

  __device__ int group_of(int h) const { return h / (n_h / n_g); }
  __device__ int64_t chunk_row(int64_t start, int64_t seq, int64_t t) const {
    return start / n_q + seq + (t - start) / n_q;
  }
  /* rows of a chunk, or of all tokens where those are fewer */
  __host__ __device__ int64_t chunk_rows() const { return (n_q < n_t ? n_q : n_t) * n_r; }
  /* delta of the token before `next` */
  __device__ float delta_before(int64_t next, int h) const {
    return lambda ? (1 - lambda.get(next, h)) * dt.get(next, h) : 0;
  }
  __device__ double theta_in(int64_t seq, int h, int i) const {
    return angle_in ? (double)angle_in.get(seq * n_h + h, i) : 0;
  }
  __device__ int first_of(int pair) const { return halves ? pair : 2 * pair; }
  __device__ int second_of(int pair) const { return halves ? pair + n_n / 2 : 2 * pair + 1; }
};

/* Tokens [first, first + n) of a chunk of one sequence; m = n R rows. */
struct ScanTile {
  int64_t seq, start, end; /* the sequence */
  int64_t first;
  int n, m;
  bool ends_sequence;
};

/* One head of a tile in shared memory. M rows, row i of token i / R. */
struct ScanWork {
  float *k, *q;         /* (M, N) */
  float *v;             /* (M, P) */
  float *high, *low;    /* (M): A, the sum of a from the tile's first token on, as two floats */
  float *w, *gamma;     /* (M): gamma + delta; gamma */
  float *start, *end;   /* (M): exp(A_i); exp(A_end - A_j) */
  float *wend;          /* (M): w end */
  float *cosine, *sine; /* (tokens, S) */
  float *turn;          /* (tokens, S): pi tanh(angle) */
  double *theta;        /* (S): of the token before the tile; behind the prologue of the last token in it */
  double *sums;         /* (tokens) */
  float *spare;         /* (WARP): of block sums */
};

__host__ __device__ static inline void scan_carve(const Scan &s, ScanWork *w, SharedCarver *c) {
  w->k = c->take<float>((int64_t)s.n_m * s.ld_n);
  w->q = c->take<float>((int64_t)s.n_m * s.ld_n);
  w->v = c->take<float>((int64_t)s.n_m * s.ld_p);
  w->high = c->take<float>(s.n_m), w->low = c->take<float>(s.n_m);
  w->w = c->take<float>(s.n_m), w->gamma = c->take<float>(s.n_m);
  w->start = c->take<float>(s.n_m), w->end = c->take<float>(s.n_m), w->wend = c->take<float>(s.n_m);
  w->cosine = c->take<float>((int64_t)s.n_tile * s.n_s), w->sine = c->take<float>((int64_t)s.n_tile * s.n_s);
  w->turn = c->take<float>((int64_t)s.n_tile * s.n_s);
  w->theta = c->take<double>(s.n_s);
  w->sums = c->take<double>(s.n_tile);
  w->spare = c->take<float>(WARP);
}

/* The call's sizes for tiles of `n_m` rows. */
Scan scan_of(const SsdScan *p, int n_m);
/* Scratch of a forward call. */
size_t scan_forward_scratch(const SsdScan *p);
/* thetas (chunks, H, S): theta of the token before each chunk. */
void scan_chunk_thetas(const Scan &s, double *thetas);

__device__ static inline ScanTile scan_tile_at(const Scan &s, int64_t seq, int64_t start, int64_t end, int64_t first) {
  const int64_t in_chunk = (first - start) % s.n_q;
  int64_t n = s.n_tile;
  if (n > s.n_q - in_chunk) n = s.n_q - in_chunk;
  if (n > end - first) n = end - first;
  return {seq, start, end, first, (int)n, (int)n * s.n_r, first + n == end};
}

/* Into [0, 2 pi), but for a rounding; without a division, which double precision has no instruction for. */
__device__ static inline double scan_wrap(double theta) { return theta - TWO_PI * floor(theta * (1 / TWO_PI)); }

/* exp(A_i - A_j) of rows i >= j. */
__device__ static inline float scan_decay(const ScanWork &w, int i, int j) {
  return expf((w.high[i] - w.high[j]) + (w.low[i] - w.low[j]));
}

/* Everything that is one number a row, and the angles of the tile's tokens; theta goes on to that of its last token. A and
 * theta are summed in double, and kept as two floats: of A, after a huge decay the small differences behind it would be lost in
 * one; of theta, one addition a token is all that waits for another, and whole turns are taken off side by side behind them.
 * The two sums, chains of additions both, are at other ends of the block, so that their warps go on at the same time. */
__device__ static inline void scan_numbers(const Scan &s, const ScanWork &w, const ScanTile &tile, int h) {
  float *const dts = w.start; /* until the barrier before start */
  __syncthreads();            /* the tile before is done with these */
  for (int t = threadIdx.x; t < tile.n; t += SCAN_THREADS) {
    w.sums[t] = (double)s.a.get(tile.first + t, h);
    dts[t] = s.dt.get(tile.first + t, h);
  }
  for (int i = threadIdx.x; i < tile.n * s.n_s; i += SCAN_THREADS)
    w.turn[i] = PI * tanhf(s.angle.get(tile.first + i / s.n_s, i % s.n_s));
  __syncthreads();
  for (int i = threadIdx.x; i < s.n_m; i += SCAN_THREADS) {
    const int t = i / s.n_r;
    double sum = 0;
    for (int u = 0; u <= t && u < tile.n; u++) sum += w.sums[u];
    const bool is_row = i < tile.m, is_last = tile.ends_sequence && t + 1 == tile.n;
    const float dt = is_row ? dts[t] : 0;
    const float gamma = is_row ? (s.lambda ? s.lambda.get(tile.first + t, h) * dt : dt) : 0;
    w.high[i] = (float)sum;
    w.low[i] = (float)(sum - (double)w.high[i]);
    w.gamma[i] = gamma;
    w.w[i] = is_row ? gamma + (is_last ? 0 : s.delta_before(tile.first + t + 1, h)) : 0;
  }
  for (int i = SCAN_THREADS - 1 - (int)threadIdx.x; i < s.n_s; i += SCAN_THREADS) {
    double theta = w.theta[i];
    for (int t = 0; t < tile.n; t++) {
      theta += (double)w.turn[t * s.n_s + i] * (double)dts[t];
      const float high = (float)theta;
      w.cosine[t * s.n_s + i] = high, w.sine[t * s.n_s + i] = (float)(theta - (double)high);
    }
    w.theta[i] = scan_wrap(theta);
  }
  __syncthreads();
  const int last = tile.m - 1;
  for (int i = threadIdx.x; i < s.n_m; i += SCAN_THREADS) {
    w.start[i] = i < tile.m ? expf(w.high[i]) : 0;
    w.end[i] = i < tile.m ? scan_decay(w, last, i) : 0;
    w.wend[i] = w.w[i] * w.end[i];
  }
  for (int i = threadIdx.x; i < tile.n * s.n_s; i += SCAN_THREADS) {
    const float theta = (float)scan_wrap((double)w.cosine[i] + (double)w.sine[i]);
    w.sine[i] = sinf(theta), w.cosine[i] = cosf(theta);
  }
}

/* k or q of a head from B or C: norm, bias; the rotation is scan_rotate's. A warp has a row. */
__device__ static inline void scan_load_rows(const Scan &s, const ScanTile &tile, int h, Rows from, Rows norm,
                                             Rows bias, float *to) {
  const int lane = threadIdx.x % WARP, g = s.group_of(h);
  for (int i = threadIdx.x / WARP; i < s.n_m; i += SCAN_THREADS / WARP) {
    const int r = i % s.n_r;
    const int64_t row = tile.first + i / s.n_r, col = ((int64_t)r * s.n_g + g) * s.n_n;
    float squares = 0;
    for (int n = lane; n < s.n_cols; n += WARP) {
      const float x = i < tile.m && n < s.n_n ? from.get(row, col + n) : 0;
      to[i * s.ld_n + n] = x;
      squares += x * x;
    }
    if (!norm || i >= tile.m) continue; /* the same for the whole warp */
    const float scale = 1 / sqrtf(warp_sum(squares) / (float)s.n_n + s.norm_eps);
    for (int n = lane; n < s.n_n; n += WARP) {
      const float x = to[i * s.ld_n + n] * scale * norm.get(0, n);
      to[i * s.ld_n + n] = bias ? x + bias.get((int64_t)h * s.n_r + r, n) : x;
    }
  }
}

__device__ static inline void scan_rotate(const Scan &s, const ScanWork &w, const ScanTile &tile, float *rows) {
  for (int at = threadIdx.x; at < tile.m * s.n_s; at += SCAN_THREADS) {
    const int i = at / s.n_s, pair = at % s.n_s, turn = i / s.n_r * s.n_s + pair;
    float *x = rows + i * s.ld_n + s.first_of(pair), *y = rows + i * s.ld_n + s.second_of(pair);
    const float before = *x, c = w.cosine[turn], d = w.sine[turn];
    *x = before * c - *y * d;
    *y = before * d + *y * c;
  }
}

/* v of a head, by ranks. */
__device__ static inline void scan_load_v(const Scan &s, const ScanWork &w, const ScanTile &tile, int h) {
  for (int at = threadIdx.x; at < s.n_m * s.n_rows; at += SCAN_THREADS) {
    const int i = at / s.n_rows, c = at % s.n_rows;
    float x = 0;
    if (i < tile.m && c < s.n_p) {
      x = s.x.get(tile.first + i / s.n_r, (int64_t)h * s.n_p + c);
      if (s.mimo_x) x *= s.mimo_x.get((int64_t)h * s.n_r + i % s.n_r, c);
    }
    w.v[i * s.ld_p + c] = x;
  }
}

/* The tile's numbers, k, q where wanted, and v; all there behind the barrier at its end. */
__device__ static inline void scan_prologue(const Scan &s, const ScanWork &w, const ScanTile &tile, int h, bool q_too) {
  scan_numbers(s, w, tile, h);
  scan_load_rows(s, tile, h, s.B, s.B_norm, s.B_bias, w.k);
  if (q_too) scan_load_rows(s, tile, h, s.C, s.C_norm, s.C_bias, w.q);
  scan_load_v(s, w, tile, h);
  __syncthreads();
  if (s.n_s == 0) return;
  scan_rotate(s, w, tile, w.k);
  if (q_too) scan_rotate(s, w, tile, w.q);
  __syncthreads();
}

/* S (P, N; rows of ld), from before the tile to behind it: exp(A_end) S + sum_j w_j exp(A_end - A_j) v_j k_j^T. */
template <bool IS_BF16>
__device__ static inline void scan_step_state(const Scan &s, const ScanWork &w, const ScanTile &tile, const float *from,
                                              float *to, int64_t ld, bool is_global) {
  const float whole = w.start[tile.m - 1];
  TileFactor v = tile_cols(w.v, s.ld_p);
  v.scale = w.wend;
  tile_for<2>(s.n_rows, s.n_cols, [&](int i0, int j0) {
    TileSum<2> d;
    tile_each(i0, j0, d, [&](int i, int j, float &x) {
      x = whole * (is_global ? global_load(from + i * ld + j) : from[i * ld + j]);
    });
    tile_mac<IS_BF16>(d, v, i0, tile_cols(w.k, s.ld_n), j0, s.n_m);
    tile_each(i0, j0, d, [&](int i, int j, float x) {
      if (is_global) global_store(to + i * ld + j, x);
      else to[i * ld + j] = x;
    });
  });
}

/* The state before a sequence's first token: h_in + delta sum_r v_in,r k_in,r^T, padded with zeros. */
__device__ static inline void scan_begin_state(const Scan &s, int64_t seq, int64_t start, int h, float *to) {
  const int64_t at = seq * s.n_h + h;
  const float delta = s.takes_input ? s.delta_before(start, h) : 0;
  for (int i = threadIdx.x; i < s.n_rows * s.n_cols; i += SCAN_THREADS) {
    const int c = i / s.n_cols, n = i % s.n_cols;
    const bool is_there = c < s.n_p && n < s.n_n;
    float x = is_there && s.ssm_in ? s.ssm_in.get(at * s.n_p + c, n) : 0;
    for (int r = 0; is_there && s.takes_input && r < s.n_r; r++) {
      const float mimo = s.mimo_x.get_or((int64_t)h * s.n_r + r, c, 1);
      x += delta * mimo * s.v_in.get(at, c) * s.k_in.get((seq * s.n_r + r) * s.n_h + h, n);
    }
    to[c * s.ld_n + n] = x;
  }
}
/* theta of the token before a segment; `thetas` (chunk_thetas) is looked at inside of sequences only. */
__device__ static inline void scan_begin_theta(const Scan &s, const ScanWork &w, const Segment &segment,
                                               const double *thetas, int h) {
  const int64_t row = s.chunk_row(segment.start, segment.seq, segment.first) * s.n_h + h;
  for (int i = threadIdx.x; i < s.n_s; i += SCAN_THREADS)
    w.theta[i] = segment.begins_sequence() ? s.theta_in(segment.seq, h, i) : global_load(thetas + row * s.n_s + i);
}
