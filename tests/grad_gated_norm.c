/* Gradients of gated_norm: every norm, group size, rank and mimo parameter; z a view, out a view to be filled. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

enum { N_T = 3, N_H = 2, N_P = 3, WIDTH = N_H * N_P };
static const char *const NORM_NAME[] = {"none", "after", "before"};

typedef struct Options {
  GateNorm norm;
  int n_r, group;
  bool views;
} Options;

/* Inputs: x, z (in a tensor two columns wider when it is a view), weight, mimo_z, mimo_o. */
static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  const Options *o = options;
  Arena *arena = &tape->device->step;
  GatedNorm gate = {.norm = o->norm,
                    .n_r = o->n_r,
                    .n_h = N_H,
                    .n_p = N_P,
                    .group = o->group,
                    .eps = 1e-5,
                    .x = in[0],
                    .z = in[1],
                    .weight = in[2],
                    .mimo_z = in[3],
                    .mimo_o = in[4]};
  if (o->views) {
    gate.z = tensor_cols(arena, in[1], 2, WIDTH);
    gate.out = tensor_cols(arena, tape_tensor(tape, tape->act, gate.z->dim[0], WIDTH + 4), 3, WIDTH);
  }
  out[0] = op_gated_norm(tape, gate).out;
  return 1;
}

static void check(Options o, bool mimo_z, bool mimo_o, int64_t n_t) {
  const int64_t width = WIDTH, mimo_dim[] = {N_H, o.n_r, N_P};
  Tensor *inputs[] = {gradcheck_randn(2, (int64_t[]){n_t, o.n_r * WIDTH}, 0.1, 1, 1),
                      gradcheck_randn(2, (int64_t[]){n_t, o.views ? WIDTH + 2 : WIDTH}, 0, 1, 2),
                      o.norm == GATE_NORM_NONE ? NULL : gradcheck_randn(1, &width, 1, 0.3, 3),
                      mimo_z ? gradcheck_randn(3, mimo_dim, 1, 0.5, 4) : NULL,
                      mimo_o ? gradcheck_randn(3, mimo_dim, 0.5, 0.5, 5) : NULL};
  GradCase c = {
      .build = build, .options = &o, .inputs = inputs, .n_inputs = 5, .acts = 3, .weights = 4, .max_entries = 40};
  snprintf(c.name, sizeof c.name, "gated_norm %s, %lld rows, group %d, rank %d%s%s%s", NORM_NAME[o.norm],
           (long long)n_t, o.group, o.n_r, mimo_z ? ", mimo_z" : "", mimo_o ? ", mimo_o" : "",
           o.views ? ", views" : "");
  gradcheck_run(&c);
}

void gradcheck_gated_norm(void) {
  static const int GROUPS[] = {1, N_P, WIDTH};
  for (GateNorm norm = GATE_NORM_NONE; norm <= GATE_NORM_BEFORE; norm++)
    for (size_t g = 0; g < sizeof GROUPS / sizeof *GROUPS; g++) {
      for (int n_r = 1; n_r <= 4; n_r *= 2)
        for (int mimo_z = 0; mimo_z < 2; mimo_z++) {
          check((Options){norm, n_r, GROUPS[g], false}, mimo_z, true, N_T);
          if (n_r == 1) check((Options){norm, n_r, GROUPS[g], false}, mimo_z, false, N_T);
        }
      check((Options){norm, 1, GROUPS[g], true}, false, false, 1);
      check((Options){norm, 2, GROUPS[g], true}, true, true, 35); /* more rows than blocks */
    }
}
