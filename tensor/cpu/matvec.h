/* matvec: y = x w^T + bias for few rows of x, the product of a decoding step. w is the work: it is read once, in the order it
 * lies in memory, each thread its own rows of it, as fast as memory gives it; x stays in the first cache. Sums are real's,
 * whatever the storage. */
#pragma once

#include "tensor/cpu/lanes.h"

#define matvec CPU_SYMBOL(matvec)
#define matvec_scratch CPU_SYMBOL(matvec_scratch)

/* Most rows of x for which this is not slower than a product in blocks. Not for the double build: in the definition a row's sum
 * does not depend on how many stand beside it. */
enum { MATVEC_MOST = 8 };

void matvec(const Linear *p);
size_t matvec_scratch(const Linear *p);
