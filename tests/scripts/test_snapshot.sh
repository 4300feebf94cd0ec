#!/usr/bin/env bash
# Checkpoints that are copied aside on a GPU and written while training goes on (train.snapshot), on the host's twin (tests/simt): the bytes of
# those that training waits for, of every kind of state, of several ranks, and of a run that is killed in the middle of writing one.
# Where there is no room for a copy that is told, and training waits. Work waits in streams, and the device's memory is out of
# the host's reach.
source "$(dirname "$0")/common.sh"
export ASPIS_CUDA=simt ASPIS_SIMT_GUARD=1 ASPIS_SIMT_STREAMS=1 OMP_NUM_THREADS=1 ASPIS_SELFTEST=never

cat >tiny.yaml <<'EOF'
include: tiny_lm.yaml
device: cuda
data: {seq_len: 12}
train: {steps: 6, micro_batch_size: 1, eval_every: 3, save_every: 2, keep: 9}
EOF
train() { # DIR ARGS...
  "$aspis" train tiny.yaml --quiet --out "$@" >/dev/null 2>"$1.txt" || fail "$1: $(cat "$1.txt")"
}
same() { # DIR DIR: every checkpoint
  [ "$(ls "$1/checkpoints")" = "$(ls "$2/checkpoints")" ] || fail "$1 and $2: other checkpoints: $(ls "$1/checkpoints" "$2/checkpoints")"
  for file in "$1"/checkpoints/*; do cmp "$file" "$2/checkpoints/${file##*/}" || fail "$2: other bytes in ${file##*/}"; done
}

pair() { # NAME [--set ...]
  local name=$1
  shift
  train "$name-off" --set train.snapshot=off "$@"
  train "$name-auto" "$@"
  same "$name-off" "$name-auto"
  [ ! -s "$name-auto.txt" ] || fail "$name: $(cat "$name-auto.txt")"
  echo "ok: $name"
}
pair f32
pair bf16 --set dtype=bf16 --set optim.clip=0.01
pair carried --set data.tbptt.segment=6 --set data.tbptt.carry=state --set 'model.attn_layer_idx=[1]' --set model.attn_cfg.num_heads=2

# A copy that is taken beside the stream that computes, and so perhaps behind the next steps, is seen.
ASPIS_SIMT_STRAY=1 "$aspis" train tiny.yaml --quiet --out stray --set train.graph=off >/dev/null 2>&1 || true
if cmp -s f32-off/checkpoints/step-00000004.h5 stray/checkpoints/step-00000004.h5; then fail "a copy that comes when it likes goes unseen"; fi
echo "ok: a planted fault"

# Several ranks: rank 0 has the copy, also of what the others have of a split optimiser.
for transport in nccl host; do
  together "$transport" 2 by_aspis tiny.yaml --set dtype=bf16 --set optim.clip=0.01 --set train.zero=1 --set train.transport=$transport
  [ "$(cat $transport.0.code)" = 0 ] || fail "$transport: $(cat $transport.0.err)"
  same bf16-off $transport
done
echo "ok: two ranks, state split"

# The copy is in the plan, to the byte, and taken where there is room for it; else that is told, and the rest of the run is as it was.
field() { sed -nE "s/.*\"$1\": ([0-9]+).*/\1/p" "$2"; }
"$aspis" plan f32-auto/config.yaml --json >plan.json
copy=$(field snapshot_bytes plan.json)
all=$(($(field weights_bytes plan.json) + $(field step_bytes plan.json) + $(field scratch_bytes plan.json) + $(field graph_bytes plan.json) + copy))
[ "$copy" -gt 0 ] || fail "no copy is planned: $(cat plan.json)"
ASPIS_SIMT_MEMORY=1 train with
ASPIS_SIMT_MEMORY=1 train without --set train.snapshot=off
taken() { sed -nE 's/^simt: ([0-9]+) bytes of memory$/\1/p' "$1.txt"; }
[ $(($(taken with) - $(taken without))) = "$copy" ] || fail "$(taken with) and $(taken without) bytes taken, a copy of $copy planned"
ASPIS_SIMT_ROOM=$all train fits
[ ! -s fits.txt ] || fail "room for all: $(cat fits.txt)"
ASPIS_SIMT_ROOM=$((all - 1)) train tight
[ "$(wc -l <tight.txt)" = 1 ] && grep -qE '^training waits while a checkpoint is written: the GPU has no room for a copy of [0-9.]+ [KM]?i?B$' tight.txt ||
  fail "no room for a copy: $(cat tight.txt)"
same f32-off fits
same f32-off tight
ASPIS_SIMT_ROOM=$((all - 1)) "$aspis" plan tiny.yaml | grep 'no room for a copy' >/dev/null || fail "plan does not tell that there is no room"
for sets in "train.snapshot=off" "train.save_every=0 --set train.eval_every=6"; do # nothing to go on behind
  # shellcheck disable=SC2086
  [ "$("$aspis" plan tiny.yaml --json --set $sets | grep -c '"snapshot_bytes": 0, "snapshot_lacks_bytes": 0,')" = 1 ] || fail "a copy for $sets"
done
echo "ok: memory"

# Training goes on while a file is written: the one of step 4 is held up half written, and the steps to the next save are made. Killed
# then, the run has the checkpoint before, and ends with the bytes of one that nothing happened to.
held=(--set debug.allow=true --set 'debug.fault="slow@5,phase=write,seconds=1000"' --set train.log_every=1)
begin_held() { # DIR ARGS...
  "$aspis" train tiny.yaml --quiet --out "$@" "${held[@]}" >/dev/null 2>"$1.txt" &
  pid=$!
  until ls "$1"/checkpoints/step-00000004.h5.tmp-* >/dev/null 2>&1; do
    kill -0 $pid 2>/dev/null || fail "$1: ended: $(cat "$1.txt")"
    sleep 0.05
  done
}
end_held() {
  kill -KILL $pid
  { wait $pid || true; } 2>/dev/null
}
reached() { grep -s "\"step\":$2," "$1/metrics.jsonl" >/dev/null; }
begin_held held
until reached held 6; do
  kill -0 $pid 2>/dev/null || fail "held: ended: $(cat held.txt)"
  sleep 0.05
done
end_held
[ -e held/checkpoints/step-00000002.h5 ] && [ ! -e held/checkpoints/step-00000004.h5 ] || fail "held: $(ls held/checkpoints)"
begin_held waits --set train.snapshot=off
sleep 0.3
end_held
if reached waits 5; then fail "train.snapshot: off: training went on while a file was written"; fi
for run in held waits; do
  train $run --resume auto
  cmp f32-off/checkpoints/step-00000006.h5 $run/checkpoints/step-00000006.h5 || fail "$run: killed while writing and resumed, it ends with other bytes"
done
echo "ok: killed while a file is written beside training"

# A file that cannot take its place: told when the next is due, and the third in a row ends the run.
for snapshot in auto off; do
  mkdir -p full-$snapshot/checkpoints/best.h5/in-the-way
  code=0
  "$aspis" train tiny.yaml --quiet --out full-$snapshot --set train.snapshot=$snapshot --set train.eval_every=1 --set train.save_every=0 >/dev/null 2>full.txt || code=$?
  [ $code = 4 ] && [ "$(grep -c 'best.h5: cannot .*; training goes on' full.txt)" = 2 ] && [ "$(wc -l <full.txt)" = 3 ] ||
    fail "saves that fail, snapshot $snapshot: exit $code: $(cat full.txt)"
  ls full-$snapshot/checkpoints | grep tmp >/dev/null && fail "saves that fail: a temporary file was left"
done
echo "ok: saves that fail"
