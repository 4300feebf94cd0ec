/* dist_tcp: see dist_tcp.h. Every rank keeps its connection to rank 0; others connect when they first exchange something,
 * the higher rank to the lower. */
#include "train/dist/dist_tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "train/dist/net.h"

enum { LINE_BYTES = 512, HELLO_SECONDS = 2 };
static const uint64_t KNOCK = 0x6b636f6e6b70736bu;

/* What a rank brings to rank 0 ... */
typedef struct Hello {
  uint64_t knock, layout;
  int32_t rank, size;
  NetPlace place;
} Hello;

/* ... and what it gets; behind it, when nothing is wrong, the places of all ranks. */
typedef struct Answer {
  uint64_t token;        /* of this run: whoever else connects later is not let in */
  char line[LINE_BYTES]; /* what is wrong; empty: nothing */
} Answer;

/* Of two ranks that connect later, both ways. */
typedef struct Pass {
  uint64_t token;
  int64_t rank;
} Pass;

static struct {
  int rank, size, listener;
  uint64_t token;
  int *fd; /* to each rank; -1: not yet */
  NetPlace *places;
} mesh = {.listener = -1};

/* ---- rank 0 */

/* Who is not there, as a list; of many the first ones. */
static char *missing_ranks(void) {
  enum { MOST = 8 };
  char text[16 * (MOST + 1)] = "";
  int n = 0, n_missing = 0;
  for (int i = 1; i < mesh.size; i++) {
    if (mesh.fd[i] >= 0 || n_missing++ >= MOST) continue;
    n += snprintf(text + n, sizeof text - (size_t)n, "%s%d", n ? ", " : "", i);
  }
  return base_format("rank%s %s%s of %d", n_missing == 1 ? "" : "s", text, n_missing > MOST ? ", ..." : "", mesh.size);
}

static Status check_hello(const Hello *hello, const Rendezvous *r) {
  if (hello->layout != DIST_LAYOUT)
    return status_fail(CODE_PEER, "rank %d on %s runs another build of aspis than rank 0: give all the same",
                       hello->rank, hello->place.host);
  if (hello->size != mesh.size)
    return status_fail(CODE_PEER, "rank %d on %s was told of %d ranks, rank 0 of %d: give all the same %s", hello->rank,
                       hello->place.host, hello->size, mesh.size, r->world_key);
  if (hello->rank == 0 || mesh.fd[hello->rank] >= 0)
    return status_fail(CODE_PEER, "two processes are rank %d, the second on %s: give each its own number", hello->rank,
                       hello->place.host);
  return STATUS_OK;
}

/* Takes in one who knocks; strangers are left outside. */
static Status let_in(int fd, const Rendezvous *r) {
  Hello hello;
  if (!net_receive(fd, &hello, sizeof hello, HELLO_SECONDS) || hello.knock != KNOCK || hello.rank < 0 ||
      hello.rank >= hello.size) {
    close(fd);
    return STATUS_OK;
  }
  Status status = check_hello(&hello, r);
  if (status.code != CODE_OK) {
    Answer answer = {0};
    snprintf(answer.line, sizeof answer.line, "%s", status.line);
    net_send(fd, &answer, sizeof answer);
    close(fd);
    return status;
  }
  mesh.fd[hello.rank] = fd, mesh.places[hello.rank] = hello.place;
  struct sockaddr_in from;
  socklen_t size = sizeof from;
  /* where a rank was seen to come from is where it is reached, whatever it lists */
  if (getpeername(fd, (struct sockaddr *)&from, &size) == 0 && from.sin_family == AF_INET &&
      ntohl(from.sin_addr.s_addr) >> 24 != 127) {
    NetPlace *place = &mesh.places[hello.rank];
    place->n_addresses = (int32_t)min_i64(place->n_addresses, NET_MOST_ADDRESSES - 1);
    memmove(place->addresses + 1, place->addresses, (size_t)place->n_addresses++ * sizeof *place->addresses);
    place->addresses[0] = from.sin_addr.s_addr;
  }
  return STATUS_OK;
}

static Status gather_ranks(const Rendezvous *r) {
  const double deadline = base_seconds() + r->seconds;
  mesh.listener = net_listen(r->port, mesh.size, &mesh.places[0]);
  if (mesh.listener < 0)
    return status_fail(CODE_PEER, "rank 0 cannot listen on port %d, where the ranks are to meet: %s; choose another",
                       r->port, strerror(errno));
  for (int n = 1; n < mesh.size;) {
    const int fd = net_accept(mesh.listener, deadline - base_seconds() > 0 ? deadline - base_seconds() : 0);
    if (fd < 0) {
      char *missing = missing_ranks();
      Status status = status_fail(CODE_PEER,
                                  "%s did not come to rank 0 on %s, port %d, within %g s: start as many as %s "
                                  "says, or give them longer with ASPIS_MEET_SECONDS",
                                  missing, mesh.places[0].host, r->port, r->seconds, r->world_key);
      free(missing);
      return status;
    }
    TRY(let_in(fd, r));
    n = 1;
    for (int i = 1; i < mesh.size; i++) n += mesh.fd[i] >= 0;
  }
  if (getrandom(&mesh.token, sizeof mesh.token, 0) != sizeof mesh.token)
    return status_fail(CODE_PEER, "no random number for the ranks to know each other by: %s", strerror(errno));
  return STATUS_OK;
}

static Status receive_ranks(const Rendezvous *r) {
  Status status = gather_ranks(r);
  Answer answer = {.token = mesh.token};
  if (status.code != CODE_OK) snprintf(answer.line, sizeof answer.line, "%s", status.line);
  for (int i = 1; i < mesh.size; i++) {
    if (mesh.fd[i] < 0) continue;
    const bool sent = net_send(mesh.fd[i], &answer, sizeof answer) &&
                      (answer.line[0] || net_send(mesh.fd[i], mesh.places, (size_t)mesh.size * sizeof *mesh.places));
    if (!sent && status.code == CODE_OK)
      status = status_fail(CODE_PEER, "rank %d on %s left while the ranks met", i, mesh.places[i].host);
  }
  return status;
}

/* ---- the others */

static Status find_master(const Rendezvous *r, uint32_t *address) {
  struct addrinfo wanted = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
  const int failure = getaddrinfo(r->host, NULL, &wanted, &found);
  if (failure) return status_fail(CODE_PEER, "rank %d: %s, rank 0's host: %s", r->rank, r->host, gai_strerror(failure));
  *address = ((const struct sockaddr_in *)found->ai_addr)->sin_addr.s_addr;
  freeaddrinfo(found);
  return STATUS_OK;
}

/* Rank 0 may be later than we are. */
static Status knock(const Rendezvous *r, int *fd) {
  const double deadline = base_seconds() + r->seconds;
  uint32_t address;
  TRY(find_master(r, &address));
  for (;;) {
    *fd = net_connect_to(address, htons(r->port), max_i64(1, (int64_t)(deadline - base_seconds())));
    if (*fd >= 0) return STATUS_OK;
    if (base_seconds() > deadline)
      return status_fail(CODE_PEER, "rank %d of %d: rank 0 does not answer on %s, port %d, within %g s: %s", r->rank,
                         r->size, r->host, r->port, r->seconds, strerror(errno));
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
  }
}

static Status join_ranks(const Rendezvous *r) {
  Hello hello = {.knock = KNOCK, .layout = DIST_LAYOUT, .rank = r->rank, .size = r->size};
  mesh.listener = net_listen(0, mesh.size, &hello.place);
  if (mesh.listener < 0) return status_fail(CODE_PEER, "rank %d cannot listen: %s", r->rank, strerror(errno));
  TRY(knock(r, &mesh.fd[0]));
  Answer answer;
  /* rank 0 waits for the others before it answers, and says so when they do not come */
  if (!net_send(mesh.fd[0], &hello, sizeof hello) || !net_receive(mesh.fd[0], &answer, sizeof answer, 2 * r->seconds))
    return status_fail(CODE_PEER, "rank %d of %d: what listens on %s, port %d, is no rank 0 of this run, or left",
                       r->rank, r->size, r->host, r->port);
  answer.line[LINE_BYTES - 1] = '\0';
  if (answer.line[0]) return status_fail(CODE_PEER, "rank %d of %d: %s", r->rank, r->size, answer.line);
  mesh.token = answer.token;
  if (!net_receive(mesh.fd[0], mesh.places, (size_t)mesh.size * sizeof *mesh.places, r->seconds))
    return status_fail(CODE_PEER, "rank %d of %d: rank 0 left while the ranks met", r->rank, r->size);
  return STATUS_OK;
}

/* ---- the backend */

static void tcp_finish(void) {
  for (int i = 0; i < mesh.size; i++)
    if (mesh.fd[i] >= 0) close(mesh.fd[i]);
  if (mesh.listener >= 0) close(mesh.listener);
  free(mesh.fd), free(mesh.places);
  mesh.fd = NULL, mesh.places = NULL, mesh.size = 0, mesh.listener = -1;
}

static Status tcp_start(const Rendezvous *r, int *rank, int *size, int *local_rank, int *local_size) {
  mesh.rank = r->rank, mesh.size = r->size;
  mesh.fd = base_alloc((size_t)r->size * sizeof *mesh.fd);
  mesh.places = base_zalloc((size_t)r->size * sizeof *mesh.places);
  for (int i = 0; i < r->size; i++) mesh.fd[i] = -1;
  TRY_OR(r->rank == 0 ? receive_ranks(r) : join_ranks(r), tcp_finish());
  *rank = r->rank, *size = r->size, *local_rank = *local_size = 0;
  for (int i = 0; i < r->size; i++)
    if (strcmp(mesh.places[i].host, mesh.places[r->rank].host) == 0) ++*local_size, *local_rank += i < r->rank;
  if (r->local_rank >= 0) *local_rank = r->local_rank;
  return STATUS_OK;
}

static Pass own_pass(void) { return (Pass){mesh.token, mesh.rank}; }

/* The higher rank's way. */
static bool call(int peer) {
  const int fd = net_connect(&mesh.places[peer], mesh.places[mesh.rank].host);
  if (fd < 0) return false;
  const Pass mine = own_pass();
  Pass theirs;
  if (net_send(fd, &mine, sizeof mine) && net_receive(fd, &theirs, sizeof theirs, -1) && theirs.token == mesh.token &&
      theirs.rank == peer) {
    mesh.fd[peer] = fd;
    return true;
  }
  close(fd);
  return false;
}

/* The lower rank's: whoever comes meanwhile is kept for later. */
static bool wait_for_call(int peer) {
  while (mesh.fd[peer] < 0) {
    const int fd = net_accept(mesh.listener, -1);
    if (fd < 0) return false;
    const Pass mine = own_pass();
    Pass theirs;
    if (net_receive(fd, &theirs, sizeof theirs, HELLO_SECONDS) && theirs.token == mesh.token &&
        theirs.rank > mesh.rank && theirs.rank < mesh.size && mesh.fd[theirs.rank] < 0 &&
        net_send(fd, &mine, sizeof mine))
      mesh.fd[theirs.rank] = fd;
    else close(fd);
  }
  return true;
}

static bool tcp_exchange(int peer, const void *out, size_t out_bytes, void *in, size_t in_bytes) {
  if (mesh.fd[peer] < 0 && !(mesh.rank > peer ? call(peer) : wait_for_call(peer))) return false;
  return net_exchange(mesh.fd[peer], out, out_bytes, in, in_bytes);
}

static bool tcp_broadcast(void *x, size_t bytes) {
  if (mesh.rank > 0) return net_receive(mesh.fd[0], x, bytes, -1);
  for (int i = 1; i < mesh.size; i++)
    if (!net_send(mesh.fd[i], x, bytes)) return false;
  return true;
}

static bool tcp_gather_all(const void *mine, void *all, size_t bytes) {
  memcpy((char *)all + (size_t)mesh.rank * bytes, mine, bytes);
  if (mesh.rank > 0 && !net_send(mesh.fd[0], mine, bytes)) return false;
  for (int i = 1; mesh.rank == 0 && i < mesh.size; i++)
    if (!net_receive(mesh.fd[i], (char *)all + (size_t)i * bytes, bytes, -1)) return false;
  return tcp_broadcast(all, (size_t)mesh.size * bytes);
}

const DistBackend dist_tcp = {.layout = DIST_LAYOUT,
                              .name = "tcp",
                              .start = tcp_start,
                              .exchange = tcp_exchange,
                              .broadcast = tcp_broadcast,
                              .gather_all = tcp_gather_all,
                              .finish = tcp_finish};
