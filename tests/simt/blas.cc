/* blas: see include/cublasLt.h. */
#include <cublasLt.h>

#include <vector>

#include "tests/simt/inside.h"

struct SimtProduct {
  cublasOperation_t a, b;
  cublasLtEpilogue_t epilogue;
  const void *bias; /* of c's type, one for each of its rows */
};
struct SimtLayout {
  cudaDataType_t type;
  int64_t rows, cols, ld;
};
struct SimtPreference {
  uint32_t align[3];
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) { return *handle = nullptr, CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *product, cublasComputeType_t, cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return *product = new SimtProduct{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr},
         CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t key,
                                              const void *value, size_t bytes) {
  const struct {
    cublasLtMatmulDescAttributes_t key;
    void *to;
    size_t bytes;
  } fields[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &product->a, sizeof product->a},
                {CUBLASLT_MATMUL_DESC_TRANSB, &product->b, sizeof product->b},
                {CUBLASLT_MATMUL_DESC_EPILOGUE, &product->epilogue, sizeof product->epilogue},
                {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &product->bias, sizeof product->bias}};
  for (const auto &field : fields)
    if (field.key == key && field.bytes == bytes) return memcpy(field.to, value, bytes), CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) { return delete product, CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  return *layout = new SimtLayout{type, (int64_t)rows, (int64_t)cols, ld}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return delete layout, CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
  return *preference = new SimtPreference{{256, 256, 256}}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t key, const void *value,
                                                    size_t bytes) {
  const int operand = key - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
  if (operand < 0 || operand > 2) return CUBLAS_STATUS_SUCCESS; /* no use for the others here */
  if (bytes != sizeof(uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
  return memcpy(&preference->align[operand], value, bytes), CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return delete preference, CUBLAS_STATUS_SUCCESS;
}

/* The largest power of two, up to 256, that divides the address. */
static uint32_t alignment(const void *at) {
  uint32_t bytes = 256;
  while ((uintptr_t)at % bytes) bytes /= 2;
  return bytes;
}

/* op(a) (m, k) op(b) (k, n) = c (m, n), in the library's columns */
static bool fits(const SimtProduct *product, const SimtLayout *a, const SimtLayout *b, const SimtLayout *c) {
  const int64_t m = product->a == CUBLAS_OP_N ? a->rows : a->cols, k = product->a == CUBLAS_OP_N ? a->cols : a->rows;
  const int64_t n = product->b == CUBLAS_OP_N ? b->cols : b->rows, k_b = product->b == CUBLAS_OP_N ? b->rows : b->cols;
  for (const SimtLayout *layout : {a, b, c})
    if (layout->ld < layout->rows) return false;
  return a->type == b->type && k == k_b && c->rows == m && c->cols == n &&
         (c->type == a->type || c->type == CUDA_R_32F);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int n_wanted, cublasLtMatmulHeuristicResult_t *found, int *n_found) {
  *n_found = 0;
  if (n_wanted < 1 || c != d || !fits(product, a, b, c)) return CUBLAS_STATUS_INVALID_VALUE;
  const uint32_t align_bias = product->bias ? alignment(product->bias) : 256; /* as its address is then */
  found->algo = {preference->align[0], preference->align[1], preference->align[2], align_bias};
  return *n_found = 1, CUBLAS_STATUS_SUCCESS;
}

static float load(const void *data, cudaDataType_t type, int64_t at) {
  if (type == CUDA_R_32F) return SIMT_READ((const float *)data + at, 4), ((const float *)data)[at];
  SIMT_READ((const uint16_t *)data + at, 2);
  const uint32_t bits = (uint32_t)((const uint16_t *)data)[at] << 16;
  float f;
  return memcpy(&f, &bits, 4), f;
}
static void store(void *data, cudaDataType_t type, int64_t at, float x) {
  if (type == CUDA_R_32F) {
    SIMT_WRITE((float *)data + at, 4);
    ((float *)data)[at] = x;
    return;
  }
  SIMT_WRITE((uint16_t *)data + at, 2);
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  ((uint16_t *)data)[at] = (uint16_t)(is_nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* All that a product needs once its descriptions are gone. */
struct Work {
  SimtProduct product;
  const void *a, *b;
  SimtLayout a_layout, b_layout, c_layout;
  void *c;
  float scale, keep;
};

static void multiply(const Work &w) {
  const SimtLibraryCall call("cublasLtMatmul");
  const bool a_t = w.product.a == CUBLAS_OP_T, b_t = w.product.b == CUBLAS_OP_T;
  const int64_t m = w.c_layout.rows, n = w.c_layout.cols, k = a_t ? w.a_layout.rows : w.a_layout.cols;
  std::vector<float> row((size_t)(m * k)), column((size_t)k);
  for (int64_t i = 0; i < m; i++)
    for (int64_t l = 0; l < k; l++)
      row[(size_t)(i * k + l)] = load(w.a, w.a_layout.type, a_t ? i * w.a_layout.ld + l : l * w.a_layout.ld + i);
  for (int64_t j = 0; j < n; j++) {
    for (int64_t l = 0; l < k; l++)
      column[(size_t)l] = load(w.b, w.b_layout.type, b_t ? l * w.b_layout.ld + j : j * w.b_layout.ld + l);
    for (int64_t i = 0; i < m; i++) {
      double sum = 0;
      for (int64_t l = 0; l < k; l++) sum += (double)row[(size_t)(i * k + l)] * (double)column[(size_t)l];
      const int64_t at = j * w.c_layout.ld + i;
      const float before = w.keep != 0 ? w.keep * load(w.c, w.c_layout.type, at) : 0;
      const float bias = w.product.epilogue == CUBLASLT_EPILOGUE_BIAS ? load(w.product.bias, w.c_layout.type, i) : 0;
      store(w.c, w.c_layout.type, at, w.scale * (float)sum + before + bias);
    }
  }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t, cudaStream_t stream) {
  const bool has_bias = product->epilogue == CUBLASLT_EPILOGUE_BIAS;
  if ((uintptr_t)workspace % 16 || (has_bias && (uintptr_t)product->bias % algorithm->align_bias))
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool aligned = (uintptr_t)a % algorithm->align_a == 0 && (uintptr_t)b % algorithm->align_b == 0 &&
                       (uintptr_t)d % algorithm->align_c == 0;
  if (!aligned || c != d || c_layout != d_layout || !fits(product, a_layout, b_layout, c_layout))
    return CUBLAS_STATUS_INVALID_VALUE;
  const Work work = {*product, a, b, *a_layout, *b_layout, *c_layout, d, *(const float *)alpha, *(const float *)beta};
  simt_enqueue(stream, [=] { return multiply(work), true; });
  return CUBLAS_STATUS_SUCCESS;
}
