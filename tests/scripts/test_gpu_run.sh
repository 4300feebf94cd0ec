#!/usr/bin/env bash
# tests/gpu/run.sh, rehearsed on the host's twin of a GPU: every part that runs there passes and is in the summary, one that
# fails fails it all, one that hangs is cut off and keeps what it told; without a GPU it says so.
# shellcheck source=tests/scripts/common.sh
source "$(dirname "$0")/common.sh"
export ASPIS_TEST_BUILD=$(dirname "$aspis") XDG_CACHE_HOME=$work
run=$source_dir/tests/gpu/run.sh

ASPIS_TEST_DEVICE=simt bash "$run" --quick --out good >out.txt 2>&1 || fail "$(cat out.txt good/*.log)"
for part in self-test plain machine scans steps products golden; do
  [ "$(grep -cE "^$part +ok" good/summary.txt)" = 1 ] || fail "$part: $(cat good/summary.txt)"
done
[ "$(grep -cE '^ +scan_siso +backward .* %' good/summary.txt)" = 1 ] || fail "no timings: $(cat good/summary.txt)"
[ "$(grep -c '"case": "scan_siso"' good/timings.jsonl)" = 2 ] || fail "timings.jsonl: $(cat good/timings.jsonl)"
echo "ok: rehearsal"

code=0
ASPIS_SIMT_BREAK=adamw.cu: ASPIS_TEST_DEVICE=simt bash "$run" --quick --out bad >out.txt 2>&1 || code=$?
[ $code = 1 ] || fail "with a broken kernel: exit $code, expected 1: $(cat out.txt)"
for part in self-test plain; do
  [ "$(grep -cE "^$part +FAILED" bad/summary.txt)" = 1 ] || fail "$part: $(cat bad/summary.txt)"
done
echo "ok: a broken kernel"

mkdir hanging
cat >hanging/aspis <<'EOF'
#!/bin/sh
[ "$1" = doctor ] && exit
echo '{"case": "scan", "pass": "forward", "ms": 1.5, "peak_fraction": 0.5, "bound": "copy"}'
sleep 600 & wait
EOF
chmod +x hanging/aspis
code=0
ASPIS_TEST_DEVICE=simt bash "$run" --seconds 2 --build hanging --out slow >out.txt 2>&1 || code=$?
[ $code = 1 ] || fail "with a part that hangs: exit $code, expected 1: $(cat out.txt)"
for line in '^self-test +CUT OFF' '^ +scan +forward +1.500 ms +50 % of copy' '^steps +left out: 2 s are over'; do
  [ "$(grep -cE "$line" slow/summary.txt)" = 1 ] || fail "$line: $(cat slow/summary.txt)"
done
echo "ok: a part that hangs"

if [ ! -e /proc/driver/nvidia ] && ! command -v nvidia-smi >/dev/null; then
  code=0
  bash "$run" --out none >out.txt 2>&1 || code=$?
  [ $code = 2 ] || fail "without a GPU: exit $code, expected 2: $(cat out.txt)"
  [ "$(grep -c 'no NVIDIA driver' out.txt)" = 1 ] || fail "$(cat out.txt)"
  echo "ok: no GPU"
fi
