/* state: what a model carries from token to token, of several sequences: one object that every call takes and gives.
 *
 * A state handed in is only read, but by lm_step. A state that a call is to give is made by model_state_out, filled by the call,
 * and lies in the step arena; model_state_put keeps it. */
#pragma once

#include "nn/mixer.h"

typedef struct Model Model;

typedef struct ModelState {
  int64_t n_seq;
  int64_t room;       /* tokens that attention layers have room for; 0 without them */
  LayerState *layers; /* n_layer */
  Tensor *length;     /* (n_seq) I32: tokens so far, of models with attention, whose rows it counts; else NULL */
  Tensor *last; /* as a call's state_out: (n_seq) I32: sequence s, which has its memory already, is to be the end of the
                         call's sequence last[s]; nothing else outlives its layer. Attention's rows are then added to those of the
                         state that the call is given, which they are copied from. NULL: as above */
} ModelState;

/* Whether it has attention: then its state grows by the token. */
bool model_state_grows(const Model *model);
/* States of n_seq sequences at the start, in `arena` of `device` (NULL: the host's own); attention with room for that many tokens.
 * Zero, but what the model has learned to start from (model.learn_init_state). */
ModelState model_start_state(const Model *model, Device *device, Arena *arena, Dtype real, int64_t n_seq, int64_t room);
/* The same without what was learned, for whoever fills it or wants the shapes: the parameters need no memory. */
ModelState model_zero_state(const Model *model, Device *device, Arena *arena, Dtype real, int64_t n_seq, int64_t room);
/* What a call on `tape` is to fill, for sequences of up to `room` tokens, those before the call included (0: whoever calls
 * gives attention's keys and values a place). */
ModelState model_state_out(const Model *model, Tape *tape, int64_t n_seq, int64_t room);
/* Sequences [s, s + n), or s alone, as headers in `arena` over the same memory. */
ModelState model_state_rows(const Model *model, Arena *arena, const ModelState *state, int64_t s, int64_t n);
ModelState model_state_row(const Model *model, Arena *arena, const ModelState *state, int64_t s);
/* Sequence s of `to` becomes sequence `of` of `from`, whose tokens must fit into its room; `from` NULL: as at
 * the start. Each lies on `device` or, where it is not that's, on the host. This is how rows are selected, reordered, repeated and reset. */
void model_state_put(const Model *model, Device *device, const ModelState *to, int64_t s, const ModelState *from,
                     int64_t of);
/* How many tokens sequence s has read, of models that count them; 0 of others, and on a dry device. */
int64_t model_state_length(Device *device, const ModelState *state, int64_t s);
/* Counts n more tokens of sequence s, where they are counted. */
void model_state_count(Device *device, const ModelState *state, int64_t s, int64_t n);
/* Bytes of one sequence's state: what does not grow, and what each token adds to it. */
typedef struct StateBytes {
  int64_t fixed, per_token;
} StateBytes;
StateBytes model_state_bytes(const Model *model, Dtype real);

/* The fields of a layer's state, to be walked through: names as in files. */
enum { STATE_N_FIELDS = 7 };
const char *state_field_name(int field);
Tensor **state_field(LayerState *state, int field);
/* Those that have a row for each token: (n_seq, room, width). */
bool state_field_grows(int field);
