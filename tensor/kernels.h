/* kernels: one params struct per row of kernels.def, for forward and backward, CPU and CUDA alike.
 *
 * Conventions. T is the number of tokens of all sequences, laid end to end: sequence s owns rows
 * [cu_seqlens[s], cu_seqlens[s+1]). A batch of equal lengths and packed documents are the same thing here.
 * Symbols as in the specification (docs/mamba.md): H heads of width P, N d_state, G groups, R rank, S rotated pairs, W taps, V padded
 * vocabulary. "act" is the activation dtype (F32 or BF16; F64 in the double twin), "real" is F32 (F64 in the twin) and
 * the dtype of all states, statistics, losses and parameter gradients. Parameters are act or real as their table says.
 * Tensors (T, width) may be views (their own ld); all others are contiguous.
 * A gradient is `d` + name, has the dtype of what it is the gradient of (parameters: real), and is ADDED to (+=).
 * NULL means: option off, result not wanted, no gradient arrives, or gradient not wanted. */
#pragma once

#include <math.h>

#include "tensor/tensor.h"

/* y[t] = w[token[t]] */
typedef struct Embedding {
  Tensor *token; /* (T) I32 */
  Tensor *w;     /* (V, D) */
  Tensor *y;     /* (T, D) real: the residual stream */
  Tensor *dw, *dy;
} Embedding;

/* y = x w^T + bias. Few rows (the tokens of a decoding step) are as usual as many: w is then to be read once, at the
 * memory's rate. */
typedef struct Linear {
  Tensor *x;    /* (T, n_in) act or real */
  Tensor *w;    /* (n_out, n_in) */
  Tensor *bias; /* (n_out) or NULL */
  Tensor *y;    /* (T, n_out) act or real */
  Tensor *dx, *dw, *dbias, *dy;
  void *scratch;
} Linear;

/* y = x / sqrt(mean(x^2) + eps) * weight, of the residual stream. (spec 1) */
typedef struct RmsNorm {
  Tensor *x;      /* (T, D) real */
  Tensor *weight; /* (D) */
  Tensor *y;      /* (T, D) act */
  double eps;
  Tensor *dx, *dweight, *dy;
  void *scratch;
} RmsNorm;

/* y = stream + update: how a block's update joins the residual stream. (spec 1) */
typedef struct Residual {
  Tensor *stream; /* (T, D) real */
  Tensor *update; /* (T, D) act */
  Tensor *y;      /* (T, D) real */
  Tensor *dstream, *dupdate, *dy;
} Residual;

/* The gate at a mixer's end. For rank r: y_r from x, g_r = silu(z * mimo_z[h,r]) (mimo_z absent: silu(z));
 *   norm none:   o_r = y_r g_r
 *   norm after:  o_r = RMSNorm_group(y_r g_r) * weight    (Mamba-2 default)
 *   norm before: o_r = RMSNorm_group(y_r) * weight * g_r  (Mamba-2 option; Mamba-3)
 * and out = sum_r o_r * mimo_o[h,r] (absent: o_0). Group: runs of `group` channels. (spec 2.1 step 5, 2.2 step 6) */
typedef enum GateNorm { GATE_NORM_NONE, GATE_NORM_AFTER, GATE_NORM_BEFORE } GateNorm;
typedef struct GatedNorm {
  GateNorm norm;
  int n_r, n_h, n_p, group; /* width E = n_h * n_p */
  double eps;
  Tensor *x;               /* (T, R*E) act, rank-major */
  Tensor *z;               /* (T, E) act */
  Tensor *weight;          /* (E) or NULL */
  Tensor *mimo_z, *mimo_o; /* (H, R, P) or NULL */
  Tensor *out;             /* (T, E) act */
  Tensor *dx, *dz, *dweight, *dmimo_z, *dmimo_o, *dout;
  void *scratch;
} GatedNorm;

/* Causal depth-wise convolution, taps end at the present token: y[t,c] = f(sum_k w[c,k] x[t-W+1+k, c] + bias[c]),
 * f = silu or identity. Before a sequence's start x is window_in (oldest first), or zero; window_out may be window_in where
 * every sequence is one token. (spec 2.1 step 1) */
typedef struct Conv1d {
  bool silu;
  Tensor *cu_seqlens; /* (n_seq + 1) I32 */
  Tensor *x;          /* (T, C) act */
  Tensor *w;          /* (C, 1, W) */
  Tensor *bias;       /* (C) or NULL */
  Tensor *window_in;  /* (n_seq, C, W-1) real or NULL */
  Tensor *y;          /* (T, C) act */
  Tensor *window_out; /* (n_seq, C, W-1) real or NULL: the last W-1 inputs, reaching into window_in when short */
  Tensor *dx, *dw, *dbias, *dwindow_in, *dy, *dwindow_out;
  void *scratch;
} Conv1d;

/* Per-token, per-head scalars of the scan, all real:
 *   Mamba-2: dt = clamp(softplus(dt_raw + dt_bias), dt_min, dt_max); a = -exp(A_log) dt
 *   Mamba-3: dt = softplus(dt_raw + dt_bias); a = min(-f(A_raw), -A_floor) dt; lambda = sigmoid(trap)
 * a is the log-decay. Where a clamp is active its gradient is zero. (spec 2.1 step 3, 2.2 steps 1 and 2) */
typedef struct SsmDt {
  bool A_softplus;       /* Mamba-3: f is softplus, else heavy_tail */
  double dt_min, dt_max; /* Mamba-2: dt_limit; dt_max may be infinite */
  double A_floor;
  Tensor *dt_raw;  /* (T, H) act */
  Tensor *dt_bias; /* (H) real */
  Tensor *A_log;   /* (H) real: Mamba-2 only */
  Tensor *A_raw;   /* (T, H) act: Mamba-3 only */
  Tensor *trap;    /* (T, H) act: Mamba-3 only */
  Tensor *dt, *a;  /* (T, H) real */
  Tensor *lambda;  /* (T, H) real: Mamba-3 only */
  Tensor *ddt_raw, *ddt_bias, *dA_log, *dA_raw, *dtrap, *ddt, *da, *dlambda;
  void *scratch;
} SsmDt;

/* The one recurrent operation (spec 2.1 step 4, 2.2 steps 3 to 5, 3):
 *   k_t, q_t from B_t, C_t: Mamba-2 as they are; Mamba-3: RMSNorm over N, times B_norm / C_norm, plus B_bias / C_bias
 *   of the head, rotated by theta_t = theta_{t-1} + pi tanh(angle_t) dt_t (wrapped to [0, 2 pi))
 *   v_{t,r} = x_t * mimo_x[h,r]  (absent: x_t)
 *   h_t = exp(a_t) (h_{t-1} + (1-lambda_t) dt_t sum_r v_{t-1,r} k_{t-1,r}^T) + lambda_t dt_t sum_r v_{t,r} k_{t,r}^T
 *   y_{t,r} = h_t q_{t,r} + D v_{t,r}
 * Mamba-2 is lambda = 1 (lambda NULL). Head h reads group h / (H/G). B, C are laid out (R, G, N); y is (R, H, P).
 * Pairs of the rotation: neighbours (2i, 2i+1), or halves (i, i + N/2) when rotate_halves (MIMO).
 * Forward saves the state entering each chunk (chunk c of sequence s at row cu_seqlens[s]/chunk_size + s + c), with the
 * (1-lambda) dt term of the chunk's first token already in it; backward recomputes the rest. */
typedef struct SsdScan {
  int n_h, n_p, n_n, n_g, n_r, n_s; /* n_s = 0: no rotation */
  int chunk_size;
  bool rotate_halves;
  double norm_eps;
  Tensor *cu_seqlens;                          /* (n_seq + 1) I32 */
  Tensor *x;                                   /* (T, H*P) act */
  Tensor *B, *C;                               /* (T, R*G*N) act */
  Tensor *dt, *a, *lambda;                     /* (T, H) real; lambda NULL: Mamba-2 */
  Tensor *D;                                   /* (H) or (H*P), real */
  Tensor *B_norm, *C_norm;                     /* (N), Mamba-3 only (NULL otherwise), like all below to mimo_x */
  Tensor *B_bias, *C_bias;                     /* (H, R, N) real */
  Tensor *angle;                               /* (T, S) act */
  Tensor *mimo_x;                              /* (H, R, P) real, or NULL */
  Tensor *ssm_in;                              /* (n_seq, H, P, N) real or NULL: zero */
  Tensor *angle_in;                            /* (n_seq, H, S) */
  Tensor *k_in;                                /* (n_seq, R, H, N): rotated k of the token before */
  Tensor *v_in;                                /* (n_seq, H, P): x of the token before */
  Tensor *y;                                   /* (T, R*H*P) act */
  Tensor *ssm_out, *angle_out, *k_out, *v_out; /* as the _in ones, or NULL */
  Tensor *chunk_states; /* (ssd_scan_n_chunks, H, P, N) real or NULL: saved for backward; no zeros are written */
  Tensor *dx, *dB, *dC, *ddt, *da, *dlambda, *dD, *dB_norm, *dC_norm, *dB_bias, *dC_bias, *dangle, *dmimo_x;
  Tensor *dssm_in, *dangle_in, *dk_in, *dv_in;
  Tensor *dy, *dssm_out, *dangle_out, *dk_out, *dv_out;
  void *scratch;
} SsdScan;
/* Rows of chunk_states: an upper bound that needs no look at the lengths. */
static inline int64_t ssd_scan_n_chunks(int64_t n_tokens, int64_t n_seq, int64_t chunk_size) {
  return n_tokens / chunk_size + n_seq;
}

/* One token of each of n_seq sequences through the middle of a Mamba mixer, the state updated in place: what conv1d
 * (Mamba-2), ssm_dt, ssd_scan and gated_norm do one after the other for sequences of one token. Each part holds what its own
 * kernel is told, and
 *   the state is conv.window_in and scan.ssm_in, angle_in, k_in, v_in (each NULL where the layer has none): read and then
 *   written; the _out fields are NULL, and so is cu_seqlens;
 *   what goes from part to part is not given: conv.y, dt.dt, dt.a, dt.lambda, scan.dt, scan.a, scan.lambda, scan.y, gate.x
 *   are NULL, and for Mamba-2 (conv.w not NULL) scan.x, B and C, which are the columns [x | B | C] of the convolution's
 *   output. A kernel may keep it in real where the separate ones would round it to act. Mamba-3 is dt.trap not NULL. */
typedef struct SsmStep {
  Conv1d conv;
  SsmDt dt;
  SsdScan scan;
  GatedNorm gate;
  void *scratch;
} SsmStep;

/* y = value * silu(gate). (spec 1, MLP; spec 2.1 step 6 for d_mlp) */
typedef struct Swiglu {
  Tensor *value, *gate, *y; /* (T, F) act */
  Tensor *dvalue, *dgate, *dy;
} Swiglu;

/* Causal attention inside each sequence; q, k, v are column views of one projection. Query head i reads key head
 * i / (n_heads / n_heads_kv). Rotary embedding on the first rotary_dim entries of each head of q and k, positions from
 * the sequence's start: pairs (i, i + rotary_dim/2), or (2i, 2i+1) when interleaved, angle pos * base^(-2i/rotary_dim).
 *
 * Sequences may go on where others ended: past[s] tokens came before those of sequence s, positions count from there, and
 * row j < past[s] of its key_in and value_in is token j's rotated key and its value (rows behind are not read). key_out and
 * value_out get the rows [0, past[s] + length of s); rows behind are left alone. They may be key_in and value_in
 * themselves, in forward: then only the new rows are written. Rooms are at least what is read and written (CHECK). */
typedef struct Attention {
  int n_heads, n_heads_kv, head_dim, rotary_dim;
  bool rotary_interleaved;
  double rotary_base, scale;
  Tensor *cu_seqlens;        /* (n_seq + 1) I32 */
  Tensor *q;                 /* (T, n_heads * head_dim) act */
  Tensor *k, *v;             /* (T, n_heads_kv * head_dim) act */
  Tensor *past;              /* (n_seq) I32; NULL, like key_in and value_in: nothing came before */
  Tensor *key_in, *value_in; /* (n_seq, room, n_heads_kv * head_dim) real */
  Tensor *y;                 /* (T, n_heads * head_dim) act */
  Tensor *lse;               /* (T, n_heads) real: log of the sum that each softmax divides by. For backward, or NULL */
  Tensor *key_out, *value_out; /* as the _in ones with a room of their own, or NULL */
  Tensor *dq, *dk, *dv, *dkey_in, *dvalue_in;
  Tensor *dy, *dkey_out, *dvalue_out; /* dy is never NULL; the others may be */
  void *scratch;
} Attention;

/* Classifier and softmax cross-entropy in one, chunked over tokens: the (T, V) logits never exist.
 *   nll[t] = logsumexp(x_t w^T over rows < vocab_size) - x_t . w[target_t];  0 where target is CROSS_ENTROPY_IGNORE.
 * Targets outside [0, vocab_size) other than that are the caller's fault. (spec 2.4) */
#define CROSS_ENTROPY_IGNORE (-1)
typedef struct CrossEntropy {
  int vocab_size;
  Tensor *x;      /* (T, D) act */
  Tensor *w;      /* (V, D) */
  Tensor *target; /* (T) I32 */
  Tensor *nll;    /* (T, 1) real */
  Tensor *dx, *dw, *dnll;
  const double
      *dnll_known; /* forward, with dx or dw given: what every token's dnll will be, in the device's memory, and
                             * the gradients are made at once */
  void *scratch;
} CrossEntropy;

/* loss[t] = mean over the row of f(prediction - target): e^2, |e|, or Huber: e^2/2 below delta, delta(|e| - delta/2).
 * A target that is NaN is missing: its error is 0. */
typedef enum PointLossKind { LOSS_MSE, LOSS_MAE, LOSS_HUBER } PointLossKind;
typedef struct PointLoss {
  PointLossKind kind;
  double delta;
  Tensor *prediction; /* (T, K) act or real */
  Tensor *target;     /* (T, K) real */
  Tensor *loss;       /* (T, 1) real */
  Tensor *dprediction, *dloss;
} PointLoss;

/* Pinball loss of n_q forecasts a value, q fastest: loss[t] = mean over k and q of max(tau_q e, (tau_q - 1) e),
 * e = target[t,k] - prediction[t,k,q], 0 where the target is missing (NaN). (Koenker & Bassett 1978) */
#define MAX_QUANTILES 16
typedef struct QuantileLoss {
  int n_q;
  double tau[MAX_QUANTILES]; /* each in (0, 1) */
  Tensor *prediction;        /* (T, K*n_q) act or real */
  Tensor *target;            /* (T, K) real */
  Tensor *loss;              /* (T, 1) real */
  Tensor *dprediction, *dloss;
} QuantileLoss;

/* What a forecaster takes off a window and puts back on its forecast. Sequence s has `length` rows; the first n_c columns
 * are the series' own, the others (known covariates) pass as they are. Rows from n_past on are those of the forecast: their
 * own columns are not read, and 0 in y.
 *   mean, std:  none: 0, 1;  standard: of the n_past rows, std = sqrt(variance + eps);  last: the last of them, 1;
 *               mean: of them, 1
 *   y[s,t,c] = (x[s,t,c] - mean[s,c]) / std[s,c] - cycle[(phase[s] + t) mod W, c]
 * x is data and gets no gradient.
 * (Kim et al. 2022, RevIN, without its affine map; Zeng et al. 2023, NLinear; Lin et al. 2024, CycleNet) */
typedef enum WindowStatistic { WINDOW_NONE, WINDOW_STANDARD, WINDOW_LAST, WINDOW_MEAN } WindowStatistic;
typedef struct WindowNorm {
  WindowStatistic statistic;
  double eps;
  int64_t length, n_past; /* 0 < n_past <= length */
  int n_c;
  Tensor *x;          /* (n_seq * length, n_in) real */
  Tensor *phase;      /* (n_seq) I32: place in the cycle of the window's first row; NULL without a cycle */
  Tensor *cycle;      /* (W, n_c) real, or NULL */
  Tensor *y;          /* (n_seq * length, n_in) real */
  Tensor *mean, *std; /* (n_seq, n_c) real */
  Tensor *dcycle, *dy;
} WindowNorm;

/* The way back: output j continues column first + j.
 *   y[s,h,j,q] = (x[s,h,j,q] + linear[s,h,j,q] + cycle[(phase[s] + length + h) mod W, first + j]) * std[s, first+j]
 *                + keep[h] * mean[s, first+j]
 * x and linear are (n_seq, horizon * n_out * n_q), or one row a series: (n_seq * n_out, horizon * n_q). */
typedef struct WindowDenorm {
  int64_t length; /* rows of the window, up to the forecast's */
  int horizon, n_out, n_q, first;
  bool row_per_series;
  Tensor *x;          /* act or real */
  Tensor *linear;     /* real, or NULL: a second forecast, added to x */
  Tensor *phase;      /* as above */
  Tensor *cycle;      /* as above */
  Tensor *keep;       /* (horizon) real, or NULL: 1 */
  Tensor *mean, *std; /* (n_seq, n_c) real */
  Tensor *y;          /* (n_seq, horizon * n_out * n_q) real */
  Tensor *dx, *dlinear, *dcycle, *dkeep, *dy;
} WindowDenorm;

/* Runs of `width` elements, x and y read as rows of that width: y_i = x_{index[i]} or, where index[i] is negative, rest_i.
 * Only x has a gradient. */
typedef struct Gather {
  int64_t width;
  Tensor *index; /* (n) I32 */
  Tensor *x;     /* contiguous, act or real */
  Tensor *rest;  /* as y, or NULL: zero */
  Tensor *y;     /* contiguous, n * width elements, the dtype of x */
  Tensor *dx, *dy;
} Gather;

/* y = x keep / (1 - p), keep 0 with probability p. Whether an element is kept is a function of (seed, site, sample, place
 * in the sample) alone: sample s owns rows [s, s + 1) * rows_per_sample and has the number first_sample + s, counted from
 * samples_before[0] where that is given. */
typedef struct Dropout {
  double p; /* 0 to below 1 */
  uint64_t seed, first_sample;
  const int64_t *samples_before; /* in the device's memory; NULL: 0 */
  uint32_t site;                 /* which dropout of the model */
  int64_t rows_per_sample;
  Tensor *x, *y; /* (T, width), contiguous, act or real */
  Tensor *dx, *dy;
} Dropout;

/* y += x, elementwise; both real and contiguous. The tree of the virtual ranks. */
typedef struct Add {
  Tensor *x, *y;
} Add;

/* result[0] += sum of x in a fixed order, as double. */
typedef struct Sum {
  Tensor *x;      /* real, contiguous */
  double *result; /* in the device's memory */
} Sum;

/* result[0] = sum of x^2 in a fixed order, as double whatever the dtype; NaN or Inf in x make it non-finite. */
typedef struct SumSquares {
  Tensor *x;      /* real, contiguous */
  double *result; /* in the device's memory */
  void *scratch;
} SumSquares;

/* What differs from one training step to the next beside its data. It lies in the device's memory and kernels are told
 * where, so that a step can be launched again as it was (BackendGraphs in device.h). */
typedef struct StepNumbers {
  double loss_scale; /* from the sum of the losses to their mean */
  double lr, keep, adam_size,
      adam_scale;       /* 1 - lr weight_decay; AdamW's lr / (1 - beta1^step) and 1 / (1 - beta2^step) */
  int64_t step;         /* from 1 */
  int64_t first_sample; /* of the step's whole batch */
} StepNumbers;

/* Those that AdamW takes. */
static inline StepNumbers adamw_numbers(double lr, double beta1, double beta2, double weight_decay, int64_t step) {
  const StepNumbers numbers = {
      0, lr, 1 - lr * weight_decay, lr / (1 - pow(beta1, (double)step)), 1 / (1 - pow(beta2, (double)step)), step, 0};
  return numbers;
}

/* What an update hangs on. It stays in the device's memory, so that no step waits for the host to look at it. */
typedef struct Verdict {
  double loss, norm; /* the mean loss; the norm of all gradients */
  double grad_scale; /* the clip's: min(1, clip / (norm + 1e-6)); 1 when clip is 0 (spec 2.4) */
  int64_t bad;       /* where in the gradients' block the first that is not finite stands; -1: nowhere */
  int64_t held; /* 1: nothing is updated, because loss or norm is not finite, or because the step before was held */
} Verdict;

/* The factor of gradients of this norm (spec 2.4). */
ON_DEVICE_TOO static inline double clip_scale(double norm, double clip) {
  const double scale = clip > 0 ? clip / (norm + 1e-6) : 1;
  return scale < 1 ? scale : 1;
}

/* A power of two of numbers, neighbours first, then pairs, as the gradients of parts are added (train/gradient.h). */
static inline double sum_by_pairs(const double *x, int n) {
  return n == 1 ? x[0] : sum_by_pairs(x, n / 2) + sum_by_pairs(x + n / 2, n / 2);
}

/* result[0] = first + i of the first x_i whose square is not finite, -1 where there is none; nothing is looked at where all
 * the sums of squares are finite. */
typedef struct FindBad {
  Tensor *x;             /* real, contiguous */
  const double *squares; /* n_squares sums that x's are in; in the device's memory, as result is */
  int n_squares;
  int64_t first; /* x_0's number in the gradients' block */
  double *result;
} FindBad;

/* verdict[0] from the losses of the parts, added by pairs, and the gradients' squares, added in order. */
typedef struct Judge {
  const double *losses; /* in the device's memory, as all of this is; n_losses is a power of two */
  const double *found;  /* n_owners times: n_own sums of squares, and the find_bad of these */
  int n_losses, n_owners, n_own;
  double loss_scale, clip;    /* clip 0: off */
  const StepNumbers *numbers; /* NULL, or what has loss_scale in its place */
  const Verdict *before;      /* NULL, or the verdict that holds this one where it holds; it may be this one's place */
  Verdict *verdict;
  Verdict *history; /* NULL, or, with numbers, n_history more places: it is left at step % n_history, too */
  int n_history;
} Judge;

/* y = x where the verdict held the step, else nothing: what a held step must leave as it was. */
typedef struct Hold {
  const Verdict *verdict; /* in the device's memory */
  Tensor *x, *y;          /* contiguous, of one dtype of at least 4 bytes */
} Hold;

/* y_i = x_{index[i]} + more[i], more[i] alone where the index is negative: how many tokens came before, where that is known to the
 * device alone. y is apart from the others. */
typedef struct Advance {
  Tensor *index; /* (n) I32 */
  Tensor *x;     /* I32 */
  Tensor *more;  /* (n) I32, or NULL: nothing */
  Tensor *y;     /* (n) I32 */
} Advance;

/* One AdamW step on one tensor (spec 2.4), in real; gradient taken times grad_scale (the clip), or as a verdict says.
 * The exact value is `value` itself where that is real, else value and low together (bf16_split in tensor/tensor.h). */
typedef struct Adamw {
  double lr, beta1, beta2, eps, weight_decay, grad_scale;
  int64_t step; /* counts from 1 */
  const StepNumbers
      *numbers; /* NULL, or what has lr and step in place of these, for a weight_decay that is 0 or its own */
  Tensor *value, *grad, *m, *v;
  int16_t *low;           /* lower halves of a BF16 value; NULL: value is real */
  const Verdict *verdict; /* in the device's memory; NULL: grad_scale holds, else held or its scale in place of that */
} Adamw;

/* p -= lr (grad * grad_scale + weight_decay p) */
typedef struct Sgd {
  double lr, weight_decay, grad_scale;
  const StepNumbers *numbers; /* NULL, or what has lr in its place */
  Tensor *value, *grad;
  int16_t *low; /* as above */
  const Verdict *verdict;
} Sgd;

/* The ceilings of a machine: n_rounds of one thing and nothing else, a row of x (and y) a thread.
 *   FMA       independent chains of multiply-adds in registers, real       FMA_BF16  the same from BF16 into float
 *   WRITE     x = 0        READ  y[.,0] += sum of the row of x             COPY      y = x
 * A build without BF16 products does nothing for FMA_BF16. WRITE first places x's pages with the threads. */
typedef enum PeakKind { PEAK_FMA, PEAK_FMA_BF16, PEAK_WRITE, PEAK_READ, PEAK_COPY } PeakKind;
typedef struct Peak {
  PeakKind kind;
  int64_t n_rounds;
  Tensor *x;    /* (n_threads, n) real; n at least a vector's lanes */
  Tensor *y;    /* the same for READ and COPY, else NULL */
  double *work; /* result: FLOPs, or bytes read and written */
} Peak;
