#!/usr/bin/env bash
# tests/gpu/run.sh, rehearsed on the host's twin of a GPU: every part that runs there passes and is in the summary, one that
# fails fails it all; without a GPU it says so.
# shellcheck source=tests/scripts/common.sh
source "$(dirname "$0")/common.sh"
export ASPIS_TEST_BUILD=$(dirname "$aspis") XDG_CACHE_HOME=$work
run=$source_dir/tests/gpu/run.sh

ASPIS_TEST_DEVICE=simt bash "$run" --quick --out good >out.txt 2>&1 || fail "$(cat out.txt good/*.log)"
for part in self-test parity golden operations steps; do
  [ "$(grep -cE "^$part +ok" good/summary.txt)" = 1 ] || fail "$part: $(cat good/summary.txt)"
done
[ "$(grep -cE '^scan_siso +backward .* %' good/summary.txt)" = 1 ] || fail "no timings: $(cat good/summary.txt)"
echo "ok: rehearsal"

code=0
ASPIS_SIMT_BREAK=adamw.cu: ASPIS_TEST_DEVICE=simt bash "$run" --quick --out bad >out.txt 2>&1 || code=$?
[ $code = 1 ] || fail "with a broken kernel: exit $code, expected 1: $(cat out.txt)"
for part in self-test parity; do
  [ "$(grep -cE "^$part +FAILED" bad/summary.txt)" = 1 ] || fail "$part: $(cat bad/summary.txt)"
done
echo "ok: a broken kernel"

if [ ! -e /proc/driver/nvidia ] && ! command -v nvidia-smi >/dev/null; then
  code=0
  bash "$run" --out none >out.txt 2>&1 || code=$?
  [ $code = 2 ] || fail "without a GPU: exit $code, expected 2: $(cat out.txt)"
  [ "$(grep -c 'no NVIDIA driver' out.txt)" = 1 ] || fail "$(cat out.txt)"
  echo "ok: no GPU"
fi
