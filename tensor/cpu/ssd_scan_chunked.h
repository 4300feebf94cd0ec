/* ssd_scan, chunked: the kernel of the float builds (specification, sections 3 and 3.1; Dao & Gu 2024, section 6). The
 * recurrence is that of the definition (ssd_scan.c): u_t, gamma, delta and S_t are the same.
 *
 * A tile is at most 64 rows of consecutive tokens of one chunk, R rows (ranks) a token; everything about it lies in the
 * caches, and its sums are products of small matrices (tile.h). Row i of token t(i); A_i is the sum of a from the tile's
 * first token to t(i), w = gamma + delta, S the state entering the tile:
 *   F_ij = exp(A_i - A_j) w_j q_i.k_j for earlier tokens, gamma_j q_i.k_j for rows of one token, 0 for later ones
 *   y_i = sum_j F_ij v_j + exp(A_i) S q_i + D v_i
 *   S'  = exp(A_end) S + sum_j exp(A_end - A_j) w_j v_j k_j^T
 * Backward, with G the gradient of S' and U_ij = dy_i.v_j; T is F with U in place of q.k:
 *   dv_j = sum_i F_ij dy_i + w_j exp(A_end - A_j) G k_j + D dy_j
 *   dq_i = sum_j T_ij k_j + exp(A_i) S^T dy_i,   dk_j = sum_i T_ij q_i + w_j exp(A_end - A_j) G^T v_j
 *   ddelta_j = sum_{i later} exp(A_i - A_j) (q_i.k_j) U_ij + exp(A_end - A_j) v_j.G k_j
 *   dgamma_j = ddelta_j + sum_{i same token} (q_i.k_j) U_ij
 *   da_t = sum over everything that crosses from before t to t or later: pairs j before t <= i, of the tile
 *          exp(A_i - A_j) w_j (q_i.k_j) U_ij, from S (j), to G (i) or from S to G. Sums only, nothing is subtracted: as
 *          exact as the definition at the tiniest decays.
 *   G <- exp(A_end) G + sum_i exp(A_i) dy_i q_i^T
 *
 * A enters exponentials only as differences inside a tile; it is summed in double and kept as two floats, because after
 * a huge decay the small differences behind it would be lost in one. theta is summed in double too.
 *
 * Tasks are segments of sequences for parts of a group's heads. A segment is a whole sequence, unless there are too few
 * sequences and heads: then the states (in backward their gradients) at the segments' ends are found first, each segment
 * by itself, and joined in order: S' = exp(sum of a) S + what the segment adds.
 *
 * In Mamba-2 k and q are B and C, for all heads of a group: q.k is computed once a tile, and so are the products with
 * T, which are linear in it. In Mamba-3 heads share the norm only; bias and rotation are applied in the tile. Nothing of
 * a head's k and q is ever written to memory beyond a thread's scratch. */
#pragma once

#include "tensor/cpu/ssd_scan.h"
#include "tensor/cpu/tile.h"

#define scan_tile_carve CPU_SYMBOL(scan_tile_carve)
#define scan_tile_shared CPU_SYMBOL(scan_tile_shared)
#define scan_tile_decays CPU_SYMBOL(scan_tile_decays)
#define scan_tile_between CPU_SYMBOL(scan_tile_between)
#define scan_tile_prepare CPU_SYMBOL(scan_tile_prepare)
#define scan_tile_products CPU_SYMBOL(scan_tile_products)
#define scan_product CPU_SYMBOL(scan_product)
#define scan_product_t CPU_SYMBOL(scan_product_t)
#define scan_tile_state CPU_SYMBOL(scan_tile_state)
#define scan_load_state CPU_SYMBOL(scan_load_state)
#define scan_store_state CPU_SYMBOL(scan_store_state)
#define scan_tile_v CPU_SYMBOL(scan_tile_v)
#define scan_forward_scratch CPU_SYMBOL(scan_forward_scratch)
#define scan_tile_sizes CPU_SYMBOL(scan_tile_sizes)
#define scan_segments CPU_SYMBOL(scan_segments)
#define scan_turn CPU_SYMBOL(scan_turn)

#ifndef ASPIS_REAL_F64

/* Rows of a tile: what an L1 cache holds of a few such squares. Forward half as many cost half as much inside the tile, where
 * products need no packing; backward would have to find twice as many states again. */
enum { TILE_MAX = 64, TILE_FORWARD_F32 = 32 };
/* A group's heads are split until there are about this many tasks: each part computes what heads share anew. Sequences
 * are split where that leaves fewer tasks than SEGMENT_TASKS, and only into segments long enough to pay. */
enum { CHUNKED_TASKS = 16, SEGMENT_TASKS = 8, SEGMENT_MIN = 512 };

/* A tile: tokens [first, first + n) of sequence seq, m = n R rows. */
typedef struct Tile {
  int64_t seq, first, n, m;
  bool ends_sequence;
  bool from_zero;  /* S is zero: nothing goes before */
  int64_t segment; /* backward: which one it belongs to */
  bool to_zero;    /* backward: G is zero, nothing follows */
  bool reaches_in; /* backward: G before the tile is wanted */
} Tile;

/* What the passes hold of one tile and one head of it. M rows of a tile, row i of token i / R; ld is the padded size. */
typedef struct TileWork {
  /* what heads share */
  float *B, *C; /* (M, N): normed where the model norms */
  /* one head's rows */
  float *k, *q;         /* (M, N): bias and rotation done; B and C themselves where kq_shared */
  float *K;             /* (M, M) causal: q_i.k_j */
  float *F;             /* (M, M) causal */
  float *v, *vw;        /* (M, P): v; v or dy with weights */
  float *turned;        /* a factor of a product, transposed */
  uint16_t *packed;     /* factors of a product in BF16 */
  float *y;             /* (M, P): y, in backward dy */
  float *bias;          /* (R, N): a head's, padded with zeros */
  float *angle;         /* (2, tokens, S): theta; of pairs of neighbours, cosines and sines each once */
  float *cosine, *sine; /* (tokens, turned_width) */
  float *high, *low;    /* (M): A as two floats */
  float *w, *gamma;     /* (M) */
  float *start, *end;   /* (M): exp(A_i); exp(A_end - A_j) */
  float *wend;          /* (M): w end */
  float *whole;         /* (max(P, N)): all exp(A_end) */
  float *one;           /* (max(M, P, N)): all 1 */
  int64_t *width;       /* (M): columns of row i that a causal matrix holds, zeros beside the causal entries included */
  float *since;         /* (M): exp(A_i - A_b), b the first row of i's block of LANES rows */
  float *until;         /* (M / LANES, M): exp(A_b - A_j) of each block for the rows j before it */
  float *near;          /* (tokens, LANES): of the columns that the token begins in: exp(A_t - A_j), 0 from t on */
  float *near_weight;   /* (tokens, LANES): F / K there */
  float *D;             /* (P) */
  float *B_norm, *C_norm; /* (N) */
  float *row;             /* (max(N, P)): a row being converted */
} TileWork;

/* Sizes of a call, forward or backward. */
Scan scan_tile_sizes(const SsdScan *p, bool backward);
/* Scratch of a forward call. */
int64_t scan_forward_scratch(const SsdScan *p);
/* Cuts the sequences into segments, in order; returns how many. */
int64_t scan_segments(const Scan *s, Segment *segments);
static inline bool begins_sequence(const Scan *s, Segment segment) { return segment.first == s->starts[segment.seq]; }
static inline bool ends_sequence(const Scan *s, Segment segment) { return segment.end == s->starts[segment.seq + 1]; }
/* theta of the last of the tokens [first, end), from that before them; not wrapped. */
void scan_turn(const Scan *s, int64_t h, int64_t first, int64_t end, double *theta);
void scan_tile_carve(const Scan *s, TileWork *w, Carver *c);

/* B, C (and, where they are k and q, K) of group g. */
void scan_tile_shared(const Scan *s, TileWork *w, Tile tile, int64_t g);
/* Everything from high to whole; and from since to near_weight, for which that must be there. */
void scan_tile_decays(const Scan *s, TileWork *w, Tile tile, int64_t h);
void scan_tile_between(const Scan *s, TileWork *w, Tile tile);
/* k, and q where wanted, of a head that does not share them. theta (S), wrapped: from that before the tile to that of its
 * last token. */
void scan_tile_prepare(const Scan *s, TileWork *w, Tile tile, int64_t h, double *theta, bool q_too);
/* K */
void scan_tile_products(const Scan *s, TileWork *w, Tile tile);
/* v, by ranks, and D. */
void scan_tile_v(const Scan *s, TileWork *w, Tile tile, int64_t h);
/* C (m, n) = keep C + A (m, k) B (k, n), in BF16 where that is faster and the activations are; n padded. */
void scan_product(const Scan *s, TileWork *w, int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb,
                  const float *keep, float *c, int64_t ldc);
/* C (m, n) = A (m, k) b^T, b (n, k): in C, n is padded. Where causal, only the causal entries of C. */
void scan_product_t(const Scan *s, TileWork *w, int64_t m, int64_t n, int64_t k, TileA a, const float *b, int64_t ldb,
                    bool causal, float *c, int64_t ldc);
/* S (P, N), from before the tile to behind it; needs the tile's decays, v and k. Of a tile from zero S is only written. */
void scan_tile_state(const Scan *s, TileWork *w, Tile tile, float *S);
/* A state (P, N) of tensor block i (or zeros, of none), its rows padded with zeros; and back. */
void scan_load_state(const Scan *s, const Tensor *from, int64_t i, float *to);
void scan_store_state(const Scan *s, Tensor *to, int64_t i, const float *from);
/* How far from each other the rows of two tokens' cosines and sines lie. Pairs of neighbours have both their columns in
 * them, a sine the first time with a minus: a row x turns into x cosine + (x, neighbours swapped) sine. Of halves there
 * is one a pair. */
static inline int64_t turned_width(const Scan *s) { return s->p->rotate_halves ? s->n_s : round_up(2 * s->n_s, LANES); }
/* The decays exp(A_i - A_j) of a row i come in vectors of LANES columns: of those that hold earlier tokens alone, as two
 * factors that never exceed 1 where no a does 0, for a multiplication instead of an exponential (what that may lose is a
 * result too small for a float); and of the one that i's token begins in, `near`. */
static inline void decays_before(const Scan *s, const TileWork *w, int64_t i, int64_t j, Lanes *to) {
  *to = w->since[i] * *lanes_of(w->until + i / LANES * s->n_m + j);
}

/* Whether sequences begin with a state. */
static inline bool takes_state(const SsdScan *p) { return p->ssm_in || has_carried_input(p); }
/* The tile that begins at token `first` of its sequence's chunk. */
static inline Tile scan_tile_at(const Scan *s, int64_t seq, int64_t first) {
  const int64_t in_chunk = (first - s->starts[seq]) % s->n_q, end = s->starts[seq + 1];
  const int64_t n = min_i64(min_i64(s->n_tile, s->n_q - in_chunk), end - first);
  return (Tile){.seq = seq,
                .first = first,
                .n = n,
                .m = n * s->n_r,
                .ends_sequence = first + n == end,
                .from_zero = first == s->starts[seq] && !takes_state(s->p)};
}
/* The row of chunk_states of the chunk that token t is in. */
static inline int64_t chunk_row(const Scan *s, int64_t seq, int64_t t) {
  const int64_t start = s->starts[seq];
  return start / s->n_q + seq + (t - start) / s->n_q;
}

/* w->vw = x (M, P) with its rows times `weight`. */
static inline void weigh_rows(const Scan *s, TileWork *w, Tile tile, const float *x, const float *weight) {
  for (int64_t i = 0; i < tile.m; i++)
#pragma omp simd
    for (int64_t c = 0; c < s->n_rows; c++) w->vw[i * s->n_rows + c] = weight[i] * x[i * s->n_rows + c];
}

/* Rows [row, row + n_rows), columns [col, col + n) of a tensor as floats, padded with zeros, `ld` apart. */
static inline void load_rows(const Tensor *t, int64_t row, int64_t n_rows, int64_t col, int64_t n, int64_t n_padded,
                             float *to, int64_t ld) {
  const Tensor own = cols_from(t, col);
  for (int64_t i = 0; i < n_rows; i++, to += ld) {
    const float *from = row_load(&own, row + i, n, to);
    if (from != to) copy(to, from, n);
    if (n_padded > n) zero(to + n, n_padded - n);
  }
}
/* Rows of a tile lie too far apart for the processor to guess the next one, so a head asks for those of the head that
 * the task turns to next: tokens [first, first + n) of x, and of all ranks of y (or dy). */
typedef struct Next {
  int64_t first, n, h;
} Next;
static inline void prefetch_token(const Scan *s, Next next, int64_t t, const Tensor *x, const Tensor *y) {
  if (t >= next.n) return;
  row_prefetch(x, next.first + t, next.h * s->n_p, s->n_p);
  for (int64_t r = 0; r < s->n_r; r++) row_prefetch(y, next.first + t, (r * s->n_h + next.h) * s->n_p, s->n_p);
}
/* An angle to [0, 2 pi). */
static inline double wrap(double theta) {
  return theta - 6.283185307179586476925 * floor(theta * 0.159154943091895335769);
}

#endif
