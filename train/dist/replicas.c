/* replicas: see replicas.h. */
#include "train/dist/replicas.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "train/format.h"

static uint64_t hash_values(ParamTable *params) {
  uint64_t hash = 0;
  for (int i = 0; i < params->n_params; i++) {
    const Tensor host = device_pull(params->device, &params->params[i]->value);
    hash = XXH3_64bits_withSeed(host.data, tensor_bytes(&host), hash);
  }
  return hash;
}

/* The first of those that most ranks have. */
static uint64_t commonest(const uint64_t *hashes, int n) {
  int best = 0, best_count = 0;
  for (int i = 0; i < n; i++) {
    int count = 0;
    for (int j = 0; j < n; j++) count += hashes[j] == hashes[i];
    if (count > best_count) best = i, best_count = count;
  }
  return hashes[best];
}

Status replicas_compare(Dist *dist, ParamTable *params, int64_t step, int64_t good_step) {
  if (dist->size == 1) return STATUS_OK;
  const uint64_t own = hash_values(params);
  uint64_t *hashes = base_alloc((size_t)dist->size * sizeof *hashes);
  dist_gather_all(dist, &own, hashes, sizeof own);
  const uint64_t common = commonest(hashes, dist->size);
  StrBuf odd = {0};
  for (int i = 0; i < dist->size; i++)
    if (hashes[i] != common) strbuf_printf(&odd, "%srank %d on %s", odd.n ? ", " : "", i, dist->hosts[i]);
  free(hashes);
  if (odd.n == 0) return STATUS_OK;
  Status status = status_fail(CODE_PEER,
                              "%s: after step %lld its weights differ from the other ranks' (after step %lld they were "
                              "the same), in phase compare; nothing was saved since: continue from the last checkpoint "
                              "with --resume auto, on another host if it comes again",
                              odd.data, (long long)step, (long long)good_step);
  free(odd.data);
  return status;
}
