/* ssd_scan, backward (ssd_scan.cu has the terms). With G the gradient of S' and U_ij = dy_i.v_j; T is F with U in place of
 * q.k; E_ij = exp(A_i - A_j) (q_i.k_j) U_ij for earlier tokens:
 *   dv_j = sum_i F_ij dy_i + w_j exp(A_end - A_j) G k_j + D dy_j
 *   dq_i = sum_j T_ij k_j + exp(A_i) S^T dy_i,   dk_j = sum_i T_ij q_i + w_j exp(A_end - A_j) G^T v_j
 *   ddelta_j = sum_i E_ij + exp(A_end - A_j) v_j.G k_j,   dgamma_j = ddelta_j + sum_{i same token} (q_i.k_j) U_ij
 *   da_t = sum over everything that crosses from before t to t or later: w_j E_ij with j before t <= i, of the tile, from
 *          S (j), to G (i) or from S to G. Sums only, nothing is subtracted: as exact as the definition at the tiniest
 *          decays.
 *   G <- exp(A_end) G + sum_i exp(A_i) dy_i q_i^T
 * and theta collects the cross products of (k, dk) and (q, dq), summed over all later tokens.
 *
 * A block has some heads of one sequence, as many as leave a block to each processor, and goes through its chunks from the
 * last to the first, in each through its heads, in each through the tiles from the last to the first, with G in shared
 * memory (and in scratch while another head is at work). Forward saved the state entering each chunk; where a chunk has
 * several tiles, those between are made again, in the block's scratch. What heads share (dB and dC behind their norm, the
 * turns' gradient) is summed over the block's heads, where it lies in the cache between one head of a chunk and the next,
 * and over the blocks, in order, by kernels of their own; so are the parameters' gradients, by sequences.
 *
 * Few sequences and heads are cut into segments, as forward: a block has some heads of one segment. What a segment adds to
 * the gradient of the state before it, from nothing, is found first, and joined from the last to the first: G' = exp(sum of
 * a) G + what the segment adds. A turn of all k and q behind a segment is a turn of what they leave at the sequence's end
 * and, backwards, of the state that they find: so the sum of their thetas' gradients is cross products at the border. */
#include "tensor/cuda/scan.h"

struct Gradients {
  Rows dy, dssm_out, dangle_out, dk_out, dv_out, chunk_states, ssm_out, k_out;
  Rows dx, ddt, da, dlambda, dssm_in, dangle_in, dk_in, dv_in;
};

/* Scratch. A part is the heads of a block: `share` of one group, or what is left of it. */
struct Scratch {
  float *states;  /* (blocks, tiles of a chunk, P padded, N padded) */
  double *thetas; /* (chunks, H, S): of the token before each chunk */
  float *G;       /* (segments, H, P padded, N padded): between chunks; at first what comes from the segments behind */
  double *dtheta; /* (segments, H, S): the same */
  float *whole;   /* (segments, H): exp(sum of a) */
  float *ddelta;  /* (segments, H): the gradient of the last token's delta */
  Rows dB, dC;    /* (parts, T, R, N), as activations */
  float *sum_dB, *sum_dC; /* (blocks, tokens of a chunk, R, N): of the part's heads so far */
  Rows dturn;     /* (parts, T, S), as activations */
  float *sum_dturn; /* (blocks, tokens of a chunk, S): of the part's heads so far */
  float *params;  /* (segments, H, param_width): dD (P) | dB_bias (R, N) | dC_bias (R, N) | dmimo_x (R, P) */
  float *norms;   /* (SUM_BLOCKS, 2, N) */
  int64_t n_tiles, param_width;
  int share, parts_of_group, n_parts;

  __host__ __device__ int first_head(const Scan &s, int part) const {
    return part / parts_of_group * (s.n_h / s.n_g) + part % parts_of_group * share;
  }
  __host__ __device__ int end_head(const Scan &s, int part) const {
    const int end = first_head(s, part) + share, group_end = (part / parts_of_group + 1) * (s.n_h / s.n_g);
    return end < group_end ? end : group_end;
  }
};

struct Work {
  ScanWork tile;
  float *dy;              /* (M, P) */
  float *dv;              /* (M, P) */
  float *X;               /* (M, N): dq, then dk */
  float *F, *T, *E;       /* (M, M) */
  float *G;               /* (P, N) */
  float *from_state;      /* (M): exp(A_i) q_i . S^T dy_i */
  float *into_state;      /* (M): exp(A_end - A_j) v_j . G k_j */
  float *same;            /* (tokens): sum over pairs of one token of (q.k) U */
  float *crossing;        /* (tokens) */
  float *column, *ddelta; /* (M): sum over i of E_ij; (tokens) */
  float *cross;           /* (tokens, S): gradient of theta by token, then its sums */
  float *ddt;             /* (tokens): what theta adds */
  double *dtheta;         /* (S): the sum behind the tile */
  double *thetas;         /* (tiles of a chunk, S): of the token before each tile */
};
static __host__ __device__ void carve(const Scan &s, int64_t n_tiles, Work *w, SharedCarver *c) {
  const int64_t m = s.n_m;
  scan_carve(s, &w->tile, c);
  w->dy = c->take<float>(m * s.ld_p), w->dv = c->take<float>(m * s.ld_p);
  w->X = c->take<float>(m * s.ld_n);
  w->F = c->take<float>(m * s.ld_m), w->T = c->take<float>(m * s.ld_m), w->E = c->take<float>(m * s.ld_m);
  w->G = c->take<float>((int64_t)s.n_rows * s.ld_n);
  w->from_state = c->take<float>(m), w->into_state = c->take<float>(m);
  w->same = c->take<float>(s.n_tile), w->crossing = c->take<float>(s.n_tile);
  w->column = c->take<float>(m), w->ddelta = c->take<float>(s.n_tile);
  w->cross = c->take<float>((int64_t)s.n_tile * s.n_s), w->ddt = c->take<float>(s.n_tile);
  w->dtheta = c->take<double>(s.n_s), w->thetas = c->take<double>(n_tiles * s.n_s);
}

/* ---- one head of a tile */

/* The states and thetas entering the tiles of the chunk that begins at `chunk`. */
template <bool IS_BF16>
static __device__ void chunk_states(const Scan &s, const Work &work, const Scratch &scratch, Rows saved, int64_t seq,
                                    int64_t start, int64_t end, int64_t chunk, int h) {
  const int64_t size = (int64_t)s.n_rows * s.n_cols, row = s.chunk_row(start, seq, chunk) * s.n_h + h;
  float *state = scratch.states + blockIdx.x * scratch.n_tiles * size;
  const ScanWork &w = work.tile;
  __syncthreads(); /* whoever still reads states of the chunk behind */
  for (int i = threadIdx.x; i < size; i += SCAN_THREADS) {
    const int c = i / s.n_cols, n = i % s.n_cols;
    global_store(state + i, c < s.n_p && n < s.n_n ? saved.get(row * s.n_p + c, n) : 0);
  }
  for (int i = threadIdx.x; i < s.n_s; i += SCAN_THREADS)
    w.theta[i] = work.thetas[i] = global_load(scratch.thetas + row * s.n_s + i);
  __syncthreads();
  const int64_t chunk_end = chunk + s.n_q < end ? chunk + s.n_q : end;
  int number = 0;
  for (int64_t first = chunk; first + s.n_tile < chunk_end; first += s.n_tile, state += size) {
    const ScanTile tile = scan_tile_at(s, seq, start, end, first);
    scan_prologue(s, w, tile, h, false);
    scan_step_state<IS_BF16>(s, w, tile, state, state + size, s.n_cols, true);
    number++;
    for (int i = threadIdx.x; i < s.n_s; i += SCAN_THREADS) work.thetas[number * s.n_s + i] = w.theta[i];
    __syncthreads();
  }
}

static __device__ void load_dy(const Scan &s, const Work &work, const ScanTile &tile, int h, Rows dy) {
  for (int at = threadIdx.x; at < s.n_m * s.n_rows; at += SCAN_THREADS) {
    const int i = at / s.n_rows, c = at % s.n_rows;
    const bool is_there = dy && i < tile.m && c < s.n_p;
    work.dy[i * s.ld_p + c] =
        is_there ? dy.get(tile.first + i / s.n_r, ((int64_t)(i % s.n_r) * s.n_h + h) * s.n_p + c) : 0;
  }
}

/* F, T and E; sums of pairs of one token are taken of E, where they stand until column_sums. */
template <bool IS_BF16> static __device__ void mix(const Scan &s, const Work &work, const ScanTile &tile) {
  const ScanWork &w = work.tile;
  tile_for<1>(s.n_m, s.n_m, [&](int i0, int j0) {
    TileSum<1> qk = {}, u = {};
    if (j0 / s.n_r <= (i0 + TILE_M - 1) / s.n_r) {
      tile_mac<IS_BF16>(qk, tile_rows(w.q, s.ld_n), i0, tile_rows(w.k, s.ld_n), j0, s.n_cols);
      tile_mac<IS_BF16>(u, tile_rows(work.dy, s.ld_p), i0, tile_rows(w.v, s.ld_p), j0, s.n_rows);
    }
    int r = 0;
    tile_each(i0, j0, qk, [&](int i, int j, float x) {
      const int t_i = i / s.n_r, t_j = j / s.n_r;
      const bool is_row = i < tile.m && j < tile.m, is_before = is_row && t_j < t_i, is_same = is_row && t_j == t_i;
      const float decay = is_before ? scan_decay(w, i, j) : 0, weight = is_before ? decay * w.w[j]
                                                                        : is_same ? w.gamma[j]
                                                                                  : 0;
      work.F[i * s.ld_m + j] = weight * x;
      work.T[i * s.ld_m + j] = weight * u.d[0][r];
      work.E[i * s.ld_m + j] = is_before ? decay * x * u.d[0][r] : is_same ? x * u.d[0][r] : 0;
      r++;
    });
  });
}

/* same, column and crossing from E. A thread has a column, and then a token. E becomes its own sums over later tokens: row
 * R t of column j holds those from token t on. */
static __device__ void pair_sums(const Scan &s, const Work &work, const ScanTile &tile) {
  const ScanWork &w = work.tile;
  for (int t = threadIdx.x; t < tile.n; t += SCAN_THREADS) {
    float sum = 0;
    for (int i = t * s.n_r; i < (t + 1) * s.n_r; i++)
      for (int j = t * s.n_r; j < (t + 1) * s.n_r; j++) sum += work.E[i * s.ld_m + j];
    work.same[t] = sum;
  }
  __syncthreads();
  for (int j = threadIdx.x; j < tile.m; j += SCAN_THREADS) {
    float sum = 0;
    for (int t = tile.n - 1; t > j / s.n_r; t--) {
      for (int i = (t + 1) * s.n_r - 1; i >= t * s.n_r; i--) sum += work.E[i * s.ld_m + j];
      work.E[t * s.n_r * s.ld_m + j] = sum;
    }
    work.column[j] = sum;
  }
  __syncthreads();
  for (int t = threadIdx.x; t < tile.n; t += SCAN_THREADS) {
    float sum = 0;
    for (int j = 0; j < t * s.n_r; j++) sum += w.w[j] * work.E[t * s.n_r * s.ld_m + j];
    work.crossing[t] = sum;
  }
}

/* to[i] = factor[i] * (row i of a . row i of b), a warp a row. */
static __device__ void row_dots(const ScanTile &tile, const float *factor, const float *a, const float *b, int ld,
                                int n, float *to) {
  for (int i = threadIdx.x / WARP; i < tile.m; i += SCAN_THREADS / WARP) {
    float sum = 0;
    for (int c = threadIdx.x % WARP; c < n; c += WARP) sum += a[i * ld + c] * b[i * ld + c];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) to[i] = factor[i] * sum;
  }
}

/* dv, and into_state on the way. */
template <bool IS_BF16> static __device__ void make_dv(const Scan &s, const Work &work, const ScanTile &tile, int h) {
  const ScanWork &w = work.tile;
  tile_for<2>(s.n_m, s.n_rows, [&](int i0, int j0) {
    TileSum<2> d = {};
    tile_mac<IS_BF16>(d, tile_rows(w.k, s.ld_n), i0, tile_rows(work.G, s.ld_n), j0, s.n_cols);
    tile_each(i0, j0, d, [&](int i, int c, float x) { work.dv[i * s.ld_p + c] = x; });
  });
  __syncthreads();
  row_dots(tile, w.end, w.v, work.dv, s.ld_p, s.n_p, work.into_state);
  __syncthreads();
  tile_for<2>(s.n_m, s.n_rows, [&](int i0, int j0) {
    TileSum<2> d = {};
    tile_mac<IS_BF16>(d, tile_cols(work.F, s.ld_m), i0, tile_cols(work.dy, s.ld_p), j0, s.n_m);
    tile_each(i0, j0, d, [&](int i, int c, float x) {
      const float D = c < s.n_p ? s.D.get(0, s.D_per_channel ? h * s.n_p + c : h) : 0;
      work.dv[i * s.ld_p + c] = w.wend[i] * work.dv[i * s.ld_p + c] + x + D * work.dy[i * s.ld_p + c];
    });
  });
}

/* dq into X, and from_state on the way. */
template <bool IS_BF16>
static __device__ void make_dq(const Scan &s, const Work &work, const ScanTile &tile, const float *S) {
  const ScanWork &w = work.tile;
  TileFactor columns = tile_cols(S, s.n_cols);
  columns.is_global = true;
  tile_for<2>(s.n_m, s.n_cols, [&](int i0, int j0) {
    TileSum<2> d = {};
    tile_mac<IS_BF16>(d, tile_rows(work.dy, s.ld_p), i0, columns, j0, s.n_rows);
    tile_each(i0, j0, d, [&](int i, int n, float x) { work.X[i * s.ld_n + n] = x; });
  });
  __syncthreads();
  row_dots(tile, w.start, w.q, work.X, s.ld_n, s.n_n, work.from_state);
  __syncthreads();
  tile_for<2>(s.n_m, s.n_cols, [&](int i0, int j0) {
    TileSum<2> d = {};
    tile_mac<IS_BF16>(d, tile_rows(work.T, s.ld_m), i0, tile_cols(w.k, s.ld_n), j0, s.n_m);
    tile_each(i0, j0, d,
              [&](int i, int n, float x) { work.X[i * s.ld_n + n] = w.start[i] * work.X[i * s.ld_n + n] + x; });
  });
  __syncthreads();
}

/* dk into X. */
template <bool IS_BF16>
static __device__ void make_dk(const Scan &s, const Work &work, const ScanTile &tile, int h, Rows dk_out) {
  const ScanWork &w = work.tile;
  tile_for<2>(s.n_m, s.n_cols, [&](int i0, int j0) {
    TileSum<2> d = {};
    tile_mac<IS_BF16>(d, tile_rows(w.v, s.ld_p), i0, tile_cols(work.G, s.ld_n), j0, s.n_rows);
    tile_each(i0, j0, d, [&](int i, int, float &x) { x *= w.wend[i]; });
    tile_mac<IS_BF16>(d, tile_cols(work.T, s.ld_m), i0, tile_cols(w.q, s.ld_n), j0, s.n_m);
    tile_each(i0, j0, d, [&](int i, int n, float x) {
      const int r = i - (tile.m - s.n_r);
      if (dk_out && tile.ends_sequence && r >= 0 && r < s.n_r && n < s.n_n)
        x += dk_out.get((tile.seq * s.n_r + r) * s.n_h + h, n);
      work.X[i * s.ld_n + n] = x;
    });
  });
  __syncthreads();
}

/* Where a head brings what it shares with the others of its part: the first stores, the others add, and the last one's sum
 * is the part's. */
struct Share {
  int64_t part;
  bool is_first, is_last;
  __device__ float sum(const float *before, float x) const { return is_first ? x : global_load(before) + x; }
};

/* X, the gradient of `rows` (k or q), back through the rotation and the bias: to the heads' shared gradient, to the bias
 * and to theta by tokens. */
static __device__ void share_rows(const Scan &s, const Work &work, const ScanTile &tile, const Share &share,
                                  const float *rows, float *sums, const Rows &shared, float *dbias, bool is_first) {
  const ScanWork &w = work.tile;
  for (int at = threadIdx.x; at < tile.n * s.n_s;
       at += SCAN_THREADS) { /* a thread has a pair of all ranks of a token */
    const int t = at / s.n_s, pair = at % s.n_s;
    float sum = 0;
    for (int i = t * s.n_r; i < (t + 1) * s.n_r; i++) {
      float *first = work.X + i * s.ld_n + s.first_of(pair), *second = work.X + i * s.ld_n + s.second_of(pair);
      const float x = *first, y = *second, c = w.cosine[at], d = w.sine[at];
      sum += y * rows[i * s.ld_n + s.first_of(pair)] - x * rows[i * s.ld_n + s.second_of(pair)];
      *first = x * c + y * d;
      *second = y * c - x * d;
    }
    work.cross[at] = is_first ? sum : work.cross[at] + sum;
  }
  __syncthreads();
  float *so_far = sums + (blockIdx.x * s.chunk_rows() + (tile.first - tile.start) % s.n_q * s.n_r) * s.n_n;
  for (int at = threadIdx.x; at < tile.m * s.n_n; at += SCAN_THREADS) {
    const int i = at / s.n_n, n = at % s.n_n;
    const float x = share.sum(so_far + at, work.X[i * s.ld_n + n]);
    if (share.is_last) shared.put((share.part * s.n_t + tile.first) * s.n_r + i, n, x);
    else global_store(so_far + at, x);
  }
  for (int at = threadIdx.x; s.B_bias && at < s.n_r * s.n_n; at += SCAN_THREADS) {
    float sum = global_load(dbias + at);
    for (int i = at / s.n_n; i < tile.m; i += s.n_r) sum += work.X[i * s.ld_n + at % s.n_n];
    global_store(dbias + at, sum);
  }
  __syncthreads();
}

/* theta's gradient by tokens, summed from the sequence's end on: what it says to dt and to the turns. */
static __device__ void theta_backward(const Scan &s, const Work &work, const ScanTile &tile, int h, const Share &share,
                                      const Scratch &scratch) {
  for (int i = threadIdx.x; i < s.n_s; i += SCAN_THREADS) {
    double sum = work.dtheta[i];
    for (int t = tile.n - 1; t >= 0; t--) {
      sum += (double)work.cross[t * s.n_s + i];
      work.cross[t * s.n_s + i] = (float)sum;
    }
    work.dtheta[i] = sum;
  }
  __syncthreads();
  const int64_t chunk_tokens = s.chunk_rows() / s.n_r;
  float *so_far = scratch.sum_dturn + (blockIdx.x * chunk_tokens + (tile.first - tile.start) % s.n_q) * s.n_s;
  for (int t = threadIdx.x / WARP; t < tile.n; t += SCAN_THREADS / WARP) {
    const float dt = s.dt.get(tile.first + t, h);
    float sum = 0;
    for (int i = threadIdx.x % WARP; i < s.n_s; i += WARP) {
      const float d = work.cross[t * s.n_s + i];
      sum += d * work.tile.turn[t * s.n_s + i];
      const float x = share.sum(so_far + t * s.n_s + i, dt * d);
      if (share.is_last) scratch.dturn.put(share.part * s.n_t + tile.first + t, i, x);
      else global_store(so_far + t * s.n_s + i, x);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) work.ddt[t] = sum;
  }
}

/* dx, dD and dmimo_x from dv. */
static __device__ void v_backward(const Scan &s, const Work &work, const ScanTile &tile, int h, const Gradients &g,
                                  float *dD, float *dmimo) {
  const ScanWork &w = work.tile;
  for (int at = threadIdx.x; at < tile.n * s.n_p; at += SCAN_THREADS) {
    const int t = at / s.n_p, c = at % s.n_p;
    float sum = 0;
    for (int r = 0; r < s.n_r; r++)
      sum += work.dv[(t * s.n_r + r) * s.ld_p + c] * s.mimo_x.get_or((int64_t)h * s.n_r + r, c, 1);
    if (g.dv_out && tile.ends_sequence && t + 1 == tile.n) sum += g.dv_out.get(tile.seq * s.n_h + h, c);
    if (g.dx) g.dx.add(tile.first + t, (int64_t)h * s.n_p + c, sum);
  }
  for (int c = threadIdx.x; c < s.n_p; c += SCAN_THREADS) {
    float sum = global_load(dD + c);
    for (int i = 0; i < tile.m; i++) sum += w.v[i * s.ld_p + c] * work.dy[i * s.ld_p + c];
    global_store(dD + c, sum);
  }
  for (int at = threadIdx.x; s.mimo_x && at < s.n_r * s.n_p; at += SCAN_THREADS) {
    const int r = at / s.n_p, c = at % s.n_p;
    float sum = global_load(dmimo + at);
    for (int t = 0; t < tile.n; t++)
      sum += s.x.get(tile.first + t, (int64_t)h * s.n_p + c) * work.dv[(t * s.n_r + r) * s.ld_p + c];
    global_store(dmimo + at, sum);
  }
}

/* dt, a and lambda of the tile's tokens. `straight` goes from S to G. */
static __device__ void scalars_backward(const Scan &s, const Work &work, const ScanTile &tile, int h,
                                        const Gradients &g, float straight) {
  const ScanWork &w = work.tile;
  for (int t = threadIdx.x; t < tile.n; t += SCAN_THREADS) {
    float ddelta = 0, before = straight, behind = 0;
    for (int j = t * s.n_r; j < (t + 1) * s.n_r; j++) ddelta += work.column[j] + work.into_state[j];
    for (int j = 0; j < t * s.n_r; j++) before += w.w[j] * work.into_state[j];
    for (int i = tile.m - 1; i >= t * s.n_r; i--) behind += work.from_state[i];
    work.ddelta[t] = ddelta;
    if (g.da) g.da.add(tile.first + t, h, work.crossing[t] + before + behind);
  }
  __syncthreads();
  for (int t = threadIdx.x; t < tile.n; t += SCAN_THREADS) {
    const int64_t row = tile.first + t;
    const float dgamma = work.ddelta[t] + work.same[t],
                given = t > 0 ? work.ddelta[t - 1] : 0; /* by the token before */
    const float from_theta = s.n_s > 0 ? work.ddt[t] : 0;
    if (!s.lambda) {
      if (g.ddt) g.ddt.add(row, h, dgamma);
      continue;
    }
    const float lambda = s.lambda.get(row, h), dt = s.dt.get(row, h);
    if (g.ddt) g.ddt.add(row, h, lambda * dgamma + (1 - lambda) * given + from_theta);
    if (g.dlambda) g.dlambda.add(row, h, dt * (dgamma - given));
  }
}

/* What token `next`, of the tile behind (done before), gets from the delta that it gave its predecessor. */
static __device__ void give_delta(const Scan &s, const Gradients &g, int64_t next, int h, float ddelta) {
  if (g.ddt) g.ddt.add(next, h, (1 - s.lambda.get(next, h)) * ddelta);
  if (g.dlambda) g.dlambda.add(next, h, -s.dt.get(next, h) * ddelta);
}

/* exp(A_end) <S, G>, for every thread. */
static __device__ float straight_through(const Scan &s, const Work &work, const ScanTile &tile, const float *S) {
  float sum = 0;
  for (int i = threadIdx.x; i < s.n_rows * s.n_cols; i += SCAN_THREADS)
    sum += global_load(S + i) * work.G[i / s.n_cols * s.ld_n + i % s.n_cols];
  return work.tile.start[tile.m - 1] * block_sum(sum, work.tile.spare);
}

/* G from behind the tile to before it. */
template <bool IS_BF16> static __device__ void step_gradient(const Scan &s, const Work &work, const ScanTile &tile) {
  const ScanWork &w = work.tile;
  const float whole = w.start[tile.m - 1];
  TileFactor dy = tile_cols(work.dy, s.ld_p);
  dy.scale = w.start;
  tile_for<2>(s.n_rows, s.n_cols, [&](int i0, int j0) {
    TileSum<2> d;
    tile_each(i0, j0, d, [&](int i, int j, float &x) { x = whole * work.G[i * s.ld_n + j]; });
    tile_mac<IS_BF16>(d, dy, i0, tile_cols(w.q, s.ld_n), j0, s.n_m);
    tile_each(i0, j0, d, [&](int i, int j, float x) { work.G[i * s.ld_n + j] = x; });
  });
}

/* Behind the sequence's first tile: G is the gradient of S_{-1} = h_in + delta sum_r v_in,r k_in,r^T. */
static __device__ void end_head(const Scan &s, const Work &work, int64_t seq, int64_t start, int h, const Gradients &g,
                                float *dmimo) {
  const int64_t at = seq * s.n_h + h;
  for (int i = threadIdx.x; g.dssm_in && i < s.n_p * s.n_n; i += SCAN_THREADS)
    g.dssm_in.add(at * s.n_p + i / s.n_n, i % s.n_n, work.G[i / s.n_n * s.ld_n + i % s.n_n]);
  for (int i = threadIdx.x; g.dangle_in && i < s.n_s; i += SCAN_THREADS) g.dangle_in.add(at, i, (float)work.dtheta[i]);
  if (!s.takes_input) return;
  const float delta = s.delta_before(start, h);
  float ddelta = 0;
  for (int c = threadIdx.x; c < s.n_p; c += SCAN_THREADS) { /* a channel: G k_in of every rank */
    float dx = 0;
    for (int r = 0; r < s.n_r; r++) {
      float dv = 0;
      for (int n = 0; n < s.n_n; n++) dv += work.G[c * s.ld_n + n] * s.k_in.get((seq * s.n_r + r) * s.n_h + h, n);
      const float x = s.v_in.get(at, c), factor = s.mimo_x.get_or((int64_t)h * s.n_r + r, c, 1);
      ddelta += factor * x * dv;
      dx += factor * delta * dv;
      if (s.mimo_x) global_store(dmimo + r * s.n_p + c, global_load(dmimo + r * s.n_p + c) + x * delta * dv);
    }
    if (g.dv_in) g.dv_in.add(at, c, dx);
  }
  for (int i = threadIdx.x; g.dk_in && i < s.n_r * s.n_n; i += SCAN_THREADS) {
    const int r = i / s.n_n, n = i % s.n_n;
    float sum = 0;
    for (int c = 0; c < s.n_p; c++)
      sum += delta * s.mimo_x.get_or((int64_t)h * s.n_r + r, c, 1) * s.v_in.get(at, c) * work.G[c * s.ld_n + n];
    g.dk_in.add((seq * s.n_r + r) * s.n_h + h, n, sum);
  }
  ddelta = block_sum(ddelta, work.tile.spare);
  if (threadIdx.x == 0) give_delta(s, g, start, h, ddelta);
}

/* G and theta's gradient behind a sequence: what arrives at its end. */
static __device__ void begin_head(const Scan &s, const Work &work, int64_t at, const Gradients &g) {
  for (int i = threadIdx.x; i < s.n_rows * s.n_cols; i += SCAN_THREADS) {
    const int p = i / s.n_cols, n = i % s.n_cols;
    work.G[p * s.ld_n + n] = g.dssm_out && p < s.n_p && n < s.n_n ? g.dssm_out.get(at * s.n_p + p, n) : 0;
  }
  for (int i = threadIdx.x; i < s.n_s; i += SCAN_THREADS)
    work.dtheta[i] = g.dangle_out ? (double)g.dangle_out.get(at, i) : 0;
}
/* The same between two chunks, while other heads are at work. */
static __device__ void put_head_aside(const Scan &s, const Work &work, const Scratch &scratch, int64_t at) {
  float *G = scratch.G + at * s.n_rows * s.n_cols;
  for (int i = threadIdx.x; i < s.n_rows * s.n_cols; i += SCAN_THREADS)
    global_store(G + i, work.G[i / s.n_cols * s.ld_n + i % s.n_cols]);
  for (int i = threadIdx.x; i < s.n_s; i += SCAN_THREADS) global_store(scratch.dtheta + at * s.n_s + i, work.dtheta[i]);
}
static __device__ void fetch_head(const Scan &s, const Work &work, const Scratch &scratch, int64_t at) {
  const float *G = scratch.G + at * s.n_rows * s.n_cols;
  for (int i = threadIdx.x; i < s.n_rows * s.n_cols; i += SCAN_THREADS)
    work.G[i / s.n_cols * s.ld_n + i % s.n_cols] = global_load(G + i);
  for (int i = threadIdx.x; i < s.n_s; i += SCAN_THREADS) work.dtheta[i] = global_load(scratch.dtheta + at * s.n_s + i);
}

/* The gradients of a head's parameters, of one sequence. */
struct HeadParams {
  float *dD, *dB_bias, *dC_bias, *dmimo;
};

/* The tile whose number in its chunk is `number`, of one head. */
template <bool IS_BF16>
static __device__ void tile_backward(const Scan &s, const Work &work, const Gradients &g, const Scratch &scratch,
                                     const HeadParams &params, const Share &share, const ScanTile &tile, int number,
                                     int h) {
  const float *S = scratch.states + (blockIdx.x * scratch.n_tiles + number) * s.n_rows * s.n_cols;
  for (int i = threadIdx.x; i < s.n_s; i += SCAN_THREADS) work.tile.theta[i] = work.thetas[number * s.n_s + i];
  scan_prologue(s, work.tile, tile, h, true);
  load_dy(s, work, tile, h, g.dy);
  __syncthreads();
  mix<IS_BF16>(s, work, tile);
  __syncthreads();
  pair_sums(s, work, tile);
  make_dv<IS_BF16>(s, work, tile, h);
  make_dq<IS_BF16>(s, work, tile, S);
  share_rows(s, work, tile, share, work.tile.q, scratch.sum_dC, scratch.dC, params.dC_bias, true);
  make_dk<IS_BF16>(s, work, tile, h, g.dk_out);
  share_rows(s, work, tile, share, work.tile.k, scratch.sum_dB, scratch.dB, params.dB_bias, false);
  if (s.n_s > 0) theta_backward(s, work, tile, h, share, scratch);
  v_backward(s, work, tile, h, g, params.dD, params.dmimo);
  const float straight = straight_through(s, work, tile, S);
  scalars_backward(s, work, tile, h, g, straight);
  step_gradient<IS_BF16>(s, work, tile);
  __syncthreads();
}

/* The gradient of the tile's last delta goes to the token behind it, or aside. */
static __device__ void give_delta_on(const Scan &s, const Work &work, const Gradients &g, const ScanTile &tile, int h,
                                     float *aside) {
  if (s.lambda && !tile.ends_sequence && threadIdx.x == 0) {
    if (aside) global_store(aside, work.ddelta[tile.n - 1]);
    else give_delta(s, g, tile.first + tile.n, h, work.ddelta[tile.n - 1]);
  }
  __syncthreads();
}

template <bool IS_BF16>
static __global__ void __launch_bounds__(SCAN_THREADS, 1) backward(Scan s, Gradients g, Scratch scratch) {
  SHARED(unsigned char, memory);
  SharedCarver c = {memory, 0};
  Work work;
  carve(s, scratch.n_tiles, &work, &c);
  const int part = blockIdx.x % scratch.n_parts, first_head = scratch.first_head(s, part);
  const int64_t row = blockIdx.x / scratch.n_parts;
  const Segment segment = segment_at(s.starts, s.n_seq, row, s.segment);
  const int64_t start = segment.start, end = segment.end, n_heads = scratch.end_head(s, part) - first_head;
  for (int64_t i = threadIdx.x; i < n_heads * scratch.param_width; i += SCAN_THREADS)
    global_store(scratch.params + (row * s.n_h + first_head) * scratch.param_width + i, 0.0f);
  if (!segment.is_there()) return;
  const int64_t last_chunk = segment.first + (end - segment.first - 1) / s.n_q * s.n_q;
  for (int64_t chunk = last_chunk; chunk >= segment.first; chunk -= s.n_q)
    for (int h = first_head; h < scratch.end_head(s, part); h++) {
      const int64_t at = row * s.n_h + h;
      float *dD = scratch.params + at * scratch.param_width, *dB_bias = dD + s.n_p, *dC_bias = dB_bias + s.n_r * s.n_n;
      const HeadParams params = {dD, dB_bias, dC_bias, dC_bias + s.n_r * s.n_n};
      if (chunk == last_chunk && segment.ends_sequence()) begin_head(s, work, segment.seq * s.n_h + h, g);
      else
        fetch_head(s, work, scratch, at);
      chunk_states<IS_BF16>(s, work, scratch, g.chunk_states, segment.seq, start, end, chunk, h);
      const int64_t chunk_end = chunk + s.n_q < end ? chunk + s.n_q : end;
      for (int number = (int)((chunk_end - chunk - 1) / s.n_tile); number >= 0; number--) {
        const ScanTile tile = scan_tile_at(s, segment.seq, start, segment.seq_end, chunk + (int64_t)number * s.n_tile);
        tile_backward<IS_BF16>(s, work, g, scratch, params, Share{part, h == first_head, h + 1 == scratch.end_head(s, part)},
                               tile, number, h);
        give_delta_on(s, work, g, tile, h, tile.first + tile.n == end ? scratch.ddelta + at : nullptr);
      }
      if (chunk > segment.first) put_head_aside(s, work, scratch, at);
      else if (segment.begins_sequence())
        end_head(s, work, segment.seq, start, h, g, params.dmimo);
      __syncthreads();
    }
}

/* ---- before, where sequences are cut: the gradient of the state behind every segment */

/* What a segment that does not begin its sequence adds to the gradient of the state before it (with dssm_out in the
 * sequence's last), into the G of the segment there. From the first tile on, so that theta goes with it. */
template <bool IS_BF16>
static __global__ void __launch_bounds__(SCAN_THREADS, 1) find_gradient(Scan s, Gradients g, Scratch scratch) {
  SHARED(unsigned char, memory);
  SharedCarver c = {memory, 0};
  Work work;
  carve(s, scratch.n_tiles, &work, &c);
  const ScanWork &w = work.tile;
  const int h = blockIdx.x % s.n_h;
  const int64_t row = blockIdx.x / s.n_h, size = (int64_t)s.n_rows * s.n_cols;
  const Segment segment = segment_at(s.starts, s.n_seq, row, s.segment);
  if (!segment.is_there() || segment.begins_sequence()) return;
  for (int i = threadIdx.x; i < size; i += SCAN_THREADS) work.G[i / s.n_cols * s.ld_n + i % s.n_cols] = 0;
  scan_begin_theta(s, w, segment, scratch.thetas, h);
  double sum = 0;
  for (int64_t first = segment.first; first < segment.end;) {
    const ScanTile tile = scan_tile_at(s, segment.seq, segment.start, segment.seq_end, first);
    scan_numbers(s, w, tile, h);
    scan_load_rows(s, tile, h, s.C, s.C_norm, s.C_bias, w.q);
    load_dy(s, work, tile, h, g.dy);
    __syncthreads();
    scan_rotate(s, w, tile, w.q);
    __syncthreads();
    const float before = (float)exp(sum);
    TileFactor dy = tile_cols(work.dy, s.ld_p);
    dy.scale = w.start;
    tile_for<2>(s.n_rows, s.n_cols, [&](int i0, int j0) {
      TileSum<2> d = {};
      tile_mac<IS_BF16>(d, dy, i0, tile_cols(w.q, s.ld_n), j0, s.n_m);
      tile_each(i0, j0, d, [&](int i, int j, float x) { work.G[i * s.ld_n + j] += before * x; });
    });
    sum += (double)w.high[tile.m - 1] + (double)w.low[tile.m - 1];
    first += tile.n;
  }
  __syncthreads();
  const float whole = (float)exp(sum);
  for (int i = threadIdx.x; i < size; i += SCAN_THREADS) {
    const int p = i / s.n_cols, n = i % s.n_cols;
    float x = work.G[p * s.ld_n + n];
    if (segment.ends_sequence() && g.dssm_out && p < s.n_p && n < s.n_n)
      x += whole * g.dssm_out.get((segment.seq * s.n_h + h) * s.n_p + p, n);
    global_store(scratch.G + ((row - 1) * s.n_h + h) * size + i, x);
  }
  if (threadIdx.x == 0) global_store(scratch.whole + row * s.n_h + h, whole);
}

/* From what each segment adds to what comes from all segments behind. A thread has an element of the state. */
static __global__ void join_gradients(Scan s, Scratch scratch) {
  const int64_t size = (int64_t)s.n_rows * s.n_cols, at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t seq = at / (s.n_h * size), in_seq = at % (s.n_h * size), h = in_seq / size;
  if (seq >= s.n_seq) return;
  const int64_t start = global_load(s.starts + seq), end = global_load(s.starts + seq + 1);
  const int64_t first = segment_row(start, seq, s.segment), last = first + (end - start - 1) / s.segment;
  float G = 0;
  for (int64_t row = last - 1; row >= first; row--) { /* behind the last segment is nothing but dssm_out, which is in */
    float *own = scratch.G + row * s.n_h * size + in_seq;
    const float whole = row + 1 < last ? global_load(scratch.whole + (row + 1) * s.n_h + h) : 0;
    G = global_load(own) + whole * G;
    global_store(own, G);
  }
}

/* dx(second) x(first) - dx(first) x(second) of pair i, summed over rows dx + k ld_dx. */
template <class Dx, class X>
static __device__ double cross_of(const Scan &s, int i, int n_rows, Dx dx, X x) {
  double sum = 0;
  for (int c = 0; c < n_rows; c++)
    sum += (double)dx(c, s.second_of(i)) * x(c, s.first_of(i)) - (double)dx(c, s.first_of(i)) * x(c, s.second_of(i));
  return sum;
}
/* theta's gradient behind a segment. A thread has an angle of a head. */
static __global__ void border_dthetas(Scan s, Gradients g, Scratch scratch) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / s.n_s / s.n_h;
  if (row >= s.n_segments) return;
  const int h = at / s.n_s % s.n_h, i = at % s.n_s;
  const Segment segment = segment_at(s.starts, s.n_seq, row, s.segment);
  if (!segment.is_there() || segment.ends_sequence()) return;
  const int64_t of_seq = segment.seq * s.n_h + h, chunk = s.chunk_row(segment.start, segment.seq, segment.end) * s.n_h + h;
  const float *G = scratch.G + (row * s.n_h + h) * s.n_rows * s.n_cols;
  double sum = g.dangle_out ? (double)g.dangle_out.get(of_seq, i) : 0;
  sum -= cross_of(
      s, i, s.n_p, [&](int c, int n) { return global_load(G + c * s.n_cols + n); },
      [&](int c, int n) { return g.chunk_states.get(chunk * s.n_p + c, n); });
  if (g.dssm_out)
    sum += cross_of(
        s, i, s.n_p, [&](int c, int n) { return g.dssm_out.get(of_seq * s.n_p + c, n); },
        [&](int c, int n) { return g.ssm_out.get(of_seq * s.n_p + c, n); });
  if (g.dk_out)
    sum += cross_of(
        s, i, s.n_r, [&](int r, int n) { return g.dk_out.get((segment.seq * s.n_r + r) * s.n_h + h, n); },
        [&](int r, int n) { return g.k_out.get((segment.seq * s.n_r + r) * s.n_h + h, n); });
  global_store(scratch.dtheta + at, sum);
}

/* ---- behind: what segments give each other */

/* The delta of a segment's last token is the next one's affair, and that is another block's. */
static __global__ void give_deltas(Scan s, Gradients g, const float *ddelta) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / s.n_h;
  if (row >= s.n_segments) return;
  const Segment segment = segment_at(s.starts, s.n_seq, row, s.segment);
  if (segment.is_there() && !segment.ends_sequence())
    give_delta(s, g, segment.end, (int)(at % s.n_h), global_load(ddelta + at));
}

/* ---- behind: what heads share */

/* Tokens of a block, where there are as many: the norm's sums that it leaves should be little beside what it reads. */
constexpr int64_t SHARE_TOKENS = 8;

/* One row of B or C of a block of tokens back through its norm, a block of threads a block of tokens: the parts' sums give
 * the gradient of the row, and the share of the norm's weight. */
static __global__ void __launch_bounds__(128)
    share_backward(Scan s, Rows from, Rows norm, Rows parts, int parts_of_group, Rows to, float *norms) {
  SHARED(float, sum); /* (N), then a spare for block sums */
  float *dnorm = sum + s.n_n, *spare = dnorm + s.n_n;
  for (int n = threadIdx.x; n < s.n_n; n += blockDim.x) dnorm[n] = 0;
  const int64_t first = s.n_t * blockIdx.x / gridDim.x, end = s.n_t * (blockIdx.x + 1) / gridDim.x;
  for (int64_t t = first; t < end; t++)
    for (int rg = 0; rg < s.n_r * s.n_g; rg++) {
      const int r = rg / s.n_g, g = rg % s.n_g;
      const int64_t col = (int64_t)rg * s.n_n;
      float squares = 0;
      for (int n = threadIdx.x; n < s.n_n; n += blockDim.x) {
        float d = 0;
        for (int part = g * parts_of_group; part < (g + 1) * parts_of_group; part++)
          d += parts.get((part * s.n_t + t) * s.n_r + r, n);
        sum[n] = d;
        if (norm) squares += from.get(t, col + n) * from.get(t, col + n);
      }
      const float scale = norm ? 1 / sqrtf(block_sum(squares, spare) / (float)s.n_n + s.norm_eps) : 1;
      float dot = 0;
      for (int n = threadIdx.x; norm && n < s.n_n; n += blockDim.x) {
        const float hat = from.get(t, col + n) * scale;
        dnorm[n] += sum[n] * hat;
        sum[n] *= norm.get(0, n);
        dot += sum[n] * hat;
      }
      const float mean = norm ? block_sum(dot, spare) / (float)s.n_n : 0;
      for (int n = threadIdx.x; to && n < s.n_n; n += blockDim.x)
        to.add(t, col + n, norm ? scale * (sum[n] - from.get(t, col + n) * scale * mean) : sum[n]);
    }
  for (int n = threadIdx.x; norm && n < s.n_n; n += blockDim.x)
    global_store(norms + blockIdx.x * 2 * s.n_n + n, dnorm[n]);
}

static __global__ void angle_backward(Scan s, Rows dturn, int n_parts, Rows dangle) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, t = at / s.n_s, i = at % s.n_s;
  if (t >= s.n_t) return;
  float sum = 0;
  for (int part = 0; part < n_parts; part++) sum += dturn.get(part * s.n_t + t, i);
  const float tanh_angle = tanhf(s.angle.get(t, i));
  dangle.add(t, i, sum * PI * (1 - tanh_angle * tanh_angle));
}

/* The segments' sums of a head's parameter gradients, `width` of each from `first` on, to rows of to (or, where D has one
 * number a head, all of them to that). */
static __global__ void add_params(Scan s, const float *params, int64_t param_width, int64_t first, int64_t width,
                                  Rows to, bool to_one) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t n = to_one ? 1 : width, h = at / n, i = at % n;
  if (h >= s.n_h) return;
  float sum = 0;
  for (int64_t row = 0; row < s.n_segments; row++)
    for (int64_t c = 0; c < (to_one ? width : 1); c++)
      sum += global_load(params + (row * s.n_h + h) * param_width + first + i + c);
  if (to_one) to.add(0, h, sum);
  else to.add(h, i, sum);
}

/* ---- launching */

static Scratch lay_scratch(const Scan &s, char *at, size_t *bytes) {
  Scratch scratch = {};
  const int group = s.n_h / s.n_g;
  const int64_t pieces = s.n_seq * ceil_div(ceil_div(s.n_t, s.n_seq), s.segment); /* where all are as long */
  scratch.share = (int)min_i64(ceil_div(pieces * s.n_h, cuda_device.n_processors), group);
  scratch.parts_of_group = (int)ceil_div(group, scratch.share), scratch.n_parts = s.n_g * scratch.parts_of_group;
  scratch.n_tiles = ceil_div(min_i64(s.n_q, s.n_t), s.n_tile);
  scratch.param_width = s.n_p + 2 * s.n_r * s.n_n + s.n_r * s.n_p;
  scratch.dB.ld = scratch.dC.ld = s.n_n, scratch.dB.is_bf16 = scratch.dC.is_bf16 = s.x.is_bf16;
  const int64_t n_blocks = s.n_segments * scratch.n_parts, n_heads = s.n_segments * s.n_h, state = (int64_t)s.n_rows * s.n_cols;
  const int64_t rows = scratch.n_parts * s.n_t, shared = rows * s.n_r * s.n_n * (s.x.is_bf16 ? 2 : 4),
                f = sizeof(float), d = sizeof(double);
  const int64_t sums = scratch.share > 1 ? n_blocks * s.chunk_rows() * s.n_n * f : 0;
  const int64_t turn_sums = scratch.share > 1 ? n_blocks * s.chunk_rows() / s.n_r * s.n_s * f : 0;
  scratch.dturn.ld = s.n_s, scratch.dturn.is_bf16 = s.x.is_bf16;
  const struct {
    void **field;
    int64_t bytes;
  } fields[] = {{(void **)&scratch.thetas, ssd_scan_n_chunks(s.n_t, s.n_seq, s.n_q) * s.n_h * s.n_s * d},
                {(void **)&scratch.states, n_blocks * scratch.n_tiles * state * f},
                {(void **)&scratch.G, n_heads * state * f},
                {(void **)&scratch.dtheta, n_heads * s.n_s * d},
                {(void **)&scratch.whole, n_heads * f},
                {(void **)&scratch.ddelta, n_heads * f},
                {&scratch.dB.data, shared},
                {&scratch.dC.data, shared},
                {(void **)&scratch.sum_dB, sums},
                {(void **)&scratch.sum_dC, sums},
                {&scratch.dturn.data, rows * s.n_s * (s.x.is_bf16 ? 2 : 4)},
                {(void **)&scratch.sum_dturn, turn_sums},
                {(void **)&scratch.params, n_heads * scratch.param_width * f},
                {(void **)&scratch.norms, SUM_BLOCKS * 2 * s.n_n * f}};
  *bytes = 0;
  for (const auto &field : fields) {
    *field.field = at + *bytes;
    *bytes += (size_t)round_up(field.bytes, 256);
  }
  return scratch;
}

static size_t backward_bytes(const Scan &s) {
  SharedCarver c = {};
  Work unused;
  carve(s, ceil_div(min_i64(s.n_q, s.n_t), s.n_tile), &unused, &c);
  return c.used;
}

/* The largest tile whose work fits into a block's shared memory. */
static Scan sizes_of(const SsdScan *p) {
  int n_m = SCAN_MOST_ROWS / 2;
  Scan s = scan_of(p, n_m);
  for (n_m /= 2; backward_bytes(s) > cuda_device.shared_bytes && n_m >= TILE_K; n_m /= 2) s = scan_of(p, n_m);
  CHECK(backward_bytes(s) <= cuda_device.shared_bytes,
        "headdim %d, d_state %d, rank %d need %zu bytes of shared memory, this GPU gives %zu", s.n_p, s.n_n, s.n_r,
        backward_bytes(s), cuda_device.shared_bytes);
  return s;
}

KERNEL_SCRATCH(ssd_scan, SsdScan) {
  if (!backward) return scan_forward_scratch(p);
  size_t bytes;
  lay_scratch(sizes_of(p), nullptr, &bytes);
  return bytes;
}

KERNEL_BWD(ssd_scan, SsdScan) {
  CHECK(p->chunk_states, "the forward pass saved no chunk_states");
  CHECK((!p->ddt || !p->ddt->unset) && (!p->dlambda || !p->dlambda->unset), "dt's gradient is added to twice");
  const Scan s = sizes_of(p);
  size_t bytes;
  const Scratch scratch = lay_scratch(s, (char *)p->scratch, &bytes);
  const Gradients g = {rows_of(p->dy),
                       rows_of_width(p->dssm_out, s.n_n),
                       rows_of_width(s.n_s > 0 ? p->dangle_out : nullptr, s.n_s),
                       rows_of_width(p->dk_out, s.n_n),
                       rows_of_width(p->dv_out, s.n_p),
                       rows_of_width(p->chunk_states, s.n_n),
                       rows_of_width(p->ssm_out, s.n_n),
                       rows_of_width(p->k_out, s.n_n),
                       rows_of(p->dx),
                       rows_of(p->ddt),
                       rows_of(p->da),
                       rows_of(p->dlambda),
                       rows_of_width(p->dssm_in, s.n_n),
                       rows_of_width(s.n_s > 0 ? p->dangle_in : nullptr, s.n_s),
                       rows_of_width(p->dk_in, s.n_n),
                       rows_of_width(p->dv_in, s.n_p)};
  if (s.n_s > 0) scan_chunk_thetas(s, scratch.thetas);
  const bool is_bf16 = p->x->dtype == BF16, is_cut = s.segment < s.n_t;
  if (is_cut) {
    void (*const find)(Scan, Gradients, Scratch) = is_bf16 ? find_gradient<true> : find_gradient<false>;
    LAUNCH(find, blocks_of(s.n_segments * s.n_h, 1), SCAN_THREADS, backward_bytes(s), s, g, scratch);
    LAUNCH(join_gradients, blocks_of(s.n_seq * s.n_h * s.n_rows * s.n_cols, 128), 128, 0, s, scratch);
    if (s.n_s > 0)
      LAUNCH(border_dthetas, blocks_of(s.n_segments * s.n_h * s.n_s, 128), 128, 0, s, g, scratch);
  }
  void (*const kernel)(Scan, Gradients, Scratch) = is_bf16 ? backward<true> : backward<false>;
  LAUNCH(kernel, blocks_of(s.n_segments * scratch.n_parts, 1), SCAN_THREADS, backward_bytes(s), s, g, scratch);
  if (is_cut && p->lambda) LAUNCH(give_deltas, blocks_of(s.n_segments * s.n_h, 128), 128, 0, s, g, scratch.ddelta);

  const size_t shared = (size_t)(2 * s.n_n + WARP) * sizeof(float);
  const unsigned n_sums = (unsigned)sum_blocks(ceil_div(s.n_t, SHARE_TOKENS));
  const int of_group = scratch.parts_of_group;
  LAUNCH(share_backward, n_sums, 128, shared, s, s.B, s.B_norm, scratch.dB, of_group, rows_of(p->dB), scratch.norms);
  LAUNCH(share_backward, n_sums, 128, shared, s, s.C, s.C_norm, scratch.dC, of_group, rows_of(p->dC),
         scratch.norms + s.n_n);
  if (p->dangle && s.n_s > 0)
    LAUNCH(angle_backward, blocks_of(s.n_t * s.n_s, 128), 128, 0, s, scratch.dturn, scratch.n_parts,
           rows_of(p->dangle));
  const int64_t bias = (int64_t)s.n_r * s.n_n;
  const struct {
    const Tensor *to;
    int64_t first, width;
  } params[] = {{p->dD, 0, s.n_p},
                {p->dB_bias, s.n_p, bias},
                {p->dC_bias, s.n_p + bias, bias},
                {p->dmimo_x, s.n_p + 2 * bias, (int64_t)s.n_r * s.n_p}};
  for (const auto &param : params) {
    const bool to_one = param.to == p->dD && !s.D_per_channel;
    if (param.to)
      LAUNCH(add_params, blocks_of(s.n_h * (to_one ? 1 : param.width), 64), 64, 0, s, scratch.params,
             scratch.param_width, param.first, param.width,
             to_one ? rows_of(param.to) : rows_of_width(param.to, param.width), to_one);
  }
  const struct {
    const Tensor *to;
    const float *from;
  } norms[] = {{p->dB_norm, scratch.norms}, {p->dC_norm, scratch.norms + s.n_n}};
  for (const auto &norm : norms)
    if (norm.to) sum_columns(norm.from, n_sums, s.n_n, 2 * s.n_n, rows_of(norm.to));
}
