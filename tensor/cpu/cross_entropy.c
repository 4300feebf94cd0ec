/* cross_entropy: classifier and softmax cross-entropy in one (spec 2.4). With logits l = x_t w^T over the real vocabulary:
 *   nll[t] = log sum_j exp(l_j) - l[target];   dl = dnll[t] (softmax(l) - onehot);   dx += dl w,  dw += dl^T x
 *
 * Chunked over tokens: one chunk's logits exist at a time, in scratch, and turn into dl in their own place. Where dnll is
 * known ahead, the forward pass does it all; backward, where it is not, computes the logits again, because keeping them
 * would take more memory than the rest of the model. Only w's first vocab_size rows are ever read or written. The chunks'
 * shares of dw are added in order. In a BF16 model dl is rounded to BF16 where the processor's BF16 products pay, so that
 * both products are BF16. */
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

static Dtype dlogits_dtype(const CrossEntropy *p) {
  return p->x->dtype == BF16 && product_has_bf16() ? BF16 : REAL_DTYPE;
}

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
  (void)backward;
  CrossEntropy at_zero = *p;
  at_zero.scratch = NULL;
  const Chunk c = chunk_at(&at_zero, 0);
  const int64_t n_v = p->vocab_size, width = tensor_last(p->x);
  size_t of_product = product_scratch(c.n_rows, n_v, width, c.x, transposed(c.w), c.logits);
  if (p->dx) {
    size_t bytes = product_scratch(c.n_rows, width, n_v, c.dlogits, c.w, product_matrix(p->dx, false));
    if (bytes > of_product) of_product = bytes;
  }
  if (p->dw) {
    size_t bytes = product_scratch(n_v, width, c.n_rows, transposed(c.dlogits), c.x, product_matrix(p->dw, false));
    if (bytes > of_product) of_product = bytes;
  }
  return logits_bytes(p, REAL_DTYPE) + (c.dlogits.dtype == REAL_DTYPE ? 0 : logits_bytes(p, c.dlogits.dtype)) +
         of_product;
}

/* The largest of a row: a maximum in each of STRIPES columns first, which compilers vectorise without -ffast-math. */
static real row_max(const real *restrict l, int64_t n) {
  enum { STRIPES = 16 };
  real lane[STRIPES], max = l[0];
  for (int i = 0; i < STRIPES; i++) lane[i] = l[0];
  const int64_t whole = n - n % STRIPES;
  for (int64_t j = 0; j < whole; j += STRIPES)
    for (int i = 0; i < STRIPES; i++) lane[i] = l[j + i] > lane[i] ? l[j + i] : lane[i];
  for (int i = 0; i < STRIPES; i++) max = lane[i] > max ? lane[i] : max;
  for (int64_t j = whole; j < n; j++) max = l[j] > max ? l[j] : max;
  return max;
}

/* Replaces a row by exp(l - max); returns the sum. */
static real row_exp(real *restrict l, int64_t n, real max) {
  real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    l[j] = real_exp(l[j] - max);
    sum += l[j];
  }
  return sum;
}

/* Logits of row r into the token's nll and, in their own place, dnll (softmax - onehot). */
static void finish_row(const CrossEntropy *p, const Chunk *c, int64_t r) {
  const int64_t t = c->first + r, n_v = p->vocab_size;
  const int32_t target = ((const int32_t *)p->target->data)[t];
  real *restrict l = (real *)c->logits.data + r * c->logits.ld, *nll = (real *)p->nll->data + t;
  if (target == CROSS_ENTROPY_IGNORE) {
    *nll = 0;
    memset(l, 0, (size_t)n_v * sizeof(real));
    return;
  }
  CHECK(target >= 0 && target < n_v, "target %d at %lld of a vocabulary of %d", target, (long long)t, p->vocab_size);
  const real max = row_max(l, n_v), target_logit = l[target], sum = row_exp(l, n_v, max);
  *nll = R(log)(sum) + max - target_logit;
  if (!p->dx && !p->dw) return;
  const real dnll = p->dnll ? ((const real *)p->dnll->data)[t] : (real)*p->dnll_known, scale = dnll / sum;
  for (int64_t j = 0; j < n_v; j++) l[j] *= scale;
  l[target] -= dnll;
}

/* Both passes: nll, and the gradients that are wanted. */
static void run_chunks(const CrossEntropy *p) {
  const int64_t n_t = tensor_rows(p->x), n_v = p->vocab_size, width = tensor_last(p->x);
  for (int64_t v = n_v; p->dw && p->dw->unset && v < p->dw->dim[0]; v++) /* what pads the vocabulary */
    memset((char *)p->dw->data + (size_t)(v * p->dw->ld) * dtype_bytes(p->dw->dtype), 0,
           (size_t)width * dtype_bytes(p->dw->dtype));
  for (int64_t first = 0; first < n_t; first += chunk_rows(p)) {
    const Chunk c = chunk_at(p, first);
    product(c.n_rows, n_v, width, c.x, transposed(c.w), false, c.logits, c.product_scratch);
    Tensor dlogits = {.data = c.dlogits.data, .dtype = c.dlogits.dtype, .ld = c.dlogits.ld};
#pragma omp parallel for schedule(static) if (parallel_pays(c.n_rows * n_v))
    for (int64_t r = 0; r < c.n_rows; r++) {
      finish_row(p, &c, r);
      if (p->dx || p->dw) row_store(&dlogits, r, n_v, (const real *)c.logits.data + r * c.logits.ld);
    }
    if (p->dx)
      product(c.n_rows, width, n_v, c.dlogits, c.w, !p->dx->unset, product_part(product_matrix(p->dx, false), first, 0),
              c.product_scratch);
    if (p->dw)
      product(n_v, width, c.n_rows, transposed(c.dlogits), c.x, first > 0 || !p->dw->unset,
              product_matrix(p->dw, false), c.product_scratch);
  }
}

KERNEL_FWD(cross_entropy, CrossEntropy) { run_chunks(p); }
KERNEL_BWD(cross_entropy, CrossEntropy) { run_chunks(p); }
