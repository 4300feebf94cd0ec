/* attention: causal softmax attention inside each sequence, with shared key heads and rotary positions.
 *
 *   s_ij = scale q_i . k_j (j <= i);  p_i = softmax(s_i);  y_i = sum_j p_ij v_j
 *   dv_j += p_ij dy_i;  dp_ij = dy_i . v_j;  ds_ij = scale p_ij (dp_ij - sum_j p_ij dp_ij)
 *   dq_i = sum_j ds_ij k_j;  dk_j += ds_ij q_i;  q and k here are the rotated ones, so dq and dk are rotated back.
 *
 * Row by row: one row of p exists at a time, and backward computes it again. All work on copies laid out (head, T,
 * head_dim), so that the inner loops run over neighbours. A forward task is one (sequence, query head); a backward task
 * one (sequence, key head) with all the query heads that read it, because those add to the same dk and dv. */
#include "tensor/cpu/cpu.h"

/* Scratch, in reals. */
typedef struct Work {
  real *cos, *sin;    /* (T, rotary_dim / 2) */
  real *q, *k, *v;    /* (heads, T, head_dim) */
  real *p;            /* (n_heads, T): a task's row lies from its sequence's start on */
  real *dp, *dy;      /* backward only, like the rest: (n_heads_kv, T), (n_heads, T, head_dim) */
  real *dq, *dk, *dv; /* (heads, T, head_dim) */
} Work;

static int64_t n_tokens(const Attention *p) { return tensor_rows(p->q); }
static int64_t n_sequences(const Attention *p) { return tensor_count(p->cu_seqlens) - 1; }

/* Lays the work out from `at` on; returns the number of reals. */
static int64_t work_lay(const Attention *p, bool backward, real *at, Work *work) {
  const int64_t n_t = n_tokens(p), n_q = p->n_heads * n_t * p->head_dim, n_kv = p->n_heads_kv * n_t * p->head_dim;
  const struct {
    real **field;
    int64_t n;
  } field[] = {{&work->cos, n_t * (p->rotary_dim / 2)},
               {&work->sin, n_t * (p->rotary_dim / 2)},
               {&work->q, n_q},
               {&work->k, n_kv},
               {&work->v, n_kv},
               {&work->p, p->n_heads * n_t},
               {&work->dp, p->n_heads_kv * n_t},
               {&work->dy, n_q},
               {&work->dq, n_q},
               {&work->dk, n_kv},
               {&work->dv, n_kv}};
  const size_t n_fields = backward ? 11 : 6;
  int64_t used = 0;
  for (size_t i = 0; i < n_fields; i++) {
    if (at) *field[i].field = at + used;
    used += field[i].n;
  }
  return used;
}

KERNEL_SCRATCH(attention, Attention) {
  Work work;
  return (size_t)work_lay(p, backward, NULL, &work) * sizeof(real);
}

/* The rotation's table: angle pos * base^(-2i/rotary_dim), positions counted from the sequence's start. */
static void fill_rotation(const Attention *p, const Work *work) {
  const int32_t *start = p->cu_seqlens->data;
  const int64_t n_pairs = p->rotary_dim / 2;
  for (int64_t s = 0; s < n_sequences(p); s++) {
#pragma omp parallel for schedule(static)
    for (int64_t t = start[s]; t < start[s + 1]; t++)
      for (int64_t i = 0; i < n_pairs; i++) {
        const double angle = (double)(t - start[s]) * pow(p->rotary_base, -2.0 * (double)i / p->rotary_dim);
        work->cos[t * n_pairs + i] = (real)cos(angle);
        work->sin[t * n_pairs + i] = (real)sin(angle);
      }
  }
}

/* Turns one head's vector of token t by its angle (direction 1) or back (-1). */
static void rotate(const Attention *p, const Work *work, int64_t t, real direction, real *x) {
  const int64_t n_pairs = p->rotary_dim / 2;
  const int64_t step = p->rotary_interleaved ? 2 : 1, second = p->rotary_interleaved ? 1 : n_pairs;
  for (int64_t i = 0; i < n_pairs; i++) {
    const real c = work->cos[t * n_pairs + i], s = direction * work->sin[t * n_pairs + i];
    const real x0 = x[i * step], x1 = x[i * step + second];
    x[i * step] = x0 * c - x1 * s;
    x[i * step + second] = x0 * s + x1 * c;
  }
}

/* (T, heads * head_dim) to (heads, T, head_dim). */
static void gather(const Attention *p, const Work *work, const Tensor *from, int64_t n_heads, bool rotated, real *to) {
  const int64_t n_t = n_tokens(p), width = p->head_dim;
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t h = 0; h < n_heads; h++)
    for (int64_t t = 0; t < n_t; t++) {
      const Tensor head = cols_from(from, h * width);
      real *x = to + (h * n_t + t) * width;
      const real *loaded = row_load(&head, t, width, x);
      if (loaded != x) memcpy(x, loaded, (size_t)width * sizeof(real));
      if (rotated) rotate(p, work, t, 1, x);
    }
}

/* Adds (heads, T, head_dim), which it may turn back in place, to the gradient (T, heads * head_dim). */
static void scatter(const Attention *p, const Work *work, real *from, int64_t n_heads, bool rotated, Tensor *to) {
  const int64_t n_t = n_tokens(p), width = p->head_dim;
  if (!to) return;
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t h = 0; h < n_heads; h++)
    for (int64_t t = 0; t < n_t; t++) {
      Tensor head = cols_from(to, h * width);
      real *x = from + (h * n_t + t) * width;
      if (rotated) rotate(p, work, t, -1, x);
      row_add(&head, t, width, x);
    }
}

static real dot(const real *restrict a, const real *restrict b, int64_t n) {
  real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static void add_scaled(real *restrict y, real scale, const real *restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += scale * x[i];
}

/* p = softmax(scale q . k_j), j < n. */
static void softmax_row(const real *q, const real *k, int64_t n, int64_t width, real scale, real *restrict p) {
  real max = -INFINITY, sum = 0;
  for (int64_t j = 0; j < n; j++) {
    p[j] = scale * dot(q, k + j * width, width);
    if (p[j] > max) max = p[j];
  }
  for (int64_t j = 0; j < n; j++) p[j] = real_exp(p[j] - max);
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += p[j];
  const real inverse = 1 / sum;
  for (int64_t j = 0; j < n; j++) p[j] *= inverse;
}

KERNEL_FWD(attention, Attention) {
  const int64_t n_t = n_tokens(p), n_seq = n_sequences(p), width = p->head_dim, share = p->n_heads / p->n_heads_kv;
  const int32_t *start = p->cu_seqlens->data;
  Work work;
  work_lay(p, false, p->scratch, &work);
  fill_rotation(p, &work);
  gather(p, &work, p->q, p->n_heads, true, work.q);
  gather(p, &work, p->k, p->n_heads_kv, true, work.k);
  gather(p, &work, p->v, p->n_heads_kv, false, work.v);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t s = 0; s < n_seq; s++)
    for (int64_t h = 0; h < p->n_heads; h++) {
      const int64_t first = (h / share * n_t + start[s]) * width;
      const real *k = work.k + first, *v = work.v + first;
      real *row = work.p + h * n_t + start[s];
      Tensor y_head = cols_from(p->y, h * width);
      for (int64_t t = start[s]; t < start[s + 1]; t++) {
        const int64_t n = t - start[s] + 1;
        real *q = work.q + (h * n_t + t) * width, *y = q; /* q is used up by its own row */
        softmax_row(q, k, n, width, (real)p->scale, row);
        memset(y, 0, (size_t)width * sizeof(real));
        for (int64_t j = 0; j < n; j++) add_scaled(y, row[j], v + j * width, width);
        row_store(&y_head, t, width, y);
      }
    }
}

/* All rows of one query head of one sequence; `at` is the sequence's first element in the query head's arrays, `at_kv` in
 * the key head's, `row` and `drow` are n_rows long. */
static void head_backward(const Attention *p, const Work *work, int64_t n_rows, int64_t at, int64_t at_kv,
                          real *restrict row, real *restrict drow) {
  const int64_t width = p->head_dim;
  const real *k = work->k + at_kv, *v = work->v + at_kv;
  real *dk = work->dk + at_kv, *dv = work->dv + at_kv;
  for (int64_t i = 0; i < n_rows; i++) {
    const real *q = work->q + at + i * width, *dy = work->dy + at + i * width;
    real *dq = work->dq + at + i * width, mean = 0;
    softmax_row(q, k, i + 1, width, (real)p->scale, row);
    for (int64_t j = 0; j <= i; j++) {
      drow[j] = dot(dy, v + j * width, width);
      mean += row[j] * drow[j];
    }
    memset(dq, 0, (size_t)width * sizeof(real));
    for (int64_t j = 0; j <= i; j++) {
      const real ds = (real)p->scale * row[j] * (drow[j] - mean);
      add_scaled(dq, ds, k + j * width, width);
      add_scaled(dk + j * width, ds, q, width);
      add_scaled(dv + j * width, row[j], dy, width);
    }
  }
}

KERNEL_BWD(attention, Attention) {
  const int64_t n_t = n_tokens(p), n_seq = n_sequences(p), width = p->head_dim, share = p->n_heads / p->n_heads_kv;
  const int32_t *start = p->cu_seqlens->data;
  Work work;
  work_lay(p, true, p->scratch, &work);
  fill_rotation(p, &work);
  gather(p, &work, p->q, p->n_heads, true, work.q);
  gather(p, &work, p->k, p->n_heads_kv, true, work.k);
  gather(p, &work, p->v, p->n_heads_kv, false, work.v);
  gather(p, &work, p->dy, p->n_heads, false, work.dy);
  memset(work.dk, 0, (size_t)(p->n_heads_kv * n_t * width) * sizeof(real));
  memset(work.dv, 0, (size_t)(p->n_heads_kv * n_t * width) * sizeof(real));
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t s = 0; s < n_seq; s++)
    for (int64_t g = 0; g < p->n_heads_kv; g++)
      for (int64_t h = g * share; h < (g + 1) * share; h++)
        head_backward(p, &work, start[s + 1] - start[s], (h * n_t + start[s]) * width, (g * n_t + start[s]) * width,
                      work.p + h * n_t + start[s], work.dp + g * n_t + start[s]);
  scatter(p, &work, work.dq, p->n_heads, true, p->dq);
  scatter(p, &work, work.dk, p->n_heads_kv, true, p->dk);
  scatter(p, &work, work.dv, p->n_heads_kv, false, p->dv);
}
