/* attention: causal softmax attention inside each sequence, with shared key heads, rotary positions and what came before
 * (Attention in tensor/kernels.h).
 *
 *   s_ij = scale q_i . k_j (j <= i);  p_i = softmax(s_i);  y_i = sum_j p_ij v_j;  lse_i = log sum_j e^s_ij
 *   dv_j += p_ij dy_i;  dp_ij = dy_i . v_j;  ds_ij = scale p_ij (dp_ij - dy_i . y_i)
 *   dq_i = sum_j ds_ij k_j;  dk_j += ds_ij q_i;  q and k here are the rotated ones, so dq and dk are rotated back.
 *
 * q, k and v lie in scratch as float32, rotated. A warp has one query of a head and goes through the keys 32 at a time, a
 * lane a key, keeping the largest score so far (Milakov and Gimelshein 2018); backward, a warp has a query for dq and a
 * key, with all queries that read it, for dk and dv. So nothing is added by two warps. Attention is a guest in these
 * models: it is right and needs little memory, and leaves the tensor cores to the products around it. */
#include "tensor/cuda/cuda.h"

constexpr int WARPS = 4, MOST_PAIRS = 128, MOST_PARTS = 8; /* heads of up to MOST_PARTS * 32 */

struct Heads {
  int n_heads, n_kv, d, rotary_dim;
  bool interleaved;
  float scale;
  int64_t n_t, n_seq, room_in, room_out;
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

static __device__ float dot(const float *a, const float *b, int d) {
  float sum = 0;
  for (int i = 0; i < d; i++) sum += global_load(a + i) * global_load(b + i);
  return sum;
}

/* The warp's (token, head); false past the last. */
static __device__ bool query_of(const Heads &h, int64_t *t, int64_t *head) {
  const int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
  *t = at / h.n_heads, *head = at % h.n_heads;
  return *t < h.n_t;
}

static __global__ void forward(Heads h, const float *q, const float *k, const float *v, Rows key_in, Rows value_in,
                               Rows y, Rows lse) {
  const int lane = threadIdx.x % WARP;
  int64_t t, head;
  if (!query_of(h, &t, &head)) return;
  const Token token = token_at(h, t);
  const int64_t g = head / (h.n_heads / h.n_kv);
  const Keys keys = keys_of(h, token, key_in, k, g), values = keys_of(h, token, value_in, v, g);
  const float *own = q + (t * h.n_heads + head) * h.d;
  float largest = -INFINITY, sum = 0, part[MOST_PARTS] = {};
  for (int64_t first = 0; first <= token.position; first += WARP) {
    const int64_t j = first + lane;
    const float score = j <= token.position ? h.scale * dot(own, keys.row(j), h.d) : -INFINITY;
    const float grown = fmaxf(largest, warp_max(score)), keep = expf(largest - grown), weight = expf(score - grown);
    largest = grown;
    sum = sum * keep + warp_sum(weight);
    for (int i = 0; i < MOST_PARTS; i++) part[i] *= keep;
    for (int other = 0; other < WARP && first + other <= token.position; other++) {
      const float w = __shfl_sync(ALL_LANES, weight, other);
      const float *value = values.row(first + other);
      for (int i = 0; i < MOST_PARTS; i++)
        if (i * WARP + lane < h.d) part[i] += w * global_load(value + i * WARP + lane);
    }
  }
  for (int i = 0; i < MOST_PARTS; i++)
    if (i * WARP + lane < h.d) y.put(t, head * h.d + i * WARP + lane, part[i] / sum);
  if (lse && lane == 0) lse.put(t, head, largest + logf(sum));
}

/* dq of the rotated q, and dy . y of each query, which dk needs. */
static __global__ void backward_queries(Heads h, const float *q, const float *k, const float *v, Rows key_in,
                                        Rows value_in, const float *dy, Rows y, Rows lse, float *dq, float *means) {
  const int lane = threadIdx.x % WARP;
  int64_t t, head;
  if (!query_of(h, &t, &head)) return;
  const Token token = token_at(h, t);
  const int64_t g = head / (h.n_heads / h.n_kv), at = (t * h.n_heads + head) * h.d;
  const Keys keys = keys_of(h, token, key_in, k, g), values = keys_of(h, token, value_in, v, g);
  float mean = 0, part[MOST_PARTS] = {};
  for (int i = lane; i < h.d; i += WARP) mean += global_load(dy + at + i) * y.get(t, head * h.d + i);
  mean = warp_sum(mean);
  const float own_lse = lse.get(t, head);
  for (int64_t first = 0; first <= token.position; first += WARP) {
    const int64_t j = first + lane;
    float dscore = 0;
    if (j <= token.position) {
      const float weight = expf(h.scale * dot(q + at, keys.row(j), h.d) - own_lse);
      dscore = h.scale * weight * (dot(dy + at, values.row(j), h.d) - mean);
    }
    for (int other = 0; other < WARP && first + other <= token.position; other++) {
      const float d = __shfl_sync(ALL_LANES, dscore, other);
      const float *key = keys.row(first + other);
      for (int i = 0; i < MOST_PARTS; i++)
        if (i * WARP + lane < h.d) part[i] += d * global_load(key + i * WARP + lane);
    }
  }
  for (int i = 0; i < MOST_PARTS; i++)
    if (i * WARP + lane < h.d) global_store(dq + at + i * WARP + lane, part[i]);
  if (lane == 0) global_store(means + t * h.n_heads + head, mean);
}

/* dk and dv of one key: of a new token's into scratch, of what came before added where it is wanted. Warps count the new
 * tokens' keys, then all rows of the rooms. */
static __global__ void backward_keys(Heads h, const float *q, const float *k, const float *v, Rows key_in,
                                     Rows value_in, const float *dy, Rows lse, const float *means, float *dk, float *dv,
                                     Rows dkey_in, Rows dvalue_in) {
  const int lane = threadIdx.x % WARP;
  const int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, row = at / h.n_kv, g = at % h.n_kv;
  const bool is_new = row < h.n_t;
  const int64_t s = is_new ? 0 : (row - h.n_t) / (h.room_in > 0 ? h.room_in : 1);
  if (!is_new && (s >= h.n_seq || h.room_in == 0)) return;
  const Token token = token_at(h, is_new ? row : global_load(h.starts + s));
  const int64_t n_past = h.n_past(token.s), j = is_new ? token.position : (row - h.n_t) % h.room_in;
  if (!is_new && j >= n_past) return;
  const float *key = keys_of(h, token, key_in, k, g).row(j), *value = keys_of(h, token, value_in, v, g).row(j);
  const int64_t first_query = is_new ? row : token.start;
  const int share = h.n_heads / h.n_kv;
  float dk_part[MOST_PARTS] = {}, dv_part[MOST_PARTS] = {};
  for (int64_t head = g * share; head < (g + 1) * share; head++)
    for (int64_t first = first_query; first < token.end; first += WARP) {
      const int64_t t = first + lane, of_query = (t * h.n_heads + head) * h.d;
      float weight = 0, dscore = 0;
      if (t < token.end) {
        weight = expf(h.scale * dot(q + of_query, key, h.d) - lse.get(t, head));
        dscore = h.scale * weight * (dot(dy + of_query, value, h.d) - global_load(means + t * h.n_heads + head));
      }
      for (int other = 0; other < WARP && first + other < token.end; other++) {
        const float w = __shfl_sync(ALL_LANES, weight, other), d = __shfl_sync(ALL_LANES, dscore, other);
        const int64_t from = ((first + other) * h.n_heads + head) * h.d + lane;
        for (int i = 0; i < MOST_PARTS; i++)
          if (i * WARP + lane < h.d) {
            dk_part[i] += d * global_load(q + from + i * WARP);
            dv_part[i] += w * global_load(dy + from + i * WARP);
          }
      }
    }
  for (int i = 0; i < MOST_PARTS; i++) {
    const int64_t c = g * h.d + i * WARP + lane;
    if (i * WARP + lane >= h.d) break;
    if (is_new) {
      global_store(dk + row * h.n_kv * h.d + c, dk_part[i]);
      global_store(dv + row * h.n_kv * h.d + c, dv_part[i]);
      continue;
    }
    if (dkey_in) dkey_in.add(token.s * h.room_in + j, c, dk_part[i]);
    if (dvalue_in) dvalue_in.add(token.s * h.room_in + j, c, dv_part[i]);
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

static Heads heads_of(const Attention *p) {
  CHECK(p->head_dim <= MOST_PARTS * WARP && p->rotary_dim <= 2 * MOST_PAIRS, "heads of %d on a GPU, at most %d",
        p->head_dim, MOST_PARTS * WARP);
  Heads h = {};
  h.n_heads = p->n_heads, h.n_kv = p->n_heads_kv, h.d = p->head_dim, h.rotary_dim = p->rotary_dim;
  h.interleaved = p->rotary_interleaved, h.scale = (float)p->scale;
  h.n_t = tensor_rows(p->q), h.n_seq = tensor_count(p->cu_seqlens) - 1;
  h.room_in = p->key_in ? p->key_in->dim[1] : 0, h.room_out = p->key_out ? p->key_out->dim[1] : 0;
  h.starts = ints_of(p->cu_seqlens), h.past = ints_of(p->past);
  for (int i = 0; i < p->rotary_dim / 2; i++) h.frequency[i] = pow(p->rotary_base, -2.0 * i / p->rotary_dim);
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
  const Heads h = heads_of(p);
  const Scratch s = lay_scratch(p, false, (float *)p->scratch);
  const int64_t n_kv = (int64_t)h.n_kv * h.d;
  load(p, h, s, true);
  if (p->key_in && p->key_out && p->key_in->data != p->key_out->data) {
    const unsigned n_blocks = blocks_of(h.n_seq * h.room_in * n_kv, 128);
    LAUNCH(copy_past, n_blocks, 128, 0, h, n_kv, state_rows(p, p->key_in), state_rows(p, p->key_out));
    LAUNCH(copy_past, n_blocks, 128, 0, h, n_kv, state_rows(p, p->value_in), state_rows(p, p->value_out));
  }
  LAUNCH(forward, blocks_of(h.n_t * h.n_heads, WARPS), WARPS * WARP, 0, h, s.q, s.k, s.v, state_rows(p, p->key_in),
         state_rows(p, p->value_in), rows_of(p->y), rows_of(p->lse));
}

KERNEL_BWD(attention, Attention) {
  const Heads h = heads_of(p);
  const Scratch s = lay_scratch(p, true, (float *)p->scratch);
  const int64_t n_q = (int64_t)h.n_heads * h.d, n_kv = (int64_t)h.n_kv * h.d;
  const Rows none = {}, key_in = state_rows(p, p->key_in), value_in = state_rows(p, p->value_in);
  load(p, h, s, false);
  LAUNCH(load_rows, blocks_of(h.n_t * n_q, 128), 128, 0, h, n_q, false, rows_of(p->dy), s.dy, none);
  LAUNCH(backward_queries, blocks_of(h.n_t * h.n_heads, WARPS), WARPS * WARP, 0, h, s.q, s.k, s.v, key_in, value_in,
         s.dy, rows_of(p->y), rows_of(p->lse), s.dq, s.means);
  const int64_t n_rows = h.n_t + h.n_seq * h.room_in;
  LAUNCH(backward_keys, blocks_of(n_rows * h.n_kv, WARPS), WARPS * WARP, 0, h, s.q, s.k, s.v, key_in, value_in, s.dy,
         rows_of(p->lse), s.means, s.dk, s.dv, state_rows(p, p->dkey_in), state_rows(p, p->dvalue_in));
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
