/* rng: Philox4x32-10 (Salmon et al. 2011), a counter-based generator: the numbers are a pure function of what they are
 * for, so there is no state to save and every rank, thread and device draws the same ones. */
#pragma once

#include "tensor/base.h"

/* What the numbers are for; part of the key, so that streams never meet. */
typedef enum RngStream { RNG_INIT = 1, RNG_SHUFFLE, RNG_TASK, RNG_SAMPLE, RNG_TEST, RNG_DROPOUT } RngStream;

/* Position in one stream: `a` and `b` name the object (say step and sample), `counter` the draw. */
typedef struct Rng {
  uint64_t seed;
  uint32_t stream, a;
  uint64_t b;
  uint32_t counter;
  uint32_t left; /* words of `block` not yet handed out */
  uint32_t block[4];
} Rng;

/* One block: 128 random bits from a 128-bit counter and a 64-bit key. */
ON_DEVICE_TOO static inline void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* A stream for object (a, b): a < 2^32. */
Rng rng_make(uint64_t seed, RngStream stream, uint32_t a, uint64_t b);
uint32_t rng_u32(Rng *rng);
/* Uniform in [0, n), without bias; n >= 1. */
uint32_t rng_below(Rng *rng, uint32_t n);
/* Uniform in [0, 1), 53 bits. */
double rng_uniform(Rng *rng);
/* Standard normal (Box-Muller). */
double rng_normal(Rng *rng);
/* A bijection of [0, n) chosen by (seed, stream, a): where sample i of epoch a lies. Feistel network with cycle walking. */
uint64_t rng_permute(uint64_t seed, RngStream stream, uint32_t a, uint64_t n, uint64_t i);
