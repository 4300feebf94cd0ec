#!/bin/bash
# aspis inspect: names what a path is, and refuses what it does not know with exit code 4 and the reason.
source "$(dirname "$0")/common.sh"

# expect CODE PHRASE PATH
expect() {
  local code=0 output
  output=$("$aspis" inspect "$3" 2>&1) || code=$?
  [ $code -eq "$1" ] || fail "inspect $3: exit code $code, expected $1: $output"
  grep -qF -- "$2" <<<"$output" || fail "inspect $3: \"$2\" is not in: $output"
}

expect 0 "safetensors: 25 matched, of them 0 in half precision" "$source_dir/tests/golden/lm_packed"
expect 0 "attention at 2, vocabulary 61 (64 rows), tied" "$source_dir/tests/golden/lm_packed/model.safetensors"
expect 0 "a sequence, and " "$source_dir/tests/golden/lm_packed"
expect 0 "backbone.layers.2.mixer.out_proj.weight" "$source_dir/tests/golden/lm_packed"
expect 4 "not a checkpoint" "$source_dir/tests/golden/lm_packed/golden.h5"
expect 4 "not an HDF5 file" "$source_dir/README.md"
expect 4 "No such file or directory" "$work/nothing"
mkdir "$work/empty"
expect 4 "found neither checkpoints/step-*.h5 nor model.safetensors" "$work/empty"

cat >"$work/tiny.yaml" <<'YAML'
name: tiny
model: {d_model: 32, n_layer: 1, ssm_cfg: {layer: Mamba3, d_state: 16, headdim: 16}}
data: {kind: synthetic, task: parity, min_length: 3, max_length: 16, seq_len: 16}
train: {steps: 2, batch_size: 4, save_every: 1, eval_every: 2, keep: 2}
YAML
"$aspis" train "$work/tiny.yaml" --out "$work/run" --quiet >/dev/null || fail "the tiny run"
expect 0 "checkpoint (all hashes verified)" "$work/run"
expect 0 "step         2" "$work/run/checkpoints/best.h5"
expect 0 "moments included" "$work/run"

# The newest damaged: the one before is shown, and the damage is said.
truncate -s -1 "$work/run/checkpoints/step-00000002.h5"
expect 0 "step-00000002.h5" "$work/run"
expect 0 "step         1" "$work/run"
echo "all cases of inspect passed"
