/* nccl: the host's twin of NCCL (include/nccl.h): ranks are processes of one host and meet over local sockets.
 *
 * What it keeps of NCCL: making a communicator waits for all ranks; nothing of a group begins before its outermost end, and
 * then goes on at once, in the order of the stream; an operation outside of a group is one of its own, so that two ranks who
 * send to each other in turn wait for ever; a lost peer is an asynchronous error, and the work that waits for it stays
 * in the stream until the communicator is aborted; whether work is part of a graph, and of which, is the same for who sends and
 * who receives. What NCCL leaves undefined ends the program: buffers of a group that
 * overlap where one is received into, memory that is not the device's, a receive of another length than its send. */
#include <nccl.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include "tests/simt/inside.h"

struct ncclComm {
  int rank, size, listener;
  std::vector<int> fd; /* to each rank */
  std::atomic<bool> aborted;
  std::atomic<ncclResult_t> error;
  const void
      *under_way; /* the group that began and is not done: others of the communicator wait, whatever their stream */
  uint64_t capture, n_captures; /* the last that it was part of, and how many those were */
};

namespace {

/* One send or receive: its length and capture first, then its bytes. */
struct Head {
  uint64_t bytes, capture; /* capture: its number among the communicator's; 0: of none */
};
struct Transfer {
  ncclComm_t comm;
  int peer;
  bool sends;
  char *data;
  Head own, said; /* said: by the sender, once it is here */
  size_t done;    /* of the head and the bytes */
  cudaStream_t stream;
};

thread_local int group_depth;
thread_local std::vector<Transfer> group;

sockaddr_un address_of(const ncclUniqueId &id, int rank, socklen_t *size) {
  sockaddr_un at = {};
  at.sun_family = AF_UNIX;
  const int n = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "aspis-nccl-%.64s-%d", id.internal, rank);
  *size = (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + (size_t)n);
  return at;
}

void nap() {
  const timespec time = {0, 1000000};
  nanosleep(&time, nullptr);
}

/* What one call can move of the head, or of what follows; negative: the peer is gone. */
ssize_t move(Transfer &t) {
  char *const head = (char *)(t.sends ? &t.own : &t.said);
  const bool at_head = t.done < sizeof t.said;
  char *const at = at_head ? head + t.done : t.data + (t.done - sizeof t.said);
  const size_t left = at_head ? sizeof t.said - t.done : t.own.bytes - (t.done - sizeof t.said);
  const int fd = t.comm->fd[(size_t)t.peer];
  const ssize_t n = t.sends ? send(fd, at, left, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(fd, at, left, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  return n == 0 ? -1 : n;
}

bool is_done(const Transfer &t) { return t.done == sizeof t.said + t.own.bytes; }

/* The first of a group's transfers with a peer in each direction goes on, since they come there in that order. */
bool is_first(const std::vector<Transfer> &all, size_t i) {
  for (size_t j = 0; j < i; j++)
    if (all[j].comm == all[i].comm && all[j].peer == all[i].peer && all[j].sends == all[i].sends && !is_done(all[j]))
      return false;
  return true;
}

/* True: all done, or given up. */
bool progress(std::vector<Transfer> &all) {
  const SimtLibraryCall call("nccl");
  ncclComm_t const comm = all[0].comm;
  if (comm->under_way && comm->under_way != &all) return comm->aborted;
  comm->under_way = &all;
  bool done = true;
  for (size_t i = 0; i < all.size(); i++) {
    Transfer &t = all[i];
    if (t.comm->aborted) return true;
    while (!is_done(t) && is_first(all, i)) {
      const ssize_t n = move(t);
      if (n < 0) t.comm->error = ncclRemoteError;
      if (n <= 0) break;
      t.done += (size_t)n;
      if (t.sends || t.done != sizeof t.said) continue;
      if (t.said.bytes != t.own.bytes)
        FAULT("nccl: rank %d receives %llu bytes where rank %d sends %llu", t.comm->rank,
              (unsigned long long)t.own.bytes, t.peer, (unsigned long long)t.said.bytes);
      if (t.said.capture != t.own.capture)
        FAULT("nccl: rank %d receives in its graph %llu what rank %d sends in its graph %llu (0: in none)",
              t.comm->rank, (unsigned long long)t.own.capture, t.peer, (unsigned long long)t.said.capture);
    }
    done &= is_done(t);
  }
  if (!done) return false;
  comm->under_way = nullptr;
  for (Transfer &t : all) t.done = 0; /* a graph does it again */
  return true;
}

void check_apart(const std::vector<Transfer> &all) {
  for (size_t i = 0; i < all.size(); i++) {
    simt_must_be_global("nccl", all[i].data, all[i].own.bytes);
    if (all[i].stream != all[0].stream || all[i].comm != all[0].comm)
      FAULT("nccl: a group in two streams or communicators");
    for (size_t j = 0; j < i; j++)
      if ((!all[i].sends || !all[j].sends) && all[i].data < all[j].data + all[j].own.bytes &&
          all[j].data < all[i].data + all[i].own.bytes)
        FAULT("nccl: a group receives into bytes that it also %s", all[i].sends || all[j].sends ? "sends" : "receives");
  }
}

ncclResult_t add(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream,
                 bool sends) {
  if (!comm || comm->aborted) return ncclInvalidUsage;
  if (peer < 0 || peer >= comm->size || peer == comm->rank || (type != ncclUint8 && type != ncclFloat32))
    return ncclInvalidArgument;
  ncclGroupStart();
  group.push_back({comm, peer, sends, (char *)data, {count * (type == ncclFloat32 ? 4 : 1), 0}, {}, 0, stream});
  return ncclGroupEnd();
}

} /* namespace */

const char *ncclGetErrorString(ncclResult_t result) {
  static const char *const texts[] = {"no error",
                                      "unhandled cuda error",
                                      "unhandled system error",
                                      "internal error",
                                      "invalid argument",
                                      "invalid usage",
                                      "remote process exited or there was a network error",
                                      "NCCL operation in progress"};
  return texts[result];
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  unsigned char random[16];
  if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) return ncclSystemError;
  *id = {};
  for (size_t i = 0; i < sizeof random; i++) snprintf(id->internal + 2 * i, 3, "%02x", random[i]);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank) {
  if (n_ranks < 1 || rank < 0 || rank >= n_ranks) return ncclInvalidArgument;
  auto made = std::make_unique<ncclComm>();
  made->rank = rank, made->size = n_ranks, made->fd.assign((size_t)n_ranks, -1);
  socklen_t size;
  sockaddr_un at = address_of(id, rank, &size);
  made->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(made->listener, (const sockaddr *)&at, size) != 0 || listen(made->listener, n_ranks) != 0)
    return ncclInvalidUsage; /* as of two ranks with one number */
  for (int peer = 0; peer < rank; peer++) {
    at = address_of(id, peer, &size);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(fd, (const sockaddr *)&at, size) != 0) nap();
    if (send(fd, &rank, sizeof rank, MSG_NOSIGNAL) != (ssize_t)sizeof rank) return ncclRemoteError;
    made->fd[(size_t)peer] = fd;
  }
  for (int n = rank + 1; n < n_ranks; n++) {
    const int fd = accept4(made->listener, nullptr, nullptr, SOCK_CLOEXEC);
    int peer;
    if (fd < 0 || recv(fd, &peer, sizeof peer, MSG_WAITALL) != (ssize_t)sizeof peer) return ncclRemoteError;
    made->fd[(size_t)peer] = fd;
  }
  *comm = made.release();
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm->aborted) return ncclInvalidUsage;
  for (int fd : comm->fd)
    if (fd >= 0) close(fd);
  close(comm->listener);
  delete comm;
  return ncclSuccess;
}

/* Work in streams still points there, so the communicator stays. */
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->aborted = true;
  for (int fd : comm->fd)
    if (fd >= 0) shutdown(fd, SHUT_RDWR);
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) { return *error = comm->error, ncclSuccess; }

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add(from, count, type, peer, comm, stream, true);
}
ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return add(to, count, type, peer, comm, stream, false);
}

ncclResult_t ncclGroupStart(void) { return group_depth++, ncclSuccess; }
ncclResult_t ncclGroupEnd(void) {
  if (group_depth == 0) return ncclInvalidUsage;
  if (--group_depth > 0 || group.empty()) return ncclSuccess;
  auto all = std::make_shared<std::vector<Transfer>>(std::move(group));
  group.clear();
  check_apart(*all);
  ncclComm_t const comm = (*all)[0].comm;
  const uint64_t capture = simt_capture((*all)[0].stream);
  if (capture && capture != comm->capture) comm->capture = capture, comm->n_captures++;
  for (Transfer &t : *all) t.own.capture = capture ? comm->n_captures : 0;
  simt_enqueue((*all)[0].stream, [all] { return progress(*all); });
  return ncclSuccess;
}
