/* matmul: see matmul.h. cuBLASLt thinks in columns: a row-major c = a b is its c^T = b^T a^T, so the factors change places
 * and nothing is transposed for it.
 *
 * A product's plan (descriptors and the algorithm that the library picks first) is made once for each shape, types and
 * alignments, the bias's too, and kept. Schemes that add partial sums in place are left out: their order is not promised. */
#include "tensor/cuda/matmul.h"

#include <cublasLt.h>

constexpr size_t WORKSPACE_BYTES = (size_t)32 << 20;

#define BLAS_CHECK(call)                                                                                               \
  do {                                                                                                                 \
    const cublasStatus_t status_ = (call);                                                                             \
    CHECK(status_ == CUBLAS_STATUS_SUCCESS, "cuBLASLt: status %d (%s)", (int)status_, #call);                                    \
  } while (0)

/* What a plan depends on; compared as bytes, so made of what has no gaps. */
struct Shape {
  int64_t m, n, k, lda, ldb, ldc;
  uint32_t align_a, align_b, align_c, align_bias, flags, nothing; /* align_bias 0: there is none */
};
struct Plan {
  Shape shape;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t a, b, c;
  cublasLtMatmulAlgo_t algorithm;
};
constexpr uint32_t FLAG_A_T = 1, FLAG_B_T = 2, FLAG_BF16 = 4, FLAG_C_BF16 = 8, FLAG_ADDS = 16;
constexpr int MOST_PLANS = 256;

static cublasLtHandle_t handle;
static Plan plans[MOST_PLANS];
static int n_plans;

size_t matmul_scratch() { return WORKSPACE_BYTES; }

void matmul_open() { BLAS_CHECK(cublasLtCreate(&handle)); }

/* The largest power of two, up to 256, that divides the address. */
static uint32_t alignment(const void *at) {
  uint32_t bytes = 256;
  while ((uintptr_t)at % bytes) bytes /= 2;
  return bytes;
}

/* The layout of a factor, or of c, for the library: our rows are its columns. */
static cublasLtMatrixLayout_t layout(bool is_bf16, int64_t n_rows, int64_t n_cols, int64_t ld) {
  cublasLtMatrixLayout_t made;
  BLAS_CHECK(
      cublasLtMatrixLayoutCreate(&made, is_bf16 ? CUDA_R_16BF : CUDA_R_32F, (uint64_t)n_cols, (uint64_t)n_rows, ld));
  return made;
}

/* The bias is told before an algorithm is looked for: its address says how it is aligned (cublasLt.h). */
static void set_bias(const Plan *plan, const void *bias) {
  BLAS_CHECK(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
}

static void make_plan(const Shape &s, const void *bias, Plan *plan) {
  const bool a_t = s.flags & FLAG_A_T, b_t = s.flags & FLAG_B_T, is_bf16 = s.flags & FLAG_BF16;
  plan->shape = s;
  BLAS_CHECK(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t first = b_t ? CUBLAS_OP_T : CUBLAS_OP_N, second = a_t ? CUBLAS_OP_T : CUBLAS_OP_N;
  BLAS_CHECK(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
  BLAS_CHECK(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  if (bias) {
    BLAS_CHECK(
        cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    set_bias(plan, bias);
  }
  plan->a = layout(is_bf16, a_t ? s.k : s.m, a_t ? s.m : s.k, s.lda);
  plan->b = layout(is_bf16, b_t ? s.n : s.k, b_t ? s.k : s.n, s.ldb);
  plan->c = layout(s.flags & FLAG_C_BF16, s.m, s.n, s.ldc);

  cublasLtMatmulPreference_t preference;
  BLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  const struct {
    cublasLtMatmulPreferenceAttributes_t key;
    const void *value;
    size_t bytes;
  } wishes[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE_BYTES, sizeof WORKSPACE_BYTES},
                {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &s.align_b, sizeof s.align_b},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &s.align_a, sizeof s.align_a},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &s.align_c, sizeof s.align_c},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s.align_c, sizeof s.align_c}};
  for (const auto &wish : wishes)
    BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, wish.key, wish.value, wish.bytes));
  cublasLtMatmulHeuristicResult_t found;
  int n_found = 0;
  BLAS_CHECK(cublasLtMatmulAlgoGetHeuristic(handle, plan->product, plan->b, plan->a, plan->c, plan->c, preference, 1,
                                            &found, &n_found));
  CHECK(n_found == 1,
        "cuBLASLt has no product of %lld x %lld by %lld, rows of %lld, %lld and %lld, at multiples of %u, %u and %u bytes",
        (long long)s.m, (long long)s.k, (long long)s.n, (long long)s.lda, (long long)s.ldb, (long long)s.ldc, s.align_a,
        s.align_b, s.align_c);
  plan->algorithm = found.algo;
  BLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
}

static void destroy_plan(Plan *plan) {
  BLAS_CHECK(cublasLtMatmulDescDestroy(plan->product));
  BLAS_CHECK(cublasLtMatrixLayoutDestroy(plan->a));
  BLAS_CHECK(cublasLtMatrixLayoutDestroy(plan->b));
  BLAS_CHECK(cublasLtMatrixLayoutDestroy(plan->c));
}

static const Plan *plan_of(const Shape &shape, const void *bias) {
  for (int i = 0; i < n_plans; i++)
    if (memcmp(&plans[i].shape, &shape, sizeof shape) == 0) return &plans[i];
  if (n_plans == MOST_PLANS) { /* shapes that change all the time: begin again */
    for (int i = 0; i < n_plans; i++) destroy_plan(&plans[i]);
    n_plans = 0;
  }
  make_plan(shape, bias, &plans[n_plans]);
  return &plans[n_plans++];
}

void matmul(int64_t m, int64_t n, int64_t k, Factor a, Factor b, const void *bias, void *c, int64_t ldc, bool c_is_bf16,
            bool adds, void *scratch) {
  if (m == 0 || n == 0) return;
  CHECK(a.is_bf16 == b.is_bf16 && k > 0, "factors of two types, or nothing between them");
  Shape shape;
  memset(&shape, 0, sizeof shape);
  shape.m = m, shape.n = n, shape.k = k, shape.lda = a.ld, shape.ldb = b.ld, shape.ldc = ldc;
  shape.align_a = alignment(a.data), shape.align_b = alignment(b.data), shape.align_c = alignment(c);
  shape.align_bias = bias ? alignment(bias) : 0;
  shape.flags = (a.transposed ? FLAG_A_T : 0) | (b.transposed ? FLAG_B_T : 0) | (a.is_bf16 ? FLAG_BF16 : 0) |
                (c_is_bf16 ? FLAG_C_BF16 : 0) | (adds ? FLAG_ADDS : 0);
  if (cuda_walks((const void *)plan_of, 1, 1, WORKSPACE_BYTES, shape, a.data, b.data, bias, c, scratch)) return;
  const Plan *plan = plan_of(shape, bias);
  const float one = 1, keep = adds ? 1 : 0;
  if (bias) set_bias(plan, bias);
  BLAS_CHECK(cublasLtMatmul(handle, plan->product, &one, b.data, plan->b, a.data, plan->a, &keep, c, plan->c, c,
                            plan->c, &plan->algorithm, scratch, WORKSPACE_BYTES, cuda_device.stream));
}
