/* gated_norm: the gate at a mixer's end (spec 2.1 step 5, 2.2 step 6). Per token and rank, with y the rank's input, mz and
 * mo its rows of mimo_z and mimo_o (absent: 1) and g = silu(z mz):
 *
 *   u = y (norm before) or y g (after, none);  v = RMSNorm_group(u) w, or u (none);  o = v g (before) or v (after, none)
 *   out = sum over ranks of o mo
 *
 * Backward recomputes all of it and goes back the same way. With e = dout mo, the gradient of o:
 *   dv = e g (before) or e;  du = s (dv w - u s^2 mean(dv w u)), s = 1 / rms(u);  dw += dv u s
 *   dy = du (before) or du g;  dg = e v (before) or du y
 *   dz += dg silu'(z mz) mz,  dmz += dg silu'(z mz) z,  dmo += dout o
 * Each norm goes through its group twice: for what the sums are of, and for the result. Without a norm one pass does:
 *   out = sum over ranks of y g mo;  dy = dout mo g,  dg = dout mo y,  dmo += dout y g */
#include "tensor/cpu/lanes.h"

/* What one block of rows works in. */
typedef struct Work {
  /* (E) */
  real *w;                                 /* the weight */
  real *x_buffer, *z_buffer, *dout_buffer; /* for row_load */
  real *u, *g, *dgate;                     /* a rank's u, g and the gradient of z mz */
  real *dy;                                /* a rank's */
  real *sum;                               /* over ranks: out, or dz */
  real *dw;                                /* the block's share of dweight */
  /* (R, E): mimo_z and mimo_o, and the block's shares of their gradients */
  real *mz, *mo, *dmz, *dmo;
} Work;
enum { WORK_NARROW = 10, WORK_WIDE = 4 };

static int64_t width_of(const GatedNorm *p) { return (int64_t)p->n_h * p->n_p; }
static int64_t work_reals(const GatedNorm *p) { return width_of(p) * (WORK_NARROW + WORK_WIDE * p->n_r); }

static Work work_of_block(const GatedNorm *p, int64_t block) {
  real *at = (real *)p->scratch + block * work_reals(p);
  Work k;
  real **const narrow[WORK_NARROW] = {&k.w, &k.x_buffer, &k.z_buffer, &k.dout_buffer, &k.u,
                                      &k.g, &k.dgate,    &k.dy,       &k.sum,         &k.dw};
  real **const wide[WORK_WIDE] = {&k.mz, &k.mo, &k.dmz, &k.dmo};
  for (int i = 0; i < WORK_NARROW; i++, at += width_of(p)) *narrow[i] = at;
  for (int i = 0; i < WORK_WIDE; i++, at += width_of(p) * p->n_r) *wide[i] = at;
  return k;
}

KERNEL_SCRATCH(gated_norm, GatedNorm) {
  (void)backward;
  return (size_t)(sum_blocks(tensor_rows(p->z)) * work_reals(p)) * sizeof(real);
}

/* (H, R, P) to (R, E), as the rows of x lie. */
static void load_mimo(const GatedNorm *p, const Tensor *mimo, real *out) {
  for (int64_t h = 0; h < p->n_h; h++)
    for (int64_t r = 0; r < p->n_r; r++) {
      real *to = out + r * width_of(p) + h * p->n_p;
      const real *from = mimo ? row_load(mimo, h * p->n_r + r, p->n_p, to) : NULL;
      for (int64_t i = 0; i < p->n_p; i++) to[i] = from ? from[i] : 1;
    }
}

/* Adds a block's (R, E) to an (H, R, P). */
static void add_mimo(const GatedNorm *p, const real *from, Tensor *dmimo) {
  for (int64_t h = 0; h < p->n_h; h++)
    for (int64_t r = 0; r < p->n_r; r++) row_add(dmimo, h * p->n_r + r, p->n_p, from + r * width_of(p) + h * p->n_p);
}

static Work work_begin(const GatedNorm *p, int64_t block) {
  Work k = work_of_block(p, block);
  const real *w = p->weight ? row_load(p->weight, 0, width_of(p), k.w) : NULL;
  for (int64_t i = 0; i < width_of(p); i++) k.w[i] = w ? w[i] : 1;
  load_mimo(p, p->mimo_z, k.mz);
  load_mimo(p, p->mimo_o, k.mo);
  return k;
}

/* Rank r of one token without a norm: n channels. */
static void forward_plain(int64_t r, int64_t n, const real *restrict y, const real *restrict z, const real *restrict mz,
                          const real *restrict mo, real *restrict out) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const real o = y[i] * real_silu(z[i] * mz[i]);
    out[i] = r > 0 ? real_fma(o, mo[i], out[i]) : o * mo[i];
  }
}

/* The loops over channels are made once for each place of the norm, and without one for each answer about ranks. */
#define FOR_NORM static inline __attribute__((always_inline))

/* Channels [at, at + n) of one token and rank r: one group. The first rank's out is written, the others' is added. */
FOR_NORM void forward_group(const GatedNorm *p, bool before, const Work *k, int64_t r, int64_t at, int64_t n,
                            const real *restrict y, const real *restrict z, const real *restrict mz,
                            const real *restrict mo) {
  real *restrict u = k->u + at, *restrict g = k->g + at, *restrict out = k->sum + at;
  const real *restrict w = k->w + at;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    g[i] = real_silu(z[i] * mz[i]);
    u[i] = before ? y[i] : y[i] * g[i];
  }
  const real s = 1 / R(sqrt)(dot(u, u, n) / (real)n + (real)p->eps);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const real v = u[i] * s * w[i], o = before ? v * g[i] : v;
    out[i] = r > 0 ? real_fma(o, mo[i], out[i]) : o * mo[i];
  }
}

/* All rows, shared among the threads that come here. */
static void forward_rows(const GatedNorm *p) {
  const int64_t n_t = tensor_rows(p->z), n_blocks = sum_blocks(n_t), width = width_of(p);
  const bool before = p->norm == GATE_NORM_BEFORE;
#pragma omp for schedule(static) nowait
  for (int64_t b = 0; b < n_blocks; b++) {
    Work k = work_begin(p, b);
    real *const sum = k.sum;
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      const real *z = row_load(p->z, t, width, k.z_buffer);
      k.sum = row_out(p->out, t, sum);
      row_prefetch(p->z, t + 1, 0, width);
      row_prefetch(p->x, t + 1, 0, width * p->n_r);
      row_prefetch(p->out, t + 1, 0, width);
      for (int64_t r = 0; r < p->n_r; r++) {
        const Tensor x = cols_from(p->x, r * width);
        const real *y = row_load(&x, t, width, k.x_buffer), *mz = k.mz + r * width, *mo = k.mo + r * width;
        if (p->norm == GATE_NORM_NONE) forward_plain(r, width, y, z, mz, mo, k.sum);
        else
          for (int64_t i = 0; i < width; i += p->group)
            if (before) forward_group(p, true, &k, r, i, p->group, y + i, z + i, mz + i, mo + i);
            else forward_group(p, false, &k, r, i, p->group, y + i, z + i, mz + i, mo + i);
      }
      row_store(p->out, t, width, k.sum);
    }
  }
}

KERNEL_FWD(gated_norm, GatedNorm) {
  if (parallel_pays(tensor_count(p->x))) {
#pragma omp parallel
    forward_rows(p);
  } else {
    forward_rows(p);
  }
}

/* Backward; dy and the first rank's dz are written, all other gradients are added to. */
FOR_NORM void backward_plain(bool mimo, const Work *k, int64_t r, int64_t n, const real *restrict y,
                             const real *restrict z, const real *restrict dout) {
  const real *restrict mz = k->mz + r * n, *restrict mo = k->mo + r * n;
  real *restrict dmz = k->dmz + r * n, *restrict dmo = k->dmo + r * n, *restrict dy = k->dy, *restrict dz = k->sum;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const real gate = z[i] * mz[i], sigmoid = real_sigmoid(gate), g = gate * sigmoid, e = dout[i] * mo[i];
    const real dgate = sigmoid * real_fma(gate, 1 - sigmoid, 1) * (e * y[i]);
    dy[i] = e * g;
    dz[i] = r > 0 ? real_fma(dgate, mz[i], dz[i]) : dgate * mz[i];
    if (mimo) dmz[i] = real_fma(dgate, z[i], dmz[i]);
    if (mimo) dmo[i] = real_fma(dout[i], y[i] * g, dmo[i]);
  }
}

FOR_NORM void backward_group(const GatedNorm *p, bool before, const Work *k, int64_t r, int64_t at, int64_t n,
                             const real *restrict y, const real *restrict z, const real *restrict dout) {
  const int64_t wide_at = r * width_of(p) + at;
  const real *restrict w = k->w + at, *restrict mz = k->mz + wide_at, *restrict mo = k->mo + wide_at;
  real *restrict u = k->u + at, *restrict g = k->g + at, *restrict dgate = k->dgate + at;
  real *restrict dmz = k->dmz + wide_at, *restrict dmo = k->dmo + wide_at;
  real *restrict dy = k->dy + at, *restrict dz = k->sum + at, *restrict dw = k->dw + at;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const real gate = z[i] * mz[i], sigmoid = real_sigmoid(gate), e = dout[i] * mo[i];
    g[i] = gate * sigmoid;
    dgate[i] = sigmoid * real_fma(gate, 1 - sigmoid, 1);
    u[i] = before ? y[i] : y[i] * g[i];
    dy[i] = (before ? e * g[i] : e) * w[i]; /* dv w */
  }
  const real s = 1 / R(sqrt)(dot(u, u, n) / (real)n + (real)p->eps), pull = dot(dy, u, n) / (real)n * s * s;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const real e = dout[i] * mo[i], dv = before ? e * g[i] : e, v = u[i] * s * w[i];
    const real du = s * real_fma(-u[i], pull, dy[i]);
    dgate[i] *= before ? e * v : du * y[i];
    dy[i] = before ? du : du * g[i];
    dz[i] = r > 0 ? real_fma(dgate[i], mz[i], dz[i]) : dgate[i] * mz[i];
    dw[i] = real_fma(dv, u[i] * s, dw[i]);
  }
  if (!p->dmimo_z && !p->dmimo_o) return;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const real v = u[i] * s * w[i];
    dmz[i] = real_fma(dgate[i], z[i], dmz[i]);
    dmo[i] = real_fma(dout[i], before ? v * g[i] : v, dmo[i]);
  }
}

KERNEL_BWD(gated_norm, GatedNorm) {
  const int64_t n_t = tensor_rows(p->z), n_blocks = sum_blocks(n_t), width = width_of(p);
  const bool before = p->norm == GATE_NORM_BEFORE, mimo = p->dmimo_z || p->dmimo_o;
#pragma omp parallel for schedule(static) if (parallel_pays(tensor_count(p->x)))
  for (int64_t b = 0; b < n_blocks; b++) {
    Work k = work_begin(p, b);
    real *const dy = k.dy, *const sum = k.sum;
    memset(k.dw, 0, (size_t)width * sizeof(real));
    memset(k.dmz, 0, (size_t)(p->n_r * width) * sizeof(real));
    memset(k.dmo, 0, (size_t)(p->n_r * width) * sizeof(real));
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      const real *z = row_load(p->z, t, width, k.z_buffer), *dout = row_load(p->dout, t, width, k.dout_buffer);
      row_prefetch(p->z, t + 1, 0, width);
      row_prefetch(p->dout, t + 1, 0, width);
      row_prefetch(p->dx, t + 1, 0, width * p->n_r);
      row_prefetch(p->dz, t + 1, 0, width);
      row_prefetch(p->x, t + 1, 0, width * p->n_r);
      k.sum = row_grad_out(p->dz, t, sum);
      for (int64_t r = 0; r < p->n_r; r++) {
        const Tensor x = cols_from(p->x, r * width);
        Tensor dx = p->dx ? cols_from(p->dx, r * width) : (Tensor){.dtype = REAL_DTYPE};
        const real *y = row_load(&x, t, width, k.x_buffer);
        k.dy = row_grad_out(&dx, t, dy);
        if (p->norm == GATE_NORM_NONE && mimo) backward_plain(true, &k, r, width, y, z, dout);
        else if (p->norm == GATE_NORM_NONE) backward_plain(false, &k, r, width, y, z, dout);
        else
          for (int64_t i = 0; i < width; i += p->group)
            if (before) backward_group(p, true, &k, r, i, p->group, y + i, z + i, dout + i);
            else backward_group(p, false, &k, r, i, p->group, y + i, z + i, dout + i);
        if (p->dx) row_add(&dx, t, width, k.dy);
      }
      if (p->dz) row_add(p->dz, t, width, k.sum);
    }
  }
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work k = work_of_block(p, b);
    if (p->dweight) row_add(p->dweight, 0, width, k.dw);
    if (p->dmimo_z) add_mimo(p, k.dmz, p->dmimo_z);
    if (p->dmimo_o) add_mimo(p, k.dmo, p->dmimo_o);
  }
}
