/* tensors: a device for the operations' tests, and tensors of random numbers on it. Helpers fail the test. */
#pragma once

#include "autograd/tape.h"

Device open_device(Dtype real_dtype); /* "cpu" */
/* Standard normal numbers in the weights arena, which need a gradient; shapes (n_rows, n_cols), (n), (a, b, c). */
Tensor *randn(Device *device, Dtype dtype, int64_t n_rows, int64_t n_cols, uint64_t seed);
Tensor *randn1(Device *device, Dtype dtype, int64_t n, uint64_t seed);
Tensor *randn3(Device *device, Dtype dtype, int64_t a, int64_t b, int64_t c, uint64_t seed);
Tensor *ints(Device *device, int64_t n, const int32_t *values);
/* A permanent gradient of type real, as a parameter has; zero. */
void give_grad(Device *device, Tensor *t);
/* Adds normal numbers to the gradient of an output. */
void seed_grad(Tape *tape, Tensor *out, uint64_t seed);
