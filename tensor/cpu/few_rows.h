/* few_rows: y = x w^T + bias for up to FEW_ROWS_MOST rows of x, the forward product of small batches and short windows. It is
 * computed as y^T = w x^T: the transposed x is small and stays in the second cache, and rows of w, which are the work, are
 * taken as they lie in memory, an element broadcast at a time. A library packs all of w first (docs/decisions.md).
 * Each sum runs over the columns of w from the first to the last, whatever the number of threads. */
#pragma once

#include "tensor/cpu/tile.h"
#include "tensor/cpu/tile_bf16.h"

#define few_rows CPU_SYMBOL(few_rows)
#define few_rows_scratch CPU_SYMBOL(few_rows_scratch)

enum { FEW_ROWS_MOST = 64 };

/* Whether few_rows takes these rows and types: in a build of 512-bit vectors all F32, or x and w BF16 where those vectors
 * multiply it. Narrower vectors and tiles of AMX stay with the library: slower here (AVX2), or never measured. */
static inline bool few_rows_pays(const Linear *p) {
#if LANES_BYTES < 64 || defined(ASPIS_REAL_F64)
  (void)p;
  return false;
#else
#if defined(TILE_BF16_AVX512) && !defined(TILE_BF16_AMX)
  const bool bf16_too = true;
#else
  const bool bf16_too = false;
#endif
  const Dtype dtype = p->x->dtype;
  return tensor_rows(p->x) <= FEW_ROWS_MOST && p->w->dtype == dtype && (dtype == F32 || bf16_too);
#endif
}

/* Bytes. */
size_t few_rows_scratch(const Linear *p);
void few_rows(const Linear *p);
