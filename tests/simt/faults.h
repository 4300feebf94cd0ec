/* faults: kernels with one mistake each, which the twin of the CUDA runtime must show. Each fills FAULT_N floats. */
#pragma once

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FAULT_N = 256 };
/* Each kernel comes right (faulty 0) and with its mistake. Where it is right, out[i] becomes i. */
typedef enum Fault {
  FAULT_BARRIER,      /* a barrier is missing: another thread's value is read before it is there */
  FAULT_WARP_BARRIER, /* the same inside a warp */
  FAULT_SHARED_INDEX, /* one element too far in shared memory is written */
  FAULT_GLOBAL_INDEX, /* one element too far in global memory is read */
  FAULT_BLOCK_RACE,   /* a block reads what another of the same launch writes */
  FAULT_ASYNC_COPY,   /* read before its wait */
  FAULT_DIVERGENCE,   /* half of the threads wait at another barrier */
  FAULT_LANES,        /* a shuffle that some lanes of its mask do not reach */
  FAULT_ALIGNMENT,    /* 16 bytes are read from where only 4 may be */
  FAULT_UNWRITTEN,    /* memory is added to that nothing was written to */
  FAULT_WAIT,         /* a block waits for what another of the same launch writes */
  FAULT_GRID,         /* more blocks in y than a grid may have */
  FAULT_SHARED_MUCH,  /* more shared memory than 48 KiB that was not asked for */
  N_FAULTS
} Fault;
const char *fault_name(Fault fault);
void fault_run(Fault fault, int faulty, float *out);

/* What CUDA forbids while a stream captures. True where the call says so, and the capture's end as well. */
typedef enum CaptureFault {
  CAPTURE_WAITS,     /* for the stream */
  CAPTURE_ASKS,      /* whether the stream is done */
  CAPTURE_ALLOCATES, /* the device's memory */
  CAPTURE_PINS,      /* the host's memory */
  CAPTURE_COPIES,    /* from memory that is not pinned */
  CAPTURE_DEPENDS,   /* on work outside of it */
  CAPTURE_LEAVES,    /* what a stream that joined it was given without waiting for that */
  N_CAPTURE_FAULTS
} CaptureFault;
bool fault_capture(CaptureFault fault);
/* A kernel that stores its argument, captured with 1. What stands in memory behind the capture, behind a launch, and behind a
 * launch after the argument's variable became 2; 0 at first. */
void fault_frozen(float *out);

#ifdef __cplusplus
}
#endif
