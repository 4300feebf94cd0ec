/* tensor: see tensor.h. */
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  size_t bytes;
} DTYPES[] = {[F32] = {"f32", 4}, [BF16] = {"bf16", 2}, [I32] = {"i32", 4}, [F64] = {"f64", 8}};

size_t dtype_bytes(Dtype dtype) { return DTYPES[dtype].bytes; }
const char *dtype_name(Dtype dtype) { return DTYPES[dtype].name; }

Tensor tensor_over(void *data, Dtype dtype, int n_dim, const int64_t *dim) {
  CHECK(n_dim >= 1 && n_dim <= TENSOR_MAX_DIM, "%d dimensions", n_dim);
  Tensor t = {.data = data, .dtype = dtype, .n_dim = n_dim};
  for (int i = 0; i < n_dim; i++) {
    CHECK(dim[i] >= 0, "dimension %d is %lld", i, (long long)dim[i]);
    t.dim[i] = dim[i];
  }
  t.ld = dim[n_dim - 1];
  return t;
}

void tensor_reshape(Tensor *t, int n_dim, const int64_t *dim) {
  const Tensor shaped = tensor_over(t->data, t->dtype, n_dim, dim);
  CHECK(tensor_contiguous(t) && !t->base && !t->grad && tensor_count(&shaped) == tensor_count(t), "%s as another shape",
        tensor_shape_text(t));
  t->n_dim = n_dim, t->ld = shaped.ld;
  memcpy(t->dim, shaped.dim, sizeof t->dim);
}

/* Headers live outside the arena's dry memory: a dry run needs them for real. */
static Tensor *header_new(Arena *arena, Tensor value) {
  Tensor *t = arena_header(arena, sizeof(Tensor));
  *t = value;
  return t;
}

Tensor *tensor_new(Arena *arena, Dtype dtype, int n_dim, const int64_t *dim) {
  Tensor t = tensor_over(NULL, dtype, n_dim, dim);
  t.data = arena_alloc(arena, tensor_bytes(&t));
  return header_new(arena, t);
}

Tensor *tensor_cols(Arena *arena, Tensor *base, int64_t col, int64_t n_cols) {
  CHECK(base->n_dim == 2 && !base->base, "columns of a view or of %s", tensor_shape_text(base));
  CHECK(col >= 0 && n_cols >= 0 && col + n_cols <= base->dim[1], "columns %lld + %lld of %s", (long long)col,
        (long long)n_cols, tensor_shape_text(base));
  Tensor t = *base;
  t.base = base, t.base_offset = col, t.base_step = 1, t.grad = NULL;
  t.data = (char *)base->data + (size_t)col * dtype_bytes(base->dtype);
  t.dim[1] = n_cols;
  return header_new(arena, t);
}

Tensor *tensor_every(Arena *arena, Tensor *base, int64_t first, int64_t step, int64_t n_rows) {
  CHECK(base->n_dim == 2 && !base->base, "rows of a view or of %s", tensor_shape_text(base));
  CHECK(first >= 0 && step >= 1 && n_rows >= 0 && (n_rows == 0 || first + (n_rows - 1) * step < base->dim[0]),
        "rows %lld + %lld * %lld of %s", (long long)first, (long long)n_rows, (long long)step, tensor_shape_text(base));
  Tensor t = *base;
  t.base = base, t.base_offset = first * base->ld, t.base_step = step, t.grad = NULL;
  t.data = (char *)base->data + (size_t)t.base_offset * dtype_bytes(base->dtype);
  t.dim[0] = n_rows;
  t.ld = base->ld * step;
  return header_new(arena, t);
}

Tensor *tensor_same_view(Arena *arena, const Tensor *view, Tensor *other) {
  CHECK(view->base && tensor_same_shape(view->base, other), "not a view, or of another shape");
  Tensor t = *other;
  t.base = other, t.base_offset = view->base_offset, t.base_step = view->base_step, t.grad = NULL, t.written = NULL;
  t.data = (char *)other->data + (size_t)view->base_offset * dtype_bytes(other->dtype);
  t.dim[0] = view->dim[0], t.dim[1] = view->dim[1];
  t.ld = other->ld * view->base_step;
  return header_new(arena, t);
}

int64_t tensor_count(const Tensor *t) { return tensor_rows(t) * tensor_last(t); }

int64_t tensor_rows(const Tensor *t) {
  int64_t rows = 1;
  for (int i = 0; i + 1 < t->n_dim; i++) rows *= t->dim[i];
  return rows;
}

size_t tensor_bytes(const Tensor *t) { return (size_t)tensor_count(t) * dtype_bytes(t->dtype); }

bool tensor_same_shape(const Tensor *a, const Tensor *b) {
  return a->n_dim == b->n_dim && memcmp(a->dim, b->dim, (size_t)a->n_dim * sizeof a->dim[0]) == 0;
}

const char *tensor_shape_text(const Tensor *t) {
  static _Thread_local char text[4][96];
  static _Thread_local int turn;
  char *out = text[turn = (turn + 1) % 4];
  int n = snprintf(out, sizeof text[0], "(");
  for (int i = 0; i < t->n_dim; i++)
    n += snprintf(out + n, sizeof text[0] - (size_t)n, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
  snprintf(out + n, sizeof text[0] - (size_t)n, ")");
  return out;
}

static size_t element_at(const Tensor *t, int64_t i) {
  CHECK(i >= 0 && i < tensor_count(t), "element %lld of %s", (long long)i, tensor_shape_text(t));
  int64_t width = tensor_last(t);
  return (size_t)(i / width * t->ld + i % width);
}

double tensor_get(const Tensor *t, int64_t i) {
  size_t at = element_at(t, i);
  switch (t->dtype) {
  case F32: return ((const float *)t->data)[at];
  case BF16: return bf16_to_float(((const uint16_t *)t->data)[at]);
  case I32: return ((const int32_t *)t->data)[at];
  case F64: return ((const double *)t->data)[at];
  }
  return 0;
}

void tensor_set(Tensor *t, int64_t i, double value) {
  size_t at = element_at(t, i);
  switch (t->dtype) {
  case F32: ((float *)t->data)[at] = (float)value; break;
  case BF16: ((uint16_t *)t->data)[at] = bf16_from_float((float)value); break;
  case I32: ((int32_t *)t->data)[at] = (int32_t)value; break;
  case F64: ((double *)t->data)[at] = value; break;
  }
}

/* In parts for all threads where it is long: the memory of one core is not all there is. */
static void zero_bytes(char *at, size_t n_bytes) {
  const size_t part = (size_t)1 << 18;
#pragma omp parallel for schedule(static) if (n_bytes >= 8 * part)
  for (size_t i = 0; i < n_bytes; i += part) memset(at + i, 0, n_bytes - i < part ? n_bytes - i : part);
}

void tensor_zero(Tensor *t) {
  size_t row_bytes = (size_t)tensor_last(t) * dtype_bytes(t->dtype), step = (size_t)t->ld * dtype_bytes(t->dtype);
  if (tensor_contiguous(t)) zero_bytes(t->data, tensor_bytes(t));
  else
    for (int64_t r = 0; r < tensor_rows(t); r++) memset((char *)t->data + (size_t)r * step, 0, row_bytes);
}

void tensor_copy(Tensor *to, const Tensor *from) {
  int64_t n = tensor_count(to);
  CHECK(n == tensor_count(from), "copy of %s to %s", tensor_shape_text(from), tensor_shape_text(to));
  if (to->dtype == from->dtype && tensor_contiguous(to) && tensor_contiguous(from)) {
    if (n) memcpy(to->data, from->data, tensor_bytes(to));
    return;
  }
  for (int64_t i = 0; i < n; i++) tensor_set(to, i, tensor_get(from, i));
}
