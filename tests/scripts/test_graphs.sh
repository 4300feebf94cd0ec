#!/usr/bin/env bash
# Steps launched as CUDA graphs (train.graph), on the host's twin (tests/simt): the bytes of a run launched kernel by kernel, for
# every kind of layer and batch; what is not replayed is told. Work waits in streams, and the device's memory is out of the
# host's reach.
source "$(dirname "$0")/common.sh"
export ASPIS_CUDA=simt ASPIS_SIMT_GUARD=1 ASPIS_SIMT_STREAMS=1

cat >tiny.yaml <<'EOF'
include: tiny_lm.yaml
device: cuda
data: {seq_len: 12}
train: {micro_batch_size: 1, eval_every: 3, save_every: 4, log_every: 2}
EOF
cat >series.yaml <<'EOF'
include: tiny_series.yaml
device: cuda
model: {cycle: 5, dropout: 0.2}
train: {virtual_ranks: 4, eval_every: 3, save_every: 4, log_every: 2}
EOF

# NAME CONFIG WANTED [--set ...]: WANTED is what the run tells of its graphs.
pair() {
  local name=$1 config=$2 wanted=$3
  shift 3
  "$aspis" train "$config" --out "$name-off" --set train.graph=off "$@" >/dev/null 2>"$name-off.txt" || fail "$(cat "$name-off.txt")"
  "$aspis" train "$config" --out "$name-auto" "$@" >/dev/null 2>"$name-auto.txt" || fail "$(cat "$name-auto.txt")"
  grep -q "$wanted" "$name-auto.txt" || fail "$name: expected '$wanted': $(grep -i graphs "$name-auto.txt")"
  if grep -qi graphs "$name-off.txt"; then fail "$name: graphs though they are off"; fi
  local last=$(cd "$name-off" && ls checkpoints/step-* | tail -1)
  cmp "$name-off/$last" "$name-auto/$last" || fail "$name: other bytes where steps are replayed"
  echo "ok: $name"
}

pair siso tiny.yaml '3 steps replayed, 1 launched kernel by kernel, 1 graphs made'
pair mamba2 tiny.yaml '3 steps replayed' --set model.ssm_cfg.layer=Mamba2 --set optim.kind=sgd --set train.recompute=block
pair mimo tiny.yaml '3 steps replayed' --set model.ssm_cfg.is_mimo=true --set model.ssm_cfg.mimo_rank=2 --set model.learn_init_state=true
pair bf16 tiny.yaml '3 steps replayed' --set dtype=bf16 --set optim.clip=0.01
pair hybrid tiny.yaml '3 steps replayed' --set 'model.attn_layer_idx=[1]' --set model.attn_cfg.num_heads=2 --set model.d_intermediate=24
pair forecaster series.yaml '3 steps replayed'
# states are carried to and fro between two memories: a graph each
hybrid=(--set 'model.attn_layer_idx=[1]' --set model.attn_cfg.num_heads=2) # how many tokens came before only the device knows
pair carry tiny.yaml '2 steps replayed, 2 launched kernel by kernel, 2 graphs made' --set data.tbptt.segment=6 --set data.tbptt.carry=state "${hybrid[@]}"

# What graphs take of the device's memory beside the arenas is in the plan, to the byte: room for as many as are kept and for what
# comes, of which a run whose steps are all alike takes two fifths, and one of two kinds of steps three.
memory() { # NAME FIFTHS [--set ...]
  local name=$1 fifths=$2 taken arenas graphs
  shift 2
  ASPIS_SELFTEST=never ASPIS_SIMT_MEMORY=1 "$aspis" train tiny.yaml --quiet --out "$name" "$@" >/dev/null 2>"$name.txt"
  taken=$(sed -nE 's/^simt: ([0-9]+) bytes of memory$/\1/p' "$name.txt")
  "$aspis" plan "$name/config.yaml" --json >"$name.json"
  field() { sed -nE "s/.*\"$1\": ([0-9]+).*/\1/p" "$name.json"; }
  arenas=$(($(field weights_bytes) + $(field step_bytes) + $(field scratch_bytes) + $(field snapshot_bytes))) graphs=$(field graph_bytes)
  [ $(((taken - arenas) * 5)) = $((graphs * fifths)) ] && [ "$graphs" -gt 0 ] ||
    fail "$name: $taken bytes taken, $arenas of them planned for arenas, and $graphs for graphs at most"
}
memory memory 2
memory memory-carry 3 --set data.tbptt.segment=6 --set data.tbptt.carry=state "${hybrid[@]}"
[ "$("$aspis" plan memory/config.yaml --json --set train.graph=off | grep -c '"graph_bytes": 0,')" = 1 ] || fail "memory for graphs that are off"
echo "ok: memory"

# What would make a replay wrong is seen here: steps that go by the first step's numbers and data (as if they had been arguments
# of kernels), and copies that nobody waits for, while the host is steps ahead of the device.
far=(--quiet --set train.eval_every=0 --set train.log_every=100 --set train.save_every=8 --set train.steps=8)
last=checkpoints/step-00000008.h5
"$aspis" train tiny.yaml --out far "${far[@]}" --set train.graph=off >/dev/null 2>&1
"$aspis" train tiny.yaml --out far-auto "${far[@]}" >/dev/null 2>&1
cmp "far/$last" "far-auto/$last" || fail "other bytes where the host is ahead"
for fault in STALE UNORDERED; do
  env ASPIS_SIMT_$fault=1 "$aspis" train tiny.yaml --out "$fault" "${far[@]}" >/dev/null 2>&1 || true
  if cmp -s "far/$last" "$fault/$last"; then fail "ASPIS_SIMT_$fault goes unseen"; fi
done
echo "ok: planted faults"

# Packed documents: few batches have the shapes of others.
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do head -c $((6 + i * 3)) text.txt >"document$i.txt"; done
pair pack tiny.yaml "graphs made" \
  --set 'data.path=[document*.txt]' --set data.pack=true --set train.steps=24 --set train.eval_every=0 --set train.save_every=24

# States are carried and nobody looks: a bad step leaves them as they were, whenever the host learns of it.
for every in 1 100; do
  for graph in off auto; do
    "$aspis" train tiny.yaml --quiet --out "bad-$every-$graph" --set data.tbptt.segment=6 "${hybrid[@]}" --set train.steps=5 --set train.eval_every=0 \
      --set train.save_every=5 --set train.log_every=$every --set train.graph=$graph --set train.nonfinite=skip \
      --set debug.allow=true --set 'debug.fault="nan_grad@3"' >/dev/null 2>"bad-$every-$graph.txt" || fail "$(cat "bad-$every-$graph.txt")"
    [ "$(grep -c 'step 3 skipped' "bad-$every-$graph.txt")" = 1 ] || fail "not told: $(cat "bad-$every-$graph.txt")"
    "$aspis" train tiny.yaml --quiet --out "bad-$every-$graph" --set data.tbptt.segment=6 "${hybrid[@]}" --set train.steps=6 --set train.eval_every=0 \
      --set train.save_every=6 --resume auto >/dev/null
    cmp bad-1-off/checkpoints/step-00000006.h5 "bad-$every-$graph/checkpoints/step-00000006.h5" ||
      fail "a skipped step among carried states: other bytes (log_every $every, graph $graph)"
  done
done
echo "ok: carried states, a bad step"

# No step waits for the device: a run of more steps waits no more often (both have made their graphs).
for how in "" "--set train.graph=off" "--set data.tbptt.segment=6 --set model.attn_layer_idx=[1] --set model.attn_cfg.num_heads=2"; do
  for steps in 6 12; do
    # shellcheck disable=SC2086
    ASPIS_SIMT_WAITS=1 "$aspis" train tiny.yaml --quiet --out "waits-$steps" --resume never --set train.eval_every=0 --set train.save_every=0 \
      --set train.log_every=100 --set train.steps=$steps $how 2>"waits-$steps.txt" >/dev/null
    grep -o '[0-9]* waits' "waits-$steps.txt" >"waits-$steps.n"
  done
  cmp waits-6.n waits-12.n || fail "$how: $(cat waits-6.n) in 6 steps, $(cat waits-12.n) in 12"
done
echo "ok: no step waits"
