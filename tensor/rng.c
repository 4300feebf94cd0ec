/* rng: see rng.h. */
#include "tensor/rng.h"

#include <math.h>

Rng rng_make(uint64_t seed, RngStream stream, uint32_t a, uint64_t b) {
  /* The stream enters through the key: a seed's high half stays meaningful. */
  return (Rng){.seed = seed ^ ((uint64_t)stream * 0x9E3779B97F4A7C15u), .stream = (uint32_t)stream, .a = a, .b = b};
}

uint32_t rng_u32(Rng *rng) {
  if (rng->left == 0) {
    const uint32_t counter[4] = {rng->counter++, rng->a, (uint32_t)rng->b, (uint32_t)(rng->b >> 32)};
    const uint32_t key[2] = {(uint32_t)rng->seed, (uint32_t)(rng->seed >> 32)};
    philox4x32(counter, key, rng->block);
    rng->left = 4;
  }
  return rng->block[4 - rng->left--];
}

uint32_t rng_below(Rng *rng, uint32_t n) {
  CHECK(n >= 1, "no number below 0");
  /* Draws from the incomplete last round of n are thrown away: no value is favoured. */
  uint32_t limit = (uint32_t)(((uint64_t)1 << 32) - (((uint64_t)1 << 32) % n));
  uint32_t x;
  do x = rng_u32(rng);
  while (limit != 0 && x >= limit);
  return x % n;
}

double rng_uniform(Rng *rng) {
  uint64_t high = rng_u32(rng) >> 5, low = rng_u32(rng) >> 6;
  return ((double)high * 67108864.0 + (double)low) * (1.0 / 9007199254740992.0);
}

double rng_normal(Rng *rng) {
  double u = 1.0 - rng_uniform(rng), v = rng_uniform(rng);
  return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t rng_permute(uint64_t seed, RngStream stream, uint32_t a, uint64_t n, uint64_t i) {
  CHECK(i < n, "index %llu of %llu", (unsigned long long)i, (unsigned long long)n);
  int half_bits = 1;
  while (half_bits < 32 && ((uint64_t)1 << (2 * half_bits)) < n) half_bits++;
  const uint64_t mask = ((uint64_t)1 << half_bits) - 1;
  const Rng base = rng_make(seed, stream, a, 0);
  const uint32_t key[2] = {(uint32_t)base.seed, (uint32_t)(base.seed >> 32)};
  do { /* the domain is at most four times n: a few walks at most, on average */
    uint64_t left = i >> half_bits, right = i & mask;
    for (uint32_t round = 0; round < 6; round++) {
      const uint32_t counter[4] = {round, a, (uint32_t)right, 0x5EED};
      uint32_t out[4];
      philox4x32(counter, key, out);
      uint64_t next = left ^ (out[0] & mask);
      left = right;
      right = next;
    }
    i = left << half_bits | right;
  } while (i >= n);
  return i;
}
