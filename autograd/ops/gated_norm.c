/* gated_norm: builder and backward rule (GatedNorm in tensor/kernels.h). Saves its inputs; gate and norm are computed
 * again. */
#include "autograd/ops.h"

static void rule(Tape *tape, void *params) {
  GatedNorm *p = params;
  p->dout = tape_arrived(tape, p->out);
  if (!p->dout) return;
  p->dx = tape_grad_unset(tape, p->x);
  p->dz = tape_grad_unset(tape, p->z);
  p->dweight = tape_grad(tape, p->weight);
  p->dmimo_z = tape_grad(tape, p->mimo_z);
  p->dmimo_o = tape_grad(tape, p->mimo_o);
  gated_norm_bwd(tape->device, p);
  tape_grad_set(p->dx);
  tape_grad_set(p->dz);
}

static void check_mimo(const GatedNorm *p, const char *name, const Tensor *t) {
  CHECK(!t || (t->n_dim == 3 && t->dim[0] == p->n_h && t->dim[1] == p->n_r && t->dim[2] == p->n_p),
        "%s %s, expected (%d, %d, %d)", name, tensor_shape_text(t), p->n_h, p->n_r, p->n_p);
}

GatedNorm op_gated_norm(Tape *tape, GatedNorm in) {
  const int64_t width = (int64_t)in.n_h * in.n_p;
  CHECK(in.n_r >= 1 && (in.n_r == 1 || in.mimo_o), "%d ranks, mimo_o %s", in.n_r, in.mimo_o ? "given" : "absent");
  CHECK(in.z->n_dim == 2 && in.z->dim[1] == width, "z %s, expected %lld columns", tensor_shape_text(in.z),
        (long long)width);
  CHECK(in.x->n_dim == 2 && in.x->dim[0] == in.z->dim[0] && in.x->dim[1] == in.n_r * width, "x %s for z %s, %d ranks",
        tensor_shape_text(in.x), tensor_shape_text(in.z), in.n_r);
  CHECK((in.norm == GATE_NORM_NONE) == (in.weight == NULL), "a norm and its weight go together");
  if (in.weight) {
    CHECK(in.weight->n_dim == 1 && in.weight->dim[0] == width, "weight %s for z %s", tensor_shape_text(in.weight),
          tensor_shape_text(in.z));
    CHECK(in.group >= 1 && width % in.group == 0, "groups of %d in %lld channels", in.group, (long long)width);
  }
  check_mimo(&in, "mimo_z", in.mimo_z);
  check_mimo(&in, "mimo_o", in.mimo_o);
  CHECK(!in.out || tensor_same_shape(in.out, in.z), "out %s for z %s", tensor_shape_text(in.out),
        tensor_shape_text(in.z));
  if (!in.out) in.out = tape_tensor(tape, tape->act, in.z->dim[0], width);
  gated_norm_fwd(tape->device, &in);
  const bool needs_grad =
      tape->recording && (in.x->needs_grad || in.z->needs_grad || (in.weight && in.weight->needs_grad) ||
                          (in.mimo_z && in.mimo_z->needs_grad) || (in.mimo_o && in.mimo_o->needs_grad));
  tape_mark_output(in.out, needs_grad);
  if (needs_grad) TAPE_RECORD(tape, rule, in);
  return in;
}
