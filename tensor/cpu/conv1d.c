/* conv1d: causal depth-wise convolution with an optional silu. The definition of the operation (Conv1d in
 * tensor/kernels.h; specification, section 2.1 step 1).
 *
 * Inside a sequence of L tokens let input(i) be x at token i, and window_in for i in [-(W-1), 0). Then
 *   pre_i = bias + sum_j w_j input(i - W + 1 + j),  y_i = f(pre_i),  window_out_j = input(L - W + 1 + j)
 * Backward recomputes pre, and with dpre_i = f'(pre_i) dy_i (zero outside the sequence):
 *   dinput(i) = sum_j w_{W-1-j} dpre_{i+j} (+ dwindow_out),  dw_j = sum_i dpre_i input(i - W + 1 + j),  dbias = sum_i dpre_i
 * One loop from i = L-1 down to -(W-1) gives the gradients of x and of window_in alike.
 *
 * A task is one sequence and one tile of channels; parameter sums go to the sequence's own row and are added in order. */
#include "tensor/cpu/cpu.h"

enum { TILE = 128 };

/* One task. */
typedef struct Strip {
  const Conv1d *p;
  int64_t seq, start, length; /* the sequence and its rows */
  int64_t col, n;             /* its channels */
  int64_t n_w;
  real *w;      /* (W, TILE): taps, transposed so that channels are contiguous */
  real *inputs; /* (W, TILE): buffers */
  real *dpre;   /* (W, TILE): of tokens i, i+1, ...; a ring */
  real *pre, *out, *bias;
} Strip;

static int64_t strip_size(int64_t n_w) { return (3 * n_w + 3) * TILE; }
static int64_t n_tiles(const Conv1d *p) { return ceil_div(p->x->dim[1], TILE); }
static int64_t n_tasks(const Conv1d *p) { return (p->cu_seqlens->dim[0] - 1) * n_tiles(p); }

/* Every task has its own memory; then, for backward, (n_seq, W + 1, C) sums of dw (taps first) and dbias. */
KERNEL_SCRATCH(conv1d, Conv1d) {
  int64_t n_w = p->w->dim[2], n = n_tasks(p) * strip_size(n_w);
  if (backward) n += (p->cu_seqlens->dim[0] - 1) * (n_w + 1) * p->x->dim[1];
  return (size_t)n * sizeof(real);
}

static Strip strip_make(const Conv1d *p, int64_t task) {
  const int32_t *starts = p->cu_seqlens->data;
  int64_t seq = task / n_tiles(p), col = task % n_tiles(p) * TILE, n_w = p->w->dim[2];
  Strip s = {.p = p, .seq = seq, .start = starts[seq], .length = starts[seq + 1] - starts[seq], .col = col, .n_w = n_w};
  CHECK(s.length > 0, "sequence %lld has no tokens", (long long)seq);
  s.n = min_i64(TILE, p->x->dim[1] - col);
  s.w = (real *)p->scratch + task * strip_size(n_w);
  s.inputs = s.w + n_w * TILE;
  s.dpre = s.inputs + n_w * TILE;
  s.pre = s.dpre + n_w * TILE;
  s.out = s.pre + TILE;
  s.bias = s.out + TILE;
  for (int64_t c = 0; c < s.n; c++) {
    real buffer[1];
    for (int64_t j = 0; j < n_w; j++) {
      Tensor tap = cols_from(p->w, (col + c) * n_w + j);
      s.w[j * TILE + c] = *row_load(&tap, 0, 1, buffer);
    }
  }
  memset(s.bias, 0, TILE * sizeof(real));
  if (p->bias) {
    Tensor own = cols_from(p->bias, col);
    memcpy(s.bias, row_load(&own, 0, s.n, s.out), (size_t)s.n * sizeof(real));
  }
  return s;
}

/* Element (seq, channel, j) of a window, j counting from the oldest. */
static real *window_at(const Strip *s, const Tensor *window, int64_t c, int64_t j) {
  return (real *)window->data + ((s->seq * s->p->x->dim[1] + s->col + c) * (s->n_w - 1) + j);
}

/* input(i), n channels, i >= -(W-1). */
static const real *input_at(const Strip *s, int64_t i, real *buffer) {
  if (i >= 0) {
    Tensor own = cols_from(s->p->x, s->col);
    return row_load(&own, s->start + i, s->n, buffer);
  }
  for (int64_t c = 0; c < s->n; c++)
    buffer[c] = s->p->window_in ? *window_at(s, s->p->window_in, c, i + s->n_w - 1) : 0;
  return buffer;
}

/* pre_i into s->pre. */
static void pre_activation(const Strip *s, int64_t i) {
  memcpy(s->pre, s->bias, TILE * sizeof(real));
  for (int64_t j = 0; j < s->n_w; j++) {
    const real *in = input_at(s, i - s->n_w + 1 + j, s->inputs + j * TILE), *w = s->w + j * TILE;
#pragma omp simd
    for (int64_t c = 0; c < s->n; c++) s->pre[c] += w[c] * in[c];
  }
}

KERNEL_FWD(conv1d, Conv1d) {
#pragma omp parallel for schedule(static)
  for (int64_t task = 0; task < n_tasks(p); task++) {
    Strip s = strip_make(p, task);
    Tensor own = cols_from(p->y, s.col);
    for (int64_t i = 0; i < s.length; i++) {
      pre_activation(&s, i);
      real *y = row_out(&own, s.start + i, s.out);
      for (int64_t c = 0; c < s.n; c++) y[c] = p->silu ? real_silu(s.pre[c]) : s.pre[c];
      row_store(&own, s.start + i, s.n, y);
    }
    for (int64_t j = 0; p->window_out && j < s.n_w - 1; j++) {
      const real *in = input_at(&s, s.length - s.n_w + 1 + j, s.inputs);
      for (int64_t c = 0; c < s.n; c++) *window_at(&s, p->window_out, c, j) = in[c];
    }
  }
}

/* dpre_i into `dpre`, and its share of the parameter sums (rows of C: W taps, then the bias). */
static void backward_output(const Strip *s, int64_t i, real *dpre, real *sums) {
  const Conv1d *p = s->p;
  memset(dpre, 0, TILE * sizeof(real));
  if (i < 0 || !p->dy) return;
  Tensor own = cols_from(p->dy, s->col);
  const real *dy = row_load(&own, s->start + i, s->n, s->out);
  memcpy(dpre, dy, (size_t)s->n * sizeof(real));
  if (p->silu) {
    pre_activation(s, i);
    for (int64_t c = 0; c < s->n; c++) dpre[c] *= real_dsilu(s->pre[c]);
  }
  int64_t n_c = p->x->dim[1];
  for (int64_t j = 0; j < s->n_w; j++) {
    const real *in = input_at(s, i - s->n_w + 1 + j, s->inputs);
    real *dw = sums + j * n_c + s->col;
#pragma omp simd
    for (int64_t c = 0; c < s->n; c++) dw[c] += dpre[c] * in[c];
  }
  real *dbias = sums + s->n_w * n_c + s->col;
#pragma omp simd
  for (int64_t c = 0; c < s->n; c++) dbias[c] += dpre[c];
}

static void backward_strip(const Strip *s, real *sums) {
  const Conv1d *p = s->p;
  int64_t n_w = s->n_w;
  for (int64_t j = 0; j <= n_w; j++) memset(sums + j * p->x->dim[1] + s->col, 0, (size_t)s->n * sizeof(real));
  memset(s->dpre, 0, (size_t)(n_w * TILE) * sizeof(real));
  for (int64_t i = s->length - 1; i >= -(n_w - 1); i--) {
    int64_t newest = (i + n_w) % n_w;
    backward_output(s, i, s->dpre + newest * TILE, sums);
    real *dinput = s->out;
    memset(dinput, 0, TILE * sizeof(real));
    for (int64_t j = 0; j < n_w; j++) {
      const real *dpre = s->dpre + (newest + j) % n_w * TILE, *w = s->w + (n_w - 1 - j) * TILE;
#pragma omp simd
      for (int64_t c = 0; c < s->n; c++) dinput[c] += w[c] * dpre[c];
    }
    int64_t in_window_out = i - (s->length - (n_w - 1));
    if (p->dwindow_out && in_window_out >= 0)
      for (int64_t c = 0; c < s->n; c++) dinput[c] += *window_at(s, p->dwindow_out, c, in_window_out);
    if (i >= 0 && p->dx) {
      Tensor own = cols_from(p->dx, s->col);
      row_add(&own, s->start + i, s->n, dinput);
    }
    if (i < 0 && p->dwindow_in)
      for (int64_t c = 0; c < s->n; c++) *window_at(s, p->dwindow_in, c, i + n_w - 1) += dinput[c];
  }
}

KERNEL_BWD(conv1d, Conv1d) {
  int64_t n_c = p->x->dim[1], n_w = p->w->dim[2], n_seq = p->cu_seqlens->dim[0] - 1;
  real *all_sums = (real *)p->scratch + n_tasks(p) * strip_size(n_w);
#pragma omp parallel for schedule(static)
  for (int64_t task = 0; task < n_tasks(p); task++) {
    Strip s = strip_make(p, task);
    backward_strip(&s, all_sums + s.seq * (n_w + 1) * n_c);
  }
  real *dw = p->dw ? p->dw->data : NULL, *dbias = p->dbias ? p->dbias->data : NULL;
  for (int64_t seq = 0; seq < n_seq; seq++) {
    const real *sums = all_sums + seq * (n_w + 1) * n_c;
    for (int64_t c = 0; c < n_c; c++) {
      for (int64_t j = 0; dw && j < n_w; j++) dw[c * n_w + j] += sums[j * n_c + c];
      if (dbias) dbias[c] += sums[n_w * n_c + c];
    }
  }
}
