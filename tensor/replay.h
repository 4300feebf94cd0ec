/* replay: work that comes again and again with other data, such as a training step or a decoding step: put together as a
 * graph of the device's (BackendGraphs) once it has come before, and launched as a whole from then on.
 *
 * The work is a function of the host's. It is called for a walk every time: that finds out whether a graph is the same work,
 * to every address and argument, and takes note of what the work writes. So there is no graph of other shapes or other memory
 * that could be launched by mistake: work that differs is called again, and does what it does one by one. For that the
 * function must be one that can be called twice: what it leaves in the host's memory follows from what it found in the
 * device's arenas and in what it does not change. */
#pragma once

#include "tensor/device.h"

typedef struct Replay Replay;
typedef void ReplayWork(void *user);

typedef struct ReplayCounts {
  int64_t replayed;   /* by a graph */
  int64_t one_by_one; /* not by a graph */
  int64_t captured;   /* graphs made, each launched by its first */
  int64_t dropped;    /* of these, for others */
} ReplayCounts;

/* Of work that processes do together, each its share: whether a share is done by a graph, and by which, is one decision. So what each
 * found becomes what all found: *fold a number of all their folds, *fits whether it did everywhere. Collective: they run the same
 * work equally often. */
typedef struct ReplayPeers {
  void (*agree)(void *user, uint64_t *fold, bool *fits);
  void *user;
} ReplayPeers;

/* Device memory that graphs of work take at most, as far as they ask for it: what the work writes (Device.written_bytes) is kept for
 * each that is kept, and comes by one more. 0 on a device without graphs. */
size_t replay_bytes(const Device *device, size_t written_bytes);
/* on false, or a device without graphs: everything is done one by one. peers NULL: alone. */
Replay *replay_open(Device *device, bool on, const ReplayPeers *peers);
void replay_close(Replay *replay); /* NULL: nothing to do; before the device is closed */
/* Does the work; arenas are as it leaves them. Returns true where a graph did it. */
bool replay_run(Replay *replay, ReplayWork *work, void *user);
ReplayCounts replay_counts(const Replay *replay);
/* Why nothing is replayed any more, or NULL. */
const char *replay_given_up(const Replay *replay);
