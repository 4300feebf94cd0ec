#!/usr/bin/env bash
# Same bits: two runs; one and two threads; whatever is recomputed; plan and truth of the arenas.
source "$(dirname "$0")/common.sh"

OMP_NUM_THREADS=2 "$aspis" train small.yaml --quiet --out two >/dev/null
OMP_NUM_THREADS=2 "$aspis" train small.yaml --quiet --out again >/dev/null
OMP_NUM_THREADS=1 "$aspis" train small.yaml --quiet --out one >/dev/null
same_run two again "the same run twice"
same_run two one "one and two threads"
echo "ok: two runs, one and two threads"

OMP_NUM_THREADS=2 "$aspis" train small.yaml --quiet --out bf16-two --set dtype=bf16 >/dev/null
OMP_NUM_THREADS=1 "$aspis" train small.yaml --quiet --out bf16-one --set dtype=bf16 >/dev/null
same_run bf16-two bf16-one "one and two threads, bf16"
echo "ok: bf16"

for type in f32 bf16; do
  twin=$([ $type = f32 ] && echo two || echo bf16-two)
  "$aspis" convert $twin $twin-weights >/dev/null
  for recompute in mixer block; do
    "$aspis" train small.yaml --quiet --out $type-$recompute --set dtype=$type --set train.recompute=$recompute >/dev/null
    "$aspis" convert $type-$recompute $type-$recompute-weights >/dev/null
    cmp $twin-weights/model.safetensors $type-$recompute-weights/model.safetensors ||
      fail "recompute $recompute, $type: other weights"
    diff <(steady_metrics $twin) <(steady_metrics $type-$recompute) >/dev/null || fail "recompute $recompute, $type: other metrics"
  done
done
echo "ok: recompute mixer and block, f32 and bf16"

# The last evaluation is what eval says, and the arenas are what plan says.
trained=$(grep -o '"val_loss": *[0-9.e-]*' two/metrics.jsonl | tail -1 | sed 's/.*: *//')
evaluated=$("$aspis" eval two --json --quiet | sed -E 's/.*"nll": *([0-9.e-]*).*/\1/')
awk "BEGIN { d = $trained - $evaluated; exit !(d < 1e-6 && d > -1e-6) }" || fail "eval: $evaluated, training: $trained"
echo "ok: eval repeats the last evaluation ($evaluated)"

field() { sed -E "s/.*\"$1\": *([0-9]+).*/\1/"; }
OMP_NUM_THREADS=2 "$aspis" train small.yaml --verbose --out mem >/dev/null 2>mem.txt
for arena in weights step scratch; do
  planned=$(OMP_NUM_THREADS=2 "$aspis" plan small.yaml --json | field "${arena}_bytes")
  early=$(sed -nE "s/.*arenas at step 2: .*$arena ([0-9]+).*/\1/p" mem.txt)
  late=$(sed -nE "s/.*arenas at step 120: .*$arena ([0-9]+).*/\1/p" mem.txt)
  [ -n "$early" ] && [ "$early" = "$late" ] || fail "$arena: $early bytes at step 2, $late at step 120"
  awk "BEGIN { r = $planned / $late; exit !(r > 0.98 && r < 1.02) }" || fail "$arena: planned $planned, used $late"
  echo "ok: $arena: planned $planned, used $early at step 2 and $late at step 120"
done
