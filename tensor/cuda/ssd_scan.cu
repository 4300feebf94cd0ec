/* ssd_scan, forward (SsdScan in tensor/kernels.h; specification, sections 3 and 3.1; Dao & Gu 2024, section 6). With u_t,
 * gamma, delta and S_t as in tensor/cpu/ssd_scan.c, and the same sums as tensor/cpu/ssd_scan_chunked.h:
 *
 * A tile is some consecutive tokens of one chunk, R rows (ranks) a token. Row i of token t(i); A_i is the sum of a from the
 * tile's first token to t(i), w = gamma + delta, S the state entering the tile:
 *   F_ij = exp(A_i - A_j) w_j q_i.k_j for earlier tokens, gamma_j q_i.k_j for rows of one token, 0 for later ones
 *   y_i = sum_j F_ij v_j + exp(A_i) S q_i + D v_i
 *   S'  = exp(A_end) S + sum_j exp(A_end - A_j) w_j v_j k_j^T
 *
 * A block has one head of one sequence and goes through its tiles; S stays in shared memory all the way, and k, q (norm,
 * bias, rotation of B and C) are made in the tile's prologue and never written.
 *
 * Few sequences and heads are cut into segments, a block each: what a segment adds to the state, from nothing, is found
 * first, and joined in order: S' = exp(sum of a) S + what the segment adds. theta before a segment is a sum over chunks. */
#include "tensor/cuda/scan.h"

struct Outputs {
  Rows y, ssm_out, angle_out, k_out, v_out, chunk_states; /* rows as the _in ones; chunk_states: of (chunk, h, p): N */
};

/* What crosses segments: scratch, where sequences are cut. */
struct Joint {
  float *state;   /* (segments, H, P padded, N padded): what enters the next segment */
  float *whole;   /* (segments, H): exp(sum of a) */
  double *thetas; /* (chunks, H, S) */
};

struct ForwardWork {
  ScanWork tile;
  float *S; /* (P, N) */
  float *F; /* (M, M) */
};
__host__ __device__ static void carve(const Scan &s, ForwardWork *w, SharedCarver *c) {
  scan_carve(s, &w->tile, c);
  w->S = c->take<float>((int64_t)s.n_rows * s.ld_n);
  w->F = c->take<float>((int64_t)s.n_m * s.ld_m);
}

static __device__ void store_state(const Scan &s, const float *S, Rows to, int64_t at) {
  for (int i = threadIdx.x; to && i < s.n_p * s.n_n; i += SCAN_THREADS)
    to.put(at * s.n_p + i / s.n_n, i % s.n_n, S[i / s.n_n * s.ld_n + i % s.n_n]);
}

/* F, of the tile's head. */
template <bool IS_BF16> static __device__ void mix(const Scan &s, const ForwardWork &work, const ScanTile &tile) {
  const ScanWork &w = work.tile;
  tile_for<2>(s.n_m, s.n_m, [&](int i0, int j0) {
    TileSum<2> d = {};
    if (j0 / s.n_r <= (i0 + TILE_M - 1) / s.n_r)
      tile_mac<IS_BF16>(d, tile_rows(w.q, s.ld_n), i0, tile_rows(w.k, s.ld_n), j0, s.n_cols);
    tile_each(i0, j0, d, [&](int i, int j, float x) {
      const int t_i = i / s.n_r, t_j = j / s.n_r;
      float f = 0;
      if (i < tile.m && j < tile.m && t_j < t_i) f = scan_decay(w, i, j) * w.w[j] * x;
      if (i < tile.m && j < tile.m && t_j == t_i) f = w.gamma[j] * x;
      work.F[i * s.ld_m + j] = f;
    });
  });
}

template <bool IS_BF16>
static __device__ void read_out(const Scan &s, const ForwardWork &work, const ScanTile &tile, int h, Rows y) {
  const ScanWork &w = work.tile;
  tile_for<2>(s.n_m, s.n_rows, [&](int i0, int j0) {
    TileSum<2> d = {};
    tile_mac<IS_BF16>(d, tile_rows(w.q, s.ld_n), i0, tile_rows(work.S, s.ld_n), j0, s.n_cols);
    tile_each(i0, j0, d, [&](int i, int, float &x) { x *= w.start[i]; });
    tile_mac<IS_BF16>(d, tile_rows(work.F, s.ld_m), i0, tile_cols(w.v, s.ld_p), j0, s.n_m);
    tile_each(i0, j0, d, [&](int i, int c, float x) {
      if (i >= tile.m || c >= s.n_p) return;
      const float D = s.D.get(0, s.D_per_channel ? h * s.n_p + c : h);
      y.put(tile.first + i / s.n_r, ((int64_t)(i % s.n_r) * s.n_h + h) * s.n_p + c, x + D * w.v[i * s.ld_p + c]);
    });
  });
}

/* What the sequence's last token leaves behind. */
static __device__ void store_end(const Scan &s, const ForwardWork &work, const ScanTile &tile, int h,
                                 const Outputs &out) {
  const int64_t at = tile.seq * s.n_h + h;
  const int last = tile.m - s.n_r;
  store_state(s, work.S, out.ssm_out, at);
  for (int i = threadIdx.x; out.angle_out && i < s.n_s; i += SCAN_THREADS)
    out.angle_out.put(at, i, (float)work.tile.theta[i]);
  for (int c = threadIdx.x; out.v_out && c < s.n_p; c += SCAN_THREADS)
    out.v_out.put(at, c, s.x.get(tile.end - 1, (int64_t)h * s.n_p + c));
  for (int i = threadIdx.x; out.k_out && i < s.n_r * s.n_n; i += SCAN_THREADS)
    out.k_out.put((tile.seq * s.n_r + i / s.n_n) * s.n_h + h, i % s.n_n,
                  work.tile.k[(last + i / s.n_n) * s.ld_n + i % s.n_n]);
}

/* S and theta before a segment; where the states are only being found, S of a sequence's first segment alone. */
static __device__ void begin_head(const Scan &s, const ForwardWork &work, const Joint &joint, const Segment &segment,
                                  int64_t row, int h, bool find) {
  scan_begin_theta(s, work.tile, segment, joint.thetas, h);
  const int64_t size = (int64_t)s.n_rows * s.n_cols;
  if (segment.begins_sequence()) scan_begin_state(s, segment.seq, segment.start, h, work.S);
  else
    for (int i = threadIdx.x; i < size; i += SCAN_THREADS)
      work.S[i / s.n_cols * s.ld_n + i % s.n_cols] =
          find ? 0 : global_load(joint.state + ((row - 1) * s.n_h + h) * size + i);
  __syncthreads();
}

template <bool IS_BF16>
static __global__ void __launch_bounds__(SCAN_THREADS, 1) forward(Scan s, Joint joint, Outputs out) {
  SHARED(unsigned char, memory);
  SharedCarver c = {memory, 0};
  ForwardWork work;
  carve(s, &work, &c);
  const int h = blockIdx.x % s.n_h;
  const int64_t row = blockIdx.x / s.n_h;
  const Segment segment = segment_at(s.starts, s.n_seq, row, s.segment);
  if (!segment.is_there()) return;
  begin_head(s, work, joint, segment, row, h, false);
  for (int64_t first = segment.first; first < segment.end;) {
    const ScanTile tile = scan_tile_at(s, segment.seq, segment.start, segment.seq_end, first);
    if ((first - segment.start) % s.n_q == 0)
      store_state(s, work.S, out.chunk_states, s.chunk_row(segment.start, segment.seq, first) * s.n_h + h);
    scan_prologue(s, work.tile, tile, h, true);
    mix<IS_BF16>(s, work, tile);
    __syncthreads();
    read_out<IS_BF16>(s, work, tile, h, out.y);
    __syncthreads();
    scan_step_state<IS_BF16>(s, work.tile, tile, work.S, work.S, s.ld_n, false);
    __syncthreads();
    if (tile.ends_sequence) store_end(s, work, tile, h, out);
    first += tile.n;
  }
}

/* ---- before, where sequences are cut: the state at every segment */

/* What a segment adds to the state; of a sequence's first one with what comes in, of its last nobody asks. */
template <bool IS_BF16>
static __global__ void __launch_bounds__(SCAN_THREADS, 1) find_state(Scan s, Joint joint) {
  SHARED(unsigned char, memory);
  SharedCarver c = {memory, 0};
  ForwardWork work;
  carve(s, &work, &c);
  const int h = blockIdx.x % s.n_h;
  const int64_t row = blockIdx.x / s.n_h, at = row * s.n_h + h, size = (int64_t)s.n_rows * s.n_cols;
  const Segment segment = segment_at(s.starts, s.n_seq, row, s.segment);
  if (!segment.is_there() || segment.ends_sequence()) return;
  begin_head(s, work, joint, segment, row, h, true);
  double sum = 0;
  for (int64_t first = segment.first; first < segment.end;) {
    const ScanTile tile = scan_tile_at(s, segment.seq, segment.start, segment.seq_end, first);
    scan_prologue(s, work.tile, tile, h, false);
    scan_step_state<IS_BF16>(s, work.tile, tile, work.S, work.S, s.ld_n, false);
    sum += (double)work.tile.high[tile.m - 1] + (double)work.tile.low[tile.m - 1];
    __syncthreads();
    first += tile.n;
  }
  for (int i = threadIdx.x; i < size; i += SCAN_THREADS)
    global_store(joint.state + at * size + i, work.S[i / s.n_cols * s.ld_n + i % s.n_cols]);
  if (threadIdx.x == 0) global_store(joint.whole + at, (float)exp(sum));
}

/* From what each segment adds to what enters the next. A thread has an element of the state. */
static __global__ void join_states(Scan s, Joint joint) {
  const int64_t size = (int64_t)s.n_rows * s.n_cols, at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t seq = at / (s.n_h * size), in_seq = at % (s.n_h * size), h = in_seq / size;
  if (seq >= s.n_seq) return;
  const int64_t start = global_load(s.starts + seq), end = global_load(s.starts + seq + 1);
  int64_t row = segment_row(start, seq, s.segment);
  float state = 0;
  for (int64_t last = start + s.segment; last < end; last += s.segment, row++) {
    float *own = joint.state + row * s.n_h * size + in_seq;
    if (last == start + s.segment) {
      state = global_load(own);
      continue;
    }
    state = global_load(own) + global_load(joint.whole + row * s.n_h + h) * state;
    global_store(own, state);
  }
}

/* The turn of each chunk, and then the sum of those before it. A thread has an angle of a head. */
static __global__ void chunk_turns(Scan s, int64_t n_chunks, double *thetas) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / s.n_s / s.n_h;
  if (row >= n_chunks) return;
  const int h = at / s.n_s % s.n_h, i = at % s.n_s;
  const Segment chunk = segment_at(s.starts, s.n_seq, row, s.n_q);
  double sum = 0;
  for (int64_t t = chunk.first; t < chunk.end; t++)
    sum += (double)(PI * tanhf(s.angle.get(t, i))) * (double)s.dt.get(t, h);
  global_store(thetas + at, sum);
}
static __global__ void join_thetas(Scan s, double *thetas) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, seq = at / s.n_s / s.n_h;
  if (seq >= s.n_seq) return;
  const int h = at / s.n_s % s.n_h, i = at % s.n_s;
  const int64_t start = global_load(s.starts + seq), end = global_load(s.starts + seq + 1);
  double theta = s.theta_in(seq, h, i);
  for (int64_t first = start; first < end; first += s.n_q) {
    double *own = thetas + (s.chunk_row(start, seq, first) * s.n_h + h) * s.n_s + i;
    const double turn = global_load(own);
    global_store(own, theta);
    theta = scan_wrap(theta + turn);
  }
}

/* ---- launching */

int64_t scan_segment_blocks = 108;

static int padded(int64_t n, int step) { return (int)round_up(n, step); }

Scan scan_of(const SsdScan *p, int n_m) {
  Scan s = {};
  s.n_h = p->n_h, s.n_p = p->n_p, s.n_n = p->n_n, s.n_g = p->n_g, s.n_r = p->n_r, s.n_s = p->n_s, s.n_q = p->chunk_size;
  s.n_t = p->x->dim[0], s.n_seq = p->cu_seqlens->dim[0] - 1;
  s.n_tile = (int)min_i64(min_i64(max_i64(1, n_m / s.n_r), s.n_q), s.n_t);
  s.n_m = padded((int64_t)s.n_tile * s.n_r, TILE_K);
  s.n_rows = padded(s.n_p, TILE_K), s.n_cols = padded(s.n_n, TILE_K);
  s.ld_n = s.n_cols + 4, s.ld_p = s.n_rows + 4, s.ld_m = s.n_m + 4;
  const int64_t pieces = scan_segment_blocks / max_i64(1, s.n_seq * s.n_h);
  s.segment = round_up(pieces > 1 ? max_i64(SEGMENT_MIN, ceil_div(s.n_t, s.n_seq * pieces)) : max_i64(1, s.n_t), s.n_q);
  /* a bound that never falls as n_t grows: memory planned for the longest sequences is enough for all */
  s.n_segments = s.n_seq + (pieces > 1 ? min_i64(s.n_t / SEGMENT_MIN, s.n_seq * pieces) : 0);
  s.halves = p->rotate_halves, s.kq_shared = !p->B_norm && s.n_s == 0;
  s.D_per_channel = p->D->dim[0] != s.n_h, s.takes_input = p->lambda && p->k_in && p->v_in;
  s.norm_eps = (float)p->norm_eps;
  s.starts = ints_of(p->cu_seqlens);
  s.x = rows_of(p->x), s.B = rows_of(p->B), s.C = rows_of(p->C);
  s.dt = rows_of(p->dt), s.a = rows_of(p->a), s.lambda = rows_of(p->lambda);
  s.D = rows_of(p->D), s.B_norm = rows_of(p->B_norm), s.C_norm = rows_of(p->C_norm);
  s.B_bias = rows_of_width(p->B_bias, s.n_n), s.C_bias = rows_of_width(p->C_bias, s.n_n);
  s.angle = rows_of(s.n_s > 0 ? p->angle : nullptr), s.mimo_x = rows_of_width(p->mimo_x, s.n_p);
  s.ssm_in = rows_of_width(p->ssm_in, s.n_n), s.angle_in = rows_of_width(s.n_s > 0 ? p->angle_in : nullptr, s.n_s);
  s.k_in = rows_of_width(p->k_in, s.n_n), s.v_in = rows_of_width(p->v_in, s.n_p);
  return s;
}

static size_t forward_bytes(const Scan &s) {
  SharedCarver c = {};
  ForwardWork unused;
  carve(s, &unused, &c);
  return c.used;
}

/* The largest tile whose work fits into a block's shared memory. */
static Scan sizes_of(const SsdScan *p) {
  Scan s = scan_of(p, SCAN_MOST_ROWS);
  for (int n_m = SCAN_MOST_ROWS / 2; forward_bytes(s) > cuda_device.shared_bytes && n_m >= TILE_K; n_m /= 2)
    s = scan_of(p, n_m);
  CHECK(forward_bytes(s) <= cuda_device.shared_bytes,
        "headdim %d, d_state %d, rank %d need %zu bytes of shared memory, "
        "this GPU gives %zu",
        s.n_p, s.n_n, s.n_r, forward_bytes(s), cuda_device.shared_bytes);
  return s;
}

static Joint lay_joint(const Scan &s, char *at, size_t *bytes) {
  Joint joint = {};
  const int64_t n_heads = s.n_segments > s.n_seq ? s.n_segments * s.n_h : 0;
  const int64_t n_thetas = n_heads > 0 ? ssd_scan_n_chunks(s.n_t, s.n_seq, s.n_q) * s.n_h * s.n_s : 0;
  const struct {
    void **field;
    int64_t bytes;
  } fields[] = {{(void **)&joint.state, n_heads * s.n_rows * s.n_cols * (int64_t)sizeof(float)},
                {(void **)&joint.whole, n_heads * (int64_t)sizeof(float)},
                {(void **)&joint.thetas, n_thetas * (int64_t)sizeof(double)}};
  *bytes = 0;
  for (const auto &field : fields) {
    *field.field = at + *bytes;
    *bytes += (size_t)round_up(field.bytes, 256);
  }
  return joint;
}
size_t scan_forward_scratch(const SsdScan *p) {
  size_t bytes;
  lay_joint(sizes_of(p), nullptr, &bytes);
  return bytes;
}

void scan_chunk_thetas(const Scan &s, double *thetas) {
  const int64_t n_chunks = ssd_scan_n_chunks(s.n_t, s.n_seq, s.n_q), n = (int64_t)s.n_h * s.n_s;
  LAUNCH(chunk_turns, blocks_of(n_chunks * n, 128), 128, 0, s, n_chunks, thetas);
  LAUNCH(join_thetas, blocks_of(s.n_seq * n, 128), 128, 0, s, thetas);
}

KERNEL_FWD(ssd_scan, SsdScan) {
  const Scan s = sizes_of(p);
  size_t bytes;
  const Joint joint = lay_joint(s, (char *)p->scratch, &bytes);
  const bool is_bf16 = p->x->dtype == BF16;
  const unsigned n_blocks = blocks_of(s.n_segments * s.n_h, 1);
  if (s.segment < s.n_t) {
    if (s.n_s > 0) scan_chunk_thetas(s, joint.thetas);
    void (*const find)(Scan, Joint) = is_bf16 ? find_state<true> : find_state<false>;
    LAUNCH(find, n_blocks, SCAN_THREADS, forward_bytes(s), s, joint);
    LAUNCH(join_states, blocks_of(s.n_seq * s.n_h * s.n_rows * s.n_cols, 128), 128, 0, s, joint);
  }
  const Outputs out = {rows_of(p->y),
                       rows_of_width(p->ssm_out, s.n_n),
                       rows_of_width(s.n_s > 0 ? p->angle_out : nullptr, s.n_s),
                       rows_of_width(p->k_out, s.n_n),
                       rows_of_width(p->v_out, s.n_p),
                       rows_of_width(p->chunk_states, s.n_n)};
  void (*const kernel)(Scan, Joint, Outputs) = is_bf16 ? forward<true> : forward<false>;
  LAUNCH(kernel, n_blocks, SCAN_THREADS, forward_bytes(s), s, joint, out);
}
