/* net: TCP between ranks, over IPv4: where a rank listens, how others come to it, and messages of a known length. */
#pragma once

#include "tensor/base.h"

enum { NET_MOST_ADDRESSES = 16, NET_HOST_BYTES = 64 };

/* Where somebody listens; crosses between ranks as it is. */
typedef struct NetPlace {
  uint32_t addresses[NET_MOST_ADDRESSES]; /* network order, without the loopback's */
  int32_t n_addresses;
  uint16_t port; /* network order */
  char host[NET_HOST_BYTES];
} NetPlace;

/* Listens on `port` of every interface, 0: of the system's choice, and says where that is. -1 and errno when it cannot. */
int net_listen(uint16_t port, int backlog, NetPlace *place);
/* The next who connects; -1 when nobody did within `seconds` (negative: waits for ever), or errno says why. */
int net_accept(int listener, double seconds);
/* A connection to an address and port (network order), tried for at most `seconds`; -1 and errno. */
int net_connect_to(uint32_t address, uint16_t port, double seconds);
/* The same to a place: over the loopback from the same host, else by the first of its addresses that answers. */
int net_connect(const NetPlace *place, const char *own_host);
/* Whole messages; false: the connection is gone, or was silent for `seconds` (negative: waits for ever). */
bool net_send(int fd, const void *message, size_t bytes);
bool net_receive(int fd, void *message, size_t bytes, double seconds);
/* Sends and receives at once, so that two who do so with each other never wait for one another's room. */
bool net_exchange(int fd, const void *out, size_t out_bytes, void *in, size_t in_bytes);
