/* conv1d: causal depth-wise convolution with an optional silu. The definition of the operation (Conv1d in
 * tensor/kernels.h; specification, section 2.1 step 1).
 *
 * Inside a sequence of L tokens let input(i) be x at token i, and window_in for i in [-(W-1), 0). Then
 *   pre_i = bias + sum_j w_j input(i - W + 1 + j),  y_i = f(pre_i),  window_out_j = input(L - W + 1 + j)
 * Backward recomputes pre, and with dpre_i = f'(pre_i) dy_i (zero outside the sequence):
 *   dinput(i) = sum_j w_{W-1-j} dpre_{i+j} (+ dwindow_out),  dw_j = sum_i dpre_i input(i - W + 1 + j),  dbias = sum_i dpre_i
 * for i in [-(W-1), L), which gives the gradients of x and of window_in alike.
 *
 * A task is one block of rows, whatever sequences lie in it, and one tile of channels. It goes through the rows in panels
 * that stay in the cache, together with the W - 1 tokens before (inputs) and behind (dpre, computed again by each panel
 * that needs them). A block has its own row of parameter sums; the rows are added in order. */
#include "tensor/cpu/cpu.h"

enum { TILE = 128, PANEL = 32, BLOCK = 256, ROWS = 4, AHEAD = 16 /* rows asked for before their turn */ };

typedef struct Task {
  const Conv1d *p;
  int64_t first, end; /* its rows */
  int64_t col, n;     /* its channels */
  int64_t n_w;
  real *w, *bias;      /* (W, TILE): taps, transposed so that channels are contiguous; (TILE) */
  real *inputs, *dpre; /* (PANEL + 2 (W-1), TILE), (PANEL + W-1, TILE) */
  real *rows, *sums;   /* (max(W, ROWS), TILE); backward: (W + 1, C) of the block: dw, taps first, and dbias */
} Task;

/* Tokens [at, at + n) of a sequence: one panel. */
typedef struct Panel {
  int64_t seq, start, length; /* the sequence and its rows */
  int64_t at, n;
} Panel;

/* Rows of reals, `ld` apart. */
typedef struct Rows {
  const real *at;
  int64_t ld;
} Rows;

static int64_t task_reals(int64_t n_w) {
  return (n_w + 1 + (PANEL + 2 * (n_w - 1)) + (PANEL + n_w - 1) + max_i64(n_w, ROWS)) * TILE;
}
static int64_t n_tiles(const Conv1d *p) { return ceil_div(p->x->dim[1], TILE); }
static int64_t n_blocks(const Conv1d *p) { return ceil_div(p->x->dim[0], BLOCK); }
static int64_t n_tasks(const Conv1d *p) { return n_blocks(p) * n_tiles(p); }
static int64_t sums_reals(const Conv1d *p) { return (p->w->dim[2] + 1) * p->x->dim[1]; }

KERNEL_SCRATCH(conv1d, Conv1d) {
  return (size_t)(n_tasks(p) * task_reals(p->w->dim[2]) + (backward ? n_blocks(p) * sums_reals(p) : 0)) * sizeof(real);
}

static Task task_make(const Conv1d *p, int64_t index) {
  const int64_t n_w = p->w->dim[2], col = index % n_tiles(p) * TILE, first = index / n_tiles(p) * BLOCK;
  Task k = {.p = p, .first = first, .end = min_i64(first + BLOCK, p->x->dim[0]), .col = col, .n_w = n_w};
  k.n = min_i64(TILE, p->x->dim[1] - col);
  k.w = (real *)p->scratch + index * task_reals(n_w);
  k.bias = k.w + n_w * TILE;
  k.inputs = k.bias + TILE;
  k.dpre = k.inputs + (PANEL + 2 * (n_w - 1)) * TILE;
  k.rows = k.dpre + (PANEL + n_w - 1) * TILE;
  k.sums = (real *)p->scratch + n_tasks(p) * task_reals(n_w) + index / n_tiles(p) * sums_reals(p);
  const Tensor w = cols_from(p->w, col * n_w);
  const real *taps = row_load(&w, 0, k.n * n_w, k.rows);
  for (int64_t j = 0; j < n_w; j++)
    for (int64_t c = 0; c < k.n; c++) k.w[j * TILE + c] = taps[c * n_w + j];
  memset(k.bias, 0, TILE * sizeof(real));
  if (p->bias) {
    const Tensor own = cols_from(p->bias, col);
    memcpy(k.bias, row_load(&own, 0, k.n, k.rows), (size_t)k.n * sizeof(real));
  }
  return k;
}

/* The panel that starts at `row`; it ends with the task or the sequence. *seq: at most the row's sequence. */
static Panel panel_at(const Task *k, int64_t row, int64_t *seq) {
  const int32_t *starts = k->p->cu_seqlens->data;
  while (starts[*seq + 1] <= row) ++*seq;
  Panel panel = {.seq = *seq, .start = starts[*seq], .length = starts[*seq + 1] - starts[*seq]};
  panel.at = row - panel.start;
  panel.n = min_i64(min_i64(PANEL, k->end - row), panel.length - panel.at);
  return panel;
}

/* Element (seq, channel, j) of a window, j counting from the oldest. */
static real *window_at(const Task *k, const Tensor *window, int64_t seq, int64_t c, int64_t j) {
  return (real *)window->data + ((seq * k->p->x->dim[1] + k->col + c) * (k->n_w - 1) + j);
}

/* input(i), i >= -(W-1), n channels: in place or in the buffer. */
static const real *input_at(const Task *k, const Panel *panel, int64_t i, real *buffer) {
  const Conv1d *p = k->p;
  if (i >= 0) {
    const Tensor own = cols_from(p->x, k->col);
    return row_load(&own, panel->start + i, k->n, buffer);
  }
  for (int64_t c = 0; c < k->n; c++)
    buffer[c] = p->window_in ? *window_at(k, p->window_in, panel->seq, c, i + k->n_w - 1) : 0;
  return buffer;
}

/* input(i) for i from panel->at - (W-1) on, n rows: x itself where it is of reals and has them all. */
static Rows panel_inputs(const Task *k, const Panel *panel, int64_t n) {
  const Tensor own = cols_from(k->p->x, k->col);
  const int64_t first = panel->at - (k->n_w - 1);
  if (first >= 0 && own.dtype == REAL_DTYPE) return (Rows){row_load(&own, panel->start + first, k->n, NULL), own.ld};
  for (int64_t r = 0; r < n; r++) {
    real *to = k->inputs + r * TILE;
    const real *from = input_at(k, panel, first + r, to);
    if (from != to) memcpy(to, from, (size_t)k->n * sizeof(real));
  }
  return (Rows){k->inputs, TILE};
}

/* The loops over channels become vectors where the numbers of taps and of rows taken at once are constants, so a task is
 * inlined once for each usual number of taps (LOOPS). */
#define FOR_TAPS static inline __attribute__((always_inline))

/* pre of one row and channel; `in` points at the row's oldest input. */
FOR_TAPS real pre_at(const Task *k, int64_t n_w, const real *in, int64_t ld, int64_t c) {
  real sum = k->bias[c];
  for (int64_t j = 0; j < n_w; j++) sum = real_fma(k->w[j * TILE + c], in[j * ld + c], sum);
  return sum;
}

/* n_rows rows of y, y_ld apart; `in` points at the first row's oldest input. */
FOR_TAPS void forward_taps(const Task *k, int64_t n_w, int64_t n_rows, const real *restrict in, int64_t ld,
                           real *restrict y, int64_t y_ld) {
  if (k->p->silu)
#pragma omp simd
    for (int64_t c = 0; c < k->n; c++)
#pragma GCC unroll 4
      for (int64_t r = 0; r < n_rows; r++) y[r * y_ld + c] = real_silu(pre_at(k, n_w, in + r * ld, ld, c));
  else
#pragma omp simd
    for (int64_t c = 0; c < k->n; c++)
#pragma GCC unroll 4
      for (int64_t r = 0; r < n_rows; r++) y[r * y_ld + c] = pre_at(k, n_w, in + r * ld, ld, c);
}

/* The last W - 1 inputs of the panel's sequence. */
static void store_window_out(const Task *k, const Panel *panel) {
  for (int64_t j = 0; j < k->n_w - 1; j++) {
    const real *in = input_at(k, panel, panel->length - k->n_w + 1 + j, k->rows);
    for (int64_t c = 0; c < k->n; c++) *window_at(k, k->p->window_out, panel->seq, c, j) = in[c];
  }
}

FOR_TAPS void forward_task(const Task *k, int64_t n_w, int64_t n_rows) {
  const Conv1d *p = k->p;
  Tensor own = cols_from(p->y, k->col);
  Panel panel;
  int64_t seq = 0;
  for (int64_t row = k->first; row < k->end; row += panel.n) {
    panel = panel_at(k, row, &seq);
    const Rows in = panel_inputs(k, &panel, panel.n + n_w - 1);
    for (int64_t r = 0, n; r < panel.n; r += n) {
      n = panel.n - r >= n_rows ? n_rows : 1;
      real *y = row_out(&own, row + r, k->rows);
      const int64_t y_ld = y == k->rows ? TILE : own.ld;
      if (n == n_rows) forward_taps(k, n_w, n_rows, in.at + r * in.ld, in.ld, y, y_ld);
      else forward_taps(k, k->n_w, 1, in.at + r * in.ld, in.ld, y, y_ld);
      for (int64_t i = 0; i < n; i++) {
        row_store(&own, row + r + i, k->n, y + i * y_ld);
        row_prefetch(p->x, row + r + i + AHEAD, k->col, k->n);
        row_prefetch(p->y, row + r + i + AHEAD, k->col, k->n);
      }
    }
    if (p->window_out && panel.at + panel.n == panel.length) store_window_out(k, &panel);
  }
}

FOR_TAPS void dpre_taps(const Task *k, int64_t n_w, const real *restrict in, int64_t ld, const real *restrict dy,
                        real *restrict dpre) {
#pragma omp simd
  for (int64_t c = 0; c < k->n; c++) dpre[c] = dy[c] * real_dsilu(pre_at(k, n_w, in, ld, c));
}

/* dpre of the panel's tokens and the W - 1 behind them, zero behind the sequence. */
FOR_TAPS void panel_dpre(const Task *k, int64_t n_w, const Panel *panel, Rows in, int64_t n_rows) {
  const Conv1d *p = k->p;
  const Tensor own = p->dy ? cols_from(p->dy, k->col) : (Tensor){0};
  for (int64_t r = 0; r < panel->n + n_w - 1; r++) {
    real *dpre = k->dpre + r * TILE;
    if (r < n_rows && p->dy) {
      row_prefetch(p->dy, panel->start + panel->at + r + AHEAD, k->col, k->n);
      row_prefetch(p->x, panel->start + panel->at + r + AHEAD, k->col, k->n);
      const real *dy = row_load(&own, panel->start + panel->at + r, k->n, k->rows);
      if (p->silu) dpre_taps(k, n_w, in.at + r * in.ld, in.ld, dy, dpre);
      else memcpy(dpre, dy, (size_t)k->n * sizeof(real));
    } else memset(dpre, 0, TILE * sizeof(real));
  }
}

/* dinput of some rows, TILE apart, and their part of dw and dbias. `dpre` and `in` point at the first row and at its
 * oldest input. */
FOR_TAPS void backward_taps(const Task *k, int64_t n_w, int64_t n_rows, const real *restrict in, int64_t ld,
                            const real *restrict dpre, real *restrict dinput) {
  const int64_t n_c = k->p->x->dim[1];
  real *restrict sums = k->sums + k->col;
  const real *restrict w = k->w;
#pragma omp simd
  for (int64_t c = 0; c < k->n; c++) {
    real dbias = sums[n_w * n_c + c];
    for (int64_t r = 0; r < n_rows; r++) {
      real sum = 0;
      for (int64_t j = 0; j < n_w; j++) sum = real_fma(w[(n_w - 1 - j) * TILE + c], dpre[(r + j) * TILE + c], sum);
      dinput[r * TILE + c] = sum;
      dbias += dpre[r * TILE + c];
    }
    sums[n_w * n_c + c] = dbias;
    for (int64_t j = 0; j < n_w; j++) {
      real dw = sums[j * n_c + c];
      for (int64_t r = 0; r < n_rows; r++) dw = real_fma(dpre[r * TILE + c], in[(r + j) * ld + c], dw);
      sums[j * n_c + c] = dw;
    }
  }
}

/* Adds what reaches token i of the sequence through dwindow_out. */
static void add_dwindow_out(const Task *k, const Panel *panel, int64_t i, real *dinput) {
  const int64_t j = i - (panel->length - (k->n_w - 1));
  if (!k->p->dwindow_out || j < 0) return;
  for (int64_t c = 0; c < k->n; c++) dinput[c] += *window_at(k, k->p->dwindow_out, panel->seq, c, j);
}

/* Gradients of the window before a sequence's start, whose first panel this is. */
static void backward_window_in(const Task *k, const Panel *panel) {
  for (int64_t i = -(k->n_w - 1); i < 0; i++) {
    memset(k->rows, 0, TILE * sizeof(real));
    for (int64_t j = -i; j < k->n_w; j++)
      for (int64_t c = 0; c < k->n; c++)
        k->rows[c] = real_fma(k->w[(k->n_w - 1 - j) * TILE + c], k->dpre[(i + j) * TILE + c], k->rows[c]);
    add_dwindow_out(k, panel, i, k->rows);
    for (int64_t c = 0; c < k->n; c++) *window_at(k, k->p->dwindow_in, panel->seq, c, i + k->n_w - 1) += k->rows[c];
  }
}

FOR_TAPS void backward_task(const Task *k, int64_t n_w, int64_t n_rows) {
  const Conv1d *p = k->p;
  for (int64_t j = 0; j <= n_w; j++) memset(k->sums + j * p->x->dim[1] + k->col, 0, (size_t)k->n * sizeof(real));
  Panel panel;
  int64_t seq = 0;
  for (int64_t row = k->first; row < k->end; row += panel.n) {
    panel = panel_at(k, row, &seq);
    const int64_t n_in = min_i64(panel.n + n_w - 1, panel.length - panel.at);
    const Rows in = panel_inputs(k, &panel, n_in + n_w - 1);
    panel_dpre(k, n_w, &panel, in, n_in);
    for (int64_t r = 0; r < panel.n;) {
      const int64_t n = panel.n - r >= n_rows ? n_rows : 1;
      if (n == n_rows) backward_taps(k, n_w, n_rows, in.at + r * in.ld, in.ld, k->dpre + r * TILE, k->rows);
      else backward_taps(k, k->n_w, 1, in.at + r * in.ld, in.ld, k->dpre + r * TILE, k->rows);
      for (int64_t i = 0; i < n; i++, r++) {
        add_dwindow_out(k, &panel, panel.at + r, k->rows + i * TILE);
        if (!p->dx) continue;
        Tensor own = cols_from(p->dx, k->col);
        row_prefetch(p->dx, row + r + AHEAD, k->col, k->n);
        row_add(&own, row + r, k->n, k->rows + i * TILE);
      }
    }
    if (panel.at == 0 && p->dwindow_in) backward_window_in(k, &panel);
  }
}

/* A task's two passes. */
typedef struct Loops {
  void (*forward)(const Task *k), (*backward)(const Task *k);
} Loops;

#define LOOPS(name, n_w, n_rows)                                                                                       \
  static void forward_##name(const Task *k) { forward_task(k, n_w, n_rows); }                                          \
  static void backward_##name(const Task *k) { backward_task(k, n_w, n_rows); }
LOOPS(2, 2, ROWS)
LOOPS(3, 3, ROWS)
LOOPS(4, 4, ROWS)
LOOPS(any, k->n_w, 1)

static Loops loops_of(int64_t n_w) {
  static const Loops USUAL[] = {[2] = {forward_2, backward_2}, {forward_3, backward_3}, {forward_4, backward_4}};
  const bool usual = n_w >= 2 && n_w < (int64_t)(sizeof USUAL / sizeof *USUAL);
  return usual ? USUAL[n_w] : (Loops){forward_any, backward_any};
}

KERNEL_FWD(conv1d, Conv1d) {
  const Loops loops = loops_of(p->w->dim[2]);
#pragma omp parallel for schedule(static) if (parallel_pays(tensor_count(p->x)))
  for (int64_t index = 0; index < n_tasks(p); index++) {
    const Task k = task_make(p, index);
    loops.forward(&k);
  }
}

KERNEL_BWD(conv1d, Conv1d) {
  const Loops loops = loops_of(p->w->dim[2]);
  const int64_t n_c = p->x->dim[1], n_w = p->w->dim[2], n = sums_reals(p);
#pragma omp parallel for schedule(static) if (parallel_pays(tensor_count(p->x)))
  for (int64_t index = 0; index < n_tasks(p); index++) {
    const Task k = task_make(p, index);
    loops.backward(&k);
  }
  real *sums = (real *)p->scratch + n_tasks(p) * task_reals(n_w);
  for (int64_t b = 1; b < n_blocks(p); b++)
    for (int64_t i = 0; i < n; i++) sums[i] += sums[b * n + i];
  real *dw = p->dw ? p->dw->data : NULL, *dbias = p->dbias ? p->dbias->data : NULL;
  for (int64_t c = 0; c < n_c; c++) {
    for (int64_t j = 0; dw && j < n_w; j++) dw[c * n_w + j] += sums[j * n_c + c];
    if (dbias) dbias[c] += sums[n_w * n_c + c];
  }
}
