#!/bin/bash
# Trains on the GPUs (or cores) of several hosts under Slurm, and goes on by itself after a time limit, a preemption or a
# lost host:  sbatch scripts/slurm.sh CONFIG [options of aspis train]
# Three minutes before the time limit Slurm sends USR1 to the ranks, which save and exit 75; a lost rank ends the others with 6
# within seconds (docs/reliability.md). Both put the job into the queue again, and it continues with --resume auto.
#SBATCH --job-name=aspis
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=aspis-%j.log
set -u
[ $# -ge 1 ] || { echo "usage: sbatch scripts/slurm.sh CONFIG [options of aspis train]" >&2; exit 2; }
program=${ASPIS:-build/aspis}
most_restarts=${ASPIS_RESTARTS:-100} # a rank that is lost again and again is not chance

code=0
# --kill-on-bad-exit: a rank that is gone takes the others along, should their watch have gone, too.
# --export: each rank its cores, which --cpus-per-task binds it to.
srun --mpi=pmix --kill-on-bad-exit=1 --export=ALL,OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}" \
  "$program" train "$@" --resume auto || code=$?

restarts=${SLURM_RESTART_COUNT:-0}
case $code in
75 | 6 | 137)
  if [ "$restarts" -lt "$most_restarts" ]; then
    echo "ended with $code after $restarts restarts: queued again"
    scontrol requeue "$SLURM_JOB_ID"
  else
    echo "ended with $code after $restarts restarts: left" >&2
  fi
  ;;
esac
exit $code
