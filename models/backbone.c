/* backbone: the pre-norm residual stream (specification, section 1).
 *
 *   h <- h + mixer(RMSNorm(h));   with an MLP also   h <- h + fc2(value * silu(gate)), [value | gate] = fc1(RMSNorm(h))
 * Both are branches of one form, h + out(mix(in(RMSNorm(h)))), with a product before and after the middle; a mixer that is
 * taken out leaves h + RMSNorm(h). The stream is kept in real, and has one gradient: on the way back every branch adds to
 * it in place.
 *
 * A branch is three scopes (autograd/tape.h): the whole, its way in (norm and first product) and the rest.
 * Model.recompute says which of them replay:
 *   none:   the way in: its norm is made again; what the middle makes is kept
 *   mixer:  the rest too: of a branch only its first product is kept. No product is made twice
 *   block:  the whole: only the stream is kept */
#include "models/aspis.h"

#define NORM_EPS 1e-5

typedef struct Branch {
  Recompute recompute;
  Tensor *norm;
  MixerProducts products;
  Mixer *mixer;   /* NULL: the MLP */
  double dropout; /* on the update */
  uint32_t dropout_site;
  Tensor *cu_seqlens;
  const LayerState *state_in;
  LayerState *state_out;
  LayerState *keep; /* instead of state_out: filled with the ends of the sequences `last` */
  Tensor *last;
  LayerState *step; /* of one token a sequence, and this is to move on in place */
} Branch;

static Tensor *mlp_mix(Tape *tape, Tensor *both) {
  const int64_t n_f = both->dim[1] / 2;
  Tensor *value = tensor_cols(&tape->device->step, both, 0, n_f);
  Tensor *gate = tensor_cols(&tape->device->step, both, n_f, n_f);
  return op_swiglu(tape, value, gate, NULL);
}

static void way_in(Tape *tape, const void *args, Tensor *h, Tensor *proj) {
  const Branch *b = args;
  Tensor *x = op_rms_norm(tape, h, b->norm, NORM_EPS);
  op_linear_into(tape, x, b->products.in_proj, b->products.in_proj_bias, proj);
}

typedef struct Rest {
  const Branch *branch;
  Tensor *h;
} Rest;

static void keep_ends(Tape *tape, LayerState *ends, LayerState *keep, Tensor *last) {
  for (int f = 0; f < STATE_N_FIELDS; f++) {
    Tensor *to = *state_field(keep, f);
    if (!to) continue;
    gather_fwd(tape->device,
               &(Gather){.width = tensor_count(to) / to->dim[0], .index = last, .x = *state_field(ends, f), .y = to});
  }
}

/* Where attention writes the rows that ends are kept of: behind those it is given, in place. Headers of their own, because those
 * it is given have no gradient. */
static LayerState rows_to_end(Tape *tape, const Branch *b) {
  LayerState ends = {0};
  if (!b->keep || !b->keep->key) return ends;
  CHECK(b->state_in && b->state_in->key, "attention's rows are added to those of a state, which is not given");
  ends.key = arena_header(&tape->device->step, sizeof *ends.key), *ends.key = *b->state_in->key;
  ends.value = arena_header(&tape->device->step, sizeof *ends.value), *ends.value = *b->state_in->value;
  return ends;
}

static void rest(Tape *tape, const void *args, Tensor *proj, Tensor *next) {
  const Rest *r = args;
  const Branch *b = r->branch;
  LayerState ends = rows_to_end(tape, b), *state_out = b->keep ? &ends : b->state_out;
  Tensor *mixed = b->step    ? mixer_step(b->mixer, tape, proj, b->cu_seqlens, b->step)
                  : b->mixer ? mixer_mix(b->mixer, tape, proj, b->cu_seqlens, b->state_in, state_out)
                             : mlp_mix(tape, proj);
  if (b->keep) keep_ends(tape, &ends, b->keep, b->last);
  next->grad = tape_grad(tape, r->h); /* the stream's one gradient */
  const MixerProducts *p = &b->products;
  if (b->dropout == 0) {
    op_linear_residual(tape, mixed, p->out_proj, p->out_proj_bias, r->h, next);
    return;
  }
  Tensor *update = op_linear(tape, mixed, p->out_proj, p->out_proj_bias, tape->act);
  op_residual(tape, r->h, op_dropout(tape, update, b->dropout, b->dropout_site), next);
}

static void without_mixer(Tape *tape, const void *args, Tensor *h, Tensor *next) {
  const Branch *b = args;
  Tensor *x = op_rms_norm(tape, h, b->norm, NORM_EPS);
  next->grad = tape_grad(tape, h);
  op_residual(tape, h, op_dropout(tape, x, b->dropout, b->dropout_site), next);
}

/* A state that is carried out of a branch must outlive it. */
static ScopeKind scope_kind(const Branch *b, bool replays) {
  return b->state_out ? SCOPE_OPEN : replays ? SCOPE_REPLAY : SCOPE_KEEP;
}

static void whole(Tape *tape, const void *args, Tensor *h, Tensor *next) {
  const Branch *b = args;
  Tensor *proj = tape_scope(tape, (TapeScope){.kind = scope_kind(b, true),
                                              .body = way_in,
                                              .args = b,
                                              .args_bytes = sizeof *b,
                                              .in = h,
                                              .dtype = tape->act,
                                              .n_cols = b->products.in_proj->dim[0]});
  tape_scope(tape, (TapeScope){.kind = scope_kind(b, b->recompute == RECOMPUTE_MIXER),
                               .body = rest,
                               .args = &(Rest){b, h},
                               .args_bytes = sizeof(Rest),
                               .in = proj,
                               .out = next});
}

static Tensor *branch_forward(const Branch *b, Tape *tape, Tensor *h) {
  return tape_scope(tape, (TapeScope){.kind = scope_kind(b, b->recompute == RECOMPUTE_BLOCK),
                                      .body = b->products.in_proj ? whole : without_mixer,
                                      .args = b,
                                      .args_bytes = sizeof *b,
                                      .in = h,
                                      .dtype = h->dtype,
                                      .n_cols = h->dim[1]});
}

/* The layers one after the other; `proto` says what all mixers' branches share. */
static Tensor *layers_forward(Model *model, Tape *tape, Tensor *h, Branch proto, const ModelState *state_in,
                              ModelState *state_out, ModelState *step, Tensor **hidden) {
  tape_grad(tape, h); /* made here, below every scope */
  for (int i = 0; i < model->config.n_layer; i++) {
    Block *block = &model->blocks[i];
    Branch branch = proto;
    branch.norm = block->norm, branch.products = mixer_products(&block->mixer), branch.mixer = &block->mixer;
    branch.dropout_site = (uint32_t)(DROPOUT_SITE_LAYERS + 2 * i);
    branch.state_in = state_in ? &state_in->layers[i] : NULL;
    LayerState *end = state_out ? &state_out->layers[i] : NULL;
    if (state_out && state_out->last) branch.keep = end, branch.last = state_out->last;
    else branch.state_out = end;
    branch.step = step ? &step->layers[i] : NULL;
    h = branch_forward(&branch, tape, h);
    if (block->fc1) {
      branch = (Branch){.recompute = proto.recompute,
                        .norm = block->norm2,
                        .products = {.in_proj = block->fc1, .out_proj = block->fc2},
                        .dropout = proto.dropout,
                        .dropout_site = (uint32_t)(DROPOUT_SITE_LAYERS + 2 * i + 1)};
      h = branch_forward(&branch, tape, h);
    }
    if (hidden) hidden[i] = h;
  }
  return op_rms_norm(tape, h, model->norm_f, NORM_EPS);
}

/* The tokens behind the call, of each sequence. */
static void count_tokens(Tape *tape, const Tensor *cu_seqlens, const ModelState *state_in,
                         const ModelState *state_out) {
  if (!state_out || !state_out->length || tape->device->dry) return;
  Device *device = tape->device;
  const int32_t *start = device_mirror(device, cu_seqlens).data;
  device_zero(device, state_out->length);
  for (int64_t s = 0; s < state_out->n_seq; s++)
    model_state_count(device, state_out, s,
                      (state_in ? model_state_length(device, state_in, s) : 0) + start[s + 1] - start[s]);
}

/* The gradients of a state are made here, below every scope that adds to them. */
static void own_gradients(const Model *model, Tape *tape, const ModelState *state) {
  for (int i = 0; state && tape->recording && i < model->config.n_layer; i++)
    for (int f = 0; f < STATE_N_FIELDS; f++) tape_grad(tape, *state_field(&state->layers[i], f));
}

Tensor *backbone_forward(Model *model, Tape *tape, Tensor *h, Tensor *cu_seqlens, const ModelState *state_in,
                         ModelState *state_out, Tensor **hidden) {
  CHECK(!hidden || !tape->recording, "hidden states have no gradient of their own");
  own_gradients(model, tape, state_in);
  count_tokens(tape, cu_seqlens, state_in, state_out);
  const Branch proto = {.recompute = model->recompute, .dropout = model->config.dropout, .cu_seqlens = cu_seqlens};
  return layers_forward(model, tape, h, proto, state_in, state_out, NULL, hidden);
}

Tensor *backbone_step(Model *model, Tape *tape, Tensor *h, ModelState *state) {
  CHECK(!tape->recording && h->dim[0] == state->n_seq, "a step of %lld tokens for %lld sequences", (long long)h->dim[0],
        (long long)state->n_seq);
  const Branch proto = {.cu_seqlens = model_equal_seqlens(tape, state->n_seq, 1)};
  Tensor *y = layers_forward(model, tape, h, proto, NULL, NULL, state, NULL);
  for (int64_t s = 0; s < state->n_seq; s++) model_state_count(tape->device, state, s, 1);
  return y;
}
