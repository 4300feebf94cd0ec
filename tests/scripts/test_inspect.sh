#!/bin/bash
# aspis inspect: names what a path is, and refuses what it does not know with exit code 4 and the reason.
source "$(dirname "$0")/common.sh"

# shows PHRASE PATH
shows() {
  local output
  output=$("$aspis" inspect "$2" 2>&1) || fail "inspect $2: $output"
  grep -qF -- "$1" <<<"$output" || fail "inspect $2: \"$1\" is not in: $output"
}

shows "safetensors: 25 matched, of them 0 in half precision" "$source_dir/tests/golden/lm_packed"
shows "attention at 2, vocabulary 61 (64 rows), tied" "$source_dir/tests/golden/lm_packed/model.safetensors"
shows "a sequence, and " "$source_dir/tests/golden/lm_packed"
shows "backbone.layers.2.mixer.out_proj.weight" "$source_dir/tests/golden/lm_packed"
refused 4 "not a checkpoint" "$aspis" inspect "$source_dir/tests/golden/lm_packed/golden.h5"
refused 4 "not an HDF5 file" "$aspis" inspect "$source_dir/README.md"
refused 4 "No such file or directory" "$aspis" inspect nothing
mkdir empty
refused 4 "found neither checkpoints/step-*.h5 nor model.safetensors" "$aspis" inspect empty

cat >tiny.yaml <<'EOF'
name: tiny
model: {d_model: 32, n_layer: 1, ssm_cfg: {layer: Mamba3, d_state: 16, headdim: 16}}
data: {kind: synthetic, task: parity, min_length: 3, max_length: 16, seq_len: 16}
train: {steps: 2, batch_size: 4, save_every: 1, eval_every: 2, keep: 2}
EOF
"$aspis" train tiny.yaml --out run --quiet >/dev/null || fail "the tiny run"
shows "checkpoint (all hashes verified)" run
shows "step         2" run/checkpoints/best.h5
shows "moments included" run

# The newest damaged: the one before is shown, and the damage is said.
truncate -s -1 run/checkpoints/step-00000002.h5
shows "step-00000002.h5" run
shows "step         1" run
echo "all cases of inspect passed"
