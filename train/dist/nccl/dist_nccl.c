/* dist_nccl: NCCL under train/dist/dist_gpu.h; a plug-in of its own (libaspis_nccl.so). Only sends and receives: the order of
 * additions is ours (dist.h). A second build, against the host's twin of NCCL (tests/simt/nccl.cc), is for tests.
 *
 * One thread puts work into streams; another may abort. A lock keeps the communicator there while the first is inside of
 * NCCL; who aborts does not wait for it for ever, because the process ends anyway. */
#include <nccl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "train/dist/dist_gpu.h"

static ncclComm_t comm; /* NULL: none, or not any more */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

_Static_assert(DIST_GPU_ID_BYTES == sizeof(ncclUniqueId), "an id of NCCL's");

static Status failed(const char *what, ncclResult_t result) {
  return status_fail(CODE_USAGE,
                     "train.transport: nccl: %s: %s (NCCL_DEBUG=WARN tells more; every rank needs a GPU of its own); "
                     "train.transport: host passes gradients through the host's memory instead",
                     what, ncclGetErrorString(result));
}

static Status nccl_make_id(char id[DIST_GPU_ID_BYTES]) {
  ncclUniqueId made;
  const ncclResult_t result = ncclGetUniqueId(&made);
  if (result != ncclSuccess) return failed("no id", result);
  memcpy(id, &made, sizeof made);
  return STATUS_OK;
}

static Status nccl_start(const char id[DIST_GPU_ID_BYTES], int rank, int size) {
  ncclUniqueId given;
  memcpy(&given, id, sizeof given);
  const ncclResult_t result = ncclCommInitRank(&comm, size, given, rank);
  return result == ncclSuccess ? STATUS_OK : failed("the ranks' GPUs do not find each other", result);
}

static bool exchange(int peer, const void *out, size_t out_bytes, void *in, size_t in_bytes, cudaStream_t stream) {
  bool went = comm && ncclGroupStart() == ncclSuccess;
  if (!went) return false;
  if (out_bytes > 0) went = ncclSend(out, out_bytes, ncclUint8, peer, comm, stream) == ncclSuccess;
  if (in_bytes > 0) went = ncclRecv(in, in_bytes, ncclUint8, peer, comm, stream) == ncclSuccess && went;
  return ncclGroupEnd() == ncclSuccess && went;
}

static bool nccl_exchange(int peer, const void *out, size_t out_bytes, void *in, size_t in_bytes, void *stream) {
  pthread_mutex_lock(&lock);
  const bool went = exchange(peer, out, out_bytes, in, in_bytes, stream);
  pthread_mutex_unlock(&lock);
  return went;
}

static bool nccl_healthy(void) {
  pthread_mutex_lock(&lock);
  ncclResult_t error = ncclSuccess;
  const bool healthy = comm && ncclCommGetAsyncError(comm, &error) == ncclSuccess && error == ncclSuccess;
  pthread_mutex_unlock(&lock);
  return healthy;
}

static void nccl_abort(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec++;
  if (pthread_mutex_timedlock(&lock, &until) != 0) return;
  if (comm) ncclCommAbort(comm);
  comm = NULL;
  pthread_mutex_unlock(&lock);
}

static void nccl_finish(void) {
  pthread_mutex_lock(&lock);
  if (comm) ncclCommDestroy(comm);
  comm = NULL;
  pthread_mutex_unlock(&lock);
}

__attribute__((visibility("default"))) extern const DistGpu aspis_dist_gpu;
const DistGpu aspis_dist_gpu = {.layout = DIST_GPU_LAYOUT,
                                .name = "nccl",
                                .make_id = nccl_make_id,
                                .start = nccl_start,
                                .exchange = nccl_exchange,
                                .healthy = nccl_healthy,
                                .abort = nccl_abort,
                                .finish = nccl_finish};
