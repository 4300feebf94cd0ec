/* ssm_step: one token of each sequence through the middle of a Mamba mixer, its state updated in place (SsmStep in
 * tensor/kernels.h): conv1d (Mamba-2), ssm_dt, ssd_scan and gated_norm one after the other, each with its own kernels, and
 * what goes between them in scratch as float32. */
#include "tensor/cuda/cuda.h"

static __global__ void count_sequences(int64_t n_seq, int32_t *starts) {
  const int64_t s = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (s <= n_seq) global_store(starts + s, (int32_t)s);
}

/* The parts with their tensors put between them; `scratch` is what the parts may share, the largest that one asks for. */
struct Step {
  Conv1d conv;
  SsmDt dt;
  SsdScan scan;
  GatedNorm gate;
  Tensor starts, mixed, x, B, C, dts, as, lambdas, y;
  bool mamba3;
  void *scratch;
  int64_t used_bytes;
};

static Tensor take(Step *s, char *at, Dtype dtype, int64_t n_rows, int64_t n_cols) {
  const int64_t dim[] = {n_rows, n_cols};
  const Tensor made = tensor_over(at + s->used_bytes, dtype, 2, dim);
  s->used_bytes += round_up((int64_t)tensor_bytes(&made), 256);
  return made;
}
static Tensor columns(const Tensor *of, int64_t first, int64_t n) {
  Tensor part = *of;
  part.data = (float *)of->data + first, part.dim[1] = n;
  return part;
}

static void lay(const SsmStep *p, char *at, Step *s) {
  const int64_t n_seq = p->dt.dt_raw->dim[0], n_h = p->scan.n_h, n_x = n_h * p->scan.n_p;
  const int64_t n_bc = (int64_t)p->scan.n_r * p->scan.n_g * p->scan.n_n;
  *s = Step{};
  s->conv = p->conv, s->dt = p->dt, s->scan = p->scan, s->gate = p->gate, s->mamba3 = p->dt.trap != nullptr;
  s->starts = take(s, at, I32, 1, n_seq + 1);
  s->starts.n_dim = 1, s->starts.dim[0] = n_seq + 1;
  s->dts = take(s, at, F32, n_seq, n_h), s->as = take(s, at, F32, n_seq, n_h),
  s->lambdas = take(s, at, F32, n_seq, n_h);
  s->y = take(s, at, F32, n_seq, p->scan.n_r * n_x);
  if (!s->mamba3) {
    s->mixed = take(s, at, F32, n_seq, n_x + 2 * n_bc);
    s->x = columns(&s->mixed, 0, n_x), s->B = columns(&s->mixed, n_x, n_bc),
    s->C = columns(&s->mixed, n_x + n_bc, n_bc);
    s->conv.cu_seqlens = &s->starts, s->conv.y = &s->mixed, s->conv.window_out = s->conv.window_in;
    s->scan.x = &s->x, s->scan.B = &s->B, s->scan.C = &s->C;
  }
  s->dt.dt = s->scan.dt = &s->dts, s->dt.a = s->scan.a = &s->as;
  s->dt.lambda = s->scan.lambda = s->mamba3 ? &s->lambdas : nullptr;
  s->scan.cu_seqlens = &s->starts, s->scan.y = s->gate.x = &s->y;
  s->scan.ssm_out = s->scan.ssm_in, s->scan.angle_out = s->scan.angle_in;
  s->scan.k_out = s->scan.k_in, s->scan.v_out = s->scan.v_in;
  s->scratch = at + s->used_bytes;
  s->conv.scratch = s->dt.scratch = s->scan.scratch = s->gate.scratch = s->scratch;
}

KERNEL_SCRATCH(ssm_step, SsmStep) {
  (void)backward;
  Step s;
  lay(p, nullptr, &s);
  size_t shared = ssd_scan_scratch_cuda(&s.scan, false);
  const size_t others[] = {s.mamba3 ? 0 : conv1d_scratch_cuda(&s.conv, false), ssm_dt_scratch_cuda(&s.dt, false),
                           gated_norm_scratch_cuda(&s.gate, false)};
  for (const size_t bytes : others) shared = bytes > shared ? bytes : shared;
  return (size_t)s.used_bytes + shared;
}

KERNEL_FWD(ssm_step, SsmStep) {
  Step s;
  lay(p, (char *)p->scratch, &s);
  const int64_t n_seq = s.dts.dim[0];
  LAUNCH(count_sequences, blocks_of(n_seq + 1, 128), 128, 0, n_seq, (int32_t *)s.starts.data);
  if (!s.mamba3) conv1d_fwd_cuda(&s.conv);
  ssm_dt_fwd_cuda(&s.dt);
  ssd_scan_fwd_cuda(&s.scan);
  gated_norm_fwd_cuda(&s.gate);
}
