/* Every differentiable row of kernels.def has right gradients: one test a row, made from the table. The grids of options
 * and shapes are in tests/grad_<op>.c. */
#include "tests/support/gradcheck.h"

#define KERNEL_GRAD(op)                                                                                                \
  Test(gradcheck, op) { gradcheck_##op(); }
#define KERNEL_PLAIN(op)
#define KERNEL(op, Params, grad, scratch_kind) KERNEL_##grad(op)
#include "tensor/kernels.def"
