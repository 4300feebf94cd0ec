/* dist_tcp: the backend "tcp" of train/dist/dist.h: ranks that somebody else than MPI started (rendezvous.h) and that join by
 * themselves, over TCP. Rank 0 listens where all were told; the others bring their number and where they listen, and get
 * all of those when everybody is there, or the reason why not. A failure to meet is CODE_PEER, told by each. */
#pragma once

#include "train/dist/dist.h"

extern const DistBackend dist_tcp;
