/* cross_entropy: classifier and softmax cross-entropy in one (spec 2.4). With logits l = x_t w^T over the real vocabulary:
 *   nll[t] = log sum_j exp(l_j) - l[target];   dl = dnll[t] (softmax(l) - onehot);   dx += dl w,  dw += dl^T x
 *
 * Chunked over tokens: one chunk's logits exist at a time, in scratch, and backward computes them again, because keeping
 * them would take more memory than the rest of the model. Only w's first vocab_size rows are ever read or written. The
 * chunks' shares of dw are added in order. In a BF16 model dl is rounded to BF16, so that both products are BF16. */
#include "tensor/cpu/product.h"

/* Rows of a chunk: about CHUNK_LOGITS logits, between 256 and 1024 rows. Longer chunks make better products. */
enum { CHUNK_LOGITS = 1 << 23, CHUNK_MIN = 256, CHUNK_MAX = 1024, LOGIT_ALIGN = 16 };

/* One chunk's matrices; `x` and `nll` rows start at `first`. */
typedef struct Chunk {
  int64_t first, n_rows;
  GemmMatrix x, w, logits, dlogits;
  void *product_scratch;
} Chunk;

static int64_t chunk_rows(const CrossEntropy *p) {
  const int64_t rows = max_i64(CHUNK_MIN, min_i64(CHUNK_MAX, CHUNK_LOGITS / p->vocab_size));
  return min_i64(rows, tensor_rows(p->x));
}

static Dtype dlogits_dtype(const CrossEntropy *p) { return p->x->dtype == BF16 ? BF16 : REAL_DTYPE; }

static size_t logits_bytes(const CrossEntropy *p, Dtype dtype) {
  return (size_t)(chunk_rows(p) * round_up(p->vocab_size, LOGIT_ALIGN)) * dtype_bytes(dtype);
}

/* The scratch: logits, dlogits where they are not the logits themselves, the products' own. */
static Chunk chunk_at(const CrossEntropy *p, int64_t first) {
  const int64_t ld = round_up(p->vocab_size, LOGIT_ALIGN);
  char *scratch = p->scratch;
  Chunk c = {.first = first, .n_rows = min_i64(chunk_rows(p), tensor_rows(p->x) - first)};
  c.x = product_part(product_matrix(p->x, false), first, 0);
  c.w = product_matrix(p->w, false);
  c.logits = (GemmMatrix){.data = scratch, .dtype = REAL_DTYPE, .ld = ld};
  c.dlogits = (GemmMatrix){.data = scratch, .dtype = dlogits_dtype(p), .ld = ld};
  scratch += logits_bytes(p, REAL_DTYPE);
  if (c.dlogits.dtype != REAL_DTYPE) {
    c.dlogits.data = scratch;
    scratch += logits_bytes(p, c.dlogits.dtype);
  }
  c.product_scratch = scratch;
  return c;
}

static GemmMatrix transposed(GemmMatrix x) {
  x.transposed = !x.transposed;
  return x;
}

KERNEL_SCRATCH(cross_entropy, CrossEntropy) {
  CrossEntropy at_zero = *p;
  at_zero.scratch = NULL;
  const Chunk c = chunk_at(&at_zero, 0);
  const int64_t n_v = p->vocab_size, width = tensor_last(p->x);
  size_t of_product = product_scratch(c.n_rows, n_v, width, c.x, transposed(c.w), c.logits);
  if (backward && p->dx) {
    size_t bytes = product_scratch(c.n_rows, width, n_v, c.dlogits, c.w, product_matrix(p->dx, false));
    if (bytes > of_product) of_product = bytes;
  }
  if (backward && p->dw) {
    size_t bytes = product_scratch(n_v, width, c.n_rows, transposed(c.dlogits), c.x, product_matrix(p->dw, false));
    if (bytes > of_product) of_product = bytes;
  }
  return logits_bytes(p, REAL_DTYPE) + (c.dlogits.dtype == REAL_DTYPE ? 0 : logits_bytes(p, c.dlogits.dtype)) +
         of_product;
}

static void chunk_logits(const CrossEntropy *p, const Chunk *c) {
  product(c->n_rows, p->vocab_size, tensor_last(p->x), c->x, transposed(c->w), false, c->logits, c->product_scratch);
}

/* The largest of a row: a maximum in each of LANES columns first, which compilers vectorise without -ffast-math. */
static real row_max(const real *restrict l, int64_t n) {
  enum { LANES = 16 };
  real lane[LANES], max = l[0];
  for (int i = 0; i < LANES; i++) lane[i] = l[0];
  const int64_t whole = n - n % LANES;
  for (int64_t j = 0; j < whole; j += LANES)
    for (int i = 0; i < LANES; i++) lane[i] = l[j + i] > lane[i] ? l[j + i] : lane[i];
  for (int i = 0; i < LANES; i++) max = lane[i] > max ? lane[i] : max;
  for (int64_t j = whole; j < n; j++) max = l[j] > max ? l[j] : max;
  return max;
}

/* Replaces a row by exp(l - max); returns the sum. */
static real row_exp(real *restrict l, int64_t n, real max) {
  for (int64_t j = 0; j < n; j++) l[j] = real_exp(l[j] - max);
  real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += l[j];
  return sum;
}

static void check_target(int32_t target, int64_t t, int vocab_size) {
  CHECK(target >= 0 && target < vocab_size, "target %d at %lld of a vocabulary of %d", target, (long long)t,
        vocab_size);
}

KERNEL_FWD(cross_entropy, CrossEntropy) {
  const int64_t n_t = tensor_rows(p->x), n_v = p->vocab_size;
  const int32_t *target = p->target->data;
  real *nll = p->nll->data;
  for (int64_t first = 0; first < n_t; first += chunk_rows(p)) {
    const Chunk c = chunk_at(p, first);
    chunk_logits(p, &c);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < c.n_rows; r++) {
      const int64_t t = first + r;
      real *l = (real *)c.logits.data + r * c.logits.ld;
      nll[t] = 0;
      if (target[t] == CROSS_ENTROPY_IGNORE) continue;
      check_target(target[t], t, p->vocab_size);
      const real max = row_max(l, n_v), target_logit = l[target[t]];
      nll[t] = R(log)(row_exp(l, n_v, max)) + max - target_logit;
    }
  }
}

/* Logits of row r into dnll (softmax - onehot), in their own place. */
static void row_gradient(const CrossEntropy *p, const Chunk *c, int64_t r) {
  const int64_t t = c->first + r, n_v = p->vocab_size;
  const int32_t target = ((const int32_t *)p->target->data)[t];
  const real dnll = ((const real *)p->dnll->data)[t];
  real *restrict l = (real *)c->logits.data + r * c->logits.ld;
  if (target == CROSS_ENTROPY_IGNORE) {
    memset(l, 0, (size_t)n_v * sizeof(real));
    return;
  }
  check_target(target, t, p->vocab_size);
  const real scale = dnll / row_exp(l, n_v, row_max(l, n_v));
  for (int64_t j = 0; j < n_v; j++) l[j] *= scale;
  l[target] -= dnll;
}

KERNEL_BWD(cross_entropy, CrossEntropy) {
  const int64_t n_t = tensor_rows(p->x), n_v = p->vocab_size, width = tensor_last(p->x);
  for (int64_t first = 0; first < n_t; first += chunk_rows(p)) {
    const Chunk c = chunk_at(p, first);
    chunk_logits(p, &c);
    Tensor dlogits = {.data = c.dlogits.data, .dtype = c.dlogits.dtype, .ld = c.dlogits.ld};
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < c.n_rows; r++) {
      row_gradient(p, &c, r);
      row_store(&dlogits, r, n_v, (const real *)c.logits.data + r * c.logits.ld);
    }
    if (p->dx)
      product(c.n_rows, width, n_v, c.dlogits, c.w, true, product_part(product_matrix(p->dx, false), first, 0),
              c.product_scratch);
    if (p->dw)
      product(n_v, width, c.n_rows, transposed(c.dlogits), c.x, true, product_matrix(p->dw, false), c.product_scratch);
  }
}
