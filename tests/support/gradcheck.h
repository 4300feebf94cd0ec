/* gradcheck: backward rules against central differences in float64, on the double backend.
 *
 * loss = sum over outputs of <output, random direction>. Every input's gradient (all entries, or `max_entries` of them
 * chosen by a fixed seed) is compared: |analytic - numeric| / max(largest |entry|, 1e-3) < 1e-6. */
#pragma once

#include <criterion/criterion.h>

#include "autograd/ops.h"

enum { GRADCHECK_MAX_TENSORS = 32 };

/* Builds the operation from inputs on a fresh tape and sets outputs[]; returns their number. */
typedef int GradBuild(Tape *tape, Tensor **inputs, const void *options, Tensor **outputs);

typedef struct GradCase {
  char name[160]; /* says op and options; stands in every message */
  GradBuild *build;
  const void *options;
  Tensor **inputs;      /* F64 tensors, filled; needs_grad is set by the check; I32 and NULL entries are left alone */
  int n_inputs, n_data; /* the last n_data inputs are data, without gradient */
  /* bit i: in a BF16 model input i is a BF16 activation, or a BF16 weight (its gradient real) */
  unsigned acts, weights;
  int bf16_roundings; /* roundings to BF16 on the longest way to a result; 0: 3 (tests/test_simt.c) */
  int max_entries;    /* 0: all */
} GradCase;

/* Runs one case; fails the Criterion test (cr_assert) with the case's name, input, entry and both values. */
void gradcheck_run(const GradCase *c);

/* An arena-owned F64 tensor of a device opened once per test process: normal(mean, std) from Philox(seed, TEST). */
Tensor *gradcheck_randn(int n_dim, const int64_t *dim, double mean, double std, uint64_t seed);
/* An I32 tensor from values. */
Tensor *gradcheck_ints(int64_t n, const int32_t *values);

/* One per GRAD row of kernels.def: runs its grid of options and edge shapes. Missing: does not link. */
#define KERNEL_GRAD(op) void gradcheck_##op(void);
#define KERNEL_PLAIN(op)
#define KERNEL(op, Params, grad, scratch_kind) KERNEL_##grad(op)
#include "tensor/kernels.def"
#undef KERNEL
#undef KERNEL_GRAD
#undef KERNEL_PLAIN
