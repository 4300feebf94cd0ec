/* ssd_scan: what its two kernels share (SsdScan in tensor/kernels.h): the definition, which walks token by token in
 * double (ssd_scan.c), and the chunked one of the float builds (ssd_scan_chunked.h).
 *
 * Tasks of backward are (sequence, group, part of the group's heads). What heads share (dB and dC behind their norm,
 * dangle) is summed by each part into its own slab of rows; scan_backward_shared adds the slabs in order. Gradients of
 * parameters are summed per sequence (or segment of one) and head, and added in order by scan_backward_parameters. The
 * number of parts depends on shapes alone. */
#pragma once

#include "tensor/cpu/lanes.h"

#define scan_turn_fill CPU_SYMBOL(scan_turn_fill)
#define scan_backward_shared CPU_SYMBOL(scan_backward_shared)
#define scan_backward_parameters CPU_SYMBOL(scan_backward_parameters)
#define scan_check_lengths CPU_SYMBOL(scan_check_lengths)

static const real TWO_PI = (real)6.283185307179586476925286766559;
static const real PI = (real)3.141592653589793238462643383280;

/* Consecutive tokens of one sequence that tasks of their own work on. */
typedef struct Segment {
  int64_t seq, first, end;
} Segment;

/* What the passes of one call share: sizes, and the scratch that crosses tasks. */
typedef struct Scan {
  const SsdScan *p;
  int64_t n_t, n_seq, n_h, n_p, n_n, n_g, n_r, n_s, n_q;
  int64_t n_rows, n_cols; /* P and N as scratch pads them, with zeros */
  int64_t heads_per_group, n_parts;
  int64_t shared_width; /* R*G*N: a row of B */
  int64_t param_width;  /* of one head's parameter gradients: dD (P) | dB_bias (R,N) | dC_bias (R,N) | dmimo_x (R,P) */
  int64_t n_slab;       /* rows a slab has room for */
  int64_t n_sums;       /* sums over tokens that each head's parameter gradients are made of */
  int64_t segment;      /* chunked: tokens of a segment, whole chunks */
  int64_t n_segments;   /* chunked: most segments of all sequences */
  int64_t n_tile, n_m;  /* chunked: most tokens of a tile; their rows (times R), padded */
  int64_t max_heads;    /* chunked: most heads of a part */
  bool bf16;            /* chunked: products in BF16 */
  bool kq_shared;       /* chunked: k and q are B and C as they are, the same for all heads of a group */
  const int32_t *starts;
  real *turn;          /* (T, S): pi tanh(angle), the turn per unit of dt, which all heads share */
  int64_t *slab_token; /* (n_slab): the token of a slab's row */
  real *dB, *dC;       /* (parts, n_slab, R*G*N): gradients of B, C after their norm */
  real *dturn;         /* (G*parts, n_slab, S) */
  real *dparam;        /* (n_sums, H, param_width) */
  real *dnorm;         /* (SUM_BLOCKS, 2, N): of B_norm and C_norm */
  real *rows;          /* (SUM_BLOCKS, max(3 N, S)) */
  real *work;          /* (threads, work_size): the kernel's own */
  int64_t work_size;
} Scan;

/* Hands out a block of memory piece by piece; without a block it only counts. */
typedef struct Carver {
  real *block;
  int64_t used;
} Carver;
static inline real *carve(Carver *c, int64_t n) {
  real *piece = c->block ? c->block + c->used : NULL;
  c->used += round_up(n, ARENA_ALIGN / (int64_t)sizeof(real));
  return piece;
}

/* The sizes that both kernels have; n_slab, n_sums and what follows n_rows are the kernel's to set. */
static inline Scan scan_sizes(const SsdScan *p, int64_t tasks_wanted) {
  Scan s = {.p = p, .n_t = p->x->dim[0], .n_seq = p->cu_seqlens->dim[0] - 1, .n_h = p->n_h, .n_p = p->n_p};
  s.n_n = p->n_n, s.n_g = p->n_g, s.n_r = p->n_r, s.n_s = p->n_s, s.n_q = p->chunk_size;
  s.heads_per_group = s.n_h / s.n_g;
  s.n_parts = min_i64(s.heads_per_group, ceil_div(tasks_wanted, s.n_seq * s.n_g));
  s.shared_width = s.n_r * s.n_g * s.n_n;
  s.param_width = s.n_p + 2 * s.n_r * s.n_n + s.n_r * s.n_p;
  s.starts = p->cu_seqlens->data;
  return s;
}

/* The scratch that crosses tasks; the caller carves its own behind. */
static inline void scan_carve(Scan *s, bool backward, Carver *c) {
  s->turn = carve(c, s->n_t * s->n_s);
  s->rows = carve(c, SUM_BLOCKS * max_i64(3 * s->n_n, s->n_s));
  if (!backward) return;
  s->slab_token = (int64_t *)carve(c, s->n_slab * (int64_t)(sizeof(int64_t) / sizeof(real)));
  s->dB = carve(c, s->n_parts * s->n_slab * s->shared_width);
  s->dC = carve(c, s->n_parts * s->n_slab * s->shared_width);
  s->dturn = carve(c, s->n_g * s->n_parts * s->n_slab * s->n_s);
  s->dparam = carve(c, s->n_sums * s->n_h * s->param_width);
  s->dnorm = carve(c, SUM_BLOCKS * 2 * s->n_n);
}

/* The first head of a group's part; part n_parts is one past the last. */
static inline int64_t part_first_head(const Scan *s, int64_t g, int64_t part) {
  return g * s->heads_per_group + s->heads_per_group * part / s->n_parts;
}

/* Sequences follow each other without gaps and none is empty, or CHECK. */
void scan_check_lengths(const Scan *s);
/* s->turn, of all tokens. */
void scan_turn_fill(const Scan *s);
/* The slabs' first n_rows rows: dB, dC and dangle of their tokens; dB_norm and dC_norm sum in s->dnorm, which starts as
 * zero and of which scan_backward_parameters makes the end. */
void scan_backward_shared(const Scan *s, int64_t n_rows);
/* The parameters' gradients from the first n_sums sums. */
void scan_backward_parameters(const Scan *s, int64_t n_sums);

static inline void copy(real *to, const real *from, int64_t n) { memcpy(to, from, (size_t)n * sizeof(real)); }
static inline void zero(real *x, int64_t n) { memset(x, 0, (size_t)n * sizeof(real)); }

/* ---- reading and writing tensors ---- */

/* Element 0 of a real (T, width) tensor's row. */
static inline real *real_row(const Tensor *t, int64_t row) { return (real *)t->data + row * t->ld; }
/* Block i of n reals of a contiguous real tensor; NULL of none. */
static inline real *real_block(const Tensor *t, int64_t i, int64_t n) { return t ? (real *)t->data + i * n : NULL; }

/* n reals of block i, or zeros. */
static inline void load_block(real *to, const Tensor *t, int64_t i, int64_t n) {
  if (t) copy(to, real_block(t, i, n), n);
  else zero(to, n);
}
static inline void store_block(Tensor *t, int64_t i, const real *from, int64_t n) {
  if (t) copy(real_block(t, i, n), from, n);
}
static inline void add_block(Tensor *t, int64_t i, const real *from, int64_t n) {
  if (t) add_scaled(real_block(t, i, n), 1, from, n);
}

/* ---- a token ---- */

/* The three weights of a token. */
typedef struct Weights {
  real alpha, gamma, delta;
} Weights;
/* delta_t, written as what the token `next` gives its predecessor. */
static inline real delta_before(const SsdScan *p, int64_t next, int64_t h) {
  return p->lambda ? (1 - real_row(p->lambda, next)[h]) * real_row(p->dt, next)[h] : 0;
}
/* Where the i-th rotated pair lies. */
typedef struct Pair {
  int64_t first, second;
} Pair;
static inline Pair pair_at(const SsdScan *p, int64_t i) {
  return p->rotate_halves ? (Pair){i, i + p->n_n / 2} : (Pair){2 * i, 2 * i + 1};
}

static inline bool has_carried_input(const SsdScan *p) { return p->lambda && p->k_in && p->v_in; }

static inline void add_scalar(const Tensor *t, int64_t row, int64_t h, real value) {
  if (t) real_row(t, row)[h] += value;
}

/* What token `next` gets from the delta it gave its predecessor. */
static inline void delta_backward(const SsdScan *p, int64_t next, int64_t h, real ddelta) {
  add_scalar(p->ddt, next, h, (1 - real_row(p->lambda, next)[h]) * ddelta);
  add_scalar(p->dlambda, next, h, -real_row(p->dt, next)[h] * ddelta);
}
