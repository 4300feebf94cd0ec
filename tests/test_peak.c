/* The loops that measure a machine's ceilings do the work they count, in every build of the kernels that runs here. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/device.h"

enum { N_THREADS = 3, N = 203 };

typedef struct Fixture {
  Device device;
  const char *build;
  Tensor *x, *y;
} Fixture;

/* False where this processor lacks the build. */
static bool fixture_open(Fixture *f, int build) {
  f->build = device_cpu_build(build);
  setenv("ASPIS_CPU", f->build, 1);
  Status status = device_open(&f->device, "cpu", F32, (DeviceSizes){.weights_bytes = 1 << 20});
  if (status.code == CODE_USAGE) {
    status_clear(&status);
    return false;
  }
  cr_assert(status.code == CODE_OK, "%s: %s", f->build, status.line);
  f->x = tensor_new2(&f->device.weights, F32, N_THREADS, N);
  f->y = tensor_new2(&f->device.weights, F32, N_THREADS, N);
  for (int i = 0; i < N_THREADS * N; i++) {
    tensor_set(f->x, i, i % 7);
    tensor_set(f->y, i, 0);
  }
  return true;
}

static double peak_work(Fixture *f, PeakKind kind, int64_t n_rounds) {
  double work = -1;
  peak_fwd(&f->device, &(Peak){.kind = kind, .n_rounds = n_rounds, .x = f->x, .y = f->y, .work = &work});
  return work;
}

#define EACH_BUILD(f)                                                                                                  \
  for (int build = 0; device_cpu_build(build); build++)                                                                \
    for (bool open = fixture_open(&f, build); open; open = false, device_close(&f.device))

Test(peak, arithmetic_is_done_as_often_as_counted) {
  Fixture f;
  EACH_BUILD(f) {
    const double one = peak_work(&f, PEAK_FMA, 1), value = tensor_get(f.x, 0), hundred = peak_work(&f, PEAK_FMA, 100);
    cr_expect(one > 0 && hundred == 100 * one, "%s: %g FLOPs in one round, %g in a hundred", f.build, one, hundred);
    /* twelve chains from c/12, halved and increased once: 12 + (0 + ... + 11) / 24 */
    cr_expect_float_eq(value, 14.75, 1e-5, "%s: the chains end at %g after a round", f.build, value);
    cr_expect_float_eq(tensor_get(f.x, N), 24, 1e-5, "%s: the chains end at %g after a hundred", f.build,
                       tensor_get(f.x, N));
  }
}

Test(peak, bf16_products_are_counted_where_the_build_has_them) {
  Fixture f;
  EACH_BUILD(f) {
    const bool has = strcmp(f.build, "amx") == 0 || strcmp(f.build, "avx512_bf16") == 0;
    const double work = peak_work(&f, PEAK_FMA_BF16, 10);
    cr_expect(has ? work > peak_work(&f, PEAK_FMA, 10) : work == 0, "%s: %g FLOPs", f.build, work);
  }
}

Test(peak, memory_is_read_copied_and_written) {
  Fixture f;
  EACH_BUILD(f) {
    const double bytes = 5.0 * N_THREADS * N * sizeof(float);
    double work = peak_work(&f, PEAK_READ, 5);
    cr_expect(work == bytes, "%s: read %g bytes, expected %g", f.build, work, bytes);
    for (int r = 0; r < N_THREADS; r++) {
      double sum = 0;
      for (int i = 0; i < N; i++) sum += tensor_get(f.x, r * N + i);
      cr_expect_float_eq(tensor_get(f.y, r * N), 5 * sum, 1e-2, "%s: row %d sums to %g, expected %g", f.build, r,
                         tensor_get(f.y, r * N), 5 * sum);
    }
    work = peak_work(&f, PEAK_COPY, 5);
    cr_expect(work == 2 * bytes, "%s: copied %g bytes, expected %g", f.build, work, 2 * bytes);
    cr_expect(memcmp(f.x->data, f.y->data, tensor_bytes(f.x)) == 0, "%s: the copy differs", f.build);
    work = peak_work(&f, PEAK_WRITE, 5);
    cr_expect(work == bytes, "%s: wrote %g bytes, expected %g", f.build, work, bytes);
    cr_expect(tensor_get(f.x, N_THREADS * N - 1) == 0, "%s: the last element was not written", f.build);
  }
}
