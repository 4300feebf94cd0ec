/* cross_entropy: classifier and softmax cross-entropy in one (spec 2.4). With logits l = x_t w^T over the real vocabulary:
 *   nll[t] = log sum_j exp(l_j) - l[target];   dl = dnll[t] (softmax(l) - onehot);   dx += dl w,  dw += dl^T x
 *
 * Chunked over tokens, as on the CPU: one chunk's logits exist at a time, in scratch, and turn into dl, in their own place
 * in float32, beside it in BF16. Only w's first vocab_size rows are read or written. A target outside the vocabulary, a
 * fault of the caller, makes NaN. */
#include "tensor/cuda/matmul.h"

constexpr int64_t CHUNK_LOGITS = 1 << 26, CHUNK_MIN = 256, CHUNK_MAX = 4096, LOGIT_ALIGN = 16;

/* A block has a row: logits to nll and, where wanted, dlogits. */
static __global__ void finish_row(int64_t first, int64_t n_v, const int32_t *target, Rows logits, Rows dlogits,
                                  Rows nll, Rows dnll, const double *dnll_known) {
  SHARED(float, spare);
  const int64_t r = blockIdx.x, t = first + r;
  const int32_t wanted = global_load(target + t);
  const bool ignored = wanted == CROSS_ENTROPY_IGNORE, bad = !ignored && (wanted < 0 || wanted >= n_v);
  float largest = -INFINITY, sum = 0;
  for (int64_t j = threadIdx.x; j < n_v; j += blockDim.x) largest = fmaxf(largest, logits.get(r, j));
  largest = block_max(largest, spare);
  for (int64_t j = threadIdx.x; j < n_v; j += blockDim.x) sum += expf(logits.get(r, j) - largest);
  sum = block_sum(sum, spare);
  const float target_logit = ignored ? 0 : bad ? NAN : logits.get(r, wanted);
  if (threadIdx.x == 0) nll.put(t, 0, ignored ? 0 : logf(sum) + largest - target_logit);
  if (!dlogits) return;
  __syncthreads(); /* target_logit is read */
  const float d = ignored ? 0 : dnll ? dnll.get(t, 0) : (float)global_load(dnll_known), scale = d / sum;
  for (int64_t j = threadIdx.x; j < n_v; j += blockDim.x)
    dlogits.put(r, j, expf(logits.get(r, j) - largest) * scale - (j == wanted ? d : 0));
}

static int64_t chunk_rows(const CrossEntropy *p) {
  const int64_t rows = max_i64(CHUNK_MIN, min_i64(CHUNK_MAX, CHUNK_LOGITS / p->vocab_size));
  return min_i64(rows, tensor_rows(p->x));
}
static int64_t logits_ld(const CrossEntropy *p) { return round_up(p->vocab_size, LOGIT_ALIGN); }
static size_t logits_bytes(const CrossEntropy *p, Dtype dtype) {
  return (size_t)(chunk_rows(p) * logits_ld(p)) * dtype_bytes(dtype);
}

/* The scratch: cuBLASLt's workspace, logits, dlogits where they are not the logits themselves. */
KERNEL_SCRATCH(cross_entropy, CrossEntropy) {
  (void)backward;
  return matmul_scratch() + logits_bytes(p, F32) + (p->x->dtype == BF16 ? logits_bytes(p, BF16) : 0);
}

static __global__ void zero_rows(int64_t n_rows, int64_t width, int64_t first, Rows to) {
  Place at;
  if (!place_of(n_rows, width, &at)) return;
  const float zeros[Rows::RUN] = {};
  to.put_run(first + at.row, at.col, at.n, zeros);
}

/* Both passes: nll, and the gradients that are wanted. */
static void run_chunks(const CrossEntropy *p) {
  const int64_t n_t = tensor_rows(p->x), n_v = p->vocab_size, width = tensor_last(p->x), ld = logits_ld(p);
  const bool is_bf16 = p->x->dtype == BF16, with_gradients = p->dx || p->dw;
  CHECK(p->w->dtype == p->x->dtype, "w %s for x %s", dtype_name(p->w->dtype), dtype_name(p->x->dtype));
  char *at = (char *)p->scratch + matmul_scratch();
  const Rows logits = {at, ld, false, false};
  const Rows dlogits = {is_bf16 ? at + logits_bytes(p, F32) : at, ld, is_bf16, false};
  if (p->dw && p->dw->unset) { /* what pads the vocabulary */
    const int64_t n_padding = p->dw->dim[0] - n_v;
    LAUNCH_RUNS(zero_rows, n_padding, width, n_v, rows_of(p->dw));
  }
  for (int64_t first = 0; first < n_t; first += chunk_rows(p)) {
    const int64_t n_rows = min_i64(chunk_rows(p), n_t - first);
    Factor x = factor_of(p->x, false), dl = {dlogits.data, ld, is_bf16, false};
    x.data = (const char *)x.data + (size_t)(first * x.ld) * dtype_bytes(p->x->dtype);
    matmul(n_rows, n_v, width, x, factor_of(p->w, true), nullptr, logits.data, ld, false, false, p->scratch);
    LAUNCH(finish_row, (unsigned)n_rows, row_threads(n_v), WARP * sizeof(float), first, n_v, ints_of(p->target), logits,
           with_gradients ? dlogits : Rows{}, rows_of(p->nll), rows_of(p->dnll), p->dnll_known);
    if (p->dx)
      matmul(n_rows, width, n_v, dl, factor_of(p->w, false), nullptr,
             (char *)p->dx->data + (size_t)(first * p->dx->ld) * dtype_bytes(p->dx->dtype), p->dx->ld,
             p->dx->dtype == BF16, !p->dx->unset, p->scratch);
    if (!p->dw) continue;
    dl.transposed = true;
    matmul(n_v, width, n_rows, dl, x, nullptr, p->dw->data, p->dw->ld, false, first > 0 || !p->dw->unset, p->scratch);
  }
}

KERNEL_FWD(cross_entropy, CrossEntropy) { run_chunks(p); }
KERNEL_BWD(cross_entropy, CrossEntropy) { run_chunks(p); }
