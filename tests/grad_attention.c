/* Gradients of attention: shared key heads, partial and interleaved rotation, packed sequences with pieces of length 1, and sequences that go on where others ended,
 * and of one or more of the kernel's blocks of 64;
 * q, k and v are column views of one projection. */
#include <stdio.h>

#include "tests/support/gradcheck.h"

typedef struct Heads {
  int n_heads, n_heads_kv, head_dim, rotary_dim;
  bool interleaved;
  bool state_in, state_out; /* sequences that go on where others ended; the state they end in is an output */
} Heads;
enum { ROOM = 7 };

static int build(Tape *tape, Tensor **in, const void *options, Tensor **out) {
  const Heads *o = options;
  Arena *arena = &tape->device->step;
  const int64_t n_q = (int64_t)o->n_heads * o->head_dim, n_kv = (int64_t)o->n_heads_kv * o->head_dim;
  Attention p = {.n_heads = o->n_heads,
                 .n_heads_kv = o->n_heads_kv,
                 .head_dim = o->head_dim,
                 .rotary_dim = o->rotary_dim,
                 .rotary_interleaved = o->interleaved,
                 .rotary_base = 100,
                 .scale = 0.7,
                 .cu_seqlens = in[1],
                 .q = tensor_cols(arena, in[0], 0, n_q),
                 .k = tensor_cols(arena, in[0], n_q, n_kv),
                 .v = tensor_cols(arena, in[0], n_q + n_kv, n_kv)};
  if (o->state_in) p.past = in[2], p.key_in = in[3], p.value_in = in[4];
  if (o->state_out) {
    const int64_t n_seq = in[1]->dim[0] - 1, room = ROOM + in[0]->dim[0];
    const Dtype real = tape_real(tape);
    p.key_out = tensor_new3(arena, real, n_seq, room, n_kv), p.value_out = tensor_new3(arena, real, n_seq, room, n_kv);
    device_zero(tape->device, p.key_out), device_zero(tape->device, p.value_out); /* rows behind a sequence stay */
  }
  p = op_attention(tape, p);
  out[0] = p.y, out[1] = p.key_out, out[2] = p.value_out;
  return o->state_out ? 3 : 1;
}

/* Pasts of none, some and all of the room; the rows behind a past have no gradient. */
static void check_states(const Heads *heads) {
  static const struct {
    int n_seq;
    int32_t cu_seqlens[4], past[3];
  } PACKS[] = {{1, {0, 1}, {3}}, {3, {0, 1, 3, 9}, {ROOM, 0, 4}}, {2, {0, 4, 5}, {0, 0}}};
  for (size_t s = 0; s < sizeof PACKS / sizeof *PACKS; s++)
    for (int states = 1; states < 4; states++) {
      Heads o = *heads;
      o.state_in = states & 1, o.state_out = states & 2;
      const int n_seq = PACKS[s].n_seq;
      const int64_t dim[] = {PACKS[s].cu_seqlens[n_seq], (int64_t)(o.n_heads + 2 * o.n_heads_kv) * o.head_dim};
      const int64_t state[] = {n_seq, ROOM, (int64_t)o.n_heads_kv * o.head_dim};
      Tensor *inputs[] = {gradcheck_randn(2, dim, 0, 1, 1), gradcheck_ints(n_seq + 1, PACKS[s].cu_seqlens),
                          gradcheck_ints(n_seq, PACKS[s].past), gradcheck_randn(3, state, 0, 1, 2),
                          gradcheck_randn(3, state, 0, 1, 3)};
      GradCase c = {.build = build,
                    .options = &o,
                    .inputs = inputs,
                    .n_inputs = o.state_in ? 5 : 2,
                    .acts = 1,
                    .max_entries = 120};
      snprintf(c.name, sizeof c.name, "attention going on, %d sequences, heads %d/%d of %d, rotary %d%s%s%s", n_seq,
               o.n_heads, o.n_heads_kv, o.head_dim, o.rotary_dim, o.interleaved ? " interleaved" : "",
               o.state_in ? " state in" : "", o.state_out ? " state out" : "");
      gradcheck_run(&c);
    }
}

static void check_pack(const Heads *o, int n_seq, const int32_t *cu_seqlens) {
  const int64_t dim[] = {cu_seqlens[n_seq], (int64_t)(o->n_heads + 2 * o->n_heads_kv) * o->head_dim};
  Tensor *inputs[] = {gradcheck_randn(2, dim, 0, 1, 1), gradcheck_ints(n_seq + 1, cu_seqlens)};
  GradCase c = {
      .build = build, .options = o, .inputs = inputs, .n_inputs = 2, .acts = 1, .max_entries = dim[0] > 64 ? 24 : 120};
  snprintf(c.name, sizeof c.name, "attention of %d sequences, heads %d/%d of %d, rotary %d%s", n_seq, o->n_heads,
           o->n_heads_kv, o->head_dim, o->rotary_dim, o->interleaved ? " interleaved" : "");
  gradcheck_run(&c);
}

void gradcheck_attention(void) {
  static const Heads HEADS[] = {{.n_heads = 1, .n_heads_kv = 1, .head_dim = 1, .rotary_dim = 0},
                                {.n_heads = 2, .n_heads_kv = 2, .head_dim = 4, .rotary_dim = 0},
                                {.n_heads = 2, .n_heads_kv = 2, .head_dim = 4, .rotary_dim = 4},
                                {.n_heads = 4, .n_heads_kv = 2, .head_dim = 4, .rotary_dim = 4, .interleaved = true},
                                {.n_heads = 4, .n_heads_kv = 1, .head_dim = 6, .rotary_dim = 4},
                                {.n_heads = 3, .n_heads_kv = 1, .head_dim = 6, .rotary_dim = 2, .interleaved = true},
                                {.n_heads = 6, .n_heads_kv = 3, .head_dim = 5, .rotary_dim = 4, .interleaved = true}};
  static const struct {
    int n_seq;
    int32_t cu_seqlens[6];
  } PACKS[] = {{1, {0, 1}}, {1, {0, 7}}, {2, {0, 4, 8}}, {5, {0, 1, 4, 5, 6, 11}}, {4, {0, 64, 65, 130, 263}}};
  for (size_t h = 0; h < sizeof HEADS / sizeof *HEADS; h++) {
    check_states(&HEADS[h]);
    for (size_t s = 0; s < sizeof PACKS / sizeof *PACKS; s++)
      check_pack(&HEADS[h], PACKS[s].n_seq, PACKS[s].cu_seqlens);
  }
  /* so wide that a kernel takes smaller blocks */
  static const Heads WIDE = {.n_heads = 2, .n_heads_kv = 1, .head_dim = 160, .rotary_dim = 32};
  check_pack(&WIDE, 3, (const int32_t[]){0, 1, 40, 75});
}
