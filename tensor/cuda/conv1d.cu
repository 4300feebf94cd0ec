/* conv1d: causal depth-wise convolution with an optional silu (Conv1d in tensor/kernels.h; specification, 2.1 step 1).
 *
 * Inside a sequence of L tokens let input(i) be x at token i, and window_in for i in [-(W-1), 0). Then
 *   pre_i = bias + sum_j w_j input(i - W + 1 + j),  y_i = f(pre_i),  window_out_j = input(L - W + 1 + j)
 * Backward recomputes pre, and with dpre_i = f'(pre_i) dy_i (zero outside the sequence):
 *   dinput(i) = sum_j w_{W-1-j} dpre_{i+j} (+ dwindow_out),  dw_j = sum_i dpre_i input(i - W + 1 + j),  dbias = sum_i dpre_i
 *
 * A thread has a channel and walks through a block of rows with the last W inputs (and dpre) in registers, so that each
 * element is read once, but for W - 1 rows that neighbouring blocks share. Sums over rows stand in the block's row of
 * scratch: taps first, then the bias. */
#include "tensor/cuda/cuda.h"

constexpr int THREADS = 128, BLOCK = 64;
/* the largest kernel; each width is a kernel of its own, so that the windows are registers */
constexpr int MOST_TAPS = 8;

struct Conv {
  bool silu;
  int64_t n_t, n_c, n_seq;
  const int32_t *starts;
  Rows x, w, bias, window_in; /* w: rows of W; window: rows of W - 1, of sequence and channel */
};
static Conv conv_of(const Conv1d *p) {
  const int64_t n_w = p->w->dim[2];
  return {p->silu,
          p->x->dim[0],
          p->x->dim[1],
          tensor_count(p->cu_seqlens) - 1,
          ints_of(p->cu_seqlens),
          rows_of(p->x),
          rows_of_width(p->w, n_w),
          rows_of(p->bias),
          rows_of_width(p->window_in, n_w - 1)};
}

/* The sequence that has this row. */
static __device__ int64_t sequence_of(const Conv &k, int64_t row) {
  int64_t low = 0, high = k.n_seq; /* starts[low] <= row < starts[high] */
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (global_load(k.starts + middle) <= row) low = middle;
    else high = middle;
  }
  return low;
}

/* The rows of a block that lie in one sequence: tokens [begin, end) of `length`, the first of them at row `start`. */
struct Piece {
  int64_t seq, start, length, begin, end;
};
static __device__ Piece piece_at(const Conv &k, int64_t row, int64_t block_end) {
  Piece piece;
  piece.seq = sequence_of(k, row);
  piece.start = global_load(k.starts + piece.seq);
  piece.length = global_load(k.starts + piece.seq + 1) - piece.start;
  piece.begin = row - piece.start;
  piece.end = (piece.start + piece.length < block_end ? piece.start + piece.length : block_end) - piece.start;
  return piece;
}

template <int W> static __device__ float input(const Conv &k, const Piece &piece, int64_t i, int64_t c) {
  if (i >= 0) return k.x.get(piece.start + i, c);
  return k.window_in ? k.window_in.get(piece.seq * k.n_c + c, i + W - 1) : 0;
}
/* window: what the tap sees at token i, the present last. */
template <int W>
static __device__ void begin_window(const Conv &k, const Piece &piece, int64_t i, int64_t c, float *window) {
  for (int j = 0; j < W; j++) window[j] = j == 0 ? 0 : input<W>(k, piece, i - W + j, c);
}
template <int W> static __device__ void push(float *window, float x) {
  for (int j = 1; j < W; j++) window[j - 1] = window[j];
  window[W - 1] = x;
}
template <int W> static __device__ float pre_of(const float *w, float bias, const float *window) {
  float sum = bias;
  for (int j = 0; j < W; j++) sum += w[j] * window[j];
  return sum;
}

template <int W> static __global__ void forward(Conv k, Rows y, Rows window_out) {
  const int64_t c = (int64_t)blockIdx.y * THREADS + threadIdx.x, first = (int64_t)blockIdx.x * BLOCK;
  if (c >= k.n_c) return;
  const int64_t end = first + BLOCK < k.n_t ? first + BLOCK : k.n_t;
  const float bias = k.bias.get_or(0, c, 0);
  float w[W], window[W];
  for (int j = 0; j < W; j++) w[j] = k.w.get(c, j);
  for (int64_t row = first; row < end;) {
    const Piece piece = piece_at(k, row, end);
    begin_window<W>(k, piece, piece.begin, c, window);
    for (int64_t i = piece.begin; i < piece.end; i++) {
      push<W>(window, k.x.get(piece.start + i, c));
      const float pre = pre_of<W>(w, bias, window);
      y.put(piece.start + i, c, k.silu ? silu(pre) : pre);
    }
    for (int j = 0; window_out && piece.end == piece.length && j < W - 1; j++)
      window_out.put(piece.seq * k.n_c + c, j, window[j + 1]);
    row = piece.start + piece.end;
  }
}

template <int W>
static __global__ void backward(Conv k, Rows dy, Rows dwindow_out, Rows dx, Rows dwindow_in, float *parts) {
  const int64_t c = (int64_t)blockIdx.y * THREADS + threadIdx.x, first = (int64_t)blockIdx.x * BLOCK;
  if (c >= k.n_c) return;
  const int64_t end = first + BLOCK < k.n_t ? first + BLOCK : k.n_t;
  const float bias = k.bias.get_or(0, c, 0);
  float w[W], window[W], dpre[W], dw[W] = {}, dbias = 0;
  for (int j = 0; j < W; j++) w[j] = k.w.get(c, j);
  for (int64_t row = first; row < end;) {
    const Piece piece = piece_at(k, row, end);
    begin_window<W>(k, piece, piece.begin, c, window);
    for (int j = 0; j < W; j++) dpre[j] = 0;
    /* dinput(i - W + 1) needs dpre up to i */
    for (int64_t i = piece.begin; i < piece.end + W - 1; i++) {
      float d = 0;
      if (i < piece.length) {
        push<W>(window, k.x.get(piece.start + i, c));
        d = dy.get_or(piece.start + i, c, 0);
        if (k.silu) d *= silu_slope(pre_of<W>(w, bias, window));
      }
      push<W>(dpre, d);
      if (i < piece.end) {
        dbias += d;
        for (int j = 0; j < W; j++) dw[j] += d * window[j];
      }
      const int64_t to = i - (W - 1), in_window = to - (piece.length - (W - 1));
      if (to < piece.begin && piece.begin > 0) continue; /* the block before has it */
      float sum = 0;
      for (int j = 0; j < W; j++) sum += w[W - 1 - j] * dpre[j];
      if (dwindow_out && in_window >= 0) sum += dwindow_out.get(piece.seq * k.n_c + c, in_window);
      if (to >= 0 && dx) dx.add(piece.start + to, c, sum);
      if (to < 0 && dwindow_in) dwindow_in.add(piece.seq * k.n_c + c, to + W - 1, sum);
    }
    row = piece.start + piece.end;
  }
  float *part = parts + blockIdx.x * (W + 1) * k.n_c + c;
  for (int j = 0; j < W; j++) global_store(part + j * k.n_c, dw[j]);
  global_store(part + W * k.n_c, dbias);
}

/* dw (C, 1, W) and dbias += the blocks' sums, which lie as (W + 1, C). */
static __global__ void add_sums(int64_t n_blocks, int64_t n_c, int64_t n_w, const float *parts, Rows dw, Rows dbias) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, j = at / n_c, c = at % n_c;
  if (j > n_w) return;
  float sum = 0;
  for (int64_t b = 0; b < n_blocks; b++) sum += global_load(parts + (b * (n_w + 1) + j) * n_c + c);
  if (j < n_w && dw) dw.add(c, j, sum);
  if (j == n_w && dbias) dbias.add(0, c, sum);
}

typedef void Forward(Conv k, Rows y, Rows window_out);
typedef void Backward(Conv k, Rows dy, Rows dwindow_out, Rows dx, Rows dwindow_in, float *parts);
static const struct {
  Forward *forward;
  Backward *backward;
} TAPS[MOST_TAPS + 1] = {{nullptr, nullptr},        {forward<1>, backward<1>}, {forward<2>, backward<2>},
                         {forward<3>, backward<3>}, {forward<4>, backward<4>}, {forward<5>, backward<5>},
                         {forward<6>, backward<6>}, {forward<7>, backward<7>}, {forward<8>, backward<8>}};

static int64_t n_blocks(const Conv1d *p) { return ceil_div(p->x->dim[0], BLOCK); }
static int64_t n_taps(const Conv1d *p) {
  const int64_t n_w = p->w->dim[2];
  CHECK(n_w <= MOST_TAPS, "a convolution of %lld taps, at most %d on a GPU", (long long)n_w, MOST_TAPS);
  return n_w;
}
static dim3 grid_of(const Conv1d *p) { return dim3((unsigned)n_blocks(p), blocks_of(p->x->dim[1], THREADS)); }

KERNEL_SCRATCH(conv1d, Conv1d) {
  return backward ? (size_t)(n_blocks(p) * (n_taps(p) + 1) * p->x->dim[1]) * sizeof(float) : 0;
}

KERNEL_FWD(conv1d, Conv1d) {
  const int64_t n_w = n_taps(p);
  Forward *const kernel = TAPS[n_w].forward;
  LAUNCH(kernel, grid_of(p), THREADS, 0, conv_of(p), rows_of(p->y), rows_of_width(p->window_out, n_w - 1));
}

KERNEL_BWD(conv1d, Conv1d) {
  const int64_t n_w = n_taps(p);
  Backward *const kernel = TAPS[n_w].backward;
  float *parts = (float *)p->scratch;
  LAUNCH(kernel, grid_of(p), THREADS, 0, conv_of(p), rows_of(p->dy), rows_of_width(p->dwindow_out, n_w - 1),
         rows_of(p->dx), rows_of_width(p->dwindow_in, n_w - 1), parts);
  const int64_t n_c = p->x->dim[1];
  LAUNCH(add_sums, blocks_of((n_w + 1) * n_c, 128), 128, 0, n_blocks(p), n_c, n_w, parts, rows_of_width(p->dw, n_w),
         rows_of(p->dbias));
}
