/* The twin of the CUDA runtime shows what it is there to show: every planted fault (tests/simt/faults.h) ends the program
 * or makes a wrong number under some order of threads, and the same kernels without it are right under all. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/simt/faults.h"
#include "tests/simt/simt.h"

enum { N_ORDERS = 20 };

static bool right(const float *out) {
  for (int i = 0; i < FAULT_N; i++)
    if (!(out[i] == (float)i)) return false;
  return true;
}

/* Whether some order of threads ends the process by a signal or makes a wrong number. */
static bool is_caught(Fault fault, int faulty) {
  const pid_t child = fork();
  if (child == 0) {
    freopen("/dev/null", "w", stderr);
    signal(SIGABRT, SIG_DFL);
    simt_watch(1);
    bool wrong = false;
    for (int order = 0; order < N_ORDERS; order++) {
      float out[FAULT_N];
      simt_seed((uint64_t)order + 1);
      fault_run(fault, faulty, out);
      wrong |= !right(out);
    }
    _exit(wrong);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status != 0;
}

Test(simt_faults, are_caught) {
  for (Fault fault = 0; fault < N_FAULTS; fault++)
    cr_assert(is_caught(fault, 1), "%s goes unseen in %d orders of threads", fault_name(fault), N_ORDERS);
}

Test(simt_faults, right_kernels_are_right_in_every_order) {
  for (Fault fault = 0; fault < N_FAULTS; fault++)
    cr_assert(!is_caught(fault, 0), "%s: the kernel without it fails", fault_name(fault));
}

Test(simt_captures, forbid_what_cuda_forbids) {
  for (CaptureFault fault = 0; fault < N_CAPTURE_FAULTS; fault++)
    cr_assert(fault_capture(fault), "case %d of faults.h goes through", (int)fault);
}

Test(simt_captures, keep_arguments_as_they_were) {
  float out[3] = {-1, -1, -1};
  fault_frozen(out);
  cr_assert_eq(out[0], 0, "a capture runs what it keeps");
  cr_assert_eq(out[1], 1, "a launch stores %g", (double)out[1]);
  cr_assert_eq(out[2], 1, "an argument that changes later is %g in the graph", (double)out[2]);
}
