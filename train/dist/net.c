/* net: see net.h. */
#include "train/dist/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <math.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool list_addresses(NetPlace *place) {
  struct ifaddrs *list = NULL;
  if (getifaddrs(&list) != 0) return false;
  for (const struct ifaddrs *i = list; i && place->n_addresses < NET_MOST_ADDRESSES; i = i->ifa_next)
    if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && !(i->ifa_flags & IFF_LOOPBACK) && (i->ifa_flags & IFF_UP))
      place->addresses[place->n_addresses++] = ((const struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr;
  freeifaddrs(list);
  return true;
}

int net_listen(uint16_t port, int backlog, NetPlace *place) {
  *place = (NetPlace){0};
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};
  socklen_t size = sizeof at;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return -1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  if (bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, backlog) == 0 &&
      getsockname(listener, (struct sockaddr *)&at, &size) == 0 && list_addresses(place)) {
    place->port = at.sin_port;
    gethostname(place->host, sizeof place->host - 1);
    return listener;
  }
  const int why = errno;
  close(listener);
  errno = why;
  return -1;
}

/* Whether something is to be read or written before `deadline` (base_seconds; infinite: waits for ever). */
static bool wait_for(int fd, short events, double deadline) {
  for (;;) {
    const double left = deadline - base_seconds();
    struct pollfd polled = {fd, events, 0};
    const int n = poll(&polled, 1, isinf(deadline) ? -1 : left > 0 ? (int)ceil(1000 * left) : 0);
    if (n > 0) return true;
    if (n < 0 && errno != EINTR) return false;
    if (!isinf(deadline) && base_seconds() >= deadline) {
      errno = ETIMEDOUT;
      return false;
    }
  }
}

static double deadline_of(double seconds) { return seconds < 0 ? INFINITY : base_seconds() + seconds; }

/* Every socket here is non-blocking: who waits says for how long. */
static int settle(int fd) {
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  return fd;
}

int net_accept(int listener, double seconds) {
  const double deadline = deadline_of(seconds);
  for (;;) {
    const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) return settle(fd);
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) return -1;
    if (!wait_for(listener, POLLIN, deadline)) return -1;
  }
}

int net_connect_to(uint32_t address, uint16_t port, double seconds) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  const struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = address};
  int failure = connect(fd, (const struct sockaddr *)&at, sizeof at) == 0 ? 0 : errno;
  if (failure == EINPROGRESS) {
    socklen_t size = sizeof failure;
    if (!wait_for(fd, POLLOUT, deadline_of(seconds)) || getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
      failure = errno;
  }
  if (failure == 0) return settle(fd);
  close(fd);
  errno = failure;
  return -1;
}

enum { CONNECT_SECONDS = 5 };

int net_connect(const NetPlace *place, const char *own_host) {
  int fd = -1;
  if (strcmp(place->host, own_host) == 0) fd = net_connect_to(htonl(INADDR_LOOPBACK), place->port, CONNECT_SECONDS);
  for (int i = 0; i < place->n_addresses && fd < 0; i++)
    fd = net_connect_to(place->addresses[i], place->port, CONNECT_SECONDS);
  return fd;
}

/* What one call can move; -1: the connection is gone. */
static ssize_t moved(ssize_t n, bool reading) {
  if (n > 0 || (n == 0 && !reading)) return n;
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (n == 0) errno = ECONNRESET;
  return -1;
}

bool net_send(int fd, const void *message, size_t bytes) { return net_exchange(fd, message, bytes, NULL, 0); }

bool net_receive(int fd, void *message, size_t bytes, double seconds) {
  const double deadline = deadline_of(seconds);
  for (size_t at = 0; at < bytes;) {
    const ssize_t n = moved(recv(fd, (char *)message + at, bytes - at, 0), true);
    if (n < 0 || (n == 0 && !wait_for(fd, POLLIN, deadline))) return false;
    at += (size_t)n;
  }
  return true;
}

bool net_exchange(int fd, const void *out, size_t out_bytes, void *in, size_t in_bytes) {
  size_t sent = 0, received = 0;
  while (sent < out_bytes || received < in_bytes) {
    ssize_t n_out = 0, n_in = 0;
    if (sent < out_bytes) n_out = moved(send(fd, (const char *)out + sent, out_bytes - sent, MSG_NOSIGNAL), false);
    if (n_out < 0) return false;
    if (received < in_bytes) n_in = moved(recv(fd, (char *)in + received, in_bytes - received, 0), true);
    if (n_in < 0) return false;
    sent += (size_t)n_out, received += (size_t)n_in;
    const int wanted = (sent < out_bytes ? POLLOUT : 0) | (received < in_bytes ? POLLIN : 0);
    if (n_out == 0 && n_in == 0 && wanted && !wait_for(fd, (short)wanted, INFINITY)) return false;
  }
  return true;
}
