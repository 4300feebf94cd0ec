/* tensor: a typed block of rows. Memory belongs to an arena; headers too. Nothing here is freed one by one.
 *
 * An activation is (tokens, width). A view shares its base's memory and its base's gradient: columns of a projection
 * (x, B, C, dt of one in_proj) and every n-th row (the last position of each sequence) are views, so nothing is copied. */
#pragma once

#include "tensor/arena.h"

#define TENSOR_MAX_DIM 4

typedef enum Dtype { F32, BF16, I32, F64 } Dtype;

typedef struct Tensor Tensor;
struct Tensor {
  void *data; /* first element of the tensor or view */
  Dtype dtype;
  int n_dim;
  int64_t dim[TENSOR_MAX_DIM];
  int64_t ld; /* elements from one row (last dimension) to the next; dim[n_dim-1] unless a view */
  bool needs_grad;
  Tensor *grad;                   /* NULL until asked for (tape_grad); a parameter's is permanent */
  bool unset;                     /* a gradient that nothing was added to yet: the memory holds no zeros, either */
  int n_asked;                    /* a gradient: how often a rule asked for it, to add to it */
  struct ColumnRuns *written;     /* the tape's, of an unset gradient that views write: which columns they have */
  Tensor *base;                   /* of a view: whose memory and gradient it shares; else NULL */
  int64_t base_offset, base_step; /* of a view: first element in the base, rows of the base per row of the view */
};

size_t dtype_bytes(Dtype dtype);
const char *dtype_name(Dtype dtype); /* "f32", ... */

/* bfloat16 storage: the upper half of a float, rounded to nearest even; NaN stays NaN. */
ON_DEVICE_TOO static inline float bf16_to_float(uint16_t h) {
  union {
    uint32_t u;
    float f;
  } bits = {.u = (uint32_t)h << 16};
  return bits.f;
}
ON_DEVICE_TOO static inline uint16_t bf16_from_float(float x) {
  union {
    float f;
    uint32_t u;
  } bits = {.f = x};
  if ((bits.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits.u >> 16) | 0x40u);
  return (uint16_t)((bits.u + 0x7fffu + ((bits.u >> 16) & 1u)) >> 16);
}

/* A float as the nearest bfloat16 (halfway: away from zero) and its lower half, signed: together the float to the last
 * bit, in its own four bytes. */
ON_DEVICE_TOO static inline uint16_t bf16_split(float x, int16_t *low) {
  union {
    float f;
    uint32_t u;
  } bits = {.f = x};
  *low = (int16_t)(uint16_t)bits.u;
  return (uint16_t)((bits.u + 0x8000u) >> 16);
}
ON_DEVICE_TOO static inline float bf16_join(uint16_t high, int16_t low) {
  union {
    uint32_t u;
    float f;
  } bits = {.u = ((uint32_t)high << 16) + (uint32_t)(int32_t)low};
  return bits.f;
}

/* A contiguous tensor, header and memory from the arena; memory not initialised. */
Tensor *tensor_new(Arena *arena, Dtype dtype, int n_dim, const int64_t *dim);
#define tensor_new1(arena, dtype, d0) tensor_new(arena, dtype, 1, (const int64_t[]){d0})
#define tensor_new2(arena, dtype, d0, d1) tensor_new(arena, dtype, 2, (const int64_t[]){d0, d1})
#define tensor_new3(arena, dtype, d0, d1, d2) tensor_new(arena, dtype, 3, (const int64_t[]){d0, d1, d2})
#define tensor_new4(arena, dtype, d0, d1, d2, d3) tensor_new(arena, dtype, 4, (const int64_t[]){d0, d1, d2, d3})
/* A header over memory somebody else owns (contiguous). */
Tensor tensor_over(void *data, Dtype dtype, int n_dim, const int64_t *dim);
/* Gives a contiguous tensor without a gradient yet another shape of as many elements. */
void tensor_reshape(Tensor *t, int n_dim, const int64_t *dim);
/* View: columns [col, col+n_cols) of a 2-d tensor. */
Tensor *tensor_cols(Arena *arena, Tensor *base, int64_t col, int64_t n_cols);
/* View: n_rows rows of a 2-d tensor, `first`, first+step, ... */
Tensor *tensor_every(Arena *arena, Tensor *base, int64_t first, int64_t step, int64_t n_rows);
/* The view that `view` is of its base, taken of `other` (shaped like that base): how a gradient is found. */
Tensor *tensor_same_view(Arena *arena, const Tensor *view, Tensor *other);

int64_t tensor_count(const Tensor *t); /* elements */
static inline int64_t tensor_last(const Tensor *t) { return t->dim[t->n_dim - 1]; }
int64_t tensor_rows(const Tensor *t); /* product of all dimensions but the last */
static inline bool tensor_contiguous(const Tensor *t) { return t->ld == tensor_last(t) || tensor_rows(t) <= 1; }
size_t tensor_bytes(const Tensor *t); /* of the elements */
bool tensor_same_shape(const Tensor *a, const Tensor *b);
/* "(2, 41, 32)" into a static thread-local buffer, for messages. */
const char *tensor_shape_text(const Tensor *t);

/* One element as double, and back; any float dtype; I32 too. For tests, init and host code, not for kernels. */
double tensor_get(const Tensor *t, int64_t i); /* i counts elements row by row */
void tensor_set(Tensor *t, int64_t i, double value);
void tensor_zero(Tensor *t);
/* Copies and converts between dtypes; same number of elements, row lengths equal or both contiguous. */
void tensor_copy(Tensor *to, const Tensor *from);
