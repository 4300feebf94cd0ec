/* ssm_step: builder (SsmStep in tensor/kernels.h). It updates a state in place, so there is no way back. */
#include "autograd/ops.h"

SsmStep op_ssm_step(Tape *tape, SsmStep in) {
  CHECK(!tape->recording, "a step has no gradient: record the scan");
  const SsdScan *scan = &in.scan;
  const bool mamba2 = in.conv.w != NULL;
  const int64_t n_seq = in.dt.dt_raw->dim[0], n_x = (int64_t)scan->n_h * scan->n_p;
  const int64_t n_bc = (int64_t)scan->n_r * scan->n_g * scan->n_n;
  CHECK(mamba2 == (in.dt.A_log != NULL) && mamba2 == (in.dt.trap == NULL),
        "Mamba-2 has conv.w and dt.A_log, Mamba-3 dt.trap");
  CHECK(mamba2 == (scan->x == NULL) && mamba2 == (scan->B == NULL) && mamba2 == (scan->C == NULL),
        "x, B and C are the convolution's (Mamba-2) or given (Mamba-3)");
  CHECK(!mamba2 || (in.conv.x->dim[0] == n_seq && in.conv.x->dim[1] == n_x + 2 * n_bc && in.conv.silu),
        "conv.x %s, expected (%lld, %lld)", tensor_shape_text(in.conv.x), (long long)n_seq,
        (long long)(n_x + 2 * n_bc));
  CHECK(mamba2 || (scan->x->dim[0] == n_seq && scan->x->dim[1] == n_x && scan->B->dim[1] == n_bc), "x %s, B %s",
        tensor_shape_text(scan->x), tensor_shape_text(scan->B));
  const int64_t ssm[] = {n_seq, scan->n_h, scan->n_p, scan->n_n};
  const Tensor want = tensor_over(NULL, tape_real(tape), 4, ssm);
  CHECK(scan->ssm_in && scan->ssm_in->dtype == want.dtype && tensor_same_shape(scan->ssm_in, &want),
        "ssm_in %s, expected %s", tensor_shape_text(scan->ssm_in), tensor_shape_text(&want));
  CHECK(mamba2 || (scan->k_in && scan->v_in && !scan->angle_in == !scan->n_s), "the state of a step is whole");
  CHECK(!mamba2 || !in.conv.window_in == (in.conv.w->dim[2] == 1), "the window of a step is there");
  CHECK(in.gate.z->dim[0] == n_seq && in.gate.z->dim[1] == n_x, "z %s", tensor_shape_text(in.gate.z));

  if (!in.gate.out) in.gate.out = tape_tensor(tape, tape->act, n_seq, n_x);
  tape->device->flops += 4.0 * (double)tensor_count(scan->ssm_in) * scan->n_r;
  ssm_step_fwd(tape->device, &in);
  return in;
}
