/* ssm_dt: the scan's step sizes dt, log-decays a and trapezoid weights lambda, per token and head (SsmDt in
 * tensor/kernels.h; specification, sections 2.1 step 3, 2.2 steps 1 and 2). Backward, with s = dt_raw + dt_bias:
 *   ddt += A da, then ds = ddt softplus'(s), nothing where dt sits on a clamp
 *   Mamba-2: A = -exp(A_log), dA_log = sum_t a da
 *   Mamba-3: A = min(-f(A_raw), -A_floor), dA_raw = -f'(A_raw) dt da, nothing on the floor; dtrap = lambda (1 - lambda) dlambda
 * Forward a thread has an element; backward it has a head of a block of tokens, and that head's sums. */
#include "tensor/cuda/cuda.h"

struct Dt {
  bool A_softplus;
  float dt_min, dt_max, A_floor;
  int64_t n_t, n_h;
  Rows dt_raw, dt_bias, A_log, A_raw, trap;
};
static Dt dt_of(const SsmDt *p) {
  return {p->A_softplus,      (float)p->dt_min,    (float)p->dt_max,  (float)p->A_floor, p->dt->dim[0],   p->dt->dim[1],
          rows_of(p->dt_raw), rows_of(p->dt_bias), rows_of(p->A_log), rows_of(p->A_raw), rows_of(p->trap)};
}

static __device__ float clamp(const Dt &k, float dt) {
  return dt < k.dt_min ? k.dt_min : dt > k.dt_max ? k.dt_max : dt;
}
/* f of Mamba-3's A = -f(A_raw), and its derivative. */
static __device__ float decay_rate(bool is_softplus, float u) {
  return is_softplus ? softplus(u) : u >= 0 ? 1 + u : 1 / (1 - u);
}
static __device__ float decay_rate_slope(bool is_softplus, float u) {
  const float tail = 1 / (1 - u);
  return is_softplus ? sigmoid(u) : u >= 0 ? 1 : tail * tail;
}

static __global__ void forward(Dt k, Rows dt, Rows a, Rows lambda) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, t = at / k.n_h, h = at % k.n_h;
  if (t >= k.n_t) return;
  const float free = softplus(k.dt_raw.get(t, h) + k.dt_bias.get(0, h));
  if (k.A_log) {
    const float clamped = clamp(k, free);
    dt.put(t, h, clamped);
    a.put(t, h, -expf(k.A_log.get(0, h)) * clamped);
    return;
  }
  dt.put(t, h, free);
  a.put(t, h, -fmaxf(decay_rate(k.A_softplus, k.A_raw.get(t, h)), k.A_floor) * free);
  lambda.put(t, h, sigmoid(k.trap.get(t, h)));
}

static __global__ void backward(Dt k, Rows ddt, Rows da, Rows dlambda, Rows ddt_raw, Rows dA_raw, Rows dtrap,
                                float *parts) {
  const int64_t h = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  if (h >= k.n_h) return;
  const int64_t first = sum_block_start(k.n_t, blockIdx.x), end = sum_block_start(k.n_t, blockIdx.x + 1);
  const float bias = k.dt_bias.get(0, h), A = k.A_log ? -expf(k.A_log.get(0, h)) : 0;
  float bias_sum = 0, A_sum = 0;
  for (int64_t t = first; t < end; t++) {
    const float s = k.dt_raw.get(t, h) + bias, free = softplus(s);
    const float d_dt = ddt.get_or(t, h, 0), d_a = da.get_or(t, h, 0);
    float d_raw;
    if (k.A_log) {
      const bool is_clamped = free < k.dt_min || free > k.dt_max;
      d_raw = (A * d_a + d_dt) * (is_clamped ? 0 : sigmoid(s));
      A_sum += A * clamp(k, free) * d_a;
    } else {
      const float u = k.A_raw.get(t, h), rate = decay_rate(k.A_softplus, u), lambda = sigmoid(k.trap.get(t, h));
      d_raw = (-fmaxf(rate, k.A_floor) * d_a + d_dt) * sigmoid(s);
      if (dA_raw) dA_raw.add(t, h, rate < k.A_floor ? 0 : -decay_rate_slope(k.A_softplus, u) * free * d_a);
      if (dtrap) dtrap.add(t, h, lambda * (1 - lambda) * dlambda.get_or(t, h, 0));
    }
    bias_sum += d_raw;
    if (ddt_raw) ddt_raw.add(t, h, d_raw);
  }
  global_store(parts + blockIdx.x * k.n_h + h, bias_sum);
  global_store(parts + (sum_blocks(k.n_t) + blockIdx.x) * k.n_h + h, A_sum);
}

KERNEL_SCRATCH(ssm_dt, SsmDt) {
  return backward ? (size_t)(2 * sum_blocks(p->dt->dim[0]) * p->dt->dim[1]) * sizeof(float) : 0;
}

KERNEL_FWD(ssm_dt, SsmDt) {
  LAUNCH(forward, blocks_of(tensor_count(p->dt), 128), 128, 0, dt_of(p), rows_of(p->dt), rows_of(p->a),
         rows_of(p->lambda));
}

KERNEL_BWD(ssm_dt, SsmDt) {
  const Dt k = dt_of(p);
  const int64_t n_blocks = sum_blocks(k.n_t);
  float *parts = (float *)p->scratch;
  LAUNCH(backward, dim3((unsigned)n_blocks, blocks_of(k.n_h, 32)), 32, 0, k, rows_of(p->ddt), rows_of(p->da),
         rows_of(p->dlambda), rows_of(p->ddt_raw), rows_of(p->dA_raw), rows_of(p->dtrap), parts);
  if (p->ddt_bias) sum_columns(parts, n_blocks, k.n_h, rows_of(p->ddt_bias));
  if (p->dA_log) sum_columns(parts + n_blocks * k.n_h, n_blocks, k.n_h, rows_of(p->dA_log));
}
