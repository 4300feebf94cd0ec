/* gated_norm: the gate at a mixer's end (spec 2.1 step 5, 2.2 step 6). Per token and rank, with y the rank's input, mz and
 * mo its rows of mimo_z and mimo_o (absent: 1) and g = silu(z mz):
 *
 *   u = y (norm before) or y g (after, none);  v = RMSNorm_group(u) w, or u (none);  o = v g (before) or v (after, none)
 *   out = sum over ranks of o mo
 *
 * Backward recomputes all of it and goes back the same way: do = dout mo; dv; du (tensor/cpu/norm.h); dy and dg; and
 * through g:  dz += dg silu'(z mz) mz,  dmz += dg silu'(z mz) z. */
#include "tensor/cpu/norm.h"

/* What one block of rows works in. */
typedef struct Work {
  /* (E) */
  real *w;                                 /* the weight */
  real *x_buffer, *z_buffer, *dout_buffer; /* for row_load */
  real *g, *u, *v;                         /* a rank's */
  real *dv, *du, *dg;                      /* a rank's */
  real *sum;                               /* over ranks: out, or dz */
  real *dw;                                /* the block's share of dweight */
  /* (R, E): mimo_z and mimo_o, and the block's shares of their gradients */
  real *mz, *mo, *dmz, *dmo;
} Work;
enum { WORK_NARROW = 12, WORK_WIDE = 4 };

static int64_t width_of(const GatedNorm *p) { return (int64_t)p->n_h * p->n_p; }
static int64_t work_reals(const GatedNorm *p) { return width_of(p) * (WORK_NARROW + WORK_WIDE * p->n_r); }

static Work work_of_block(const GatedNorm *p, int64_t block) {
  real *at = (real *)p->scratch + block * work_reals(p);
  Work k;
  real **const narrow[WORK_NARROW] = {&k.w, &k.x_buffer, &k.z_buffer, &k.dout_buffer, &k.g,   &k.u,
                                      &k.v, &k.dv,       &k.du,       &k.dg,          &k.sum, &k.dw};
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

/* g, u and v of one token and rank. */
static void rank_forward(const GatedNorm *p, const Work *k, const real *restrict mz, const real *restrict z,
                         const real *restrict y) {
  const int64_t width = width_of(p);
  real *restrict g = k->g, *restrict u = k->u;
  for (int64_t i = 0; i < width; i++) g[i] = real_silu(z[i] * mz[i]);
  if (p->norm == GATE_NORM_BEFORE) memcpy(u, y, (size_t)width * sizeof(real));
  else
    for (int64_t i = 0; i < width; i++) u[i] = y[i] * g[i];
  if (p->norm == GATE_NORM_NONE) memcpy(k->v, u, (size_t)width * sizeof(real));
  else
    for (int64_t i = 0; i < width; i += p->group) norm_run(p->group, (real)p->eps, u + i, k->w + i, k->v + i);
}

KERNEL_FWD(gated_norm, GatedNorm) {
  const int64_t n_t = tensor_rows(p->z), n_blocks = sum_blocks(n_t), width = width_of(p);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work k = work_begin(p, b);
    const real *restrict g = k.g, *restrict v = k.v;
    real *restrict out = k.sum;
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      const real *z = row_load(p->z, t, width, k.z_buffer);
      memset(out, 0, (size_t)width * sizeof(real));
      for (int64_t r = 0; r < p->n_r; r++) {
        const Tensor x = cols_from(p->x, r * width);
        const real *restrict mo = k.mo + r * width;
        rank_forward(p, &k, k.mz + r * width, z, row_load(&x, t, width, k.x_buffer));
        if (p->norm == GATE_NORM_BEFORE)
          for (int64_t i = 0; i < width; i++) out[i] += v[i] * g[i] * mo[i];
        else
          for (int64_t i = 0; i < width; i++) out[i] += v[i] * mo[i];
      }
      row_store(p->out, t, width, out);
    }
  }
}

/* One token and rank, after rank_forward: dy into k->du, dg into k->dg; dw and dmo are added to. */
static void rank_backward(const GatedNorm *p, const Work *k, const real *restrict mo, const real *restrict y,
                          const real *restrict dout, real *restrict dmo) {
  const int64_t width = width_of(p);
  const bool before = p->norm == GATE_NORM_BEFORE;
  const real *restrict g = k->g, *restrict v = k->v;
  real *restrict dv = k->dv, *restrict du = k->du, *restrict dg = k->dg;
  if (before)
    for (int64_t i = 0; i < width; i++) {
      dmo[i] += dout[i] * v[i] * g[i];
      dg[i] = dout[i] * mo[i] * v[i];
      dv[i] = dout[i] * mo[i] * g[i];
    }
  else
    for (int64_t i = 0; i < width; i++) {
      dmo[i] += dout[i] * v[i];
      dv[i] = dout[i] * mo[i];
    }
  if (p->norm == GATE_NORM_NONE) memcpy(du, dv, (size_t)width * sizeof(real));
  else
    for (int64_t i = 0; i < width; i += p->group)
      norm_run_backward(p->group, (real)p->eps, k->u + i, k->w + i, dv + i, du + i, k->dw + i);
  if (!before)
    for (int64_t i = 0; i < width; i++) {
      dg[i] = du[i] * y[i];
      du[i] *= g[i];
    }
}

KERNEL_BWD(gated_norm, GatedNorm) {
  const int64_t n_t = tensor_rows(p->z), n_blocks = sum_blocks(n_t), width = width_of(p);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work k = work_begin(p, b);
    memset(k.dw, 0, (size_t)width * sizeof(real));
    memset(k.dmz, 0, (size_t)(p->n_r * width) * sizeof(real));
    memset(k.dmo, 0, (size_t)(p->n_r * width) * sizeof(real));
    for (int64_t t = sum_block_start(n_t, b); t < sum_block_start(n_t, b + 1); t++) {
      const real *restrict z = row_load(p->z, t, width, k.z_buffer), *dout = row_load(p->dout, t, width, k.dout_buffer);
      real *restrict dz = k.sum;
      memset(dz, 0, (size_t)width * sizeof(real));
      for (int64_t r = 0; r < p->n_r; r++) {
        const Tensor x = cols_from(p->x, r * width);
        const real *y = row_load(&x, t, width, k.x_buffer);
        const real *restrict mz = k.mz + r * width, *restrict dg = k.dg;
        real *restrict dmz = k.dmz + r * width;
        rank_forward(p, &k, mz, z, y);
        rank_backward(p, &k, k.mo + r * width, y, dout, k.dmo + r * width);
        for (int64_t i = 0; i < width; i++) {
          const real dzr = dg[i] * real_dsilu(z[i] * mz[i]);
          dz[i] += dzr * mz[i];
          dmz[i] += dzr * z[i];
        }
        if (p->dx) {
          Tensor dx = cols_from(p->dx, r * width);
          row_add(&dx, t, width, k.du);
        }
      }
      if (p->dz) row_add(p->dz, t, width, dz);
    }
  }
  for (int64_t b = 0; b < n_blocks; b++) {
    const Work k = work_of_block(p, b);
    if (p->dweight) row_add(p->dweight, 0, width, k.dw);
    if (p->dmimo_z) add_mimo(p, k.dmz, p->dmimo_z);
    if (p->dmimo_o) add_mimo(p, k.dmo, p->dmimo_o);
  }
}
