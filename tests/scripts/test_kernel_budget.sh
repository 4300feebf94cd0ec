#!/usr/bin/env bash
# Every CUDA kernel of this build keeps to scripts/kernel_budget.txt (registers, shared memory, no spills, launches no larger
# than stated), and the script that says so sees one that does not. Nothing to do where the plug-in is not built.
source "$(dirname "$0")/common.sh"
build=$(dirname "$aspis")
budget=$source_dir/scripts/kernel_budget.sh

mkdir -p planted
report() { # REGISTERS SPILLED
  cat >planted/adamw.cu.o.ptxas <<REPORT
ptxas info    : Compiling entry function '_Z6updatel' for 'sm_80'
ptxas info    : Function properties for _Z6updatel
    0 bytes stack frame, $2 bytes spill stores, 0 bytes spill loads
ptxas info    : Used $1 registers, used 1 barriers, 392 bytes cmem[0]
REPORT
}
report 20 0
bash "$budget" planted >out.txt || fail "a kernel that keeps to its budget is refused: $(cat out.txt)"
report 200 0
if bash "$budget" planted >out.txt; then fail "200 registers go unseen: $(cat out.txt)"; fi
report 20 8
if bash "$budget" planted >out.txt; then fail "spilled registers go unseen: $(cat out.txt)"; fi
report 20 0
echo "simt: tensor/cuda/adamw.cu: update: 1 launches, 8 bytes in, 8 out, at most 256 threads, 4096 shared" >launches.txt
if bash "$budget" planted launches.txt >out.txt; then fail "a launch larger than stated goes unseen: $(cat out.txt)"; fi
echo "ok: planted faults are seen"

if [ -z "$(find "$build" -name '*.cu.o.ptxas' -print -quit)" ]; then
  echo "ok: no CUDA plug-in in this build"
  exit 0
fi
ASPIS_SIMT_TRAFFIC=1 ASPIS_CUDA=simt "$aspis" train small.yaml --quiet --out run --set device=cuda --set train.steps=1 --set optim.warmup_steps=0 \
  --set train.eval_every=1 --set train.save_every=1 --set dtype=bf16 >/dev/null 2>launches.txt || fail "$(cat launches.txt)"
[ "$(grep -c '^simt: ' launches.txt)" -gt 10 ] || fail "the twin tells no launches: $(cat launches.txt)"
bash "$budget" "$build" launches.txt >out.txt || fail "$(grep -E 'OVER|launched|budget' out.txt)"
echo "ok: $(grep -c registers out.txt) kernels"
