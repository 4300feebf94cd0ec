/* ssm_step: one token of each sequence through the middle of a Mamba mixer, its state updated in place: the definition of the
 * operation (SsmStep in tensor/kernels.h), in the same terms as conv1d, ssm_dt, ssd_scan and gated_norm.
 *
 *   h' = exp(a) (h + (1-lambda) dt sum_r v_before,r k_before,r^T) + lambda dt sum_r v_r k_r^T;  y_r = h' q_r + D v_r
 * A row of h is read and written once: all that is added to it and all that is read of it goes along. dt and the gate are
 * those operations' own kernels. A task is one head of one sequence,
 * in Mamba-2 with the convolution of its own channels. */
#include "tensor/cpu/ssd_scan.h"

/* Rows of a state that go through together: they share what is loaded of k and q, and their sums overlap. A state is asked for
 * this far ahead: the next head's lies behind it. */
enum { ROWS = 4, AHEAD_BYTES = 4096 };

typedef struct Step {
  const SsmStep *p;
  int64_t n_seq, n_h, n_p, n_n, n_g, n_r, n_s, n_x, n_bc;
  bool mamba3;
  real *mixed;           /* (n_seq, H P + 2 R G N): [x | B | C], behind the convolution or as given */
  real *dt, *a, *lambda; /* (n_seq, H) */
  real *turn;            /* (n_seq, S): pi tanh(angle) */
  real *normed;          /* (n_seq, 2, R G N): B and C behind their norm */
  real *y;               /* (n_seq, R H P) */
  real *head;            /* (n_seq H, head_reals): a task's own */
  int64_t head_reals;
  void *for_dt, *for_gate;
} Step;

static SsmDt dt_part(const Step *s, Tensor out[3]) {
  SsmDt dt = s->p->dt;
  const int64_t dim[] = {s->n_seq, s->n_h};
  real *const memory[] = {s->dt, s->a, s->lambda};
  for (int i = 0; i < 3; i++) out[i] = tensor_over(memory[i], REAL_DTYPE, 2, dim);
  dt.dt = &out[0], dt.a = &out[1], dt.lambda = s->mamba3 ? &out[2] : NULL, dt.scratch = s->for_dt;
  return dt;
}

static GatedNorm gate_part(const Step *s, Tensor *y) {
  GatedNorm gate = s->p->gate;
  *y = tensor_over(s->y, REAL_DTYPE, 2, (const int64_t[]){s->n_seq, s->n_r * s->n_x});
  gate.x = y, gate.scratch = s->for_gate;
  return gate;
}

static Step step_make(const SsmStep *p, Carver *c) {
  const SsdScan *scan = &p->scan;
  Step s = {.p = p, .n_seq = p->dt.dt_raw->dim[0], .n_h = scan->n_h, .n_p = scan->n_p, .n_n = scan->n_n};
  s.n_g = scan->n_g, s.n_r = scan->n_r, s.n_s = scan->n_s, s.mamba3 = p->dt.trap != NULL;
  s.n_x = s.n_h * s.n_p, s.n_bc = s.n_r * s.n_g * s.n_n;
  s.head_reals =
      3 * s.n_r * (s.n_n + s.n_p) + 2 * s.n_s; /* k (2 R, N), q (R, N), c (2 R, P), h q (R, P), cosine, sine */
  s.mixed = carve(c, s.n_seq * (s.n_x + 2 * s.n_bc));
  s.dt = carve(c, s.n_seq * s.n_h), s.a = carve(c, s.n_seq * s.n_h), s.lambda = carve(c, s.n_seq * s.n_h);
  s.turn = carve(c, s.n_seq * s.n_s);
  s.normed = carve(c, s.n_seq * 2 * s.n_bc);
  s.y = carve(c, s.n_seq * s.n_r * s.n_x);
  s.head = carve(c, s.n_seq * s.n_h * s.head_reals);
  Tensor out[3], y;
  const SsmDt dt = dt_part(&s, out);
  const GatedNorm gate = gate_part(&s, &y);
  s.for_dt = carve(c, (int64_t)(CPU_SYMBOL(ssm_dt_scratch_cpu)(&dt, false) / sizeof(real)));
  s.for_gate = carve(c, (int64_t)(CPU_SYMBOL(gated_norm_scratch_cpu)(&gate, false) / sizeof(real)));
  return s;
}

KERNEL_SCRATCH(ssm_step, SsmStep) {
  (void)backward;
  Carver c = {0};
  step_make(p, &c);
  return (size_t)c.used * sizeof(real);
}

/* ---- what heads share ---- */

/* The convolution of channels [0, n): the window moves on by one. */
static inline void convolve(int64_t n, int64_t n_w, const real *restrict w, const real *restrict bias,
                            real *restrict window, real *restrict x) {
  for (int64_t c = 0; c < n; c++) {
    real *before = window + c * (n_w - 1), sum = bias ? bias[c] : 0;
    for (int64_t j = 0; j < n_w - 1; j++) sum = real_fma(w[c * n_w + j], before[j], sum);
    sum = real_fma(w[c * n_w + n_w - 1], x[c], sum);
    for (int64_t j = 0; j + 2 < n_w; j++) before[j] = before[j + 1];
    if (n_w > 1) before[n_w - 2] = x[c];
    x[c] = sum;
  }
}

/* Parameters as reals, which their storage may not be. */
static const real *as_reals(const Tensor *t, int64_t n, real *buffer) {
  if (!t) return NULL;
  Tensor flat = tensor_over(t->data, t->dtype, 1, &n);
  return row_load(&flat, 0, n, buffer);
}

/* Mamba-2: channels [first, end) of a sequence's token. */
static void mix_channels(const Step *s, int64_t seq, int64_t first, int64_t end) {
  const Conv1d *conv = &s->p->conv;
  const int64_t n_c = s->n_x + 2 * s->n_bc, n_w = conv->w->dim[2];
  enum { RUN = 256, MOST_TAPS = 64 };
  CHECK(n_w <= MOST_TAPS, "%lld taps", (long long)n_w);
  for (int64_t c = first; c < end; c += RUN) {
    const int64_t n = min_i64(RUN, end - c);
    real taps[RUN * MOST_TAPS], biases[RUN], *x = s->mixed + seq * n_c + c;
    const Tensor in = cols_from(conv->x, c), w_at = cols_from(conv->w, c * n_w);
    const Tensor bias_at = conv->bias ? cols_from(conv->bias, c) : (Tensor){0};
    const real *row = row_load(&in, seq, n, x), *w = as_reals(&w_at, n * n_w, taps);
    const real *bias = conv->bias ? as_reals(&bias_at, n, biases) : NULL;
    real *window = conv->window_in ? (real *)conv->window_in->data + (seq * n_c + c) * (n_w - 1) : NULL;
    if (row != x) copy(x, row, n);
    if (n_w == 4) convolve(n, 4, w, bias, window, x);
    else convolve(n, n_w, w, bias, window, x);
    for (int64_t i = 0; i < n; i++) x[i] = real_silu(x[i]);
  }
}

/* Mamba-3: x, B and C of the projection; B and C through their norm; the turn. */
static void load_token(const Step *s, int64_t seq) {
  const SsdScan *p = &s->p->scan;
  real *mixed = s->mixed + seq * (s->n_x + 2 * s->n_bc), *turn = s->turn + seq * s->n_s, weights[4096];
  const struct {
    const Tensor *from;
    int64_t n;
    const Tensor *norm;
  } part[] = {{p->x, s->n_x, NULL}, {p->B, s->n_bc, p->B_norm}, {p->C, s->n_bc, p->C_norm}};
  real *normed = s->normed + seq * 2 * s->n_bc;
  CHECK(s->n_n <= 4096, "d_state %lld", (long long)s->n_n);
  for (int i = 0; i < 3; i++) {
    const real *row = row_load(part[i].from, seq, part[i].n, mixed);
    if (row != mixed) copy(mixed, row, part[i].n);
    const real *weight = part[i].norm ? row_load(part[i].norm, 0, s->n_n, weights) : NULL;
    for (int64_t at = 0; weight && at < s->n_bc; at += s->n_n, normed += s->n_n) {
      const real *in = mixed + at, scale = 1 / R(sqrt)(dot(in, in, s->n_n) / (real)s->n_n + (real)p->norm_eps);
      for (int64_t n = 0; n < s->n_n; n++) normed[n] = in[n] * scale * weight[n];
    }
    mixed += part[i].n;
  }
  const real *angle = s->n_s > 0 ? row_load(p->angle, seq, s->n_s, turn) : NULL;
  for (int64_t i = 0; i < s->n_s; i++) turn[i] = PI * real_tanh(angle[i]);
}

/* ---- a head ---- */

/* n_rows rows of a state: h = alpha h + sum over m of c_m k_m, out_r = h . q_r. c and out are (n_m, P) and (n_r, P) from
 * their first row on; k and q (n_m, N), (n_r, N). */
static inline void update_rows(int64_t n_rows, int64_t n_n, int64_t n_p, int n_m, int n_r, real alpha, const real *c,
                               const real *k, const real *q, real *h, real *out) {
  int64_t j = 0;
  Lanes sum[ROWS][4] = {{{0}}};
  if (n_r <= 4)
    for (; j + LANES <= n_n; j += LANES)
      for (int64_t i = 0; i < n_rows; i++) {
        __builtin_prefetch((const char *)(h + i * n_n + j) + AHEAD_BYTES, 1);
        Lanes row = alpha * *lanes_of(h + i * n_n + j);
        for (int m = 0; m < n_m; m++) lanes_add_scaled(&row, c[m * n_p + i], lanes_of(k + m * n_n + j));
        *lanes_at(h + i * n_n + j) = row;
        for (int r = 0; r < n_r; r++) lanes_add_product(&sum[i][r], &row, lanes_of(q + r * n_n + j));
      }
  for (int64_t i = 0; i < n_rows; i++)
    for (int r = 0; r < n_r; r++) out[r * n_p + i] = r < 4 ? lanes_sum(&sum[i][r]) : 0;
  for (; j < n_n; j++)
    for (int64_t i = 0; i < n_rows; i++) {
      real *at = h + i * n_n + j, value = alpha * *at;
      for (int m = 0; m < n_m; m++) value = real_fma(c[m * n_p + i], k[m * n_n + j], value);
      *at = value;
      for (int r = 0; r < n_r; r++) out[r * n_p + i] = real_fma(value, q[r * n_n + j], out[r * n_p + i]);
    }
}

static void update_state(const Step *s, int n_m, real alpha, const real *c, const real *k, const real *q, real *h,
                         real *out) {
  const int64_t n_n = s->n_n, n_p = s->n_p;
  const int n_r = (int)s->n_r;
  for (int64_t row = 0; row < n_p; row += ROWS) {
    const int64_t n = min_i64(ROWS, n_p - row);
    real *at = h + row * n_n;
    if (n == ROWS && n_m == 1 && n_r == 1) update_rows(ROWS, n_n, n_p, 1, 1, alpha, c + row, k, q, at, out + row);
    else if (n == ROWS && n_m == 2 && n_r == 1) update_rows(ROWS, n_n, n_p, 2, 1, alpha, c + row, k, q, at, out + row);
    else update_rows(n, n_n, n_p, n_m, n_r, alpha, c + row, k, q, at, out + row);
  }
}

/* k or q of a head: bias and rotation. */
static void bias_and_turn(const Step *s, int64_t h, const real *from, const Tensor *bias, const real *cosine,
                          const real *sine, real *to) {
  const int64_t g = h / (s->n_h / s->n_g), n_n = s->n_n;
  for (int64_t r = 0; r < s->n_r; r++) {
    const real *in = from + (r * s->n_g + g) * n_n, *b = real_block(bias, h * s->n_r + r, n_n);
    real *out = to + r * n_n;
    for (int64_t n = 0; n < n_n; n++) out[n] = in[n] + b[n];
    for (int64_t i = 0; i < s->n_s; i++) {
      const Pair at = pair_at(&s->p->scan, i);
      const real first = out[at.first], second = out[at.second];
      out[at.first] = first * cosine[i] - second * sine[i];
      out[at.second] = first * sine[i] + second * cosine[i];
    }
  }
}

/* What is added to the state, as pairs of k (2 R, N) and c (2 R, P): this token's first, then the one's before. v_in and
 * k_in become this token's. */
static void mamba3_pairs(const Step *s, int64_t seq, int64_t h, real alpha, real *k, real *c, real *q, real *turned) {
  const SsdScan *p = &s->p->scan;
  const int64_t at = seq * s->n_h + h, n_r = s->n_r, n_p = s->n_p, n_n = s->n_n;
  const real dt = s->dt[at], lambda = s->lambda[at], *turn = s->turn + seq * s->n_s;
  const real *normed = s->normed + seq * 2 * s->n_bc, *x = s->mixed + seq * (s->n_x + 2 * s->n_bc) + h * n_p;
  real *cosine = turned, *sine = turned + s->n_s, *theta = real_block(p->angle_in, at, s->n_s);
  for (int64_t i = 0; i < s->n_s; i++) {
    const double moved = (double)theta[i] + (double)turn[i] * (double)dt, whole = 6.283185307179586476925;
    theta[i] = (real)(moved - whole * floor(moved / whole));
    real_sincos(theta[i], &sine[i], &cosine[i]);
  }
  bias_and_turn(s, h, normed, p->B_bias, cosine, sine, k);
  bias_and_turn(s, h, normed + s->n_bc, p->C_bias, cosine, sine, q);
  real *v_before = real_block(p->v_in, at, n_p);
  for (int64_t r = 0; r < n_r; r++) {
    const real *mimo = real_block(p->mimo_x, h * n_r + r, n_p);
    real *k_before = real_block(p->k_in, (seq * n_r + r) * s->n_h + h, n_n);
    for (int64_t i = 0; i < n_p; i++) {
      c[r * n_p + i] = lambda * dt * (mimo ? x[i] * mimo[i] : x[i]);
      c[(n_r + r) * n_p + i] = alpha * (1 - lambda) * dt * (mimo ? v_before[i] * mimo[i] : v_before[i]);
    }
    copy(k + (n_r + r) * n_n, k_before, n_n);
    copy(k_before, k + r * n_n, n_n);
  }
  copy(v_before, x, n_p);
}

static void step_head(const Step *s, int64_t seq, int64_t h) {
  const SsdScan *p = &s->p->scan;
  const int64_t at = seq * s->n_h + h, n_p = s->n_p, n_n = s->n_n, n_r = s->n_r, g = h / (s->n_h / s->n_g);
  const real alpha = real_exp(s->a[at]), *row = s->mixed + seq * (s->n_x + 2 * s->n_bc), *x = row + h * n_p;
  real *k = s->head + at * s->head_reals, *q = k + 2 * n_r * n_n, *c = q + n_r * n_n, *out = c + 2 * n_r * n_p;
  real *state = real_block(p->ssm_in, at, n_p * n_n);
  if (s->mamba3) {
    mamba3_pairs(s, seq, h, alpha, k, c, q, out + n_r * n_p);
    update_state(s, (int)(2 * n_r), alpha, c, k, q, state, out);
  } else {
    mix_channels(s, seq, h * n_p, (h + 1) * n_p);
    for (int64_t i = 0; i < n_p; i++) c[i] = s->dt[at] * x[i];
    update_state(s, 1, alpha, c, row + s->n_x + g * n_n, row + s->n_x + s->n_bc + g * n_n, state, out);
  }
  const real *D = p->D->data;
  const bool per_channel = p->D->dim[0] != s->n_h;
  for (int64_t r = 0; r < n_r; r++) {
    const real *mimo = real_block(p->mimo_x, h * n_r + r, n_p);
    real *y = s->y + seq * n_r * s->n_x + r * s->n_x + h * n_p;
    for (int64_t i = 0; i < n_p; i++)
      y[i] = real_fma(per_channel ? D[h * n_p + i] : D[h], mimo ? x[i] * mimo[i] : x[i], out[r * n_p + i]);
  }
}

KERNEL_FWD(ssm_step, SsmStep) {
  Carver c = {.block = p->scratch};
  const Step s = step_make(p, &c);
  Tensor out[3], y;
  const SsmDt dt = dt_part(&s, out);
  CPU_SYMBOL(ssm_dt_fwd_cpu)(&dt);
  for (int64_t seq = 0; seq < s.n_seq; seq++)
    if (s.mamba3) load_token(&s, seq);
    else mix_channels(&s, seq, s.n_x, s.n_x + 2 * s.n_bc);
#pragma omp parallel for collapse(2)                                                                                   \
    schedule(static) if (parallel_pays(2 * tensor_count(p->scan.ssm_in))) /* read and written */
  for (int64_t seq = 0; seq < s.n_seq; seq++)
    for (int64_t h = 0; h < s.n_h; h++) step_head(&s, seq, h);
  const GatedNorm gate = gate_part(&s, &y);
  CPU_SYMBOL(gated_norm_fwd_cpu)(&gate);
}
