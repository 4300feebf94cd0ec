/* scatter: rows added to where an index says, in the order of the index, without atomics: what gathers and embeddings do
 * backward. */
#pragma once

#include "tensor/cuda/cuda.h"

/* to[index[i]] += from[i] for i in [0, n), `width` columns; not where the index is negative. */
void scatter_add(const int32_t *index, int64_t n, int64_t width, Rows from, Rows to);
