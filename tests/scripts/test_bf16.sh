#!/usr/bin/env bash
# Training in bf16 follows training in float32: over 500 steps the running means of 50 losses stay within 0.01 nats, for
# Mamba-2 and Mamba-3; and the curves do fall, and do differ.
source "$(dirname "$0")/common.sh"
export OMP_NUM_THREADS=1 # tiny steps

losses() { grep -oE '"loss": ?[0-9.e+-]+' "$1/metrics.jsonl" | sed 's/.*: *//'; }
for layer in Mamba2 Mamba3; do
  for dtype in f32 bf16; do
    "$aspis" train small.yaml --quiet --out $layer-$dtype --set dtype=$dtype --set model.ssm_cfg.layer=$layer \
      --set train.steps=500 --set train.eval_every=0 --set train.save_every=0 >/dev/null
  done
  paste <(losses $layer-f32) <(losses $layer-bf16) | awk -v layer=$layer '
    { f[NR] = $1; b[NR] = $2; sum_f += $1; sum_b += $2; if ($1 != $2) different = 1 }
    NR > 50 { sum_f -= f[NR - 50]; sum_b -= b[NR - 50] }
    NR >= 50 { d = (sum_b - sum_f) / 50; if (d < 0) d = -d; if (d > worst) worst = d }
    NR == 50 { first = sum_f / 50 }
    END {
      printf "%s: %d steps, loss %.3f to %.3f, bf16 off by at most %.4f\n", layer, NR, first, sum_f / 50, worst
      exit !(NR == 500 && different && sum_f / 50 < first - 0.2 && worst < 0.01)
    }' || fail "$layer: the bf16 curve is not the float32 one"
done
echo "ok: bf16 follows float32"
