/* BackendAside on the twin of the CUDA backend: what was set aside is fetched by another thread as it was, although what it was taken
 * from is overwritten meanwhile; without any one of the steps that make it so, it is not, and that is seen. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

#include "tensor/device.h"
#include "tests/simt/simt.h"

enum { N = (5 << 18) + 3, N_TIMES = 12 }; /* pieces of 1 MiB, the last of them short */

typedef enum Mistake {
  MISTAKE_NONE,
  MISTAKE_SOURCE,  /* fetched from where training writes */
  MISTAKE_UNTAKEN, /* nobody was told that something was taken, so what is fetched need not be there yet */
  MISTAKE_REUSED   /* the next is taken before this one was fetched */
} Mistake;
static const char *const NAMES[] = {"nothing", "fetching from the source", "no word that all is taken",
                                    "taking the next too early"};

typedef struct Errand {
  const BackendAside *aside;
  float *to;
  const void *from;
} Errand;

static void *fetch(void *user) {
  const Errand *e = user;
  e->aside->fetch(e->to, e->from, N * sizeof *e->to);
  return NULL;
}

static void write_all(Device *device, Tensor *x, double value) {
  Tensor host = device_mirror(device, x);
  for (int64_t i = 0; i < N; i++) tensor_set(&host, i, value);
  device_push(device, x);
}

/* Each time `x` becomes another number, of which a copy is set aside and fetched while x goes on; returns how often what came was
 * not that number. */
static int n_wrong(Mistake mistake) {
  Device device;
  setenv("ASPIS_PLUGINS", ASPIS_BINARY_DIR, 0);
  const Status status = device_open(&device, "simt", F32, (DeviceSizes){8 * N * sizeof(float), 1 << 20, 1 << 20});
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  const BackendAside *aside = device.backend->aside;
  Tensor *x = tensor_new1(&device.weights, F32, N), *copy = tensor_new1(&device.weights, F32, N);
  Tensor *other = tensor_new1(&device.weights, F32, N);
  float *found = malloc(N * sizeof *found);
  const size_t bytes = N * sizeof *found;
  int wrong = 0;
  write_all(&device, other, -1);
  aside->taken(); /* so that there is a way out to fetch by */
  for (int time = 1; time <= N_TIMES; time++) {
    write_all(&device, x, time);
    aside->take(copy->data, x->data, bytes);
    if (mistake != MISTAKE_UNTAKEN) aside->taken();
    if (mistake == MISTAKE_REUSED) aside->take(copy->data, other->data, bytes);
    Errand errand = {aside, found, mistake == MISTAKE_SOURCE ? x->data : copy->data};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, fetch, &errand), 0);
    add_fwd(&device, &(Add){.x = other, .y = x}); /* training goes on */
    pthread_join(thread, NULL);
    bool same = true;
    for (int64_t i = 0; i < N; i++) same &= found[i] == (float)time;
    wrong += !same;
  }
  free(found);
  device_close(&device);
  return wrong;
}

Test(simt_aside, is_fetched_as_it_was_while_its_source_is_overwritten) {
  cr_assert_eq(n_wrong(MISTAKE_NONE), 0, "what was fetched is not what was taken");
}

Test(simt_aside, mistakes_are_seen) {
  for (Mistake mistake = MISTAKE_SOURCE; mistake <= MISTAKE_REUSED; mistake++)
    cr_assert_gt(n_wrong(mistake), 0, "%s goes unseen", NAMES[mistake]);
}
