/* rendezvous: see rendezvous.h. */
#include "train/dist/rendezvous.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NULL where unset or empty. */
static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

static bool is_several(const char *name) {
  const char *value = variable(name);
  return value && atoi(value) > 1;
}

/* A variable that must be a number in [low, high]. */
static Status number(const char *name, int64_t low, int64_t high, int64_t *value) {
  const char *text = variable(name);
  if (!text) return status_fail(CODE_USAGE, "%s: found none, expected a number: it goes with the others", name);
  char *end;
  errno = 0;
  *value = strtoll(text, &end, 10);
  if (errno == 0 && !*end && *value >= low && *value <= high) return STATUS_OK;
  return status_fail(CODE_USAGE, "%s: found \"%s\", expected a number from %lld to %lld", name, text, (long long)low,
                     (long long)high);
}

/* host:port, the port behind the last colon. */
static Status take_master(const char *text, Rendezvous *r) {
  const char *colon = strrchr(text, ':');
  char *end = NULL;
  const long port = colon ? strtol(colon + 1, &end, 10) : 0;
  if (!colon || colon == text || *end || port < 1 || port > 65535 || (size_t)(colon - text) >= sizeof r->host)
    return status_fail(CODE_USAGE, "ASPIS_MASTER: found \"%s\", expected host:port, where rank 0 is to listen", text);
  snprintf(r->host, sizeof r->host, "%.*s", (int)(colon - text), text);
  r->port = (uint16_t)port;
  return STATUS_OK;
}

static Status take_rank(const char *rank_key, const char *world_key, Rendezvous *r) {
  int64_t rank, size;
  TRY(number(world_key, 1, 1 << 16, &size));
  TRY(number(rank_key, 0, size - 1, &rank));
  r->rank = (int)rank, r->size = (int)size, r->world_key = world_key;
  return STATUS_OK;
}

static Status of_aspis(Rendezvous *r) {
  TRY(take_rank("ASPIS_RANK", "ASPIS_WORLD", r));
  if (r->size == 1) return STATUS_OK;
  const char *master = variable("ASPIS_MASTER");
  if (!master)
    return status_fail(CODE_USAGE, "ASPIS_MASTER: found none, expected host:port, where rank 0 is to listen");
  return take_master(master, r);
}

static Status of_torchrun(Rendezvous *r) {
  TRY(take_rank("RANK", "WORLD_SIZE", r));
  const char *host = variable("MASTER_ADDR"), *master = variable("ASPIS_MASTER"),
             *agent = variable("TORCHELASTIC_USE_AGENT_STORE");
  if (master) return take_master(master, r);
  if (!host) return status_fail(CODE_USAGE, "MASTER_ADDR: found none, expected rank 0's host: it goes with WORLD_SIZE");
  int64_t port;
  TRY(number("MASTER_PORT", 1, 65534, &port));
  snprintf(r->host, sizeof r->host, "%s", host);
  r->port = (uint16_t)(port + (agent && strcmp(agent, "True") == 0));
  return STATUS_OK;
}

/* The first of Slurm's list of hosts: "n[007-012,9],m1" is n007. */
static void first_host(const char *list, char *host, size_t size) {
  const size_t name = strcspn(list, "[,");
  const size_t digits = list[name] == '[' ? strspn(list + name + 1, "0123456789") : 0;
  snprintf(host, size, "%.*s%.*s", (int)name, list, (int)digits, list + name + 1);
}

static Status of_slurm(Rendezvous *r) {
  TRY(take_rank("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", r));
  const char *master = variable("ASPIS_MASTER"), *hosts = variable("SLURM_STEP_NODELIST");
  if (master) return take_master(master, r);
  if (!hosts) return status_fail(CODE_USAGE, "SLURM_STEP_NODELIST: found none; give ASPIS_MASTER=host:port");
  first_host(hosts, r->host, sizeof r->host);
  /* steps of one job and jobs of one host meet apart */
  const char *job = variable("SLURM_JOB_ID"), *step = variable("SLURM_STEP_ID");
  enum { FIRST_PORT = 20000, N_PORTS = 10000 };
  r->port = (uint16_t)(FIRST_PORT + ((job ? atoll(job) : 0) * 7 + (step ? atoll(step) : 0)) % N_PORTS);
  return STATUS_OK;
}

static bool by_aspis(void) { return variable("ASPIS_RANK") || variable("ASPIS_WORLD"); }
/* Slurm's own variables tell of its steps only, not of a script that is alone. */
static bool by_mpi(void) {
  const bool step_has_mpi = variable("PMIX_RANK") || variable("PMI_RANK");
  return is_several("OMPI_COMM_WORLD_SIZE") || is_several("PMI_SIZE") ||
         (step_has_mpi && is_several("SLURM_STEP_NUM_TASKS"));
}
static bool by_torchrun(void) { return is_several("WORLD_SIZE") && variable("RANK"); }
static bool by_slurm(void) { return is_several("SLURM_STEP_NUM_TASKS"); }

/* In the order of how plainly somebody meant us. */
static const struct {
  bool (*found)(void);
  StartKind kind;
  Status (*read)(Rendezvous *r);
  const char *local_rank;
} STARTS[] = {{by_aspis, START_TCP, of_aspis, "LOCAL_RANK"},
              {by_mpi, START_MPI, NULL, NULL},
              {by_torchrun, START_TCP, of_torchrun, "LOCAL_RANK"},
              {by_slurm, START_TCP, of_slurm, "SLURM_LOCALID"}};

static double seconds_to_meet(void) {
  enum { DEFAULT_SECONDS = 60 };
  const char *asked = variable("ASPIS_MEET_SECONDS");
  const double seconds = asked ? strtod(asked, NULL) : 0;
  return seconds > 0 ? seconds : DEFAULT_SECONDS;
}

Status rendezvous_find(StartKind *kind, Rendezvous *r) {
  *kind = START_ALONE;
  *r = (Rendezvous){.size = 1, .local_rank = -1, .seconds = seconds_to_meet()};
  for (size_t i = 0; i < sizeof STARTS / sizeof *STARTS; i++) {
    if (!STARTS[i].found()) continue;
    if (STARTS[i].read) TRY(STARTS[i].read(r));
    const char *local = STARTS[i].local_rank ? variable(STARTS[i].local_rank) : NULL;
    if (local) r->local_rank = atoi(local);
    *kind = STARTS[i].kind == START_TCP && r->size == 1 ? START_ALONE : STARTS[i].kind;
    return STATUS_OK;
  }
  return STATUS_OK;
}
