# What the end-to-end tests share: a small text, small configs, how ranks are started, and words to fail with. Source it with
# the test's two arguments: PROGRAM SOURCE_DIR.
set -euo pipefail
aspis=$1
source_dir=$2
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=2000
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*"
  exit 1
}

# 30,000 characters of changing sentences.
awk 'BEGIN { srand(7); split("the a king queen sword night day speaks sees and not what thou art my lord", w, " ");
  for (i = 0; i < 6000; i++) printf "%s%s", w[1 + int(rand() * 17)], rand() < 0.1 ? ".\n" : " " }' >text.txt

cat >small.yaml <<'EOF'
name: small
seed: 3
model:
  d_model: 32
  n_layer: 2
  d_intermediate: 64
  ssm_cfg: {layer: Mamba3, d_state: 16, headdim: 16, chunk_size: 16}
data: {kind: text, path: [text.txt], tokenizer: char, seq_len: 48}
optim: {lr: 2.0e-3, warmup_steps: 5}
train: {steps: 120, batch_size: 8, virtual_ranks: 4, eval_every: 40, eval_batches: 2, save_every: 5, log_every: 1}
EOF

# Smaller still, for the host's twin of a GPU (tests/simt), where every thread of a kernel costs: bases, which tests include.
head -c 3000 text.txt >tiny.txt
cat >tiny_lm.yaml <<'EOF'
name: tiny
seed: 5
model:
  d_model: 16
  n_layer: 2
  ssm_cfg: {layer: Mamba3, d_state: 8, headdim: 8, chunk_size: 16}
data: {kind: text, path: [tiny.txt], tokenizer: char, seq_len: 20}
optim: {lr: 3.0e-3, warmup_steps: 2}
train: {steps: 4, batch_size: 4, virtual_ranks: 2, eval_batches: 1, log_every: 1}
EOF
cat >tiny_series.yaml <<'EOF'
include: tiny_lm.yaml
name: series
model:
  task: forecast
  n_layer: 1
  context: 12
  horizon: 4
  ssm_cfg: {layer: Mamba2}
data: {kind: series, path: [], generate: {task: sine, rows: 120}}
EOF

# Two columns of hours, ROWS of them from the FROM-th on, and a forecaster of them.
hours() { # ROWS [FROM]
  awk -v n="$1" -v from="${2:-0}" 'BEGIN { print "date,load,heat"; for (t = from; t < from + n; t++)
    printf "%s,%.4f,%.4f\n", strftime("%Y-%m-%d %H:00:00", 1577836800 + 3600 * t, 1),
      100 + 20 * sin(0.2617993878 * t) + 3 * sin(1.7 * t * t), -5 + 4 * sin(0.2617993878 * t + 1) + 0.5 * sin(2.3 * t * t) }'
}
cat >hours.yaml <<'EOF'
name: hours
model: {task: forecast, context: 24, horizon: 6, d_model: 8, n_layer: 1, ssm_cfg: {layer: Mamba3, d_state: 8, headdim: 8, chunk_size: 8}}
data: {kind: series, path: [hours.csv], split: {train: 0.6, val: 0.2, test: 0.2}}
train: {steps: 3, batch_size: 4, eval_every: 3}
EOF

# refused CODE PHRASE COMMAND...: exit code, and one line on stderr (or LINES_WANTED) with the phrase. Its stdout is left in out.txt.
refused() {
  local code=0 wanted=$1 phrase=$2
  shift 2
  "$@" >out.txt 2>err.txt </dev/null || code=$?
  [ $code = "$wanted" ] || fail "$*: exit $code, expected $wanted: $(cat err.txt)"
  grep -qF -- "$phrase" err.txt || fail "$*: expected \"$phrase\", found: $(cat err.txt)"
  [ "$(wc -l <err.txt)" = "${LINES_WANTED:-1}" ] || fail "$*: expected ${LINES_WANTED:-1} lines, found: $(cat err.txt)"
  echo "ok: $code: $(tail -1 err.txt | cut -c1-150)"
}

# A port that nobody listens on; another process may still take it first, so tests are tried anew.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 20000))
    grep -qi ":$(printf %04X $port) 00000000:0000 0A" /proc/net/tcp || break
  done
  echo $port
}
# together NAME N STARTER TRAIN_ARGUMENT...: N ranks joined over TCP; `STARTER rank n port` prints the environment of a rank. Leaves
# NAME.<rank>.code, .txt and .err.
together() {
  local name=$1 n=$2 starter=$3 port rank pids=()
  shift 3
  port=$(free_port)
  for rank in $(seq 0 $((n - 1))); do
    env $($starter "$rank" "$n" "$port") "$aspis" train "$@" --quiet --out "$name" >"$name.$rank.txt" 2>"$name.$rank.err" &
    pids+=($!)
  done
  for rank in $(seq 0 $((n - 1))); do
    local code=0
    wait "${pids[$rank]}" || code=$?
    echo $code >"$name.$rank.code"
  done 2>/dev/null
}
by_aspis() { echo "ASPIS_RANK=$1 ASPIS_WORLD=$2 ASPIS_MASTER=localhost:$3"; }

# Metrics without what may differ between runs: time, rate, memory, what was launched as graphs.
steady_metrics() { sed -E 's/,?"(tok_per_s|seconds|mem_mib|mfu|graph_steps)": ?[^,}]*//g' "$1/metrics.jsonl"; }

# The same weights, optimiser, step, metrics.
same_run() {
  cmp "$1/checkpoints/step-00000120.h5" "$2/checkpoints/step-00000120.h5" || fail "$3: the final checkpoints differ"
  diff <(steady_metrics "$1") <(steady_metrics "$2") >/dev/null || fail "$3: the metrics differ"
}
