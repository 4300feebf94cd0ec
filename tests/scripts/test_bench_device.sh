#!/usr/bin/env bash
# bench --device cuda times what runs there, here on the host's twin with the device's memory out of the host's reach: each
# case gives its lines, and the machine's are the GPU's own. Sizes are tiny: no time is held to anything.
# shellcheck source=tests/scripts/common.sh
source "$(dirname "$0")/common.sh"
export ASPIS_CUDA=simt ASPIS_SIMT_GUARD=1
cases=(machine norm conv scan_siso gate_mimo attention cross_entropy mamba2 adamw step decode)
"$aspis" bench "${cases[@]}" --device cuda --json --seconds 0 --prompt 5 --set dtype=bf16 --set model.d_model=32 --set model.n_layer=1 \
  --set model.ssm_cfg.d_state=8 --set model.ssm_cfg.headdim=16 --set model.ssm_cfg.chunk_size=8 --set train.batch_size=2 \
  --set data.seq_len=8 >lines.txt
for case in "${cases[@]}"; do
  case $case in adamw | step) expected=1 ;; machine) expected=6 ;; *) expected=2 ;; esac
  [ "$(grep -cF "\"case\": \"$case\"," lines.txt)" = $expected ] || fail "$case: expected $expected lines: $(cat lines.txt)"
done
for pass in 'products bf16' 'multiply-adds bf16'; do
  grep -qE "\"pass\": \"$pass\", \"gflops\": [0-9.e-]*[1-9]" lines.txt || fail "no $pass: $(cat lines.txt)"
done
grep -qE '"pass": "copy memory".*"gb_per_s": [0-9.e-]*[1-9]' lines.txt || fail "no copies: $(cat lines.txt)"
echo "ok: $(wc -l <lines.txt) lines"
