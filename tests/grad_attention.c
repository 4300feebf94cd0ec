/* Gradients of attention: shared key heads, partial and interleaved rotation, packed sequences with pieces of length 1
 * and of one or more of the kernel's blocks of 64;
 * q, k and v are column views of one projection. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

typedef struct Heads {
  int n_heads, n_heads_kv, head_dim, rotary_dim;
  bool interleaved;
} Heads;

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  const Heads *o = options;
  Arena *arena = &tape->device->step;
  const int64_t n_q = (int64_t)o->n_heads * o->head_dim, n_kv = (int64_t)o->n_heads_kv * o->head_dim;
  out[0] = op_attention(tape, (Attention){.n_heads = o->n_heads,
                                          .n_heads_kv = o->n_heads_kv,
                                          .head_dim = o->head_dim,
                                          .rotary_dim = o->rotary_dim,
                                          .rotary_interleaved = o->interleaved,
                                          .rotary_base = 100,
                                          .scale = 0.7,
                                          .cu_seqlens = in[1],
                                          .q = tensor_cols(arena, in[0], 0, n_q),
                                          .k = tensor_cols(arena, in[0], n_q, n_kv),
                                          .v = tensor_cols(arena, in[0], n_q + n_kv, n_kv)})
               .y;
  return 1;
}

void gradcheck_attention(void) {
  static const Heads HEADS[] = {{1, 1, 1, 0, false}, {2, 2, 4, 0, false}, {2, 2, 4, 4, false}, {4, 2, 4, 4, true},
                                {4, 1, 6, 4, false}, {3, 1, 6, 2, true},  {6, 3, 5, 4, true}};
  static const struct {
    int n_seq;
    int32_t cu_seqlens[6];
  } PACKS[] = {{1, {0, 1}}, {1, {0, 7}}, {2, {0, 4, 8}}, {5, {0, 1, 4, 5, 6, 11}}, {4, {0, 64, 65, 130, 263}}};
  for (size_t h = 0; h < sizeof HEADS / sizeof *HEADS; h++)
    for (size_t s = 0; s < sizeof PACKS / sizeof *PACKS; s++) {
      const Heads *o = &HEADS[h];
      const int n_seq = PACKS[s].n_seq;
      const int64_t dim[] = {PACKS[s].cu_seqlens[n_seq], (int64_t)(o->n_heads + 2 * o->n_heads_kv) * o->head_dim};
      Tensor *inputs[] = {gradcheck_randn(2, dim, 0, 1, 1), gradcheck_ints(n_seq + 1, PACKS[s].cu_seqlens)};
      GradCase c = {.build = build,
                    .options = o,
                    .inputs = inputs,
                    .n_inputs = 2,
                    .acts = 1,
                    .max_entries = dim[0] > 64 ? 24 : 120};
      snprintf(c.name, sizeof c.name, "attention of %d sequences, heads %d/%d of %d, rotary %d%s", n_seq, o->n_heads,
               o->n_heads_kv, o->head_dim, o->rotary_dim, o->interleaved ? " interleaved" : "");
      gradcheck_run(&c);
    }
}
