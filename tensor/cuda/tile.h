/* tile: small matrix products of a block, on tensor cores, from matrices of floats in shared or global memory.
 *
 * A warp makes an output of 16 x 8, or two side by side, at a time. In a BF16 model factors are rounded to BF16 as they are loaded; in a float32
 * one each is split into two TF32 parts, high and what it lacks, and the product is high high + high low + low high: the
 * part left out is 2^-22 of it. Tensor cores round every sum towards zero, always to the same side, so float32 sums leave them
 * after TILE_DEEP products and are added up outside, to nearest (Ootomo & Yokota 2022): as exact as float32's. */
#pragma once

#include "tensor/cuda/cuda.h"

constexpr int TILE_M = 16, TILE_N = 8, TILE_K = 16; /* sizes that products are padded to, with zeros */
constexpr int TILE_DEEP = 32;                       /* products that tensor cores add up for a float32 sum */

/* Hands out shared memory, 16 bytes aligned; without memory it only counts. */
struct SharedCarver {
  unsigned char *memory;
  size_t used;
  template <class T> __host__ __device__ T *take(int64_t n) {
    T *piece = memory ? reinterpret_cast<T *>(memory + used) : nullptr;
    used += ((size_t)n * sizeof(T) + 15) / 16 * 16;
    return piece;
  }
};

/* A factor: element (i, k) at data[i * row + k * col], times scale[k] where there is one. */
struct TileFactor {
  const float *data;
  int64_t row, col;
  const float *scale;
  bool is_global; /* not in shared memory */

  __device__ float at(int i, int k) const {
    const float *element = data + i * row + k * col;
    const float x = is_global ? global_load(element) : *element;
    return scale ? x * scale[k] : x;
  }
};
__device__ static inline TileFactor tile_rows(const float *data, int64_t ld) { return {data, ld, 1, nullptr, false}; }
__device__ static inline TileFactor tile_cols(const float *data, int64_t ld) { return {data, 1, ld, nullptr, false}; }

__device__ static inline uint32_t bf16_pair(float low, float high) {
  return to_bf16(low).bits | (uint32_t)to_bf16(high).bits << 16;
}
/* The upper 19 bits of a float, and the rest of it. */
__device__ static inline void tf32_split(float x, uint32_t *high, uint32_t *low) {
  *high = as_bits(x) & 0xffffe000u;
  *low = as_bits(x - as_float(*high));
}

/* An output of 16 x 8 W. Of lane l, g = l/4 and t = l%4, d[w] holds (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1) of its
 * columns [8 w, 8 w + 8). */
template <int W> struct TileSum {
  float d[W][4];
};

/* sum += rows [i0, i0 + 16) of a, times rows [j0, j0 + 8 W) of b transposed: d_ij = sum over k < n_k of a(i, k) b(j, k). All
 * lanes of a warp call; n_k is a multiple of TILE_K. What is loaded of a serves W products: loading is what bounds them. */
template <bool IS_BF16, int W>
__device__ static inline void tile_mac(TileSum<W> &sum, const TileFactor &a, int i0, const TileFactor &b, int j0, int n_k) {
  const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  if constexpr (IS_BF16) {
    for (int k = 0; k < n_k; k += 16) {
      uint32_t a_part[4], b_part[2];
      for (int r = 0; r < 4; r++) {
        const int i = i0 + g + r % 2 * 8, at = k + 2 * t + r / 2 * 8;
        a_part[r] = bf16_pair(a.at(i, at), a.at(i, at + 1));
      }
      for (int w = 0; w < W; w++) {
        for (int r = 0; r < 2; r++) {
          const int at = k + 2 * t + r * 8;
          b_part[r] = bf16_pair(b.at(j0 + 8 * w + g, at), b.at(j0 + 8 * w + g, at + 1));
        }
        mma_bf16(sum.d[w], a_part, b_part);
      }
    }
    mma_wait();
  } else {
    for (int first = 0; first < n_k; first += TILE_DEEP) {
      TileSum<W> part = {};
      for (int k = first; k < n_k && k < first + TILE_DEEP; k += 8) {
        uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
        for (int r = 0; r < 4; r++) tf32_split(a.at(i0 + g + r % 2 * 8, k + t + r / 2 * 4), &a_high[r], &a_low[r]);
        for (int w = 0; w < W; w++) {
          for (int r = 0; r < 2; r++) tf32_split(b.at(j0 + 8 * w + g, k + t + r * 4), &b_high[r], &b_low[r]);
          mma_tf32(part.d[w], a_low, b_high);
          mma_tf32(part.d[w], a_high, b_low);
          mma_tf32(part.d[w], a_high, b_high);
        }
      }
      mma_wait();
      for (int w = 0; w < W; w++)
        for (int r = 0; r < 4; r++) sum.d[w][r] += part.d[w][r];
    }
  }
}

/* Calls body(i0, j0) for every 16 x 8 W output of (n_i, n_j), the warps of the block in turn; n_j is a multiple of TILE_K, W 1
 * or 2. */
template <int W, class Body> __device__ static inline void tile_for(int n_i, int n_j, Body body) {
  const int n_across = n_j / (TILE_N * W), n_tiles = n_i / TILE_M * n_across;
  for (int at = threadIdx.x / WARP; at < n_tiles; at += blockDim.x / WARP)
    body(at / n_across * TILE_M, at % n_across * TILE_N * W);
}

/* Calls body(i, j, d's element) for the elements of an output that this lane holds. */
template <int W, class Body> __device__ static inline void tile_each(int i0, int j0, TileSum<W> &sum, Body body) {
  const int lane = threadIdx.x % WARP, i = i0 + lane / 4, j = j0 + lane % 4 * 2;
  for (int w = 0; w < W; w++)
    for (int r = 0; r < 4; r++) body(i + r / 2 * 8, j + 8 * w + r % 2, sum.d[w][r]);
}
