#!/bin/sh
# Trains configs/quickstart.yaml to the end, scores it against guessing; its report is written on the way.
set -eu
cd "$(dirname "$0")/.."

run=runs/quickstart
echo "training configs/quickstart.yaml into $run: half a minute on two cores"
build/aspis train configs/quickstart.yaml --out $run --resume never
score=$(build/aspis eval $run --json --quiet | sed -E 's/.*"scaled_accuracy": ([-0-9.]+).*/\1/')
echo
echo "scaled accuracy on 64 bits: $score   (guessing: 0, all right: 100)"
echo "look at $run/report.html"
awk "BEGIN { exit !($score >= 90) }" || { echo "quickstart: expected at least 90" >&2; exit 1; }
