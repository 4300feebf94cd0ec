/* scan_shapes: the one list of shapes and options that every kernel of ssd_scan is held to the double definition on, and
 * a scan of each with inputs, carried states and directions for all gradients. */
#pragma once

#include "autograd/ops.h"

enum { SCAN_MAX_SEQ = 6 };

typedef enum ScanDecay { DECAY_USUAL, DECAY_NONE, DECAY_STRONG, DECAY_MIXED } ScanDecay;

typedef enum ScanStates { STATES_NONE, STATES_IN, STATES_OUT, STATES_BOTH } ScanStates;
typedef struct ScanShape {
  const char *name;
  int n_h, n_p, n_n, n_g, n_r, n_s, chunk;
  bool mamba3, halves, D_has_hdim;
  ScanStates states; /* carried, with gradients */
  ScanDecay decay;   /* a about -0.3; -1e-6; -40; or -3000 at every fifth token and -0.01 between */
  int lengths[SCAN_MAX_SEQ + 1];
} ScanShape;
extern const ScanShape SCAN_SHAPES[];
extern const int N_SCAN_SHAPES;

/* A named output or gradient of a scan. */
typedef struct ScanResult {
  const char *name;
  Tensor *tensor;
  bool act;   /* stored as an activation */
  bool angle; /* to be compared modulo 2 pi */
} ScanResult;
enum { SCAN_MAX_RESULTS = 32 };

typedef struct ScanCase {
  Device device;
  SsdScan scan;
  ScanResult results[SCAN_MAX_RESULTS];
  Tensor host[SCAN_MAX_RESULTS]; /* the results' tensors: the host's copies. Not to be moved. */
  int n_results;
} ScanCase;

/* Opens a device by its name (device_open) and runs the shape forward and backward. The inputs are the same numbers
 * whatever the types. */
Status scan_case_run(ScanCase *c, const char *device, const ScanShape *shape, Dtype real, Dtype act);
void scan_case_close(ScanCase *c);
