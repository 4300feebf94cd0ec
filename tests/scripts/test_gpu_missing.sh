#!/usr/bin/env bash
# A machine that cannot train on its GPU says why in one line, each reason its own, with exit code 2; doctor says it, too.
# The host's twin of CUDA answers as such a machine does (ASPIS_SIMT_LACKS).
source "$(dirname "$0")/common.sh"
export ASPIS_CUDA=simt

while IFS='|' read -r lacks line; do
  code=0
  ASPIS_SIMT_LACKS=$lacks "$aspis" train small.yaml --quiet --out run --set device=cuda >out.txt 2>err.txt || code=$?
  [ $code = 2 ] || fail "without $lacks: exit $code, expected 2: $(cat out.txt err.txt)"
  [ "$(wc -l <err.txt)" = 1 ] || fail "without $lacks, expected one line: $(cat err.txt)"
  grep -qF "$line" err.txt || fail "without $lacks, expected '$line': $(cat err.txt)"
  ASPIS_SIMT_LACKS=$lacks "$aspis" doctor >doctor.txt || true
  grep -qF "$line" doctor.txt || fail "doctor without $lacks, expected '$line': $(cat doctor.txt)"
  echo "ok: without $lacks"
done <<'EOF'
driver|no NVIDIA driver is loaded
newer-driver|the driver knows CUDA 12.4, this build needs 13: update the driver
gpu|a driver but no GPU (CUDA_VISIBLE_DEVICES may hide it)
newer-gpu|found a GPU of compute capability 7.5, expected 8.0
code|this build has no code for a GPU of sm_80 (no kernel image is available for execution on the device)
newer-code|this build has no code for a GPU of sm_80 (the provided PTX was compiled with an unsupported toolchain)
EOF
