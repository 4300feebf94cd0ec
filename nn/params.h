/* params: the table of named parameters. It drives everything that walks parameters: init, gradients, clipping, AdamW,
 * checkpoints, weights in and out, `inspect`, tests. Names are the canonical ones (spec, section 6).
 *
 * Memory: five flat blocks with the same order of tensors: values | gradients | m | v | lower halves, in the device's
 * weights arena, so that optimiser, reduction and clipping are flat loops. Training takes 16 bytes a parameter, in F32 and
 * in BF16 alike: a BF16 value and its lower half are the float32 master. */
#pragma once

#include "tensor/device.h"

typedef enum InitKind {
  INIT_CONSTANT,     /* a */
  INIT_NORMAL,       /* mean 0, standard deviation a */
  INIT_UNIFORM,      /* [-a, a] */
  INIT_DT_BIAS,      /* softplus^-1(dt), dt log-uniform in [a, b], floored at c (spec 2.3) */
  INIT_LOG_UNIFORM_A /* log of uniform(a, b): A_log */
} InitKind;

typedef struct Init {
  InitKind kind;
  double a, b, c;
} Init;

#define PARAM_NAME_BYTES 96
enum { PARAMS_VERDICTS = 64 };
enum { PARAMS_FLAT_STEP = 32 }; /* every tensor begins at a multiple of this many elements of its flat block */

typedef struct Param {
  char name[PARAM_NAME_BYTES];
  Init init;
  bool keep_real; /* stays real in a BF16 model */
  bool decay;     /* weight decay applies */
  Tensor value;   /* act or real; value.grad points at grad */
  Tensor grad;    /* real */
  Tensor m, v;    /* real; AdamW */
  int16_t *low;   /* of a BF16 value in training: what its elements lack of their float32 masters (bf16_split) ... */
  int64_t first_low, n_low; /* ... [first_low, first_low + n_low): all, of a split table the own ones */
  int64_t flat;             /* where it begins in the flat blocks, in elements */
  Device *device;           /* the table's */
  Tensor exact;             /* the header of what the host was given of it last (param_exact) */
} Param;

typedef struct ParamTable {
  Param **params; /* stable addresses */
  int n_params, capacity;
  Tensor grads_flat;   /* all gradients as one (n) real tensor */
  Tensor *spare_grads; /* n_spare more like it: the tree of the virtual ranks */
  int n_spare;
  Tensor values_flat;               /* all values as bytes */
  Tensor m_flat, v_flat, lows_flat; /* of the own elements: moments; lower halves, BF16 (no data: values are real) */
  /* What a step is judged by, F64: the losses of the parts, all ranks' (at least n_ranges and 2^n_spare); of each owner of
   * n_own ranges, in their order, the squares of their gradients and where the first bad one is (n_own + 1: find_bad);
   * the verdicts on the last PARAMS_VERDICTS steps, step s at s % PARAMS_VERDICTS, and behind them the last one; and the
   * StepNumbers that the step goes by. */
  Tensor losses, found, verdicts, numbers;
  /* The flat elements in n_ranges ranges, the same whoever holds them: what norms are summed in and ranks share. The own
   * ones are [first_range, first_range + n_own): all of them, unless the optimiser's state is split over ranks. */
  int n_ranges, first_range, n_own;
  int64_t *bounds; /* n_ranges + 1 */
  Device *device;  /* where the table was laid out: a copy, since callers move theirs and memory stays */
} ParamTable;

/* Adds a parameter; the Tensor's address is stable, its memory comes with params_alloc.
 * keep_real: stays real in a BF16 model (dt_bias, A_log, D, B_bias, C_bias, mimo_*; spec). */
Tensor *params_add(ParamTable *table, const char *name, bool keep_real, int n_dim, const int64_t *dim, Init init,
                   bool decay);
/* The four kinds most layers are made of, named prefix + name:
 * a Linear's weight (n_out, n_in), uniform +-1/(sqrt(n_in) * divisor), decays; ... */
Tensor *params_add_linear(ParamTable *table, const char *prefix, const char *name, int64_t n_out, int64_t n_in,
                          double divisor);
/* ... a convolution's weight (n_channels, 1, n_taps), uniform +-1/sqrt(n_taps), decays; ... */
Tensor *params_add_conv(ParamTable *table, const char *prefix, const char *name, int64_t n_channels, int64_t n_taps);
/* ... a vector (n) that does not decay: biases and norm weights; ... */
Tensor *params_add_vector(ParamTable *table, const char *prefix, const char *name, int64_t n, Init init);
/* ... and what stays real and does not decay: the SSM's own parameters. */
Tensor *params_add_real(ParamTable *table, const char *prefix, const char *name, int n_dim, const int64_t *dim,
                        Init init);
#define INIT_VALUE(value) ((Init){.kind = INIT_CONSTANT, .a = (value)})
/* Before params_alloc: which ranges there are and which of them this table updates (n_ranges a power of two). Where that is
 * not all, there are moments and lower halves for these alone, and n_spare is at least 1. Without it there is one range, its
 * own. */
void params_share(ParamTable *table, int n_ranges, int first_range, int n_own);
static inline bool params_split(const ParamTable *table) { return table->n_own < table->n_ranges; }
static inline int params_n_owners(const ParamTable *table) { return table->n_ranges / table->n_own; }
/* n elements cut into n_ranges (a power of two) ranges by halves, at multiples of PARAMS_FLAT_STEP: range i is [bounds[i],
 * bounds[i + 1]). Ranges of fewer are whole numbers of those of more. */
void params_bounds(int64_t n, int n_ranges, int64_t *bounds);
/* Lays all parameters out in device->weights. Values have dtype `act` (keep_real ones: real). Gradients, and the
 * optimiser's state, only when training. n_spare: further gradient blocks. */
void params_alloc(ParamTable *table, Device *device, Dtype act, bool training, int n_spare);
/* Values (and their lower halves) from Philox: parameter i of the table draws stream (INIT, i). Nothing on a dry device. */
void params_init(ParamTable *table, uint64_t seed);
Param *params_find(const ParamTable *table, const char *name); /* NULL if absent */
int64_t params_count(const ParamTable *table);                 /* elements of all parameters */
/* All gradients to zero; nothing on a dry device. */
void params_zero_grads(ParamTable *table);
/* The same put off until something is added to each, or until params_set_grads zeroes those that nothing was added to. */
void params_unset_grads(ParamTable *table);
void params_set_grads(ParamTable *table);
/* The gradients become spare block i, and what stood there the gradients: nothing is copied. */
void params_swap_grads(ParamTable *table, int i);
/* The part of parameter i that is in the own ranges, as vectors; false: none is. Gradient and moments have the same place. */
typedef struct ParamPart {
  Tensor value, grad, m, v;
  int16_t *low;
} ParamPart;
bool params_own_part(const ParamTable *table, int i, ParamPart *part);
/* The gradients take the places that they were laid out in, whatever was swapped. */
void params_home_grads(ParamTable *table);
/* The verdict on the step before this one, and then on this one, in the device's memory. */
Verdict *params_verdict(const ParamTable *table);
/* What the next step goes by is written to the device's memory, and where it lies there. */
void params_tell_numbers(ParamTable *table, const StepNumbers *numbers);
const StepNumbers *params_numbers(const ParamTable *table);
/* The parameter that has this element of the flat blocks. */
const Param *params_at(const ParamTable *table, int64_t flat);
/* Where flat element `flat`, a multiple of PARAMS_FLAT_STEP, lies in values_flat, in bytes. */
int64_t params_value_place(const ParamTable *table, int64_t flat);
/* Of a split table: lets each parameter's m (or v) be a tensor in spare block 0, which must be free, and copies the own part
 * there or, with `back`, from there. */
void params_show_moment(ParamTable *table, bool second, bool back);
/* Of a split table with lower halves: lets each parameter have all of its, in spare block 0, which must be free, and copies
 * the own ones there; the rest of what is returned, as long as the gradients, the caller brings. Without `all`: back to the
 * own ones alone. */
Tensor params_show_lows(ParamTable *table, bool all);
/* The exact value as one tensor of the host: the value itself, unless it has lower halves. Then both are put together in
 * the gradient's place, which must be free, as it is between steps; valid until the next gradient. On another device than
 * the CPU it is the host's copy. Elements of others than the own are only BF16 there, unless params_show_lows brought the
 * rest. */
Tensor *param_exact(Param *param);
/* The way back, after writing to what param_exact returned. */
void param_refresh(Param *param);
void params_free(ParamTable *table);
