#!/usr/bin/env bash
# Ranks that nobody's MPI started join over TCP (train/rendezvous.h): any number makes the bytes of one, whichever variables say who
# they are; and where they do not come together each says why in one line and exits 6 within seconds. No MPI is needed.
source "$(dirname "$0")/common.sh"
export OMP_NUM_THREADS=1 ASPIS_MEET_SECONDS=60

short="--quiet --set train.steps=6 --set train.eval_every=3 --set train.save_every=3"
last=checkpoints/step-00000006.h5

# A port that nobody listens on; another process may still take it before us, so tests are tried anew.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 20000))
    grep -qi ":$(printf %04X $port) 00000000:0000 0A" /proc/net/tcp || break
  done
  echo $port
}

# together NAME N STARTER ARGS...: `STARTER rank n port` prints the environment of a rank. Leaves NAME.<rank>.code and .err.
together() {
  local name=$1 n=$2 starter=$3 port rank
  shift 3
  port=$(free_port)
  local pids=()
  for rank in $(seq 0 $((n - 1))); do
    env $($starter "$rank" "$n" "$port") "$aspis" train small.yaml $short --out "$name" "$@" >"$name.$rank.txt" 2>"$name.$rank.err" &
    pids+=($!)
  done
  for rank in $(seq 0 $((n - 1))); do
    local code=0
    wait "${pids[$rank]}" || code=$?
    echo $code >"$name.$rank.code"
  done
}
by_aspis() { echo "ASPIS_RANK=$1 ASPIS_WORLD=$2 ASPIS_MASTER=localhost:$3"; }
by_torchrun() { echo "RANK=$1 WORLD_SIZE=$2 LOCAL_RANK=$1 MASTER_ADDR=127.0.0.1 MASTER_PORT=$(($3 - 1)) TORCHELASTIC_USE_AGENT_STORE=True"; }
by_slurm() { echo "SLURM_PROCID=$1 SLURM_STEP_NUM_TASKS=$2 SLURM_LOCALID=$1 SLURM_STEP_NODELIST=localhost SLURM_STEP_ID=$3"; }

"$aspis" train small.yaml $short --out one >one.txt
same() { # NAME N
  for rank in $(seq 0 $(($2 - 1))); do
    [ "$(cat "$1.$rank.code")" = 0 ] || fail "$1: rank $rank exits $(cat "$1.$rank.code"): $(cat "$1.$rank.err")"
  done
  cmp one/$last "$1/$last" || fail "$1: the final checkpoints differ"
  cmp one.txt "$1.0.txt" || fail "$1: another result on stdout"
  [ ! -s "$1.1.txt" ] || fail "$1: rank 1 writes to stdout"
  echo "ok: $1: the same bytes"
}
together two 2 by_aspis && same two 2
together four 4 by_aspis --set train.zero=1 && same four 4
together torchrun 2 by_torchrun && same torchrun 2
together slurm 2 by_slurm && same slurm 2

# apart NAME RANK MESSAGE: that rank said so, in one line, and exited 6.
apart() {
  [ "$(cat "$1.$2.code")" = 6 ] || fail "$1: rank $2 exits $(cat "$1.$2.code"), expected 6: $(cat "$1.$2.err")"
  [ "$(wc -l <"$1.$2.err")" = 1 ] && grep -qE "$3" "$1.$2.err" || fail "$1: rank $2 was expected to say \"$3\" in one line: $(cat "$1.$2.err")"
}
export ASPIS_MEET_SECONDS=2
started=$SECONDS

one_too_few() { echo "ASPIS_RANK=$1 ASPIS_WORLD=$(($2 + 1)) ASPIS_MASTER=127.0.0.1:$3"; }
together few 2 one_too_few
for rank in 0 1; do apart few $rank 'rank 2 of 3 did not come to rank 0 on [^ ]+, port [0-9]+, within 2 s'; done

without_first() { echo "ASPIS_RANK=$(($1 + 1)) ASPIS_WORLD=3 ASPIS_MASTER=127.0.0.1:$3"; }
together headless 2 without_first
for rank in 0 1; do apart headless $rank "rank $((rank + 1)) of 3: rank 0 does not answer on 127.0.0.1, port [0-9]+, within 2 s"; done

own_world() { echo "ASPIS_RANK=$1 ASPIS_WORLD=$((2 + 2 * $1)) ASPIS_MASTER=127.0.0.1:$3"; }
together worlds 2 own_world
for rank in 0 1; do apart worlds $rank 'rank 1 on [^ ]+ was told of 4 ranks, rank 0 of 2: give all the same ASPIS_WORLD'; done

twice() { echo "ASPIS_RANK=$(($1 > 0)) ASPIS_WORLD=4 ASPIS_MASTER=127.0.0.1:$3"; }
together twice 3 twice
apart twice 0 'two processes are rank 1, the second on'
[ $((SECONDS - started)) -lt 60 ] || fail "ranks that do not find each other took $((SECONDS - started)) s"
echo "ok: ranks that do not come together say why and exit 6"

# What is no rendezvous at all is a mistake in the environment: exit 2.
refused() { # MESSAGE VARIABLE=VALUE...
  local message=$1 code=0
  shift
  env "$@" "$aspis" train small.yaml $short --out refused >/dev/null 2>err.txt || code=$?
  [ $code = 2 ] && [ "$(wc -l <err.txt)" = 1 ] && grep -q "$message" err.txt || fail "$*: exit $code: $(cat err.txt)"
}
refused 'ASPIS_MASTER: found none' ASPIS_RANK=0 ASPIS_WORLD=2
refused 'ASPIS_MASTER: found "host", expected host:port' ASPIS_RANK=0 ASPIS_WORLD=2 ASPIS_MASTER=host
refused 'ASPIS_RANK: found "2", expected a number from 0 to 1' ASPIS_RANK=2 ASPIS_WORLD=2 ASPIS_MASTER=localhost:9
refused 'ASPIS_WORLD: found none' ASPIS_RANK=0
echo "ok: variables that contradict each other are refused"

# A rank that dies ends the others, as under MPI.
together killed 2 by_aspis --set train.watchdog=5 --set debug.allow=true --set 'debug.fault="kill@4,rank=1"' 2>/dev/null
[ "$(cat killed.1.code)" = 137 ] || fail "killed: $(cat killed.1.code)"
apart killed 0 'rank 1 on [^ ]+ died: its connection closed.* in step 4, phase gradient'
"$aspis" train small.yaml $short --out killed --resume auto >/dev/null
cmp one/$last killed/$last || fail "killed: resumed, it ends with other bytes"
echo "ok: a killed rank ends the other with 6, and what is left is whole"
