/* rendezvous: who started this process, as one of how many, and where they meet: read from the environment alone.
 *
 *   ASPIS_RANK, ASPIS_WORLD, ASPIS_MASTER=host:port    by hand, or by any scheduler
 *   OMPI_COMM_WORLD_SIZE, PMI_SIZE, PMIX_RANK          mpirun, or srun with --mpi=pmix or pmi2: MPI finds itself
 *   RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT         torchrun; where its agent keeps that port, the next one is ours
 *   SLURM_PROCID, SLURM_STEP_NUM_TASKS                 srun without MPI: rank 0 is on the step's first host
 *
 * ASPIS_MASTER goes before the last two's own meeting place. ASPIS_MEET_SECONDS (60): how long ranks wait for each other there. */
#pragma once

#include "tensor/base.h"

typedef enum StartKind { START_ALONE, START_MPI, START_TCP } StartKind;

/* Of START_TCP. */
typedef struct Rendezvous {
  int rank, size;
  int local_rank; /* -1: nobody said */
  char host[256]; /* of rank 0 */
  uint16_t port;
  double seconds;
  const char *world_key; /* the variable that says how many */
} Rendezvous;

/* CODE_USAGE where variables contradict each other or lack one. */
Status rendezvous_find(StartKind *kind, Rendezvous *rendezvous);
