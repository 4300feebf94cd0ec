/* dist_mpi: the backend "mpi" of train/dist/dist.h, over memory of the host; a plug-in of its own (libaspis_mpi.so).
 *
 * One thread at a time calls MPI: the main one, or the one that sums gradients meanwhile (train/dist/buckets.h). Errors return,
 * because the watch has the better message. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <time.h>

#include "train/dist/dist.h"

static Status mpi_start(const Rendezvous *rendezvous, int *rank, int *size, int *local_rank, int *local_size) {
  (void)rendezvous;
  int level;
  if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS || level < MPI_THREAD_SERIALIZED)
    return status_fail(CODE_USAGE,
                       "MPI cannot be started beside threads; start with the mpirun of the Open MPI that this "
                       "program was built with");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm host;
  if (MPI_Comm_rank(MPI_COMM_WORLD, rank) != MPI_SUCCESS || MPI_Comm_size(MPI_COMM_WORLD, size) != MPI_SUCCESS ||
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host) != MPI_SUCCESS ||
      MPI_Comm_rank(host, local_rank) != MPI_SUCCESS || MPI_Comm_size(host, local_size) != MPI_SUCCESS)
    return status_fail(CODE_PEER, "MPI: the ranks do not find each other");
  MPI_Comm_free(&host);
  return STATUS_OK;
}

/* Counts of MPI are ints. */
enum { MOST_BYTES = 1 << 30 };
static int piece(size_t bytes, size_t at) {
  return at >= bytes ? 0 : bytes - at < MOST_BYTES ? (int)(bytes - at) : MOST_BYTES;
}

/* MPI's own waiting takes a core, which gradients are being made on. */
static bool wait_asleep(MPI_Request requests[2]) {
  enum { TESTS = 64, NAP_NS = 50000 };
  for (int n = 0, done = 0;; n++) {
    if (MPI_Testall(2, requests, &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS) return false;
    if (done) return true;
    if (n >= TESTS) nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
  }
}

static bool mpi_exchange(int peer, const void *out, size_t out_bytes, void *in, size_t in_bytes) {
  size_t at = 0;
  do {
    MPI_Request requests[2];
    if (MPI_Irecv((char *)in + at, piece(in_bytes, at), MPI_BYTE, peer, 0, MPI_COMM_WORLD, &requests[0]) !=
            MPI_SUCCESS ||
        MPI_Isend((const char *)out + at, piece(out_bytes, at), MPI_BYTE, peer, 0, MPI_COMM_WORLD, &requests[1]) !=
            MPI_SUCCESS ||
        !wait_asleep(requests))
      return false;
    at += MOST_BYTES;
  } while (at < out_bytes || at < in_bytes);
  return true;
}

static bool mpi_broadcast(void *x, size_t bytes) {
  for (size_t at = 0; at < bytes; at += MOST_BYTES)
    if (MPI_Bcast((char *)x + at, piece(bytes, at), MPI_BYTE, 0, MPI_COMM_WORLD) != MPI_SUCCESS) return false;
  return true;
}

static bool mpi_gather_all(const void *mine, void *all, size_t bytes) {
  return MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD) == MPI_SUCCESS;
}

static void mpi_finish(void) { MPI_Finalize(); }

__attribute__((visibility("default"))) extern const DistBackend aspis_dist;
const DistBackend aspis_dist = {.layout = DIST_LAYOUT,
                                .name = "mpi",
                                .start = mpi_start,
                                .exchange = mpi_exchange,
                                .broadcast = mpi_broadcast,
                                .gather_all = mpi_gather_all,
                                .finish = mpi_finish};
