/* tensors: see tensors.h. */
#include "tests/support/tensors.h"

#include <criterion/criterion.h>

#include "tensor/rng.h"

Device open_device(Dtype real_dtype) {
  Device device;
  Status status = device_open(&device, "cpu", real_dtype, (DeviceSizes){64u << 20, 256u << 20, 256u << 20});
  cr_assert(status.code == CODE_OK, "device: %s", status.line);
  return device;
}

Tensor *randn(Device *device, Dtype dtype, int64_t n_rows, int64_t n_cols, uint64_t seed) {
  Tensor *t = tensor_new2(&device->weights, dtype, n_rows, n_cols);
  Rng rng = rng_make(seed, RNG_TEST, 0, 0);
  for (int64_t i = 0; i < tensor_count(t); i++) tensor_set(t, i, rng_normal(&rng));
  t->needs_grad = true;
  return t;
}

Tensor *randn1(Device *device, Dtype dtype, int64_t n, uint64_t seed) {
  Tensor *t = randn(device, dtype, 1, n, seed);
  t->n_dim = 1, t->dim[0] = n;
  return t;
}

Tensor *randn3(Device *device, Dtype dtype, int64_t a, int64_t b, int64_t c, uint64_t seed) {
  Tensor *t = randn(device, dtype, a * b, c, seed);
  t->n_dim = 3, t->dim[0] = a, t->dim[1] = b, t->dim[2] = c;
  return t;
}

Tensor *ints(Device *device, int64_t n, const int32_t *values) {
  Tensor *t = tensor_new1(&device->weights, I32, n);
  for (int64_t i = 0; i < n; i++) tensor_set(t, i, values[i]);
  return t;
}

void give_grad(Device *device, Tensor *t) {
  t->grad = tensor_new(&device->weights, device->backend->real, t->n_dim, t->dim);
  tensor_zero(t->grad);
}

void seed_grad(Tape *tape, Tensor *out, uint64_t seed) {
  Tensor *grad = tape_grad(tape, out);
  Rng rng = rng_make(seed, RNG_TEST, 1, 0);
  for (int64_t i = 0; i < tensor_count(grad); i++) tensor_set(grad, i, tensor_get(grad, i) + rng_normal(&rng));
}
