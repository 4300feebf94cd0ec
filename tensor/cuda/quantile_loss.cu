/* quantile_loss: loss[t] = mean over the row of max(tau e, (tau - 1) e), e = target - prediction (0 where the target is
 * missing, NaN);  dprediction += dloss[t] / (K n_q) ((e < 0) - tau (e != 0)). A warp has a row. */
#include "tensor/cuda/cuda.h"

struct Quantiles {
  int n;
  float tau[MAX_QUANTILES];
};
static Quantiles quantiles_of(const QuantileLoss *p) {
  Quantiles q = {p->n_q, {}};
  for (int i = 0; i < p->n_q; i++) q.tau[i] = (float)p->tau[i];
  return q;
}

static __device__ float error_of(float target, float prediction) { return target == target ? target - prediction : 0; }

static __global__ void forward(Quantiles q, int64_t width, Rows prediction, Rows target, Rows loss) {
  const int64_t t = blockIdx.x;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < width; i += WARP) {
    const float e = error_of(target.get(t, i / q.n), prediction.get(t, i)), tau = q.tau[i % q.n];
    sum += e > 0 ? tau * e : (tau - 1) * e;
  }
  sum = warp_sum(sum);
  if (threadIdx.x == 0) loss.put(t, 0, sum / (float)width);
}

static __global__ void backward(Quantiles q, int64_t width, Rows prediction, Rows target, Rows dloss,
                                Rows dprediction) {
  const int64_t t = blockIdx.x;
  const float scale = dloss.get(t, 0) / (float)width;
  for (int64_t i = threadIdx.x; i < width; i += WARP) {
    const float e = error_of(target.get(t, i / q.n), prediction.get(t, i));
    dprediction.add(t, i, scale * ((float)(e < 0) - q.tau[i % q.n] * (float)(e != 0)));
  }
}

KERNEL_FWD(quantile_loss, QuantileLoss) {
  LAUNCH(forward, blocks_of(tensor_rows(p->target), 1), WARP, 0, quantiles_of(p), tensor_last(p->prediction),
         rows_of(p->prediction), rows_of(p->target), rows_of(p->loss));
}

KERNEL_BWD(quantile_loss, QuantileLoss) {
  LAUNCH(backward, blocks_of(tensor_rows(p->target), 1), WARP, 0, quantiles_of(p), tensor_last(p->prediction),
         rows_of(p->prediction), rows_of(p->target), rows_of(p->dloss), rows_of(p->dprediction));
}
