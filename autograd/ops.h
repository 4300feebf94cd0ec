/* ops: builders. Each checks shapes (CHECK: a wrong shape is a programmer's mistake), runs the forward kernel and records
 * its backward rule; formula and shapes of every argument stand in tensor/kernels.h at the struct of the same name.
 * One file each: autograd/ops/<op>.c.
 *
 * Ops with few arguments take them; the others take their params struct with the inputs and options filled in and
 * return it with the outputs filled in. An output the caller set beforehand (a view to be filled) is used; else a fresh
 * tensor in the step arena is. Outputs that are states are made only when want_state is set. */
#pragma once

#include "autograd/tape.h"

/* y[t] = w[token[t]]: token (T) I32, w (V, D) -> (T, D) real */
Tensor *op_embedding(Tape *tape, Tensor *w, Tensor *token);
/* y = x w^T + bias: x (T, n_in), w (n_out, n_in), bias (n_out) or NULL -> (T, n_out) of dtype `out` */
Tensor *op_linear(Tape *tape, Tensor *x, Tensor *w, Tensor *bias, Dtype out);
/* The same into y, which may be a scope's output. */
Tensor *op_linear_into(Tape *tape, Tensor *x, Tensor *w, Tensor *bias, Tensor *y);
/* y = stream + x w^T + bias: stream (T, n_out) real -> (T, n_out) real; y as in op_residual */
Tensor *op_linear_residual(Tape *tape, Tensor *x, Tensor *w, Tensor *bias, Tensor *stream, Tensor *y);
/* y = stream + update: stream (T, D) real, update (T, D) act -> (T, D) real. y: a tensor to be filled, or NULL. A y that was
 * given stream's own gradient shares it: nothing is copied on the way back. What else reads the stream must then be
 * recorded before this. */
Tensor *op_residual(Tape *tape, Tensor *stream, Tensor *update, Tensor *y);
/* y = RMSNorm(x) * weight: x (T, D) real -> (T, D) act */
Tensor *op_rms_norm(Tape *tape, Tensor *x, Tensor *weight, double eps);
/* y = value * silu(gate); y: a view to be filled, or NULL */
Tensor *op_swiglu(Tape *tape, Tensor *value, Tensor *gate, Tensor *y);
GatedNorm op_gated_norm(Tape *tape, GatedNorm in);
Conv1d op_conv1d(Tape *tape, Conv1d in, bool want_state);
SsmDt op_ssm_dt(Tape *tape, SsmDt in);
SsdScan op_ssd_scan(Tape *tape, SsdScan in, bool want_state);
/* key_out and value_out are made by the caller, who knows their room. */
Attention op_attention(Tape *tape, Attention in);
/* Not recorded: the state is updated in place. gate.out is made. */
SsmStep op_ssm_step(Tape *tape, SsmStep in);
/* nll (T, 1) real of targets (T) I32 under the classifier w over x; the gradient is seeded through
 * tape_grad(nll); or, where tape->dloss tells it, those of x and w are complete when this returns, and nll has none */
Tensor *op_cross_entropy(Tape *tape, Tensor *x, Tensor *w, Tensor *target, int vocab_size);
/* loss (T, 1) real */
Tensor *op_point_loss(Tape *tape, PointLossKind kind, double delta, Tensor *prediction, Tensor *target);
/* loss (T, 1) real of n_q forecasts a value: prediction (T, K * n_q), target (T, K) */
Tensor *op_quantile_loss(Tape *tape, int n_q, const double *tau, Tensor *prediction, Tensor *target);
/* y, mean and std are made; length, x and the options are given. */
WindowNorm op_window_norm(Tape *tape, WindowNorm in);
/* -> y (n_seq, horizon * n_out * n_q) real */
Tensor *op_window_denorm(Tape *tape, WindowDenorm in);
/* runs of `width` elements of x by index (n) I32 -> (n_rows, n_cols), n_rows * n_cols = n * width */
Tensor *op_gather(Tape *tape, Tensor *x, Tensor *index, int64_t width, int64_t n_rows, int64_t n_cols);
/* The same where an index may be negative, which takes that run of `rest` (any shape with n runs): y is shaped like it. */
Tensor *op_gather_or(Tape *tape, Tensor *x, Tensor *index, Tensor *rest);
/* y = x keep / (1 - p), drawn by tape->draws, whose samples share the rows evenly; `site` tells the dropouts of a model
 * apart. x itself when p is 0 or the tape has no draws. */
Tensor *op_dropout(Tape *tape, Tensor *x, double p, uint32_t site);
