/* carry: see carry.h. Pieces that go on take their row's state, others zero, by one gather a field; what the last piece of
 * each row leaves is gathered back by the layers themselves (ModelState.last). */
#include "train/carry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Carry carry_open(const Model *model, Device *device, int64_t n_rows, int64_t room) {
  const Dtype real = device->backend->real;
  return (Carry){.now = model_zero_state(model, device, &device->weights, real, n_rows, room),
                 .next = model_zero_state(model, device, &device->weights, real, n_rows, room),
                 .lost = true};
}

/* For each piece: its row, or -1 where it starts anew; the same as starts (LayerState); with attention, the tokens before it, which
 * only the device knows: a step that it held has moved no row. The last piece of each row. */
typedef struct Pieces {
  Tensor *row, *starts, *length, *last;
} Pieces;

/* `from` is what the rows' first pieces may go on from. With attention, `next` is told how long the rows are behind the batch. */
static Pieces pieces_of(const Carry *carry, Device *device, const Batch *batch, const ModelState *from,
                        int64_t first_row, int64_t n) {
  int32_t *row = base_alloc((size_t)n * sizeof *row), *starts = base_alloc((size_t)n * sizeof *starts),
          *last = base_alloc((size_t)batch->n_seq * sizeof *last),
          *own = base_zalloc((size_t)batch->n_seq * sizeof *own); /* tokens of that */
  int64_t piece = 0;
  for (int64_t s = 0; s < batch->n_seq && !device->dry; s++) {
    int64_t begin = 0;
    const bool goes_on = batch->goes_on[s] && !(carry->lost && batch->segment == 0);
    for (int64_t t = 0; t < batch->length; t++) {
      if (t > 0 && !(batch->begins && batch->begins[s * batch->length + t])) continue;
      const bool carried = t == 0 && goes_on;
      begin = t;
      row[piece] = carried ? (int32_t)(first_row + s) : -1;
      starts[piece++] = carried ? -1 : 0;
    }
    last[s] = (int32_t)piece - 1, own[s] = (int32_t)(batch->length - begin);
  }
  CHECK(device->dry || piece == n, "%lld pieces, expected %lld", (long long)piece, (long long)n);
  Pieces pieces = {.row = model_ints(device, row, n),
                   .starts = model_ints(device, starts, n),
                   .last = model_ints(device, last, batch->n_seq)};
  if (from->length) {
    pieces.length = tensor_new1(&device->step, I32, n);
    advance_fwd(device, &(Advance){.index = pieces.row, .x = from->length, .y = pieces.length});
    Tensor rows = tensor_over((int32_t *)carry->next.length->data + first_row, I32, 1, &batch->n_seq);
    advance_fwd(device, &(Advance){.index = pieces.last,
                                   .x = pieces.length,
                                   .more = model_ints(device, own, batch->n_seq),
                                   .y = &rows});
  }
  free(row), free(starts), free(last), free(own);
  return pieces;
}

void carry_pass(Carry *carry, const Model *model, Tape *tape, const Batch *batch, const Tensor *cu_seqlens,
                ModelState *start, ModelState *end) {
  Device *device = tape->device;
  Arena *arena = &device->step;
  const int64_t n = cu_seqlens->dim[0] - 1, first_row = batch->first % carry->now.n_seq;
  const ModelState *from = batch->segment == 0 ? &carry->now : &carry->next;
  const Pieces pieces = pieces_of(carry, device, batch, from, first_row, n);
  const size_t bytes = (size_t)model->config.n_layer * sizeof(LayerState);
  *start = (ModelState){.n_seq = n, .room = from->room, .length = pieces.length, .layers = arena_header(arena, bytes)};
  for (int i = 0; i < model->config.n_layer; i++) {
    start->layers[i] = (LayerState){.starts = pieces.starts};
    if (from->layers[i].length) start->layers[i].length = pieces.length;
    for (int f = 0; f < STATE_N_FIELDS; f++) {
      Tensor *rows = *state_field(&from->layers[i], f);
      if (!rows) continue;
      int64_t dim[TENSOR_MAX_DIM] = {n};
      for (int d = 1; d < rows->n_dim; d++) dim[d] = rows->dim[d];
      Tensor *field = tensor_new(arena, rows->dtype, rows->n_dim, dim);
      gather_fwd(device,
                 &(Gather){.width = tensor_count(rows) / rows->dim[0], .index = pieces.row, .x = rows, .y = field});
      *state_field(&start->layers[i], f) = field;
    }
  }
  *end = model_state_rows(model, arena, &carry->next, first_row, batch->n_seq);
  end->last = pieces.last;
  end->length = NULL; /* counted above */
}

void carry_hold(Carry *carry, const Model *model, Device *device) {
  const Verdict *verdict = params_verdict(&model->params);
  for (int i = 0; i < model->config.n_layer; i++)
    for (int f = 0; f < STATE_N_FIELDS; f++) {
      Tensor *from = *state_field(&carry->now.layers[i], f), *to = *state_field(&carry->next.layers[i], f);
      if (from) hold_fwd(device, &(Hold){.verdict = verdict, .x = from, .y = to});
    }
  if (carry->now.length) hold_fwd(device, &(Hold){.verdict = verdict, .x = carry->now.length, .y = carry->next.length});
}

void carry_commit(Carry *carry) {
  const ModelState now = carry->now;
  carry->now = carry->next, carry->next = now;
  carry->lost = false;
}

CheckpointTensor *carry_tensors(const Carry *carry, const Model *model, int *n) {
  CheckpointTensor *tensors = base_alloc((size_t)(model->config.n_layer * STATE_N_FIELDS + 1) * sizeof *tensors);
  *n = 0;
  for (int i = 0; i < model->config.n_layer; i++)
    for (int f = 0; f < STATE_N_FIELDS; f++) {
      Tensor *field = *state_field(&carry->now.layers[i], f);
      if (!field) continue;
      CheckpointTensor *tensor = &tensors[(*n)++];
      snprintf(tensor->name, sizeof tensor->name, "carry/%d/%s", i, state_field_name(f));
      tensor->tensor = field;
    }
  if (carry->now.length) tensors[(*n)++] = (CheckpointTensor){"carry/length", carry->now.length};
  return tensors;
}

void carry_gather(Carry *carry, const Model *model, Device *device, Dist *dist) {
  if (dist->size == 1) return;
  int n;
  CheckpointTensor *tensors = carry_tensors(carry, model, &n);
  for (int i = 0; i < n; i++) {
    const Tensor *rows = tensors[i].tensor, host = device_pull(device, rows);
    const size_t bytes = tensor_bytes(rows) / (size_t)dist->size;
    char *mine = base_alloc(bytes);
    memcpy(mine, (const char *)host.data + (size_t)dist->rank * bytes, bytes);
    dist_gather_all(dist, mine, host.data, bytes);
    device_push(device, rows);
    free(mine);
  }
  free(tensors);
}
