# What the end-to-end tests share: a small text, a small config, and words to fail with. Source it with the test's two
# arguments: PROGRAM SOURCE_DIR.
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

# Metrics without what may differ between runs: time, rate, memory, what was launched as graphs.
steady_metrics() { sed -E 's/,?"(tok_per_s|seconds|mem_mib|mfu|graph_steps)": ?[^,}]*//g' "$1/metrics.jsonl"; }

# The same weights, optimiser, step, metrics.
same_run() {
  cmp "$1/checkpoints/step-00000120.h5" "$2/checkpoints/step-00000120.h5" || fail "$3: the final checkpoints differ"
  diff <(steady_metrics "$1") <(steady_metrics "$2") >/dev/null || fail "$3: the metrics differ"
}
