#!/usr/bin/env bash
# device: cuda, run thread by thread on the host (tests/simt), does what the CPU does: losses of a training run lie on the
# CPU's, gradients are right, a run resumes to the same bytes, and a model evaluates and generates alike. The device's
# memory is out of the host's reach, so that host code that touches it fails here as it would with a GPU.
source "$(dirname "$0")/common.sh"
export ASPIS_CUDA=${ASPIS_CUDA:-simt} ASPIS_SIMT_GUARD=1 # tests/gpu/run.sh: cuda
steps=${ASPIS_TWIN_STEPS:-50} # fewer under sanitizers, which are after memory and not after curves

cat >tiny.yaml <<EOF
include: tiny_lm.yaml
optim: {warmup_steps: 5}
train: {steps: $steps, batch_size: 2, eval_every: $steps, save_every: $((steps / 2))}
EOF
cat >series.yaml <<EOF
include: tiny_series.yaml
optim: {warmup_steps: 5}
train: {steps: $steps, eval_every: $steps, save_every: $steps}
EOF

losses() { sed -nE 's/.*"loss": ?([0-9.e+-]+).*/\1/p' "$1/metrics.jsonl"; }

# The losses of two runs, step by step; the largest difference allowed is $3.
near() {
  paste <(losses "$1") <(losses "$2") | awk -v most="$3" -v steps="$steps" '
    { d = $1 - $2; if (d < 0) d = -d; if (NF != 2 || d > most) { print "step " NR ": " $1 " and " $2; exit 1 } }
    END { if (NR < steps) { print NR " steps"; exit 1 } }' || fail "$1 and $2: losses differ by more than $3"
}

pair() { # NAME CONFIG TOLERANCE [--set ...]
  local name=$1 config=$2 tolerance=$3
  shift 3
  "$aspis" train "$config" --quiet --out "$name-cpu" --set device=cpu "$@" >cpu.txt
  "$aspis" train "$config" --quiet --out "$name-cuda" --set device=cuda "$@" >cuda.txt
  near "$name-cpu" "$name-cuda" "$tolerance"
  echo "ok: $name"
}

pair siso tiny.yaml 1e-3
pair mamba2 tiny.yaml 1e-3 --set model.ssm_cfg.layer=Mamba2 --set model.learn_init_state=true
pair mimo tiny.yaml 1e-3 --set model.ssm_cfg.is_mimo=true --set model.ssm_cfg.mimo_rank=2 --set data.tbptt.segment=10 --set model.learn_init_state=true
pair hybrid tiny.yaml 1e-3 --set 'model.attn_layer_idx=[1]' --set model.attn_cfg.num_heads=2 --set model.d_intermediate=24 --set data.tbptt.segment=10
pair forecaster series.yaml 1e-3
# one BF16 step of a weight is 2^-8 of it; the curves part by rounding, not by more
pair bf16 tiny.yaml 5e-2 --set dtype=bf16

"$aspis" check tiny.yaml --device cuda >check.txt || fail "gradients: $(cat check.txt)"
echo "ok: gradients"

"$aspis" train tiny.yaml --quiet --out again --set device=cuda >/dev/null 2>&1 &
pid=$!
half=$(printf 'step-%08d.h5' $((steps / 2)))
last=$(printf 'step-%08d.h5' "$steps")
while [ ! -e "again/checkpoints/$half" ] && kill -0 $pid 2>/dev/null; do sleep 0.05; done
kill -KILL $pid 2>/dev/null || true
{ wait $pid || true; } 2>/dev/null
"$aspis" train tiny.yaml --quiet --out again --set device=cuda --resume auto >/dev/null
cmp "siso-cuda/checkpoints/$last" "again/checkpoints/$last" || fail "a resumed run has other bytes"
echo "ok: resume"

# A run remembers its device; its weights alone do not, and go to the processor.
for run in siso hybrid; do
  "$aspis" convert $run-cuda $run-weights >/dev/null
  for how in "" --no-cache; do
    "$aspis" generate $run-cuda --prompt-tokens 1,2,3,4,5 --max-tokens 12 --temperature 0 --json $how >cuda.txt
    "$aspis" generate $run-weights --prompt-tokens 1,2,3,4,5 --max-tokens 12 --temperature 0 --json $how >cpu.txt
    cmp cpu.txt cuda.txt || fail "$run $how: other tokens"
  done
  for device in cpu cuda; do "$aspis" eval $run-cuda --json --set device=$device >eval-$device.txt; done
  awk -F'[:,]' '{ x[NR] = $2 } END { d = x[1] - x[2]; exit d > 1e-4 || d < -1e-4 }' eval-cpu.txt eval-cuda.txt ||
    fail "$run: eval says $(cat eval-cpu.txt) and $(cat eval-cuda.txt)"
  echo "ok: eval and generate, $run"
done

# A step goes bad between two lines of the log, where the host does not look: the device holds the update back by itself.
bad() { # NAME LOG_EVERY NONFINITE FAULT
  local code=0
  "$aspis" train tiny.yaml --quiet --out "$1" --set device=cuda --set train.steps=5 --set train.eval_every=0 \
    --set train.save_every=5 --set train.log_every="$2" --set train.nonfinite="$3" --set debug.allow=true --set "debug.fault=\"$4\"" \
    >/dev/null 2>"$1.txt" || code=$?
  echo $code
}
for fault in nan_grad nan_loss; do
  for every in 1 100; do
    [ "$(bad "$fault-skip-$every" $every skip "$fault@3")" = 0 ] || fail "skip: $(cat "$fault-skip-$every.txt")"
    [ "$(grep -c 'step 3 skipped' "$fault-skip-$every.txt")" = 1 ] || fail "not told: $(cat "$fault-skip-$every.txt")"
    [ "$(bad "$fault-stop-$every" $every stop "$fault@3")" = 5 ] || fail "stop: $(cat "$fault-stop-$every.txt")"
    grep -q 'step 3: .* the weights are those of step 2: ' "$fault-stop-$every.txt" || fail "$(cat "$fault-stop-$every.txt")"
    [ "$(ls "$fault-stop-$every/checkpoints")" = step-00000002.h5 ] || fail "saved: $(ls "$fault-stop-$every/checkpoints")"
  done
  for left in skip stop; do # what is left goes on the same
    for every in 1 100; do
      "$aspis" train tiny.yaml --quiet --out "$fault-$left-$every" --set device=cuda --set train.steps=6 \
        --set train.eval_every=0 --set train.save_every=6 --resume auto >/dev/null
    done
    cmp "$fault-$left-1/checkpoints/step-00000006.h5" "$fault-$left-100/checkpoints/step-00000006.h5" ||
      fail "$fault, $left: other bytes where the host looked late"
  done
done
echo "ok: bad steps"
