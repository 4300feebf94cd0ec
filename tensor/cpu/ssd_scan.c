/* ssd_scan: the one recurrence of Mamba-2 and Mamba-3, walked token by token. The definition of the operation
 * (SsdScan in tensor/kernels.h; specification, sections 2.1 step 4, 2.2 steps 3 to 5, and 3), and the kernel of the double
 * build; the float builds' is ssd_scan_chunked.h.
 *
 * Per head, with u_t = sum_r v_{t,r} k_{t,r}^T, gamma_t = lambda_t dt_t and delta_t = (1 - lambda_{t+1}) dt_{t+1} (zero at
 * a sequence's last token; Mamba-2: gamma = dt, delta = 0), the state S_t = h_t + delta_t u_t obeys
 *   S_t     = exp(a_t) S_{t-1} + (gamma_t + delta_t) u_t
 *   y_{t,r} = exp(a_t) S_{t-1} q_{t,r} + gamma_t sum_j (q_{t,r} . k_{t,j}) v_{t,j} + D v_{t,r}
 * from S_{-1} = h_in + (1 - lambda_0) dt_0 sum_r v_in,r k_in,r^T to S_{L-1} = h_out: one walk serves both models, and
 * nothing is subtracted.
 *
 * Backward walks back with E_t, the gradient of S_t (E_{L-1} = dh_out):
 *   dv_j = (gamma + delta) E k_j + gamma sum_r (q_r . k_j) dy_r + D dy_j
 *   dk_j = (gamma + delta) E^T v_j + gamma sum_r (v_j . dy_r) q_r
 *   dq_r = exp(a) S_{t-1}^T dy_r + gamma sum_j (v_j . dy_r) k_j
 *   ddelta = sum_j v_j . E k_j,  dgamma = ddelta + sum_{r,j} (q_r . k_j)(v_j . dy_r)
 *   da = exp(a) (<E, S_{t-1}> + sum_r q_r . S_{t-1}^T dy_r): sums only, so exact at the tiniest decays too
 *   E_{t-1} = exp(a) (E + sum_r dy_r q_r^T)
 * and theta collects the cross products of (k, dk) and (q, dq), summed over all later tokens.
 *
 * Forward saves S_{t-1} at the start of each chunk; backward recomputes the states inside one chunk at a time. Nothing
 * depends on the chunk size.
 *
 * Tasks. Forward: one (sequence, head) each; backward: ssd_scan.h. */
#include "tensor/cpu/ssd_scan.h"

#ifdef ASPIS_REAL_F64

#include <omp.h>

/* Backward splits the heads of a group until there are about this many tasks. */
enum { TASKS_WANTED = 32 };

/* Rows of a state that are walked through together: one load of k or q serves them all, and their sums overlap. */
enum { ROWS = 4 };

/* One thread's memory. "Held" are the tokens worked on together: one in forward, a chunk in backward. */
typedef struct Work {
  real *state;           /* (held, rows, cols): S entering each token */
  real *dstate;          /* (rows, cols): E */
  real *k, *q;           /* (held, R, cols) */
  real *cosine, *sine;   /* (held, S) */
  real *theta;           /* (S) */
  real *theta_starts;    /* (chunks of the longest sequence, S): theta entering each chunk */
  real *v, *y;           /* (R, rows); backward: y is dy */
  real *dv;              /* (R, rows) */
  real *dk, *dq;         /* (R, cols) */
  real *dtheta;          /* (S) */
  real *qk, *vy;         /* (R, R): q_r . k_j at [r][j]; v_j . dy_r at [r][j] */
  real *D;               /* (P) */
  real *B_norm, *C_norm; /* (N) */
  real *row, *dx;        /* (max(N, P)): a row being converted; (P) */
} Work;

static int64_t work_carve(const Scan *s, Work *w, real *block, bool backward) {
  Carver c = {.block = block};
  int64_t n_held = backward ? min_i64(s->n_q, s->n_t) : 1;
  w->state = carve(&c, n_held * s->n_rows * s->n_cols);
  w->k = carve(&c, n_held * s->n_r * s->n_cols);
  w->q = carve(&c, n_held * s->n_r * s->n_cols);
  w->cosine = carve(&c, n_held * s->n_s);
  w->sine = carve(&c, n_held * s->n_s);
  w->theta = carve(&c, s->n_s);
  w->v = carve(&c, s->n_r * s->n_rows);
  w->y = carve(&c, s->n_r * s->n_rows);
  w->qk = carve(&c, s->n_r * s->n_r);
  w->D = carve(&c, s->n_p);
  w->B_norm = carve(&c, s->n_n);
  w->C_norm = carve(&c, s->n_n);
  w->row = carve(&c, max_i64(s->n_n, s->n_p));
  if (!backward) return c.used;
  w->dstate = carve(&c, s->n_rows * s->n_cols);
  w->theta_starts = carve(&c, ceil_div(s->n_t, s->n_q) * s->n_s);
  w->dv = carve(&c, s->n_r * s->n_rows);
  w->dk = carve(&c, s->n_r * s->n_cols);
  w->dq = carve(&c, s->n_r * s->n_cols);
  w->dtheta = carve(&c, s->n_s);
  w->vy = carve(&c, s->n_r * s->n_r);
  w->dx = carve(&c, s->n_p);
  return c.used;
}

/* Sizes and scratch of a call. */
static Scan walk_make(const SsdScan *p, bool backward, Carver *c) {
  Scan s = scan_sizes(p, TASKS_WANTED);
  s.n_rows = round_up(s.n_p, ROWS);
  s.n_cols = round_up(s.n_n, LANES);
  s.n_slab = s.n_t;
  s.n_sums = s.n_seq;
  scan_carve(&s, backward, c);
  Work unused;
  s.work_size = work_carve(&s, &unused, NULL, backward);
  s.work = carve(c, s.work_size * omp_get_max_threads());
  return s;
}

KERNEL_SCRATCH(ssd_scan, SsdScan) {
  Carver c = {0};
  walk_make(p, backward, &c);
  return (size_t)c.used * sizeof(real);
}

static Work work_of_thread(const Scan *s, bool backward) {
  Work w = {0};
  work_carve(s, &w, s->work + s->work_size * omp_get_thread_num(), backward);
  return w;
}

/* ---- small linear algebra ---- */

/* Below, s is ROWS rows of a state and n its row length, a multiple of LANES. */

/* out[i] = row i of s . x */
static inline void rows_dot(const real *s, const real *x, int64_t n, real out[ROWS]) {
  Lanes sum[ROWS] = {0};
  for (int64_t j = 0; j < n; j += LANES)
    for (int i = 0; i < ROWS; i++) sum[i] += *lanes_of(s + i * n + j) * *lanes_of(x + j);
  for (int i = 0; i < ROWS; i++) out[i] = lanes_sum(&sum[i]);
}

/* y += sum_i c[i] row i of s */
static inline void rows_sum(real *y, const real c[ROWS], const real *s, int64_t n) {
  const real c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3]; /* y may lie beside c, for all the compiler knows */
  for (int64_t j = 0; j < n; j += LANES) {
    const real *at = s + j;
    Lanes sum = c0 * *lanes_of(at) + c1 * *lanes_of(at + n) + c2 * *lanes_of(at + 2 * n) + c3 * *lanes_of(at + 3 * n);
    *lanes_at(y + j) += sum;
  }
}

/* ---- reading and writing tensors ---- */

/* A state (P, N) of tensor block i, or zeros, into padded rows. */
static void load_state(const Scan *s, real *to, const Tensor *from, int64_t i) {
  zero(to, s->n_rows * s->n_cols);
  for (int64_t c = 0; from && c < s->n_p; c++)
    copy(to + c * s->n_cols, real_block(from, i * s->n_p + c, s->n_n), s->n_n);
}
static void store_state(const Scan *s, Tensor *to, int64_t i, const real *from) {
  for (int64_t c = 0; c < s->n_p; c++) store_block(to, i * s->n_p + c, from + c * s->n_cols, s->n_n);
}
static void add_state(const Scan *s, Tensor *to, int64_t i, const real *from) {
  for (int64_t c = 0; c < s->n_p; c++) add_block(to, i * s->n_p + c, from + c * s->n_cols, s->n_n);
}

/* ---- a token's inputs ---- */

static Weights weights_at(const SsdScan *p, int64_t t, int64_t h, bool last) {
  real dt = real_row(p->dt, t)[h];
  return (Weights){.alpha = R(exp)(real_row(p->a, t)[h]),
                   .gamma = p->lambda ? real_row(p->lambda, t)[h] * dt : dt,
                   .delta = last ? 0 : delta_before(p, t + 1, h)};
}

/* theta_{t-1} -> theta_t */
static void theta_advance(const Scan *s, int64_t t, int64_t h, real *theta) {
  if (s->n_s == 0) return;
  real dt = real_row(s->p->dt, t)[h];
  for (int64_t i = 0; i < s->n_s; i++) {
    real sum = theta[i] + s->turn[t * s->n_s + i] * dt;
    theta[i] = sum - TWO_PI * R(floor)(sum / TWO_PI);
  }
}

/* k or q (R, cols) of token t and head h from B or C: norm, bias, rotation; norm NULL: as it is. */
static void prepare(const Scan *s, const Tensor *B, int64_t t, int64_t h, const real *norm, const Tensor *bias,
                    const real *cosine, const real *sine, real *out, real *buffer) {
  int64_t g = h / s->heads_per_group, n_n = s->n_n;
  for (int64_t r = 0; r < s->n_r; r++, out += s->n_cols) {
    Tensor own = cols_from(B, (r * s->n_g + g) * n_n);
    const real *in = row_load(&own, t, n_n, buffer);
    if (!norm) {
      copy(out, in, n_n);
    } else {
      const real *b = real_block(bias, h * s->n_r + r, n_n);
      real scale = 1 / R(sqrt)(dot(in, in, n_n) / (real)n_n + (real)s->p->norm_eps);
#pragma omp simd
      for (int64_t n = 0; n < n_n; n++) out[n] = in[n] * scale * norm[n] + b[n];
    }
    zero(out + n_n, s->n_cols - n_n);
    for (int64_t i = 0; i < s->n_s; i++) {
      Pair at = pair_at(s->p, i);
      real first = out[at.first], second = out[at.second];
      out[at.first] = first * cosine[i] - second * sine[i];
      out[at.second] = first * sine[i] + second * cosine[i];
    }
  }
}

/* k, q and the rotation of token t, into slot i of the held tokens; theta advances. */
static void prepare_token(const Scan *s, Work *w, int64_t t, int64_t h, int64_t i) {
  real *cosine = w->cosine + i * s->n_s, *sine = w->sine + i * s->n_s;
  theta_advance(s, t, h, w->theta);
  for (int64_t j = 0; j < s->n_s; j++) cosine[j] = R(cos)(w->theta[j]), sine[j] = R(sin)(w->theta[j]);
  int64_t slot = i * s->n_r * s->n_cols;
  const SsdScan *p = s->p;
  prepare(s, p->B, t, h, p->B_norm ? w->B_norm : NULL, p->B_bias, cosine, sine, w->k + slot, w->row);
  prepare(s, p->C, t, h, p->C_norm ? w->C_norm : NULL, p->C_bias, cosine, sine, w->q + slot, w->row);
}

/* v (R, rows) of one head from its x (P). */
static void ranks_of(const Scan *s, const real *x, int64_t h, real *v) {
  for (int64_t r = 0; r < s->n_r; r++, v += s->n_rows) {
    copy(v, x, s->n_p);
    zero(v + s->n_p, s->n_rows - s->n_p);
    if (!s->p->mimo_x) continue;
    const real *factor = real_block(s->p->mimo_x, h * s->n_r + r, s->n_p);
    for (int64_t i = 0; i < s->n_p; i++) v[i] *= factor[i];
  }
}

/* The head's parameters that every token uses. */
static void load_parameters(const Scan *s, Work *w, int64_t h) {
  const SsdScan *p = s->p;
  bool per_channel = p->D->dim[0] != s->n_h;
  for (int64_t i = 0; i < s->n_p; i++) w->D[i] = ((const real *)p->D->data)[per_channel ? h * s->n_p + i : h];
  if (!p->B_norm) return;
  copy(w->B_norm, row_load(p->B_norm, 0, s->n_n, w->row), s->n_n);
  copy(w->C_norm, row_load(p->C_norm, 0, s->n_n, w->row), s->n_n);
}

/* to = alpha from + weight sum_r v_r k_r^T, on ROWS rows of the state; v already at the first of them. */
static inline void state_step(const Scan *s, real *to, const real *from, real alpha, real weight, const real *v,
                              const real *k) {
  int64_t n = s->n_cols;
  for (int64_t j = 0; j < n; j += LANES) {
    Lanes row[ROWS];
    for (int i = 0; i < ROWS; i++) row[i] = alpha * *lanes_of(from + i * n + j);
    for (int64_t r = 0; r < s->n_r; r++)
      for (int i = 0; i < ROWS; i++) row[i] += weight * v[r * s->n_rows + i] * *lanes_of(k + r * n + j);
    for (int i = 0; i < ROWS; i++) *lanes_at(to + i * n + j) = row[i];
  }
}

/* k_in of one head, (R, cols) from (R, H, N), and v_in by ranks. */
static void load_carried_input(const Scan *s, int64_t seq, int64_t h, real *k, real *v) {
  zero(k, s->n_r * s->n_cols);
  for (int64_t r = 0; r < s->n_r; r++)
    load_block(k + r * s->n_cols, s->p->k_in, (seq * s->n_r + r) * s->n_h + h, s->n_n);
  ranks_of(s, real_block(s->p->v_in, seq * s->n_h + h, s->n_p), h, v);
}

/* ---- forward ---- */

static void forward_head(const Scan *s, Work *w, int64_t seq, int64_t h) {
  const SsdScan *p = s->p;
  int64_t n_p = s->n_p, n_cols = s->n_cols, n_r = s->n_r, start = s->starts[seq], end = s->starts[seq + 1];
  load_parameters(s, w, h);
  load_state(s, w->state, p->ssm_in, seq * s->n_h + h);
  load_block(w->theta, p->angle_in, seq * s->n_h + h, s->n_s);
  if (has_carried_input(p)) {
    load_carried_input(s, seq, h, w->k, w->v);
    for (int64_t i = 0; i < n_p; i += ROWS)
      state_step(s, w->state + i * n_cols, w->state + i * n_cols, 1, delta_before(p, start, h), w->v + i, w->k);
  }
  Tensor x = cols_from(p->x, h * n_p);
  int64_t chunk = start / s->n_q + seq;
  for (int64_t t = start; t < end; t++) {
    if (p->chunk_states && (t - start) % s->n_q == 0) store_state(s, p->chunk_states, chunk++ * s->n_h + h, w->state);
    Weights weights = weights_at(p, t, h, t + 1 == end);
    prepare_token(s, w, t, h, 0);
    ranks_of(s, row_load(&x, t, n_p, w->row), h, w->v);
    for (int64_t i = 0; i < n_p; i += ROWS) {
      real *state = w->state + i * n_cols;
      for (int64_t r = 0; r < n_r; r++) rows_dot(state, w->q + r * n_cols, n_cols, w->y + r * s->n_rows + i);
      state_step(s, state, state, weights.alpha, weights.gamma + weights.delta, w->v + i, w->k);
    }
    for (int64_t r = 0; r < n_r; r++) {
      real *y = w->y + r * s->n_rows;
      const real *v = w->v + r * s->n_rows;
      for (int64_t i = 0; i < n_p; i++) y[i] = weights.alpha * y[i] + w->D[i] * v[i];
      for (int64_t j = 0; j < n_r; j++)
        add_scaled(y, weights.gamma * dot(w->q + r * n_cols, w->k + j * n_cols, n_cols), w->v + j * s->n_rows, n_p);
      Tensor own = cols_from(p->y, (r * s->n_h + h) * n_p);
      row_store(&own, t, n_p, y);
    }
  }
  store_state(s, p->ssm_out, seq * s->n_h + h, w->state);
  store_block(p->angle_out, seq * s->n_h + h, w->theta, s->n_s);
  store_block(p->v_out, seq * s->n_h + h, row_load(&x, end - 1, n_p, w->row), n_p);
  for (int64_t r = 0; r < n_r; r++) store_block(p->k_out, (seq * n_r + r) * s->n_h + h, w->k + r * n_cols, s->n_n);
}

KERNEL_FWD(ssd_scan, SsdScan) {
  Carver c = {.block = p->scratch};
  Scan s = walk_make(p, false, &c);
  scan_check_lengths(&s);
  scan_turn_fill(&s);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < s.n_seq * s.n_h; task++) {
    Work w = work_of_thread(&s, false);
    forward_head(&s, &w, task / s.n_h, task % s.n_h);
  }
}

/* ---- backward ---- */

/* Where one head's gradients go. */
typedef struct HeadGradient {
  real *dB, *dC;                          /* (T, R*G*N), already at the group's columns */
  real *dturn;                            /* (T, S) */
  real *dD, *dB_bias, *dC_bias, *dmimo_x; /* sums over the sequence */
  Tensor x, dx;                           /* the head's columns */
} HeadGradient;

/* dk (R, cols) back through rotation, bias and the sum over heads; dtheta gets the cross products. */
static void prepare_backward(const Scan *s, const real *k, real *dk, const real *cosine, const real *sine, real *dtheta,
                             real *dbias, real *dB) {
  for (int64_t r = 0; r < s->n_r; r++, k += s->n_cols, dk += s->n_cols) {
    for (int64_t i = 0; i < s->n_s; i++) {
      Pair at = pair_at(s->p, i);
      real first = dk[at.first], second = dk[at.second];
      dtheta[i] += second * k[at.first] - first * k[at.second];
      dk[at.first] = first * cosine[i] + second * sine[i];
      dk[at.second] = second * cosine[i] - first * sine[i];
    }
    add_scaled(dbias + r * s->n_n, 1, dk, s->n_n);
    add_scaled(dB + r * s->n_g * s->n_n, 1, dk, s->n_n);
  }
}

/* dv (R, rows) of one x (P): adds to the parameter's gradient and writes dx. */
static void ranks_backward(const Scan *s, const real *x, const real *dv, int64_t h, real *dx, real *dmimo_x) {
  const real *mimo = real_block(s->p->mimo_x, h, s->n_r * s->n_p);
  zero(dx, s->n_p);
  for (int64_t r = 0; r < s->n_r; r++)
    for (int64_t i = 0; i < s->n_p; i++) {
      real d = dv[r * s->n_rows + i];
      dx[i] += mimo ? d * mimo[r * s->n_p + i] : d;
      dmimo_x[r * s->n_p + i] += x[i] * d;
    }
}

/* E k_j into dv_j, E^T v_j into dk_j, S^T dy_r into dq_r; E steps back to E_{t-1}. Returns <E, S>. */
static real state_backward(const Scan *s, Work *w, const real *S, const real *k, const real *q, real alpha) {
  int64_t n_cols = s->n_cols, n_r = s->n_r;
  zero(w->dk, n_r * n_cols);
  zero(w->dq, n_r * n_cols);
  real sum = 0;
  for (int64_t i = 0; i < s->n_rows; i += ROWS) {
    real *E = w->dstate + i * n_cols;
    const real *state = S + i * n_cols;
    sum += dot(E, state, ROWS * n_cols);
    for (int64_t r = 0; r < n_r; r++) {
      int64_t at = r * s->n_rows + i;
      rows_dot(E, k + r * n_cols, n_cols, w->dv + at);
      rows_sum(w->dk + r * n_cols, w->v + at, E, n_cols);
      rows_sum(w->dq + r * n_cols, w->y + at, state, n_cols);
    }
    state_step(s, E, E, alpha, alpha, w->y + i, q);
  }
  return sum;
}

/* Token t, in slot i of the held ones. */
static void backward_token(const Scan *s, Work *w, HeadGradient *to, int64_t seq, int64_t t, int64_t h, int64_t i) {
  const SsdScan *p = s->p;
  int64_t n_p = s->n_p, n_rows = s->n_rows, n_n = s->n_n, n_cols = s->n_cols, n_r = s->n_r;
  bool last = t + 1 == s->starts[seq + 1];
  const real *S = w->state + i * n_rows * n_cols, *k = w->k + i * n_r * n_cols, *q = w->q + i * n_r * n_cols;
  Weights weights = weights_at(p, t, h, last);
  real gamma = weights.gamma, both = gamma + weights.delta;

  const real *x = row_load(&to->x, t, n_p, w->row);
  ranks_of(s, x, h, w->v);
  zero(w->y, n_r * n_rows);
  for (int64_t r = 0; r < n_r && p->dy; r++) {
    Tensor own = cols_from(p->dy, (r * s->n_h + h) * n_p);
    copy(w->y + r * n_rows, row_load(&own, t, n_p, w->dx), n_p);
  }
  real da = state_backward(s, w, S, k, q, weights.alpha);

  real ddelta = 0, dcross = 0;
  for (int64_t r = 0; r < n_r; r++) {
    ddelta += dot(w->v + r * n_rows, w->dv + r * n_rows, n_p);
    da += dot(q + r * n_cols, w->dq + r * n_cols, n_cols);
    for (int64_t j = 0; j < n_r; j++) {
      real qk = w->qk[r * n_r + j] = dot(q + r * n_cols, k + j * n_cols, n_cols);
      real vy = w->vy[r * n_r + j] = dot(w->v + j * n_rows, w->y + r * n_rows, n_p);
      dcross += qk * vy;
    }
  }
  for (int64_t r = 0; r < n_r; r++) {
    real *dv = w->dv + r * n_rows, *dk = w->dk + r * n_cols, *dq = w->dq + r * n_cols;
    const real *dy = w->y + r * n_rows, *v = w->v + r * n_rows;
    for (int64_t c = 0; c < n_p; c++) {
      dv[c] = both * dv[c] + w->D[c] * dy[c];
      to->dD[c] += v[c] * dy[c];
    }
    for (int64_t n = 0; n < n_cols; n++) dk[n] *= both, dq[n] *= weights.alpha;
    for (int64_t j = 0; j < n_r; j++) {
      add_scaled(dv, gamma * w->qk[j * n_r + r], w->y + j * n_rows, n_p);
      add_scaled(dk, gamma * w->vy[j * n_r + r], q + j * n_cols, n_cols);
      add_scaled(dq, gamma * w->vy[r * n_r + j], k + j * n_cols, n_cols);
    }
    if (last && p->dk_out) add_scaled(dk, 1, real_block(p->dk_out, (seq * n_r + r) * s->n_h + h, n_n), n_n);
  }

  real dgamma = ddelta + dcross, dt = real_row(p->dt, t)[h], ddt = dgamma;
  if (p->lambda) {
    ddt = real_row(p->lambda, t)[h] * dgamma;
    add_scalar(p->dlambda, t, h, dt * dgamma);
    if (!last) delta_backward(p, t + 1, h, ddelta);
  }
  const real *cosine = w->cosine + i * s->n_s, *sine = w->sine + i * s->n_s;
  prepare_backward(s, k, w->dk, cosine, sine, w->dtheta, to->dB_bias, to->dB + t * s->shared_width);
  prepare_backward(s, q, w->dq, cosine, sine, w->dtheta, to->dC_bias, to->dC + t * s->shared_width);
  ddt += dot(w->dtheta, s->turn + t * s->n_s, s->n_s);
  add_scaled(to->dturn + t * s->n_s, dt, w->dtheta, s->n_s);
  add_scalar(p->ddt, t, h, ddt);
  add_scalar(p->da, t, h, weights.alpha * da);

  ranks_backward(s, x, w->dv, h, w->dx, to->dmimo_x);
  if (last && p->dv_out) add_scaled(w->dx, 1, real_block(p->dv_out, seq * s->n_h + h, n_p), n_p);
  if (p->dx) row_add(&to->dx, t, n_p, w->dx);
}

/* The states, k, q and rotations of the tokens [first, end) of one chunk. */
static void recompute_chunk(const Scan *s, Work *w, HeadGradient *to, int64_t h, int64_t chunk_row, int64_t first,
                            int64_t end) {
  int64_t size = s->n_rows * s->n_cols;
  load_state(s, w->state, s->p->chunk_states, chunk_row * s->n_h + h);
  for (int64_t t = first, i = 0; t < end; t++, i++) {
    prepare_token(s, w, t, h, i);
    if (t + 1 == end) break;
    Weights weights = weights_at(s->p, t, h, false);
    ranks_of(s, row_load(&to->x, t, s->n_p, w->row), h, w->v);
    for (int64_t c = 0; c < s->n_rows; c += ROWS) {
      real *from = w->state + i * size + c * s->n_cols;
      state_step(s, from + size, from, weights.alpha, weights.gamma + weights.delta, w->v + c,
                 w->k + i * s->n_r * s->n_cols);
    }
  }
}

/* The gradient E of S_{-1} = h_in + delta sum_r v_in,r k_in,r^T to the carried-in state. */
static void backward_carried(const Scan *s, Work *w, HeadGradient *to, int64_t seq, int64_t h) {
  const SsdScan *p = s->p;
  int64_t n_p = s->n_p, n_cols = s->n_cols, n_r = s->n_r, start = s->starts[seq];
  add_state(s, p->dssm_in, seq * s->n_h + h, w->dstate);
  add_block(p->dangle_in, seq * s->n_h + h, w->dtheta, s->n_s);
  if (!has_carried_input(p)) return;
  load_carried_input(s, seq, h, w->k, w->v);
  real delta = delta_before(p, start, h), ddelta = 0;
  for (int64_t r = 0; r < n_r; r++) {
    real *dv = w->dv + r * s->n_rows, *dk = w->dk + r * n_cols;
    const real *v = w->v + r * s->n_rows;
    zero(dk, n_cols);
    for (int64_t i = 0; i < n_p; i += ROWS) {
      rows_dot(w->dstate + i * n_cols, w->k + r * n_cols, n_cols, dv + i);
      rows_sum(dk, v + i, w->dstate + i * n_cols, n_cols);
    }
    ddelta += dot(v, dv, n_p);
    for (int64_t i = 0; i < n_p; i++) dv[i] *= delta;
    for (int64_t n = 0; n < n_cols; n++) dk[n] *= delta;
    add_block(p->dk_in, (seq * n_r + r) * s->n_h + h, dk, s->n_n);
  }
  delta_backward(p, start, h, ddelta);
  ranks_backward(s, real_block(p->v_in, seq * s->n_h + h, n_p), w->dv, h, w->dx, to->dmimo_x);
  add_block(p->dv_in, seq * s->n_h + h, w->dx, n_p);
}

static void backward_head(const Scan *s, Work *w, HeadGradient *to, int64_t seq, int64_t h) {
  const SsdScan *p = s->p;
  int64_t start = s->starts[seq], end = s->starts[seq + 1], n_chunks = ceil_div(end - start, s->n_q);
  load_parameters(s, w, h);
  load_block(w->theta, p->angle_in, seq * s->n_h + h, s->n_s);
  for (int64_t t = start; t < end; t++) {
    if ((t - start) % s->n_q == 0) copy(w->theta_starts + (t - start) / s->n_q * s->n_s, w->theta, s->n_s);
    theta_advance(s, t, h, w->theta);
  }
  load_state(s, w->dstate, p->dssm_out, seq * s->n_h + h);
  load_block(w->dtheta, p->dangle_out, seq * s->n_h + h, s->n_s);
  for (int64_t c = n_chunks - 1; c >= 0; c--) {
    int64_t first = start + c * s->n_q, chunk_end = min_i64(first + s->n_q, end);
    copy(w->theta, w->theta_starts + c * s->n_s, s->n_s);
    recompute_chunk(s, w, to, h, start / s->n_q + seq + c, first, chunk_end);
    for (int64_t t = chunk_end - 1; t >= first; t--) backward_token(s, w, to, seq, t, h, t - first);
  }
  backward_carried(s, w, to, seq, h);
}

/* One task: the heads of part `part` of group `g` in one sequence, in order. */
static void backward_part(const Scan *s, Work *w, int64_t seq, int64_t g, int64_t part) {
  int64_t start = s->starts[seq], n_t = s->starts[seq + 1] - start, slab = part * s->n_t * s->shared_width + g * s->n_n;
  HeadGradient to = {
      .dB = s->dB + slab, .dC = s->dC + slab, .dturn = s->dturn + (g * s->n_parts + part) * s->n_t * s->n_s};
  zero(to.dturn + start * s->n_s, n_t * s->n_s);
  for (int64_t t = start; t < start + n_t; t++)
    for (int64_t r = 0; r < s->n_r; r++) {
      zero(to.dB + t * s->shared_width + r * s->n_g * s->n_n, s->n_n);
      zero(to.dC + t * s->shared_width + r * s->n_g * s->n_n, s->n_n);
    }
  int64_t first = part_first_head(s, g, part), end = part_first_head(s, g, part + 1);
  for (int64_t h = first; h < end; h++) {
    to.dD = s->dparam + (seq * s->n_h + h) * s->param_width;
    to.dB_bias = to.dD + s->n_p;
    to.dC_bias = to.dB_bias + s->n_r * s->n_n;
    to.dmimo_x = to.dC_bias + s->n_r * s->n_n;
    zero(to.dD, s->param_width);
    to.x = cols_from(s->p->x, h * s->n_p);
    if (s->p->dx) to.dx = cols_from(s->p->dx, h * s->n_p);
    backward_head(s, w, &to, seq, h);
  }
}

KERNEL_BWD(ssd_scan, SsdScan) {
  Carver c = {.block = p->scratch};
  Scan s = walk_make(p, true, &c);
  CHECK(p->chunk_states, "the forward pass saved no chunk_states");
  scan_turn_fill(&s);
  zero(s.dnorm, SUM_BLOCKS * 2 * s.n_n);
  for (int64_t t = 0; t < s.n_t; t++) s.slab_token[t] = t;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < s.n_seq * s.n_g * s.n_parts; task++) {
    Work w = work_of_thread(&s, true);
    int64_t within = task % (s.n_g * s.n_parts);
    backward_part(&s, &w, task / (s.n_g * s.n_parts), within / s.n_parts, within % s.n_parts);
  }
  scan_backward_shared(&s, s.n_t);
  scan_backward_parameters(&s, s.n_sums);
}

#endif
