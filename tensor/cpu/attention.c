/* attention: causal softmax attention inside each sequence, with shared key heads and rotary positions.
 *
 *   s_ij = scale q_i . k_j (j <= i);  p_i = softmax(s_i);  y_i = sum_j p_ij v_j
 *   dv_j += p_ij dy_i;  dp_ij = dy_i . v_j;  ds_ij = scale p_ij (dp_ij - dy_i . y_i)
 *   dq_i = sum_j ds_ij k_j;  dk_j += ds_ij q_i;  q and k here are the rotated ones, so dq and dk are rotated back.
 *
 * In blocks of BLOCK queries by BLOCK keys, so that p exists only as a block in cache: while a block of queries goes
 * through the keys, it keeps each query's largest score so far and takes what it has summed times e^(old - new largest)
 * when that grows (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et al. 2022,
 * "FlashAttention"). Scores lie transposed, (key, query): every step of the softmax is then a loop over neighbours.
 * Forward saves lse_i = log sum_j e^s_ij, from which backward has p_ij = e^(s_ij - lse_i) at once. All work on copies laid out (head, T, width), width being head_dim filled up with
 * zeros for the tile products. A forward task is one block of queries of a head; a backward task one (sequence, key head)
 * with all the query heads that read it, because those add to the same dk and dv. Sequences that go on where others ended
 * are attention_past.c's. */
#include "tensor/cpu/attention_past.h"
#include "tensor/cpu/tile.h"

enum { BLOCK = 64, WIDTH_ALIGN = 16 };

/* Scratch. */
typedef struct Work {
  int64_t width, n_slots;
  real *cos, *sin; /* (longest sequence, rotary_dim / 2) */
  real *q, *k, *v; /* (heads, T, width); forward puts y where q was */
  real *q_t;       /* (n_heads, slots, width, BLOCK): q by blocks, transposed */
  real *dy, *dy_t; /* backward only, like the rest: as q and q_t */
  real *dq, *dk, *dv;
} Work;

/* Rows [first, first + n_rows) of the sequence that begins at token `start`. */
typedef struct Block {
  int64_t start, first, n_rows, slot;
} Block;

static int64_t n_tokens(const Attention *p) { return tensor_rows(p->q); }
static int64_t n_sequences(const Attention *p) { return tensor_count(p->cu_seqlens) - 1; }

/* Block i of sequence s has slot start[s] / BLOCK + s + i: no two share one, and not every one is taken. */
static Block block_of(const Attention *p, int64_t s, int64_t i) {
  const int32_t *start = p->cu_seqlens->data;
  const int64_t first = start[s] + i * BLOCK;
  return (Block){start[s], first, min_i64(BLOCK, start[s + 1] - first), start[s] / BLOCK + s + i};
}

static int64_t n_blocks(const Attention *p, int64_t s) {
  const int32_t *start = p->cu_seqlens->data;
  return ceil_div(start[s + 1] - start[s], BLOCK);
}

/* The block of a slot, without rows where the slot is free. */
static Block block_at(const Attention *p, int64_t slot) {
  for (int64_t s = 0; s < n_sequences(p); s++) {
    const int64_t i = slot - block_of(p, s, 0).slot;
    if (i >= 0 && i < n_blocks(p, s)) return block_of(p, s, i);
  }
  return (Block){0};
}

/* Lays the work out from `at` on; returns the number of reals. */
static int64_t work_lay(const Attention *p, bool backward, real *at, Work *work) {
  const int64_t n_t = n_tokens(p), width = round_up(p->head_dim, WIDTH_ALIGN);
  const int64_t n_slots = n_t / BLOCK + n_sequences(p), n_rotation = round_up(n_t * (p->rotary_dim / 2), WIDTH_ALIGN);
  const int64_t n_q = p->n_heads * n_t * width, n_kv = p->n_heads_kv * n_t * width;
  const int64_t n_q_t = p->n_heads * n_slots * width * BLOCK;
  const struct {
    real **field;
    int64_t n;
  } field[] = {{&work->cos, n_rotation}, {&work->sin, n_rotation}, {&work->q, n_q},  {&work->k, n_kv},
               {&work->v, n_kv},         {&work->q_t, n_q_t},      {&work->dy, n_q}, {&work->dy_t, n_q_t},
               {&work->dq, n_q},         {&work->dk, n_kv},        {&work->dv, n_kv}};
  const size_t n_fields = backward ? 11 : 6;
  int64_t used = 0;
  work->width = width, work->n_slots = n_slots;
  for (size_t i = 0; i < n_fields; i++) {
    if (at) *field[i].field = at + used;
    used += field[i].n;
  }
  return used;
}

KERNEL_SCRATCH(attention, Attention) {
  if (p->key_in) return attention_past_scratch(p, backward);
  Work work;
  return (size_t)work_lay(p, backward, NULL, &work) * sizeof(real);
}

/* The rotation's table: angle pos * base^(-2i/rotary_dim), positions counted from the sequence's start. */
static void fill_rotation(const Attention *p, const Work *work) {
  const int32_t *start = p->cu_seqlens->data;
  const int64_t n_pairs = p->rotary_dim / 2;
  int64_t longest = 0;
  for (int64_t s = 0; s < n_sequences(p); s++) longest = max_i64(longest, start[s + 1] - start[s]);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n_pairs; i++) {
    const double frequency = pow(p->rotary_base, -2.0 * (double)i / p->rotary_dim);
    for (int64_t pos = 0; pos < longest; pos++) {
      work->cos[pos * n_pairs + i] = (real)cos((double)pos * frequency);
      work->sin[pos * n_pairs + i] = (real)sin((double)pos * frequency);
    }
  }
}

/* Turns one head's vector at a position by its angle (direction 1) or back (-1). */
static void rotate(const Attention *p, const Work *work, int64_t pos, real direction, real *x) {
  const int64_t n_pairs = p->rotary_dim / 2;
  const int64_t step = p->rotary_interleaved ? 2 : 1, second = p->rotary_interleaved ? 1 : n_pairs;
  for (int64_t i = 0; i < n_pairs; i++) {
    const real c = work->cos[pos * n_pairs + i], s = direction * work->sin[pos * n_pairs + i];
    const real x0 = x[i * step], x1 = x[i * step + second];
    x[i * step] = x0 * c - x1 * s;
    x[i * step + second] = x0 * s + x1 * c;
  }
}

/* ---- blocks in cache --------------------------------------------------------------------------------------------- */

/* C (m, n) = keep C + A (m, k) B (k, n), as tile_product: keep (m) are factors of C's rows, NULL: zero; n is a multiple of
 * WIDTH_ALIGN; A is stored (k, m) when a_transposed. */
static void block_product(bool a_transposed, int64_t m, int64_t n, int64_t k, const real *a, int64_t lda, const real *b,
                          int64_t ldb, const real *keep, real *c, int64_t ldc) {
#ifdef ASPIS_REAL_F64
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) c[i * ldc + j] = keep ? keep[i] * c[i * ldc + j] : 0;
    for (int64_t q = 0; q < k; q++)
      for (int64_t j = 0; j < n; j++)
        c[i * ldc + j] += (a_transposed ? a[q * lda + i] : a[i * lda + q]) * b[q * ldb + j];
  }
#else
  tile_product(m, n, k, a_transposed ? tile_a_t(a, lda) : tile_a(a, lda), b, ldb, keep, c, ldc);
#endif
}

/* (n_rows, width) to (width, BLOCK), the columns past n_rows zero. */
static void block_transpose(int64_t n_rows, int64_t width, const real *from, real *to) {
  if (n_rows < BLOCK) memset(to, 0, (size_t)(width * BLOCK) * sizeof(real));
#ifdef ASPIS_REAL_F64
  for (int64_t r = 0; r < n_rows; r++)
    for (int64_t i = 0; i < width; i++) to[i * BLOCK + r] = from[r * width + i];
#else
  tile_transpose(n_rows, width, from, width, to, BLOCK);
#endif
}

/* One head's part of a block of rows, into `to` (n_rows, width). */
static void block_gather(const Attention *p, const Work *work, Block b, const Tensor *from, int64_t head, bool rotated,
                         real *to) {
  const Tensor part = cols_from(from, head * p->head_dim);
  for (int64_t r = 0; r < b.n_rows; r++) {
    real *x = to + r * work->width;
    const real *loaded = row_load(&part, b.first + r, p->head_dim, x);
    if (loaded != x) memcpy(x, loaded, (size_t)p->head_dim * sizeof(real));
    memset(x + p->head_dim, 0, (size_t)(work->width - p->head_dim) * sizeof(real));
    if (rotated) rotate(p, work, b.first + r - b.start, 1, x);
  }
}

/* (T, heads * head_dim) to (heads, T, width), and to (heads, slots, width, BLOCK) where that is wanted. */
static void gather(const Attention *p, const Work *work, const Tensor *from, int64_t n_heads, bool rotated, real *to,
                   real *transposed) {
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t h = 0; h < n_heads; h++)
    for (int64_t slot = 0; slot < work->n_slots; slot++) {
      const Block b = block_at(p, slot);
      real *rows = to + (h * n_tokens(p) + b.first) * work->width;
      block_gather(p, work, b, from, h, rotated, rows);
      if (transposed && b.n_rows)
        block_transpose(b.n_rows, work->width, rows, transposed + (h * work->n_slots + slot) * work->width * BLOCK);
    }
}

/* Adds (heads, T, width), which it may turn back in place, to the gradient (T, heads * head_dim). */
static void scatter(const Attention *p, const Work *work, real *from, int64_t n_heads, bool rotated, Tensor *to) {
  if (!to) return;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t h = 0; h < n_heads; h++)
    for (int64_t slot = 0; slot < work->n_slots; slot++) {
      const Block b = block_at(p, slot);
      Tensor part = cols_from(to, h * p->head_dim);
      for (int64_t r = 0; r < b.n_rows; r++) {
        real *x = from + (h * n_tokens(p) + b.first + r) * work->width;
        if (rotated) rotate(p, work, b.first + r - b.start, -1, x);
        row_add(&part, b.first + r, p->head_dim, x);
      }
    }
}

/* Every key head's rows (T, width), into the sequences' rows of a state; and what has arrived at such a state, added the
 * other way. */
static void state_rows(const Attention *p, const Work *work, real *rows, Tensor *state, bool add_to_rows) {
  if (!state) return;
  const int32_t *start = p->cu_seqlens->data;
  const int64_t room = state->dim[1], n_kv = state->dim[2], d = p->head_dim;
  for (int64_t s = 0; s < n_sequences(p); s++) {
    CHECK(start[s + 1] - start[s] <= room, "%d tokens in a room of %lld", start[s + 1] - start[s], (long long)room);
    for (int64_t t = start[s]; t < start[s + 1]; t++)
      for (int64_t h = 0; h < p->n_heads_kv; h++) {
        real *row = rows + (h * n_tokens(p) + t) * work->width;
        real *at = (real *)state->data + (s * room + t - start[s]) * n_kv + h * d;
        if (!add_to_rows) memcpy(at, row, (size_t)d * sizeof(real));
        for (int64_t i = 0; i < d && add_to_rows; i++) row[i] += at[i];
      }
  }
}

/* score (n_keys, BLOCK): scaled, -inf where the key comes after the query. */
static void block_scores(const Attention *p, const Work *work, Block b, const real *q_t, const real *k, int64_t key,
                         int64_t n_keys, real (*score)[BLOCK]) {
  block_product(false, n_keys, BLOCK, p->head_dim, k, work->width, q_t, BLOCK, NULL, score[0], BLOCK);
  for (int64_t j = 0; j < n_keys; j++) {
    for (int64_t i = 0; i < BLOCK; i++) score[j][i] *= (real)p->scale;
    const int64_t n_before = min_i64(BLOCK, max_i64(0, key + j - b.first));
    for (int64_t i = 0; i < n_before; i++) score[j][i] = -INFINITY;
  }
}

/* For each query of a block: its largest score, sum_j e^(s_ij - largest), and y = sum_j e^(s_ij - largest) v_j. k and v
 * are the sequence's. */
static void block_attend(const Attention *p, const Work *work, Block b, const real *q_t, const real *k, const real *v,
                         real largest[BLOCK], real sum[BLOCK], real *y) {
  for (int64_t i = 0; i < BLOCK; i++) largest[i] = -INFINITY, sum[i] = 0;
  for (int64_t key = b.start; key <= b.first; key += BLOCK) {
    const int64_t n_keys = min_i64(BLOCK, b.first + b.n_rows - key), at = (key - b.start) * work->width;
    real score[BLOCK][BLOCK], grown[BLOCK], keep[BLOCK];
    block_scores(p, work, b, q_t, k + at, key, n_keys, score);
    memcpy(grown, largest, sizeof grown);
    for (int64_t j = 0; j < n_keys; j++)
      for (int64_t i = 0; i < BLOCK; i++) grown[i] = score[j][i] > grown[i] ? score[j][i] : grown[i];
    for (int64_t i = 0; i < BLOCK; i++) {
      keep[i] = real_exp(largest[i] - grown[i]);
      sum[i] *= keep[i];
      largest[i] = grown[i];
    }
    for (int64_t j = 0; j < n_keys; j++)
      for (int64_t i = 0; i < BLOCK; i++) {
        score[j][i] = real_exp(score[j][i] - grown[i]);
        sum[i] += score[j][i];
      }
    block_product(true, b.n_rows, work->width, n_keys, score[0], BLOCK, v + at, work->width,
                  key > b.start ? keep : NULL, y, work->width);
  }
}

KERNEL_FWD(attention, Attention) {
  if (p->key_in) {
    attention_past_forward(p);
    return;
  }
  const int64_t n_t = n_tokens(p), share = p->n_heads / p->n_heads_kv;
  Work work;
  work_lay(p, false, p->scratch, &work);
  fill_rotation(p, &work);
  gather(p, &work, p->q, p->n_heads, true, work.q, work.q_t);
  gather(p, &work, p->k, p->n_heads_kv, true, work.k, NULL);
  gather(p, &work, p->v, p->n_heads_kv, false, work.v, NULL);
  state_rows(p, &work, work.k, p->key_out, false);
  state_rows(p, &work, work.v, p->value_out, false);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t h = 0; h < p->n_heads; h++)
    for (int64_t slot = 0; slot < work.n_slots; slot++) {
      const Block b = block_at(p, slot);
      if (!b.n_rows) continue;
      const real *q_t = work.q_t + (h * work.n_slots + slot) * work.width * BLOCK;
      const int64_t of_keys = (h / share * n_t + b.start) * work.width;
      real *y = work.q + (h * n_t + b.first) * work.width, largest[BLOCK], sum[BLOCK];
      block_attend(p, &work, b, q_t, work.k + of_keys, work.v + of_keys, largest, sum, y);
      Tensor part = cols_from(p->y, h * p->head_dim);
      for (int64_t r = 0; r < b.n_rows; r++) {
        const real inverse = 1 / sum[r];
        if (p->lse) ((real *)p->lse->data)[(b.first + r) * p->n_heads + h] = largest[r] + R(log)(sum[r]);
        for (int64_t i = 0; i < p->head_dim; i++) y[r * work.width + i] *= inverse;
        row_store(&part, b.first + r, p->head_dim, y + r * work.width);
      }
    }
}

/* One block of queries of head h: its dq, and its share of dk and dv, which are the sequence's, like k and v. */
static void block_backward(const Attention *p, const Work *work, Block b, int64_t h, const real *k, const real *v,
                           real *dk, real *dv) {
  const int64_t width = work->width, rows = (h * n_tokens(p) + b.first) * width;
  const int64_t columns = (h * work->n_slots + b.slot) * width * BLOCK;
  const real *q = work->q + rows, *dy = work->dy + rows, *q_t = work->q_t + columns, *dy_t = work->dy_t + columns;
  real *dq = work->dq + rows, lse[BLOCK] = {0}, mean[BLOCK] = {0}, all[BLOCK];
  block_gather(p, work, b, p->y, h, false, dq); /* y, where dq will be */
  for (int64_t i = 0; i < BLOCK; i++) all[i] = 1;
  for (int64_t i = 0; i < b.n_rows; i++) {
    lse[i] = ((const real *)p->lse->data)[(b.first + i) * p->n_heads + h];
    for (int64_t c = 0; c < p->head_dim; c++) mean[i] = real_fma(dy[i * width + c], dq[i * width + c], mean[i]);
  }
  for (int64_t key = b.start; key <= b.first; key += BLOCK) {
    const int64_t n_keys = min_i64(BLOCK, b.first + b.n_rows - key), at = (key - b.start) * width;
    real prob[BLOCK][BLOCK], dscore[BLOCK][BLOCK];
    block_scores(p, work, b, q_t, k + at, key, n_keys, prob);
    for (int64_t j = 0; j < n_keys; j++)
      for (int64_t i = 0; i < BLOCK; i++) prob[j][i] = real_exp(prob[j][i] - lse[i]);
    block_product(false, n_keys, width, b.n_rows, prob[0], BLOCK, dy, width, all, dv + at, width);
    block_product(false, n_keys, BLOCK, p->head_dim, v + at, width, dy_t, BLOCK, NULL, dscore[0], BLOCK);
    for (int64_t j = 0; j < n_keys; j++)
      for (int64_t i = 0; i < BLOCK; i++) dscore[j][i] = (real)p->scale * prob[j][i] * (dscore[j][i] - mean[i]);
    block_product(true, b.n_rows, width, n_keys, dscore[0], BLOCK, k + at, width, key > b.start ? all : NULL, dq,
                  width);
    block_product(false, n_keys, width, b.n_rows, dscore[0], BLOCK, q, width, all, dk + at, width);
  }
}

KERNEL_BWD(attention, Attention) {
  if (p->key_in) {
    attention_past_backward(p);
    return;
  }
  const int64_t n_t = n_tokens(p), n_seq = n_sequences(p), share = p->n_heads / p->n_heads_kv;
  const int32_t *start = p->cu_seqlens->data;
  Work work;
  work_lay(p, true, p->scratch, &work);
  fill_rotation(p, &work);
  gather(p, &work, p->q, p->n_heads, true, work.q, work.q_t);
  gather(p, &work, p->k, p->n_heads_kv, true, work.k, NULL);
  gather(p, &work, p->v, p->n_heads_kv, false, work.v, NULL);
  gather(p, &work, p->dy, p->n_heads, false, work.dy, work.dy_t);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t s = 0; s < n_seq; s++)
    for (int64_t g = 0; g < p->n_heads_kv; g++) {
      const int64_t at = (g * n_t + start[s]) * work.width, n = (start[s + 1] - start[s]) * work.width;
      memset(work.dk + at, 0, (size_t)n * sizeof(real));
      memset(work.dv + at, 0, (size_t)n * sizeof(real));
      for (int64_t h = g * share; h < (g + 1) * share; h++)
        for (int64_t i = 0; i < n_blocks(p, s); i++)
          block_backward(p, &work, block_of(p, s, i), h, work.k + at, work.v + at, work.dk + at, work.dv + at);
    }
  state_rows(p, &work, work.dk, p->dkey_out, true);
  state_rows(p, &work, work.dv, p->dvalue_out, true);
  scatter(p, &work, work.dq, p->n_heads, true, p->dq);
  scatter(p, &work, work.dk, p->n_heads_kv, true, p->dk);
  scatter(p, &work, work.dv, p->n_heads_kv, false, p->dv);
}
