/* point_loss: loss[t] = mean over the row of f(e), e = prediction - target (0 where the target is missing, NaN);
 * dprediction += dloss[t] f'(e) / K. A warp has a row. */
#include "tensor/cuda/cuda.h"

static __device__ float error_of(float prediction, float target) { return target == target ? prediction - target : 0; }

static __device__ float value(PointLossKind kind, float e, float delta) {
  const float a = fabsf(e);
  if (kind == LOSS_MSE) return e * e;
  if (kind == LOSS_MAE) return a;
  return a < delta ? e * e / 2 : delta * (a - delta / 2);
}
static __device__ float slope(PointLossKind kind, float e, float delta) {
  if (kind == LOSS_MSE) return 2 * e;
  if (kind == LOSS_MAE) return (float)((e > 0) - (e < 0));
  return fmaxf(-delta, fminf(delta, e));
}

static __global__ void forward(PointLossKind kind, float delta, int64_t width, Rows prediction, Rows target,
                               Rows loss) {
  const int64_t t = blockIdx.x;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < width; i += WARP)
    sum += value(kind, error_of(prediction.get(t, i), target.get(t, i)), delta);
  sum = warp_sum(sum);
  if (threadIdx.x == 0) loss.put(t, 0, sum / (float)width);
}

static __global__ void backward(PointLossKind kind, float delta, int64_t width, Rows prediction, Rows target,
                                Rows dloss, Rows dprediction) {
  const int64_t t = blockIdx.x;
  const float scale = dloss.get(t, 0) / (float)width;
  for (int64_t i = threadIdx.x; i < width; i += WARP)
    dprediction.add(t, i, scale * slope(kind, error_of(prediction.get(t, i), target.get(t, i)), delta));
}

KERNEL_FWD(point_loss, PointLoss) {
  LAUNCH(forward, blocks_of(tensor_rows(p->target), 1), WARP, 0, p->kind, (float)p->delta, tensor_last(p->target),
         rows_of(p->prediction), rows_of(p->target), rows_of(p->loss));
}

KERNEL_BWD(point_loss, PointLoss) {
  LAUNCH(backward, blocks_of(tensor_rows(p->target), 1), WARP, 0, p->kind, (float)p->delta, tensor_last(p->target),
         rows_of(p->prediction), rows_of(p->target), rows_of(p->dloss), rows_of(p->dprediction));
}
