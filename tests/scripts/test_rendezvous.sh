#!/usr/bin/env bash
# Ranks that nobody's MPI started join over TCP (train/dist/rendezvous.h): any number makes the bytes of one, whichever variables say who
# they are; and where they do not come together each says why in one line and exits 6 within seconds. No MPI is needed.
source "$(dirname "$0")/common.sh"
export OMP_NUM_THREADS=1 ASPIS_MEET_SECONDS=60

short="--set train.steps=6 --set train.eval_every=3 --set train.save_every=3"
last=checkpoints/step-00000006.h5

by_torchrun() { echo "RANK=$1 WORLD_SIZE=$2 LOCAL_RANK=$1 MASTER_ADDR=127.0.0.1 MASTER_PORT=$(($3 - 1)) TORCHELASTIC_USE_AGENT_STORE=True"; }
by_slurm() { echo "SLURM_PROCID=$1 SLURM_STEP_NUM_TASKS=$2 SLURM_LOCALID=$1 SLURM_STEP_NODELIST=localhost SLURM_STEP_ID=$3"; }

"$aspis" train small.yaml $short --quiet --out one >one.txt
same() { # NAME N
  for rank in $(seq 0 $(($2 - 1))); do
    [ "$(cat "$1.$rank.code")" = 0 ] || fail "$1: rank $rank exits $(cat "$1.$rank.code"): $(cat "$1.$rank.err")"
  done
  cmp one/$last "$1/$last" || fail "$1: the final checkpoints differ"
  cmp one.txt "$1.0.txt" || fail "$1: another result on stdout"
  [ ! -s "$1.1.txt" ] || fail "$1: rank 1 writes to stdout"
  echo "ok: $1: the same bytes"
}
together two 2 by_aspis small.yaml $short && same two 2
together four 4 by_aspis small.yaml $short --set train.zero=1 && same four 4
together torchrun 2 by_torchrun small.yaml $short && same torchrun 2
together slurm 2 by_slurm small.yaml $short && same slurm 2

# apart NAME RANK MESSAGE: that rank said so, in one line, and exited 6.
apart() {
  [ "$(cat "$1.$2.code")" = 6 ] || fail "$1: rank $2 exits $(cat "$1.$2.code"), expected 6: $(cat "$1.$2.err")"
  [ "$(wc -l <"$1.$2.err")" = 1 ] && grep -qE "$3" "$1.$2.err" || fail "$1: rank $2 was expected to say \"$3\" in one line: $(cat "$1.$2.err")"
}
export ASPIS_MEET_SECONDS=2
started=$SECONDS

one_too_few() { echo "ASPIS_RANK=$1 ASPIS_WORLD=$(($2 + 1)) ASPIS_MASTER=127.0.0.1:$3"; }
together few 2 one_too_few small.yaml $short
for rank in 0 1; do apart few $rank 'rank 2 of 3 did not come to rank 0 on [^ ]+, port [0-9]+, within 2 s'; done

without_first() { echo "ASPIS_RANK=$(($1 + 1)) ASPIS_WORLD=3 ASPIS_MASTER=127.0.0.1:$3"; }
together headless 2 without_first small.yaml $short
for rank in 0 1; do apart headless $rank "rank $((rank + 1)) of 3: rank 0 does not answer on 127.0.0.1, port [0-9]+, within 2 s"; done

own_world() { echo "ASPIS_RANK=$1 ASPIS_WORLD=$((2 + 2 * $1)) ASPIS_MASTER=127.0.0.1:$3"; }
together worlds 2 own_world small.yaml $short
for rank in 0 1; do apart worlds $rank 'rank 1 on [^ ]+ was told of 4 ranks, rank 0 of 2: give all the same ASPIS_WORLD'; done

twice() { echo "ASPIS_RANK=$(($1 > 0)) ASPIS_WORLD=4 ASPIS_MASTER=127.0.0.1:$3"; }
together twice 3 twice small.yaml $short
apart twice 0 'two processes are rank 1, the second on'
[ $((SECONDS - started)) -lt 60 ] || fail "ranks that do not find each other took $((SECONDS - started)) s"
echo "ok: ranks that do not come together say why and exit 6"

# What is no rendezvous at all is a mistake in the environment: exit 2.
refused 2 'ASPIS_MASTER: found none' env ASPIS_RANK=0 ASPIS_WORLD=2 "$aspis" train small.yaml $short --quiet --out refused
refused 2 'ASPIS_MASTER: found "host", expected host:port' env ASPIS_RANK=0 ASPIS_WORLD=2 ASPIS_MASTER=host "$aspis" train small.yaml $short --quiet --out refused
refused 2 'ASPIS_RANK: found "2", expected a number from 0 to 1' env ASPIS_RANK=2 ASPIS_WORLD=2 ASPIS_MASTER=localhost:9 "$aspis" train small.yaml $short --quiet --out refused
refused 2 'ASPIS_WORLD: found none' env ASPIS_RANK=0 "$aspis" train small.yaml $short --quiet --out refused
echo "ok: variables that contradict each other are refused"

# A rank that dies ends the others, as under MPI.
together killed 2 by_aspis small.yaml $short --set train.watchdog=5 --set debug.allow=true --set 'debug.fault="kill@4,rank=1"' 2>/dev/null
[ "$(cat killed.1.code)" = 137 ] || fail "killed: $(cat killed.1.code)"
apart killed 0 'rank 1 on [^ ]+ died: its connection closed.* in step 4, phase gradient'
"$aspis" train small.yaml $short --quiet --out killed --resume auto >/dev/null
cmp one/$last killed/$last || fail "killed: resumed, it ends with other bytes"
echo "ok: a killed rank ends the other with 6, and what is left is whole"
