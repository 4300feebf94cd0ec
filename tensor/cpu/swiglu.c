/* swiglu: y = value * silu(gate);  dvalue += dy silu(gate),  dgate += dy value silu'(gate). */
#include "tensor/cpu/cpu.h"

KERNEL_FWD(swiglu, Swiglu) {
  const int64_t n_t = tensor_rows(p->y), width = tensor_last(p->y);
#pragma omp parallel for collapse(2) schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++)
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      const int64_t n = min_i64(ROW_RUN, width - i);
      Tensor value = cols_from(p->value, i), gate = cols_from(p->gate, i), y = cols_from(p->y, i);
      real value_buffer[ROW_RUN], gate_buffer[ROW_RUN], y_run[ROW_RUN];
      const real *value_run = row_load(&value, t, n, value_buffer), *gate_run = row_load(&gate, t, n, gate_buffer);
      for (int64_t j = 0; j < n; j++) y_run[j] = value_run[j] * real_silu(gate_run[j]);
      row_store(&y, t, n, y_run);
    }
}

KERNEL_BWD(swiglu, Swiglu) {
  const int64_t n_t = tensor_rows(p->y), width = tensor_last(p->y);
#pragma omp parallel for collapse(2) schedule(static) if (parallel_pays(n_t * width))
  for (int64_t t = 0; t < n_t; t++)
    for (int64_t i = 0; i < width; i += ROW_RUN) {
      const int64_t n = min_i64(ROW_RUN, width - i);
      Tensor value = cols_from(p->value, i), gate = cols_from(p->gate, i), dy = cols_from(p->dy, i);
      real value_buffer[ROW_RUN], gate_buffer[ROW_RUN], dy_buffer[ROW_RUN], dvalue_run[ROW_RUN], dgate_run[ROW_RUN];
      const real *value_run = row_load(&value, t, n, value_buffer), *gate_run = row_load(&gate, t, n, gate_buffer);
      const real *dy_run = row_load(&dy, t, n, dy_buffer);
      for (int64_t j = 0; j < n; j++) {
        const real s = real_sigmoid(gate_run[j]);
        dvalue_run[j] = dy_run[j] * gate_run[j] * s;
        dgate_run[j] = dy_run[j] * value_run[j] * s * (1 + gate_run[j] * (1 - s));
      }
      if (p->dvalue) {
        Tensor dvalue = cols_from(p->dvalue, i);
        row_add(&dvalue, t, n, dvalue_run);
      }
      if (p->dgate) {
        Tensor dgate = cols_from(p->dgate, i);
        row_add(&dgate, t, n, dgate_run);
      }
    }
}
