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
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

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
