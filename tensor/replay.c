/* replay: see replay.h. */
#include "tensor/replay.h"

#include <stdlib.h>
#include <string.h>

/* MOST_DROPPED: graphs given up for others, without four times as many launches. */
enum { MOST_GRAPHS = 4, MOST_SEEN = 16, PATIENCE = 32, MOST_DROPPED = 32 };

struct Replay {
  Device *device;
  const BackendGraphs *graphs; /* NULL: none, or none any more */
  ReplayPeers peers;
  const char *given_up, *why; /* why: what keeps work from being replayed, where it is not */
  struct {
    uint64_t fold;
    void *graph;
    int64_t last; /* when it was launched last */
  } kept[MOST_GRAPHS];
  int n_kept;
  uint64_t seen[MOST_SEEN];        /* work that came without a graph, lately */
  int64_t n_seen, n_run, n_missed; /* missed: in a row */
  ReplayCounts counts;
};

Replay *replay_open(Device *device, bool on, const ReplayPeers *peers) {
  Replay *replay = base_zalloc(sizeof *replay);
  replay->device = device;
  if (peers) replay->peers = *peers;
  const BackendMemory *memory = device->backend->memory;
  /* a graph works where its walk has been, and arenas under AddressSanitizer take that back at once (arena_open_over) */
  const bool works_later = memory && (memory->out_of_reach || memory->delayed);
  if (on && !device->dry && works_later) replay->graphs = device->backend->graphs;
  return replay;
}

size_t replay_bytes(const Device *device, size_t written_bytes) {
  return device->backend->graphs ? (MOST_GRAPHS + 1) * written_bytes : 0;
}

static void drop(Replay *r, int i) {
  r->device->backend->graphs->drop(r->kept[i].graph);
  r->kept[i] = r->kept[--r->n_kept];
}

static void give_up(Replay *r, const char *why) {
  while (r->n_kept > 0) drop(r, 0);
  r->graphs = NULL, r->given_up = why;
}

void replay_close(Replay *replay) {
  if (!replay) return;
  give_up(replay, NULL);
  free(replay);
}

static int find(const Replay *r, uint64_t fold) {
  for (int i = 0; i < r->n_kept; i++)
    if (r->kept[i].fold == fold) return i;
  return -1;
}

static bool was_seen(Replay *r, uint64_t fold) {
  for (int i = 0; i < MOST_SEEN && i < r->n_seen; i++)
    if (r->seen[i] == fold) return true;
  r->seen[r->n_seen++ % MOST_SEEN] = fold;
  return false;
}

static void agree(Replay *r, uint64_t *fold, bool *fits) {
  if (r->peers.agree) r->peers.agree(r->peers.user, fold, fits);
}

/* What the walk went through becomes a graph; its place, or -1. */
static int make(Replay *r, uint64_t fold, ReplayWork *work, void *user) {
  if (r->n_kept == MOST_GRAPHS) {
    int oldest = 0;
    for (int i = 1; i < r->n_kept; i++)
      if (r->kept[i].last < r->kept[oldest].last) oldest = i;
    drop(r, oldest);
    r->counts.dropped++;
  }
  void *graph = r->graphs->make();
  bool fits = graph != NULL;
  agree(r, &(uint64_t){0}, &fits);
  if (!fits) {
    if (graph) r->graphs->drop(graph);
    give_up(r, "the device has no memory for them");
    return -1;
  }
  r->graphs->capture(graph);
  work(user);
  r->graphs->captured();
  r->kept[r->n_kept].fold = fold, r->kept[r->n_kept].graph = graph;
  r->counts.captured++;
  return r->n_kept++;
}

/* The graph that does this work, or -1, the arenas then being as before. */
static int graph_of(Replay *r, ReplayWork *work, void *user) {
  Device *device = r->device;
  const size_t step = arena_mark(&device->step), scratch = arena_mark(&device->scratch);
  const double flops = device->flops;
  uint64_t fold;
  r->graphs->walk();
  work(user);
  bool fits = r->graphs->walked(&fold);
  agree(r, &fold, &fits);
  r->why = fits ? "its shapes differ from one time to the next" : "it waits for the host";
  int i = fits ? find(r, fold) : -1;
  if (i >= 0) return i;
  arena_rewind(&device->step, step), arena_rewind(&device->scratch, scratch);
  device->flops = flops;
  return fits && was_seen(r, fold) ? make(r, fold, work, user) : -1;
}

bool replay_run(Replay *r, ReplayWork *work, void *user) {
  r->n_run++;
  const int i = r->graphs ? graph_of(r, work, user) : -1;
  if (i < 0) {
    work(user);
    r->counts.one_by_one++;
    if (r->graphs && ++r->n_missed == PATIENCE) give_up(r, r->why);
    return false;
  }
  r->graphs->launch(r->kept[i].graph);
  r->kept[i].last = r->n_run, r->n_missed = 0;
  r->counts.replayed++;
  if (r->counts.dropped >= MOST_DROPPED && r->counts.replayed < 4 * r->counts.dropped)
    give_up(r, "it comes in too many shapes");
  return true;
}

ReplayCounts replay_counts(const Replay *replay) { return replay->counts; }
const char *replay_given_up(const Replay *replay) { return replay->given_up; }
