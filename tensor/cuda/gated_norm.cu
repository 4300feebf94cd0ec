/* gated_norm: the gate at a mixer's end (spec 2.1 step 5, 2.2 step 6). Per token and rank, with y the rank's input, mz and
 * mo its rows of mimo_z and mimo_o (absent: 1) and g = silu(z mz):
 *
 *   u = y (norm before) or y g (after, none);  v = RMSNorm_group(u) w, or u (none);  o = v g (before) or v (after, none)
 *   out = sum over ranks of o mo
 *
 * Backward recomputes all of it. With e = dout mo, the gradient of o:
 *   dv = e g (before) or e;  du = s (dv w - u s^2 mean(dv w u)), s = 1 / rms(u);  dw += dv u s
 *   dy = du (before) or du g;  dg = e v (before) or du y
 *   dz += dg silu'(z mz) mz,  dmz += dg silu'(z mz) z,  dmo += dout o
 *
 * A block has a group of channels, of one token forward and of a block of tokens backward; a thread always has the same
 * channels of it, so that what it sums over tokens needs no barrier: dw, dmz and dmo stand in the block's row of scratch. */
#include "tensor/cuda/cuda.h"

constexpr int MOST_RANKS = 16;

struct Gate {
  GateNorm norm;
  int n_r, n_p;
  int64_t width, group;
  float eps;
  Rows x, z, weight, mimo_z, mimo_o; /* mimo: rows of P, of head and rank */

  __device__ int64_t mimo_row(int64_t c, int r) const { return c / n_p * n_r + r; }
  __device__ float mz(int64_t c, int r) const { return mimo_z ? mimo_z.get(mimo_row(c, r), c % n_p) : 1; }
  __device__ float mo(int64_t c, int r) const { return mimo_o ? mimo_o.get(mimo_row(c, r), c % n_p) : 1; }
  __device__ float w(int64_t c) const { return weight.get_or(0, c, 1); }
};

static __global__ void forward(Gate k, Rows out) {
  SHARED(float, spare);
  const int64_t t = blockIdx.x, begin = (int64_t)blockIdx.y * k.group, end = begin + k.group;
  const bool before = k.norm == GATE_NORM_BEFORE;
  float s[MOST_RANKS];
  for (int r = 0; r < k.n_r; r++) {
    s[r] = 1;
    if (k.norm == GATE_NORM_NONE) continue;
    float squares = 0;
    for (int64_t c = begin + threadIdx.x; c < end; c += blockDim.x) {
      const float y = k.x.get(t, r * k.width + c), u = before ? y : y * silu(k.z.get(t, c) * k.mz(c, r));
      squares += u * u;
    }
    s[r] = 1 / sqrtf(block_sum(squares, spare) / (float)k.group + k.eps);
  }
  for (int64_t c = begin + threadIdx.x; c < end; c += blockDim.x) {
    const float z = k.z.get(t, c), w = k.w(c);
    float sum = 0;
    for (int r = 0; r < k.n_r; r++) sum += k.x.get(t, r * k.width + c) * silu(z * k.mz(c, r)) * s[r] * w * k.mo(c, r);
    out.put(t, c, sum);
  }
}

/* A block's sums: dw (E), dmz (R, E), dmo (R, E). */
struct Sums {
  float *at;
  int64_t width;
  bool first; /* nothing there yet */
  __device__ void add(int64_t row, int64_t c, float x) const {
    float *to = at + row * width + c;
    global_store(to, first ? x : global_load(to) + x);
  }
};

static __global__ void backward(int64_t n_rows, Gate k, Rows dout, Rows dx, Rows dz, bool mimo, int64_t n_sums,
                                float *parts) {
  SHARED(float, spare);
  const int64_t begin = (int64_t)blockIdx.y * k.group, end = begin + k.group;
  const int64_t first = sum_block_start(n_rows, blockIdx.x), last = sum_block_start(n_rows, blockIdx.x + 1);
  const bool before = k.norm == GATE_NORM_BEFORE, normed = k.norm != GATE_NORM_NONE;
  Sums sums = {parts + blockIdx.x * n_sums * k.width, k.width, true};
  for (int64_t t = first; t < last; t++) {
    float s[MOST_RANKS], pull[MOST_RANKS];
    for (int r = 0; r < k.n_r; r++) {
      s[r] = 1, pull[r] = 0;
      if (!normed) continue;
      float squares = 0, dot = 0;
      for (int64_t c = begin + threadIdx.x; c < end; c += blockDim.x) {
        const float y = k.x.get(t, r * k.width + c), g = silu(k.z.get(t, c) * k.mz(c, r)), u = before ? y : y * g;
        const float e = dout.get(t, c) * k.mo(c, r);
        squares += u * u, dot += (before ? e * g : e) * k.w(c) * u;
      }
      s[r] = 1 / sqrtf(block_sum(squares, spare) / (float)k.group + k.eps);
      pull[r] = block_sum(dot, spare) / (float)k.group * s[r] * s[r];
    }
    for (int64_t c = begin + threadIdx.x; c < end; c += blockDim.x) {
      const float z = k.z.get(t, c), w = k.w(c), d = dout.get(t, c);
      float dz_sum = 0, dw_sum = 0;
      for (int r = 0; r < k.n_r; r++) {
        const float mz = k.mz(c, r), mo = k.mo(c, r), y = k.x.get(t, r * k.width + c), g = silu(z * mz);
        const float u = before ? y : y * g, e = d * mo, dv = before ? e * g : e, v = u * s[r] * w;
        const float du = s[r] * (dv * w - u * pull[r]), dgate = (before ? e * v : du * y) * silu_slope(z * mz);
        dz_sum += dgate * mz, dw_sum += dv * u * s[r];
        if (dx) dx.add(t, r * k.width + c, before ? du : du * g);
        if (!mimo) continue;
        sums.add(1 + r, c, dgate * z);
        sums.add(1 + k.n_r + r, c, d * (before ? v * g : v));
      }
      sums.add(0, c, dw_sum);
      if (dz) dz.add(t, c, dz_sum);
    }
    sums.first = false;
  }
}

/* dmimo (H, R, P) += the blocks' sums, which lie as (R, E). */
static __global__ void add_mimo(int64_t n_blocks, int64_t n_sums, int64_t first, Gate k, const float *parts,
                                Rows dmimo) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, r = at / k.width, c = at % k.width;
  if (r >= k.n_r) return;
  float sum = 0;
  for (int64_t b = 0; b < n_blocks; b++) sum += global_load(parts + (b * n_sums + first + r) * k.width + c);
  dmimo.add(k.mimo_row(c, (int)r), c % k.n_p, sum);
}

/* dweight += the blocks' first sums. */
static __global__ void add_weight(int64_t n_blocks, int64_t n_sums, int64_t width, const float *parts, Rows dweight) {
  const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= width) return;
  float sum = 0;
  for (int64_t b = 0; b < n_blocks; b++) sum += global_load(parts + b * n_sums * width + c);
  dweight.add(0, c, sum);
}

static Gate gate_of(const GatedNorm *p) {
  CHECK(p->n_r <= MOST_RANKS, "%d ranks, at most %d", p->n_r, MOST_RANKS);
  const int64_t width = (int64_t)p->n_h * p->n_p;
  return {p->norm,
          p->n_r,
          p->n_p,
          width,
          p->norm == GATE_NORM_NONE ? width : p->group,
          (float)p->eps,
          rows_of(p->x),
          rows_of(p->z),
          rows_of(p->weight),
          rows_of_width(p->mimo_z, p->n_p),
          rows_of_width(p->mimo_o, p->n_p)};
}
static bool wants_mimo(const GatedNorm *p) { return p->dmimo_z || p->dmimo_o; }
static int64_t n_sums(const GatedNorm *p) { return wants_mimo(p) ? 1 + 2 * p->n_r : 1; }

KERNEL_SCRATCH(gated_norm, GatedNorm) {
  return backward ? (size_t)(sum_blocks(tensor_rows(p->z)) * n_sums(p) * p->n_h * p->n_p) * sizeof(float) : 0;
}

KERNEL_FWD(gated_norm, GatedNorm) {
  const Gate k = gate_of(p);
  const dim3 grid(blocks_of(tensor_rows(p->z), 1), (unsigned)(k.width / k.group));
  LAUNCH(forward, grid, row_threads(k.group), WARP * sizeof(float), k, rows_of(p->out));
}

KERNEL_BWD(gated_norm, GatedNorm) {
  const Gate k = gate_of(p);
  const int64_t n_rows = tensor_rows(p->z), n_blocks = sum_blocks(n_rows);
  float *parts = (float *)p->scratch;
  const dim3 grid((unsigned)n_blocks, (unsigned)(k.width / k.group));
  LAUNCH(backward, grid, row_threads(k.group), WARP * sizeof(float), n_rows, k, rows_of(p->dout), rows_of(p->dx), rows_of(p->dz),
         wants_mimo(p), n_sums(p), parts);
  if (p->dweight)
    LAUNCH(add_weight, blocks_of(k.width, 128), 128, 0, n_blocks, n_sums(p), k.width, parts, rows_of(p->dweight));
  const struct {
    Tensor *gradient;
    int64_t first;
  } mimo[] = {{p->dmimo_z, 1}, {p->dmimo_o, 1 + p->n_r}};
  for (int i = 0; i < 2; i++)
    if (mimo[i].gradient)
      LAUNCH(add_mimo, blocks_of(p->n_r * k.width, 128), 128, 0, n_blocks, n_sums(p), mimo[i].first, k, parts,
             rows_of_width(mimo[i].gradient, p->n_p));
}
