/* attention: causal softmax attention inside each sequence, with shared key heads, rotary positions and what came before
 * (Attention in tensor/kernels.h).
 *
 *   s_ij = scale q_i . k_j (j <= i);  p_i = softmax(s_i);  y_i = sum_j p_ij v_j;  lse_i = log sum_j e^s_ij
 *   dv_j += p_ij dy_i;  dp_ij = dy_i . v_j;  ds_ij = scale p_ij (dp_ij - dy_i . y_i)
 *   dq_i = sum_j ds_ij k_j;  dk_j += ds_ij q_i;  q and k here are the rotated ones, so dq and dk are rotated back.
 *
 * q, k and v lie in scratch as float32, rotated. A block has a tile of queries of one head and goes through tiles of keys,
 * keeping each query's largest score and sum so far (Milakov and Gimelshein 2018; Dao 2023); backward, a block has a tile of
 * queries for dq, and a tile of keys, with all queries of all heads that read it, for dk and dv. So nothing is added by two
 * blocks. All products are of tiles in shared memory (tile.h): float32 as three TF32 products, BF16 with factors rounded. */
#include "tensor/cuda/segment.h"
#include "tensor/cuda/tile.h"

constexpr int THREADS = 256, MOST_PAIRS = 128, MOST_WIDTH = 256; /* rotated pairs and width of a head */
constexpr int MOST_TILE = 64;

struct Heads {
  int n_heads, n_kv, d, rotary_dim;
  bool interleaved;
  float scale;
  int64_t n_t, n_seq, room_in, room_out;
  int n_m, n_k, n_d;  /* queries and keys of a tile; d, padded */
  int ld_d, ld_k;     /* of their rows in shared memory: padded once more, so that rows begin in different banks */
  const int32_t *starts, *past;
  double frequency[MOST_PAIRS];

  __device__ int64_t n_past(int64_t s) const { return past ? global_load(past + s) : 0; }
};

/* A token's sequence, and its place in it, counted from the beginning of what came before. */
struct Token {
  int64_t s, start, end, position;
};
static __device__ Token token_at(const Heads &h, int64_t t) {
  int64_t low = 0, high = h.n_seq; /* starts[low] <= t < starts[high] */
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (global_load(h.starts + middle) <= t) low = middle;
    else high = middle;
  }
  const int64_t start = global_load(h.starts + low);
  return {low, start, global_load(h.starts + low + 1), h.n_past(low) + t - start};
}

/* Column c of a row of heads, turned by its place's angle (direction 1) or back (-1); `at(column)` reads the row. */
template <class At>
static __device__ float turned(const Heads &h, int64_t position, int64_t c, float direction, At at) {
  const int64_t head = c / h.d * h.d;
  const int i = (int)(c % h.d), half = h.rotary_dim / 2;
  if (i >= h.rotary_dim) return at(c);
  const int pair = h.interleaved ? i / 2 : i % half;
  const int first = h.interleaved ? 2 * pair : pair, second = h.interleaved ? first + 1 : pair + half;
  const double turn = (double)position * h.frequency[pair];
  const float sine = direction * (float)sin(turn), cosine = (float)cos(turn);
  const float x0 = at(head + first), x1 = at(head + second);
  return i == first ? x0 * cosine - x1 * sine : x0 * sine + x1 * cosine;
}

/* Rows of heads into scratch, and into the rows of a state that is left behind. */
static __global__ void load_rows(Heads h, int64_t width, bool rotary, Rows from, float *to, Rows state_out) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, t = at / width, c = at % width;
  if (t >= h.n_t) return;
  const Token token = token_at(h, t);
  const auto column = [&](int64_t i) { return from.get(t, i); };
  const float x = rotary ? turned(h, token.position, c, 1, column) : column(c);
  global_store(to + at, x);
  if (state_out) state_out.put(token.s * h.room_out + token.position, c, x);
}

/* The rows of what came before, into a state that is left behind. */
static __global__ void copy_past(Heads h, int64_t width, Rows from, Rows to) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / width, c = at % width;
  const int64_t s = row / h.room_in, j = row % h.room_in;
  if (s < h.n_seq && j < h.n_past(s)) to.put(s * h.room_out + j, c, from.get(s * h.room_in + j, c));
}

/* Where the keys (or values) of a sequence lie: those that came before, then the new ones. */
struct Keys {
  const float *past, *own;
  int64_t n_past, width;
  __device__ const float *row(int64_t j) const { return j < n_past ? past + j * width : own + (j - n_past) * width; }
};
static __device__ Keys keys_of(const Heads &h, const Token &token, Rows in, const float *own, int64_t g) {
  const int64_t width = (int64_t)h.n_kv * h.d;
  return {(const float *)in.data + (in.data ? token.s * h.room_in * width + g * h.d : 0),
          own + token.start * width + g * h.d, h.n_past(token.s), width};
}

/* A tile in shared memory: (queries or keys, d), (queries, keys) and a number a query. */
struct Forward {
  float *q, *y;               /* (M, D) */
  float *k, *v;               /* (K, D) */
  float *p;                   /* (M, K) */
  float *largest, *sum, *keep; /* (M) */
};
__host__ __device__ static void carve(const Heads &h, Forward *w, SharedCarver *c) {
  const int64_t m = (int64_t)h.n_m * h.ld_d, k = (int64_t)h.n_k * h.ld_d;
  w->q = c->take<float>(m), w->y = c->take<float>(m), w->k = c->take<float>(k), w->v = c->take<float>(k);
  w->p = c->take<float>((int64_t)h.n_m * h.ld_k);
  w->largest = c->take<float>(h.n_m), w->sum = c->take<float>(h.n_m), w->keep = c->take<float>(h.n_m);
}
struct Backward {
  float *q, *dy;      /* (M, D) */
  float *k, *v;       /* (K, D) */
  float *p, *ds;      /* (M, K) */
  float *lse, *means; /* (M) */
  float *first, *second; /* sums: dq (M, D); or dk and dv (K, D) */
};
__host__ __device__ static void carve(const Heads &h, Backward *w, SharedCarver *c) {
  const int64_t m = (int64_t)h.n_m * h.ld_d, k = (int64_t)h.n_k * h.ld_d, most = m > k ? m : k;
  w->q = c->take<float>(m), w->dy = c->take<float>(m), w->k = c->take<float>(k), w->v = c->take<float>(k);
  w->p = c->take<float>((int64_t)h.n_m * h.ld_k), w->ds = c->take<float>((int64_t)h.n_m * h.ld_k);
  w->lse = c->take<float>(h.n_m), w->means = c->take<float>(h.n_m);
  w->first = c->take<float>(most), w->second = c->take<float>(k);
}

/* n rows of d, the i-th at row(i), padded with zeros to n_all of D. */
template <class Row> static __device__ void load_tile(const Heads &h, float *to, int n, int n_all, Row row) {
  for (int at = threadIdx.x; at < n_all * h.n_d; at += THREADS) {
    const int i = at / h.n_d, c = at % h.n_d;
    to[i * h.ld_d + c] = i < n && c < h.d ? global_load(row(i) + c) : 0;
  }
}
static __device__ void clear_tile(const Heads &h, float *to, int n) {
  for (int i = threadIdx.x; i < n * h.ld_d; i += THREADS) to[i] = 0;
}
static __device__ int at_most(int64_t n, int most) { return n < most ? (int)n : most; }

template <bool IS_BF16>
static __global__ void __launch_bounds__(THREADS, 1)
    forward(Heads h, const float *q, const float *k, const float *v, Rows key_in, Rows value_in, Rows y, Rows lse) {
  SHARED(unsigned char, memory);
  SharedCarver c = {memory, 0};
  Forward w;
  carve(h, &w, &c);
  const int64_t head = blockIdx.x % h.n_heads, g = head / (h.n_heads / h.n_kv);
  const Segment tile = segment_at(h.starts, h.n_seq, blockIdx.x / h.n_heads, h.n_m);
  if (!tile.is_there()) return;
  const int n = (int)(tile.end - tile.first), lane = threadIdx.x % WARP;
  const Token token = token_at(h, tile.first);
  const Keys keys = keys_of(h, token, key_in, k, g), values = keys_of(h, token, value_in, v, g);
  load_tile(h, w.q, n, h.n_m, [&](int i) { return q + ((tile.first + i) * h.n_heads + head) * h.d; });
  clear_tile(h, w.y, h.n_m);
  for (int i = threadIdx.x; i < h.n_m; i += THREADS) w.largest[i] = -INFINITY, w.sum[i] = 0;
  for (int64_t first = 0; first < token.position + n; first += h.n_k) {
    const int n_k = at_most(token.position + n - first, h.n_k);
    const int64_t ahead = token.position - first; /* query i reads the tile's keys up to i + ahead */
    __syncthreads();                              /* whoever still reads the keys before */
    load_tile(h, w.k, n_k, h.n_k, [&](int j) { return keys.row(first + j); });
    load_tile(h, w.v, n_k, h.n_k, [&](int j) { return values.row(first + j); });
    __syncthreads();
    tile_for<2>(h.n_m, h.n_k, [&](int i0, int j0) {
      TileSum<2> d = {};
      if (i0 < n && j0 <= i0 + TILE_M - 1 + ahead)
        tile_mac<IS_BF16>(d, tile_rows(w.q, h.ld_d), i0, tile_rows(w.k, h.ld_d), j0, h.n_d);
      tile_each(i0, j0, d, [&](int i, int j, float x) { w.p[i * h.ld_k + j] = j <= i + ahead ? h.scale * x : -INFINITY; });
    });
    __syncthreads();
    for (int i = threadIdx.x / WARP; i < h.n_m; i += THREADS / WARP) { /* a warp a query */
      float *p = w.p + i * h.ld_k, grown = w.largest[i], sum = 0;
      for (int j = lane; j < h.n_k; j += WARP) grown = fmaxf(grown, p[j]);
      grown = warp_max(grown);
      for (int j = lane; j < h.n_k; j += WARP) sum += p[j] = i < n ? expf(p[j] - grown) : 0;
      sum = warp_sum(sum);
      if (lane > 0) continue;
      const float keep = expf(w.largest[i] - grown);
      w.keep[i] = keep, w.largest[i] = grown, w.sum[i] = w.sum[i] * keep + sum;
    }
    __syncthreads();
    tile_for<2>(h.n_m, h.n_d, [&](int i0, int j0) {
      if (i0 >= n) return;
      TileSum<2> d;
      tile_each(i0, j0, d, [&](int i, int j, float &x) { x = w.keep[i] * w.y[i * h.ld_d + j]; });
      tile_mac<IS_BF16>(d, tile_rows(w.p, h.ld_k), i0, tile_cols(w.v, h.ld_d), j0, h.n_k);
      tile_each(i0, j0, d, [&](int i, int j, float x) { w.y[i * h.ld_d + j] = x; });
    });
  }
  __syncthreads();
  for (int at = threadIdx.x; at < n * h.d; at += THREADS) {
    const int i = at / h.d, j = at % h.d;
    y.put(tile.first + i, head * h.d + j, w.y[i * h.ld_d + j] / w.sum[i]);
  }
  for (int i = threadIdx.x; lse && i < n; i += THREADS) lse.put(tile.first + i, head, w.largest[i] + logf(w.sum[i]));
}

/* dy . y of each query; a warp has a query. */
static __global__ void mean_gradients(Heads h, const float *dy, Rows y, float *means) {
  const int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP, t = at / h.n_heads, head = at % h.n_heads;
  if (t >= h.n_t) return;
  float mean = 0;
  for (int i = threadIdx.x % WARP; i < h.d; i += WARP) mean += global_load(dy + at * h.d + i) * y.get(t, head * h.d + i);
  mean = warp_sum(mean);
  if (threadIdx.x % WARP == 0) global_store(means + at, mean);
}

/* Queries of a head: of the tokens [first, first + n). */
static __device__ void load_queries(const Heads &h, const Backward &w, const float *q, const float *dy, Rows lse,
                                    const float *means, int64_t first, int n, int64_t head) {
  load_tile(h, w.q, n, h.n_m, [&](int i) { return q + ((first + i) * h.n_heads + head) * h.d; });
  load_tile(h, w.dy, n, h.n_m, [&](int i) { return dy + ((first + i) * h.n_heads + head) * h.d; });
  for (int i = threadIdx.x; i < h.n_m; i += THREADS) {
    w.lse[i] = i < n ? lse.get(first + i, head) : 0;
    w.means[i] = i < n ? global_load(means + (first + i) * h.n_heads + head) : 0;
  }
}

/* p and ds of n queries and n_k keys; query i reads the keys up to i + ahead. */
template <bool IS_BF16>
static __device__ void score_gradients(const Heads &h, const Backward &w, int n, int n_k, int64_t ahead) {
  tile_for<2>(h.n_m, h.n_k, [&](int i0, int j0) {
    TileSum<2> score = {}, dp = {};
    if (i0 < n && j0 < n_k && j0 <= i0 + TILE_M - 1 + ahead) {
      tile_mac<IS_BF16>(score, tile_rows(w.q, h.ld_d), i0, tile_rows(w.k, h.ld_d), j0, h.n_d);
      tile_mac<IS_BF16>(dp, tile_rows(w.dy, h.ld_d), i0, tile_rows(w.v, h.ld_d), j0, h.n_d);
    }
    int r = 0;
    tile_each(i0, j0, score, [&](int i, int j, float x) {
      const bool is_read = i < n && j < n_k && j <= i + ahead;
      const float p = is_read ? expf(h.scale * x - w.lse[i]) : 0;
      w.p[i * h.ld_k + j] = p;
      w.ds[i * h.ld_k + j] = h.scale * p * (dp.d[r / 4][r % 4] - w.means[i]);
      r++;
    });
  });
}

/* sum (n_i, D) += a times rows of b (n_k, D), that a's n_k columns belong to. */
template <bool IS_BF16>
static __device__ void add_product(const Heads &h, float *sum, int n_i, const TileFactor &a, const float *b, int n_k) {
  tile_for<2>(n_i, h.n_d, [&](int i0, int j0) {
    TileSum<2> d;
    tile_each(i0, j0, d, [&](int i, int j, float &x) { x = sum[i * h.ld_d + j]; });
    tile_mac<IS_BF16>(d, a, i0, tile_cols(b, h.ld_d), j0, n_k);
    tile_each(i0, j0, d, [&](int i, int j, float x) { sum[i * h.ld_d + j] = x; });
  });
}

/* dq of the rotated q. */
template <bool IS_BF16>
static __global__ void __launch_bounds__(THREADS, 1)
    backward_queries(Heads h, const float *q, const float *k, const float *v, Rows key_in, Rows value_in, const float *dy,
                     Rows lse, const float *means, float *dq) {
  SHARED(unsigned char, memory);
  SharedCarver c = {memory, 0};
  Backward w;
  carve(h, &w, &c);
  const int64_t head = blockIdx.x % h.n_heads, g = head / (h.n_heads / h.n_kv);
  const Segment tile = segment_at(h.starts, h.n_seq, blockIdx.x / h.n_heads, h.n_m);
  if (!tile.is_there()) return;
  const int n = (int)(tile.end - tile.first);
  const Token token = token_at(h, tile.first);
  const Keys keys = keys_of(h, token, key_in, k, g), values = keys_of(h, token, value_in, v, g);
  load_queries(h, w, q, dy, lse, means, tile.first, n, head);
  clear_tile(h, w.first, h.n_m);
  for (int64_t first = 0; first < token.position + n; first += h.n_k) {
    const int n_k = at_most(token.position + n - first, h.n_k);
    __syncthreads(); /* whoever still reads the keys before */
    load_tile(h, w.k, n_k, h.n_k, [&](int j) { return keys.row(first + j); });
    load_tile(h, w.v, n_k, h.n_k, [&](int j) { return values.row(first + j); });
    __syncthreads();
    score_gradients<IS_BF16>(h, w, n, n_k, token.position - first);
    __syncthreads();
    add_product<IS_BF16>(h, w.first, h.n_m, tile_rows(w.ds, h.ld_k), w.k, h.n_k);
  }
  __syncthreads();
  for (int at = threadIdx.x; at < n * h.d; at += THREADS)
    global_store(dq + ((tile.first + at / h.d) * h.n_heads + head) * h.d + at % h.d, w.first[at / h.d * h.ld_d + at % h.d]);
}

/* Keys [first, first + n) of a sequence, counted from what came before it. */
struct KeyTile {
  int64_t first;
  int n;
  bool is_new; /* of the call's own tokens; else of what came before, which is asked for by those */
  Token token; /* the first that reads them */
};
/* Rows count the tiles of new tokens, then those of the rooms. */
static __device__ KeyTile key_tile_at(const Heads &h, int64_t row, int64_t n_new, int64_t tiles_of_room) {
  if (row < n_new) {
    const Segment tile = segment_at(h.starts, h.n_seq, row, h.n_k);
    if (!tile.is_there()) return {};
    const Token token = token_at(h, tile.first);
    return {token.position, (int)(tile.end - tile.first), true, token};
  }
  const int64_t s = (row - n_new) / tiles_of_room, first = (row - n_new) % tiles_of_room * h.n_k;
  const Token token = token_at(h, global_load(h.starts + s));
  return {first, at_most(h.n_past(s) > first ? h.n_past(s) - first : 0, h.n_k), false, token};
}

/* dk and dv: of new tokens into scratch, of what came before added where they are wanted. */
template <bool IS_BF16>
static __global__ void __launch_bounds__(THREADS, 1)
    backward_keys(Heads h, int64_t n_new, int64_t tiles_of_room, const float *q, const float *k, const float *v,
                  Rows key_in, Rows value_in, const float *dy, Rows lse, const float *means, float *dk, float *dv,
                  Rows dkey_in, Rows dvalue_in) {
  SHARED(unsigned char, memory);
  SharedCarver c = {memory, 0};
  Backward w;
  carve(h, &w, &c);
  const int share = h.n_heads / h.n_kv;
  const int64_t g = blockIdx.x % h.n_kv;
  const KeyTile tile = key_tile_at(h, blockIdx.x / h.n_kv, n_new, tiles_of_room);
  if (tile.n == 0) return;
  const Token token = tile.token;
  const Keys keys = keys_of(h, token, key_in, k, g), values = keys_of(h, token, value_in, v, g);
  load_tile(h, w.k, tile.n, h.n_k, [&](int j) { return keys.row(tile.first + j); });
  load_tile(h, w.v, tile.n, h.n_k, [&](int j) { return values.row(tile.first + j); });
  clear_tile(h, w.first, h.n_k);
  clear_tile(h, w.second, h.n_k);
  const int64_t first_query = token.start + token.position - h.n_past(token.s);
  for (int64_t head = g * share; head < (g + 1) * share; head++)
    for (int64_t first = first_query; first < token.end; first += h.n_m) {
      const int n = at_most(token.end - first, h.n_m);
      __syncthreads(); /* whoever still reads the queries before */
      load_queries(h, w, q, dy, lse, means, first, n, head);
      __syncthreads();
      score_gradients<IS_BF16>(h, w, n, tile.n, first - first_query + token.position - tile.first);
      __syncthreads();
      add_product<IS_BF16>(h, w.first, h.n_k, tile_cols(w.ds, h.ld_k), w.q, h.n_m);
      add_product<IS_BF16>(h, w.second, h.n_k, tile_cols(w.p, h.ld_k), w.dy, h.n_m);
    }
  __syncthreads();
  for (int at = threadIdx.x; at < tile.n * h.d; at += THREADS) {
    const int j = at / h.d;
    const int64_t col = g * h.d + at % h.d;
    const float own_dk = w.first[j * h.ld_d + at % h.d], own_dv = w.second[j * h.ld_d + at % h.d];
    if (tile.is_new) {
      const int64_t to = (first_query + j) * h.n_kv * h.d + col;
      global_store(dk + to, own_dk);
      global_store(dv + to, own_dv);
      continue;
    }
    if (dkey_in) dkey_in.add(token.s * h.room_in + tile.first + j, col, own_dk);
    if (dvalue_in) dvalue_in.add(token.s * h.room_in + tile.first + j, col, own_dv);
  }
}

/* Scratch rows, and what has arrived at the state's, turned back and added to a gradient. */
static __global__ void add_rows(Heads h, int64_t width, bool rotary, const float *from, Rows dstate_out, Rows to) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, t = at / width, c = at % width;
  if (t >= h.n_t) return;
  const Token token = token_at(h, t);
  const auto column = [&](int64_t i) {
    const float own = global_load(from + t * width + i);
    return dstate_out ? own + dstate_out.get(token.s * h.room_out + token.position, i) : own;
  };
  to.add(t, c, rotary ? turned(h, token.position, c, -1, column) : column(c));
}

/* What has arrived at the rows of what came before, and goes on to them. */
static __global__ void add_past(Heads h, int64_t width, Rows dout, Rows din) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / width, c = at % width;
  const int64_t s = row / h.room_in, j = row % h.room_in;
  if (s < h.n_seq && j < h.n_past(s)) din.add(s * h.room_in + j, c, dout.get(s * h.room_out + j, c));
}

/* ---- launching */

/* The call's sizes for tiles of at most `most` queries and keys. */
static Heads heads_of(const Attention *p, int64_t most) {
  Heads h = {};
  h.n_heads = p->n_heads, h.n_kv = p->n_heads_kv, h.d = p->head_dim, h.rotary_dim = p->rotary_dim;
  h.interleaved = p->rotary_interleaved, h.scale = (float)p->scale;
  h.n_t = tensor_rows(p->q), h.n_seq = tensor_count(p->cu_seqlens) - 1;
  h.room_in = p->key_in ? p->key_in->dim[1] : 0, h.room_out = p->key_out ? p->key_out->dim[1] : 0;
  h.n_m = (int)min_i64(most, round_up(max_i64(1, h.n_t), TILE_K));
  h.n_k = (int)min_i64(most, round_up(max_i64(1, h.n_t + h.room_in), TILE_K));
  h.n_d = (int)round_up(h.d, TILE_K), h.ld_d = h.n_d + 4, h.ld_k = h.n_k + 4;
  h.starts = ints_of(p->cu_seqlens), h.past = ints_of(p->past);
  for (int i = 0; i < p->rotary_dim / 2; i++) h.frequency[i] = pow(p->rotary_base, -2.0 * i / p->rotary_dim);
  return h;
}
template <class Work> static size_t shared_bytes(const Heads &h) {
  SharedCarver c = {};
  Work unused;
  carve(h, &unused, &c);
  return c.used;
}
/* The largest tiles that fit into a block's shared memory. */
template <class Work> static Heads sizes_of(const Attention *p) {
  CHECK(p->head_dim <= MOST_WIDTH && p->rotary_dim <= 2 * MOST_PAIRS, "heads of %d on a GPU, at most %d", p->head_dim,
        MOST_WIDTH);
  Heads h = heads_of(p, MOST_TILE);
  for (int most = MOST_TILE / 2; shared_bytes<Work>(h) > cuda_device.shared_bytes && most >= TILE_K; most /= 2)
    h = heads_of(p, most);
  CHECK(shared_bytes<Work>(h) <= cuda_device.shared_bytes, "heads of %d need %zu bytes of shared memory, this GPU gives %zu",
        p->head_dim, shared_bytes<Work>(h), cuda_device.shared_bytes);
  return h;
}

/* The scratch: q, k, v; backward also dy, dq, dk, dv and a number for each query. */
struct Scratch {
  float *q, *k, *v, *dy, *dq, *dk, *dv, *means;
  int64_t used;
};
static Scratch lay_scratch(const Attention *p, bool backward, float *at) {
  const int64_t n_t = tensor_rows(p->q), n_q = n_t * p->n_heads * p->head_dim, n_kv = n_t * p->n_heads_kv * p->head_dim;
  Scratch s = {};
  const struct {
    float **field;
    int64_t n;
  } fields[] = {{&s.q, n_q},  {&s.k, n_kv},  {&s.v, n_kv},  {&s.dy, n_q},
                {&s.dq, n_q}, {&s.dk, n_kv}, {&s.dv, n_kv}, {&s.means, n_t * p->n_heads}};
  for (int i = 0; i < (backward ? 8 : 3); i++) {
    *fields[i].field = at + s.used;
    s.used += fields[i].n;
  }
  return s;
}

KERNEL_SCRATCH(attention, Attention) { return (size_t)lay_scratch(p, backward, nullptr).used * sizeof(float); }

static Rows state_rows(const Attention *p, const Tensor *state) {
  return rows_of_width(state, (int64_t)p->n_heads_kv * p->head_dim);
}

static void load(const Attention *p, const Heads &h, const Scratch &s, bool with_states) {
  const int64_t n_q = (int64_t)h.n_heads * h.d, n_kv = (int64_t)h.n_kv * h.d;
  const Rows none = {}, key_out = with_states ? state_rows(p, p->key_out) : none;
  const Rows value_out = with_states ? state_rows(p, p->value_out) : none;
  LAUNCH(load_rows, blocks_of(h.n_t * n_q, 128), 128, 0, h, n_q, true, rows_of(p->q), s.q, none);
  LAUNCH(load_rows, blocks_of(h.n_t * n_kv, 128), 128, 0, h, n_kv, true, rows_of(p->k), s.k, key_out);
  LAUNCH(load_rows, blocks_of(h.n_t * n_kv, 128), 128, 0, h, n_kv, false, rows_of(p->v), s.v, value_out);
}

KERNEL_FWD(attention, Attention) {
  const Heads h = sizes_of<Forward>(p);
  const Scratch s = lay_scratch(p, false, (float *)p->scratch);
  const int64_t n_kv = (int64_t)h.n_kv * h.d;
  load(p, h, s, true);
  if (p->key_in && p->key_out && p->key_in->data != p->key_out->data) {
    const unsigned n_blocks = blocks_of(h.n_seq * h.room_in * n_kv, 128);
    LAUNCH(copy_past, n_blocks, 128, 0, h, n_kv, state_rows(p, p->key_in), state_rows(p, p->key_out));
    LAUNCH(copy_past, n_blocks, 128, 0, h, n_kv, state_rows(p, p->value_in), state_rows(p, p->value_out));
  }
  void (*const kernel)(Heads, const float *, const float *, const float *, Rows, Rows, Rows, Rows) =
      p->q->dtype == BF16 ? forward<true> : forward<false>;
  LAUNCH(kernel, blocks_of(segment_rows(h.n_t, h.n_seq, h.n_m) * h.n_heads, 1), THREADS, shared_bytes<Forward>(h), h, s.q,
         s.k, s.v, state_rows(p, p->key_in), state_rows(p, p->value_in), rows_of(p->y), rows_of(p->lse));
}

KERNEL_BWD(attention, Attention) {
  const Heads h = sizes_of<Backward>(p);
  const Scratch s = lay_scratch(p, true, (float *)p->scratch);
  const int64_t n_q = (int64_t)h.n_heads * h.d, n_kv = (int64_t)h.n_kv * h.d;
  const Rows none = {}, key_in = state_rows(p, p->key_in), value_in = state_rows(p, p->value_in);
  load(p, h, s, false);
  LAUNCH(load_rows, blocks_of(h.n_t * n_q, 128), 128, 0, h, n_q, false, rows_of(p->dy), s.dy, none);
  LAUNCH(mean_gradients, blocks_of(h.n_t * h.n_heads, 128 / WARP), 128, 0, h, s.dy, rows_of(p->y), s.means);
  const bool is_bf16 = p->q->dtype == BF16;
  const size_t shared = shared_bytes<Backward>(h);
  void (*const queries)(Heads, const float *, const float *, const float *, Rows, Rows, const float *, Rows, const float *,
                        float *) = is_bf16 ? backward_queries<true> : backward_queries<false>;
  LAUNCH(queries, blocks_of(segment_rows(h.n_t, h.n_seq, h.n_m) * h.n_heads, 1), THREADS, shared, h, s.q, s.k, s.v, key_in,
         value_in, s.dy, rows_of(p->lse), s.means, s.dq);
  const int64_t n_new = segment_rows(h.n_t, h.n_seq, h.n_k), tiles_of_room = ceil_div(h.room_in, h.n_k);
  void (*const keys)(Heads, int64_t, int64_t, const float *, const float *, const float *, Rows, Rows, const float *, Rows,
                     const float *, float *, float *, Rows, Rows) = is_bf16 ? backward_keys<true> : backward_keys<false>;
  LAUNCH(keys, blocks_of((n_new + h.n_seq * tiles_of_room) * h.n_kv, 1), THREADS, shared, h, n_new, tiles_of_room, s.q,
         s.k, s.v, key_in, value_in, s.dy, rows_of(p->lse), s.means, s.dk, s.dv, state_rows(p, p->dkey_in),
         state_rows(p, p->dvalue_in));
  const struct {
    const Tensor *to, *dout, *din;
    int64_t width;
    bool rotary;
    const float *from;
  } ends[] = {{p->dq, nullptr, nullptr, n_q, true, s.dq},
              {p->dk, p->dkey_out, p->dkey_in, n_kv, true, s.dk},
              {p->dv, p->dvalue_out, p->dvalue_in, n_kv, false, s.dv}};
  for (const auto &end : ends) {
    const Rows dout = state_rows(p, end.dout);
    if (end.to)
      LAUNCH(add_rows, blocks_of(h.n_t * end.width, 128), 128, 0, h, end.width, end.rotary, end.from, dout,
             rows_of(end.to));
    if (end.dout && end.din)
      LAUNCH(add_past, blocks_of(h.n_seq * h.room_in * end.width, 128), 128, 0, h, end.width, dout,
             state_rows(p, end.din));
  }
}
