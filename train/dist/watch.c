/* watch: see watch.h. */
#include "train/dist/watch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "train/dist/net.h"
#include "train/thread.h"

typedef enum Word { WORD_HELLO, WORD_BEAT, WORD_BYE, WORD_END } Word;

/* All that is ever said. */
typedef struct Message {
  uint64_t token; /* of this run: whoever else knocks is not let in */
  int32_t word, rank, phase;
  int64_t step, turn; /* turn: counts changes of phase */
} Message;

/* Rank 0, of each other; the others, of rank 0. */
typedef struct Peer {
  int fd; /* -1: not there yet, or gone with a bye */
  bool left;
  Message last;
  double heard, turned; /* when last, and when its turn last changed */
  char part[sizeof(Message)];
  size_t n_part;
} Peer;

struct Watch {
  Dist *dist;
  double watchdog, stall, beat; /* seconds */
  uint64_t token;
  int listener, own_fd; /* own_fd: of another rank than 0, to rank 0 */
  Peer *peers;          /* by rank */
  double opened;
  _Atomic int phase, closing;
  _Atomic int64_t step, turn;
  pthread_t thread;
};

/* Where rank 0 listens. */
typedef struct Meeting {
  uint64_t token;
  NetPlace place;
} Meeting;

/* ---- telling */

static Message message(Watch *w, Word word) {
  return (Message){.token = w->token,
                   .word = word,
                   .rank = w->dist->rank,
                   .phase = atomic_load(&w->phase),
                   .step = atomic_load(&w->step),
                   .turn = atomic_load(&w->turn)};
}

/* A message is far smaller than a connection's buffer, so it leaves whole or, to a peer that reads nothing, not at all. */
static void tell(int fd, const Message *m) {
  if (fd >= 0 && send(fd, m, sizeof *m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return;
}

static void tell_all(Watch *w, Word word) {
  const Message m = message(w, word);
  if (!dist_is_first(w->dist)) tell(w->own_fd, &m);
  else
    for (int i = 1; i < w->dist->size; i++) tell(w->peers[i].fd, &m);
}

void watch_phase(Watch *w, int64_t step, Phase phase) {
  if (!w) return;
  atomic_store(&w->step, step);
  atomic_store(&w->phase, phase);
  atomic_fetch_add(&w->turn, 1);
  enum { FEW = 16 }; /* of many, rank 0 tells with its beat alone */
  if (!dist_is_first(w->dist) || w->dist->size <= FEW) tell_all(w, WORD_BEAT);
}

/* ---- judging */

static NO_RETURN void leave(Watch *w) {
  dist_abort(w->dist);
  _exit(CODE_PEER);
}

static NO_RETURN void end(Watch *w, int rank, const char *what, double seconds) {
  const Message *m = &w->peers[rank].last;
  char *line =
      base_format("rank %d on %s %s, %.1f s ago, in step %lld, phase %s; all ranks were ended: continue from the "
                  "last checkpoint with --resume auto",
                  rank, w->dist->hosts[rank], what, seconds, (long long)m->step, phase_name((Phase)m->phase));
  dist_tell(w->dist, line); /* before any other ends, because mpirun then ends the rest */
  if (dist_is_first(w->dist)) tell_all(w, WORD_END);
  leave(w);
}

/* Takes in what a peer said; false: its connection is closed. */
static bool listen_to(Watch *w, Peer *peer) {
  for (;;) {
    ssize_t n = recv(peer->fd, peer->part + peer->n_part, sizeof peer->part - peer->n_part, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    peer->heard = base_seconds();
    if ((peer->n_part += (size_t)n) < sizeof peer->part) continue;
    peer->n_part = 0;
    Message m;
    memcpy(&m, peer->part, sizeof m);
    if (m.token != w->token || m.phase < 0 || m.phase >= N_PHASES) return false;
    if (m.word == WORD_END) leave(w); /* told there */
    if (m.word == WORD_BYE) peer->left = true;
    if (m.turn != peer->last.turn) peer->turned = peer->heard;
    peer->last = m;
  }
}

static void judge(Watch *w, int rank, double now) {
  const Peer *peer = &w->peers[rank];
  if (peer->left) return;
  const double silence = now - peer->heard;
  if (silence > w->watchdog) end(w, rank, peer->fd >= 0 ? "hangs: its last sign of life came" : "never came", silence);
}

/* Everyone beats and nobody moves: the first that does not wait for others is the one, or else the one that is behind. */
static void judge_stall(Watch *w, double now) {
  Message own = message(w, WORD_BEAT);
  Peer *self = &w->peers[0];
  if (own.turn != self->last.turn) self->turned = now;
  self->last = own;
  int culprit = 0;
  for (int i = 0; i < w->dist->size; i++) {
    const Peer *peer = &w->peers[i], *worst = &w->peers[culprit];
    if (now - peer->turned < w->stall || peer->left) return;
    const bool waits = phase_waits((Phase)peer->last.phase), worst_waits = phase_waits((Phase)worst->last.phase);
    if (waits != worst_waits ? worst_waits : peer->last.turn < worst->last.turn) culprit = i;
  }
  end(w, culprit, "stands still: its last change of phase came", now - w->peers[culprit].turned);
}

/* ---- the thread */

/* A connection that has been accepted says who it is within a second, or is none of ours. */
static void let_in(Watch *w) {
  const int fd = net_accept(w->listener, 0);
  if (fd < 0) return;
  Message m;
  const bool ours = net_receive(fd, &m, sizeof m, 1) && m.token == w->token && m.word == WORD_HELLO && m.rank > 0 &&
                    m.rank < w->dist->size && w->peers[m.rank].fd < 0;
  if (!ours) {
    close(fd);
    return;
  }
  Peer *peer = &w->peers[m.rank];
  peer->fd = fd, peer->last = m, peer->heard = peer->turned = base_seconds();
}

static void *watch_thread(void *argument) {
  Watch *w = argument;
  const bool first = dist_is_first(w->dist);
  const int from = first ? 1 : 0, to = first ? w->dist->size : 1;
  struct pollfd *polled = base_zalloc((size_t)(w->dist->size + 1) * sizeof *polled);
  double told = 0;
  while (!atomic_load(&w->closing)) {
    int n = 0;
    for (int i = from; i < to; i++) polled[n++] = (struct pollfd){w->peers[i].left ? -1 : w->peers[i].fd, POLLIN, 0};
    polled[n++] = (struct pollfd){w->listener, POLLIN, 0};
    if (base_seconds() - told >= w->beat) {
      tell_all(w, WORD_BEAT);
      told = base_seconds();
    }
    const double before = base_seconds();
    poll(polled, (nfds_t)n, (int)(1000 * w->beat / 2));
    /* stopped or starved ourselves: what the others said meanwhile has to be heard before anybody is judged */
    const bool absent = base_seconds() - before > w->beat + w->watchdog / 2;
    for (int i = from; i < to; i++) {
      Peer *peer = &w->peers[i];
      if ((polled[i - from].revents & (POLLIN | POLLHUP | POLLERR)) && !listen_to(w, peer) && !peer->left)
        end(w, i, "died: its connection closed, and its last sign of life came", base_seconds() - peer->heard);
      if (absent) peer->heard = base_seconds();
      judge(w, i, base_seconds());
    }
    if (first) judge_stall(w, base_seconds());
    if (polled[n - 1].revents & POLLIN) let_in(w);
  }
  free(polled);
  return NULL;
}

/* ---- opening and closing */

static bool listen_here(Watch *w, Meeting *meeting) {
  w->listener = net_listen(0, w->dist->size, &meeting->place);
  return w->listener >= 0 && getrandom(&meeting->token, sizeof meeting->token, 0) == sizeof meeting->token;
}

static bool join(Watch *w, const Meeting *meeting) {
  w->own_fd = net_connect(&meeting->place, w->dist->hosts[w->dist->rank]);
  const Message hello = message(w, WORD_HELLO);
  w->peers[0].fd = w->own_fd;
  return w->own_fd >= 0 && net_send(w->own_fd, &hello, sizeof hello);
}

static void watch_free(Watch *w) {
  for (int i = 0; i < w->dist->size; i++)
    if (w->peers[i].fd >= 0) close(w->peers[i].fd);
  if (w->listener >= 0) close(w->listener);
  free(w->peers);
  free(w);
}

Status watch_open(Dist *dist, double watchdog_seconds, double stall_seconds, Watch **watch) {
  *watch = NULL;
  if (dist->size == 1 || watchdog_seconds == 0) return STATUS_OK;
  Watch *w = base_zalloc(sizeof *w);
  *w = (Watch){.dist = dist,
               .watchdog = watchdog_seconds,
               .stall = stall_seconds > 0 ? stall_seconds : INFINITY,
               .beat = fmin(1, watchdog_seconds / 5),
               .listener = -1,
               .own_fd = -1,
               .opened = base_seconds()};
  w->peers = base_zalloc((size_t)dist->size * sizeof *w->peers);
  for (int i = 0; i < dist->size; i++) w->peers[i] = (Peer){.fd = -1, .heard = w->opened, .turned = w->opened};
  Meeting meeting = {0};
  Status status = STATUS_OK;
  if (dist_is_first(dist) && !listen_here(w, &meeting))
    status = status_fail(CODE_PEER, "the watch over the ranks cannot listen: %s; set train.watchdog: 0 to do without",
                         strerror(errno));
  dist_broadcast(dist, &meeting, sizeof meeting);
  w->token = meeting.token;
  if (!dist_is_first(dist) && meeting.place.port && !join(w, &meeting))
    status = status_fail(CODE_PEER,
                         "the watch cannot reach rank 0 on %s, port %d: %s; open that port range between the hosts, or "
                         "set train.watchdog: 0 to do without",
                         dist->hosts[0], ntohs(meeting.place.port), strerror(errno));
  status = dist_agree(dist, status);
  TRY_OR(status, watch_free(w));
  w->thread = thread_start(watch_thread, w, "the watch");
  dist->watched = true;
  *watch = w;
  return STATUS_OK;
}

void watch_close(Watch *w) {
  if (!w) return;
  tell_all(w, WORD_BYE);
  atomic_store(&w->closing, 1);
  pthread_join(w->thread, NULL);
  w->dist->watched = false;
  dist_max(w->dist, 0); /* a connection closes when nobody watches it any more */
  watch_free(w);
}
