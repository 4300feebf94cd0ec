#!/usr/bin/env bash
# A run that is stopped (TERM) or killed (kill -9) at random moments and resumed ends with the bytes of a run that never
# stopped: F32 and BF16, Mamba-3 and a hybrid of Mamba-2, with states that are carried from step to step.
source "$(dirname "$0")/common.sh"

# Runs to the end through interruptions: signal $1, remaining arguments for train.
interrupted() {
  local signal=$1 dir=$2 tries=0
  shift 2
  while :; do
    tries=$((tries + 1))
    "$aspis" train small.yaml --quiet --out "$dir" --resume auto "$@" >/dev/null 2>err.txt &
    local pid=$! code=0
    if [ $tries -le 8 ]; then
      sleep "0.$((RANDOM % 400 + 100))"
      kill "-$signal" $pid 2>/dev/null || true
    fi
    wait $pid || code=$?
    case $code in
    0) break ;;
    75 | 137 | 143) ;; # stopped as asked; killed; TERM before the handler stood
    *) fail "$signal: exit $code: $(cat err.txt)" ;;
    esac
  done
}

rows="--set model.ssm_cfg.layer=Mamba2 --set data.tbptt.segment=16"
carried="--set model.ssm_cfg.layer=Mamba2 --set model.learn_init_state=true --set data.tbptt.segment=16 --set model.attn_layer_idx=[1] --set model.attn_cfg.num_heads=4 --set data.pack=true --set data.document_end=."
for variant in "" "--set dtype=bf16" "$rows" "$carried"; do
  name=$(echo "run$variant" | tr -c 'a-zA-Z0-9\n' '_')
  "$aspis" train small.yaml --quiet --out "$name" $variant >/dev/null
  for signal in TERM KILL; do
    interrupted $signal "$name-$signal" $variant
    same_run "$name" "$name-$signal" "$signal $variant"
    echo "ok: $signal ${variant:-f32}"
  done
done

# A directory with a checkpoint needs --resume; never puts the old ones aside.
code=0
"$aspis" train small.yaml --out run --quiet >/dev/null 2>err.txt || code=$?
[ $code = 2 ] && grep -q -- '--resume auto' err.txt || fail "a second start without --resume: exit $code, $(cat err.txt)"
"$aspis" train small.yaml --out run --quiet --resume never --set train.steps=2 --set optim.warmup_steps=1 >/dev/null 2>&1
[ -e run/checkpoints.old-1/step-00000120.h5 ] || fail "--resume never lost the old checkpoints"
echo "ok: --resume is asked for, and never loses nothing"
