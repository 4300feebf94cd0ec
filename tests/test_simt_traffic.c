/* What the CUDA scan moves: bytes that its kernels take from and bring to global memory, each address once a kernel, as the
 * host's twin counts them (tests/simt), BF16, a token and head, held to 1.5 times the least of a fused design: of headdim P
 * = 64, d_state N = 128, H = 64 heads of one group, sequences of 2,048 tokens, chunk states every Q = 256 tokens.
 *
 * Mamba-2 and SISO: 458 + 808 and 592 + 916 bytes, forward + backward (with convolution and gate, which are not in here),
 * which are not raised for fewer heads.
 * MIMO of rank R = 4 with Q = 64 (a tile is 8 tokens, and the states of a chunk's tiles should stay in the cache), without
 * sums over the heads of several blocks on the chip:
 *   forward   x 2P, y 2RP, dt, a, lambda 12, chunk states 4PN/Q, of B and C 4RN/H: 128 + 512 + 12 + 512 + 32 = 1196
 *   backward  x, dx 4P, dy 2RP, scalars and theirs 24, chunk states 512, B, C, dB, dC 64, and what k heads of a block add up
 *             of dB and dC in BF16, written and read again, 8RN/k: 1368 + 1024 = 2392 for k = 4
 * k is what leaves a block to each processor of an H100: 8 sequences of 64 heads on 132. Here it is 4 of 8 heads on 2, and
 * what heads share counts eight times as much a head: MIMO's least is taken for as many. So few heads would be cut into segments, which is
 * not let happen here: 64 heads of 8 sequences are not.
 *
 * 1,024 tokens cut into four segments: what crosses them is found of all but the last, which reads x, B, dt, a, lambda and
 * angle once more; a state is written there, read and written where they are joined, and read where a segment begins:
 *   forward   3/4 of x 2P, scalars 12, B 4N/8, states 4 x 4PN/256: 513
 *   backward  3/4 of dy 2P, scalars 12, C 4N/8, states' gradients 4 x 4PN/256: 513; where angles turn, both once more: 192 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/simt/simt.h"
#include "tests/support/scan_shapes.h"

enum { N_H = 8, N_PROCESSORS = 2 };

extern int64_t scan_segment_blocks; /* tensor/cuda/scan.h */

typedef struct Bound {
  ScanShape shape;
  double forward, backward;               /* the least, of 64 heads */
  double shared_forward, shared_backward; /* of it what all heads share */
} Bound;
static double least(double all, double shared) { return all - shared + shared * 64 / N_H; }

static double per_token_head(const ScanShape *shape, const char *const *kernels) {
  double bytes = 0;
  for (; *kernels; kernels++) {
    const SimtTraffic t = simt_traffic(*kernels);
    cr_assert(t.launches > 0, "%s was not launched", *kernels);
    bytes += (double)(t.bytes_in + t.bytes_out);
  }
  int n_t = 0;
  for (int i = 0; shape->lengths[i]; i++) n_t += shape->lengths[i];
  return bytes / (n_t * shape->n_h);
}

static void check(int64_t segment_blocks, Bound bound) {
  static const char *const FORWARD[] = {"ssd_scan.cu: ", NULL}, *const BACKWARD[] = {
                                                                    "ssd_scan_bwd.cu: ",
                                                                    NULL}; /* parameters' sums are no tokens' */
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 1);
  scan_segment_blocks = segment_blocks;
  simt_processors(N_PROCESSORS);
  simt_watch(true);
  simt_traffic_reset();
  ScanCase c;
  const Status status = scan_case_run(&c, "simt", &bound.shape, F32, BF16);
  cr_assert_eq(status.code, CODE_OK, "%s: %s", bound.shape.name, status.line);
  const double forward = per_token_head(&bound.shape, FORWARD), backward = per_token_head(&bound.shape, BACKWARD);
  const double least_forward = least(bound.forward, bound.shared_forward),
               least_backward = least(bound.backward, bound.shared_backward);
  printf("%s: %.0f + %.0f bytes a token and head, least %.0f + %.0f\n", bound.shape.name, forward, backward,
         least_forward, least_backward);
  cr_assert(forward <= 1.5 * least_forward, "%s: forward moves %.0f bytes, at most 1.5 x %.0f expected",
            bound.shape.name, forward, least_forward);
  cr_assert(backward <= 1.5 * least_backward, "%s: backward moves %.0f bytes, at most 1.5 x %.0f expected",
            bound.shape.name, backward, least_backward);
  scan_case_close(&c);
}

#define SHAPE(name, rank, Q, ...)                                                                                      \
  { name, .n_h = N_H, .n_p = 64, .n_n = 128, .n_g = 1, .n_r = rank, .chunk = Q, __VA_ARGS__ }
#define MAMBA2(...) SHAPE("Mamba-2", 1, 256, .lengths = {__VA_ARGS__})
#define SISO(...) SHAPE("Mamba-3 SISO", 1, 256, .mamba3 = true, .n_s = 32, .lengths = {__VA_ARGS__})
#define MIMO(...) SHAPE("Mamba-3 MIMO", 4, 64, .mamba3 = true, .halves = true, .n_s = 32, .lengths = {__VA_ARGS__})

Test(simt_traffic, of_mamba2_is_near_the_least) { check(1, (Bound){MAMBA2(2048), 458, 808, 0, 0}); }
Test(simt_traffic, of_siso_is_near_the_least) { check(1, (Bound){SISO(2048), 592, 916, 0, 0}); }
Test(simt_traffic, of_mimo_is_near_the_least) { check(1, (Bound){MIMO(512), 1196, 2392, 33, 66}); }
Test(simt_traffic, of_segments_is_what_finding_their_states_takes) {
  check(scan_segment_blocks, (Bound){MAMBA2(1024), 458 + 513, 808 + 513, 0, 0});
  check(scan_segment_blocks, (Bound){SISO(1024), 592 + 513, 916 + 513 + 192, 0, 0});
}
