#!/usr/bin/env bash
# tests/gpu/run.sh [--quick] [--out DIR]: everything that a machine with a GPU can say about the CUDA backend, in one command
# (`make gpu-test`): builds for this GPU, then
#   self-test   small models on the GPU and the processor
#   parity      every row of kernels.def, forward and backward, against the double definition, and twice the same bits
#   golden      the oracle's files
#   training    losses of five models against the processor's, resume, generation
#   timings     `aspis bench` beside the peaks of this GPU that it measures: operations at the sizes of a 1.3B model, whole
#               steps of a 130M one
#   peers       the same in PyTorch with the Triton kernels of mamba_ssm, where both are installed
#   sanitizer   compute-sanitizer over small shapes: memory, races, barriers, where it is installed
# A log of each, and summary.txt, are left in DIR (default: gpu-results). Exit 1 when one failed; 2 where there is no GPU.
# --quick leaves out what takes minutes. ASPIS_TEST_DEVICE=simt rehearses it on the host's twin, with less of everything.
set -uo pipefail
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
quick=false out=gpu-results device=${ASPIS_TEST_DEVICE:-cuda}
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=true ;;
    --out) shift; out=${1:?--out needs a folder} ;;
    *) echo "gpu/run.sh: found $1, expected --quick or --out DIR" >&2; exit 2 ;;
  esac
  shift
done
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
: >"$out/summary.txt"
failures=0
tell() { echo "$*" | tee -a "$out/summary.txt"; }

# part NAME COMMAND...: runs it into NAME.log; a line of the summary.
part() {
  local name=$1 start=$SECONDS
  shift
  if "$@" >"$out/$name.log" 2>&1; then tell "$(printf '%-12s ok      %4d s' "$name" $((SECONDS - start)))"
  else
    tell "$(printf '%-12s FAILED  %4d s  %s' "$name" $((SECONDS - start)) "$out/$name.log")"
    failures=$((failures + 1))
  fi
}

if [ "$device" = simt ]; then
  export ASPIS_CUDA=simt
  build=${ASPIS_TEST_BUILD:?the build folder to rehearse with}
  tiny=(--seconds 0 --set model.d_model=32 --set model.n_layer=1 --set model.ssm_cfg.d_state=8 --set model.ssm_cfg.headdim=16
    --set model.ssm_cfg.chunk_size=8 --set train.batch_size=1 --set data.seq_len=8)
else
  if ! ls /proc/driver/nvidia/gpus/* >/dev/null 2>&1 && ! command -v nvidia-smi >/dev/null; then
    echo "gpu/run.sh: no NVIDIA driver is loaded here; this is for a machine with a GPU" >&2
    exit 2
  fi
  build=$source_dir/build-gpu tiny=()
  make_build() {
    sh "$source_dir/scripts/setup.sh" && cmake -S "$source_dir" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES=native &&
      cmake --build "$build"
  }
  part build make_build
  [ -e "$build/libaspis_cuda.so" ] || { tell "no CUDA plug-in was built: is nvcc there? $out/build.log"; exit 1; }
fi
aspis=$build/aspis
export ASPIS_TEST_DEVICE=$device ASPIS_PLUGINS=$build OMP_WAIT_POLICY=passive
"$aspis" doctor >"$out/doctor.log" 2>&1 || true
tell "$(sed -n 's/^ *CUDA backend */GPU: /p' "$out/doctor.log")"

for i in $(seq 100); do echo "line $i of a text that is as long as a step needs"; done >"$out/one.txt"
cat >"$out/one.yaml" <<'YAML'
name: one
model: {d_model: 64, n_layer: 2, ssm_cfg: {d_state: 32, headdim: 16}}
data: {kind: text, path: [one.txt], tokenizer: char, seq_len: 40}
train: {steps: 1, batch_size: 2, eval_every: 1, eval_batches: 1, save_every: 1}
optim: {warmup_steps: 0}
YAML
self_test() { rm -rf "$out/one"; ASPIS_SELFTEST=always "$aspis" train "$out/one.yaml" --quiet --out "$out/one" --set device=cuda; }
part self-test self_test

if [ "$device" = simt ]; then
  part parity "$build/tests/test_simt_plain"
  mkdir -p "$out/golden" && cp "$source_dir/tests/golden/mixer_mamba3_softplus.h5" "$out/golden/"
  part golden "$aspis" check --golden "$out/golden" --device cuda
else
  parity() { "$build/tests/test_simt_plain" --jobs 1 && "$build/tests/test_simt" --jobs 1 && "$build/tests/test_simt_scan" --jobs 1; }
  part parity parity
  part golden "$aspis" check --golden "$source_dir/tests/golden" --device cuda
  part training env ASPIS_CUDA=cuda bash "$source_dir/tests/scripts/test_cuda_twin.sh" "$aspis" "$source_dir"
fi

# The sizes of a 1.3B model, 8 x 2048 tokens; a 130M model's steps.
large=(--set model.d_model=2048 --set model.ssm_cfg.d_state=128 --set model.ssm_cfg.chunk_size=256 --set data.seq_len=2048 --set train.batch_size=8)
cat >"$out/m130.yaml" <<'YAML'
name: m130
model: {preset: mamba2-130m, vocab_size: 50277}
data: {seq_len: 2048}
train: {batch_size: 16}
dtype: bf16
YAML
operations() { "$aspis" bench machine gemm norm conv dt scan gate mixers --device cuda --json --set dtype=bf16 "${large[@]}" "${tiny[@]}"; }
steps() {
  "$aspis" bench step adamw --device cuda --json --config "$out/m130.yaml" "${tiny[@]}" &&
    "$aspis" bench step --device cuda --json --config "$out/m130.yaml" --set model.preset=mamba3-180m "${tiny[@]}" &&
    "$aspis" bench decode --device cuda --json --config "$out/m130.yaml" "${tiny[@]}"
}
if [ "$device" = simt ]; then operations() { "$aspis" bench machine norm scan_siso --device cuda --json --set dtype=bf16 "${tiny[@]}"; }; fi
if [ "$device" = simt ]; then steps() { "$aspis" bench step --device cuda --json --set dtype=bf16 "${tiny[@]}"; }; fi
part operations operations
part steps steps

if command -v python3 >/dev/null && python3 -c 'import torch, mamba_ssm; assert torch.cuda.is_available()' 2>/dev/null; then
  part peers python3 "$source_dir/tests/gpu/peers.py"
else
  tell "peers        not here (PyTorch with mamba_ssm)"
fi

if [ "$device" = cuda ] && ! $quick && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    part "$tool" compute-sanitizer --tool $tool --error-exitcode 1 --target-processes all \
      "$build/tests/test_simt" --jobs 1 --filter 'simt/{ssm_dt,rms_norm,gated_norm,conv1d,swiglu,cross_entropy,embedding,gather}'
    part "$tool-step" env ASPIS_SELFTEST=never compute-sanitizer --tool $tool --error-exitcode 1 \
      "$aspis" train "$out/one.yaml" --quiet --out "$out/one-$tool" --set device=cuda
  done
else
  tell "sanitizer    left out"
fi

# What was timed, a line each.
grep -hE '^\{' "$out"/operations.log "$out"/steps.log "$out"/peers.log 2>/dev/null |
  sed -nE 's/.*"case": "([^"]*)".*"pass": "([^"]*)".*"ms": ([0-9.]+).*"peak_fraction": ([0-9.]+), "bound": "([^"]*)".*/\1 \2 \3 \4 \5/p; s/.*"peer": "([^"]*)".*"case": "([^"]*)".*"pass": "([^"]*)".*"ms": ([0-9.]+).*/\2 \3 \4 - \1/p' |
  awk '{ printf "%-16s %-18s %10.3f ms  %s of %s\n", $1, $2, $3, $4 == "-" ? "-" : sprintf("%3.0f %%", 100 * $4), $5 }' | tee -a "$out/summary.txt"
[ $failures = 0 ] || { tell "$failures parts failed"; exit 1; }
tell "all parts passed"
