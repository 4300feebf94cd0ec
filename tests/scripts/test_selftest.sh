#!/usr/bin/env bash
# The first use of a GPU asks whether it computes what the processor does, and remembers; one that does not is refused in one
# line with exit 1. Here on the host's twin, and with kernels of it that do nothing.
# shellcheck source=tests/scripts/common.sh
source "$(dirname "$0")/common.sh"
export ASPIS_CUDA=simt ASPIS_SELFTEST=once XDG_CACHE_HOME=$work
run() { # EXIT_CODE BROKEN
  local code=0
  rm -rf run
  ASPIS_SIMT_BREAK=$2 "$aspis" train small.yaml --quiet --out run --set device=cuda --set train.steps=1 --set optim.warmup_steps=0 \
    --set train.eval_every=1 --set train.save_every=1 --set train.eval_batches=1 >/dev/null 2>err.txt || code=$?
  [ $code = "$1" ] || fail "exit $code, expected $1: $(cat err.txt)"
}
for broken in ssd_scan_bwd.cu: adamw.cu:; do
  run 1 "$broken"
  [ "$(grep -c 'fails its self-test: Mamba-2, f32: the .* is off by .*use device: cpu' err.txt)" = 1 ] || fail "$broken: $(cat err.txt)"
  [ ! -e aspis/selftest ] || fail "$broken: remembered as passed: $(cat aspis/selftest)"
  [ ! -e run/checkpoints ] || fail "$broken: it trained"
  echo "ok: without $broken"
done
run 0 ''
[ "$(grep -c 'self-test ... passed' err.txt)" = 1 ] || fail "not asked: $(cat err.txt)"
[ "$(grep -c ' | passed ' aspis/selftest)" = 1 ] || fail "not remembered: $(cat aspis/selftest)"
run 0 ''
[ ! -s err.txt ] || fail "asked again: $(cat err.txt)"
echo "ok: asked once"
