#!/usr/bin/env bash
# Several ranks with device: cuda over NCCL, on the host's twins of both (tests/simt): the bytes of one rank, however the ranks were
# started, split or not, and as through the host's memory; a lost rank ends the others; what is missing is said.
# The device's memory is out of the host's reach, as a GPU's is, and its work waits in streams.
source "$(dirname "$0")/common.sh"
export ASPIS_CUDA=simt ASPIS_SIMT_GUARD=1 ASPIS_SIMT_STREAMS=1 OMP_NUM_THREADS=1
export ASAN_OPTIONS=detect_leaks=0 # Open MPI's own

cat >tiny.yaml <<'EOF'
include: tiny_lm.yaml
device: cuda
train: {virtual_ranks: 4, eval_every: 4, save_every: 2}
EOF
last=checkpoints/step-00000004.h5

over_tcp() { # N DIR ARGS...
  together "$2" "$1" by_aspis tiny.yaml "${@:3}"
}
same() { # DIR DIR WHAT
  cmp "$1/$last" "$2/$last" || fail "$3: the final checkpoints differ: $(cat "$2".*err)"
  diff <(steady_metrics "$1") <(steady_metrics "$2") >/dev/null || fail "$3: the metrics differ"
  echo "ok: $3: the same bytes"
}
replayed() { # DIR STEPS: by graphs, as its last line of training has it
  local found=$(sed -nE 's/.*"graph_steps":([0-9]+).*/\1/p' "$1/metrics.jsonl" | tail -1)
  [ "${found:-0}" = "$2" ] || fail "$1: ${found:-0} steps replayed, expected $2"
}

for type in f32 bf16; do "$aspis" train tiny.yaml --quiet --out $type-1 --set dtype=$type >/dev/null; done
over_tcp 2 f32-2 --set train.transport=nccl
same f32-1 f32-2 "two ranks"
replayed f32-2 3
# A bad step of one rank is skipped by all, whenever the host learns of it, and also where each looks at its own share of the gradients
# alone. Planting it is nothing for a graph, so neither rank makes one then, or sends from one to who receives in none.
for how in 1 100 "100 --set train.zero=1"; do
  read -r every set_zero <<<"$how"
  bad=$(tr -c 'a-z0-9\n' - <<<"bad-$how")
  # shellcheck disable=SC2086
  over_tcp 2 "$bad" --set train.log_every=$every --set train.eval_every=0 --set train.save_every=4 --set train.nonfinite=skip \
    --set debug.allow=true --set 'debug.fault="nan_grad@3,rank=1"' $set_zero
  [ "$(grep -c 'step 3 skipped: the gradient of backbone.embedding.weight is not finite' "$bad.0.err")" = 1 ] ||
    fail "a bad step of two ranks, $how: $(cat "$bad.0.err")"
  over_tcp 2 "$bad" --set train.steps=5 --set train.eval_every=0 --set train.save_every=5 --resume auto
  cmp bad-1/checkpoints/step-00000005.h5 "$bad/checkpoints/step-00000005.h5" || fail "a bad step of two ranks, $how: other bytes"
done
echo "ok: a bad step of two ranks"
# Nobody waits for the device: a run of more steps waits no more often, on any rank, the state split or not.
for how in "2 0" "4 1"; do
  read -r n zero <<<"$how"
  for steps in 6 12; do
    ASPIS_SIMT_WAITS=1 over_tcp "$n" waits-$steps --resume never --set train.zero="$zero" --set train.eval_every=0 --set train.save_every=0 \
      --set train.log_every=100 --set train.steps=$steps
    for rank in $(seq 0 $((n - 1))); do echo "$rank $(grep -o 'simt: .* waits' waits-$steps.$rank.err)"; done >waits-$steps.n
    [ "$(grep -c waits waits-$steps.n)" = "$n" ] || fail "waits: $(cat waits-$steps.?.err)"
  done
  cmp waits-6.n waits-12.n || fail "waits of $n ranks, train.zero $zero: $(xargs <waits-6.n) in 6 steps, $(xargs <waits-12.n) in 12"
  replayed waits-12 11
done
echo "ok: no step of two or four ranks waits"
over_tcp 2 f32-zero --set train.zero=1
same f32-1 f32-zero "two ranks, state split, in graphs"
replayed f32-zero 3
over_tcp 4 bf16-4 --set dtype=bf16 --set train.zero=1 --set train.bucket_mb=0.001
same bf16-1 bf16-4 "four ranks, bf16, state split, in pieces on the second stream, in graphs"
replayed bf16-4 2 # a rank of one part does not know in its first step how often gradients are asked for
over_tcp 2 pieces --set train.bucket_mb=0.001
same f32-1 pieces "two ranks, in pieces on the second stream, in graphs"
replayed pieces 3
over_tcp 2 one-by-one --set train.bucket_mb=0.001 --set train.graph=off
same f32-1 one-by-one "two ranks, kernel by kernel"
replayed one-by-one 0
over_tcp 2 host --set train.transport=host
same f32-1 host "two ranks through the host's memory"
if command -v mpirun >/dev/null && [ -e "$(dirname "$aspis")/libaspis_mpi.so" ]; then
  "$aspis" launch -n 4 -- train tiny.yaml --verbose --out mpi --set train.transport=nccl --set train.bucket_mb=0.001 >/dev/null 2>mpi.err || fail "mpi: $(cat mpi.err)"
  grep -qE 'gradients at step 4: .* in 5 buckets; their sum was begun for 8[0-9]' mpi.err || fail "mpi: gradients wait for backward's end: $(cat mpi.err)"
  grep -q 'on each of 4 ranks (mpi, nccl)' mpi.err || fail "mpi: not told how the ranks are joined: $(cat mpi.err)"
  same f32-1 mpi "four ranks of mpirun's"
fi

# A rank that is lost: the communicator is aborted, the other ends with 6, also where only NCCL itself notices.
for how in "5 auto" "0 off"; do # without graphs: with them it is the hosts that notice, before the work is there
  read -r watchdog graph <<<"$how"
  over_tcp 2 lost-$watchdog --set train.watchdog=$watchdog --set train.graph=$graph --set debug.allow=true --set 'debug.fault="kill@4,rank=1,phase=reduce"'
  [ "$(cat lost-$watchdog.0.code)" = 6 ] && [ "$(wc -l <lost-$watchdog.0.err)" = 1 ] || fail "lost, watchdog $watchdog: exit $(cat lost-$watchdog.0.code): $(cat lost-$watchdog.0.err)"
done
grep -q 'rank 1 on [^ ]* died: its connection closed.* in step 4, phase reduce' lost-5.0.err || fail "lost: $(cat lost-5.0.err)"
grep -q 'rank 0 on [^ ]*: lost its peers in the sum of gradients' lost-0.0.err || fail "lost, no watchdog: $(cat lost-0.0.err)"
for watchdog in 5 0; do
  "$aspis" train tiny.yaml --quiet --out lost-$watchdog --resume auto >/dev/null
  cmp f32-1/$last lost-$watchdog/$last || fail "lost: resumed, it ends with other bytes"
done
echo "ok: a lost rank ends the others, and what is left is whole"

# NCCL asked for where there is none.
both_refused() { # MESSAGE
  [ "$(cat refused.0.code)" = 2 ] && [ "$(cat refused.1.code)" = 2 ] && [ "$(cat refused.0.err refused.1.err | wc -l)" = 1 ] &&
    grep -q "$1" refused.0.err || fail "expected \"$1\" and exit 2: $(cat refused.0.err refused.1.err)"
}
over_tcp 2 refused --set train.transport=nccl --set device=cpu
both_refused 'train.transport: found nccl, expected auto or host where device is not cuda'
mkdir alone
cp "$aspis" "$(dirname "$aspis")/libaspis_simt.so" alone/
built=$aspis aspis=$PWD/alone/aspis
over_tcp 2 refused --set train.transport=nccl
both_refused 'train.transport: nccl: this build has no libaspis_simt_nccl.so'
over_tcp 2 auto
aspis=$built
same f32-1 auto "built without NCCL, transport left to itself"
