/* norm: RMSNorm of one run of channels, shared by add_norm and gated_norm:
 *   v = u s w,  s = 1 / sqrt(mean(u^2) + eps);   du = s (dv w - u s^2 mean(dv w u)),  dw += dv u s. */
#pragma once

#include "tensor/cpu/cpu.h"

static inline real norm_inverse_rms(int64_t n, real eps, const real *restrict u) {
  real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += u[i] * u[i];
  return 1 / R(sqrt)(sum / (real)n + eps);
}

static inline void norm_run(int64_t n, real eps, const real *restrict u, const real *restrict w, real *restrict v) {
  const real s = norm_inverse_rms(n, eps, u);
  for (int64_t i = 0; i < n; i++) v[i] = u[i] * s * w[i];
}

static inline void norm_run_backward(int64_t n, real eps, const real *restrict u, const real *restrict w,
                                     const real *restrict dv, real *restrict du, real *restrict dw) {
  const real s = norm_inverse_rms(n, eps, u);
  real dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; i++) dot += dv[i] * w[i] * u[i];
  const real pull = dot / (real)n * s * s;
  for (int64_t i = 0; i < n; i++) {
    du[i] = s * (dv[i] * w[i] - u[i] * pull);
    dw[i] += dv[i] * u[i] * s;
  }
}
