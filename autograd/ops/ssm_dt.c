/* ssm_dt: builder and backward rule (SsmDt in tensor/kernels.h). Saves only its inputs. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  SsmDt *p = params;
  p->ddt = tape_arrived(tape, p->dt);
  p->da = tape_arrived(tape, p->a);
  p->dlambda = tape_arrived(tape, p->lambda);
  if (!p->ddt && !p->da && !p->dlambda) return;
  p->ddt_raw = tape_grad_unset(tape, p->dt_raw);
  p->ddt_bias = tape_grad(tape, p->dt_bias);
  p->dA_log = tape_grad(tape, p->A_log);
  p->dA_raw = tape_grad_unset(tape, p->A_raw);
  p->dtrap = tape_grad_unset(tape, p->trap);
  ssm_dt_bwd(tape->device, p);
  tape_grad_set(p->ddt_raw);
  tape_grad_set(p->dA_raw);
  tape_grad_set(p->dtrap);
}

/* A parameter of H reals. */
static void check_parameter(const Tape *tape, const char *name, const Tensor *t, int64_t n_h) {
  CHECK(t->n_dim == 1 && t->dim[0] == n_h && t->dtype == tape_real(tape), "%s is %s %s, expected %s (%lld)", name,
        dtype_name(t->dtype), tensor_shape_text(t), dtype_name(tape_real(tape)), (long long)n_h);
}

SsmDt op_ssm_dt(Tape *tape, SsmDt in) {
  int64_t n_t = in.dt_raw->dim[0], n_h = in.dt_raw->dim[1];
  check_parameter(tape, "dt_bias", in.dt_bias, n_h);
  CHECK(!in.A_log == (in.A_raw && in.trap), "either A_log (Mamba-2), or A_raw and trap (Mamba-3)");
  if (in.A_log) {
    check_parameter(tape, "A_log", in.A_log, n_h);
    CHECK(!in.A_raw && !in.trap, "A_raw or trap beside A_log");
    CHECK(in.dt_min <= in.dt_max, "dt_limit (%g, %g)", in.dt_min, in.dt_max);
  } else {
    CHECK(tensor_same_shape(in.A_raw, in.dt_raw), "A_raw %s for dt_raw %s", tensor_shape_text(in.A_raw),
          tensor_shape_text(in.dt_raw));
    CHECK(tensor_same_shape(in.trap, in.dt_raw), "trap %s for dt_raw %s", tensor_shape_text(in.trap),
          tensor_shape_text(in.dt_raw));
  }

  if (!in.dt) in.dt = tape_tensor(tape, tape_real(tape), n_t, n_h);
  if (!in.a) in.a = tape_tensor(tape, tape_real(tape), n_t, n_h);
  if (!in.lambda && in.trap) in.lambda = tape_tensor(tape, tape_real(tape), n_t, n_h);
  ssm_dt_fwd(tape->device, &in);

  bool needs_grad = in.dt_raw->needs_grad || in.dt_bias->needs_grad || (in.A_log && in.A_log->needs_grad) ||
                    (in.A_raw && in.A_raw->needs_grad) || (in.trap && in.trap->needs_grad);
  needs_grad = needs_grad && tape->recording;
  tape_mark_output(in.dt, needs_grad);
  tape_mark_output(in.a, needs_grad);
  tape_mark_output(in.lambda, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, in);
  return in;
}
