#!/usr/bin/env bash
# tests/gpu/run.sh [--quick] [--seconds N] [--build DIR] [--out DIR]: everything that a machine with a GPU can say about the
# CUDA backend, in one command (`make gpu-test`): builds for this GPU, then, what is most wanted first,
#   self-test   small models on the GPU and the processor
#   plain, rows, scan   parity: every row of kernels.def, forward and backward, against the double definition, and twice the
#               same bits
#   machine, scans, steps, products   timings: `aspis bench` beside the peaks of this GPU that it measures: operations at the
#               sizes of a 1.3B model, whole steps and decoding of a 130M one
#   peers       the same in PyTorch with the Triton kernels of mamba_ssm, as far as these are installed
#   golden      the oracle's files
#   training    losses of five models against the processor's, resume, generation
#   memcheck, racecheck, synccheck   compute-sanitizer over a training step and small shapes, where it is installed
# A log of each, summary.txt and timings.jsonl are left in DIR (default: gpu-results), written as they come: what was stopped
# has told what it knew. Exit 1 when a part failed; 2 where there is no GPU.
# --seconds N: what does not fit into N seconds is cut off or left out; without it each part has its own limit alone.
# --build DIR: a build made before, as pack.sh makes it for a machine that has no compiler or network; nothing is built here.
# --quick leaves out the sanitizer. ASPIS_TEST_DEVICE=simt rehearses it on the host's twin, with less of everything.
set -uo pipefail
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
quick=false out=gpu-results device=${ASPIS_TEST_DEVICE:-cuda} most=0 build=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=true ;;
    --seconds) shift; most=${1:?--seconds needs a number} ;;
    --build) shift; build=$(cd "${1:?--build needs a folder}" && pwd) || exit 2 ;;
    --out) shift; out=${1:?--out needs a folder} ;;
    *) echo "gpu/run.sh: found $1, expected --quick, --seconds N, --build DIR or --out DIR" >&2; exit 2 ;;
  esac
  shift
done
case $most in *[!0-9]*) echo "gpu/run.sh: found --seconds $most, expected a whole number" >&2; exit 2 ;; esac
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
: >"$out/summary.txt"
: >"$out/timings.jsonl"
failures=0
tell() { echo "$*" | tee -a "$out/summary.txt"; }

running=
trap '[ -z "$running" ] || kill -TERM -- "-$running" 2>/dev/null; exit 130' INT TERM
# run_limited SECONDS COMMAND...: as the command; 124 when it took longer and was ended, with all that it started.
run_limited() {
  local limit=$1 pid since=$SECONDS
  shift
  set -m # a process group of its own
  "$@" &
  running=$! pid=$!
  set +m
  while kill -0 $pid 2>/dev/null; do
    if [ $((SECONDS - since)) -ge "$limit" ]; then
      kill -TERM -- -$pid 2>/dev/null
      sleep 1
      kill -KILL -- -$pid 2>/dev/null
      wait $pid 2>/dev/null
      return 124
    fi
    sleep 0.1
  done
  wait $pid
}

# part NAME SECONDS COMMAND...: runs it into NAME.log, SECONDS at most; a line of the summary, and one for each timing in it.
part() {
  local name=$1 limit=$2 start=$SECONDS code=0 left
  shift 2
  if [ "$most" -gt 0 ]; then
    left=$((most - SECONDS))
    if [ $left -le 0 ]; then
      tell "$(printf '%-12s left out: %d s are over' "$name" "$most")"
      return
    fi
    [ "$limit" -le $left ] || limit=$left
  fi
  run_limited "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  if [ $code = 0 ]; then tell "$(printf '%-12s ok      %4d s' "$name" $((SECONDS - start)))"
  else
    tell "$(printf '%-12s %s  %4d s  %s' "$name" "$([ $code = 124 ] && echo 'CUT OFF' || echo 'FAILED ')" $((SECONDS - start)) "$out/$name.log")"
    failures=$((failures + 1))
  fi
  grep -hE '^\{' "$out/$name.log" | tee -a "$out/timings.jsonl" |
    sed -nE 's/.*"case": "([^"]*)".*"pass": "([^"]*)".*"ms": ([0-9.]+).*"peak_fraction": ([0-9.]+), "bound": "([^"]*)".*/\1 \2 \3 \4 \5/p; s/.*"peer": "([^"]*)".*"case": "([^"]*)".*"pass": "([^"]*)".*"ms": ([0-9.]+).*/\2 \3 \4 - \1/p' |
    awk '{ printf "  %-16s %-18s %10.3f ms  %s of %s\n", $1, $2, $3, $4 == "-" ? "-" : sprintf("%3.0f %%", 100 * $4), $5 }' | tee -a "$out/summary.txt"
}

tiny=()
if [ "$device" = simt ]; then
  export ASPIS_CUDA=simt
  build=${build:-${ASPIS_TEST_BUILD:?the build folder to rehearse with}}
  tiny=(--seconds 0 --set model.d_model=32 --set model.n_layer=1 --set model.ssm_cfg.d_state=8 --set model.ssm_cfg.headdim=16
    --set model.ssm_cfg.chunk_size=8 --set train.batch_size=1 --set data.seq_len=8)
else
  if ! ls /proc/driver/nvidia/gpus/* /dev/nvidia0 /dev/dxg >/dev/null 2>&1 && ! command -v nvidia-smi >/dev/null; then
    echo "gpu/run.sh: no NVIDIA driver is loaded here; this is for a machine with a GPU" >&2
    exit 2
  fi
  nvidia-smi >"$out/gpu.log" 2>&1
  if [ -z "$build" ]; then
    build=$source_dir/build-gpu
    command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
    make_build() {
      sh "$source_dir/scripts/setup.sh" && cmake -S "$source_dir" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES=native &&
        cmake --build "$build" --target aspis_program aspis_cuda test_simt test_simt_plain test_simt_scan
    }
    part build 1800 make_build
  fi
  [ -e "$build/libaspis_cuda.so" ] || { tell "no CUDA plug-in was built: is nvcc there? $out/build.log"; exit 1; }
  own_libraries=${LD_LIBRARY_PATH:-}
  # What the build needs and the machine's own paths do not have: pack.sh's libraries, and cuBLASLt where a toolkit or PyTorch has it.
  for found in "$build/lib" /usr/local/cuda/lib64 "$(python3 -c 'import nvidia.cu13 as p; print(list(p.__path__)[0] + "/lib")' 2>/dev/null)"; do
    [ -d "$found" ] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$found
  done
fi
aspis=$build/aspis
export ASPIS_TEST_DEVICE=$device ASPIS_PLUGINS=$build OMP_WAIT_POLICY=passive
run_limited 60 "$aspis" doctor >"$out/doctor.log" 2>&1 || true
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
part self-test 120 self_test
export ASPIS_SELFTEST=never # its verdict is in the summary; where it is bad the other parts say more

part plain 120 "$build/tests/test_simt_plain" --jobs 1
if [ "$device" = cuda ]; then
  part rows 180 "$build/tests/test_simt" --jobs 1
  part scan 180 "$build/tests/test_simt_scan" --jobs 1
fi

# The sizes of a 1.3B model, 8 x 2048 tokens; a 130M model's steps.
large=(--device cuda --json --set dtype=bf16 --set model.d_model=2048 --set model.ssm_cfg.d_state=128
  --set model.ssm_cfg.chunk_size=256 --set data.seq_len=2048 --set train.batch_size=8 ${tiny[@]+"${tiny[@]}"})
cat >"$out/m130.yaml" <<'YAML'
name: m130
model: {preset: mamba2-130m, vocab_size: 50277}
data: {seq_len: 2048}
train: {batch_size: 16}
dtype: bf16
YAML
of_130m=(--device cuda --json --config "$out/m130.yaml" ${tiny[@]+"${tiny[@]}"})
steps() {
  "$aspis" bench step adamw "${of_130m[@]}" && "$aspis" bench step "${of_130m[@]}" --set model.preset=mamba3-180m &&
    "$aspis" bench decode "${of_130m[@]}"
}
others() { "$aspis" bench gemm norm conv dt gate swiglu attention cross_entropy mixers "${large[@]}"; }
if [ "$device" = simt ]; then
  part machine 300 "$aspis" bench machine "${large[@]}"
  part scans 300 "$aspis" bench scan_siso "${large[@]}"
  part steps 300 "$aspis" bench step "${large[@]}"
  part products 300 "$aspis" bench norm "${large[@]}"
else
  part machine 60 "$aspis" bench machine "${large[@]}"
  part scans 120 "$aspis" bench scan "${large[@]}"
  part steps 180 steps
  part products 180 others
fi

python_alone() { LD_LIBRARY_PATH=${own_libraries:-} python3 "$@"; }
if python_alone -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  part peers 180 python_alone "$source_dir/tests/gpu/peers.py"
else
  tell "peers        not here (PyTorch)"
fi

golden=$source_dir/tests/golden
if [ "$device" = simt ]; then
  golden=$out/golden
  mkdir -p "$golden" && cp "$source_dir/tests/golden/mixer_mamba3_softplus.h5" "$golden/"
fi
part golden 180 "$aspis" check --golden "$golden" --device cuda
if [ "$device" = cuda ]; then
  part training 400 env ASPIS_CUDA=cuda bash "$source_dir/tests/scripts/test_cuda_twin.sh" "$aspis" "$source_dir"
fi

if [ "$device" = cuda ] && ! $quick && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    part "$tool" 300 compute-sanitizer --tool $tool --error-exitcode 1 \
      "$aspis" train "$out/one.yaml" --quiet --out "$out/one-$tool" --set device=cuda
  done
  part memcheck-rows 300 compute-sanitizer --tool memcheck --error-exitcode 1 --target-processes all \
    "$build/tests/test_simt" --jobs 1 --filter 'simt/{ssm_dt,rms_norm,gated_norm,conv1d,swiglu,cross_entropy,embedding,gather}'
else
  tell "sanitizer    left out"
fi
[ $failures = 0 ] || { tell "$failures parts failed"; exit 1; }
tell "all parts passed"
