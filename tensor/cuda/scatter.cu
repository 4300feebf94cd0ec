/* scatter: see scatter.h. Block i has row i of the index. Where an earlier row says the same, that row's block does the
 * work; else this one looks for its like from i on and sums them in order, a thread some columns. Each block reads the
 * index once, out of the cache, and every row of `from` is read once: for the some ten thousand tokens of a step that is
 * less than sorting them would cost. */
#include "tensor/cuda/scatter.h"

constexpr int THREADS = 128;

struct Found {
  int n;
  int64_t row[THREADS];
};

/* The rows among [first, first + THREADS) whose index is `wanted`, in order. All threads call. */
static __device__ void find(const int32_t *index, int64_t n, int64_t first, int32_t wanted, unsigned *votes,
                            Found *found) {
  const int thread = threadIdx.x, warp = thread / WARP, lane = thread % WARP;
  const int64_t i = first + thread;
  const unsigned vote = __ballot_sync(ALL_LANES, i < n && global_load(index + (i < n ? i : 0)) == wanted);
  __syncthreads(); /* the last round's rows are used up */
  if (lane == 0) votes[warp] = vote;
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < THREADS / WARP; w++) {
    if (w < warp) before += __popc(votes[w]);
    all += __popc(votes[w]);
  }
  if (vote >> lane & 1) found->row[before + __popc(vote & ((1u << lane) - 1))] = i;
  if (thread == 0) found->n = all;
  __syncthreads();
}

static __global__ void add_rows(const int32_t *index, int64_t n, int64_t width, Rows from, Rows to) {
  SHARED(Found, found);
  unsigned *votes = (unsigned *)(found + 1);
  const int64_t own = blockIdx.x;
  const int32_t wanted = global_load(index + own);
  if (wanted < 0) return; /* the same for all threads */
  for (int64_t first = 0; first < own; first += THREADS) {
    find(index, own, first, wanted, votes, found);
    if (found->n > 0) return; /* the same for all threads */
  }
  for (int64_t first = own; first < n; first += THREADS) {
    find(index, n, first, wanted, votes, found);
    for (int64_t col = (int64_t)threadIdx.x * Rows::RUN; col < width && found->n > 0; col += THREADS * Rows::RUN) {
      float sum[Rows::RUN], x[Rows::RUN];
      to.get_run(wanted, col, width - col, sum);
      for (int k = 0; k < found->n; k++) {
        from.get_run(found->row[k], col, width - col, x);
        for (int i = 0; i < Rows::RUN; i++) sum[i] += x[i];
      }
      to.put_run(wanted, col, width - col, sum);
    }
  }
}

void scatter_add(const int32_t *index, int64_t n, int64_t width, Rows from, Rows to) {
  CHECK(!to.unset, "rows are added to a gradient that holds nothing yet");
  const size_t shared = sizeof(Found) + THREADS / WARP * sizeof(unsigned);
  if (n > 0) LAUNCH(add_rows, blocks_of(n, 1), THREADS, shared, index, n, width, from, to);
}
