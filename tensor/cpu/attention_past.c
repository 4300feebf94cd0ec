/* attention_past: see attention_past.h; formulas in attention.c. Made for few new tokens behind a long past: keys and values of
 * the past are read where they lie, in runs of RUN with a running maximum, and nothing that grows with the past is copied. A
 * forward task is one query of one head; a backward task one (sequence, key head) with all that reads it. */
#include "tensor/cpu/attention_past.h"

enum { RUN = 64 };

/* Scratch: the new tokens', rotated. */
typedef struct Work {
  int64_t n_q, n_kv;
  real *cos, *sin;         /* (T, rotary_dim / 2) */
  real *q, *k, *v, *y;     /* (T, n_q), (T, n_kv) twice, (T, n_q) */
  real *dy, *dq, *dk, *dv; /* backward only */
} Work;

static int64_t n_tokens(const Attention *p) { return tensor_rows(p->q); }
static int64_t n_sequences(const Attention *p) { return tensor_count(p->cu_seqlens) - 1; }

static int64_t work_lay(const Attention *p, bool backward, real *at, Work *work) {
  const int64_t n_t = n_tokens(p);
  work->n_q = (int64_t)p->n_heads * p->head_dim, work->n_kv = (int64_t)p->n_heads_kv * p->head_dim;
  const int64_t n_turn = n_t * (p->rotary_dim / 2), n_q = n_t * work->n_q, n_kv = n_t * work->n_kv;
  const struct {
    real **field;
    int64_t n;
  } field[] = {{&work->cos, n_turn}, {&work->sin, n_turn}, {&work->q, n_q},  {&work->k, n_kv},  {&work->v, n_kv},
               {&work->y, n_q},      {&work->dy, n_q},     {&work->dq, n_q}, {&work->dk, n_kv}, {&work->dv, n_kv}};
  int64_t used = 0;
  for (int i = 0; i < (backward ? 10 : 6); i++) {
    if (at) *field[i].field = at + used;
    used += field[i].n;
  }
  return used;
}

size_t attention_past_scratch(const Attention *p, bool backward) {
  Work work;
  return (size_t)work_lay(p, backward, NULL, &work) * sizeof(real);
}

/* One token's heads turned by its angles (direction 1) or back (-1). */
static void rotate(const Attention *p, const Work *work, int64_t t, real direction, int n_heads, real *row) {
  const int64_t n_pairs = p->rotary_dim / 2, step = p->rotary_interleaved ? 2 : 1;
  const int64_t second = p->rotary_interleaved ? 1 : n_pairs;
  for (int64_t h = 0; h < n_heads; h++)
    for (int64_t i = 0; i < n_pairs; i++) {
      real *x = row + h * p->head_dim + i * step;
      const real c = work->cos[t * n_pairs + i], s = direction * work->sin[t * n_pairs + i];
      const real x0 = x[0], x1 = x[second];
      x[0] = x0 * c - x1 * s;
      x[second] = x0 * s + x1 * c;
    }
}

static void load_rows(const Tensor *from, int64_t n_cols, real *to) {
  for (int64_t t = 0; t < tensor_rows(from); t++, to += n_cols) {
    const real *row = row_load(from, t, n_cols, to);
    if (row != to) memcpy(to, row, (size_t)n_cols * sizeof(real));
  }
}

/* Angles, and q, k, v as everything behind reads them. */
static Work work_begin(const Attention *p, bool backward) {
  const int32_t *start = p->cu_seqlens->data, *past = p->past->data;
  const int64_t n_pairs = p->rotary_dim / 2;
  Work work;
  work_lay(p, backward, p->scratch, &work);
  load_rows(p->q, work.n_q, work.q);
  load_rows(p->k, work.n_kv, work.k);
  load_rows(p->v, work.n_kv, work.v);
  for (int64_t s = 0; s < n_sequences(p); s++) {
    CHECK(past[s] >= 0 && past[s] <= p->key_in->dim[1], "%d past tokens in a room of %lld", past[s],
          (long long)p->key_in->dim[1]);
    for (int64_t t = start[s]; t < start[s + 1]; t++) {
      for (int64_t i = 0; i < n_pairs; i++) {
        const double angle = (double)(past[s] + t - start[s]) * pow(p->rotary_base, -2.0 * (double)i / p->rotary_dim);
        work.cos[t * n_pairs + i] = (real)cos(angle);
        work.sin[t * n_pairs + i] = (real)sin(angle);
      }
      rotate(p, &work, t, 1, p->n_heads, work.q + t * work.n_q);
      rotate(p, &work, t, 1, p->n_heads_kv, work.k + t * work.n_kv);
    }
  }
  return work;
}

/* Row j of sequence s of a state. */
static real *state_row(const Tensor *state, int64_t s, int64_t j) {
  return (real *)state->data + (s * state->dim[1] + j) * state->dim[2];
}

/* The state behind the sequences: the past's rows where it is not the same state, and the new ones. */
static void store_state(const Attention *p, const Work *work, const Tensor *in, const real *new, Tensor *out) {
  if (!out) return;
  const int32_t *start = p->cu_seqlens->data, *past = p->past->data;
  const size_t row = (size_t)work->n_kv * sizeof(real);
  for (int64_t s = 0; s < n_sequences(p); s++) {
    const int64_t n = start[s + 1] - start[s];
    CHECK(past[s] + n <= out->dim[1], "%lld tokens in a room of %lld", (long long)(past[s] + n),
          (long long)out->dim[1]);
    if (out->data != in->data && past[s] > 0) memcpy(state_row(out, s, 0), state_row(in, s, 0), (size_t)past[s] * row);
    memcpy(state_row(out, s, past[s]), new + start[s] * work->n_kv, (size_t)n * row);
  }
}

/* Head g's key or value j of sequence s: of the past, or of a new token. */
static const real *head_row(const Attention *p, const Tensor *in, const real *new, int64_t s, int64_t j, int64_t g) {
  const int32_t *start = p->cu_seqlens->data, *past = p->past->data;
  const int64_t n_kv = in->dim[2];
  const real *row = j < past[s] ? state_row(in, s, j) : new + (start[s] + j - past[s]) * n_kv;
  return row + g * p->head_dim;
}

static int64_t sequence_of(const Attention *p, int64_t t) {
  const int32_t *start = p->cu_seqlens->data;
  int64_t s = 0;
  while (start[s + 1] <= t) s++;
  return s;
}

/* y of token t's head h, and the log of what its softmax divides by. */
static real attend(const Attention *p, const Work *work, int64_t t, int64_t h, real *y) {
  const int32_t *start = p->cu_seqlens->data, *past = p->past->data;
  const int64_t s = sequence_of(p, t), n_keys = past[s] + t - start[s] + 1, d = p->head_dim;
  const int64_t g = h / (p->n_heads / p->n_heads_kv);
  const real *q = work->q + t * work->n_q + h * d;
  real largest = -INFINITY, sum = 0;
  memset(y, 0, (size_t)d * sizeof(real));
  for (int64_t first = 0; first < n_keys; first += RUN) {
    const int64_t n = min_i64(RUN, n_keys - first);
    real score[RUN], grown = largest;
    for (int64_t j = 0; j < n; j++) {
      score[j] = (real)p->scale * dot(q, head_row(p, p->key_in, work->k, s, first + j, g), d);
      grown = score[j] > grown ? score[j] : grown;
    }
    const real keep = real_exp(largest - grown);
    largest = grown, sum *= keep;
    for (int64_t i = 0; i < d; i++) y[i] *= keep;
    for (int64_t j = 0; j < n; j++) {
      const real weight = real_exp(score[j] - largest);
      sum += weight;
      add_scaled(y, weight, head_row(p, p->value_in, work->v, s, first + j, g), d);
    }
  }
  for (int64_t i = 0; i < d; i++) y[i] /= sum;
  return largest + R(log)(sum);
}

void attention_past_forward(const Attention *p) {
  const Work work = work_begin(p, false);
  const int64_t n_t = n_tokens(p), d = p->head_dim;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t t = 0; t < n_t; t++)
    for (int64_t h = 0; h < p->n_heads; h++) {
      const real lse = attend(p, &work, t, h, work.y + t * work.n_q + h * d);
      if (p->lse) ((real *)p->lse->data)[t * p->n_heads + h] = lse;
    }
  for (int64_t t = 0; t < n_t; t++) row_store(p->y, t, work.n_q, work.y + t * work.n_q);
  store_state(p, &work, p->key_in, work.k, p->key_out);
  store_state(p, &work, p->value_in, work.v, p->value_out);
}

/* Where the gradient of head g's row j goes: to the past's (NULL: not wanted), or to a new token's. */
static real *grad_row(const Attention *p, Tensor *din, real *dnew, int64_t s, int64_t j, int64_t g) {
  const int32_t *start = p->cu_seqlens->data, *past = p->past->data;
  const int64_t n_kv = p->key_in->dim[2];
  if (j >= past[s]) return dnew + (start[s] + j - past[s]) * n_kv + g * p->head_dim;
  return din ? state_row(din, s, j) + g * p->head_dim : NULL;
}

static void backward_query(const Attention *p, const Work *work, int64_t s, int64_t t, int64_t h) {
  const int32_t *start = p->cu_seqlens->data, *past = p->past->data;
  const int64_t d = p->head_dim, g = h / (p->n_heads / p->n_heads_kv), at = t * work->n_q + h * d;
  const real *q = work->q + at, *dy = work->dy + at, lse = ((const real *)p->lse->data)[t * p->n_heads + h];
  const real mean = dot(dy, work->y + at, d);
  for (int64_t j = 0; j <= past[s] + t - start[s]; j++) {
    const real *k = head_row(p, p->key_in, work->k, s, j, g), *v = head_row(p, p->value_in, work->v, s, j, g);
    const real weight = real_exp((real)p->scale * dot(q, k, d) - lse);
    const real dscore = (real)p->scale * weight * (dot(dy, v, d) - mean);
    real *dk = grad_row(p, p->dkey_in, work->dk, s, j, g), *dv = grad_row(p, p->dvalue_in, work->dv, s, j, g);
    add_scaled(work->dq + at, dscore, k, d);
    if (dk) add_scaled(dk, dscore, q, d);
    if (dv) add_scaled(dv, weight, dy, d);
  }
}

/* What has arrived at a state: at its past rows, and at the new ones. */
static void backward_state(const Attention *p, const Work *work, const Tensor *dout, Tensor *din, real *dnew) {
  if (!dout) return;
  const int32_t *start = p->cu_seqlens->data, *past = p->past->data;
  for (int64_t s = 0; s < n_sequences(p); s++) {
    if (din && past[s] > 0) add_scaled(state_row(din, s, 0), 1, state_row(dout, s, 0), past[s] * work->n_kv);
    const int64_t n = (start[s + 1] - start[s]) * work->n_kv;
    add_scaled(dnew + start[s] * work->n_kv, 1, state_row(dout, s, past[s]), n);
  }
}

void attention_past_backward(const Attention *p) {
  const Work work = work_begin(p, true);
  const int64_t n_t = n_tokens(p), n_seq = n_sequences(p), share = p->n_heads / p->n_heads_kv;
  const int32_t *start = p->cu_seqlens->data;
  load_rows(p->y, work.n_q, work.y);
  load_rows(p->dy, work.n_q, work.dy);
  memset(work.dq, 0, (size_t)(n_t * work.n_q) * sizeof(real));
  memset(work.dk, 0, (size_t)(n_t * work.n_kv) * sizeof(real));
  memset(work.dv, 0, (size_t)(n_t * work.n_kv) * sizeof(real));
  backward_state(p, &work, p->dkey_out, p->dkey_in, work.dk);
  backward_state(p, &work, p->dvalue_out, p->dvalue_in, work.dv);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t s = 0; s < n_seq; s++)
    for (int64_t g = 0; g < p->n_heads_kv; g++)
      for (int64_t t = start[s]; t < start[s + 1]; t++)
        for (int64_t h = g * share; h < (g + 1) * share; h++) backward_query(p, &work, s, t, h);
  for (int64_t t = 0; t < n_t; t++) {
    rotate(p, &work, t, -1, p->n_heads, work.dq + t * work.n_q);
    rotate(p, &work, t, -1, p->n_heads_kv, work.dk + t * work.n_kv);
    if (p->dq) row_add(p->dq, t, work.n_q, work.dq + t * work.n_q);
    if (p->dk) row_add(p->dk, t, work.n_kv, work.dk + t * work.n_kv);
    if (p->dv) row_add(p->dv, t, work.n_kv, work.dv + t * work.n_kv);
  }
}
